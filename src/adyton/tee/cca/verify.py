"""Is this CCA token authentic? Every check of evidence 9, each with an error code of its own.

Token (CBOR, or CoCo's JSON) + the platform's public key → ``VerifiedEvidence``, or the first thing that is wrong. Not here:
whether firmware, realm and lifecycle are acceptable. That is appraisal; a platform that is not secured has ``debug`` true.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec

from adyton.crypto import cose
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import BindingMismatch, EndorsementUntrusted, MalformedEvidence, SignatureInvalid
from adyton.rats.binding import check_report_data
from adyton.rats.types import Check, JsonValue, ReportData, Revocation, RootKind, TrustAnchors, VerifiedEvidence
from adyton.tee.cca import abi
from adyton.tee.cca import claims as claims_of
from adyton.tee.cca.endorsements import PlatformKey, keys_in, signer_of
from adyton.tee.cca.realm import CHALLENGE_SIZE, PERSONALISATION_SIZE, realm_key
from adyton.tee.cca.shape import HASHES, SPEC, TEE, Wrong
from adyton.tee.remembered import Chain, Remembered, Window
from adyton.tee.steps import Step, walk

NEVER = datetime.max.replace(tzinfo=UTC)  # a bare key does not say when it ends
_ALWAYS = Window(datetime.min.replace(tzinfo=UTC), NEVER)


class _Known(NamedTuple):
    """A platform's token that was verified, by whose key, and the RAK that it vouches for."""

    platform: abi.Platform
    signer: PlatformKey
    rak: bytes
    realm_key: ec.EllipticCurvePublicKey


class Verification:
    """One verification: what was given, and what the steps have found so far."""

    __slots__ = (
        "_keys_key", "_memory_key", "anchors", "given", "init_data", "key", "known", "now", "remembered", "report_data", "signer",
        "token",
    )  # fmt: skip
    signer: PlatformKey
    key: ec.EllipticCurvePublicKey

    def __init__(
        self,
        evidence: bytes,
        *,
        given: EndorsementSet,
        anchors: TrustAnchors,
        report_data: ReportData | None,
        init_data: bytes | None,
        remembered: Remembered | None,
        now: datetime,
    ) -> None:
        self.given = given
        self.anchors = anchors
        self.report_data = report_data
        self.init_data = init_data
        self.remembered = remembered
        self.now = now
        self.known: _Known | None = None
        self._memory_key: tuple[object, ...] = ()
        self._keys_key = (TEE, "keys", given.digest)
        self.token = abi.read(evidence, self._recall if remembered is not None else None)

    def _recall(self, platform: bytes) -> abi.Platform | None:
        """The platform's token, if it was verified already, with what was given and trusted now. Nothing of it has a time."""
        anchors = self.anchors
        self._memory_key = (TEE, hashlib.sha256(platform).digest(), self.given.digest, anchors.vendor, anchors.custom)
        known = self.remembered.recall(self._memory_key, self.now) if self.remembered is not None else None
        if not isinstance(known, _Known):
            return None
        self.known = known
        return known.platform

    def _keys(self) -> tuple[PlatformKey, ...]:
        """The keys that were given, taken apart once."""
        if self.remembered is None:
            return keys_in(self.given)
        keys = self.remembered.recall(self._keys_key, self.now)
        if not isinstance(keys, tuple):
            keys = keys_in(self.given)
            self.remembered.keep(self._keys_key, Chain(keys, _ALWAYS))
        return keys

    def format(self) -> None:
        """Shape, mandatory claims, sizes and names: parsing's."""

    def platform_signature(self) -> None:
        """One of the given keys signed the platform's token; a platform sends the same one until it starts anew."""
        if self.known is not None:
            self.signer = self.known.signer
            return
        self.signer = signer_of(self.token.platform, self.token.platform_claims, self._keys(), self.anchors)

    def trust(self) -> None:
        """That key is trusted by name. No key is trusted otherwise, and none by default."""
        if self.signer.fingerprint not in self.anchors.custom:
            raise EndorsementUntrusted(
                "the key that signed the platform's token is not a trusted one",
                code="cpak_untrusted",
                tee=TEE,
                field="cpak",
                expected=sorted(pin.hex() for pin in self.anchors.custom),
                got=self.signer.fingerprint,
                spec=SPEC,
                hint="trust the platform's key by the SHA-256 of its SubjectPublicKeyInfo; keys of test platforms are public",
            )

    def binding(self) -> None:
        """The platform's challenge is the digest of the RAK as the realm's token encodes it, in full length."""
        realm, platform = self.token.realm_claims, self.token.platform_claims
        if self.known is not None and realm.public_key == self.known.rak:
            self.key = self.known.realm_key  # which may have been bound by another hash: so it is hashed anew below
        wanted = hashlib.new(HASHES[realm.public_key_hash_algorithm], realm.public_key).digest()
        if not hmac.compare_digest(wanted, platform.challenge):
            raise BindingMismatch(
                "the platform does not vouch for this realm's key",
                code="rak_binding",
                tee=TEE,
                field="platform_challenge",
                expected=wanted,
                got=platform.challenge,
                spec=SPEC,
                hint="the two halves of the token are not of one platform at one time",
            )
        if self.known is None or realm.public_key != self.known.rak:
            self.key = _rak(realm.public_key)

    def realm_signature(self) -> None:
        """The realm's token under the RAK, with the algorithm that the key's curve has."""
        algorithm = cose.algorithm_of(self.key)
        try:
            if algorithm is None:  # no key on another curve is read
                raise SignatureInvalid("a key on an unknown curve")
            cose.verify(self.token.realm, self.key, algorithm)
        except SignatureInvalid as error:
            raise SignatureInvalid(
                "the realm's token was not signed by the key that it names",
                code="realm_sig",
                tee=TEE,
                field="signature",
                spec=SPEC,
                hint="the token was changed",
            ) from error

    def bound(self) -> None:
        """The realm's challenge is the expected one, all 64 bytes."""
        if self.report_data is not None:
            check_report_data(TEE, self.report_data, ReportData(self.token.realm_claims.challenge))

    def started_for(self) -> None:
        """The realm's personalisation value is the expected one, all 64 bytes."""
        if self.init_data is None:
            return
        got = self.token.realm_claims.personalisation
        if not hmac.compare_digest(self.init_data, got):
            raise BindingMismatch(
                "the realm was not started with this init data",
                code="init_data_mismatch",
                tee=TEE,
                field="rpv",
                expected=self.init_data,
                got=got,
                spec="evidence 14",
            )

    def keep(self) -> None:
        """Remember the platform's token. Call it after every step."""
        if self.remembered is not None and self.known is None:
            token = self.token
            platform = abi.Platform(token.platform, token.platform_claims)
            known = _Known(platform, self.signer, token.realm_claims.public_key, self.key)
            self.remembered.keep(self._memory_key, Chain(known, _ALWAYS))


def _rak(encoded: bytes) -> ec.EllipticCurvePublicKey:
    try:
        return realm_key(encoded)
    except Wrong as error:
        raise MalformedEvidence(
            f"rak: {error.message}",
            code="malformed_rak",
            tee=TEE,
            field="rak",
            expected=error.expected,
            got=error.got,
            spec=SPEC,
        ) from error


def _tell_trust(run: Verification) -> tuple[JsonValue, JsonValue]:
    return [*sorted(pin.hex() for pin in run.anchors.custom)], run.signer.fingerprint.hex()


def _tell_binding(run: Verification) -> tuple[JsonValue, JsonValue]:
    challenge = run.token.platform_claims.challenge.hex()
    return challenge, challenge


def _tell_report_data(run: Verification) -> tuple[JsonValue, JsonValue]:
    return run.report_data.value.hex() if run.report_data else None, run.token.realm_claims.challenge.hex()


def _tell_init_data(run: Verification) -> tuple[JsonValue, JsonValue]:
    return run.init_data.hex() if run.init_data else None, run.token.realm_claims.personalisation.hex()


def _check(name: str, group: str, spec: str = SPEC) -> Check:
    return Check(name, ok=True, spec=spec, group=group)


STEPS: tuple[Step[Verification], ...] = (
    Step(_check("format", "token"), Verification.format),
    Step(_check("platform_sig", "platform"), Verification.platform_signature),
    Step(_check("root", "platform"), Verification.trust, tell=_tell_trust),
    Step(_check("rak_binding", "realm"), Verification.binding, tell=_tell_binding),
    Step(_check("realm_sig", "realm"), Verification.realm_signature),
    Step(
        _check("report_data", "binding", "kbs-protocol 1.5"),
        Verification.bound,
        lambda run: run.report_data is not None,
        _tell_report_data,
    ),
    Step(
        _check("init_data", "binding", "evidence 14"),
        Verification.started_for,
        lambda run: run.init_data is not None,
        _tell_init_data,
    ),
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
    """As ``adyton.tee.verify``, for CCA. ``report_data``: the realm's challenge; ``init_data``: its personalisation value."""
    if report_data is not None and len(report_data.value) != CHALLENGE_SIZE:
        raise ValueError("a realm's challenge has 64 bytes")
    if init_data is not None and len(init_data) != PERSONALISATION_SIZE:
        raise ValueError("a realm's personalisation value has 64 bytes")
    run = Verification(
        evidence,
        given=endorsements,
        anchors=anchors,
        report_data=report_data,
        init_data=init_data,
        remembered=remembered,
        now=now,
    )
    walk(STEPS, run, trail)
    run.keep()
    token = run.token
    wants_report_data, wants_init_data = report_data is not None, init_data is not None
    # A bare key is on nobody's list, so that there is none to ask for either.
    unchecked: tuple[str, ...] = ("revocation" if revocation is Revocation.UNCHECKED_AS_ASKED else "revocation_lists",)
    if not wants_report_data:
        unchecked += ("report_data",)
    if not wants_init_data:
        unchecked += ("init_data",)
    return VerifiedEvidence(
        tee=TEE,
        tee_class="cpu",
        claims=claims_of.of_token(token),
        coco_claims=claims_of.coco(token),
        tcb=claims_of.tcb(token.platform_claims),
        report_data=ReportData(token.realm_claims.challenge),
        init_data=token.realm_claims.personalisation,
        root=RootKind.CUSTOM,
        root_fingerprint=run.signer.fingerprint.hex(),
        checks=_passed(wants_report_data, wants_init_data),
        expires=NEVER,
        expires_first="nothing",
        unchecked=unchecked,
    )


@lru_cache(maxsize=4)
def _passed(wants_report_data: bool, wants_init_data: bool) -> tuple[Check, ...]:
    wanted = {"report_data": wants_report_data, "init_data": wants_init_data}
    return tuple(step.check for step in STEPS if wanted.get(step.check.id, True))


def show(evidence: bytes) -> dict[str, JsonValue]:
    """What the token says. Parsed only."""
    return claims_of.of_token(abi.read(evidence))
