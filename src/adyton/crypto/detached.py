"""Detached JWS whose header carries the key (RFC 7515, 4.1.3 and appendix F): who signed is found out, not assumed.

``verify`` says which key signed these very bytes, and nothing about whether that key is anybody's: the caller compares
its fingerprint with those that it trusts. ``typ`` keeps a signature that was made for one purpose from serving another.
"""

from __future__ import annotations

import hashlib
from typing import TypeAlias

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from adyton.crypto import jws
from adyton.errors import SignatureInvalid
from adyton.wire import b64, strict_json

MAX_SIZE = 4096
PrivateKey: TypeAlias = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
KINDS = "Ed25519, EC on P-256, or RSA of 2048 to 8192 bits"
_HEADER = frozenset({"alg", "typ", "jwk"})
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
_ENCODER = msgspec.json.Encoder()


def sign(key: PrivateKey, payload: bytes, typ: str) -> str:
    """``header..signature`` over ``payload``: EdDSA, ES256 or PS256 by the kind of key; ``ValueError`` for another kind."""
    public = key.public_key()
    if not usable(public):
        raise ValueError(f"a signer's key is {KINDS}")
    algorithm = _algorithm(public)
    header = b64.encode_url(_ENCODER.encode({"alg": algorithm, "typ": typ, "jwk": jws.members(public)}))
    data = _signed(header, payload)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        signature = key.sign(data)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32) + s.to_bytes(32)
    else:
        signature = key.sign(data, _PSS, hashes.SHA256())
    return f"{header}..{b64.encode_url(signature)}"


def verify(text: str, payload: bytes, typ: str) -> jws.PublicKey:
    """The key in the header, which signed ``payload`` for the purpose ``typ``; ``SignatureInvalid``."""
    try:
        if len(text) > MAX_SIZE:
            raise ValueError("too long")
        head, middle, tail = text.split(".")
        header = strict_json.parse(b64.decode_url(head), max_size=MAX_SIZE)
        signature = b64.decode_url(tail)
        if middle or not isinstance(header, dict) or header.keys() != _HEADER or not isinstance(header["jwk"], dict):
            raise ValueError("not of this form")
        key, _ = jws.public(header["jwk"])
        # Another spelling of the same key, or a member more, would be a second signature by one signer.
        if jws.members(key) != header["jwk"] or header["alg"] != _algorithm(key):
            raise ValueError("not the key's own form")
    except (*strict_json.UNREADABLE, UnsupportedAlgorithm) as error:
        raise SignatureInvalid(
            "this is not a detached signature with its key", field="signature", spec="RFC 7515 F"
        ) from error
    if header["typ"] != typ:
        raise SignatureInvalid(
            "the signature was made for another purpose", field="typ", expected=typ, got=str(header["typ"])[:60]
        )
    if not jws.is_signed(key, header["alg"], signature, _signed(head, payload)):
        raise SignatureInvalid("the signature does not verify", field="signature")
    return key


def usable(key: object) -> bool:
    """Whether such keys sign and verify here."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, ec.SECP256R1)
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size in range(2048, 8193)
    return isinstance(key, ed25519.Ed25519PublicKey)


def fingerprint(key: jws.PublicKey) -> str:
    """``sha256:<hex>`` of the key's SPKI."""
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(spki).hexdigest()}"


def _algorithm(key: object) -> str:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "EdDSA"
    return "ES256" if isinstance(key, ec.EllipticCurvePublicKey) else "PS256"


def _signed(head: str, payload: bytes) -> bytes:
    return f"{head}.{b64.encode_url(payload)}".encode("ascii")
