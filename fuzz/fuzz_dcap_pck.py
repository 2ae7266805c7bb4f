"""Any bytes are Intel's certificate extension, read alike by both readers, or refused by both; and so for PEM chains."""

from __future__ import annotations

import contextlib
import sys
from datetime import UTC, datetime

import atheris

with atheris.instrument_imports():
    from adyton.devtee.dcap import DcapForge
    from adyton.devtee.dcap_certificates import Platform
    from adyton.errors import EndorsementMalformed
    from adyton.tee.dcap import pck
    from adyton.tee.dcap.documents import Reader

SAMPLES = [Platform().extension(), Platform(kind="processor", components=(255,) * 16, pcesvn=0xFFFF).extension()]
CHAIN = DcapForge.new(datetime(2026, 6, 1, tzinfo=UTC)).chain()


def read(data: bytes, reader: object) -> object:
    try:
        return reader(data)  # type: ignore[operator]  # one of the two below
    except (ValueError, KeyError):
        return None


def one(data: bytes) -> None:
    extension, chain = data, data
    if len(data) > 3 and data[0] >= 0x80:
        sample = bytearray(SAMPLES[data[0] % 2])
        place = int.from_bytes(data[1:3], "big") % len(sample)
        sample[place : place + len(data) - 3] = data[3:]
        extension = bytes(sample)
        text = bytearray(CHAIN)
        place = int.from_bytes(data[1:3], "big") % len(text)
        text[place : place + len(data) - 3] = data[3:]
        chain = bytes(text)
    assert read(extension, pck._parts) == read(extension, pck._slow_parts)
    with contextlib.suppress(EndorsementMalformed):
        Reader().certificates(chain)


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
