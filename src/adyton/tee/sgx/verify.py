"""Is this SGX evidence authentic? A DCAP quote with an enclave's report: every check of evidence 3.3, in its order.

Evidence (a quote of version 3, 4 or 5, or CoCo's JSON) + endorsements + ``now`` → ``VerifiedEvidence``, or the first thing
that is wrong. Not here: whether enclave, attributes and TCB status are good enough. That is appraisal, which may not lose
``tcb_status``: a debug enclave on a revoked platform is authentic.
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
from adyton.tee.remembered import Remembered
from adyton.tee.sgx import claims
from adyton.tee.sgx.abi import SgxBody
from adyton.tee.steps import walk

TEE = "sgx"
CONFIGID_SIZE = 64


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
    """As ``adyton.tee.verify``, for SGX. ``init_data``: all 64 bytes of CONFIGID."""
    if init_data is not None and len(init_data) != CONFIGID_SIZE:
        raise ValueError("CONFIGID has 64 bytes")
    raw = _raw(evidence)
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
    )
    walk(STEPS, run, trail)
    run.remember()
    return verified.hand_over(run, partial(claims.of_body, body), partial(claims.coco, quote, body))


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
    raw = _raw(evidence)
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
    )
    walk(SIGNATURE_STEPS, run, trail)
    return verified.hand_over(run, partial(claims.of_body, body), partial(claims.coco, quote, body))


def show(evidence: bytes) -> dict[str, JsonValue]:
    """What the quote says, and the PCK certificate in it. Parsed only."""
    quote = Quote.parse(_raw(evidence))
    return claims.of_body(_body(quote)) | shown.of_quote(quote, TEE)


def _raw(evidence: bytes) -> bytes:
    return quote_json.parse(evidence, TEE, with_log=False)[0] if quote_json.is_json(evidence) else evidence


def _body(quote: Quote) -> SgxBody:
    if not isinstance(quote.body, SgxBody):
        raise MalformedEvidence(
            "a quote of a trust domain, not of an enclave",
            code="tee_type",
            tee=TEE,
            field="tee_type",
            expected="SGX",
            got="TDX",
            spec="evidence 3.3.1",
        )
    return quote.body
