"""ES256 tokens (RFC 7515, 7518 section 3.4, 7519): three base64url parts, ``kid`` and ``jwk`` in the header.

``kid`` is the key's RFC 7638 thumbprint, so a JWK set finds it and nobody has to hand out names. ``verify`` takes keys
by ``kid`` from those it is given; a ``jwk`` in a header is for readers and is never believed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from adyton.crypto.jwk import ec_members
from adyton.errors import SessionInvalid
from adyton.wire import b64, strict_json

MAX_TOKEN = 64 * 1024
_ES256 = ec.ECDSA(hashes.SHA256())
_ENCODER = msgspec.json.Encoder()


class _Header(msgspec.Struct, frozen=True):
    alg: str
    kid: str = ""


_HEADER = msgspec.json.Decoder(_Header)
_PAYLOAD = msgspec.json.Decoder(dict[str, object])


@dataclass(frozen=True, slots=True)
class Signer:
    """A P-256 key that signs tokens. ``jwk`` is its public half with ``alg``, ``kid`` and ``use``."""

    private: ec.EllipticCurvePrivateKey
    kid: str
    jwk: Mapping[str, str]
    header: str

    @classmethod
    def of(cls, private: ec.EllipticCurvePrivateKey) -> Signer:
        """Wrap a P-256 key; ``ValueError`` for another curve."""
        members = ec_members(private.public_key())
        if members["crv"] != "P-256":
            raise ValueError("ES256 signs with P-256")
        kid = b64.encode_url(hashlib.sha256(_ENCODER.encode(members)).digest())
        jwk = {"alg": "ES256", **members}
        header = _ENCODER.encode({"alg": "ES256", "typ": "JWT", "kid": kid, "jwk": jwk})
        return cls(private, kid, {**jwk, "kid": kid, "use": "sig"}, b64.encode_url(header))

    @classmethod
    def generate(cls) -> Signer:
        """A new key."""
        return cls.of(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load(cls, der: bytes) -> Signer:
        """From PKCS#8 DER; ``ValueError`` if it is not a P-256 key."""
        key = serialization.load_der_private_key(der, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("ES256 signs with P-256")  # noqa: TRY004 -- a wrong value in a file
        return cls.of(key)

    def dump(self) -> bytes:
        """PKCS#8 DER, unencrypted: for a place that seals it."""
        return self.private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, claims: bytes) -> str:
        """The token whose payload is ``claims``, JSON as given."""
        signed = f"{self.header}.{b64.encode_url(claims)}"
        r, s = decode_dss_signature(self.private.sign(signed.encode("ascii"), _ES256))
        return f"{signed}.{b64.encode_url(r.to_bytes(32) + s.to_bytes(32))}"


def jwks(signers: tuple[Signer, ...]) -> bytes:
    """The JWK set that verifies what ``signers`` sign."""
    return _ENCODER.encode({"keys": [dict(signer.jwk) for signer in signers]})


def verify(token: str, keys: Mapping[str, ec.EllipticCurvePublicKey], *, now: float) -> dict[str, object]:
    """The claims of an ES256 token signed by one of ``keys`` (by kid) that has not expired at ``now`` (Unix seconds).

    ``SessionInvalid`` otherwise. ``exp`` is required, ``nbf`` honoured; there is no leeway.
    """
    try:
        claims = _verified(token, keys)
    except (*strict_json.UNREADABLE, InvalidSignature) as error:
        raise SessionInvalid("the token is not one of this broker's", code="token_invalid") from error
    expires, begins = claims.get("exp"), claims.get("nbf", 0)
    if not isinstance(expires, int) or not isinstance(begins, int) or not begins <= now < expires:
        raise SessionInvalid("the token has expired", code="token_expired", hint="attest again")
    return claims


def _verified(token: str, keys: Mapping[str, ec.EllipticCurvePublicKey]) -> dict[str, object]:
    if len(token) > MAX_TOKEN or token.count(".") != 2:
        raise ValueError("not three parts")
    signed, _, signature = token.rpartition(".")
    head, _, payload = signed.partition(".")
    header = _HEADER.decode(b64.decode_url(head))
    raw = b64.decode_url(signature)
    if header.alg != "ES256" or header.kid not in keys or len(raw) != 64:
        raise ValueError("not a token of these keys")
    pair = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    keys[header.kid].verify(pair, signed.encode("ascii"), _ES256)
    return _PAYLOAD.decode(b64.decode_url(payload))


@dataclass(frozen=True, slots=True)
class VerifyingKeys:
    """Keys that somebody else signs with: by ``kid`` where they have one, and the others."""

    by_kid: Mapping[str, ec.EllipticCurvePublicKey]
    nameless: tuple[ec.EllipticCurvePublicKey, ...]


class _Jwk(msgspec.Struct, frozen=True):
    kty: str
    crv: str = ""
    x: str = ""
    y: str = ""
    alg: str = "ES256"
    kid: str = ""
    use: str = "sig"


class _JwkSet(msgspec.Struct, frozen=True):
    keys: list[_Jwk]


class _Issued(msgspec.Struct, frozen=True):
    iss: str = ""


_JWKS = msgspec.json.Decoder(_JwkSet)
_ISSUED = msgspec.json.Decoder(_Issued)
MAX_KEYS = 32


def verifying_keys(jwk_set: bytes) -> VerifyingKeys:
    """The ES256 keys of a JWK set; ``SessionInvalid`` ``jwks_malformed`` if it cannot be read or has none."""
    try:
        strict_json.parse(jwk_set, max_size=MAX_TOKEN)
        found = [one for one in _JWKS.decode(jwk_set).keys if (one.kty, one.crv, one.alg) == ("EC", "P-256", "ES256")]
        signing = [(one.kid, _point(one)) for one in found if one.use == "sig"]
        if not 0 < len(signing) <= MAX_KEYS:
            raise ValueError("no key, or too many")
    except strict_json.UNREADABLE as error:
        raise SessionInvalid(
            "not a JWK set with ES256 keys", code="jwks_malformed", expected=f"1 to {MAX_KEYS} keys on P-256"
        ) from error
    return VerifyingKeys({kid: key for kid, key in signing if kid}, tuple(key for kid, key in signing if not kid))


def _point(one: _Jwk) -> ec.EllipticCurvePublicKey:
    x, y = b64.decode_url(one.x), b64.decode_url(one.y)
    if len(x) != 32 or len(y) != 32:
        raise ValueError("coordinates have 32 bytes")
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + x + y)


def unverified_kid(token: str) -> str:
    """Which key a token names; an empty text if it names none or cannot be read. Proves nothing."""
    try:
        return _HEADER.decode(b64.decode_url(token.partition(".")[0])).kid
    except strict_json.UNREADABLE:
        return ""


def payload_of(token: str) -> bytes:
    """The bytes that were signed as the payload of a token that has been verified."""
    return b64.decode_url(token.split(".")[1])


def unverified_issuer(token: str) -> str:
    """What a token says of its issuer, to look up whose keys to ask. Proves nothing. ``SessionInvalid`` if unreadable."""
    try:
        if len(token) > MAX_TOKEN:
            raise ValueError("too long")
        _, payload, _ = token.split(".")
        return _ISSUED.decode(b64.decode_url(payload)).iss
    except strict_json.UNREADABLE as error:
        raise SessionInvalid("not a token", code="token_invalid") from error


def verify_any(token: str, keys: VerifyingKeys, *, now: float) -> dict[str, object]:
    """As ``verify``, for tokens of others: one without ``kid`` (CoCo's) may be of any key that has none."""
    try:
        header = _HEADER.decode(b64.decode_url(token.partition(".")[0]))
    except strict_json.UNREADABLE as error:
        raise SessionInvalid("not a token", code="token_invalid") from error
    if header.kid in keys.by_kid:
        return verify(token, keys.by_kid, now=now)
    failure = SessionInvalid("the token is signed by none of the issuer's keys", code="token_invalid")
    candidates = keys.nameless if header.kid else (*keys.nameless, *keys.by_kid.values())
    for key in candidates:
        try:
            return verify(token, {header.kid: key}, now=now)
        except SessionInvalid as error:
            if error.code != "token_invalid":
                raise
            failure = error
    raise failure
