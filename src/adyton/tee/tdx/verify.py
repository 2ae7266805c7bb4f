"""Is this TDX evidence authentic? A DCAP quote with a trust domain's report: every check of evidence 3.3, in its order.

Evidence (a quote of version 4 or 5, or CoCo's JSON, with or without an event log) + endorsements + ``now`` →
``VerifiedEvidence``, or the first thing that is wrong. Not here: whether measurements, attributes and TCB status are good
enough. That is appraisal, which may not lose ``tcb_status``: a debug TD on a revoked platform is authentic.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial

from adyton.crypto.x509 import EndorsementSet
from adyton.errors import MalformedEvidence
from adyton.rats.types import Check, JsonValue, ReportData, Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee.dcap import quote_json, shown, verified
from adyton.tee.dcap.checks import Verification
from adyton.tee.dcap.quote import Quote
from adyton.tee.dcap.sequence import SIGNATURE_STEPS, STEPS
from adyton.tee.eventlog import ccel
from adyton.tee.eventlog.log import EventLog
from adyton.tee.remembered import Remembered
from adyton.tee.steps import walk
from adyton.tee.tdx import claims
from adyton.tee.tdx.abi import TdBody

TEE = "tdx"
MRCONFIGID_SIZE = 48


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
    """As ``adyton.tee.verify``, for TDX. ``init_data``: all 48 bytes of MRCONFIGID."""
    if init_data is not None and len(init_data) != MRCONFIGID_SIZE:
        raise ValueError("MRCONFIGID has 48 bytes")
    raw, log = _read(evidence)
    quote = Quote.parse(raw)
    body = _body(quote)
    run = Verification(
        TEE,
        quote,
        raw,
        endorsements=endorsements,
        now=now,
        anchors=anchors,
        revocation=revocation,
        report_data=report_data,
        init_data=init_data,
        remembered=remembered,
        event_log=log,
    )
    walk(STEPS, run, trail)
    run.remember()
    return verified.hand_over(run, partial(_claims, run, body), partial(claims.coco, quote, body, log))


def verify_signatures_without_tcb_as_asked(
    evidence: bytes,
    *,
    endorsements: EndorsementSet,
    now: datetime,
    anchors: TrustAnchors,
    revocation: Revocation = Revocation.REQUIRED,
    trail: list[Check] | None = None,
) -> VerifiedEvidence:
    """Chain, QE report and quote signature only. Nothing says that platform and quoting enclave are to be trusted.

    ``unchecked`` holds ``tcb`` and ``qe_identity``, and the status is ``None``. For whoever has no collateral and wants to
    know less than ``verify`` says.
    """
    raw, log = _read(evidence)
    quote = Quote.parse(raw)
    body = _body(quote)
    run = Verification(
        TEE,
        quote,
        raw,
        endorsements=endorsements,
        now=now,
        anchors=anchors,
        revocation=revocation,
        report_data=None,
        init_data=None,
        remembered=None,
        with_collateral=False,
        event_log=log,
    )
    walk(SIGNATURE_STEPS, run, trail)
    return verified.hand_over(run, partial(_claims, run, body), partial(claims.coco, quote, body, log))


def show(evidence: bytes) -> dict[str, JsonValue]:
    """What the quote says, and the PCK certificate in it. Parsed only."""
    raw, log = _read(evidence)
    quote = Quote.parse(raw)
    found = claims.of_body(_body(quote)) | shown.of_quote(quote, TEE)
    if log is not None:
        found["event_log_events"] = len(log)
    return found


def _claims(run: Verification, body: TdBody) -> dict[str, JsonValue]:
    found = claims.of_body(body)
    if run.event_log is not None:
        found["event_log_events"] = len(run.event_log)
        for register, count in enumerate(run.events):
            found[f"rtmr{register}_events"] = count
    return found


def _read(evidence: bytes) -> tuple[bytes, EventLog | None]:
    if not quote_json.is_json(evidence):
        return evidence, None
    raw, log = quote_json.parse(evidence, TEE, with_log=True)
    return raw, ccel.parse(log) if log is not None else None


def _body(quote: Quote) -> TdBody:
    if not isinstance(quote.body, TdBody):
        raise MalformedEvidence(
            "a quote of an enclave, not of a trust domain",
            code="tee_type",
            tee=TEE,
            field="tee_type",
            expected="TDX",
            got="SGX",
            spec="evidence 3.3.1",
        )
    return quote.body
