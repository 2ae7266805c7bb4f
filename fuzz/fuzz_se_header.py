"""Any bytes are the header of an image that encodes to itself, or malformed; wherever it stands in the image."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from adyton.devtee import se as forging
    from adyton.errors import MalformedEvidence
    from adyton.tee.se import header

SEED = forging.image_header(b"\1" * 32, b"\2" * 32).encode()


def one(data: bytes) -> None:
    if data[:1] == b"\xff":  # put the bytes somewhere into something that is right
        at = int.from_bytes(data[1:3], "big") % len(SEED)
        data = (SEED[:at] + data[3:] + SEED[at + len(data[3:]) :])[: len(SEED)]
    try:
        parsed = header.SeHeader.parse(data)
    except MalformedEvidence:
        pass
    else:
        assert parsed.encode() == data
    try:
        found = header.find(data)
    except MalformedEvidence:
        return
    assert found.encode() in data


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
