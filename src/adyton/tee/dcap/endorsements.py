"""From a PCK certificate to a trusted root, with revocation; and the people who may sign TCB info (evidence 2, 3.2, 3.3).

PCK leaf ← Platform or Processor CA ← root; TCB Signing ← root. ECDSA P-256 with SHA-256 throughout. The root is pinned
by the SHA-256 of its SPKI: Intel issued its certificate twice for one key, and several roots of the same name are about.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache, lru_cache
from typing import NamedTuple

import msgspec

from adyton.crypto import chain as walk
from adyton.crypto import path
from adyton.crypto.algorithms import ECDSA_P256_SHA256
from adyton.crypto.chain import Role
from adyton.crypto.path import Profile
from adyton.crypto.x509 import BASIC_CONSTRAINTS, KEY_USAGE, Certificate, Crl, EndorsementSet
from adyton.errors import EndorsementError, EndorsementUntrusted
from adyton.rats.types import RootKind, TrustAnchors
from adyton.tee.dcap.pck import PCK_NAME
from adyton.tee.dcap.roots import CERTIFICATES
from adyton.tee.dcap.roots import KEY as ROOT
from adyton.tee.remembered import Window

SERVICE = "https://api.trustedservices.intel.com"
ROOT_CRL_URL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
ROOT_NAME = "SGX Root CA"
SIGNER_NAME = "SGX TCB Signing"
POINT_SIZE = 65  # of P-256, uncompressed

CHAIN_SPEC = "evidence 3.3.2"
CRL_SPEC = "evidence 3.3.3"
SIGNER_SPEC = "evidence 3.3.4"
_ALGORITHMS = (ECDSA_P256_SHA256,)
_KNOWN_CRITICAL = frozenset({BASIC_CONSTRAINTS, KEY_USAGE})
# SET { SEQUENCE { commonName, UTF8String "Intel SGX PCK Certificate" } }: how each of Intel's subjects begins
_USUAL_NAME = bytes.fromhex("3122302006035504030c19") + b"Intel SGX PCK Certificate"
_CAS = (("Platform CA", "platform"), ("Processor CA", "processor"))

Life = tuple[datetime, datetime, str]  # begin and end of validity, and of what


class Span(msgspec.Struct, frozen=True):
    """The lives of several things: earliest and latest begin, and the earliest end with what it is of."""

    earliest: datetime
    latest: datetime
    end: datetime
    first: str

    @classmethod
    def of(cls, lives: Sequence[Life]) -> Span:
        """Of at least one life."""
        earliest, end, first = lives[0]
        latest = earliest
        for begin, other, name in lives:
            if begin < earliest:
                earliest = begin
            elif begin > latest:
                latest = begin
            if other < end:
                end, first = other, name
        return cls(earliest, latest, end, first)

    def with_(self, other: Span) -> Span:
        """Of these things and others."""
        end, first = (self.end, self.first) if self.end <= other.end else (other.end, other.first)
        return Span(min(self.earliest, other.earliest), max(self.latest, other.latest), end, first)


class Roles(NamedTuple):
    """Names of the certificates and CRLs in one TEE's errors."""

    pck: Role
    pck_ca: Role
    root: Role
    pck_crl: Role
    root_crl: Role
    signer: Role
    pck_profile: Profile
    signer_profile: Profile


@cache
def roles(tee: str) -> Roles:
    """The roles for ``sgx`` or ``tdx``."""
    pck, pck_ca, root = (Role(tee, name, CHAIN_SPEC) for name in ("pck", "pck_ca", "root"))
    signer = Role(tee, "tcb_signing", SIGNER_SPEC)
    return Roles(
        pck,
        pck_ca,
        root,
        Role(tee, "pck_crl", CRL_SPEC),
        Role(tee, "root_crl", CRL_SPEC),
        signer,
        Profile((pck, pck_ca, root), _ALGORITHMS, (PCK_NAME, "CA", ROOT_NAME), sound=CERTIFICATES),
        Profile((signer, root), _ALGORITHMS, (SIGNER_NAME, ROOT_NAME), sound=CERTIFICATES),
    )


class Issuer(NamedTuple):
    """A CA that issues PCK certificates, verified up to a trusted root. The CRLs are those that are signed, if asked for.

    ``root_fingerprint``: SHA-256 of its SPKI, hex. ``pck_crl`` and ``root_crl``: the fresh ones.
    ``span`` is of all that is used; ``window`` is around all that was looked at, ``None`` where nobody will remember it.
    """

    certificate: Certificate
    root: Certificate
    kind: str
    root_kind: RootKind
    root_fingerprint: str
    pck_crls: tuple[Crl, ...]
    root_crls: tuple[Crl, ...]
    pck_crl: Crl | None
    root_crl: Crl | None
    span: Span
    window: Window | None

    @property
    def root_key_id(self) -> str:
        """Intel's name for the root's key: SHA-384 of its point, in hex."""
        return hashlib.sha384(self.root.spki[-POINT_SIZE:]).hexdigest()

    @property
    def pck_crl_number(self) -> int | None:
        """The number of the CA's CRL, if it has one."""
        return self.pck_crl.number if self.pck_crl is not None else None

    @property
    def root_crl_number(self) -> int | None:
        """The number of the root's CRL, if it has one."""
        return self.root_crl.number if self.root_crl is not None else None


class IssuerWalk:
    """One walk from a PCK certificate up to a trusted root. ``links`` first, ``done`` last."""

    def __init__(self, tee: str, leaf: Certificate, pool: EndorsementSet, anchors: TrustAnchors, now: datetime) -> None:
        self._roles = roles(tee)
        self._leaf = leaf
        self._pool = pool
        self._now = now
        self._trusted = trusted(anchors)
        self._vendor = anchors.vendor
        self._pck_crls: tuple[Crl, ...] = ()
        self._root_crls: tuple[Crl, ...] = ()
        self._pck_crl: Crl | None = None
        self._root_crl: Crl | None = None

    def links(self) -> None:
        """Names, algorithms, signatures, constraints: PCK ← CA ← root ← root."""
        self._path = path.build(self._leaf, self._pool, self._roles.pck_profile, trusted=self._trusted, now=self._now)
        _, self._issuer, self._root = self._path.certificates
        self._kind = _kind(self._issuer, self._roles.pck_ca)

    def validity(self) -> None:
        """Each of the three at ``now``."""
        self._path.validity(self._now)

    def anchor(self) -> None:
        """The root's key is Intel's, or one that the caller answers for."""
        self._path.anchor(self._trusted)

    def revocation(self) -> None:
        """The CA is not on the root's CRL, the leaf not on the CA's; both CRLs are there, signed and fresh."""
        self._root_crls, self._root_crl = crls_of(
            self._root,
            ((self._issuer, self._roles.pck_ca),),
            self._pool,
            now=self._now,
            role=self._roles.root_crl,
            url=ROOT_CRL_URL,
        )
        self._pck_crls, self._pck_crl = crls_of(
            self._issuer,
            ((self._leaf, self._roles.pck),),
            self._pool,
            now=self._now,
            role=self._roles.pck_crl,
            url=f"{SERVICE}/sgx/certification/v4/pckcrl?ca={self._kind}&encoding=der",
        )

    def done(self, *, to_remember: bool) -> Issuer:
        """The verified CA, without its leaf. Call it after every step."""
        issuer, root = self._issuer, self._root
        lives = [
            (issuer.not_before, issuer.not_after, f"PCK {self._kind.capitalize()} CA"),
            (root.not_before, root.not_after, "root"),
        ]
        if self._pck_crl is not None:
            lives.append((self._pck_crl.this_update, self._pck_crl.next_update, "PCK CRL"))
        if self._root_crl is not None:
            lives.append((self._root_crl.this_update, self._root_crl.next_update, "root CRL"))
        vendor = self._vendor and root.spki_fingerprint == ROOT
        return Issuer(
            certificate=issuer,
            root=root,
            kind=self._kind,
            root_kind=RootKind.VENDOR if vendor else RootKind.CUSTOM,
            root_fingerprint=root.spki_fingerprint.hex(),
            pck_crls=self._pck_crls,
            root_crls=self._root_crls,
            pck_crl=self._pck_crl,
            root_crl=self._root_crl,
            span=Span.of(lives),
            window=self._window() if to_remember else None,
        )

    def _window(self) -> Window:
        seen = [(item.not_before, item.not_after) for item in self._path.seen if item is not self._leaf]
        seen += [
            (crl.this_update, crl.next_update)
            for authority in (self._issuer, self._root)
            for crl in self._pool.crls_by(authority.subject)
        ]
        return Window.around(self._now, seen)


@lru_cache(maxsize=16)
def serials(crl: Crl) -> frozenset[int]:
    """The serial numbers on a CRL, for who looks up many certificates of one CA."""
    return frozenset([entry.serial_number for entry in crl.parsed])


def check_leaf(tee: str, leaf: Certificate, issuer: Issuer) -> bool:
    """Whether a known ``issuer`` signed this PCK certificate, which has the profile of one; else somebody must search."""
    role = roles(tee).pck
    if (
        not leaf.subject.startswith(_USUAL_NAME) and PCK_NAME not in leaf.common_name
    ) or leaf.algorithm not in ECDSA_P256_SHA256.identifiers:
        return False
    try:
        walk.check_leaf(leaf, role)
        walk.check_critical(leaf, role, known=_KNOWN_CRITICAL)
    except EndorsementError:
        return False
    return walk.is_signed(leaf, issuer.certificate, ECDSA_P256_SHA256)


def is_issued_by_root(certificate: Certificate, issuer: Issuer) -> bool:
    """Whether the root of ``issuer`` signed the certificate. Everything else about it is still to be checked."""
    return (
        certificate.issuer == issuer.root.subject
        and certificate.algorithm in ECDSA_P256_SHA256.identifiers
        and walk.is_signed(certificate, issuer.root, ECDSA_P256_SHA256)
    )


def check_signer(
    tee: str, signer: Certificate, issuer: Issuer, pool: EndorsementSet, *, direct: bool, now: datetime
) -> list[Life]:
    """That a certificate may sign TCB info: its name, its path to the platform's own root, validity, no CRL of the root.

    The name matters: a PCK certificate leads to the same root, and its key may be in anybody's hands (evidence 3.3.4). The
    root matters: who answers for one root must not say what the platforms of another are worth. ``direct``: what
    ``is_issued_by_root`` found. Returns the lives of all that was looked at, the signer's first.
    """
    role, root = roles(tee).signer, issuer.root
    if direct and SIGNER_NAME in signer.common_name:
        walk.check_leaf(signer, role)
        walk.check_critical(signer, role, known=_KNOWN_CRITICAL)
        seen = [(signer.not_before, signer.not_after, "TCB Signing")]
    else:  # under another certificate of the root's key, or under another root
        own = frozenset({root.spki_fingerprint})
        found = path.build(signer, pool, roles(tee).signer_profile, trusted=own, now=now)
        found.validity(now)
        found.anchor(own)
        seen = [(item.not_before, item.not_after, "TCB Signing") for item in found.seen]
    walk.check_validity(signer, now, role)
    walk.check_unlisted(((signer, role),), issuer.root_crls)
    return seen


def crls_of(
    authority: Certificate,
    certificates: Iterable[tuple[Certificate, Role]],
    pool: EndorsementSet,
    *,
    now: datetime,
    role: Role,
    url: str,
) -> tuple[tuple[Crl, ...], Crl]:
    """The CRLs that ``authority`` signed, none of which lists one of ``certificates``, and the fresh one of them.

    An issuer's name is compared as bytes: the CRL of another CA is none (evidence 3.3.3).
    """
    named = pool.crls_by(authority.subject)
    try:
        signed = walk.signed_crls(authority, named, role=role, algorithms=_ALGORITHMS)
        walk.check_unlisted(tuple(certificates), signed)
        return tuple(signed), walk.fresh_crl(signed, named, authority, now, role=role)
    except EndorsementError as error:
        if error.field == "crl":  # which of the two
            error.field, error.hint = role.name, f"{url} has it"
        raise


def trusted(anchors: TrustAnchors) -> frozenset[bytes]:
    """The root keys that are trusted here."""
    return anchors.among(frozenset({ROOT}))


def _kind(certificate: Certificate, role: Role) -> str:
    for name, kind in _CAS:
        if certificate.common_name.endswith(f"SGX PCK {name}"):
            return kind
    raise role.error(
        EndorsementUntrusted,
        "name",
        "not a CA that issues PCK certificates",
        expected=[f"SGX PCK {name}" for name, _ in _CAS],
        got=certificate.common_name[:80],
    )
