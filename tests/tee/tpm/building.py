"""What the tests of TPM evidence share: a time, a nonce, quotes over banks, and a call of the door."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.tpm import QuoteFields, SoftTpm
from adyton.rats.types import Revocation, TrustAnchors, VerifiedEvidence

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
NONCE = bytes(range(64))


def quotes(tpm: SoftTpm, *banks: str, nonce: bytes = NONCE, **changes: Any) -> list[tuple[bytes, bytes]]:
    """One quote over all PCRs of each bank."""
    return [
        tpm.quote(QuoteFields(extra_data=nonce, selections=((bank, range(24)),), **changes))
        for bank in banks or ("sha256",)
    ]


def verify(evidence: bytes, **changes: Any) -> VerifiedEvidence:
    """Through the door, with nothing but defaults."""
    given: dict[str, Any] = {
        "endorsements": EndorsementSet(),
        "now": NOW,
        "anchors": TrustAnchors(),
        "revocation": Revocation.REQUIRED,
        **changes,
    }
    return tee.verify("tpm", evidence, **given)
