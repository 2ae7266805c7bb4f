"""The door for ``sampledevice``: CoCo's sample evidence of a device. Never believed by default; see ``anybody``."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from adyton.rats.types import Check, JsonValue, ReportData, Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee.remembered import Remembered
from adyton.tee.sample import abi, anybody

if TYPE_CHECKING:
    from adyton.crypto.x509 import EndorsementSet


def verify(
    evidence: bytes,
    *,
    endorsements: EndorsementSet,  # noqa: ARG001 -- every door has it
    now: datetime,  # noqa: ARG001 -- every door has it
    anchors: TrustAnchors,
    revocation: Revocation = Revocation.REQUIRED,
    report_data: ReportData | None = None,
    init_data: bytes | None = None,
    remembered: Remembered | None = None,  # noqa: ARG001 -- every door has it
    trail: list[Check] | None = None,
) -> VerifiedEvidence:
    """As ``adyton.tee.verify``: ``EndorsementUntrusted``, unless ``anybody.ANYBODY`` is among the trust anchors."""
    return anybody.verify(
        "sampledevice",
        evidence,
        anchors=anchors,
        revocation=revocation,
        report_data=report_data,
        init_data=init_data,
        trail=trail,
    )


def show(evidence: bytes) -> dict[str, JsonValue]:
    """What it says. Parsed only."""
    return anybody.claims(abi.parse("sampledevice", evidence))
