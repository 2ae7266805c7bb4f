"""ECDSA signatures as TEEs write them: r and s side by side, in fields of some size, in some byte order.

(r, n - s) verifies as (r, s) does: never take a hash of signed evidence for its identity.

P-256 and P-384, which cost more than everything else in a verdict, have two back ends: OpenSSL (``cryptography``), and AWS-LC
(``awscrt``, with ``adyton[fast]``), which takes a third of the time for P-384, and three quarters for P-256. ``use`` chooses
for the whole process; verdicts are the same. Keys are always loaded, and thereby checked, by ``cryptography``.
"""

from __future__ import annotations

import hashlib
import importlib
from functools import cache
from typing import Any, Literal, TypeGuard

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from adyton.errors import SignatureInvalid

P256_ORDER = int("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)
P384_ORDER = int("ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16)
_P256_ORDER = P256_ORDER.to_bytes(32, "big")
_ZERO = bytes(32)
# Of digests: ``hashlib`` makes one with fewer steps than ``cryptography`` does.
_ECDSA_SHA256 = ec.ECDSA(Prehashed(hashes.SHA256()))
_ECDSA_SHA384 = ec.ECDSA(Prehashed(hashes.SHA384()))
P521_ORDER = int(
    "01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa"
    "51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409",
    16,
)
_ECDSA_SHA512 = ec.ECDSA(hashes.SHA512())


def is_p256(key: object) -> TypeGuard[ec.EllipticCurvePublicKey]:
    """Whether a public key is one on P-256. No other kind of key has a curve with a name; asking for its type takes longer."""
    return getattr(getattr(key, "curve", None), "name", None) == "secp256r1"


def verify_p256(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> None:
    """Verify ECDSA P-256 with SHA-256 over ``data``, or ``SignatureInvalid``; r then s, 32 bytes each, big-endian."""
    if len(signature) != 64:
        raise ValueError("a P-256 signature is two numbers of 32 bytes")
    if key.curve.name != "secp256r1":
        raise ValueError("not a P-256 key")
    r, s = signature[:32], signature[32:]
    if not (
        _ZERO < r < _P256_ORDER and _ZERO < s < _P256_ORDER
    ):  # as numbers of one length, most significant byte first
        raise SignatureInvalid("r or s of the signature is out of range", field="signature")
    if not is_signed_p256(key, _sequence(r, s), data):
        raise SignatureInvalid("the signature does not verify", field="signature")


def _sequence(r: bytes, s: bytes) -> bytes:
    """Two positive numbers of 32 bytes as DER's SEQUENCE of INTEGERs."""
    first, second = r[0], s[0]
    if first and second:  # no leading zeros, as nearly always
        if first < 0x80:
            return (_R_S if second < 0x80 else _R_LONG_S) % (r, s)
        return (_LONG_R_S if second < 0x80 else _LONG_R_LONG_S) % (r, s)
    r, s = _integer(r), _integer(s)
    return bytes((0x30, len(r) + len(s))) + r + s


_R_S = b"\x30\x44\x02\x20%b\x02\x20%b"
_LONG_R_S = b"\x30\x45\x02\x21\0%b\x02\x20%b"  # where the first bit is set, a zero byte says that it is no sign
_R_LONG_S = b"\x30\x45\x02\x20%b\x02\x21\0%b"
_LONG_R_LONG_S = b"\x30\x46\x02\x21\0%b\x02\x21\0%b"


def _integer(value: bytes) -> bytes:
    """A positive number of less than 127 bytes as DER's INTEGER."""
    value = value.lstrip(b"\0")
    if value[0] >= 0x80:
        return bytes((2, len(value) + 1, 0)) + value
    return bytes((2, len(value))) + value


def is_signed_p256(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> bool:
    """Whether ``signature`` (DER, as in certificates) is the P-256 key's over ``data`` with SHA-256."""
    digest = hashlib.sha256(data).digest()
    if _fast is not None:
        return _fast.verifies(key, signature, digest)
    try:
        key.verify(signature, digest, _ECDSA_SHA256)
    except InvalidSignature:
        return False
    return True


def verify_p384(
    key: ec.EllipticCurvePublicKey,
    signature: bytes,
    data: bytes,
    *,
    size: int,
    byteorder: Literal["little", "big"],
) -> None:
    """Verify ECDSA P-384 with SHA-384 over ``data``, or ``SignatureInvalid``.

    ``signature`` is r then s, ``size`` bytes each (48, or 72 in AMD's structures), both in ``byteorder``. A key on
    another curve or a signature of another length is the caller's mistake, ``ValueError``.
    """
    if len(signature) != 2 * size or size < 48:
        raise ValueError("a P-384 signature is two numbers of the stated size, 48 bytes or more")
    if key.curve.name != "secp384r1":
        raise ValueError("not a P-384 key")
    r = int.from_bytes(signature[:size], byteorder)
    s = int.from_bytes(signature[size:], byteorder)
    if not (0 < r < P384_ORDER and 0 < s < P384_ORDER):
        raise SignatureInvalid("r or s of the signature is out of range", field="signature")
    if not is_signed_p384(key, encode_dss_signature(r, s), data):
        raise SignatureInvalid("the signature does not verify", field="signature")


def is_signed_p384(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> bool:
    """Whether ``signature`` (DER, as in certificates) is the P-384 key's over ``data`` with SHA-384."""
    digest = hashlib.sha384(data).digest()
    if _fast is not None:
        return _fast.verifies(key, signature, digest)
    try:
        key.verify(signature, digest, _ECDSA_SHA384)
    except InvalidSignature:
        return False
    return True


class _AwsLc:
    """AWS-LC's side: its keys, made from ``cryptography``'s and kept for as long as those are among the last ones used."""

    _LIMIT = 512

    def __init__(self) -> None:
        self._type = importlib.import_module("awscrt.crypto").EC
        self._keys: dict[int, tuple[ec.EllipticCurvePublicKey, Any]] = {}

    def verifies(self, key: ec.EllipticCurvePublicKey, signature: bytes, digest: bytes) -> bool:
        try:
            return bool(self._key(key).verify(digest, signature))
        except RuntimeError:  # what AWS-LC cannot work with did not verify
            return False

    def _key(self, key: ec.EllipticCurvePublicKey) -> Any:
        known = self._keys.get(id(key))
        if known is not None:  # the entry holds the key, so that its id belongs to nobody else
            return known[1]
        made = self._type.new_key_from_der_data(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        if len(self._keys) >= self._LIMIT:
            self._keys.clear()  # in one step: going through it while another thread adds a key would fail
        self._keys[id(key)] = key, made
        return made


_fast: _AwsLc | None = None


def use(back_end: Literal["openssl", "aws-lc"]) -> None:
    """Verify P-256 and P-384 with this back end from now on, in the whole process. ``ImportError`` if it is not installed."""
    global _fast  # noqa: PLW0603 -- both give the same verdicts, so this changes no result
    _fast = _aws_lc() if back_end == "aws-lc" else None


@cache
def _aws_lc() -> _AwsLc:
    """The one there is: its keys stay when somebody switches to and fro."""
    return _AwsLc()


def back_end() -> str:
    """The name of the back end in use."""
    return "openssl" if _fast is None else "aws-lc"


def verify_p521(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> None:
    """Verify ECDSA P-521 with SHA-512 over ``data``, or ``SignatureInvalid``; r then s, 66 bytes each, big-endian."""
    if len(signature) != 132:
        raise ValueError("a P-521 signature is two numbers of 66 bytes")
    if key.curve.name != "secp521r1":
        raise ValueError("not a P-521 key")
    r = int.from_bytes(signature[:66], "big")
    s = int.from_bytes(signature[66:], "big")
    if not (0 < r < P521_ORDER and 0 < s < P521_ORDER):
        raise SignatureInvalid("r or s of the signature is out of range", field="signature")
    try:
        key.verify(encode_dss_signature(r, s), data, _ECDSA_SHA512)
    except InvalidSignature:
        raise SignatureInvalid("the signature does not verify", field="signature") from None
