"""Whose attestation key is it? By certificate, by pin, or only by its own word (evidence 2 and 6).

In this order: the key is pinned (the SHA-256 of its SPKI is among the trust anchors); or a certificate leads it to a trusted root; or nobody vouches for it. The last is told as such
and never passes where the caller has said which keys or roots he trusts: by pins, or by anchors without the vendors'.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from adyton.crypto import path
from adyton.crypto.algorithms import (
    ECDSA_SHA256,
    ECDSA_SHA384,
    ECDSA_SHA512,
    RSA_SHA256,
    RSA_SHA384,
    RSA_SHA512,
)
from adyton.crypto.chain import Role
from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.errors import BindingMismatch, EndorsementError, EndorsementMalformed, EndorsementUntrusted, EvidenceError
from adyton.rats.types import RootKind
from adyton.tee.remembered import Window
from adyton.tee.tpm.abi import AK_ATTRIBUTES, SPEC, TEE, Attributes, PublicArea, fingerprint, malformed
from adyton.tee.tpm.quote import Key

FOREVER: Final = datetime.max.replace(tzinfo=UTC)
# SHA-256 of the SPKI (evidence 2): GCP EK/AK CA Root, GCP TPM EK root of 2018
ROOTS: Final = frozenset(
    {
        bytes.fromhex("56a613f57126a385dd6949294e93b0b566f96ab0573be0c2368e6f5ca779831f"),
        bytes.fromhex("f23057f4f97d1d90e4cae0ce91d5a0fc99069f0a1bc147021dca33b1e9c4d0d9"),
    }
)
SUBJECT_ALT_NAME, KEY_PURPOSES = "2.5.29.17", "2.5.29.37"
_AK_PURPOSE, _EK_PURPOSE = "2.23.133.8.3", "2.23.133.8.1"  # Google's AK certificates name the second
_CHAIN_SPEC = "TCG EK Credential Profile 2.5; evidence 6"
LEAF = Role(TEE, "ak", _CHAIN_SPEC)
INTERMEDIATE = Role(TEE, "intermediate", _CHAIN_SPEC)
ROOT = Role(TEE, "root", _CHAIN_SPEC)
CRL = Role(TEE, "crl", _CHAIN_SPEC)
_MAX_LENGTH = 5
# Critical in TPM vendors' and clouds' certificates: a name that is a directoryName, purposes, attributes, policies
_CRITICAL = frozenset({SUBJECT_ALT_NAME, KEY_PURPOSES, "2.5.29.9", "2.5.29.32"})
_ALGORITHMS = (RSA_SHA256, RSA_SHA384, RSA_SHA512, ECDSA_SHA256, ECDSA_SHA384, ECDSA_SHA512)
_PROFILES = {
    length: path.Profile((LEAF, *[INTERMEDIATE] * (length - 2), ROOT), _ALGORITHMS, critical=_CRITICAL)
    for length in range(2, _MAX_LENGTH + 1)
}


class AkTrust(Enum):
    """Who answers for the key."""

    CERTIFICATE = "certificate"
    PINNED = "pinned"
    SELF_ASSERTED = "self-asserted"


@dataclass(frozen=True, slots=True)
class Ak:
    """A key as evidence names it. ``area`` where its TPMT_PUBLIC is known, ``certificate`` where it has one."""

    key: Key
    spki: bytes
    fingerprint: bytes
    area: PublicArea | None
    certificate: Certificate | None


@dataclass(frozen=True, slots=True)
class VerifiedAk:
    """A key, who answers for it, and until when."""

    ak: Ak
    trust: AkTrust
    root: RootKind
    root_fingerprint: str
    expires: datetime
    expires_first: str
    window: Window


def read(public: bytes | None, certificate: bytes | None, endorsements: EndorsementSet) -> Ak:
    """The key that the evidence names, and its certificate, the evidence's own or one among the endorsements.

    ``MalformedEvidence`` if there is none or it cannot be read; ``BindingMismatch`` if key and certificate disagree.
    """
    own = _certificate(certificate) if certificate is not None else None
    area = None
    if public is None:
        if own is None:
            raise malformed("ak_missing", "neither a key nor a certificate", field="ak_public")
        key: object = own.public_key
    elif public[:1] == b"\x30":  # a SEQUENCE: no TPMT_PUBLIC begins so, nor does a TPM2B of a possible length
        key = _load(public)
    else:
        area = PublicArea.parse(public)
        key = area.key()
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise malformed("public_kind", "neither an RSA nor an ECC key", field="ak_public", got=type(key).__name__)
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pin = fingerprint(spki)
    if own is not None and own.spki_fingerprint != pin:
        raise BindingMismatch(
            "the certificate is not the attestation key's",
            code="ak_certificate_mismatch",
            tee=TEE,
            field="ak_certificate",
            expected=pin,
            got=own.spki_fingerprint,
            spec=SPEC,
        )
    return Ak(key, spki, pin, area, own or _endorsed(pin, endorsements))


def check_attributes(ak: Ak) -> None:
    """The key is one that a TPM attests with, where its public area is known: restricted, made and kept in this TPM."""
    if ak.area is None:
        return
    attributes = ak.area.attributes
    if attributes & AK_ATTRIBUTES != AK_ATTRIBUTES or Attributes.DECRYPT in attributes:
        raise EvidenceError(
            "the key is not an attestation key: it may sign what no TPM made, or leave the TPM",
            code="ak_attributes",
            tee=TEE,
            field="ak_public",
            expected=f"{AK_ATTRIBUTES:#x} set, {Attributes.DECRYPT:#x} clear",
            got=f"{attributes:#x}",
            spec=SPEC,
        )


def pinned(ak: Ak, anchors: frozenset[bytes]) -> bool:
    """Whether the caller trusts this very key: only a trust anchor can say so, an endorsement never."""
    return ak.fingerprint in anchors


def check_self_asserted(ak: Ak, *, vendors: bool) -> None:
    """A key that nobody vouches for passes only where the caller has not narrowed down whom he trusts."""
    if vendors:
        return
    raise EndorsementUntrusted(
        "nobody who is trusted here answers for the attestation key",
        code="ak_untrusted",
        tee=TEE,
        field="ak_public",
        expected="a pinned key, or a certificate that leads to a trusted root",
        got=ak.fingerprint,
        spec=SPEC,
        hint="pin the key: make the SHA-256 of its SubjectPublicKeyInfo a trust anchor",
    )


def build(certificate: Certificate, pool: EndorsementSet, *, trusted: frozenset[bytes], now: datetime) -> path.Path:
    """The path from a key's certificate to a root; ``EndorsementError`` for what is wrong with it.

    Chains differ in length, and a name may belong to certificates at several heights: of those that names allow the
    shortest counts that leads to a trusted root.
    """
    check_purpose(certificate)
    best: path.Path | None = None
    failure: EndorsementError | None = None
    seen: tuple[Certificate, ...] = ()
    for length in _lengths(certificate, pool):
        try:
            found = path.build(certificate, pool, _PROFILES[length], trusted=trusted, now=now)
        except EndorsementError as error:
            failure = failure or error
            continue
        seen += found.seen
        if found.root.spki_fingerprint in trusted:
            return replace(found, seen=seen)
        best = best or found
    if best is not None:
        return best
    raise failure or ValueError("no length at all")


def check_purpose(certificate: Certificate) -> None:
    """Where the certificate names purposes, one is an attestation key's (or Google's use of an EK's)."""
    _, value = certificate.extensions.get(KEY_PURPOSES, (False, None))
    if value is not None and not {_AK_PURPOSE, _EK_PURPOSE} & {item.dotted_string for item in value}:  # type: ignore[attr-defined]  # ExtendedKeyUsage
        raise LEAF.error(EndorsementMalformed, "profile", "its key is not for attestation", expected=_AK_PURPOSE)


def _lengths(certificate: Certificate, pool: EndorsementSet) -> list[int]:
    """How many certificates the chain may have, going by names alone; what names say is checked afterwards.

    Where no issuer is there a length is given all the same, for the error that names what is missing.
    """
    found, names = set(), {certificate.issuer}
    for length in range(2, _MAX_LENGTH + 1):
        issuers = [issuer for name in names for issuer in pool.with_subject(name)]
        if not issuers or length == _MAX_LENGTH or any(issuer.issuer == issuer.subject for issuer in issuers):
            found.add(length)
        names = {issuer.issuer for issuer in issuers if issuer.issuer != issuer.subject}
        if not names:
            break
    return sorted(found)


def _endorsed(pin: bytes, endorsements: EndorsementSet) -> Certificate | None:
    """The key's certificate among the endorsements: of several the last to end, wherever it stood."""
    found = []
    for certificate in endorsements.certificates:
        constraints = certificate.basic_constraints
        if certificate.spki_fingerprint == pin and not (constraints is not None and constraints.ca):
            found.append(certificate)
    return max(found, key=lambda item: (item.not_after, item.digest), default=None)


def _certificate(encoded: bytes) -> Certificate:
    try:
        return Certificate(encoded)
    except EndorsementMalformed as error:
        raise malformed("ak_certificate", "cannot be read", field="ak_certificate", got=len(encoded)) from error


def _load(spki: bytes) -> object:
    try:
        return load_der_public_key(spki)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise malformed("public_key", "not a SubjectPublicKeyInfo", field="ak_public", got=len(spki)) from error
