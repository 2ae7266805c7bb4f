"""A whole path of certificates, from a leaf to a trusted root, for any TEE whose chain a ``Profile`` describes.

Steps that each check one thing: ``build`` (names, algorithms, signatures, constraints), ``validity``, ``anchor``,
``revocation``. Names are no identities: among certificates of one name the one that signed is meant, so the order of
what was given never decides. AMD's chain, which chooses among leaves as well, is ``tee/snp/endorsements.py``'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from adyton.crypto import chain as walk
from adyton.crypto.algorithms import SignatureAlgorithm
from adyton.crypto.chain import Role
from adyton.crypto.x509 import BASIC_CONSTRAINTS, KEY_USAGE, Certificate, Crl, EndorsementSet
from adyton.errors import EndorsementError, EndorsementMissing, EndorsementUntrusted

MAX_CANDIDATES = 8  # certificates of one name that are tried
MAX_SIGNATURES = 48  # of one search


@dataclass(frozen=True, slots=True)
class Profile:
    """What a TEE's chain looks like: a role for each certificate, leaf first and root last, and what may sign.

    ``names``: what each certificate's common name must contain, ``None`` for anything. ``critical``: the critical
    extensions that whoever uses the profile knows of besides basicConstraints and keyUsage. ``sound``: SHA-256 of whole
    root certificates whose own signature was verified when that was written down; it says nothing of trust.
    """

    roles: tuple[Role, ...]
    algorithms: tuple[SignatureAlgorithm, ...]
    names: tuple[str | None, ...] = ()
    critical: frozenset[str] = frozenset()
    sound: frozenset[bytes] = frozenset()
    known: frozenset[str] = field(init=False)  # ``critical`` and those two

    def __post_init__(self) -> None:
        object.__setattr__(self, "known", self.critical | {BASIC_CONSTRAINTS, KEY_USAGE})
        if len(self.roles) < 2 or (self.names and len(self.names) != len(self.roles)):
            raise ValueError("a profile has a leaf and a root, and a name for each or for none")


@dataclass(frozen=True, slots=True)
class Path:
    """A sound path: every signature verifies up to a self-signed root. Whether that root is trusted, ``anchor`` says."""

    certificates: tuple[Certificate, ...]
    profile: Profile
    seen: tuple[
        Certificate, ...
    ]  # everything that was a candidate: a verdict may change when one of these begins or ends

    @property
    def leaf(self) -> Certificate:
        """The first."""
        return self.certificates[0]

    @property
    def root(self) -> Certificate:
        """The last."""
        return self.certificates[-1]

    def validity(self, now: datetime) -> None:
        """Each of them at ``now``, or ``EndorsementExpired`` that names the first which is not."""
        for certificate, role in zip(self.certificates, self.profile.roles, strict=True):
            walk.check_validity(certificate, now, role)

    def anchor(self, trusted: frozenset[bytes]) -> None:
        """The root's key is one of ``trusted`` (SHA-256 of SPKI), or ``EndorsementUntrusted``."""
        if self.root.spki_fingerprint not in trusted:
            raise self.profile.roles[-1].error(
                EndorsementUntrusted,
                "untrusted",
                "its key is not a trusted one, whatever it calls itself",
                expected=sorted(pin.hex() for pin in trusted),
                got=self.root.spki_fingerprint,
                hint="a development root is trusted only where its fingerprint is configured",
            )

    def revocation(self, crls: EndorsementSet, now: datetime, role: Role, *, below: int = 0) -> list[Crl]:
        """None from number ``below`` up is on its issuer's CRL, and each issuer has a fresh one; returns those.

        ``role`` is the CRLs'. A path whose certificates are revoked by other means never calls this.
        """
        fresh = []
        for number in range(below, len(self.certificates) - 1):
            issuer = self.certificates[number + 1]
            fresh.append(
                walk.check_revocation(
                    ((self.certificates[number], self.profile.roles[number]),),
                    issuer,
                    crls.crls_by(issuer.subject),
                    now,
                    role=role,
                    algorithms=self.profile.algorithms,
                )
            )
        return fresh

    def lifetimes(self) -> list[tuple[datetime, datetime]]:
        """Of every certificate that was looked at, for a ``Window``."""
        return [(certificate.not_before, certificate.not_after) for certificate in self.seen]


def build(
    leaf: Certificate, pool: EndorsementSet, profile: Profile, *, trusted: frozenset[bytes], now: datetime
) -> Path:
    """The best path from ``leaf`` through ``pool``: one that ends in ``trusted`` if there is one, else any sound one.

    Raises ``EndorsementMissing``, ``EndorsementMalformed`` or ``EndorsementUntrusted`` for the first thing that is
    wrong with the most likely path. ``now`` only orders candidates; ``Path.validity`` judges them.
    """
    proven: list[Certificate] = [leaf]
    if _only_path(proven, pool, profile):
        only = tuple(proven)
        return Path(only, profile, only)
    search = _Search(proven, pool, profile, now)
    untrusted = None
    for found in search.paths((leaf,)):
        if found[-1].spki_fingerprint in trusted:
            return Path(found, profile, tuple(search.seen))
        untrusted = untrusted or found
    if untrusted is None:
        raise search.failures[0]
    return Path(untrusted, profile, tuple(search.seen))


def is_sound_root(root: Certificate, profile: Profile, algorithm: SignatureAlgorithm) -> bool:
    """Whether its own key signed it: all of it, dates and constraints too, of which the pin of a key says nothing."""
    return root.digest in profile.sound or walk.is_signed(root, root, algorithm)


def _only_path(found: list[Certificate], pool: EndorsementSet, profile: Profile) -> bool:
    """Whether every name belongs to one certificate and nothing is wrong; else a search has to say what is.

    ``found`` begins with the leaf, and grows by each issuer whose signature verified.
    """
    certificate = found[0]
    last = len(profile.roles) - 1
    try:
        for number, role in enumerate(profile.roles):
            _check_one(certificate, role, number, profile)
            algorithm = walk.check_algorithm(certificate, role, profile.algorithms)
            if number == last:
                break
            issuers = pool.with_subject(certificate.issuer)
            if len(issuers) != 1 or not walk.is_signed(certificate, issuers[0], algorithm):
                return False
            certificate = issuers[0]
            found.append(certificate)
    except EndorsementError:
        return False
    return is_sound_root(certificate, profile, algorithm)


def _check_one(certificate: Certificate, role: Role, number: int, profile: Profile) -> None:
    """Name, kind and critical extensions of number ``number`` of a path."""
    wanted = profile.names[number] if profile.names else None
    if wanted is not None and wanted not in certificate.common_name:
        raise role.error(
            EndorsementUntrusted,
            "name",
            "not the certificate that belongs here",
            expected=wanted,
            got=certificate.common_name[:80],
        )
    if number < len(profile.roles) - 1 and certificate.issuer == certificate.subject:
        raise role.error(
            EndorsementUntrusted,
            "self_issued",
            "issued by itself, in the place of a certificate that another one issues",
            hint="the chain is shorter than this TEE's",
        )
    if number == 0:
        walk.check_leaf(certificate, role)
    else:
        walk.check_authority(certificate, role, below=number - 1)
    walk.check_critical(certificate, role, known=profile.known)


class _Search:
    """One search, depth first, with a budget of signatures: hostile certificates must not keep us computing.

    ``proven``: the leaf, and issuers above it whose signatures were found right one after the other; not verified again.
    """

    def __init__(self, proven: list[Certificate], pool: EndorsementSet, profile: Profile, now: datetime) -> None:
        self.failures: list[EndorsementError] = []
        self.seen = proven[:1]
        self._proven = proven
        self._pool = pool
        self._profile = profile
        self._now = now
        self._budget = MAX_SIGNATURES

    def paths(self, below: tuple[Certificate, ...]) -> Iterator[tuple[Certificate, ...]]:
        """Every sound way up from the last of ``below``; what is wrong with the others goes to ``failures``."""
        profile = self._profile
        number = len(below) - 1
        certificate, role = below[-1], profile.roles[number]
        try:
            _check_one(certificate, role, number, profile)
            algorithm = walk.check_algorithm(certificate, role, profile.algorithms)
            if number == len(profile.roles) - 1:
                if not self._sound(certificate, algorithm):
                    raise role.error(EndorsementUntrusted, "sig", "a root that its own key did not sign")
                yield below
                return
            issuers = self._issuers(certificate, profile.roles[number + 1])
        except EndorsementError as error:
            self.failures.append(error)
            return
        signed = False
        for issuer in issuers:
            if self._signed(certificate, issuer, algorithm):
                signed = True
                yield from self.paths((*below, issuer))
        if not signed:
            self.failures.append(
                role.error(EndorsementUntrusted, "sig", "its signature does not verify under its issuer's key")
            )

    def _sound(self, root: Certificate, algorithm: SignatureAlgorithm) -> bool:
        self._budget -= 1
        return self._budget >= 0 and is_sound_root(root, self._profile, algorithm)

    def _signed(self, certificate: Certificate, issuer: Certificate, algorithm: SignatureAlgorithm) -> bool:
        self._budget -= 1
        if self._budget < 0:
            return False
        proven = any(certificate is below and issuer is above for below, above in pairwise(self._proven))
        return proven or walk.is_signed(certificate, issuer, algorithm)

    def _issuers(self, certificate: Certificate, role: Role) -> list[Certificate]:
        found = self._pool.with_subject(certificate.issuer)
        if not found:
            raise role.error(
                EndorsementMissing,
                "missing",
                "not among the evidence's certificates nor the given endorsements",
                hint="give the vendor's certificate with the endorsements",
            )
        issuers = list(found)
        if len(issuers) > 1:
            issuers = sorted(found, key=lambda issuer: walk.by_preference(issuer, self._now))[:MAX_CANDIDATES]
        self.seen += issuers
        return issuers
