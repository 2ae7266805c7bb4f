"""One forged GPU with its manifests and answers for a whole session; making keys is cheap, but not free."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.nvidia import NvidiaForge, default_measurements
from adyton.rats.types import Check, ReportData, Revocation, TrustAnchors, VerifiedEvidence

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
NONCE = bytes(range(32))
GOLDEN = default_measurements()
DRIVER = {7: [GOLDEN[8]], 21: [bytes(48), GOLDEN[22]], 35: [GOLDEN[36]]}
VBIOS = {0: [GOLDEN[1]], 12: [GOLDEN[13]]}

Verify = Callable[..., VerifiedEvidence]


@pytest.fixture(scope="session")
def forge() -> NvidiaForge:
    return NvidiaForge.new(NOW)


@pytest.fixture(scope="session")
def other() -> NvidiaForge:
    """Another maker's chains under the same names."""
    return NvidiaForge.new(NOW)


@pytest.fixture(scope="session")
def driver_rim(forge: NvidiaForge) -> bytes:
    return forge.rim(DRIVER)


@pytest.fixture(scope="session")
def vbios_rim(forge: NvidiaForge) -> bytes:
    return forge.rim(VBIOS, colloquialVersion="96.00.9F.00.01")


@pytest.fixture(scope="session")
def rims(driver_rim: bytes, vbios_rim: bytes) -> list[bytes]:
    return [driver_rim, vbios_rim]


@pytest.fixture(scope="session")
def answers(forge: NvidiaForge) -> list[bytes]:
    return forge.answers()


@pytest.fixture
def verify(forge: NvidiaForge, answers: list[bytes]) -> Verify:
    """Verify under the forge's roots, its chain and its answers unless told otherwise."""

    def run(
        evidence: bytes,
        endorsements: Iterable[bytes] | None = None,
        *,
        also: Iterable[bytes] = (),
        now: datetime = NOW,
        anchors: TrustAnchors | None = None,
        revocation: Revocation = Revocation.REQUIRED,
        nonce: bytes | None = NONCE,
        remembered: tee.Remembered | None = None,
        trail: list[Check] | None = None,
    ) -> VerifiedEvidence:
        given = [forge.pem, *answers] if endorsements is None else list(endorsements)
        return tee.verify(
            "nvidia",
            evidence,
            endorsements=EndorsementSet.parse([*given, *also]),
            now=now,
            anchors=anchors or TrustAnchors(vendor=False, custom=forge.anchors),
            revocation=revocation,
            report_data=ReportData(nonce) if nonce is not None else None,
            remembered=remembered,
            trail=trail,
        )

    return run


@pytest.fixture(scope="session")
def nvidia(vectors: Path) -> Path:
    """The folder of NVIDIA's vectors."""
    return vectors / "nvidia"
