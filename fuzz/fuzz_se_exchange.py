"""Any bytes are an exchange file that encodes to itself, or malformed; and no evidence verifies without its request."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import atheris

with atheris.instrument_imports():
    from adyton import tee
    from adyton.crypto.x509 import EndorsementSet
    from adyton.errors import MalformedEvidence, UnsupportedEvidence
    from adyton.rats.types import TrustAnchors
    from adyton.tee.se.exchange import Exchange
    from adyton.tee.se.request import AttestationRequest

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SEED = Exchange(b"request", b"m" * 64, b"a" * 64, b"user", b"c" * 16).encode()


def one(data: bytes) -> None:
    if data[:1] == b"\xff":  # put the bytes somewhere into something that is right
        at = data[1] % len(SEED) if len(data) > 1 else 0
        data = (SEED[:at] + data[2:] + SEED[at + len(data[2:]) :])[: len(SEED)]
    for read in (Exchange.parse, AttestationRequest.parse):
        try:
            parsed = read(data)
        except MalformedEvidence:
            continue
        assert parsed.encode() == data
    try:
        tee.verify("se", data, endorsements=EndorsementSet(), now=NOW, anchors=TrustAnchors())
    except (MalformedEvidence, UnsupportedEvidence):
        return
    raise AssertionError("verified without a request")


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
