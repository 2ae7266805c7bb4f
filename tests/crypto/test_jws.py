"""Tokens that others sign: every known trick refused, and what another implementation signs is verified."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwk as other_jwk
from joserfc import jws as other_jws

from adyton.crypto import jws
from adyton.crypto.jws import TrustedKey
from adyton.errors import NotPermitted

NOW = 1_700_000_000.0
CLAIMS = {"iss": "https://a.example", "sub": "alice", "exp": NOW + 60}
pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # and what providers and older CoCo tools write
KINDS = {
    "EdDSA": ("OKP", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519"),
    "ES256": ("EC", "P-256"),
    "RS256": ("RSA", 2048),
    "PS256": ("RSA", 2048),
}

SAME = {"PS256": "RS256", "Ed25519": "EdDSA"}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def keys() -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, (kind, how) in KINDS.items():
        made[name] = (
            made[SAME[name]] if name in SAME else other_jwk.generate_key(kind, how, {"kid": f"key-{kind}"})  # type: ignore[call-overload]
        )
    return made


def issued(keys: Mapping[str, Any], algorithm: str, claims: Mapping[str, Any] = CLAIMS, **header: Any) -> str:
    key = keys[algorithm]
    head = {"alg": algorithm, "kid": key.kid, **header}
    registry = other_jws.JWSRegistry(algorithms=list(KINDS), strict_check_header=False)
    return other_jws.serialize_compact(
        {name: value for name, value in head.items() if value is not None}, json.dumps(claims), key, registry=registry
    )


def trusted(keys: Mapping[str, Any], *names: str) -> tuple[TrustedKey, ...]:
    listed = [keys[name].as_dict(private=False) for name in names or ("EdDSA", "ES256", "RS256")]
    return jws.read_set(json.dumps({"keys": listed}).encode())


def code(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(NotPermitted) as caught:
        call(*arguments, **named)
    return caught.value.code


@pytest.mark.parametrize("algorithm", KINDS)
def test_another_implementations_tokens(keys: dict[str, Any], algorithm: str) -> None:
    parsed = jws.parse(issued(keys, algorithm))
    assert jws.verify(parsed, trusted(keys)).kid == keys[algorithm].kid
    assert parsed.claims["sub"] == "alice"


@pytest.mark.parametrize("algorithm", KINDS)
def test_no_flipped_bit_verifies(keys: dict[str, Any], algorithm: str) -> None:
    token = issued(keys, algorithm)
    head, payload, signature = token.split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    for position in range(0, len(raw) * 8, 37):
        broken = bytearray(raw)
        broken[position // 8] ^= 1 << position % 8
        assert code(jws.verify, jws.parse(f"{head}.{payload}.{b64(bytes(broken))}"), trusted(keys)) == "token_signature"
    other = b64(json.dumps({**CLAIMS, "sub": "mallory"}).encode())
    assert code(jws.verify, jws.parse(f"{head}.{other}.{signature}"), trusted(keys)) == "token_signature"


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", "HS256", "HS512", "ES384", "RSA1_5", "EdDSA "])
def test_other_algorithms(keys: dict[str, Any], name: str) -> None:
    payload = b64(json.dumps(CLAIMS).encode())
    for signature in ("", b64(b"x" * 64)):
        parsed = jws.parse(f"{b64(json.dumps({'alg': name}).encode())}.{payload}.{signature}")
        assert code(jws.verify, parsed, trusted(keys)) == "token_algorithm"
        assert code(jws.verify, parsed, trusted(keys), (name,)) == "token_algorithm"  # not even if somebody allows it


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_public_key_is_never_a_mac_key(keys: dict[str, Any], algorithm: str) -> None:
    key = keys[algorithm]
    secrets = [key.as_pem(private=False), json.dumps(key.as_dict(private=False)).encode(), key.as_der(private=False)]
    signed = f"{b64(json.dumps({'alg': 'HS256', 'kid': key.kid}).encode())}.{b64(json.dumps(CLAIMS).encode())}"
    for secret in secrets:
        token = f"{signed}.{b64(hmac.digest(secret, signed.encode(), 'sha256'))}"
        assert code(jws.verify, jws.parse(token), trusted(keys)) == "token_algorithm"


def test_an_octet_key_in_the_set_is_left_out(keys: dict[str, Any]) -> None:
    assert jws.read_set(json.dumps({"keys": [{"kty": "oct", "k": "AAAA", "kid": "x", "alg": "HS256"}]}).encode()) == ()


def test_an_algorithm_of_another_key(keys: dict[str, Any]) -> None:
    token = issued(keys, "RS256")
    head = {"alg": "ES256", "kid": keys["RS256"].kid}
    parsed = jws.parse(f"{b64(json.dumps(head).encode())}.{token.partition('.')[2]}")
    assert code(jws.verify, parsed, trusted(keys)) == "token_key_unknown"
    assert code(jws.verify, jws.parse(token), trusted(keys), ("PS256",)) == "token_algorithm"


def test_a_key_with_an_algorithm_signs_with_no_other(keys: dict[str, Any]) -> None:
    listed = {**keys["RS256"].as_dict(private=False), "alg": "PS256"}
    only = jws.read_set(json.dumps({"keys": [listed]}).encode())
    assert code(jws.verify, jws.parse(issued(keys, "RS256")), only) == "token_key_unknown"
    assert jws.verify(jws.parse(issued(keys, "PS256")), only).algorithms == ("PS256",)


def test_kid_confusion(keys: dict[str, Any]) -> None:
    mallory = other_jwk.generate_key("EC", "P-256", {"kid": keys["ES256"].kid})
    forged = jws.parse(issued({"ES256": mallory}, "ES256"))
    assert code(jws.verify, forged, trusted(keys)) == "token_signature"
    both = [keys["ES256"].as_dict(private=False), mallory.as_dict(private=False)]
    assert jws.read_set(json.dumps({"keys": both}).encode()) == ()  # which one is meant is not said: neither
    for kid in ("../../etc/passwd", "' OR 1=1", "x" * 5000, "key-EC\0"):
        assert code(jws.verify, jws.parse(issued(keys, "ES256", kid=kid)), trusted(keys)) == "token_key_unknown"
    parsed = jws.parse(issued(keys, "ES256", kid=None))
    assert jws.verify(parsed, trusted(keys)).kid == "key-EC"  # names none: every key that fits is tried


def test_keys_in_the_header_are_not_believed(keys: dict[str, Any]) -> None:
    mallory = other_jwk.generate_key("EC", "P-256", {"kid": "mine"})
    header: dict[str, Any] = {
        "jwk": mallory.as_dict(private=False),
        "jku": "https://mallory.example/keys",
        "x5u": "https://x",
    }
    for kid in ("mine", None, "key-EC"):
        assert code(jws.verify, jws.parse(issued({"ES256": mallory}, "ES256", kid=kid, **header)), trusted(keys)) in {
            "token_key_unknown",
            "token_signature",
        }


@pytest.mark.parametrize(
    "token",
    [
        "", ".", "..", "a.b", "a.b.c.d", "e30.e30.", "e30.e30.e30=", "W10.e30.", "e30.W10.", "é.é.é", "e30 .e30.e30",
        b64(b'{"alg":"EdDSA","alg":"none"}') + ".e30.e30",
        b64(b'{"alg":"EdDSA","crit":["exp"]}') + ".e30.e30",
        b64(b'{"alg":["EdDSA"]}') + ".e30.e30",
        b64(b'{"alg":"EdDSA","kid":1}') + ".e30.e30",
        b64(b'{"alg":"EdDSA"}') + "." + b64(b'{"sub":"a","sub":"b"}') + ".e30",
        b64(b'{"alg":"EdDSA"}') + "." + b64(b"[" * 3000) + ".e30",
        b64(b'{"alg":"EdDSA"}') + "." + b64(b'{"exp":' + b"9" * 5000 + b"}") + ".e30",
        "e30.e30." + "A" * 20000,
    ],
)  # fmt: skip
def test_what_is_no_token(token: str) -> None:
    assert code(jws.parse, token) == "token_malformed"


@given(st.text(max_size=200))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    try:
        jws.parse(text)
    except NotPermitted as error:
        assert error.code == "token_malformed"


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({}, "token_endless"),
        ({"exp": NOW - 61}, "token_expired"),
        ({"exp": NOW - 60}, "token_expired"),
        ({"exp": "tomorrow"}, "token_malformed"),
        ({"exp": True}, "token_malformed"),
        ({"exp": 1e300}, "token_malformed"),
        ({"exp": NOW + 60, "nbf": NOW + 61}, "token_early"),
        ({"exp": NOW + 60, "iat": NOW + 61}, "token_early"),
        ({"exp": NOW + 60, "iat": [NOW]}, "token_malformed"),
        ({"exp": NOW + 3700}, "token_too_long"),
    ],
)
def test_times_that_are_refused(claims: dict[str, Any], expected: str) -> None:
    assert code(jws.check_times, claims, NOW, longest=3600) == expected


@pytest.mark.parametrize(
    "claims", [{"exp": NOW - 59}, {"exp": NOW + 1, "nbf": NOW + 60, "iat": NOW + 60}, {"exp": NOW + 3660}]
)
def test_leeway(claims: dict[str, Any]) -> None:
    jws.check_times(claims, NOW, longest=3600)


@pytest.mark.parametrize(
    "listed",
    [
        [{"kty": "RSA", "n": b64((2**1023 + 1).to_bytes(128)), "e": "AQAB"}],
        [{"kty": "EC", "crv": "P-256", "x": b64(bytes(32)), "y": b64(bytes(32))}],
        [{"kty": "EC", "crv": "P-521", "x": b64(bytes(66)), "y": b64(bytes(66))}],
        [{"kty": "OKP", "crv": "X25519", "x": b64(bytes(32))}],
        [{"kty": "OKP", "crv": "Ed25519", "x": b64(bytes(31))}],
        [{"kty": "OKP", "crv": "Ed25519", "x": b64(bytes([1]) * 32), "use": "enc"}],
        [{"kty": "OKP", "crv": "Ed25519", "x": b64(bytes([1]) * 32), "key_ops": ["sign"]}],
        [{"kty": "OKP", "crv": "Ed25519", "x": b64(bytes([1]) * 32), "alg": "ES256"}],
        [{"kty": ["EC"]}], [1], [None], ["x"],
    ],
)  # fmt: skip
def test_keys_that_are_left_out(listed: list[Any]) -> None:
    assert jws.read_set(json.dumps({"keys": listed}).encode()) == ()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[],"keys":[]}', b'{"keys":[' + b"1," * 101 + b"1]}"]
)
def test_what_is_no_set_of_keys(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        jws.read_set(body)


def test_what_is_signed_here_is_verified_there(keys: dict[str, Any]) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    token = jws.sign(private, {"exp": int(NOW), "aud": "adyton"})
    public = other_jwk.OKPKey.import_key(private.public_key())
    found = other_jws.deserialize_compact(token, public, algorithms=["EdDSA"])
    assert json.loads(found.payload) == {"exp": int(NOW), "aud": "adyton"}
    assert found.headers()["kid"] == public.thumbprint()  # RFC 7638
    for name in ("ES256", "RS256"):
        assert jws.thumbprint(trusted(keys, name)[0].key) == keys[name].thumbprint()
