"""``az-snp-vtpm``: an Azure VM under SEV-SNP. The SNP report is the paravisor's, at VMPL 0, signed by the chip's VCEK."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from adyton.crypto.x509 import EndorsementSet
from adyton.errors import EvidenceError
from adyton.rats.types import Check, JsonValue, ReportData, Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee.az_vtpm import json_form
from adyton.tee.az_vtpm.abi import SNP_TYPE, SPEC, malformed
from adyton.tee.az_vtpm.verdict import run_checks, verified
from adyton.tee.az_vtpm.vtpm import Hardware, Verification
from adyton.tee.remembered import Chain, Remembered, Window
from adyton.tee.snp import verify as snp
from adyton.tee.snp.abi import SnpReport

TEE = "az-snp-vtpm"
PARAVISOR_VMPL = 0
_NO_TIME = datetime.min.replace(tzinfo=UTC)  # nothing that is checked without endorsements depends on a clock


def verify(
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
    """As ``adyton.tee.verify``. ``report_data``: the quote's extraData; ``init_data``: all 32 bytes of PCR 8."""
    run = _run(
        evidence,
        _hardware,
        endorsements=endorsements,
        now=now,
        anchors=anchors,
        revocation=revocation,
        report_data=report_data,
        init_data=init_data,
        remembered=remembered,
        trail=trail,
    )
    return verified(run, partial(_claims, run), partial(_texts, run))


def claims_without_endorsement(evidence: bytes) -> dict[str, JsonValue]:
    """What the vTPM says, where nobody endorses the chip's key: the SNP report itself is NOT verified.

    Quote, PCRs and runtime claims are checked against each other. Who wrote them is unknown, so this is no verdict.
    """
    run = _run(
        evidence,
        None,
        endorsements=EndorsementSet(),
        now=_NO_TIME,
        anchors=TrustAnchors(),
        revocation=Revocation.UNCHECKED_AS_ASKED,
        report_data=None,
        init_data=None,
        remembered=None,
        trail=None,
    )
    return run.vtpm_claims()


def show(evidence: bytes) -> dict[str, JsonValue]:
    """What the evidence says. Parsed only."""
    parsed = _parse(evidence)
    return {**snp.show(parsed.hcl.hardware_report), "hcl_report_type": parsed.hcl.report_type}


def _parse(evidence: bytes) -> json_form.Evidence:
    parsed = json_form.parse(evidence)
    if parsed.vcek is None:
        raise malformed("evidence of a TDX guest", field="td_quote", expected="vcek")
    return parsed


def _run(
    evidence: bytes,
    verified_by: Hardware | None,
    *,
    endorsements: EndorsementSet,
    now: datetime,
    anchors: TrustAnchors,
    revocation: Revocation,
    report_data: ReportData | None,
    init_data: bytes | None,
    remembered: Remembered | None,
    trail: list[Check] | None,
) -> Verification:
    parsed = _parse(evidence)
    run = Verification(
        TEE,
        parsed,
        hardware_type=SNP_TYPE,
        hardware_data=SnpReport.parse(parsed.hcl.hardware_report).report_data,
        verified_by=verified_by,
        endorsements=endorsements,
        now=now,
        anchors=anchors,
        revocation=revocation,
        report_data=report_data,
        init_data=init_data,
        remembered=remembered,
        trail=trail,
    )
    run_checks(run, trail)
    return run


def _hardware(run: Verification) -> VerifiedEvidence:
    together, keep = _with_leaf(run)
    found = snp.verify(
        run.evidence.hcl.hardware_report,
        endorsements=together,
        now=run.now,
        anchors=run.anchors,
        revocation=run.revocation,
        remembered=run.remembered,
        trail=run.inner_trail,
    )
    if found.claims["vmpl"] != PARAVISOR_VMPL:
        raise EvidenceError(
            "the report is not the paravisor's: whoever asked for it ran below",
            code="vmpl",
            tee=TEE,
            field="vmpl",
            expected=PARAVISOR_VMPL,
            got=found.claims["vmpl"],
            spec=f"{SPEC} (8)",
        )
    keep()  # only now: what anybody may send must not push verified chains out of the memory
    return found


def _with_leaf(run: Verification) -> tuple[EndorsementSet, Callable[[], None]]:
    """The endorsements with the evidence's own VCEK, and what remembers them: they are the same each time."""
    vcek, remembered = run.evidence.vcek or b"", run.remembered
    if remembered is None:
        return EndorsementSet.parse([vcek]).with_all(run.endorsements), lambda: None
    key = (TEE, run.endorsements.digest, hashlib.sha256(vcek).digest())
    known = remembered.recall(key, run.now)
    if isinstance(known, EndorsementSet):
        return known, lambda: None
    together = EndorsementSet.parse([vcek]).with_all(run.endorsements)
    return together, lambda: remembered.keep(key, Chain(together, Window.around(run.now, ())))


def _claims(run: Verification) -> dict[str, JsonValue]:
    claims = dict(run.hardware.claims)
    return claims | {
        "snp_measurement": claims["measurement"],
        "snp_report_version": claims["report_version"],
        "snp_report_data": claims["report_data"],
    }


def _texts(run: Verification) -> dict[str, JsonValue]:
    """CoCo's names, all of whose values are text here; measurement and report data in base64 (``kbs-protocol`` 2.4)."""
    texts: dict[str, JsonValue] = {}
    for name, value in run.hardware.coco_claims.items():
        if name in {"measurement", "report_data"}:
            texts[name] = base64.b64encode(bytes.fromhex(str(value))).decode("ascii")
        else:
            texts[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return texts
