"""What several devices need to sign as JOSE has it: which key an algorithm is for, its hash, its form."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from adyton.errors import ConfigError, Unavailable
from adyton.stores.backends.port import KeyKind, Signing

EC_KINDS = {Signing.ES256: KeyKind.P256, Signing.ES384: KeyKind.P384, Signing.ES512: KeyKind.P521}
CURVES: dict[KeyKind, type[ec.EllipticCurve]] = {
    KeyKind.P256: ec.SECP256R1,
    KeyKind.P384: ec.SECP384R1,
    KeyKind.P521: ec.SECP521R1,
}
_COORDINATE = {Signing.ES256: 32, Signing.ES384: 48, Signing.ES512: 66}
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}


def hash_of(algorithm: Signing) -> hashes.HashAlgorithm:
    """The hash of an ECDSA or RSA algorithm."""
    return _HASHES[algorithm.value[2:]]()


def digest(algorithm: Signing, message: bytes) -> bytes:
    """The message hashed for an ECDSA or RSA algorithm."""
    made = hashes.Hash(hash_of(algorithm))
    made.update(message)
    return made.finalize()


def raw_ecdsa(algorithm: Signing, der: bytes) -> bytes:
    """R and s in full length, of a DER signature; ``Unavailable`` if the device sent no signature."""
    size = _COORDINATE[algorithm]
    try:
        first, second = decode_dss_signature(der)
        return first.to_bytes(size, "big") + second.to_bytes(size, "big")
    except (ValueError, OverflowError) as error:
        raise Unavailable("the device sent no signature", code="signature_foreign") from error


def kind_of(spki: bytes) -> KeyKind:
    """Which kind of key has this public half; ``ConfigError`` for one that we do not use."""
    key = read_public(spki)
    if isinstance(key, rsa.RSAPublicKey):
        for kind in KeyKind:
            if kind.rsa_bits == key.key_size:
                return kind
    elif isinstance(key, ec.EllipticCurvePublicKey):
        for kind, curve in CURVES.items():
            if isinstance(key.curve, curve):
                return kind
    elif isinstance(key, ed25519.Ed25519PublicKey):
        return KeyKind.ED25519
    raise unknown("a key of this kind")


def read_public(spki: bytes) -> object:
    """The public key; ``Unavailable`` if the device sent none."""
    try:
        return serialization.load_der_public_key(spki)
    except Exception as error:
        raise Unavailable("the device sent no public key", code="public_key_foreign") from error


def check_fits(kind: KeyKind, algorithm: Signing) -> None:
    """``ConfigError`` ``not_by_this_device`` unless a key of this kind signs so."""
    fits = (
        EC_KINDS[algorithm] is kind
        if algorithm in EC_KINDS
        else kind is KeyKind.ED25519
        if algorithm is Signing.EDDSA
        else bool(kind.rsa_bits)
    )
    if not fits:
        raise unknown(f"{algorithm.value} by a {kind.value} key")


def unknown(what: str) -> ConfigError:
    """That a device does not do what it was asked for."""
    return ConfigError(f"this device does not do {what}", code="not_by_this_device", field="key", got=what)


def absent(handle: str) -> ConfigError:
    """That there is no key behind a handle."""
    return ConfigError(
        "the device has no such key",
        code="held_key_absent",
        field="key",
        got=handle[:200],
        hint="was it destroyed, or made in another token, region or mount?",
    )


def refused() -> Unavailable:
    """That a ciphertext does not open."""
    return Unavailable(
        "a ciphertext does not open under this key", code="ciphertext_refused", hint="it was changed, or is another's"
    )
