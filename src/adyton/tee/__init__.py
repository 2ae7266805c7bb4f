"""One room per TEE; the same files in each. Adding a TEE is one room and one line here.

``verify`` and ``show`` are the doors that everyone outside uses. A room is imported when its first evidence comes.
"""

from __future__ import annotations

import importlib
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Protocol, cast

from adyton.errors import UnsupportedEvidence
from adyton.rats.types import Check, JsonValue, ReportData, Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee.remembered import Remembered

if TYPE_CHECKING:  # whoever only parses evidence (an attester) needs no certificates
    from adyton.crypto.x509 import EndorsementSet

__all__ = ["FIELD_SIZES", "ROOMS", "WIRE_NAMES", "Remembered", "show", "verify", "verify_each"]

# TEE (wire name) -> the module that verifies its evidence
ROOMS = {
    "az-snp-vtpm": "adyton.tee.az_vtpm.snp",
    "az-tdx-vtpm": "adyton.tee.az_vtpm.tdx",
    "nvidia": "adyton.tee.nvidia.verify",
    "csv": "adyton.tee.csv.verify",
    "se": "adyton.tee.se.verify",
    "sampledevice": "adyton.tee.sample.device",
    "sample": "adyton.tee.sample.verify",
    "cca": "adyton.tee.cca.verify",
    "nitro": "adyton.tee.nitro.verify",
    "sgx": "adyton.tee.sgx.verify",
    "hyperenclave": "adyton.tee.hyperenclave.verify",
    "snp": "adyton.tee.snp.verify",
    "tdx": "adyton.tee.tdx.verify",
    "tpm": "adyton.tee.tpm.verify",
}
# Every name that may stand in a request (``kbs-protocol`` 1.3) or on a command line, room or no room.
WIRE_NAMES = (
    *("az-snp-vtpm", "az-tdx-vtpm", "cca", "csv", "hygondcu", "hyperenclave", "nitro", "nvidia", "nvidiadpu"),
    *("sample", "sampledevice", "se", "sgx", "snp", "tdx", "tpm"),
)


# TEE -> bytes of its report data and of its init data; ``None``: as long as the attester made it, 0: it has none.
FIELD_SIZES: dict[str, tuple[int | None, int | None]] = {
    "az-snp-vtpm": (None, 32),  # the TPM quote's extraData; PCR 8
    "az-tdx-vtpm": (None, 32),
    "cca": (64, 64),  # realm challenge; personalisation value
    "csv": (64, 0),
    "hyperenclave": (64, 64),  # CONFIGID
    "nitro": (None, 0),  # the document's nonce
    "nvidia": (32, 0),  # the requester's nonce
    "sample": (None, None),
    "sampledevice": (None, 0),
    "se": (None, 0),  # user data
    "sgx": (64, 64),  # CONFIGID
    "snp": (64, 32),  # HOST_DATA
    "tdx": (64, 48),  # MRCONFIGID
    "tpm": (None, 32),  # extraData; PCR 8
}


class _Room(Protocol):
    def verify(
        self,
        evidence: bytes,
        *,
        endorsements: EndorsementSet,
        now: datetime,
        anchors: TrustAnchors,
        revocation: Revocation,
        report_data: ReportData | None,
        init_data: bytes | None,
        remembered: Remembered | None,
        trail: list[Check] | None,
    ) -> VerifiedEvidence: ...

    def show(self, evidence: bytes) -> dict[str, JsonValue]: ...


def verify(
    tee: str,
    evidence: bytes,
    *,
    endorsements: EndorsementSet,
    now: datetime,
    anchors: TrustAnchors,
    revocation: Revocation = Revocation.REQUIRED,
    report_data: ReportData | None = None,
    init_data: bytes | None = None,
    remembered: Remembered | None = None,
    trail: list[Check] | None = None,
) -> VerifiedEvidence:
    """Verify evidence, raw or in CoCo's JSON form, at ``now`` (which has a time zone), or raise what is wrong with it.

    ``report_data`` and ``init_data`` are what the evidence's fields must hold, in the fields' full length; ``None``
    means not compared, and stands in ``unchecked``. ``remembered`` spares the chain of certificates when it is known.
    ``trail`` receives every check as it is done, the failing one last. Raises ``MalformedEvidence``,
    ``UnsupportedEvidence`` (also for a TEE without a room), another ``EvidenceError`` or an ``EndorsementError``;
    ``ValueError`` if ``now`` is naive or an expectation has the wrong length.
    """
    if now.tzinfo is None:
        raise ValueError("now has no time zone")
    return room_of(tee).verify(
        evidence,
        endorsements=endorsements,
        now=now,
        anchors=anchors,
        revocation=revocation,
        report_data=report_data,
        init_data=init_data,
        remembered=remembered,
        trail=trail,
    )


def verify_each(
    tee: str,
    evidence: bytes,
    *,
    endorsements: EndorsementSet,
    now: datetime,
    anchors: TrustAnchors,
    revocation: Revocation = Revocation.REQUIRED,
    report_data: ReportData | None = None,
    remembered: Remembered | None = None,
    trail: list[Check] | None = None,
) -> tuple[VerifiedEvidence, ...]:
    """As ``verify``, with one result for each device where one piece of evidence speaks of several, in its order."""
    room = room_of(tee)
    several = getattr(room, "verify_devices", None)
    how = several if several is not None else room.verify
    found = how(
        evidence,
        endorsements=endorsements,
        now=now,
        anchors=anchors,
        revocation=revocation,
        report_data=report_data,
        init_data=None,
        remembered=remembered,
        trail=trail,
    )
    return cast("tuple[VerifiedEvidence, ...]", found if several is not None else (found,))


def show(tee: str, evidence: bytes) -> dict[str, JsonValue]:
    """What the evidence says, parsed only: nothing of it is verified. ``MalformedEvidence`` if it cannot be read."""
    return room_of(tee).show(evidence)


def room_of(tee: str) -> _Room:
    """The room of a TEE, opened; ``UnsupportedEvidence`` for one without."""
    if tee not in ROOMS:
        raise UnsupportedEvidence(
            "Adyton does not verify evidence of this TEE",
            code="tee_unsupported",
            tee=tee[:40],
            field="tee",
            expected=sorted(ROOMS),
            got=tee[:40],
        )
    return _opened(tee)


@cache
def _opened(tee: str) -> _Room:
    return cast("_Room", importlib.import_module(ROOMS[tee]))
