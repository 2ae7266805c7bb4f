"""What keys do without leaving: first what they must not do."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton.crypto import jwe, jwk, key_kinds, transit
from adyton.crypto.key_kinds import Kind
from adyton.errors import AdytonError, MalformedRequest, TooLarge
from adyton.wire import b64

AES = [Kind.AES_128, Kind.AES_192, Kind.AES_256]
KINDS = [kind for kind in Kind if kind not in {*key_kinds.WRITTEN, Kind.RANDOM, Kind.RSA_3072, Kind.RSA_4096}]
KEYS = {kind: key_kinds.generate(kind) for kind in KINDS}
PUBLIC = {kind: key_kinds.public_der(kind, secret) for kind, secret in KEYS.items()}
TEXT = b"what nobody else reads"


def code_of(call: object, *arguments: object) -> str:
    assert callable(call)
    with pytest.raises(AdytonError) as error:
        call(*arguments)
    return error.value.code


@pytest.mark.parametrize("kind", AES)
def test_a_ciphertext_opens_only_as_what_it_is(kind: Kind) -> None:
    key = KEYS[kind]
    text = transit.encrypt(kind, key, 3, TEXT, b"aad")
    wrapped = transit.wrap(kind, key, 3, TEXT, b"aad")
    head, _, body = text.rpartition(":")
    others = [
        (key, text, b""),
        (key, text, b"aae"),
        (key_kinds.generate(kind), text, b"aad"),
        (key, text.replace(":3:", ":4:"), b"aad"),
        (key, wrapped, b"aad"),
        (key, wrapped.replace("wrap", "enc"), b"aad"),
        (key, f"{head}:{body[:-4]}", b"aad"),
        (key, f"{head}:", b"aad"),
        (key, text + "=", b"aad"),
        (key, text.upper(), b"aad"),
        (key, "", b"aad"),
        (key, "x" * (transit.MAX_CIPHERTEXT + 1), b"aad"),
        (key, text, b"a" * (transit.MAX_AAD + 1)),
    ]
    for secret, given_text, aad in others:
        assert code_of(transit.decrypt, kind, secret, given_text, aad) == "ciphertext_refused", given_text[:30]
    assert code_of(transit.unwrap, kind, key, text, b"aad") == "ciphertext_refused"
    assert code_of(transit.unwrap, kind, key, text.replace("enc", "wrap"), b"aad") == "ciphertext_refused"
    assert transit.decrypt(kind, key, text, b"aad") == TEXT
    assert transit.unwrap(kind, key, wrapped, b"aad") == TEXT
    assert transit.version(text) == 3
    assert transit.purpose(wrapped) == "wrap"


@given(st.integers(0, 400), st.integers(0, 7))
def test_one_flipped_bit_never_opens(place: int, bit: int) -> None:
    text = transit.encrypt(Kind.AES_256, KEYS[Kind.AES_256], 1, TEXT, b"")
    sealed = bytearray(b64.decode_url(text.rpartition(":")[2]))
    sealed[place % len(sealed)] ^= 1 << bit
    changed = "adyton:enc:1:" + b64.encode_url(bytes(sealed))
    assert code_of(transit.decrypt, Kind.AES_256, KEYS[Kind.AES_256], changed, b"") == "ciphertext_refused"


@settings(max_examples=50)
@given(st.text(max_size=200), st.sampled_from(KINDS))
def test_any_text_is_refused_by_every_kind(text: str, kind: Kind) -> None:
    for call in (transit.decrypt, transit.unwrap):
        assert code_of(call, kind, KEYS[kind], text, b"") in {
            "ciphertext_refused",
            "key_algorithm_wrong",
        }


@settings(max_examples=50)
@given(st.binary(max_size=5000), st.binary(max_size=300), st.sampled_from(AES))
def test_what_goes_in_comes_out(plaintext: bytes, aad: bytes, kind: Kind) -> None:
    text = transit.encrypt(kind, KEYS[kind], 1, plaintext, aad)
    assert transit.decrypt(kind, KEYS[kind], text, aad) == plaintext
    assert text != transit.encrypt(kind, KEYS[kind], 1, plaintext, aad)


def test_too_much() -> None:
    key = KEYS[Kind.AES_256]
    big = bytes(transit.MAX_PLAINTEXT + 1)
    assert code_of(transit.encrypt, Kind.AES_256, key, 1, big, b"") == "transit_too_large"
    assert code_of(transit.encrypt, Kind.AES_256, key, 1, b"", bytes(transit.MAX_AAD + 1)) == "transit_too_large"
    assert code_of(transit.wrap, Kind.AES_256, key, 1, bytes(transit.MAX_WRAPPED + 1), b"") == "transit_too_large"
    assert code_of(transit.wrap, Kind.AES_256, key, 1, b"", b"") == "transit_input"
    rsa_key = KEYS[Kind.RSA_2048]
    with pytest.raises(TooLarge) as error:
        transit.encrypt(Kind.RSA_2048, rsa_key, 1, bytes(191), b"")
    assert error.value.expected == "at most 190 bytes"
    whole = transit.encrypt(Kind.AES_256, key, 1, bytes(transit.MAX_PLAINTEXT), b"")
    assert len(transit.decrypt(Kind.AES_256, key, whole, b"")) == transit.MAX_PLAINTEXT


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_does_only_what_is_its_own(kind: Kind) -> None:
    key, wrong = KEYS[kind], "key_algorithm_wrong"
    if "encrypt" not in kind.operations:
        assert code_of(transit.encrypt, kind, key, 1, TEXT, b"") == wrong
        assert code_of(transit.encrypt, kind, key, 1, TEXT, b"", "JWE") == wrong
    if "sign" not in kind.operations:
        assert code_of(transit.sign, kind, key, TEXT) == wrong
    if "mac" not in kind.operations:
        assert code_of(transit.mac, kind, key, TEXT) == wrong
    for algorithm in ("none", "RS256", "ES257", "HS256" if kind is Kind.HMAC_512 else "HS512", "A256CBC"):
        if (kind, algorithm) == (Kind.HMAC_512, "HS512"):
            continue
        assert code_of(transit.sign, kind, key, TEXT, algorithm) == wrong
        assert code_of(transit.encrypt, kind, key, 1, TEXT, b"", algorithm) == wrong
        if algorithm != {Kind.HMAC_256: "HS256", Kind.HMAC_512: "HS512"}.get(kind):
            assert code_of(transit.mac, kind, key, TEXT, algorithm) == wrong


SIGNING = [kind for kind in KINDS if "sign" in kind.operations]


@pytest.mark.parametrize("kind", SIGNING)
def test_signatures(kind: Kind) -> None:
    key, public = KEYS[kind], PUBLIC[kind]
    name, signature = transit.sign(kind, key, TEXT)
    for changed in (
        b"",
        signature[:-1],
        signature + b"\0",
        bytes([signature[0] ^ 1]) + signature[1:],
        bytes(len(signature)),
    ):
        assert transit.verify(kind, public, TEXT, changed) == (name, False)
    assert transit.verify(kind, public, TEXT + b"x", signature) == (name, False)
    fresh = key_kinds.public_der(kind, key_kinds.generate(kind))
    assert transit.verify(kind, fresh, TEXT, signature) == (name, False)
    assert transit.verify(kind, public, TEXT, signature) == (name, True)
    for algorithm in ("none", "ES256" if name != "ES256" else "ES384"):
        assert code_of(transit.verify, kind, public, TEXT, signature, algorithm) == "key_algorithm_wrong"


def test_digests() -> None:
    import hashlib

    kind = Kind.P384
    digest = hashlib.sha384(TEXT).digest()
    _, signature = transit.sign(kind, KEYS[kind], b"", digest=digest)
    assert transit.verify(kind, PUBLIC[kind], TEXT, signature)[1]
    assert transit.verify(kind, PUBLIC[kind], b"", signature, digest=digest)[1]
    assert code_of(transit.sign, kind, KEYS[kind], b"", "", digest[:32]) == "transit_input"
    assert code_of(transit.sign, kind, KEYS[kind], TEXT, "", digest) == "transit_input"
    assert code_of(transit.sign, Kind.ED25519, KEYS[Kind.ED25519], b"", "", digest) == "transit_input"
    name, signature = transit.sign(Kind.RSA_2048, KEYS[Kind.RSA_2048], TEXT, "PS512")
    assert transit.verify(Kind.RSA_2048, PUBLIC[Kind.RSA_2048], TEXT, signature, "PS512") == (name, True)
    assert transit.verify(Kind.RSA_2048, PUBLIC[Kind.RSA_2048], TEXT, signature) == ("PS256", False)


@pytest.mark.parametrize(("kind", "size"), [(Kind.HMAC_256, 32), (Kind.HMAC_512, 64)])
def test_macs(kind: Kind, size: int) -> None:
    key = KEYS[kind]
    name, code = transit.mac(kind, key, TEXT)
    assert len(code) == size
    for wrong in (b"", code[:-1], code + b"\0", code[:16], bytes(size)):
        assert transit.verify_mac(kind, key, TEXT, wrong) == (name, False)
    assert transit.verify_mac(kind, key, TEXT, code) == (name, True)


@pytest.mark.parametrize("kind", [Kind.RSA_2048, Kind.P256, Kind.P521])
def test_anybody_with_the_public_half_can_send_a_jwe(kind: Kind) -> None:
    public = key_kinds.load_public(PUBLIC[kind])
    sent = jwe.encrypt(jwk.from_public(public), TEXT).decode()  # type: ignore[arg-type]
    assert transit.decrypt(kind, KEYS[kind], sent, b"") == TEXT
    assert transit.version(sent) is None
    assert code_of(transit.decrypt, kind, KEYS[kind], sent, b"aad") == "transit_input"
    broken = {**json.loads(sent), "tag": b64.encode_url(bytes(16))}
    assert code_of(transit.decrypt, kind, KEYS[kind], json.dumps(broken), b"") == "ciphertext_refused"
    assert code_of(transit.decrypt, kind, KEYS[kind], "{\u1234", b"") == "ciphertext_refused"
    mine = transit.encrypt(kind, KEYS[kind], 1, TEXT, b"", "JWE")
    assert transit.decrypt(kind, KEYS[kind], mine, b"") == TEXT
    assert code_of(transit.encrypt, kind, KEYS[kind], 1, TEXT, b"aad", "JWE") == "transit_input"


def test_rsa_binds_the_additional_data() -> None:
    kind = Kind.RSA_2048
    text = transit.encrypt(kind, KEYS[kind], 1, TEXT, b"aad")
    assert transit.decrypt(kind, KEYS[kind], text, b"aad") == TEXT
    assert code_of(transit.decrypt, kind, KEYS[kind], text, b"") == "ciphertext_refused"
    with pytest.raises(MalformedRequest):
        transit.decrypt(kind, key_kinds.generate(kind), text, b"aad")


def test_rsa_tells_what_is_wrapped_from_what_is_encrypted() -> None:
    kind, key = Kind.RSA_2048, KEYS[Kind.RSA_2048]
    wrapped, text = transit.wrap(kind, key, 1, TEXT, b"a"), transit.encrypt(kind, key, 1, TEXT, b"a")
    public = key_kinds.load_public(PUBLIC[kind])
    sent = json.loads(jwe.encrypt(jwk.from_public(public), TEXT))  # type: ignore[arg-type]
    assert code_of(transit.decrypt, kind, key, wrapped.replace("wrap", "enc"), b"a") == "ciphertext_refused"
    assert code_of(transit.unwrap, kind, key, text.replace("enc", "wrap"), b"a") == "ciphertext_refused"
    assert code_of(transit.unwrap, kind, key, "adyton:wrap:1:" + sent["encrypted_key"], b"") == "ciphertext_refused"
    label = transit.context("wrap", 1, b"a")
    assert code_of(transit.decrypt, kind, key, wrapped.replace("wrap", "enc"), label) == "ciphertext_refused"
    assert transit.unwrap(kind, key, wrapped, b"a") == TEXT
