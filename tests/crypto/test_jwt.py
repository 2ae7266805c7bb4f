"""Tokens: three parts, verified by others through the JWK set; a header's own key is never believed."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from adyton.crypto.jwt import Signer, jwks, verify
from adyton.errors import SessionInvalid
from adyton.wire import b64

SIGNER = Signer.generate()
KEYS = {SIGNER.kid: SIGNER.private.public_key()}
NOW = 1_800_000_000


def token(claims: dict[str, object] | None = None, signer: Signer = SIGNER) -> str:
    return signer.sign(json.dumps({"exp": NOW + 300, "a": 1} if claims is None else claims).encode())


def test_trap_three_parts_with_exp() -> None:
    parts = token().split(".")
    assert len(parts) == 3
    assert all("=" not in part for part in parts)
    assert isinstance(json.loads(b64.decode_url(parts[1]))["exp"], int)


def test_header_has_kid_and_jwk() -> None:
    header = json.loads(b64.decode_url(token().split(".")[0]))
    assert list(header) == ["alg", "typ", "kid", "jwk"]
    assert header["kid"] == SIGNER.kid == JWK(**header["jwk"]).thumbprint()
    assert list(header["jwk"]) == ["alg", "crv", "kty", "x", "y"]


def test_others_verify_through_the_jwk_set() -> None:
    text = jwks((Signer.generate(), SIGNER))
    decoded = joserfc_jwt.decode(token(), KeySet.import_key_set(json.loads(text)), algorithms=["ES256"])
    assert decoded.claims["a"] == 1
    signed = JWS()
    signed.deserialize(token())
    signed.verify(JWK(**next(key for key in json.loads(text)["keys"] if key["kid"] == SIGNER.kid)))
    assert b'"d"' not in text


def test_verify_gives_claims() -> None:
    assert verify(token(), KEYS, now=NOW)["a"] == 1


def test_foreign_signer_with_own_jwk_is_refused() -> None:
    with pytest.raises(SessionInvalid):
        verify(token(signer=Signer.generate()), KEYS, now=NOW)


def test_foreign_signer_under_our_kid_is_refused() -> None:
    other = Signer.generate()
    forged = Signer(other.private, SIGNER.kid, SIGNER.jwk, SIGNER.header)
    with pytest.raises(SessionInvalid):
        verify(token(signer=forged), KEYS, now=NOW)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS256", "ES384", ""])
def test_other_algorithms_are_refused(algorithm: str) -> None:
    head = b64.encode_url(json.dumps({"alg": algorithm, "kid": SIGNER.kid}).encode())
    _, payload, signature = token().split(".")
    for ending in (signature, ""):
        with pytest.raises(SessionInvalid):
            verify(f"{head}.{payload}.{ending}", KEYS, now=NOW)


@pytest.mark.parametrize(
    "claims",
    [{}, {"exp": NOW}, {"exp": NOW - 1}, {"exp": "9"}, {"exp": NOW + 9, "nbf": NOW + 1}, {"exp": 1e400}],
)
def test_expired_or_without_expiry(claims: dict[str, object]) -> None:
    with pytest.raises(SessionInvalid):
        verify(token(claims), KEYS, now=NOW)


@pytest.mark.parametrize("text", ["", ".", "..", "a.b", "a.b.c.d", "é.é.é", "." * 70_000, "A" * 70_000])
def test_rubbish(text: str) -> None:
    with pytest.raises(SessionInvalid):
        verify(text, KEYS, now=NOW)


def test_every_character_matters() -> None:
    text = token()
    for index in range(0, len(text), 3):
        changed = text[:index] + ("A" if text[index] != "A" else "B") + text[index + 1 :]
        with pytest.raises(SessionInvalid):
            verify(changed, KEYS, now=NOW)


def test_signer_survives_dump_and_load() -> None:
    assert Signer.load(SIGNER.dump()).kid == SIGNER.kid


def test_only_p256_signs() -> None:
    with pytest.raises(ValueError, match="P-256"):
        Signer.of(ec.generate_private_key(ec.SECP521R1()))
