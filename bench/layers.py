"""How fast a layer becomes a directory: our pipeline against the obvious one and against its own slowest stage.

``pipeline_over_obvious``        wall time against zlib (or zstd), hashlib, the same cipher and ``tarfile``, one thread
``pipeline_over_slowest_stage``  wall time against the slowest of its own stages run alone
``pipeline_over_cores_bound``    wall time against all stages' time spread evenly over the cores, which nothing can beat
``cores_bound_over_slowest_stage``  what ``pipeline_over_slowest_stage`` would be if it met that bound
``pipeline_cpu_over_stages_cpu``    CPU of the pipeline against that of its stages alone: also on a machine that is busy
``untar_over_gnu_tar_cpu``       CPU (user and system) of unpacking 30,000 small files against GNU tar's
``peak_memory_mib``              of a process that does nothing but the pipeline

The archive is made of this machine's own files (programs, libraries, Python's sources), so that sizes and compression
are those of images. All work is on tmpfs where there is one: a disk would time its cache, not us. Results of both sides
are compared entry by entry before anything is timed.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import io
import json
import os
import resource
import stat
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from adyton.image import disk
from adyton.image.compression import decompressed
from adyton.image.layer_cipher import LayerEncryptor
from adyton.image.layers import Layer, unpack_layer
from adyton.image.media_types import Compression
from adyton.image.ocicrypt import LayerKey
from adyton.image.tar_stream import TarReader
from adyton.image.unpack import unpack
from adyton.rats.types import Digest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHUNK = 512 << 10
SYMKEY, NONCE = bytes(range(32)), bytes(range(16))
SMALL_FILES = 30_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="128 MiB instead of 1 GiB, fewer repetitions")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--where", type=Path, default=Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None)
    parser.add_argument("--only-pipeline", nargs=4, help=argparse.SUPPRESS)  # blob, layer as JSON, target, key
    arguments = parser.parse_args()
    if arguments.only_pipeline:
        alone(*arguments.only_pipeline)
        return
    place = Path(tempfile.mkdtemp(prefix="adyton-bench-", dir=arguments.where))
    try:
        figures = run(
            place,
            size=(128 if arguments.quick else 1024) << 20,
            times=2 if arguments.quick else 3,
            quiet=arguments.json,
        )
    finally:
        disk.remove_tree(place)
    if arguments.json:
        print(json.dumps(figures))


def run(place: Path, *, size: int, times: int, quiet: bool) -> dict[str, float]:
    say = (lambda *_: None) if quiet else print
    archive = place / "layer.tar"
    entries = real_archive(archive, size)
    length = archive.stat().st_size
    say(f"layer: {length >> 20} MiB unpacked, {entries} entries, on {filesystem(place)} ({place})")
    figures: dict[str, float] = {}
    for kind in ("gzip", "zstd"):
        blob, layer = sealed(archive, place / f"blob.{kind}", kind)
        say(f"\n{kind}, encrypted: {layer.size >> 20} MiB (1 : {length / layer.size:.2f})")
        check(place, blob, layer)
        figures |= one_kind(blob, layer, archive, times, say)
        blob.unlink()
    archive.unlink()
    figures["untar_over_gnu_tar_cpu"] = small_files(place, 2 * times + 1, say)
    say()
    for name, value in figures.items():
        say(f"{name:36} {value:8.3f}")
    return figures


def one_kind(blob: Path, layer: Layer, archive: Path, times: int, say: Callable[..., object]) -> dict[str, float]:
    kind, place = layer.compression, archive.parent
    mine = place / "mine"
    stages = {
        "blob digest": lambda: feed(hashlib.sha256().update, blob),
        "HMAC": lambda: feed(hmac.new(SYMKEY, digestmod="sha256").update, blob),
        "AES-CTR": lambda: feed(Cipher(AES(SYMKEY), CTR(NONCE)).decryptor().update, blob),
        "decompress": lambda: exhaust(decompressed(decrypted(blob), kind)),
        "diff id": lambda: feed(hashlib.sha256().update, archive),
        "unpack": lambda: unpack_plain(archive, mine),
    }
    # decompression alone: without the cipher that feeds it
    plain = place / "plain"
    with plain.open("wb") as file:
        for piece in decrypted(blob):
            file.write(piece)
    stages["decompress"] = lambda: exhaust(decompressed(pieces(plain), kind))
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in (*stages, "pipeline", "obvious")}
    for _ in range(times):
        for name, stage in stages.items():
            results[name].append(timed(stage, mine))
        results["pipeline"].append(timed(lambda: pipeline(blob, layer, mine), mine))
        results["obvious"].append(timed(lambda: obvious(blob, layer, mine), mine))
    plain.unlink()
    best = {name: min(seconds for seconds, _ in values) for name, values in results.items()}
    processor = {name: min(seconds for _, seconds in values) for name, values in results.items()}
    slowest = max(stages, key=lambda name: best[name])
    length = archive.stat().st_size
    for name, seconds in best.items():
        mark = "  slowest stage" if name == slowest else ""
        rate = f"{length / seconds / 1e6:7.0f} MB/s unpacked"
        say(f"  {name:12} {seconds:7.3f} s  CPU {processor[name]:7.3f} s  {rate}{mark}")
    bound = max(best[slowest], sum(best[name] for name in stages) / (os.cpu_count() or 1))
    say(f"  {'cores bound':12} {bound:7.3f} s  all stages spread over {os.cpu_count()} cores")
    return {
        f"{kind}_pipeline_over_cores_bound": best["pipeline"] / bound,
        f"{kind}_cores_bound_over_slowest_stage": bound / best[slowest],
        f"{kind}_pipeline_cpu_over_stages_cpu": processor["pipeline"] / sum(processor[name] for name in stages),
        f"{kind}_pipeline_over_obvious": best["pipeline"] / best["obvious"],
        f"{kind}_pipeline_over_slowest_stage": best["pipeline"] / best[slowest],
        f"{kind}_peak_memory_mib": peak_memory(blob, layer, mine),
    }


def real_archive(path: Path, size: int) -> int:
    """An archive of ``size`` bytes of this machine's files, mixed by the digest of their names, in one order always."""
    found = []
    for top in ("/usr/lib", "/usr/bin", "/usr/share", "/usr/sbin"):
        for folder, _, names in os.walk(top):
            for name in names:
                source = Path(folder, name)
                at = source.lstat()
                if stat.S_ISREG(at.st_mode) and at.st_size < size // 16 and os.access(source, os.R_OK):
                    found.append((hashlib.sha256(str(source).encode()).digest(), source))
    found.sort()
    count = 0
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(1000):
            for _, source in found:
                if tar.offset >= size:
                    return count
                info = tar.gettarinfo(source, f"copy{number}{source}")
                info.type, info.linkname, info.uid, info.gid = tarfile.REGTYPE, "", os.geteuid(), os.getegid()
                info.uname = info.gname = ""  # tarfile would go by these, layers go by number
                info.size, info.mtime = source.stat().st_size, int(info.mtime)
                with source.open("rb") as data:
                    tar.addfile(info, data)
                count += 1
    raise AssertionError("this machine has too few files for the benchmark")


def sealed(archive: Path, target: Path, kind: Compression) -> tuple[Path, Layer]:
    """The archive compressed at the tools' usual level and encrypted, and what its layer must be."""
    encryptor = LayerEncryptor(SYMKEY, NONCE)
    compress: Callable[[bytes], bytes]
    finish: Callable[[], bytes]
    if kind == "gzip":
        compressor = zlib.compressobj(6, zlib.DEFLATED, 31)
        compress, finish = compressor.compress, compressor.flush
    else:
        frame = zstd.ZstdCompressor(level=3)
        compress, finish = frame.compress, frame.flush
    digest = hashlib.sha256()
    with target.open("wb") as out:
        for piece in pieces(archive):
            digest.update(piece)
            out.write(encryptor.update(compress(piece)))
        out.write(encryptor.update(finish()))
    done = encryptor.finish()
    key = LayerKey(SYMKEY, NONCE, done.plain, done.hmac)
    return target, Layer(done.cipher, done.size, Digest("sha256", digest.digest()), kind, key)


def pipeline(blob: Path, layer: Layer, target: Path) -> None:
    with blob.open("rb", buffering=0) as stream:
        unpack_layer(stream, layer, target)


def obvious(blob: Path, layer: Layer, target: Path) -> None:
    """What one would write: each library the usual one, one step after the other, one thread."""
    stream = ObviousStream(blob, layer)
    with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as tar:
        tar.extractall(target, filter="fully_trusted")
    while stream.read(CHUNK):
        pass
    if stream.blob.digest() != layer.blob.value or stream.diff.digest() != layer.diff_id.value:
        raise AssertionError("the obvious one disagrees")
    if layer.key is None or stream.mac.digest() != layer.key.hmac:
        raise AssertionError("the obvious one's MAC disagrees")


class ObviousStream(io.RawIOBase):
    """Digest, MAC, cipher, decompressor and diff id behind ``read``."""

    def __init__(self, blob: Path, layer: Layer) -> None:
        self._file = blob.open("rb")
        self.blob, self.diff = hashlib.sha256(), hashlib.sha256()
        self.mac = hmac.new(SYMKEY, digestmod="sha256")
        self._cipher = Cipher(AES(SYMKEY), CTR(NONCE)).decryptor()
        self._decompress = (
            zlib.decompressobj(31).decompress if layer.compression == "gzip" else zstd.ZstdDecompressor().decompress
        )
        self._ready = b""

    def read(self, size: int = -1) -> bytes:
        """Uncompressed bytes, at most ``size``."""
        while not self._ready:
            data = self._file.read(CHUNK // 4)
            if not data:
                return b""
            self.blob.update(data)
            self.mac.update(data)
            data = self._cipher.update(data)
            self._ready = self._decompress(data)
        ready, self._ready = self._ready[:size], self._ready[size:]
        self.diff.update(ready)
        return ready


def check(place: Path, blob: Path, layer: Layer) -> None:
    """Both sides give the same tree."""
    mine, theirs = place / "mine", place / "theirs"
    for target, work in ((mine, pipeline), (theirs, obvious)):
        target.mkdir()
        work(blob, layer, target)
    if listing(mine) != listing(theirs):
        raise AssertionError("the two trees differ")
    disk.remove_tree(mine)
    disk.remove_tree(theirs)


def listing(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        at = path.lstat()
        digest.update(f"{path.relative_to(root)} {at.st_mode:o} {at.st_size} {at.st_uid}:{at.st_gid}\n".encode())
        if path.is_file() and not path.is_symlink():
            digest.update(f"{at.st_mtime_ns}".encode() + path.read_bytes())
    return digest.hexdigest()


def small_files(place: Path, times: int, say: Callable[..., object]) -> float:
    """CPU of both for 30,000 files of up to 3 kB in 600 directories, alternating; the ratio of the medians."""
    archive = place / "small.tar"
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
        for number in range(SMALL_FILES):
            folder = f"usr/lib/d{number // 1000}/p{number // 50}"
            if number % 50 == 0:
                info = tarfile.TarInfo(folder)
                info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, 0o755, os.geteuid(), os.getegid()
                tar.addfile(info)
            info = tarfile.TarInfo(f"{folder}/file{number}.py")
            info.size, info.mtime = 200 + number * 37 % 3000, 1_700_000_000 + number
            info.uid, info.gid = os.geteuid(), os.getegid()
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    ours, gnu = [], []
    mine, theirs = place / "mine", place / "theirs"
    for turn in range(times):
        mine.mkdir()
        before = resource.getrusage(resource.RUSAGE_SELF)
        unpack_plain(archive, mine)
        ours.append(cpu(before, resource.getrusage(resource.RUSAGE_SELF)))
        theirs.mkdir()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(["tar", "-xf", archive, "-C", theirs], check=True)
        gnu.append(cpu(before, resource.getrusage(resource.RUSAGE_CHILDREN)))
        if turn == 0 and listing(mine) != listing(theirs):
            raise AssertionError("the two trees differ")
        disk.remove_tree(mine)
        disk.remove_tree(theirs)
    archive.unlink()
    say(f"\n{SMALL_FILES} small files, CPU per file (median of {times})")
    say(f"  ours      {statistics.median(ours) / SMALL_FILES * 1e6:6.1f} µs")
    say(f"  GNU tar   {statistics.median(gnu) / SMALL_FILES * 1e6:6.1f} µs")
    return statistics.median(ours) / statistics.median(gnu)


def cpu(before: resource.struct_rusage, after: resource.struct_rusage) -> float:
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def peak_memory(blob: Path, layer: Layer, target: Path) -> float:
    """Peak resident memory in MiB of a fresh process that unpacks the layer."""
    if layer.key is None:
        raise AssertionError("the layer is encrypted")
    target.mkdir()
    facts = json.dumps([str(layer.blob), layer.size, str(layer.diff_id), layer.compression])
    keys = json.dumps([str(layer.key.digest), layer.key.hmac.hex()])
    out = subprocess.run(
        [sys.executable, __file__, "--only-pipeline", blob, facts, target, keys], check=True, capture_output=True
    )
    disk.remove_tree(target)
    return int(out.stdout) / 1024


def alone(blob: str, facts: str, target: str, keys: str) -> None:
    digest, size, diff_id, kind = json.loads(facts)
    plain, mac = json.loads(keys)
    key = LayerKey(SYMKEY, NONCE, Digest.parse(plain), bytes.fromhex(mac))
    pipeline(Path(blob), Layer(Digest.parse(digest), size, Digest.parse(diff_id), kind, key), Path(target))
    status = (
        Path("/proc/self/status").read_text().splitlines()
    )  # ru_maxrss would count the process that started this one
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))


def timed(work: Callable[[], object], target: Path) -> tuple[float, float]:
    """Wall time and CPU time of all threads."""
    target.mkdir()
    start, busy = time.perf_counter(), time.process_time()
    work()
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    disk.remove_tree(target)
    return seconds, busy


def pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while data := file.read(CHUNK):
            yield data


def decrypted(blob: Path) -> Iterator[bytes]:
    cipher = Cipher(AES(SYMKEY), CTR(NONCE)).decryptor()
    return (cipher.update(data) for data in pieces(blob))


def feed(update: Callable[[bytes], object], path: Path) -> None:
    for data in pieces(path):
        update(data)


def exhaust(source: Iterator[bytes]) -> None:
    for _ in source:
        pass


def unpack_plain(archive: Path, target: Path) -> None:
    root = disk.open_directory(target)
    try:
        unpack(TarReader(pieces(archive)), root)
    finally:
        os.close(root)


def filesystem(place: Path) -> str:
    out = subprocess.run(["stat", "-f", "-c", "%T", place], capture_output=True, text=True, check=False)
    return out.stdout.strip() or "an unknown file system"


if __name__ == "__main__":
    main()
