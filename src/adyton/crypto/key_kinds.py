"""The kinds of keys that are made and kept inside: how each is made, what it can do, and what it looks like outside.

Inside, a key is bytes: of a symmetric one the key itself, of a pair PKCS#8 DER. ``released`` gives the form in which it
leaves: symmetric keys raw, pairs as PEM (PKCS#8, then the certificate chain if there is one).
"""

from __future__ import annotations

from enum import Enum
from typing import Final, TypeAlias, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from adyton.errors import MalformedRequest, Unavailable
from adyton.wire import b64

MAX_RANDOM = 64 * 1024

PrivateKey: TypeAlias = (
    rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | x25519.X25519PrivateKey
)
PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | x25519.X25519PublicKey


class Kind(Enum):
    """``random`` is bytes that no operation uses; ``configuration`` and ``opaque`` are values that their owner wrote."""

    AES_128 = "aes-128"
    AES_192 = "aes-192"
    AES_256 = "aes-256"
    HMAC_256 = "hmac-256"
    HMAC_512 = "hmac-512"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    P256 = "p-256"
    P384 = "p-384"
    P521 = "p-521"
    ED25519 = "ed25519"
    X25519 = "x25519"
    RANDOM = "random"
    CONFIGURATION = "configuration"
    OPAQUE = "opaque"

    @property
    def has_public(self) -> bool:
        """Whether it is a pair."""
        return self.value.startswith(("rsa-", "p-")) or self in {Kind.ED25519, Kind.X25519}

    @property
    def rsa_bits(self) -> int:
        """Bits of the modulus; 0 for what is not RSA."""
        return int(self.value[4:]) if self.value.startswith("rsa-") else 0

    @property
    def size(self) -> int:
        """Bytes of a symmetric key; 0 where it is a pair or has no fixed size."""
        return _SIZES.get(self, 0)

    @property
    def operations(self) -> frozenset[str]:
        """What it can be used for without leaving. ``public`` reads the public half."""
        return _OPERATIONS[self]


_SIZES: Final = {Kind.AES_128: 16, Kind.AES_192: 24, Kind.AES_256: 32, Kind.HMAC_256: 32, Kind.HMAC_512: 64}
CURVES: Final[dict[Kind, ec.EllipticCurve]] = {
    Kind.P256: ec.SECP256R1(),
    Kind.P384: ec.SECP384R1(),
    Kind.P521: ec.SECP521R1(),
}
_CRV: Final = {Kind.P256: ("P-256", 32), Kind.P384: ("P-384", 48), Kind.P521: ("P-521", 66)}
_AES = frozenset({"encrypt", "decrypt", "rewrap", "wrap", "unwrap", "datakey"})
_SIGNING = frozenset({"sign", "verify", "public"})
_OPERATIONS: Final[dict[Kind, frozenset[str]]] = {
    **dict.fromkeys((Kind.AES_128, Kind.AES_192, Kind.AES_256), _AES),
    **dict.fromkeys((Kind.HMAC_256, Kind.HMAC_512), frozenset({"mac", "verify"})),
    **dict.fromkeys((Kind.RSA_2048, Kind.RSA_3072, Kind.RSA_4096), _AES | _SIGNING),
    **dict.fromkeys((Kind.P256, Kind.P521), _SIGNING | {"encrypt", "decrypt", "rewrap"}),
    **dict.fromkeys((Kind.P384, Kind.ED25519), _SIGNING),
    Kind.X25519: frozenset({"public"}),
    Kind.RANDOM: frozenset(),
    Kind.CONFIGURATION: frozenset(),
    Kind.OPAQUE: frozenset(),
}
OPERATIONS: Final = frozenset().union(*_OPERATIONS.values())
"""Every operation that some kind knows."""
WRITTEN: Final = frozenset({Kind.CONFIGURATION, Kind.OPAQUE})
"""What its owner writes, and nobody generates."""


def kind(name: str) -> Kind:
    """The kind of this name; ``MalformedRequest`` ``key_kind_unknown``."""
    try:
        return Kind(name)
    except ValueError as error:
        raise MalformedRequest(
            "there is no such kind of key",
            code="key_kind_unknown",
            field="kind",
            expected=[known.value for known in Kind],
            got=name[:40],
        ) from error


def generate(which: Kind, size: int = 0) -> bytes:
    """A new key from pyca's generator. ``size`` in bytes is for ``random`` only, 1 to ``MAX_RANDOM``."""
    if which is Kind.RANDOM:
        if not 0 < size <= MAX_RANDOM:
            raise MalformedRequest(
                "random bytes need a number",
                code="key_size_invalid",
                field="size",
                expected=f"1 to {MAX_RANDOM}",
                got=size,
            )
        return _random(size)
    if size and size != which.size:
        raise MalformedRequest("only random bytes have a size", code="key_size_invalid", field="size", got=size)
    if which.size:
        return _random(which.size)
    if which.rsa_bits:
        return private_der(rsa.generate_private_key(65537, which.rsa_bits))
    if which in CURVES:
        return private_der(ec.generate_private_key(CURVES[which]))
    if which is Kind.ED25519:
        return private_der(ed25519.Ed25519PrivateKey.generate())
    if which is Kind.X25519:
        return private_der(x25519.X25519PrivateKey.generate())
    raise MalformedRequest(
        "this kind is written by its owner, not generated", code="key_kind_unknown", field="kind", got=which.value
    )


def _random(size: int) -> bytes:
    return b"".join([AESGCM.generate_key(256) for _ in range((size + 31) // 32)])[:size]


def private_der(key: PrivateKey) -> bytes:
    """PKCS#8, unencrypted: for a place that seals it."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def load(secret: bytes) -> PrivateKey:
    """The private key in PKCS#8 that this room wrote; ``Unavailable`` if it is not there any more.

    An RSA key is not checked anew: what is kept is authenticated, and was checked when it came in.
    """
    try:
        return cast("PrivateKey", load_der_private_key(secret, None, unsafe_skip_rsa_key_validation=True))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Unavailable("a stored key cannot be read", code="key_unreadable") from error


def load_public(public: bytes) -> PublicKey:
    """The public key in a stored SubjectPublicKeyInfo; ``Unavailable``."""
    try:
        return cast("PublicKey", load_der_public_key(public))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Unavailable("a stored key cannot be read", code="key_unreadable") from error


def public_der(which: Kind, secret: bytes) -> bytes:
    """DER of the pair's SubjectPublicKeyInfo; empty for what is no pair."""
    if not which.has_public:
        return b""
    return load(secret).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def public_pem(public: bytes) -> str:
    """PEM of a SubjectPublicKeyInfo."""
    pem = load_public(public).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode("ascii")


def public_jwk(which: Kind, public: bytes) -> dict[str, str]:
    """The public half as a JWK (RFC 7517, RFC 8037) without ``alg`` or ``kid``."""
    key = load_public(public)
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"e": _uint(numbers.e), "kty": "RSA", "n": _uint(numbers.n)}
    if isinstance(key, ec.EllipticCurvePublicKey):
        name, size = _CRV[which]
        point = key.public_numbers()
        x, y = (b64.encode_url(number.to_bytes(size)) for number in (point.x, point.y))
        return {"crv": name, "kty": "EC", "x": x, "y": y}
    crv = "Ed25519" if which is Kind.ED25519 else "X25519"
    return {"crv": crv, "kty": "OKP", "x": b64.encode_url(key.public_bytes(Encoding.Raw, PublicFormat.Raw))}


def _uint(number: int) -> str:
    return b64.encode_url(number.to_bytes((number.bit_length() + 7) // 8))


def released(which: Kind, secret: bytes, chain: tuple[bytes, ...] = ()) -> bytes:
    """The key as whoever may have it gets it."""
    if not which.has_public:
        return secret
    pem = load(secret).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem + chain_pem(chain)


def chain_pem(chain: tuple[bytes, ...]) -> bytes:
    """Certificates (DER, the key's own first) as PEM, one after the other."""
    return b"".join([x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in chain])
