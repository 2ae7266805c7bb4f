"""One chain for all tests of the room, and the call that they make."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.nitro import Forge
from adyton.rats.types import TrustAnchors, VerifiedEvidence

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Nitro:
    """A forge whose root is trusted."""

    def __init__(self) -> None:
        self.now = NOW
        self.forge = Forge.new(NOW)
        self.anchors = TrustAnchors(vendor=False, custom=frozenset({self.forge.root_fingerprint}))

    def verify(self, document: bytes, *crls: bytes, **changes: Any) -> VerifiedEvidence:
        call: dict[str, Any] = {
            "now": NOW,
            "anchors": self.anchors,
            "endorsements": EndorsementSet.parse(crls),
        } | changes
        return tee.verify("nitro", document, **call)


@pytest.fixture(scope="session")
def nitro() -> Nitro:
    return Nitro()
