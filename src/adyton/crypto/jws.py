"""Tokens that others sign (RFC 7515, 7518, 7519, 8037): Ed25519, P-256 and RSA, by keys that the caller trusts.

Which algorithm a token is verified by is decided by the key, and by the caller's list; the header must agree with
both. So ``none`` is nothing, an RSA or EC key is never a MAC key, and a ``jwk``, ``jku`` or ``x5u`` in a header is not
looked at. ``crit`` names what must be understood, and nothing of it is: refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from adyton.crypto import ecdsa
from adyton.errors import NotPermitted, SignatureInvalid
from adyton.wire import b64, strict_json

ALGORITHMS = ("EdDSA", "Ed25519", "ES256", "RS256", "PS256")
_ED25519 = ("EdDSA", "Ed25519")  # the older name, and RFC 9864's
MAX_TOKEN = 16 * 1024
MAX_KEYS = 100
LEEWAY = 60
_RSA_BITS = range(2048, 8193)
_RS256 = padding.PKCS1v15()
_PS256 = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
_ENCODER = msgspec.json.Encoder()
PublicKey: TypeAlias = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key that may have signed, under ``kid``, and with which algorithms."""

    kid: str
    key: PublicKey
    algorithms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Parsed:
    """A token taken apart; nothing of it is believed yet. ``signed`` is what the signature is over."""

    algorithm: str
    kid: str
    claims: Mapping[str, object]
    signed: bytes
    signature: bytes


def parse(token: str) -> Parsed:
    """Take a token apart; ``NotPermitted`` ``token_malformed``. Duplicate members and ``crit`` are refused."""
    try:
        if len(token) > MAX_TOKEN or token.count(".") != 2:
            raise ValueError("not three parts")
        head, payload, signature = token.split(".")
        header = strict_json.parse(b64.decode_url(head), max_size=MAX_TOKEN)
        claims = strict_json.parse(b64.decode_url(payload), max_size=MAX_TOKEN)
        raw = b64.decode_url(signature)
        if not isinstance(header, dict) or not isinstance(claims, dict) or "crit" in header:
            raise ValueError("not a token that is understood")
        algorithm, kid = header.get("alg"), header.get("kid", "")
        if not isinstance(algorithm, str) or not isinstance(kid, str):
            raise ValueError("alg and kid are texts")  # noqa: TRY004 -- one refusal for all of it
    except strict_json.UNREADABLE as error:
        raise _refused("token_malformed", "this is not a signed token") from error
    return Parsed(algorithm, kid, claims, token.rpartition(".")[0].encode("ascii"), raw)


def verify(parsed: Parsed, keys: Sequence[TrustedKey], allowed: Iterable[str] = ALGORITHMS) -> TrustedKey:
    """The one of ``keys`` that signed it. A token that names a ``kid`` is verified by that key alone.

    ``NotPermitted``: ``token_algorithm``, ``token_key_unknown``, ``token_signature``.
    """
    if parsed.algorithm not in allowed or parsed.algorithm not in ALGORITHMS:
        raise _refused("token_algorithm", "the token's algorithm is not accepted")
    fitting = [key for key in keys if parsed.algorithm in key.algorithms]
    if parsed.kid:
        fitting = [key for key in fitting if key.kid == parsed.kid]
    if not fitting:
        raise _refused("token_key_unknown", "the token names no key that is known for its algorithm")
    for key in fitting:
        if is_signed(key.key, parsed.algorithm, parsed.signature, parsed.signed):
            return key
    raise _refused("token_signature", "the token's signature does not verify")


def is_signed(key: PublicKey, algorithm: str, signature: bytes, data: bytes) -> bool:
    """Whether ``signature`` is this key's over ``data``; ``algorithm`` must be one that ``public`` gives for such keys."""
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            if len(signature) != 64:
                return False
            ecdsa.verify_p256(key, signature, data)
        else:
            key.verify(signature, data, _PS256 if algorithm == "PS256" else _RS256, hashes.SHA256())
    except (InvalidSignature, SignatureInvalid, ValueError):
        return False
    return True


def check_times(claims: Mapping[str, object], now: float, *, leeway: int = LEEWAY, longest: int | None = None) -> None:
    """``exp`` is required; ``nbf`` and ``iat`` are honoured, all within ``leeway`` seconds. ``NotPermitted``.

    ``longest``: how many seconds ahead a token may end at most.
    """
    times = {}
    for name in ("exp", "nbf", "iat"):
        value = claims.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**53:
            raise _refused("token_malformed", "the token's times are not numbers")
        times[name] = value
    if "exp" not in times:
        raise _refused("token_endless", "a token must say when it ends")
    if now >= times["exp"] + leeway:
        raise _refused("token_expired", "the token has expired")
    if longest is not None and times["exp"] > now + longest + leeway:
        raise _refused("token_too_long", "the token is valid for too long")
    if times.get("nbf", now) > now + leeway or times.get("iat", now) > now + leeway:
        raise _refused("token_early", "the token is not valid yet")


def read_set(body: bytes) -> tuple[TrustedKey, ...]:
    """The keys of a JWK set that may verify; ``ValueError`` if it is none.

    Left out, as RFC 7517 asks: what is of an unknown kind, or is for encryption. Of several keys with one ``kid`` none
    is believed: such a set does not say which one is meant.
    """
    value = strict_json.parse(body, max_size=1024 * 1024)
    listed = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError("not a JWK set")
    found = [key for item in listed if isinstance(item, dict) and (key := _read_key(item)) is not None]
    names = [key.kid for key in found]
    return tuple(key for key in found if names.count(key.kid) == 1)


def _read_key(jwk: Mapping[str, object]) -> TrustedKey | None:
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    try:
        key, algorithms = public(jwk)
    except (ValueError, UnsupportedAlgorithm):
        return None
    named, kid = jwk.get("alg"), jwk.get("kid")
    if named is not None:
        algorithms = tuple(one for one in algorithms if one == named)
    if not algorithms or not isinstance(kid, str | None):
        return None
    return TrustedKey(kid or thumbprint(key), key, algorithms)


def public(jwk: Mapping[str, object]) -> tuple[PublicKey, tuple[str, ...]]:
    """The key that a JWK holds, and the algorithms that it may verify by; ``ValueError``."""

    def number(name: str) -> bytes:
        value = jwk.get(name)
        if not isinstance(value, str) or len(value) > 1400:
            raise ValueError("a member is missing")
        return b64.decode_url(value)

    match jwk.get("kty"), jwk.get("crv"):
        case "OKP", "Ed25519":
            return ed25519.Ed25519PublicKey.from_public_bytes(number("x")), _ED25519
        case "EC", "P-256":
            x, y = number("x"), number("y")
            if len(x) != 32 or len(y) != 32:
                raise ValueError("not a P-256 point")
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + x + y), ("ES256",)
        case "RSA", _:
            modulus, exponent = int.from_bytes(number("n")), int.from_bytes(number("e"))
            if modulus.bit_length() not in _RSA_BITS or exponent < 3 or exponent % 2 == 0 or exponent >= 2**32:
                raise ValueError("not an RSA key of a size that is accepted")
            return rsa.RSAPublicNumbers(exponent, modulus).public_key(), ("RS256", "PS256")
    raise ValueError("an unknown kind of key")


def trusted(key: ed25519.Ed25519PublicKey) -> TrustedKey:
    """An Ed25519 key under its thumbprint."""
    return TrustedKey(thumbprint(key), key, _ED25519)


def ed25519_key(raw: bytes) -> TrustedKey:
    """The same from the key's 32 bytes; ``ValueError``."""
    return trusted(ed25519.Ed25519PublicKey.from_public_bytes(raw))


def thumbprint(key: PublicKey) -> str:
    """RFC 7638: SHA-256 of the key's required members, base64url."""
    return b64.encode_url(hashlib.sha256(_ENCODER.encode(members(key))).digest())


def members(key: PublicKey) -> dict[str, str]:
    """The required members of the key's JWK, in the order of RFC 7638."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        x = b64.encode_url(key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))
        return {"crv": "Ed25519", "kty": "OKP", "x": x}
    if isinstance(key, ec.EllipticCurvePublicKey):
        numbers = key.public_numbers()
        point = {"x": b64.encode_url(numbers.x.to_bytes(32)), "y": b64.encode_url(numbers.y.to_bytes(32))}
        return {"crv": "P-256", "kty": "EC", **point}
    public_numbers = key.public_numbers()
    return {"e": _uint(public_numbers.e), "kty": "RSA", "n": _uint(public_numbers.n)}


def sign(key: ed25519.Ed25519PrivateKey, claims: Mapping[str, object]) -> str:
    """A token over ``claims`` by an Ed25519 key, named by its thumbprint."""
    header = _ENCODER.encode({"alg": "EdDSA", "typ": "JWT", "kid": thumbprint(key.public_key())})
    signed = f"{b64.encode_url(header)}.{b64.encode_url(_ENCODER.encode(claims))}"
    return f"{signed}.{b64.encode_url(key.sign(signed.encode('ascii')))}"


def _uint(value: int) -> str:
    return b64.encode_url(value.to_bytes((value.bit_length() + 7) // 8))


def _refused(code: str, why: str) -> NotPermitted:
    return NotPermitted(why, code=code)
