"""The chain in a Nitro document: leaf, instance, zone, region, root; P-384 with SHA-384 throughout (evidence 8).

The document brings it whole, in order, and only the root's key is believed. How many authorities there are is AWS's
choice, so there is one ``Profile`` for each number of them. Leaves live three hours: what is above them is verified once and
remembered, and with it the last leaf.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec

from adyton.crypto import chain as walk
from adyton.crypto.algorithms import ECDSA_P384_SHA384
from adyton.crypto.chain import Role
from adyton.crypto.path import Path, Profile, build
from adyton.crypto.x509 import BASIC_CONSTRAINTS, KEY_USAGE, Certificate, EndorsementSet
from adyton.errors import EndorsementMalformed, EndorsementUntrusted
from adyton.rats.types import Revocation, RootKind, TrustAnchors
from adyton.tee.nitro.abi import MAX_BUNDLE, SPEC, TEE
from adyton.tee.remembered import Window

# aws.nitro-enclaves, 2019 to 2049 (evidence 2): SHA-256 of its SubjectPublicKeyInfo
ROOT_SPKI = bytes.fromhex("f2caf5ecc6190b4a8399b78bc58a2bbcd0382375db8a1bfd78a82743874fd225")
ROOT_CERTIFICATE = bytes.fromhex("641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b")  # of the whole
_VENDOR = frozenset({ROOT_SPKI})

LEAF = Role(TEE, "leaf", SPEC)
CRL = Role(TEE, "crl", SPEC)
_ALGORITHMS = (ECDSA_P384_SHA384,)
_CRITICAL = frozenset({BASIC_CONSTRAINTS, KEY_USAGE})
_BETWEEN = ("instance", "zone", "region")


def _profile(authorities: int) -> Profile:
    between = [_BETWEEN[number] if number < len(_BETWEEN) else f"ca{number + 1}" for number in range(authorities - 1)]
    return Profile(
        (LEAF, *(Role(TEE, name, SPEC) for name in (*between, "root"))),
        _ALGORITHMS,
        sound=frozenset({ROOT_CERTIFICATE}),
    )


PROFILES = {authorities: _profile(authorities) for authorities in range(1, MAX_BUNDLE + 1)}


@dataclass(frozen=True, slots=True)
class Authorities:
    """What is above the leaf, verified: valid in ``window``, in which the same lists of revoked ones are fresh.

    ``crls_missing``: not every list of revoked certificates that there may be was at hand.
    """

    issuer: Certificate
    root: RootKind
    root_fingerprint: str
    window: Window
    expires: datetime
    expires_first: str
    crls_missing: bool


def trusted(anchors: TrustAnchors) -> frozenset[bytes]:
    """The root keys that are trusted."""
    return anchors.among(_VENDOR)


def path_of(leaf: Certificate, bundle: Sequence[bytes], anchors: TrustAnchors, now: datetime) -> Path:
    """The path through the whole bundle, in its order; signatures and constraints hold up to its first. Else an error."""
    certificates = [Certificate(encoded) for encoded in bundle]
    profile = PROFILES[len(certificates)]
    path = build(leaf, EndorsementSet(certificates), profile, trusted=trusted(anchors), now=now)
    if path.certificates[1:] != tuple(reversed(certificates)) or len(set(bundle)) != len(bundle):
        raise EndorsementMalformed(
            "cabundle is not the leaf's chain from root to issuer",
            code="cabundle_order",
            tee=TEE,
            field="cabundle",
            spec=SPEC,
        )
    return path


def check_leaf_key(leaf: Certificate) -> None:
    """The leaf says that its key is for signatures, and it is on P-384."""
    usage, key = leaf.key_usage, leaf.public_key
    if usage is None or not usage.digital_signature or not isinstance(key, ec.EllipticCurvePublicKey):
        raise LEAF.error(EndorsementMalformed, "profile", "its key is not for signing documents")
    if key.curve.name != "secp384r1":
        raise LEAF.error(
            EndorsementMalformed, "key", "not on this format's curve", expected="P-384", got=key.curve.name
        )


def check_under(leaf: Certificate, issuer: Certificate) -> None:
    """The leaf alone, under an issuer that is verified already: all that ``path_of`` looks at in it."""
    if leaf.issuer == leaf.subject:
        raise LEAF.error(
            EndorsementUntrusted, "self_issued", "issued by itself, in the place of an enclave's certificate"
        )
    walk.check_leaf(leaf, LEAF)
    walk.check_critical(leaf, LEAF, known=_CRITICAL)
    algorithm = walk.check_algorithm(leaf, LEAF, _ALGORITHMS)
    if not walk.is_signed(leaf, issuer, algorithm):
        raise LEAF.error(EndorsementUntrusted, "sig", "its signature does not verify under its issuer's key")


def check_revocation(path: Path, given: EndorsementSet, now: datetime) -> None:
    """No authority is on its issuer's list, where that list was given.

    AWS's certificates name lists, but its instructions do not ask for them: that one is missing is no error.
    """
    for number in range(1, len(path.certificates) - 1):
        _check_listed(path.certificates[number], path.profile.roles[number], path.certificates[number + 1], given, now)


def check_leaf_revocation(leaf: Certificate, issuer: Certificate, given: EndorsementSet, now: datetime) -> None:
    """The same for the leaf, which is never remembered."""
    _check_listed(leaf, LEAF, issuer, given, now)


def _check_listed(
    certificate: Certificate, role: Role, issuer: Certificate, given: EndorsementSet, now: datetime
) -> None:
    if crls := given.crls_by(issuer.subject):
        walk.check_revocation(((certificate, role),), issuer, crls, now, role=CRL, algorithms=_ALGORITHMS)


def _unlisted(issuer: Certificate, given: EndorsementSet) -> bool:
    """Whether an issuer signs lists, and none was given."""
    usage = issuer.key_usage
    return usage is not None and usage.crl_sign and not given.crls_by(issuer.subject)


def settle(path: Path, given: EndorsementSet, anchors: TrustAnchors, now: datetime) -> Authorities:
    """What there is to remember of a path that passed every check."""
    above = path.certificates[1:]
    crls = [crl for issuer in above for crl in given.crls_by(issuer.subject)]
    lifetimes = [(item.not_before, item.not_after) for item in above]
    lifetimes += [(crl.this_update, crl.next_update) for crl in crls]
    first = min(zip(above, path.profile.roles[1:], strict=True), key=lambda pair: pair[0].not_after)
    return Authorities(
        issuer=above[0],
        root=anchors.kind(path.root.spki_fingerprint, _VENDOR),
        root_fingerprint=path.root.spki_fingerprint.hex(),
        window=Window.around(now, lifetimes),
        expires=first[0].not_after,
        expires_first=first[1].name,
        crls_missing=any(_unlisted(issuer, given) for issuer in above),
    )


def memory_key(
    bundle: Sequence[bytes], given: EndorsementSet, anchors: TrustAnchors, revocation: Revocation
) -> tuple[object, ...]:
    """All that verifying the authorities looks at, apart from the time."""
    digest = hashlib.sha256()
    for encoded in bundle:
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    crls = given.digest if given.crls else b""
    return TEE, digest.digest(), crls, anchors.vendor, anchors.custom, revocation is Revocation.REQUIRED
