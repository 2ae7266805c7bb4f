"""Detached JWS with the key in the header: what must not verify, and what another library says of what we write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwcrypto import jwk as jose_jwk
from jwcrypto import jws as jose

from adyton.crypto import detached
from adyton.errors import SignatureInvalid
from adyton.wire import b64

KEYS: list[detached.PrivateKey] = [
    ed25519.Ed25519PrivateKey.generate(),
    ec.generate_private_key(ec.SECP256R1()),
    rsa.generate_private_key(65537, 2048),
]
PAYLOAD = b"\0what is signed\xff"
TYP = "a-purpose"


def parts(text: str) -> tuple[dict[str, Any], bytes]:
    head, _, signature = text.split(".")
    return json.loads(b64.decode_url(head)), b64.decode_url(signature)


def joined(header: object, signature: bytes) -> str:
    return f"{b64.encode_url(json.dumps(header).encode())}..{b64.encode_url(signature)}"


def signed(key: detached.PrivateKey, header: object) -> str:
    """Under a header of the attacker's choice: the signature itself is right."""
    head = b64.encode_url(json.dumps(header).encode())
    data = f"{head}.{b64.encode_url(PAYLOAD)}".encode()
    if isinstance(key, ed25519.Ed25519PrivateKey):
        signature = key.sign(data)
    elif isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    else:
        raise NotImplementedError
    return f"{head}..{b64.encode_url(signature)}"


@pytest.mark.parametrize("key", KEYS, ids=["ed25519", "p256", "rsa"])
def test_nothing_else_verifies(key: detached.PrivateKey) -> None:
    text = detached.sign(key, PAYLOAD, TYP)
    header, signature = parts(text)
    stranger = parts(detached.sign(ed25519.Ed25519PrivateKey.generate(), PAYLOAD, TYP))[0]["jwk"]
    for wrong in [
        text.replace("..", f".{b64.encode_url(PAYLOAD)}."),
        text.replace("..", "."),
        text + ".",
        text + "A",
        text + "\n",
        "",
        "..",
        joined({**header, "alg": "none"}, b""),
        joined({**header, "alg": "HS256"}, signature),
        joined({**header, "jwk": stranger}, signature),
        joined({**header, "jwk": {**header["jwk"], "kid": "x"}}, signature),
        joined({**header, "crit": ["b64"], "b64": False}, signature),
        joined({name: value for name, value in header.items() if name != "typ"}, signature),
        joined([header], signature),
        joined(header, signature[:-1]),
        joined(header, bytes(len(signature))),
        "A" * 100_000,
    ]:
        with pytest.raises(SignatureInvalid):
            detached.verify(wrong, PAYLOAD, TYP)
    with pytest.raises(SignatureInvalid, match="another purpose"):
        detached.verify(text, PAYLOAD, "another")
    with pytest.raises(SignatureInvalid):
        detached.verify(text, PAYLOAD + b" ", TYP)


def test_a_signature_that_is_right_under_a_wrong_header_is_refused() -> None:
    header, _ = parts(detached.sign(KEYS[0], PAYLOAD, TYP))
    for wrong in [
        {**header, "alg": "Ed25519"},  # another name for the same: one spelling counts
        {**header, "jwk": {**header["jwk"], "use": "sig"}},
        {**header, "b64": True},
    ]:
        with pytest.raises(SignatureInvalid):
            detached.verify(signed(KEYS[0], wrong), PAYLOAD, TYP)
    rsa_header, _ = parts(detached.sign(KEYS[2], PAYLOAD, TYP))
    with pytest.raises(SignatureInvalid):
        detached.verify(signed(KEYS[2], {**rsa_header, "alg": "RS256"}), PAYLOAD, TYP)


def test_keys_of_other_kinds_sign_nothing() -> None:
    with pytest.raises(ValueError, match="P-256"):
        detached.sign(ec.generate_private_key(ec.SECP384R1()), PAYLOAD, TYP)


@given(at=st.integers(min_value=0), bit=st.integers(0, 7), which=st.sampled_from(KEYS))
def test_one_flipped_bit_never_verifies(at: int, bit: int, which: detached.PrivateKey) -> None:
    raw = bytearray(detached.sign(which, PAYLOAD, TYP).encode())
    raw[at % len(raw)] ^= 1 << bit
    with pytest.raises(SignatureInvalid):
        detached.verify(raw.decode("latin-1"), PAYLOAD, TYP)


@given(text=st.text(max_size=300))
def test_rubbish_is_refused_with_one_error(text: str) -> None:
    with pytest.raises(SignatureInvalid):
        detached.verify(text, PAYLOAD, TYP)


@pytest.mark.parametrize("key", KEYS, ids=["ed25519", "p256", "rsa"])
def test_who_signed_is_found(key: detached.PrivateKey) -> None:
    found = detached.verify(detached.sign(key, PAYLOAD, TYP), PAYLOAD, TYP)
    der = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert found.public_bytes(*der) == key.public_key().public_bytes(*der)
    assert detached.fingerprint(found) == detached.fingerprint(key.public_key())


@pytest.mark.parametrize("key", KEYS, ids=["ed25519", "p256", "rsa"])
def test_another_library_verifies_it(key: detached.PrivateKey) -> None:
    text = detached.sign(key, PAYLOAD, TYP)
    header, _ = parts(text)
    whole = text.replace("..", f".{b64.encode_url(PAYLOAD)}.")
    token = jose.JWS()
    token.deserialize(whole, jose_jwk.JWK(**header["jwk"]), alg=header["alg"])
    assert token.payload == PAYLOAD
