"""Any bytes as TPM evidence are malformed or refused; none of them verifies with a certificate or a pin."""

from __future__ import annotations

import contextlib
import sys
from datetime import UTC, datetime

import atheris

with atheris.instrument_imports():
    from adyton import tee
    from adyton.crypto.x509 import EndorsementSet
    from adyton.errors import EndorsementError, EvidenceError
    from adyton.rats.types import TrustAnchors
    from adyton.tee.tpm import verify as room  # noqa: F401 -- so that it is instrumented

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ONLY = TrustAnchors(vendor=False, custom=frozenset({bytes(32)}))
HEADS = (b"", b'{"ak_public":"', b'{"quotes":[{"message":"/1RDR4AY', b'{"tpm_quote":{"signature":"ABQACw')


def one(data: bytes) -> None:
    candidate = HEADS[data[0] % len(HEADS)] + data[1:] if data else data
    with contextlib.suppress(EvidenceError):
        tee.show("tpm", candidate)
    try:
        tee.verify("tpm", candidate, endorsements=EndorsementSet(), now=NOW, anchors=ONLY)
    except (EvidenceError, EndorsementError):
        return
    raise AssertionError("verified under a key that nobody trusts")


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
