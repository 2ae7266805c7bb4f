"""Any bytes are a report that encodes to itself, or malformed; and none of them verifies."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import atheris

with atheris.instrument_imports():
    from adyton import tee
    from adyton.crypto.x509 import EndorsementSet
    from adyton.errors import EndorsementError, EvidenceError, MalformedEvidence
    from adyton.rats.types import TrustAnchors
    from adyton.tee.snp.abi import REPORT_SIZE, SnpReport

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NOTHING = EndorsementSet()


def one(data: bytes) -> None:
    if data[:1] == b"\xff":  # most random bytes have the wrong length: give them the right one, a version, an algorithm
        body = bytearray(data[2:].ljust(REPORT_SIZE, b"\0")[:REPORT_SIZE])
        body[0:4] = (2 + data[1] % 4 if len(data) > 1 else 3).to_bytes(4, "little")
        body[0x34:0x38] = b"\1\0\0\0"
        data = bytes(body)
    try:
        report = SnpReport.parse(data)
    except MalformedEvidence:
        pass
    else:
        assert report.encode() == data
        tee.show("snp", data)
    try:
        tee.verify("snp", data, endorsements=NOTHING, now=NOW, anchors=TrustAnchors())
    except (EvidenceError, EndorsementError):
        return
    raise AssertionError("verified without a certificate")


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
