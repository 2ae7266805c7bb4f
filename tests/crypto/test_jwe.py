"""First trap for a foreign broker: the bytes of the protected header. Other libraries and CoCo's way both open ours."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwe as joserfc_jwe
from joserfc.jwk import ECKey, RSAKey
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK

from adyton.crypto import jwe, jwk
from adyton.errors import MalformedRequest
from adyton.wire import b64

SECRET = b"a secret\0of\xffbytes" * 60
EC_CURVES = [ec.SECP256R1(), ec.SECP521R1()]


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def coco_client_decrypts(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, text: bytes) -> bytes:
    """What CoCo's client does: header into a struct, serialised anew (members ordered), that is the AAD."""
    message = json.loads(text)
    assert list(message) == ["protected", "encrypted_key", "iv", "ciphertext", "tag"]
    fields = json.loads(b64.decode_url(message["protected"]))
    anew: dict[str, object] = {"alg": fields.pop("alg"), "enc": fields.pop("enc")}
    for name in sorted(fields):
        value = fields[name]
        anew[name] = {inner: value[inner] for inner in sorted(value)} if isinstance(value, dict) else value
    aad = b64.encode_url(json.dumps(anew, separators=(",", ":")).encode())
    wrapped = b64.decode_url(message["encrypted_key"])
    if isinstance(key, rsa.RSAPrivateKey):
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        content_key = key.decrypt(wrapped, oaep)
    else:
        epk = fields["epk"]
        x, y = (int.from_bytes(b64.decode_url(epk[name])) for name in "xy")
        other = ec.EllipticCurvePublicNumbers(x, y, key.curve).public_key()
        info = (14).to_bytes(4) + b"ECDH-ES+A256KW" + bytes(4) + bytes(4) + (256).to_bytes(4)
        derived = ConcatKDFHash(hashes.SHA256(), 32, info).derive(key.exchange(ec.ECDH(), other))
        content_key = aes_key_unwrap(derived, wrapped)
    sealed = b64.decode_url(message["ciphertext"]) + b64.decode_url(message["tag"])
    return AESGCM(content_key).decrypt(b64.decode_url(message["iv"]), sealed, aad.encode())


@pytest.mark.parametrize("curve", EC_CURVES)
def test_trap_header_is_byte_exact(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    text = jwe.encrypt(jwk.from_public(key.public_key()), SECRET)
    header = b64.decode_url(json.loads(text)["protected"]).decode()
    epk = json.loads(header)["epk"]
    name = "P-256" if curve.key_size == 256 else "P-521"
    assert header == (
        '{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{"crv":"' + name + '","kty":"EC",'
        f'"x":"{epk["x"]}","y":"{epk["y"]}"}}}}'
    )
    assert len(b64.decode_url(json.loads(text)["encrypted_key"])) == 40
    assert coco_client_decrypts(key, text) == SECRET


def test_trap_header_is_byte_exact_rsa(rsa_key: rsa.RSAPrivateKey) -> None:
    text = jwe.encrypt(jwk.from_public(rsa_key.public_key()), SECRET)
    assert b64.decode_url(json.loads(text)["protected"]) == b'{"alg":"RSA-OAEP-256","enc":"A256GCM"}'
    assert coco_client_decrypts(rsa_key, text) == SECRET


@pytest.mark.parametrize("curve", EC_CURVES)
def test_other_libraries_open_ours(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    text = jwe.encrypt(jwk.from_public(key.public_key()), SECRET)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    opened = JWE()
    opened.deserialize(text.decode(), JWK.from_pem(pem))
    assert opened.payload == SECRET
    registry = joserfc_jwe.JWERegistry(algorithms=["ECDH-ES+A256KW", "A256GCM"])
    assert joserfc_jwe.decrypt_json(json.loads(text), ECKey.import_key(pem), registry=registry).plaintext == SECRET


def test_other_libraries_open_ours_rsa(rsa_key: rsa.RSAPrivateKey) -> None:
    text = jwe.encrypt(jwk.from_public(rsa_key.public_key()), SECRET)
    pem = rsa_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    registry = joserfc_jwe.JWERegistry(algorithms=["RSA-OAEP-256", "A256GCM"])
    assert joserfc_jwe.decrypt_json(json.loads(text), RSAKey.import_key(pem), registry=registry).plaintext == SECRET
    assert jwe.decrypt(rsa_key, text) == SECRET


def test_we_open_theirs() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    public = JWK.from_pem(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    theirs = JWE(SECRET, protected=json.dumps({"alg": "ECDH-ES+A256KW", "enc": "A256GCM"}))
    theirs.add_recipient(public)
    message = json.loads(theirs.serialize())
    if "header" in message:  # jwcrypto may leave epk outside; CoCo's form has it inside, so only that is read
        with pytest.raises(MalformedRequest):
            jwe.decrypt(key, theirs.serialize().encode())
    else:
        assert jwe.decrypt(key, theirs.serialize().encode()) == SECRET


def test_every_answer_is_fresh() -> None:
    key = jwk.from_public(ec.generate_private_key(ec.SECP256R1()).public_key())
    first, second = (json.loads(jwe.encrypt(key, SECRET)) for _ in range(2))
    assert all(first[name] != second[name] for name in first)


def test_another_key_does_not_open() -> None:
    text = jwe.encrypt(jwk.from_public(ec.generate_private_key(ec.SECP256R1()).public_key()), SECRET)
    for other in (ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP521R1())):
        with pytest.raises(MalformedRequest):
            jwe.decrypt(other, text)


_KEY = ec.generate_private_key(ec.SECP256R1())
_TEXT = jwe.encrypt(jwk.from_public(_KEY.public_key()), b"x" * 40)


@given(st.integers(0, len(_TEXT) - 1), st.integers(0, 7))
@settings(max_examples=300, deadline=None)
def test_a_flipped_bit_never_opens(position: int, bit: int) -> None:
    changed = bytearray(_TEXT)
    changed[position] ^= 1 << bit
    try:
        opened = jwe.decrypt(_KEY, bytes(changed))
    except MalformedRequest:
        return
    raise AssertionError(f"opened to {opened!r} with byte {position} changed")


@pytest.mark.parametrize("size", [0, 1, 1024, 1_500_000])
def test_sizes(size: int) -> None:
    text = jwe.encrypt(jwk.from_public(_KEY.public_key()), bytes(size))
    assert jwe.decrypt(_KEY, text) == bytes(size)


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"protected":5}', b"[" * 5000, b'{"x":' + b"[" * 5000, b"\xff"])
def test_rubbish(text: bytes) -> None:
    with pytest.raises(MalformedRequest):
        jwe.decrypt(_KEY, text)
