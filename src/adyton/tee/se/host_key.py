"""Host key documents: whether one holds the public key of a machine of IBM's.

Evidence 12: HKD <- IBM Z signing key <- intermediate <- root. Upwards from the signing key this is X.509 as usual. The document itself is
not: the signing key is no authority (it may neither sign certificates nor CRLs by its key usage, and does both), and the
names of older documents and CRLs differ from the signing key's in the order of their parts and in its town, Armonk or
Poughkeepsie. Those two differences, and no others, are passed over; what binds is the signature.

IBM's production chain ends in a public CA's root. None is pinned here, since nobody has verified one for this list: the root
is the caller's to name, by its fingerprint in ``TrustAnchors.custom``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from adyton.crypto import chain as walk_of
from adyton.crypto.algorithms import RSA_SHA256, RSA_SHA384, RSA_SHA512
from adyton.crypto.chain import Role
from adyton.crypto.path import Path, Profile, build
from adyton.crypto.x509 import BASIC_CONSTRAINTS, KEY_USAGE, Certificate, Crl, EndorsementSet
from adyton.errors import (
    EndorsementError,
    EndorsementExpired,
    EndorsementMalformed,
    EndorsementMissing,
    EndorsementRevoked,
    EndorsementUntrusted,
)
from adyton.rats.types import Check, Revocation, RootKind, TrustAnchors
from adyton.tee.remembered import Chain, Remembered, Window
from adyton.tee.se.header import SPEC, TEE
from adyton.tee.se.request import key_hash
from adyton.tee.steps import Step, walk

HOST_KEY, SIGNING_KEY, INTERMEDIATE, ROOT, CRL = (
    Role(TEE, name, SPEC) for name in ("host_key", "signing_key", "intermediate", "root", "crl")
)
ALGORITHMS = (RSA_SHA256, RSA_SHA384, RSA_SHA512)
PROFILE = Profile((SIGNING_KEY, INTERMEDIATE, ROOT), ALGORITHMS)
MAX_CANDIDATES = 8  # signing keys, and CRLs of one, that are tried

_IBM = "International Business Machines Corporation"
_TOWNS = frozenset({"Armonk", "Poughkeepsie"})
_SERVICE = "Key Signing Service"
_SIGNING_NAME = {
    NameOID.COUNTRY_NAME: "US",
    NameOID.STATE_OR_PROVINCE_NAME: "New York",
    NameOID.ORGANIZATION_NAME: _IBM,
    NameOID.COMMON_NAME: _IBM,
}


@dataclass(frozen=True, slots=True)
class HostKey:
    """A verified host key: a request may be made for it, and a response that names ``key_hash`` is that machine's."""

    key_hash: bytes
    public_key: ec.EllipticCurvePublicKey
    root: RootKind
    root_fingerprint: str
    expires: datetime
    expires_first: str
    revocation_checked: bool


class _Run:
    """One verification: what was given, and what the steps have found so far."""

    __slots__ = (
        "anchors",
        "candidates",
        "crls",
        "document",
        "given",
        "key",
        "now",
        "path",
        "revocation",
        "signing_key",
    )
    key: ec.EllipticCurvePublicKey
    signing_key: Certificate
    path: Path

    def __init__(
        self,
        document: Certificate,
        given: EndorsementSet,
        now: datetime,
        anchors: TrustAnchors,
        revocation: Revocation,
    ) -> None:
        self.document = document
        self.given = given
        self.now = now
        self.anchors = anchors
        self.revocation = revocation
        self.candidates: list[Certificate] = []
        self.crls: list[Crl] = []

    def host_key(self) -> None:
        """A P-521 key, and no critical extension that is unknown here."""
        key = self.document.public_key
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp521r1":
            raise HOST_KEY.error(
                EndorsementMalformed, "key", "not the key of a machine", expected="P-521", got=type(key).__name__
            )
        usage, constraints = self.document.key_usage, self.document.basic_constraints
        if (usage is not None and not usage.key_agreement) or (constraints is not None and constraints.ca):
            raise HOST_KEY.error(EndorsementMalformed, "profile", "its key is not for agreeing on keys")
        walk_of.check_critical(self.document, HOST_KEY, known=frozenset({BASIC_CONSTRAINTS, KEY_USAGE}))
        self.key = key

    def issuer(self) -> None:
        """An IBM Z signing key of the right name, whose key signed the document."""
        algorithm = walk_of.check_algorithm(self.document, HOST_KEY, ALGORITHMS)
        wanted = _comparable(_issuer(self.document))
        if not wanted:
            raise HOST_KEY.error(EndorsementMalformed, "malformed", "its issuer's name cannot be read")
        found = [own for own in self.given.certificates if is_signing_key(own) and _comparable(_subject(own)) == wanted]
        if not found:
            raise SIGNING_KEY.error(
                EndorsementMissing,
                "missing",
                "no IBM Z signing key of the document's issuer among the given endorsements",
                hint="give IBM's signing key certificate and the CA certificates above it with the endorsements",
            )
        found.sort(key=lambda own: walk_of.by_preference(own, self.now))
        for candidate in found[:MAX_CANDIDATES]:
            if _names_key(self.document, candidate) and algorithm.verifies(
                candidate.public_key, self.document.signature, self.document.signed
            ):
                self.candidates.append(candidate)
        if not self.candidates:
            raise HOST_KEY.error(
                EndorsementUntrusted, "sig", "its signature does not verify under the IBM Z signing key that was given"
            )

    def chain(self) -> None:
        """From the signing key to a root that signed itself. Of several signing keys the one that is trusted."""
        failure: EndorsementError | None = None
        paths = []
        for candidate in self.candidates:
            try:
                path = build(candidate, self.given, PROFILE, trusted=self.anchors.custom, now=self.now)
            except EndorsementError as error:
                failure = failure or error
                continue
            paths.append(path)
        if not paths and failure is not None:
            raise failure
        trusted = [path for path in paths if path.root.spki_fingerprint in self.anchors.custom]
        self.path = (trusted or paths)[0]
        self.signing_key = self.path.leaf

    def validity(self) -> None:
        """All four are valid now."""
        walk_of.check_validity(self.document, self.now, HOST_KEY)
        self.path.validity(self.now)

    def root(self) -> None:
        """The root is one that the caller trusts."""
        if not self.anchors.custom:
            raise ROOT.error(
                EndorsementUntrusted,
                "untrusted",
                "no root is trusted for Secure Execution until one is named",
                got=self.path.root.spki_fingerprint,
                hint="check the root of IBM's host key documents yourself, and trust it by its fingerprint",
            )
        self.path.anchor(self.anchors.custom)

    def revoked(self) -> None:
        """Each is not on a fresh CRL of its issuer."""
        if self.revocation is Revocation.REQUIRED:
            self.crls = [
                _check_revoked(self.document, self.signing_key, self.given.crls, self.now),
                *self.path.revocation(self.given, self.now, CRL),
            ]

    def lifetimes(self) -> list[tuple[datetime, datetime]]:
        """Of all that was looked at."""
        lists = [(crl.this_update, crl.next_update) for crl in self.given.crls]
        documents = (self.document, *self.candidates)
        return [*((own.not_before, own.not_after) for own in documents), *self.path.lifetimes(), *lists]

    def result(self) -> HostKey:
        """What was found. Call it after every step."""
        chained = zip(self.path.certificates, PROFILE.roles, strict=True)
        ends = [(self.document.not_after, HOST_KEY.name), *((own.not_after, role.name) for own, role in chained)]
        ends += [(crl.next_update, CRL.name) for crl in self.crls]
        expires, first = min(ends)
        return HostKey(
            key_hash(self.key),
            self.key,
            RootKind.CUSTOM,
            self.path.root.spki_fingerprint.hex(),
            expires,
            first,
            self.revocation is Revocation.REQUIRED,
        )


def _step(name: str, do: object) -> Step[_Run]:
    return Step(Check(name, ok=True, spec=SPEC, group="host key"), do)  # type: ignore[arg-type]  # a method of _Run


STEPS: tuple[Step[_Run], ...] = (
    _step("host_key", _Run.host_key),
    _step("signing_key", _Run.issuer),
    _step("chain", _Run.chain),
    _step("validity", _Run.validity),
    _step("root", _Run.root),
    _step("revocation", _Run.revoked),
)


def verify_host_key(
    document: Certificate,
    given: EndorsementSet,
    *,
    now: datetime,
    anchors: TrustAnchors,
    revocation: Revocation = Revocation.REQUIRED,
    remembered: Remembered | None = None,
    trail: list[Check] | None = None,
) -> HostKey:
    """The host key of ``document``, verified at ``now``, or an ``EndorsementError``.

    ``given`` holds IBM's signing key, the CA certificates above it, and a CRL of each issuer.
    """
    key = (TEE, document.digest, given.digest, anchors.custom, revocation is Revocation.REQUIRED)
    if remembered is not None and trail is None:
        known = remembered.recall(key, now)
        if isinstance(known, HostKey):
            return known
    run = _Run(document, given, now, anchors, revocation)
    walk(STEPS, run, trail)
    result = run.result()
    if remembered is not None:
        remembered.keep(key, Chain(result, Window.around(now, run.lifetimes())))
    return result


def is_signing_key(certificate: Certificate) -> bool:
    """Whether the subject is that of an IBM Z signing key: six parts, each as it must be."""
    subject = _subject(certificate)
    parts = {attribute.oid: attribute.value for attribute in subject}
    unit = parts.get(NameOID.ORGANIZATIONAL_UNIT_NAME)
    return (
        len(list(subject)) == len(parts) == len(_SIGNING_NAME) + 2
        and all(parts.get(oid) == value for oid, value in _SIGNING_NAME.items())
        and parts.get(NameOID.LOCALITY_NAME) in _TOWNS
        and isinstance(unit, str)
        and unit.endswith(_SERVICE)
    )


_NAMELESS = x509.Name([])


def _subject(certificate: Certificate) -> x509.Name:
    """The subject; an empty name if it cannot be read, as names are read late."""
    try:
        return certificate.parsed.subject
    except ValueError:
        return _NAMELESS


def _issuer(item: Certificate | Crl) -> x509.Name:
    """The issuer; an empty name if it cannot be read."""
    try:
        return item.parsed.issuer
    except ValueError:
        return _NAMELESS


def _comparable(name: x509.Name) -> tuple[tuple[str, str | bytes], ...]:
    """A name without the order of its parts, and with one town for both."""
    parts: list[tuple[str, str | bytes]] = []
    for attribute in name:
        town = attribute.oid == NameOID.LOCALITY_NAME and attribute.value in _TOWNS
        parts.append((attribute.oid.dotted_string, "Poughkeepsie" if town else attribute.value))
    return tuple(sorted(parts, key=repr))


def _names_key(document: Certificate, issuer: Certificate) -> bool:
    """Where the document says which key signed it, it is this one."""
    _, named = document.extensions.get("2.5.29.35", (False, None))
    _, own = issuer.extensions.get("2.5.29.14", (False, None))
    if not isinstance(named, x509.AuthorityKeyIdentifier) or not isinstance(own, x509.SubjectKeyIdentifier):
        return True
    return named.key_identifier is None or named.key_identifier == own.digest


def _check_revoked(document: Certificate, authority: Certificate, crls: Iterable[Crl], now: datetime) -> Crl:
    """As ``crypto.chain.check_revocation``, for an authority that does not say that it signs CRLs."""
    wanted = _comparable(_subject(authority))
    named = [crl for crl in crls if _comparable(_issuer(crl)) == wanted]
    signed = [crl for crl in named[: 4 * MAX_CANDIDATES] if _is_signed(crl, authority)]
    for crl in signed:
        if crl.lists(document):
            raise HOST_KEY.error(
                EndorsementRevoked,
                "revoked",
                "revoked by IBM",
                got=f"serial number {document.serial:#x} on the CRL of {crl.this_update.isoformat()}",
            )
    fresh = [crl for crl in signed if crl.this_update <= now <= crl.next_update]
    if fresh:
        return max(fresh, key=lambda crl: (crl.next_update, crl.digest))
    if signed:
        raise EndorsementExpired(
            "no CRL of the IBM Z signing key is fresh", code="crl_validity", tee=TEE, field="crl", got=now.isoformat(),
            spec=SPEC, hint="fetch the signing key's current CRL",
        )  # fmt: skip
    if named:
        raise EndorsementUntrusted(
            "a CRL bears the signing key's name but not its signature", code="crl_sig", tee=TEE, field="crl", spec=SPEC
        )
    raise EndorsementMissing(
        "nobody can say whether the host key is revoked: no CRL of the IBM Z signing key was given",
        code="revocation_unknown",
        tee=TEE,
        field="crl",
        spec=SPEC,
        hint="give the CRL that the document names, or say that revocation is not to be checked",
    )


def _is_signed(crl: Crl, authority: Certificate) -> bool:
    try:
        algorithm = walk_of.check_algorithm(crl, CRL, ALGORITHMS)
    except EndorsementMalformed:
        return False
    if not algorithm.verifies(authority.public_key, crl.signature, crl.signed):
        return False
    if crl.critical:  # a delta, or only a part: it could hide an entry
        raise CRL.error(EndorsementMalformed, "profile", "a critical extension that is unknown here", got=crl.critical)
    return True
