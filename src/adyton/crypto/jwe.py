"""Encryption to a TEE's key: flattened JWE JSON (RFC 7516 section 7.2.2), in the bytes that CoCo's guest needs.

CoCo's client decodes the protected header and serialises it anew to get the additional data, so a header must be
compact JSON with the members ``alg``, ``enc``, ``epk`` in this order, those of ``epk`` in alphabetical order, and no
other (kbs-protocol 1.7). Content is A256GCM with a fresh 32-byte key, a 12-byte IV and a 16-byte tag. For EC: ECDH
with an ephemeral key, Concat KDF over SHA-256 (RFC 7518 section 4.6.2) and AES key wrap (RFC 3394). For ML-KEM:
``crypto.kem``, the encapsulated key as ``ek`` in the place of ``epk``.

A key whose algorithm is ``RSA1_5`` gets the form that its protocol had, before 0.2.0 (kbs-protocol 1.15): ``protected`` is
JSON as it stands, the tag follows the ciphertext, and nothing authenticates the header. Only encryption is here, which
has no padding to check; opening it is the old guest's, and whether that tells a stranger more than it should.
"""

from __future__ import annotations

import hashlib
from typing import TypeAlias

import msgspec
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from adyton.crypto import kem
from adyton.crypto.jwk import CURVES, EC_ALGORITHM, OLD_RSA_ALGORITHM, RSA_ALGORITHM, TeeKey, ec_members
from adyton.errors import MalformedRequest
from adyton.wire import b64, strict_json

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | MLKEM768PrivateKey

_RSA_HEADER = b64.encode_url(f'{{"alg":"{RSA_ALGORITHM}","enc":"A256GCM"}}'.encode())
_OLD_HEADER = f'{{"alg":"{OLD_RSA_ALGORITHM}","enc":"A256GCM"}}'
_OAEP = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
# Concat KDF, one round: counter 1 ‖ Z ‖ AlgorithmID ‖ PartyUInfo "" ‖ PartyVInfo "" ‖ SuppPubInfo 256 bits
_ROUND = (1).to_bytes(4)
_OTHER_INFO = len(EC_ALGORITHM).to_bytes(4) + EC_ALGORITHM.encode() + bytes(8) + (256).to_bytes(4)


class Jwe(msgspec.Struct, frozen=True):
    """The five members, each base64url without padding. ``aad`` is neither written nor read."""

    protected: str
    encrypted_key: str
    iv: str
    ciphertext: str
    tag: str


class _Epk(msgspec.Struct, frozen=True):
    crv: str
    kty: str
    x: str
    y: str


class _Header(msgspec.Struct, frozen=True):
    alg: str
    enc: str
    epk: _Epk | None = None
    ek: str = ""


_ENCODER = msgspec.json.Encoder()
_JWE = msgspec.json.Decoder(Jwe)
_HEADER = msgspec.json.Decoder(_Header)


def encrypt(key: TeeKey, plaintext: bytes) -> bytes:
    """The JSON text of a JWE that only ``key`` opens."""
    content_key = AESGCM.generate_key(256)
    if isinstance(key.public, rsa.RSAPublicKey):
        if key.algorithm == OLD_RSA_ALGORITHM:
            return _encrypt_old(key.public, content_key, plaintext)
        protected, wrapped = _RSA_HEADER, key.public.encrypt(content_key, _OAEP)
    elif isinstance(key.public, MLKEM768PublicKey):
        encapsulated, wrapped = kem.wrap(key.public, content_key)
        header = f'{{"alg":"{kem.ALGORITHM}","enc":"A256GCM","ek":"{b64.encode_url(encapsulated)}"}}'
        protected = b64.encode_url(header.encode())
    else:
        ephemeral = ec.generate_private_key(key.public.curve)
        epk = ec_members(ephemeral.public_key())
        protected = b64.encode_url(
            f'{{"alg":"{EC_ALGORITHM}","enc":"A256GCM","epk":{{"crv":"{epk["crv"]}","kty":"EC",'
            f'"x":"{epk["x"]}","y":"{epk["y"]}"}}}}'.encode()
        )
        wrapped = keywrap.aes_key_wrap(_agree(ephemeral, key.public), content_key)
    iv = AESGCM.generate_key(128)[:12]
    sealed = AESGCM(content_key).encrypt(iv, plaintext, protected.encode("ascii"))
    return _ENCODER.encode(
        Jwe(
            protected,
            b64.encode_url(wrapped),
            b64.encode_url(iv),
            b64.encode_url(sealed[:-16]),
            b64.encode_url(sealed[-16:]),
        )
    )


def _encrypt_old(public: rsa.RSAPublicKey, content_key: bytes, plaintext: bytes) -> bytes:
    wrapped = public.encrypt(content_key, padding.PKCS1v15())
    iv = AESGCM.generate_key(128)[:12]
    sealed = AESGCM(content_key).encrypt(iv, plaintext, None)
    encode = b64.encode_url
    return _ENCODER.encode(Jwe(_OLD_HEADER, encode(wrapped), encode(iv), encode(sealed), ""))


def decrypt(key: PrivateKey, jwe: bytes) -> bytes:
    """The plaintext. One ``MalformedRequest`` whatever is wrong, so that nobody learns at which step it failed."""
    try:
        message = _JWE.decode(jwe)
        content_key = _unwrap(key, _HEADER.decode(b64.decode_url(message.protected)), message)
        iv, tag = b64.decode_url(message.iv), b64.decode_url(message.tag)
        if len(iv) != 12 or len(tag) != 16 or len(content_key) != 32:
            raise ValueError
        sealed = b64.decode_url(message.ciphertext) + tag
        return AESGCM(content_key).decrypt(iv, sealed, message.protected.encode("ascii"))
    except (*strict_json.UNREADABLE, InvalidTag, keywrap.InvalidUnwrap, UnsupportedAlgorithm) as error:
        raise MalformedRequest(
            "the encrypted answer does not open with this key",
            code="jwe_malformed",
            spec="kbs-protocol 1.7",
        ) from error


def _unwrap(key: PrivateKey, header: _Header, message: Jwe) -> bytes:
    wrapped = b64.decode_url(message.encrypted_key)
    if header.enc != "A256GCM":
        raise ValueError
    if isinstance(key, rsa.RSAPrivateKey):
        if header.alg != RSA_ALGORITHM:
            raise ValueError
        return key.decrypt(wrapped, _OAEP)
    if isinstance(key, MLKEM768PrivateKey):
        if header.alg != kem.ALGORITHM:
            raise ValueError
        return kem.unwrap(key, b64.decode_url(header.ek), wrapped)
    epk = header.epk
    if header.alg != EC_ALGORITHM or epk is None or epk.kty != "EC" or epk.crv not in CURVES or len(wrapped) != 40:
        raise ValueError
    curve, size = CURVES[epk.crv]
    x, y = b64.decode_url(epk.x), b64.decode_url(epk.y)
    if len(x) != size or len(y) != size or key.curve.name != curve.name:
        raise ValueError
    other = ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + x + y)
    return keywrap.aes_key_unwrap(_agree(key, other), wrapped)


def _agree(private: ec.EllipticCurvePrivateKey, public: ec.EllipticCurvePublicKey) -> bytes:
    shared = private.exchange(ec.ECDH(), public)
    return hashlib.sha256(_ROUND + shared + _OTHER_INFO).digest()
