"""Is this Nitro document authentic? Every check of evidence 8, the chain before anything that it certifies.

Document + endorsements + ``now`` → ``VerifiedEvidence``, or the first thing that is wrong. Not here: whether the PCRs are
good ones, and whether debug mode will do. That is appraisal.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import cast

from cryptography.hazmat.primitives.asymmetric import ec

from adyton.crypto import chain as walk_of
from adyton.crypto import cose
from adyton.crypto.path import Path
from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.errors import EndorsementError, FreshnessFailed, SignatureInvalid, UnsupportedEvidence
from adyton.rats.binding import check_report_data
from adyton.rats.types import Check, JsonValue, ReportData, Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee.nitro import abi
from adyton.tee.nitro import claims as claims_of
from adyton.tee.nitro import endorsements as chains
from adyton.tee.nitro.abi import SPEC, TEE
from adyton.tee.nitro.endorsements import Authorities
from adyton.tee.remembered import Chain, Remembered
from adyton.tee.steps import Step, walk

CLOCK_SKEW = timedelta(minutes=5)  # how far the enclave's clock may be ahead of ours
NO_NONCE = ReportData(b"\0")  # never a match: an expectation of zeros is refused


class Verification:
    """One verification: what was given, and what the steps have found so far."""

    __slots__ = (
        "_key", "_leaf_known", "anchors", "authorities", "document", "given", "leaf", "now", "path", "remembered", "report_data",
        "revocation",
    )  # fmt: skip
    leaf: Certificate
    path: Path | None

    def __init__(
        self,
        document: abi.AttestationDocument,
        *,
        given: EndorsementSet,
        now: datetime,
        anchors: TrustAnchors,
        revocation: Revocation,
        report_data: ReportData | None,
        remembered: Remembered | None,
    ) -> None:
        self.document = document
        self.given = given
        self.now = now
        self.anchors = anchors
        self.revocation = revocation
        self.report_data = report_data
        self.remembered = remembered
        self.path = None
        self.authorities: Authorities | None = None
        self._key: tuple[object, ...] = ()
        self._leaf_known = False
        if remembered is not None:
            self._key = chains.memory_key(document.cabundle, given, anchors, revocation)
            known = remembered.recall(self._key, now)
            self.authorities = known if isinstance(known, Authorities) else None

    def format(self) -> None:
        """Shape, algorithm and sizes: parsing's."""

    def read_leaf(self) -> None:
        """The document's certificate. An enclave shows the same one for a while: the last under its authorities is remembered."""
        encoded = self.document.certificate
        if self.remembered is not None and self.authorities is not None:
            known = self.remembered.recall((*self._key, "leaf"), self.now)
            if isinstance(known, Certificate) and known.der == encoded:
                self.leaf = known
                self._leaf_known = True
                return
        self.leaf = Certificate(encoded)

    def links(self) -> None:
        """Algorithms, names, signatures and constraints, from the leaf to a root that signed itself; what the leaf is for."""
        if self._leaf_known:
            return
        if self.authorities is None:
            self.path = chains.path_of(self.leaf, self.document.cabundle, self.anchors, self.now)
        else:
            chains.check_under(self.leaf, self.authorities.issuer)
        chains.check_leaf_key(self.leaf)

    def validity(self) -> None:
        """Every certificate is valid now."""
        if self.path is not None:
            self.path.validity(self.now)
        else:
            walk_of.check_validity(self.leaf, self.now, chains.LEAF)

    def root(self) -> None:
        """The root's key is trusted."""
        if self.path is not None:
            self.path.anchor(chains.trusted(self.anchors))

    def revoked(self) -> None:
        """None is on a list of its issuer that was given; what was found so far is what there is to remember."""
        wanted = self.revocation is Revocation.REQUIRED and bool(self.given.crls)
        if self.path is not None:
            if wanted:
                chains.check_revocation(self.path, self.given, self.now)
            self.authorities = chains.settle(self.path, self.given, self.anchors, self.now)
        if wanted and self.authorities is not None:
            chains.check_leaf_revocation(self.leaf, self.authorities.issuer, self.given, self.now)

    def signature(self) -> None:
        """ES384 under the leaf's key over the protected header and the payload as they stand."""
        try:
            cose.verify(self.document.message, cast("ec.EllipticCurvePublicKey", self.leaf.public_key), cose.ES384)
        except SignatureInvalid as error:
            raise SignatureInvalid(
                "the document's signature does not verify under the certified key",
                code="document_sig",
                tee=TEE,
                field="signature",
                spec=SPEC,
                hint="the document was changed, or signed by another enclave's key",
            ) from error

    def timestamp(self) -> None:
        """Made while the leaf was valid, and not later than now, give or take a clock that is ahead."""
        made = self.document.time
        # Certificates count in whole seconds, the last one included.
        if not self.leaf.not_before <= made.replace(microsecond=0) <= self.leaf.not_after:
            raise FreshnessFailed(
                "the document was not made while its certificate was valid",
                code="timestamp_outside_leaf",
                tee=TEE,
                field="timestamp",
                expected=f"{self.leaf.not_before.isoformat()} to {self.leaf.not_after.isoformat()}",
                got=made.isoformat(),
                spec=SPEC,
            )
        if made - self.now > CLOCK_SKEW:
            raise FreshnessFailed(
                "the document was made in the future",
                code="timestamp_future",
                tee=TEE,
                field="timestamp",
                expected=f"at most {CLOCK_SKEW} after {self.now.isoformat()}",
                got=made.isoformat(),
                spec=SPEC,
            )

    def bound(self) -> None:
        """The nonce is the expected one, in full length."""
        if self.report_data is not None:
            nonce = self.document.nonce
            check_report_data(TEE, self.report_data, ReportData(nonce) if nonce else NO_NONCE)

    def keep(self) -> Authorities:
        """The verified authorities, remembered with the leaf for the next document. Call it after every step."""
        authorities = self.authorities
        if authorities is None:
            raise ValueError("not walked")
        if self.remembered is not None:
            if self.path is not None:
                self.remembered.keep(self._key, Chain(authorities, authorities.window))
            if not self._leaf_known:
                self.remembered.keep((*self._key, "leaf"), Chain(self.leaf, authorities.window))
        return authorities


def _wants_revocation(run: Verification) -> bool:
    return run.revocation is Revocation.REQUIRED and bool(run.given.crls)


def _wants_report_data(run: Verification) -> bool:
    return run.report_data is not None


def _tell_root(run: Verification) -> tuple[JsonValue, JsonValue]:
    trusted = sorted(pin.hex() for pin in chains.trusted(run.anchors))
    got = run.path.root.spki_fingerprint.hex() if run.path is not None else None
    if run.authorities is not None:
        got = run.authorities.root_fingerprint
    return trusted[0] if len(trusted) == 1 else [*trusted], got


def _tell_validity(run: Verification) -> tuple[JsonValue, JsonValue]:
    return f"{run.leaf.not_before.isoformat()} to {run.leaf.not_after.isoformat()}", run.now.isoformat()


def _tell_timestamp(run: Verification) -> tuple[JsonValue, JsonValue]:
    return f"{run.leaf.not_before.isoformat()} to {run.leaf.not_after.isoformat()}", run.document.time.isoformat()


def _tell_nonce(run: Verification) -> tuple[JsonValue, JsonValue]:
    wanted = run.report_data
    return wanted.value.hex() if wanted else None, run.document.nonce.hex() if run.document.nonce else None


def _check(name: str, group: str, spec: str = SPEC) -> Check:
    return Check(name, ok=True, spec=spec, group=group)


STEPS: tuple[Step[Verification], ...] = (
    Step(_check("format", "document"), Verification.format),
    Step(_check("leaf", "chain"), Verification.read_leaf),
    Step(_check("chain", "chain"), Verification.links),
    Step(_check("validity", "chain"), Verification.validity, tell=_tell_validity),
    Step(_check("root", "chain"), Verification.root, tell=_tell_root),
    Step(_check("revocation", "chain"), Verification.revoked, applies=_wants_revocation),
    Step(_check("document_sig", "document"), Verification.signature),
    Step(_check("timestamp", "document"), Verification.timestamp, tell=_tell_timestamp),
    Step(_check("report_data", "binding", "kbs-protocol 1.5"), Verification.bound, _wants_report_data, _tell_nonce),
)


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
    """As ``adyton.tee.verify``, for Nitro. ``report_data``: the whole nonce. There is no init data to expect."""
    document = abi.parse(evidence)
    if init_data is not None:
        raise UnsupportedEvidence(
            "a Nitro document has no init data", code="no_init_data", tee=TEE, field="init_data", spec="evidence 14"
        )
    run = Verification(
        document,
        given=endorsements,
        now=now,
        anchors=anchors,
        revocation=revocation,
        report_data=report_data,
        remembered=remembered,
    )
    walk(STEPS, run, trail)
    return _verified(run)


def _verified(run: Verification) -> VerifiedEvidence:
    document, leaf = run.document, run.leaf
    authorities = run.keep()
    wants_revocation, wants_report_data = _wants_revocation(run), run.report_data is not None
    unchecked: tuple[str, ...] = ()
    if run.revocation is Revocation.UNCHECKED_AS_ASKED:
        unchecked += ("revocation",)
    elif authorities.crls_missing:
        unchecked += ("revocation_lists",)
    if not wants_report_data:
        unchecked += ("report_data",)
    claims = claims_of.of_document(document)
    claims |= claims_of.of_leaf(leaf)
    first = leaf.not_after <= authorities.expires
    return VerifiedEvidence(
        tee=TEE,
        tee_class="cpu",
        claims=claims,
        coco_claims=claims,
        tcb={},
        report_data=ReportData(document.nonce) if document.nonce else NO_NONCE,
        init_data=b"",
        root=authorities.root,
        root_fingerprint=authorities.root_fingerprint,
        checks=_passed(wants_revocation, wants_report_data),
        expires=leaf.not_after if first else authorities.expires,
        expires_first="leaf" if first else authorities.expires_first,
        unchecked=unchecked,
    )


@lru_cache(maxsize=4)
def _passed(wants_revocation: bool, wants_report_data: bool) -> tuple[Check, ...]:
    skipped = {
        name for name, wanted in (("revocation", wants_revocation), ("report_data", wants_report_data)) if not wanted
    }
    return tuple(step.check for step in STEPS if step.check.id not in skipped)


def show(evidence: bytes) -> dict[str, JsonValue]:
    """What the document says. Parsed only."""
    document = abi.parse(evidence)
    claims = claims_of.of_document(document)
    try:
        leaf = Certificate(document.certificate)
    except EndorsementError:  # shown as far as it goes: whoever verifies it will be told
        return claims
    return claims | claims_of.of_leaf(leaf)
