"""Is this SEV-SNP evidence authentic? Every check of evidence 4.3, in its order, each with an error code of its own.

Evidence (1184 bytes, or CoCo's JSON) + endorsements + ``now`` → ``VerifiedEvidence``, or the first thing that is wrong.
Not here: whether measurement, policy, VMPL or TCB are good enough. That is appraisal; AMD publishes no status feed, so
"verified" never says "up to date".
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.errors import AdytonError
from adyton.rats.types import Check, JsonValue, ReportData, Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee.remembered import Chain, Remembered
from adyton.tee.snp import claims as claims_of
from adyton.tee.snp import json_form
from adyton.tee.snp.abi import SnpReport
from adyton.tee.snp.checks import STEPS, Verification, is_json
from adyton.tee.snp.endorsements import Leaf, VerifiedChain, Walk, read_leaf
from adyton.tee.snp.told import told
from adyton.tee.steps import failed

HOST_DATA_SIZE = 32
# Those that a remembered chain has answered: they look at nothing then, and are run only to stand in a trail.
_OF_CHAIN = frozenset({"certificate", "chain", "validity", "root", "revocation"})
_CHAIN_KNOWN = tuple((check, step) for check, step in STEPS if check.id not in _OF_CHAIN)


class _Known(NamedTuple):
    """What is remembered: the leaf that was chosen, and where it leads."""

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
    run = Verification(
        evidence,
        endorsements=endorsements,
        now=now,
        anchors=anchors,
        revocation=revocation,
        report_data=report_data,
        init_data=init_data,
    )
    key: tuple[object, ...] = ()
    if remembered is not None:
        key = run.memory_key()
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
            remembered.keep(key, Chain(_Known(run.leaf, chain), chain.window))
    return run.verified(chain)


def show(evidence: bytes) -> dict[str, JsonValue]:
    """What the report says. Parsed only."""
    report, _ = read(evidence)
    product = claims_of.product_of(report)
    return {**claims_of.of_report(report), "product": product.value if product is not None else None}


def read(evidence: bytes) -> tuple[SnpReport, list[tuple[str, bytes]]]:
    """The report, and the certificates that the evidence carries; raw bytes or JSON. ``MalformedEvidence``."""
    if is_json(evidence):
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
