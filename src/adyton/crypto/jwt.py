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
