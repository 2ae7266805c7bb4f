"""Signature algorithms of certificates and CRLs: what an AlgorithmIdentifier may say, and how a signature verifies.

A format allows some of these, and a chain is checked with those only: a certificate never chooses (evidence 1, rule 6).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from adyton.crypto.ecdsa import is_p256, is_signed_p256, is_signed_p384


@dataclass(frozen=True, slots=True, eq=False)
class SignatureAlgorithm:
    """One algorithm. ``identifiers``: the contents of the AlgorithmIdentifier (DER) that mean it."""

    name: str
    identifiers: frozenset[bytes]
    _check: Callable[[CertificatePublicKeyTypes, bytes, bytes], None]

    def verifies(self, key: CertificatePublicKeyTypes, signature: bytes, signed: bytes) -> bool:
        """Whether ``signature`` is ``key``'s over ``signed``; a key of another kind or curve made none."""
        try:
            self._check(key, signature, signed)
        except (InvalidSignature, _OtherKey, ValueError):
            return False
        return True


_RSA_SIZES = range(2048, 4097)  # bits; beyond lies what nobody uses and what would keep us computing


class _OtherKey(Exception):
    """The key is not of the algorithm's kind."""


def _wrap(tag: str, content: str) -> str:
    """A DER element in hex, shorter than 128 bytes."""
    return f"{tag}{len(content) // 2:02x}{content}"


# RFC 4055 3.1. Issuers differ in two things that mean the same: whether a hash has NULL for its parameters, and whether
# the trailer field's default is written out.
_PSS_OID = "06092a864886f70d01010a"
_SHA384_OID = "0609608648016503040202"
_MGF1_OID = "06092a864886f70d010108"
_PSS_SHA384 = frozenset(
    bytes.fromhex(
        _PSS_OID
        + _wrap(
            "30",
            _wrap("a0", _wrap("30", _SHA384_OID + null))
            + _wrap("a1", _wrap("30", _MGF1_OID + _wrap("30", _SHA384_OID + null)))
            + "a203020130"
            + trailer,
        )
    )
    for null in ("0500", "")
    for trailer in ("", "a303020101")
)


def _pss(size: int, algorithm: hashes.HashAlgorithm) -> Callable[[CertificatePublicKeyTypes, bytes, bytes], None]:
    scheme = padding.PSS(padding.MGF1(algorithm), size)

    def check(key: CertificatePublicKeyTypes, signature: bytes, signed: bytes) -> None:
        if not isinstance(key, rsa.RSAPublicKey) or key.key_size not in _RSA_SIZES:
            raise _OtherKey
        key.verify(signature, signed, scheme, algorithm)

    return check


def _pkcs1(algorithm: hashes.HashAlgorithm) -> Callable[[CertificatePublicKeyTypes, bytes, bytes], None]:
    scheme = padding.PKCS1v15()

    def check(key: CertificatePublicKeyTypes, signature: bytes, signed: bytes) -> None:
        if not isinstance(key, rsa.RSAPublicKey) or key.key_size not in _RSA_SIZES:
            raise _OtherKey
        key.verify(signature, signed, scheme, algorithm)

    return check


def _ecdsa(
    curves: frozenset[str], algorithm: hashes.HashAlgorithm
) -> Callable[[CertificatePublicKeyTypes, bytes, bytes], None]:
    scheme = ec.ECDSA(algorithm)

    def check(key: CertificatePublicKeyTypes, signature: bytes, signed: bytes) -> None:
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in curves:
            raise _OtherKey
        key.verify(signature, signed, scheme)

    return check


def _p256(key: CertificatePublicKeyTypes, signature: bytes, signed: bytes) -> None:
    if not is_p256(key):
        raise _OtherKey
    if not is_signed_p256(key, signature, signed):
        raise InvalidSignature


def _p384(key: CertificatePublicKeyTypes, signature: bytes, signed: bytes) -> None:
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
        raise _OtherKey
    if not is_signed_p384(key, signature, signed):
        raise InvalidSignature


def _rsa_identifiers(last: str) -> frozenset[bytes]:
    """RFC 4055 5: the parameters are NULL; that they are missing must be taken as well."""
    oid = "06092a864886f70d0101" + last
    return frozenset({bytes.fromhex(oid + "0500"), bytes.fromhex(oid)})


def _ecdsa_identifier(last: str) -> frozenset[bytes]:
    """RFC 5758 3.2: no parameters."""
    return frozenset({bytes.fromhex("06082a8648ce3d0403" + last)})


RSA_PSS_SHA384: Final = SignatureAlgorithm(
    "RSASSA-PSS, SHA-384, MGF1 SHA-384, salt 48", _PSS_SHA384, _pss(48, hashes.SHA384())
)
RSA_SHA256: Final = SignatureAlgorithm("RSASSA-PKCS1-v1_5, SHA-256", _rsa_identifiers("0b"), _pkcs1(hashes.SHA256()))
RSA_SHA384: Final = SignatureAlgorithm("RSASSA-PKCS1-v1_5, SHA-384", _rsa_identifiers("0c"), _pkcs1(hashes.SHA384()))
RSA_SHA512: Final = SignatureAlgorithm("RSASSA-PKCS1-v1_5, SHA-512", _rsa_identifiers("0d"), _pkcs1(hashes.SHA512()))
_NIST = frozenset({"secp256r1", "secp384r1", "secp521r1"})
ECDSA_P256_SHA256: Final = SignatureAlgorithm("ECDSA P-256, SHA-256", _ecdsa_identifier("02"), _p256)
ECDSA_P384_SHA384: Final = SignatureAlgorithm("ECDSA P-384, SHA-384", _ecdsa_identifier("03"), _p384)
ECDSA_SHA256: Final = SignatureAlgorithm("ECDSA, SHA-256", _ecdsa_identifier("02"), _ecdsa(_NIST, hashes.SHA256()))
ECDSA_SHA384: Final = SignatureAlgorithm("ECDSA, SHA-384", _ecdsa_identifier("03"), _ecdsa(_NIST, hashes.SHA384()))
ECDSA_SHA512: Final = SignatureAlgorithm("ECDSA, SHA-512", _ecdsa_identifier("04"), _ecdsa(_NIST, hashes.SHA512()))
