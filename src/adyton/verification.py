"""One call that verifies evidence of any TEE: ``adyton.verify``, for whoever uses Adyton as a library.

Nothing here reads a clock, a file or the network, and nothing is kept between two calls unless the caller hands in a
``Remembered``: it may be called from many threads at once.

>>> from datetime import UTC, datetime
>>> import adyton
>>> verified = adyton.verify(report, endorsements=[vcek, chain, crl], at=datetime(2026, 7, 1, tzinfo=UTC))
...     # doctest: +SKIP
>>> verified.claims["measurement"], verified.claims["debug"]  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from adyton import tee as tees
from adyton.crypto.x509 import EndorsementSet
from adyton.rats.types import Check, ReportData, Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee.recognise import recognise
from adyton.tee.remembered import Remembered

Endorsements = EndorsementSet | bytes | Iterable[bytes]


def verify(
    evidence: bytes,
    *,
    endorsements: Endorsements = (),
    at: datetime,
    tee: str | None = None,
    report_data: bytes | None = None,
    init_data: bytes | None = None,
    trust_roots: Endorsements | TrustAnchors | None = None,
    revocation: Revocation = Revocation.REQUIRED,
    remembered: Remembered | None = None,
    trail: list[Check] | None = None,
) -> VerifiedEvidence:
    """Verify ``evidence`` as of ``at``, or raise what is wrong with it. Whether it is acceptable is the caller's policy.

    ``evidence``: raw, or in CoCo's JSON form. ``tee``: a wire name (``adyton.tee.WIRE_NAMES``); ``None`` recognises it by
    its form. ``endorsements``: certificates, CRLs and the vendor's documents, as bytes of their files or parsed.
    ``at``: a time with a time zone. ``report_data``, ``init_data``: what the evidence's fields must hold, in full length;
    what is not given is not compared, and stands in ``unchecked`` of the result. ``trust_roots``: certificates or bare
    public keys to trust instead of the vendor's pinned roots. ``remembered``: a memory of verified chains that many calls
    and threads may share. ``trail`` receives every check as it is done.

    Raises ``MalformedEvidence`` (the bytes are not that evidence), ``UnsupportedEvidence`` (cannot be verified with what
    was given), another ``EvidenceError``, or an ``EndorsementError``; ``ValueError`` for a naive time or an expectation
    of the wrong length.
    """
    given = _parsed(endorsements)
    anchors = trust_roots if isinstance(trust_roots, TrustAnchors) else TrustAnchors()
    if trust_roots is not None and not isinstance(trust_roots, TrustAnchors):
        roots = _parsed(trust_roots)
        anchors = TrustAnchors(vendor=False, custom=roots.fingerprints)
        given = given.with_all(roots)
    return tees.verify(
        tee if tee is not None else recognise(evidence),
        evidence,
        endorsements=given,
        now=at,
        anchors=anchors,
        revocation=revocation,
        report_data=ReportData(report_data) if report_data is not None else None,
        init_data=init_data,
        remembered=remembered,
        trail=trail,
    )


def _parsed(endorsements: Endorsements) -> EndorsementSet:
    if isinstance(endorsements, EndorsementSet):
        return endorsements
    return EndorsementSet.parse([endorsements] if isinstance(endorsements, bytes) else endorsements)
