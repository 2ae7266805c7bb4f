"""Relying on a broker's token without being the broker: its public keys, its list of revocations, and no secret of its own."""

from __future__ import annotations

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from adyton.client.revocation import published
from adyton.client.transport import Transport
from adyton.crypto import jwk, jwt
from adyton.errors import MalformedRequest, NotPermitted, SessionInvalid, Unavailable
from adyton.protocol import ear, revoked
from adyton.protocol.ear import TokenClaims
from adyton.wire import b64, strict_json

MAX_KEYS = 256 * 1024
_ANY = jwk.MODERN | {jwk.OLD_RSA_ALGORITHM}  # nothing is encrypted here: whose session it is, is all that is asked


class _Key(msgspec.Struct):
    kid: str
    x: str
    y: str
    kty: str = ""
    crv: str = ""


class _Set(msgspec.Struct):
    keys: list[_Key]


def keys(transport: Transport) -> dict[str, ec.EllipticCurvePublicKey]:
    """The broker's signing keys by ``kid``; ``Unavailable``."""
    reply = transport.request("GET", "/.well-known/jwks.json")
    try:
        if reply.status != 200:
            raise ValueError("not found")
        found = _decode(reply.body)
        return {
            one.kid: ec.EllipticCurvePublicNumbers(
                int.from_bytes(b64.decode_url(one.x)), int.from_bytes(b64.decode_url(one.y)), ec.SECP256R1()
            ).public_key()
            for one in found.keys
            if one.kty == "EC" and one.crv == "P-256"
        }
    except strict_json.UNREADABLE as error:
        raise Unavailable("the broker's JWK set cannot be read", code="broker_answer", got=reply.status) from error


def _decode(body: bytes) -> _Set:
    strict_json.parse(body, max_size=MAX_KEYS)
    return msgspec.json.decode(body, type=_Set)


def check_token(transport: Transport, token: str, tenant: str, now: float) -> TokenClaims:
    """The claims of a token that holds at ``now`` (Unix seconds), by signature, time and the published list.

    ``SessionInvalid`` if it does not verify, ``NotPermitted`` ``revoked`` if anything it names was revoked.
    """
    known = keys(transport)
    raw = jwt.verify(token, known, now=now)
    claims = ear.read(raw)
    own = raw.get("adyton")
    if not isinstance(own, dict) or own.get("tenant") != tenant:
        raise SessionInvalid("the token is of another tenant", code="token_invalid")
    listed = revoked.read(jwt.verify(published(transport), known, now=now), tenant)
    try:
        key = jwk.parse(claims.tee_public_key, _ANY, oldest=True)
    except MalformedRequest as error:
        raise SessionInvalid("the token's key cannot be used", code="token_invalid") from error
    named = revoked.names_of_token(claims, jwt.payload_of(token), key.handle, jwt.unverified_kid(token))
    found = revoked.stops(listed, named)
    if found is not None:
        raise NotPermitted(f"this {found[0]} was revoked", code="revoked", field=found[0], got=found[1])
    return claims
