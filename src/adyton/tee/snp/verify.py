"""Is this SEV-SNP evidence authentic? Every check of evidence 4.3, in its order, each with an error code of its own.

Evidence (1184 bytes, or CoCo's JSON) + endorsements + ``now`` → ``VerifiedEvidence``, or the first thing that is wrong.
Not here: whether measurement, policy, VMPL or TCB are good enough. That is appraisal; AMD publishes no status feed, so
"verified" never says "up to date".
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import NamedTuple, cast

from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.errors import AdytonError
from adyton.rats.binding import check_report_data
from adyton.rats.types import Check, JsonValue, ReportData, Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee.deferred import Deferred
from adyton.tee.remembered import Chain, Remembered
from adyton.tee.snp import claims as claims_of
from adyton.tee.snp import json_form
from adyton.tee.snp.abi import REPORT_SIZE, SnpReport
from adyton.tee.snp.alike import Seen, learn, see
from adyton.tee.snp.checks import (
    STEPS,
    TEE,
    Verification,
    check_host_data,
    check_signature,
    memory_key,
)
from adyton.tee.snp.endorsements import Leaf, VerifiedChain, Walk, read_leaf
from adyton.tee.snp.same_text import digest_of
from adyton.tee.snp.told import told
from adyton.tee.steps import failed

HOST_DATA_SIZE = 32
MAX_LIKE = 1024  # of all chips together: as many as ``alike`` knows shapes
# Those that a remembered chain has answered: they look at nothing then, and are run only to stand in a trail.
_OF_CHAIN = frozenset({"certificate", "chain", "validity", "root", "revocation"})
_CHAIN_KNOWN = tuple((check, step) for check, step in STEPS if check.id not in _OF_CHAIN)


class _Known(NamedTuple):
    """What is remembered: the leaf that was chosen, and where it leads.

    Beside it, reports that passed every check under it. Those stand for all that are like them (``alike``), under their shape
    and whether report data and init data were asked for.
    """

    leaf: Leaf
    chain: VerifiedChain


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
    """As ``adyton.tee.verify``, for SEV-SNP. ``init_data``: all 32 bytes of HOST_DATA."""
    if init_data is not None and len(init_data) != HOST_DATA_SIZE:
        raise ValueError("HOST_DATA has 32 bytes")
    seen = see(evidence) if remembered is not None and trail is None else None
    if remembered is not None and seen is not None:
        certificates = digest_of(seen.document, seen.start, seen.end)
        known = remembered.recall(memory_key(endorsements, certificates, anchors, revocation, seen.shape), now)
        if isinstance(known, _Known):
            like = remembered.beside.get((seen.shape, report_data is None, init_data is None))
            if like is not None and like[0] is known:
                return _verify_like(like[1], seen, known.leaf, report_data, init_data)
    run = Verification(
        evidence,
        endorsements=endorsements,
        now=now,
        anchors=anchors,
        revocation=revocation,
        report_data=report_data,
        init_data=init_data,
    )
    shape = run.shape()
    key: tuple[object, ...] = ()
    known = None
    if remembered is not None:
        key = run.memory_key(shape)
        known = remembered.recall(key, now)
        if isinstance(known, _Known):
            run.leaf, run.chain = known
    for check, step in STEPS if run.chain is None or trail is not None else _CHAIN_KNOWN:
        try:
            step(run)
        except AdytonError as error:
            if trail is not None:
                trail.append(failed(check, error))
            raise
        if trail is not None and not run.skips(check.id):
            trail.append(told(check, run))
    chain = run.chain
    if chain is None:
        chain = run.walked()
        if remembered is not None:
            known = _Known(run.leaf, chain)
            remembered.keep(key, Chain(known, chain.window))
    found = run.verified(chain, shape)
    if remembered is not None:
        if len(remembered.beside) >= MAX_LIKE:
            remembered.beside.clear()
        remembered.beside[shape, report_data is None, init_data is None] = known, found
        learn(evidence, shape)
    return found


def _verify_like(
    like: VerifiedEvidence, seen: Seen, leaf: Leaf, report_data: ReportData | None, init_data: bytes | None
) -> VerifiedEvidence:
    """Verify a report that differs from one which passed every check only in what the checks below look at.

    The others look at what both have in common, and at the chain, which is remembered; so they would pass again.
    """
    shape, got = seen.shape, ReportData(seen.data)
    signed = shape.signed(seen.data, seen.number)
    check_signature(leaf, seen.signature, signed)
    if report_data is not None:
        check_report_data(TEE, report_data, got)
    if init_data is not None:
        check_host_data(init_data, shape.host_data)
    return VerifiedEvidence(
        like.tee,
        like.tee_class,
        Deferred(partial(_claims, signed, seen.signature, leaf), cast("Deferred", like.claims).ready),
        {**like.coco_claims, "report_data": seen.data.hex()},
        like.tcb,
        got,
        like.init_data,
        like.root,
        like.root_fingerprint,
        like.checks,
        like.expires,
        like.expires_first,
        like.unchecked,
        like.alike,
    )


def _claims(signed: bytes, signature: bytes, leaf: Leaf) -> dict[str, JsonValue]:
    report = SnpReport.parse((signed + signature).ljust(REPORT_SIZE, b"\0"))
    return claims_of.with_leaf(report, leaf)


def show(evidence: bytes) -> dict[str, JsonValue]:
    """What the report says. Parsed only."""
    report, _ = read(evidence)
    product = claims_of.product_of(report)
    return {**claims_of.of_report(report), "product": product.value if product is not None else None}


def read(evidence: bytes) -> tuple[SnpReport, list[tuple[str, bytes]]]:
    """The report, and the certificates that the evidence carries; raw bytes or JSON. ``MalformedEvidence``."""
    if json_form.is_json(evidence):
        return json_form.parse_json(evidence)
    return SnpReport.parse(evidence), []


def verify_endorsement(
    certificate: Certificate,
    endorsements: EndorsementSet,
    *,
    now: datetime,
    anchors: TrustAnchors,
    revocation: Revocation = Revocation.REQUIRED,
) -> tuple[Leaf, VerifiedChain]:
    """Verify a VCEK or VLEK alone, without a report; raises ``EndorsementError``."""
    leaf = read_leaf(certificate)
    walk = Walk([leaf], endorsements, anchors, now)
    walk.links()
    walk.validity()
    walk.anchor()
    walk.revocation(revocation)
    return leaf, walk.done()
