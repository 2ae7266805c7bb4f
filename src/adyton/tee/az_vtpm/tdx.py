"""``az-tdx-vtpm``: an Azure VM under TDX. The HCL report holds a TDREPORT, which a quote of the same TD vouches for."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TypedDict

from adyton.crypto.x509 import EndorsementSet
from adyton.errors import BindingMismatch, MalformedEvidence
from adyton.rats.types import Check, JsonValue, ReportData, Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee.az_vtpm import json_form
from adyton.tee.az_vtpm.abi import SPEC, TDX_TYPE, malformed
from adyton.tee.az_vtpm.verdict import run_checks, verified
from adyton.tee.az_vtpm.vtpm import Hardware, Verification
from adyton.tee.dcap.quote import Quote
from adyton.tee.remembered import Remembered
from adyton.tee.tdx import verify as tdx
from adyton.tee.tdx.abi import TdBody, TdReport

TEE = "az-tdx-vtpm"


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
    return _run(
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


def verify_signatures_without_tcb_as_asked(
    evidence: bytes,
    *,
    endorsements: EndorsementSet,
    now: datetime,
    anchors: TrustAnchors,
    revocation: Revocation = Revocation.REQUIRED,
    report_data: ReportData | None = None,
    init_data: bytes | None = None,
    trail: list[Check] | None = None,
) -> VerifiedEvidence:
    """As ``verify``, but nothing says that platform and quoting enclave are to be trusted: no collateral is looked at.

    ``unchecked`` holds ``tcb`` and ``qe_identity``, and the status is ``None``.
    """
    return _run(
        evidence,
        _hardware_without_tcb,
        endorsements=endorsements,
        now=now,
        anchors=anchors,
        revocation=revocation,
        report_data=report_data,
        init_data=init_data,
        remembered=None,
        trail=trail,
    )


def show(evidence: bytes) -> dict[str, JsonValue]:
    """What the evidence says. Parsed only."""
    parsed, quote = _parse(evidence)
    return {**tdx.show(quote), "hcl_report_type": parsed.hcl.report_type}


def _parse(evidence: bytes) -> tuple[json_form.Evidence, bytes]:
    parsed = json_form.parse(evidence)
    if parsed.td_quote is None:
        raise malformed("evidence of an SNP guest", field="vcek", expected="td_quote")
    return parsed, parsed.td_quote


def _run(
    evidence: bytes,
    verified_by: Hardware,
    *,
    endorsements: EndorsementSet,
    now: datetime,
    anchors: TrustAnchors,
    revocation: Revocation,
    report_data: ReportData | None,
    init_data: bytes | None,
    remembered: Remembered | None,
    trail: list[Check] | None,
) -> VerifiedEvidence:
    parsed, quote = _parse(evidence)
    body = Quote.parse(quote).body
    if not isinstance(body, TdBody):
        raise malformed("a quote of an enclave, not of a trust domain", field="td_quote")
    run = Verification(
        TEE,
        parsed,
        hardware_type=TDX_TYPE,
        hardware_data=body.report_data,
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
    return verified(run, partial(_claims, run), lambda: dict(run.hardware.coco_claims))


def _claims(run: Verification) -> dict[str, JsonValue]:
    claims = dict(run.hardware.claims)
    return claims | {"td_report_data": claims["report_data"]}


def _hardware(run: Verification) -> VerifiedEvidence:
    _check_same_domain(run)
    return tdx.verify(_quote(run), remembered=run.remembered, **_given(run))


def _hardware_without_tcb(run: Verification) -> VerifiedEvidence:
    _check_same_domain(run)
    return tdx.verify_signatures_without_tcb_as_asked(_quote(run), **_given(run))


class _Given(TypedDict):
    endorsements: EndorsementSet
    now: datetime
    anchors: TrustAnchors
    revocation: Revocation
    trail: list[Check] | None


def _given(run: Verification) -> _Given:
    return {
        "endorsements": run.endorsements,
        "now": run.now,
        "anchors": run.anchors,
        "revocation": run.revocation,
        "trail": run.inner_trail,
    }


def _quote(run: Verification) -> bytes:
    return run.evidence.td_quote or b""


def _check_same_domain(run: Verification) -> None:
    """5 (7): the quote's report data is the TDREPORT's. Nobody can verify the TDREPORT here; the quote speaks for it."""
    try:
        report = TdReport.parse(run.evidence.hcl.td_report)
    except MalformedEvidence as error:
        raise malformed("no TDREPORT in the HCL report", field="hardware_report") from error
    if report.report_data != run.hardware_data:
        raise BindingMismatch(
            "the quote is not of the TD whose report the paravisor gave",
            code="td_report_mismatch",
            tee=TEE,
            field="td_quote",
            expected=report.report_data,
            got=run.hardware_data,
            spec=f"{SPEC} (7)",
        )
