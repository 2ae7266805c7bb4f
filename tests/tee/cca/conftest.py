"""One platform and one realm for all tests of the room, and the call that they make."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.cca import Forge
from adyton.rats.types import TrustAnchors, VerifiedEvidence

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Cca:
    """A forge whose platform is trusted."""

    def __init__(self) -> None:
        self.forge = Forge.new()
        self.anchors = TrustAnchors(vendor=False, custom=frozenset({self.forge.cpak_fingerprint}))

    def verify(self, token: bytes, *keys: bytes, **changes: Any) -> VerifiedEvidence:
        given = EndorsementSet.parse(keys or [self.forge.cpak_pem])
        call: dict[str, Any] = {"now": NOW, "anchors": self.anchors, "endorsements": given} | changes
        return tee.verify("cca", token, **call)


@pytest.fixture(scope="session")
def cca() -> Cca:
    return Cca()
