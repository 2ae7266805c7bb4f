"""Which platform attested, and the age of its trusted computing base, for the record and for whoever looks after machines.

SEV-SNP states component levels and no date, DCAP a date and a status. Both are written into the row of the attestation
as they were verified; what is shown later is read from the record and from nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

from adyton.protocol.audit_row import shown
from adyton.rats.types import JsonValue, VerifiedEvidence

_SNP = ("reported_tcb_bootloader", "reported_tcb_tee", "reported_tcb_snp", "reported_tcb_microcode")
_SNP_NAMES = ("boot loader", "tee", "snp", "microcode")
_DATED = ("tcb_status", "tcb_date", "advisory_ids")


def told(item: VerifiedEvidence) -> tuple[str, dict[str, JsonValue]]:
    """The platform's id (as the evidence has it, empty where it has none) and what its TCB is.

    Of SEV-SNP only CoCo's claims are read, which every appraisal makes anyway; this is on the way of each handshake.
    """
    if item.tee == "snp":
        claims = item.coco_claims
        chip = claims["chip_id"]
        levels = {name: claims[claim] for name, claim in zip(_SNP_NAMES, _SNP, strict=True)}
        return chip if isinstance(chip, str) and chip.strip("0") else "", levels
    own = item.claims
    number = own.get("platform_id")
    return number if isinstance(number, str) else "", _dated(own) or _flat(item.tcb)


def date(item: VerifiedEvidence) -> str | None:
    """The date of its TCB, RFC 3339, where its evidence has one. SEV-SNP's has none, and need not be asked for."""
    if item.tee == "snp":
        return None
    found = item.claims.get("tcb_date")
    return None if found is None else str(found)


def _dated(claims: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: shown(claims[name]) for name in _DATED if claims.get(name) not in (None, [], "")}


def _flat(tcb: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    reported = tcb.get("reported")
    levels = reported if isinstance(reported, dict) else tcb
    return {str(name)[:40]: shown(value) for name, value in list(levels.items())[:16]}
