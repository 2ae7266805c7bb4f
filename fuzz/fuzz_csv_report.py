"""Any bytes are a CSV report that encodes to itself, or malformed; and none of them verifies."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import atheris

with atheris.instrument_imports():
    from adyton import tee
    from adyton.crypto.x509 import EndorsementSet
    from adyton.errors import EndorsementError, EvidenceError, MalformedEvidence
    from adyton.rats.types import TrustAnchors
    from adyton.tee.csv.abi import RAW_SIZES, CsvReport

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NOTHING = EndorsementSet()
SIZES = sorted(RAW_SIZES)


def one(data: bytes) -> None:
    if data[:1] == b"\xff":  # most random bytes have the wrong length: give them a right one
        size = SIZES[data[1] % len(SIZES)] if len(data) > 1 else SIZES[0]
        data = data[2:].ljust(size, b"\0")[:size]
    try:
        report = CsvReport.parse(data)
    except MalformedEvidence:
        pass
    else:
        assert report.encode() == data
        tee.show("csv", data)
    try:
        tee.verify("csv", data, endorsements=NOTHING, now=NOW, anchors=TrustAnchors())
    except (EvidenceError, EndorsementError):
        return
    raise AssertionError("verified without a certificate")


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
