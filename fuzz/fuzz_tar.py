"""Archives of any bytes: one kind of error, nothing outside the root, no descriptor lost, whatever the piece size."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["adyton.image"]):
    from adyton.errors import ImageError, PlatformError
    from adyton.image import disk
    from adyton.image.compression import decompressed
    from adyton.image.limits import Limits
    from adyton.image.tar_stream import TarReader
    from adyton.image.unpack import unpack

LIMITS = Limits(unpacked_bytes=1 << 20, entries=200, depth=16, ratio=100, ratio_free_bytes=1 << 18)
WHERE = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def with_checksums(data: bytes) -> bytes:
    """The same bytes with every block's checksum made right, so that mutations reach what lies behind it."""
    out = bytearray(data)
    for at in range(0, len(out) - 511, 512):
        if any(out[at : at + 512]):
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + 512])
    return bytes(out)


def one(data: bytes) -> None:
    if len(data) < 2:
        return
    step = 1 + data[0] * 8
    archive = with_checksums(data[2:]) if data[1] & 1 else data[2:]
    with tempfile.TemporaryDirectory(prefix="fuzz-tar-", dir=WHERE) as place:
        (Path(place) / "canary").write_bytes(b"here")
        unpack_below(Path(place), [archive[at : at + step] for at in range(0, len(archive), step)])
        if names(Path(place)) != ["canary"] or (Path(place) / "canary").read_bytes() != b"here":
            raise AssertionError("something outside the root was touched")


def unpack_below(place: Path, pieces: list[bytes]) -> None:
    root = place / "root"
    root.mkdir()
    descriptor = disk.open_directory(root)
    before = len(names(Path("/proc/self/fd")))
    try:
        unpack(TarReader(decompressed(pieces, "none", LIMITS), LIMITS), descriptor, limits=LIMITS)
    except (ImageError, PlatformError):
        pass
    finally:
        if len(names(Path("/proc/self/fd"))) != before:
            raise AssertionError("a descriptor was lost")
        os.close(descriptor)
        disk.remove_tree(root)


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
