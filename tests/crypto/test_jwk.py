"""Keys that nothing may be encrypted to are refused; the others keep exactly the members that are hashed."""

from __future__ import annotations

import contextlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from adyton.crypto import jwk
from adyton.errors import MalformedRequest
from adyton.wire import b64

# RFC 7515 appendix A.3
RFC_KEY = {
    "kty": "EC",
    "crv": "P-256",
    "alg": "ECDH-ES+A256KW",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}


@pytest.fixture(scope="module")
def rsa_key() -> dict[str, str]:
    return dict(jwk.from_public(rsa.generate_private_key(65537, 2048).public_key()).members)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kty": "oct"}, "tee-pubkey.kty"),
        ({"kty": "AKP"}, "tee-pubkey.pub"),
        ({"kty": ["EC"]}, "tee-pubkey.kty"),
        ({"kty": None}, "tee-pubkey.kty"),
        ({"crv": "P-384"}, "tee-pubkey.crv"),
        ({"crv": "secp256k1"}, "tee-pubkey.crv"),
        ({"crv": "P-521"}, "tee-pubkey.x"),
        ({"alg": "ECDH-ES"}, "tee-pubkey.alg"),
        ({"alg": "RSA-OAEP-256"}, "tee-pubkey.alg"),
        ({"alg": None}, "tee-pubkey.alg"),
        ({"x": 5}, "tee-pubkey.x"),
        ({"x": RFC_KEY["x"] + "="}, "tee-pubkey.x"),
        ({"x": RFC_KEY["x"][:-2]}, "tee-pubkey.x"),
        ({"x": "AAAA" + RFC_KEY["x"]}, "tee-pubkey.x"),
        ({"x": " " + RFC_KEY["x"][1:]}, "tee-pubkey.x"),
        ({"y": RFC_KEY["x"]}, "tee-pubkey.x"),  # not on the curve
        ({"x": b64.encode_url(bytes(32)), "y": b64.encode_url(bytes(32))}, "tee-pubkey.x"),
        ({"x": b64.encode_url(b"\xff" * 32), "y": b64.encode_url(b"\xff" * 32)}, "tee-pubkey.x"),
        ({"d": RFC_KEY["x"]}, "tee-pubkey"),
        ({"k": "AA"}, "tee-pubkey"),
    ],
)
def test_ec_key_refused(change: dict[str, object], field: str) -> None:
    with pytest.raises(MalformedRequest) as refused:
        jwk.parse({**RFC_KEY, **change})
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"alg": "RSA1_5"}, "tee-pubkey.alg"),
        ({"alg": "RSA-OAEP"}, "tee-pubkey.alg"),
        ({"e": "AQ"}, "tee-pubkey.e"),
        ({"e": "Aw"}, "tee-pubkey.e"),
        ({"e": "AQAA"}, "tee-pubkey.e"),
        ({"e": ""}, "tee-pubkey.e"),
        ({"n": ""}, "tee-pubkey.n"),
        ({"n": "AAAA"}, "tee-pubkey.n"),
        ({"n": "A" * 4000}, "tee-pubkey.n"),
        ({"p": "AQAB"}, "tee-pubkey"),
    ],
)
def test_rsa_key_refused(rsa_key: dict[str, str], change: dict[str, str], field: str) -> None:
    with pytest.raises(MalformedRequest) as refused:
        jwk.parse({**rsa_key, **change})
    assert refused.value.field == field


@pytest.mark.parametrize("bits", [1024, 2047])
def test_rsa_too_small(bits: int) -> None:
    numbers = rsa.generate_private_key(65537, bits).public_key().public_numbers()
    modulus = b64.encode_url(numbers.n.to_bytes((bits + 7) // 8))
    with pytest.raises(MalformedRequest):
        jwk.parse({"kty": "RSA", "alg": "RSA-OAEP-256", "n": modulus, "e": "AQAB"})


@pytest.mark.parametrize("value", [None, 5, "EC", [], [RFC_KEY]])
def test_not_an_object(value: object) -> None:
    with pytest.raises(MalformedRequest):
        jwk.parse(value)


def test_only_known_members_are_kept() -> None:
    key = jwk.parse({**RFC_KEY, "kid": "x", "use": "enc", "x5c": ["y"]})
    assert dict(key.members) == RFC_KEY
    assert list(key.members) == sorted(RFC_KEY)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP521R1()])
def test_public_key_comes_back(curve: ec.EllipticCurve) -> None:
    public = ec.generate_private_key(curve).public_key()
    assert jwk.parse(dict(jwk.from_public(public).members)).public == public


def test_from_public_refuses_other_curves() -> None:
    with pytest.raises(ValueError, match="curve"):
        jwk.from_public(ec.generate_private_key(ec.SECP384R1()).public_key())


_JSON = st.none() | st.integers() | st.text(max_size=12) | st.lists(st.text(max_size=3), max_size=2)


@given(st.dictionaries(st.sampled_from(["kty", "crv", "alg", "x", "y", "n", "e", "d"]), _JSON))
def test_rubbish_gives_one_error(value: dict[str, object]) -> None:
    with contextlib.suppress(MalformedRequest):
        jwk.parse(json.loads(json.dumps({"kty": "EC", "alg": "ECDH-ES+A256KW", "crv": "P-256", **value})))
