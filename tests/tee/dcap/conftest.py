"""One forged platform with its endorsers, and a way to verify what it issues; real quotes from the vectors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.dcap import DcapForge, sgx_body, td_body
from adyton.devtee.dcap_collateral import Collateral
from adyton.errors import AdytonError
from adyton.rats.types import TrustAnchors, VerifiedEvidence
from adyton.tee.dcap.quote import Quote

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def with_parts(collateral: Collateral, **parts: Any) -> Collateral:
    """The collateral with other parts, named when the test runs."""
    return replace(collateral, **parts)


@dataclass
class Lab:
    """A forge, and what its verifier trusts."""

    forge: DcapForge
    now: datetime = NOW
    anchors: TrustAnchors = field(init=False)

    def __post_init__(self) -> None:
        self.anchors = TrustAnchors(vendor=False, custom=frozenset({self.forge.fingerprint}))

    def quote(self, name: str = "sgx", **changes: Any) -> Quote:
        body = sgx_body() if name == "sgx" else td_body(td15=name == "td15")
        return self.forge.quote(changes.pop("body", body), **changes)

    def verify(
        self,
        quote: Quote | bytes,
        *collateral: Collateral | bytes,
        name: str | None = None,
        **options: Any,
    ) -> VerifiedEvidence:
        raw = quote.encode() if isinstance(quote, Quote) else quote
        room = name or ("tdx" if raw[4:5] == b"\x81" else "sgx")
        if not collateral:
            collateral = (self.forge.collateral(room),)
        blobs = [blob for item in collateral for blob in ([item] if isinstance(item, bytes) else item.blobs())]
        given = options.pop("endorsements", None) or EndorsementSet.parse(blobs)
        defaults: dict[str, Any] = {"endorsements": given, "now": self.now, "anchors": self.anchors}
        return tee.verify(room, raw, **(defaults | options))

    def refused(self, quote: Quote | bytes, *collateral: Collateral | bytes, **options: Any) -> str:
        """The code of the error that must come."""
        with pytest.raises(AdytonError) as caught:
            self.verify(quote, *collateral, **options)
        error = caught.value
        assert error.tee in {"sgx", "tdx", None}
        assert error.spec is not None, error.code
        assert error.field is not None, error.code
        return error.code


@pytest.fixture(scope="session")
def forge() -> DcapForge:
    return DcapForge.new(NOW)


@pytest.fixture(scope="session")
def lab(forge: DcapForge) -> Lab:
    return Lab(forge)


@pytest.fixture(scope="session")
def stranger() -> Lab:
    """Another root with the same names everywhere."""
    return Lab(DcapForge.new(NOW))


@pytest.fixture(scope="session", params=["sgx", "td10", "td15"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name
