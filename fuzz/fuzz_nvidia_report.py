"""Any bytes are a report of a device that encodes to itself, or malformed, opaque data included; and none of them verifies."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import atheris

with atheris.instrument_imports():
    from adyton import tee
    from adyton.crypto.x509 import EndorsementSet
    from adyton.errors import EndorsementError, EvidenceError, MalformedEvidence
    from adyton.rats.types import TrustAnchors
    from adyton.tee.nvidia import abi, opaque

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NOTHING = EndorsementSet()


def one(data: bytes) -> None:
    if data[:1] == b"\xff":  # most random bytes have no heads that fit: give them some, and two digests
        record = b"".join(bytes((index, 1, 51, 0, 1, 48, 0)) + data[1:49].ljust(48, b"\0") for index in (1, 2))
        fields = data[49:2000]
        head = b"\x11\xe0\x01\xff" + bytes(33) + b"\x11\x60\0\0\2" + len(record).to_bytes(3, "little")
        data = head + record + bytes(32) + len(fields).to_bytes(2, "little") + fields + bytes(96)
    try:
        report = abi.parse(data)
    except MalformedEvidence:
        pass
    else:
        assert report.encode() == data
        try:
            opaque.read(report)
            tee.show("nvidia", data)
        except MalformedEvidence:
            pass
    try:
        tee.verify("nvidia", data, endorsements=NOTHING, now=NOW, anchors=TrustAnchors())
    except (EvidenceError, EndorsementError):
        return
    raise AssertionError("verified without a certificate")


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
