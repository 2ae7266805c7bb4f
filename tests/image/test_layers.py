"""The pipeline against damaged, hostile and endless layers first; then that a good one arrives whole."""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton.errors import DecryptionFailed, DigestMismatch, ImageError, MalformedImage, PlatformError, Unavailable
from adyton.image.compression import decompressed
from adyton.image.layer_cipher import LayerEncryptor
from adyton.image.layers import Layer, Watch, place_layer
from adyton.image.limits import DEFAULT, Limits
from adyton.image.manifest import Descriptor
from adyton.image.media_types import Compression
from adyton.image.ocicrypt import LayerKey
from adyton.image.source import BlobStream
from adyton.rats.types import Digest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

KINDS: list[Compression] = ["none", "gzip", "zstd"]


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.gid = len(data), os.geteuid(), os.getegid()
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def compress(data: bytes, kind: Compression) -> bytes:
    return {"none": lambda: data, "gzip": lambda: gzip.compress(data, 1), "zstd": lambda: zstd.compress(data, 1)}[
        kind
    ]()


def made(tar: bytes, kind: Compression, *, encrypted: bool = False) -> tuple[bytes, Layer]:
    """A layer's blob, and what it must be."""
    blob = compress(tar, kind)
    key = None
    if encrypted:
        encryptor = LayerEncryptor(b"k" * 32, b"n" * 16)
        blob = encryptor.update(blob)
        sealed = encryptor.finish()
        key = LayerKey(b"k" * 32, b"n" * 16, sealed.plain, sealed.hmac)
    return blob, Layer(Digest.of(blob), len(blob), Digest.of(tar), kind, key)


class Short(io.BytesIO):
    """A stream that gives little at a time, as networks do."""

    def readinto(self, buffer: object, /) -> int:
        return super().readinto(memoryview(buffer)[:700])  # type: ignore[arg-type]


def file_of(blob: bytes) -> io.FileIO:
    """The blob as a file at hand, whose layer is worked by as many threads as there are cores."""
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - the caller closes it
    file.write(blob)
    file.seek(0)
    assert isinstance(file, io.FileIO)
    return file


TREE = {f"usr/lib/{n}": os.urandom(n * 37) for n in range(60)} | {"big": bytes(3_000_000) + os.urandom(900_000)}


def left(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("opened", [io.BytesIO, Short, file_of])
def test_a_good_layer_arrives_whole_and_only_then(
    kind: Compression, encrypted: bool, opened: Callable[[bytes], BlobStream], tmp_path: Path
) -> None:
    blob, layer = made(archive(TREE), kind, encrypted=encrypted)
    read: list[int] = []
    kept = bytearray()
    seen: list[list[str]] = []

    def keep(piece: memoryview) -> None:
        kept.extend(piece)
        seen.append([name for name in left(tmp_path) if not name.startswith(".")])

    with contextlib.closing(opened(blob)) as stream:
        done = place_layer(stream, layer, tmp_path / "layer", watch=Watch(read.append, keep))
    assert {
        str(p.relative_to(tmp_path / "layer")): p.read_bytes() for p in (tmp_path / "layer").rglob("*") if p.is_file()
    } == TREE
    assert done.file_bytes == sum(map(len, TREE.values()))
    assert (sum(read), bytes(kept)) == (len(blob), blob)
    assert left(tmp_path) == ["layer"]
    assert all(not names for names in seen)


def refused(blob: bytes, layer: Layer, place: Path, limits: Limits = DEFAULT) -> ImageError:
    """The error, which is the same from a network and from a file."""
    found = []
    for opened in (Short, file_of):
        threads = threading.active_count()
        with contextlib.closing(opened(blob)) as stream, pytest.raises(ImageError) as error:
            place_layer(stream, layer, place / "layer", limits=limits)
        assert left(place) == []
        assert threading.active_count() == threads
        found.append(error.value)
    assert (type(found[0]), found[0].code) == (type(found[1]), found[1].code)
    return found[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encrypted", [False, True])
def test_any_changed_byte_is_a_digest_mismatch(kind: Compression, encrypted: bool, tmp_path: Path) -> None:
    blob, layer = made(archive({"f": os.urandom(20_000)}), kind, encrypted=encrypted)
    for at in {0, 1, 4, 300, len(blob) // 2, len(blob) - 1500, len(blob) - 3, len(blob) - 1}:
        changed = bytearray(blob)
        changed[at] ^= 0x20
        assert refused(bytes(changed), layer, tmp_path).code == "blob_mismatch"
    assert refused(blob[:-1], layer, tmp_path).code == "blob_mismatch"
    assert refused(blob + b"x", layer, tmp_path).code == "blob_mismatch"
    assert refused(b"", layer, tmp_path).code == "blob_mismatch"


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_layer_whose_digest_was_changed_too_fails_its_mac(kind: Compression, tmp_path: Path) -> None:
    blob, layer = made(archive({"f": os.urandom(20_000)}), kind, encrypted=True)
    for at in (0, 300, len(blob) - 1):
        changed = bytearray(blob)
        changed[at] ^= 1
        forged = Layer(Digest.of(bytes(changed)), layer.size, layer.diff_id, kind, layer.key)
        with pytest.raises(DecryptionFailed) as error:
            place_layer(io.BytesIO(changed), forged, tmp_path / "layer")
        assert error.value.code == "layer_mac"
        assert left(tmp_path) == []


def test_a_wrong_key_is_said_to_be_one(tmp_path: Path) -> None:
    blob, layer = made(archive(TREE), "gzip", encrypted=True)
    assert layer.key is not None
    other = LayerKey(b"K" * 32, layer.key.nonce, layer.key.digest, layer.key.hmac)
    with pytest.raises(DecryptionFailed):
        place_layer(io.BytesIO(blob), Layer(layer.blob, layer.size, layer.diff_id, "gzip", other), tmp_path / "layer")
    assert left(tmp_path) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_diff_id_is_refused(kind: Compression, tmp_path: Path) -> None:
    blob, layer = made(archive(TREE), kind)
    wrong = Layer(layer.blob, layer.size, Digest.of(b"another"), kind)
    assert refused(blob, wrong, tmp_path).code == "diff_id_mismatch"
    with pytest.raises(DigestMismatch, match="configuration"):
        place_layer(io.BytesIO(blob), wrong, tmp_path / "layer")


def test_what_follows_the_archive_counts(tmp_path: Path) -> None:
    tar = archive(TREE)
    blob = compress(tar + b"hidden" * 1000, "gzip")
    layer = Layer(Digest.of(blob), len(blob), Digest.of(tar), "gzip")
    assert refused(blob, layer, tmp_path).code == "diff_id_mismatch"


def test_a_sound_blob_of_a_broken_archive_is_malformed(tmp_path: Path) -> None:
    for tar in (b"x" * 5000, archive(TREE)[:-200_000], archive({"../out": b"x"})):
        blob, layer = made(tar, "gzip")
        assert isinstance(refused(blob, layer, tmp_path), MalformedImage)


def test_a_layer_of_sha512_digests(tmp_path: Path) -> None:
    tar = archive(TREE)
    place_layer(
        io.BytesIO(tar), Layer(Digest.of(tar, "sha512"), len(tar), Digest.of(tar, "sha512")), tmp_path / "layer"
    )
    assert left(tmp_path) == ["layer"]


def test_an_empty_layer_without_entries(tmp_path: Path) -> None:
    for number, kind in enumerate(KINDS):
        blob, layer = made(bytes(1024), kind)
        place_layer(io.BytesIO(blob), layer, tmp_path / str(number))


class Bomb:
    """Gzip or zstd that expands without end; its descriptor claims to be enormous."""

    def __init__(self, kind: Compression) -> None:
        info = tarfile.TarInfo("zeros")
        info.size = 1 << 40
        head = info.tobuf(tarfile.GNU_FORMAT)
        if kind == "gzip":
            packer = zlib.compressobj(9, zlib.DEFLATED, 31)
            self._start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
            self._more = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
        else:
            self._start, self._more = zstd.compress(head), zstd.compress(bytes(1 << 20))
        self.given = 0
        self._parts = itertools.chain([self._start], itertools.repeat(self._more))
        self._rest = b""

    def readinto(self, buffer: memoryview, /) -> int:
        while len(self._rest) < len(buffer):
            self._rest += next(self._parts)
        count = len(buffer)
        buffer[:], self._rest = self._rest[:count], self._rest[count:]
        self.given += count
        return count

    def read(self, size: int = -1, /) -> bytes:
        raise NotImplementedError

    def close(self) -> None:
        pass


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@pytest.mark.parametrize("limits", [Limits(unpacked_bytes=64 << 20), Limits(ratio=100, ratio_free_bytes=32 << 20)])
def test_a_stream_that_grows_without_end_stops_at_the_limit(kind: Compression, limits: Limits, tmp_path: Path) -> None:
    bomb = Bomb(kind)
    layer = Layer(Digest.of(b""), 1 << 40, Digest.of(b""), kind)
    with pytest.raises(MalformedImage) as error:
        place_layer(bomb, layer, tmp_path / "layer", limits=limits)
    assert error.value.code == "layer_over_limit"
    assert error.value.hint
    assert left(tmp_path) == []
    assert bomb.given < 32 << 20


def test_a_frame_that_wants_a_huge_window_is_refused(tmp_path: Path) -> None:
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    tar = archive({"f": bytes(200 << 20)})
    blob = packer.compress(tar) + packer.flush()
    layer = Layer(Digest.of(blob), len(blob), Digest.of(tar), "zstd")
    assert refused(blob, layer, tmp_path).code == "layer_compression"


@pytest.mark.parametrize("opened", [io.BytesIO, file_of])
def test_stopping_from_outside_leaves_nothing(opened: Callable[[bytes], BlobStream], tmp_path: Path) -> None:
    blob, layer = made(archive(TREE), "gzip")
    stop = threading.Event()
    with contextlib.closing(opened(blob)) as stream, pytest.raises(Unavailable):
        place_layer(stream, layer, tmp_path / "layer", watch=Watch(read=lambda _: stop.set(), stop=stop))
    assert left(tmp_path) == []


def test_a_stream_that_breaks_is_unavailable(tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def readinto(self, buffer: object, /) -> int:
            if self.tell() > 5000:
                raise Unavailable("gone")
            return super().readinto(memoryview(buffer)[:1000])  # type: ignore[arg-type]

    blob, layer = made(archive(TREE), "gzip")
    with pytest.raises(Unavailable):
        place_layer(Broken(blob), layer, tmp_path / "layer")
    assert left(tmp_path) == []


@pytest.mark.root
def test_a_full_disk_is_said_and_nothing_stays(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path], check=True)
    try:
        blob, layer = made(archive(TREE), "zstd")
        threads = threading.active_count()
        for opened in (io.BytesIO, file_of):
            with contextlib.closing(opened(blob)) as stream, pytest.raises(PlatformError) as error:
                place_layer(stream, layer, tmp_path / "layer")
            assert (error.value.code, left(tmp_path)) == ("disk_full", [])
            assert error.value.hint
            assert threading.active_count() == threads
        files = {f"d{n}/f": b"" for n in range(40)}
        subprocess.run(["mount", "-o", "remount,nr_inodes=50", tmp_path], check=True)
        blob, layer = made(archive(files), "gzip")
        with pytest.raises(PlatformError):
            place_layer(io.BytesIO(blob), layer, tmp_path / "layer")
        assert left(tmp_path) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_key_belongs_to_an_encrypted_layer_and_only_to_one() -> None:
    plain = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", Digest.of(b""), 0)
    sealed = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", Digest.of(b""), 0)
    key = LayerKey(b"k" * 32, b"n" * 16, Digest.of(b""), b"m" * 32)
    assert Layer.of(plain, Digest.of(b"")).compression == "gzip"
    assert Layer.of(sealed, Digest.of(b""), key).key is key
    with pytest.raises(ValueError, match="key"):
        Layer.of(sealed, Digest.of(b""))
    with pytest.raises(ValueError, match="key"):
        Layer.of(plain, Digest.of(b""), key)


def expanded(data: bytes, stated: Compression, step: int = 1 << 16) -> bytes:
    return b"".join(decompressed((data[at : at + step] for at in range(0, len(data), step)), stated))


SKIPPABLE = b"\x5e\x2a\x4d\x18\x03\0\0\0abc"


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.binary(max_size=5000), min_size=1, max_size=4), step=st.integers(1, 4000))
def test_members_and_frames_are_joined(parts: list[bytes], step: int) -> None:
    whole = b"".join(parts)
    assert expanded(b"".join(map(gzip.compress, parts)), "gzip", step) == whole
    assert expanded(b"".join(map(gzip.compress, parts)) + bytes(777), "gzip", step) == whole
    assert expanded(b"".join(map(zstd.compress, parts)), "zstd", step) == whole
    assert expanded(SKIPPABLE + SKIPPABLE.join(map(zstd.compress, parts)) + SKIPPABLE, "zstd", step) == whole


def test_what_the_bytes_are_decides() -> None:
    assert expanded(gzip.compress(b"data"), "none") == expanded(zstd.compress(b"data"), "gzip") == b"data"
    assert expanded(b"data", "none") == b"data"
    for stated in ("gzip", "zstd"):
        for data in (b"data", b"", b"\x1f"):
            with pytest.raises(MalformedImage):
                expanded(data, stated)


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_cut_and_followed_by_rubbish(kind: Compression) -> None:
    packed = compress(os.urandom(5000), kind)
    for damaged in (packed[:-1], packed[:30], packed + b"rubbish", packed + packed[:20], packed[:100] + b"\xff" * 5000):
        for step in (1 << 16, 13):
            with pytest.raises(MalformedImage):
                expanded(damaged, kind, step)


MEMORY = """
import hashlib, io, sys, tarfile, zlib
from pathlib import Path
from adyton.image.layers import Layer, place_layer
from adyton.rats.types import Digest

class Made:
    "A layer of two files that is compressed as it is read: the process never holds it."
    def __init__(self, size):
        self.packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        self.rest = b""
        self.parts = self.make(size)
    def make(self, size):
        block = b"".join(hashlib.sha256(b"%d" % n).digest() * 4 for n in range(8192))
        for name in "ab":
            info = tarfile.TarInfo(name); info.size = size
            yield self.packer.compress(info.tobuf())
            for _ in range(size // len(block)):
                yield self.packer.compress(block)
        yield self.packer.compress(bytes(1024)) + self.packer.flush()
    def readinto(self, buffer):
        while not self.rest:
            try: self.rest = next(self.parts)
            except StopIteration: return 0
        count = min(len(buffer), len(self.rest))
        buffer[:count] = self.rest[:count]
        self.rest = self.rest[count:]
        return count

size = int(sys.argv[1]) << 20
blob, plain, length = hashlib.sha256(), hashlib.sha256(), 0
source, unpacker = Made(size), zlib.decompressobj(31)
buffer = memoryview(bytearray(1 << 20))
while n := source.readinto(buffer):
    blob.update(buffer[:n]); plain.update(unpacker.decompress(buffer[:n])); length += n
layer = Layer(Digest("sha256", blob.digest()), length, Digest("sha256", plain.digest()), "gzip")
place_layer(Made(size), layer, Path(sys.argv[2]))
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_layer(tmp_path: Path) -> None:
    peaks = []
    for size in (16, 192):
        out = subprocess.run(
            [sys.executable, "-c", MEMORY, str(size), tmp_path / str(size)], check=True, capture_output=True, text=True
        )
        peaks.append(int(out.stdout) / 1024)
    assert max(peaks) < 150
    assert abs(peaks[1] - peaks[0]) < 20


def descriptors() -> Iterator[str]:
    for path in Path("/proc/self/fd").iterdir():
        yield path.name


def test_no_descriptor_is_lost(tmp_path: Path) -> None:
    before = len(list(descriptors()))
    blob, layer = made(archive({f"{n}/{n}/f": b"x" for n in range(300)}), "gzip")
    place_layer(io.BytesIO(blob), layer, tmp_path / "layer")
    for number in range(3):
        with pytest.raises(DigestMismatch):
            place_layer(io.BytesIO(blob[:-10]), layer, tmp_path / f"layer{number}")
    assert len(list(descriptors())) == before
