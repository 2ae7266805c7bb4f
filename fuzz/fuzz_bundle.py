"""Any bytes are a bundle that is written again as the same items, or malformed. Digests are made right half of the time."""

from __future__ import annotations

import hashlib
import sys
import tarfile

import atheris

with atheris.instrument_imports():
    from adyton.collateral import bundle
    from adyton.errors import EndorsementMalformed


def _tar(data: bytes) -> bytes:
    """A tar of ours around what the fuzzer made: a manifest, and one content with its right digest."""
    manifest, _, content = data.partition(b"\0")
    out = b""
    for name, body in (("manifest.json", manifest), (f"blobs/{hashlib.sha256(content).hexdigest()}", content)):
        header = tarfile.TarInfo(name)
        header.size, header.mode = len(body), 0o644
        out += header.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)
    return out + bytes(1024)


def one(data: bytes) -> None:
    content = _tar(data[1:]) if data[:1] < b"\x80" else data[1:]
    try:
        items = bundle.read(content)
    except EndorsementMalformed:
        return
    assert {item.wanted.name for item in bundle.read(bundle.write(items))} == {item.wanted.name for item in items}


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
