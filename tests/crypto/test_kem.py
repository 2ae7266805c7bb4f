"""ML-KEM in JOSE as CoCo's guests have it: KMAC256 against NIST's samples, the answer's header byte for byte."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton.crypto import jwe, jwk, kem
from adyton.crypto.kmac import kmac256
from adyton.errors import MalformedRequest
from adyton.wire import b64

KEY = MLKEM768PrivateKey.generate()
SAMPLE_KEY = bytes(range(0x40, 0x60))


@pytest.mark.parametrize(
    ("message", "custom", "expected"),
    [  # NIST's KMAC samples 4, 5 and 6
        (
            bytes(range(4)),
            b"My Tagged Application",
            (
                "20c570c31346f703c9ac36c61c03cb64c3970d0cfc787e9b79599d273a68d2f7"
                "f69d4cc3de9d104a351689f27cf6f5951f0103f33f4f24871024d9c27773a8dd"
            ),
        ),
        (
            bytes(range(200)),
            b"",
            (
                "75358cf39e41494e949707927cee0af20a3ff553904c86b08f21cc414bcfd691"
                "589d27cf5e15369cbbff8b9a4c2eb17800855d0235ff635da82533ec6b759b69"
            ),
        ),
        (
            bytes(range(200)),
            b"My Tagged Application",
            (
                "b58618f71f92e1d56c1b8c55ddd7cd188b97b4ca4d99831eb2699a837da2e4d9"
                "70fbacfde50033aea585f1a2708510c32d07880801bd182898fe476876fc8965"
            ),
        ),
    ],
)
def test_kmac_samples(message: bytes, custom: bytes, expected: str) -> None:
    assert kmac256(SAMPLE_KEY, message, 64, custom).hex() == expected


@pytest.mark.parametrize("size", [0, 137])
def test_kmac_of_another_length_is_a_mistake(size: int) -> None:
    with pytest.raises(ValueError, match="136"):
        kmac256(SAMPLE_KEY, b"", size)


@pytest.mark.parametrize("change", [{"pub": "AAAA"}, {"pub": b64.encode_url(b"\xff" * 1184)}, {"alg": "ML-KEM-768"}])
def test_keys_that_are_refused(change: dict[str, str]) -> None:
    good = dict(jwk.from_public(KEY.public_key()).members)
    with pytest.raises(MalformedRequest) as refused:
        jwk.parse({**good, **change})
    assert refused.value.code == "tee_key_malformed"
    with pytest.raises(MalformedRequest):
        jwk.parse({**good, "priv": "AAAA"})
    with pytest.raises(MalformedRequest):
        jwk.parse(good, frozenset({jwk.EC_ALGORITHM}))


def coco_client_opens(text: bytes) -> bytes:
    """Written apart: header into a map, serialised anew in order, KDF over length, name and 192."""
    message = json.loads(text)
    header = json.loads(b64.decode_url(message["protected"]))
    assert list(header) == ["alg", "enc", "ek"]
    again = b64.encode_url(json.dumps(header, separators=(",", ":")).encode())
    secret = KEY.decapsulate(b64.decode_url(header["ek"]))
    name = header["alg"].encode()
    info = len(name).to_bytes(4, "big") + name + (192).to_bytes(4, "big")
    content_key = aes_key_unwrap(kmac256(secret, info, 24), b64.decode_url(message["encrypted_key"]))
    sealed = b64.decode_url(message["ciphertext"]) + b64.decode_url(message["tag"])
    return AESGCM(content_key).decrypt(b64.decode_url(message["iv"]), sealed, again.encode())


def test_both_ways() -> None:
    key = jwk.from_public(KEY.public_key())
    assert dict(jwk.parse(dict(key.members)).members) == dict(key.members)
    text = jwe.encrypt(key, b"quantum")
    assert coco_client_opens(text) == jwe.decrypt(KEY, text) == b"quantum"
    with pytest.raises(MalformedRequest):
        jwe.decrypt(MLKEM768PrivateKey.generate(), text)


@settings(max_examples=40, deadline=None)
@given(bit=st.integers(0, 8 * 1088 - 1))
def test_one_flipped_bit(bit: int) -> None:
    encapsulated, wrapped = kem.wrap(KEY.public_key(), bytes(32))
    changed = bytearray(encapsulated)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InvalidUnwrap):
        kem.unwrap(KEY, bytes(changed), wrapped)
