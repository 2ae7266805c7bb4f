"""Encrypted layers: every way to alter one is noticed, every way in needs its key, and other implementations agree."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from adyton.errors import (
    AdytonError,
    ConfigError,
    DecryptionFailed,
    ImageError,
    MalformedImage,
    NotFound,
    ReleaseRefused,
    UnsupportedImage,
)
from adyton.image import jwe_recipient, keyprovider, ocicrypt
from adyton.image.layer_cipher import LayerDecryptor, LayerEncryptor
from adyton.image.manifest import Descriptor
from adyton.image.ocicrypt import ImageKeys, LayerKey
from adyton.image.recipient_keys import load_private_key, load_public_key
from adyton.protocol.resource import ResourcePath
from adyton.rats.types import Digest

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
PLAIN = b"not really a tar, but bytes " * 1000
KID = ResourcePath.parse("kbs:///default/key/1")
KEK = bytes(range(32))
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Keys:
    """A key source over a dictionary."""

    def __init__(self, keys: Mapping[str, bytes] | None = None, refusal: AdytonError | None = None) -> None:
        self.keys = {KID.uri: KEK} if keys is None else keys
        self.refusal = refusal
        self.asked: list[str] = []

    def key(self, uri: str) -> bytes:
        self.asked.append(uri)
        if self.refusal is not None:
            raise self.refusal
        if uri not in self.keys:
            raise NotFound("no such key")
        return self.keys[uri]


def sealed(options: bytes | None = None, **entries: bytes) -> tuple[Descriptor, bytes, LayerKey]:
    """An encrypted layer with the wrapped keys in ``entries`` (scheme, with ``_`` for ``.``; default: provider)."""
    symkey, nonce = b"k" * 32, b"n" * 16
    encryptor = LayerEncryptor(symkey, nonce)
    ciphertext = encryptor.update(PLAIN[:7]) + encryptor.update(PLAIN[7:])
    result = encryptor.finish()
    key = LayerKey(symkey, nonce, result.plain, result.hmac)
    wrapped = entries or {
        "provider.attestation-agent": keyprovider.wrap(
            options or ocicrypt.private_options(symkey, nonce, result.plain), KID, KEK
        )
    }
    annotations = {ocicrypt.KEYS + name: base64.b64encode(value).decode() for name, value in wrapped.items()}
    annotations[ocicrypt.PUBLIC_OPTIONS] = ocicrypt.public_options(result.hmac)
    return Descriptor(GZIP + "+encrypted", result.cipher, result.size, annotations), ciphertext, key


def changed(descriptor: Descriptor, media_type: str | None = None, **annotations: str | None) -> Descriptor:
    """A copy with another type or other annotations (``pubopts``, ``keys``); ``None`` removes one."""
    names = {"pubopts": ocicrypt.PUBLIC_OPTIONS, "keys": ocicrypt.KEYS + "provider.attestation-agent"}
    merged: dict[str, str | None] = {**descriptor.annotations}
    merged.update({names.get(name, name): value for name, value in annotations.items()})
    return Descriptor(
        media_type or descriptor.media_type,
        descriptor.digest,
        descriptor.size,
        {name: value for name, value in merged.items() if value is not None},
    )


def decrypted(key: LayerKey, ciphertext: bytes) -> bytes:
    decryptor = LayerDecryptor(key)
    plain = decryptor.update(ciphertext)
    decryptor.finish()
    return plain


# --- altered layers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 1, 15, 16, len(PLAIN) // 2, len(PLAIN) - 1])
def test_a_flipped_ciphertext_byte(position: int) -> None:
    descriptor, ciphertext, _ = sealed()
    key = ocicrypt.unwrap(descriptor, ImageKeys(source=Keys()))
    flipped = bytearray(ciphertext)
    flipped[position] ^= 1
    with pytest.raises(DecryptionFailed) as caught:
        decrypted(key, bytes(flipped))
    assert caught.value.code == "layer_mac"


@pytest.mark.parametrize("cut", [0, 1, len(PLAIN) - 1])
def test_a_truncated_ciphertext(cut: int) -> None:
    descriptor, ciphertext, _ = sealed()
    with pytest.raises(DecryptionFailed):
        decrypted(ocicrypt.unwrap(descriptor, ImageKeys(source=Keys())), ciphertext[:cut])


def test_an_appended_byte() -> None:
    descriptor, ciphertext, _ = sealed()
    with pytest.raises(DecryptionFailed):
        decrypted(ocicrypt.unwrap(descriptor, ImageKeys(source=Keys())), ciphertext + b"\0")


def test_a_swapped_layer() -> None:
    """Another layer's wrapped key under this layer's MAC opens nothing."""
    descriptor, ciphertext, _ = sealed()
    other = ocicrypt.private_options(b"o" * 32, b"n" * 16, Digest.of(PLAIN))
    swapped, _, _ = sealed(options=other)
    assert swapped.annotations[ocicrypt.PUBLIC_OPTIONS] == descriptor.annotations[ocicrypt.PUBLIC_OPTIONS]
    with pytest.raises(DecryptionFailed):
        decrypted(ocicrypt.unwrap(swapped, ImageKeys(source=Keys())), ciphertext)


# --- altered annotations --------------------------------------------------------------------------------------------


def test_the_mac_stripped() -> None:
    descriptor, _, _ = sealed()
    with pytest.raises(MalformedImage, match="no MAC"):
        ocicrypt.unwrap(changed(descriptor, pubopts=None), ImageKeys(source=Keys()))


@pytest.mark.parametrize("media_type", [GZIP, "application/vnd.oci.image.layer.v1.tar"])
def test_downgrade_to_a_plain_type(media_type: str) -> None:
    descriptor, _, _ = sealed()
    with pytest.raises(MalformedImage, match="contradict"):
        ocicrypt.is_encrypted(changed(descriptor, media_type))


def test_an_encrypted_type_without_annotations() -> None:
    with pytest.raises(MalformedImage, match="contradict"):
        ocicrypt.is_encrypted(Descriptor(GZIP + "+encrypted", Digest.of(b""), 0))


def options(**changes: object) -> str:
    value: dict[str, object] = {"cipher": ocicrypt.CIPHER, "hmac": base64.b64encode(bytes(32)).decode()}
    value.update(changes)
    return base64.b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    ("pubopts", "kind"),
    [
        ("", MalformedImage),
        ("!!!", MalformedImage),
        ("e30", MalformedImage),
        (base64.b64encode(b"[]").decode(), MalformedImage),
        (base64.b64encode(b'{"cipher":"AES_256_CTR_HMAC_SHA256"}').decode(), MalformedImage),
        (base64.b64encode(b'{"hmac":"","hmac":""}').decode(), MalformedImage),
        (options(hmac=""), MalformedImage),
        (options(hmac=base64.b64encode(bytes(31)).decode()), MalformedImage),
        (options(hmac=1), MalformedImage),
        (options(cipheroptions={"nonce": base64.b64encode(bytes(16)).decode()}), MalformedImage),
        (options(cipher="AES_256_CTR"), UnsupportedImage),
        (options(cipher=""), UnsupportedImage),
        (options(cipher=None), UnsupportedImage),
        ("A" * (ocicrypt.MAX_ANNOTATION + 4), MalformedImage),
    ],
)
def test_altered_public_options(pubopts: str, kind: type[ImageError]) -> None:
    descriptor, _, _ = sealed()
    source = Keys()
    with pytest.raises(kind):
        ocicrypt.unwrap(changed(descriptor, pubopts=pubopts), ImageKeys(source=source))
    assert source.asked == []  # nobody is asked for a key to something that cannot be used


@pytest.mark.parametrize(
    "keys",
    ["", ",", "!!!", "A" * (ocicrypt.MAX_ANNOTATION + 4), ",".join(["QUFB"] * (ocicrypt.MAX_RECIPIENTS + 1)), "QUFB"],
)
def test_altered_wrapped_keys(keys: str) -> None:
    descriptor, _, _ = sealed()
    with pytest.raises(ImageError):
        ocicrypt.unwrap(changed(descriptor, keys=keys), ImageKeys(source=Keys()))


@pytest.mark.parametrize(
    "inner",
    [
        b"",
        b"[]",
        b"{}",
        ocicrypt.private_options(b"k" * 31, b"n" * 16, Digest.of(b"")),
        ocicrypt.private_options(b"k" * 32, b"n" * 12, Digest.of(b"")),
        b'{"symkey":"a2s=","digest":"sha256:00","cipheroptions":{}}',
        b'{"symkey":1,"digest":2,"cipheroptions":3}',
    ],
)
def test_wrapped_options_that_make_no_key(inner: bytes) -> None:
    descriptor, _, _ = sealed(**{"provider.attestation-agent": keyprovider.wrap(inner, KID, KEK)})
    with pytest.raises(MalformedImage) as caught:
        ocicrypt.unwrap(descriptor, ImageKeys(source=Keys()))
    assert "a2s=" not in str(caught.value.as_dict())


@given(st.binary(max_size=120))
def test_flipping_any_bit_of_a_packet_is_noticed(noise: bytes) -> None:
    with pytest.raises(AdytonError):
        keyprovider.unwrap(noise, Keys())


def test_every_flipped_byte_of_a_packet() -> None:
    packet = keyprovider.wrap(ocicrypt.private_options(b"k" * 32, b"n" * 16, Digest.of(b"")), KID, KEK)
    opened = keyprovider.unwrap(packet, Keys())
    for position in range(len(packet)):
        flipped = bytearray(packet)
        flipped[position] ^= 1
        try:
            again = keyprovider.unwrap(bytes(flipped), Keys())
        except AdytonError:
            continue
        assert again == opened  # a member's name that nobody reads was altered; the key cannot have been


# --- keys -----------------------------------------------------------------------------------------------------------


def test_a_wrong_kek() -> None:
    descriptor, _, _ = sealed()
    with pytest.raises(DecryptionFailed) as caught:
        ocicrypt.unwrap(descriptor, ImageKeys(source=Keys({KID.uri: bytes(32)})))
    assert caught.value.code == "wrong_key"


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_kek_of_another_length(length: int) -> None:
    descriptor, _, _ = sealed()
    with pytest.raises(DecryptionFailed) as caught:
        ocicrypt.unwrap(descriptor, ImageKeys(source=Keys({KID.uri: bytes(length)})))
    assert caught.value.code == "kek_length"


def test_a_refused_key_is_said_as_refused() -> None:
    descriptor, _, _ = sealed()
    with pytest.raises(ReleaseRefused):
        ocicrypt.unwrap(descriptor, ImageKeys(source=Keys(refusal=ReleaseRefused("no"))))


def test_no_key_at_all_says_what_would_open_it() -> None:
    descriptor, _, _ = sealed()
    with pytest.raises(DecryptionFailed) as caught:
        ocicrypt.unwrap(descriptor, ImageKeys())
    assert caught.value.code == "no_key"
    assert "provider.attestation-agent" in str(caught.value.expected)
    assert "broker" in str(caught.value.hint)


def test_a_wrong_recipient() -> None:
    inner = ocicrypt.private_options(b"k" * 32, b"n" * 16, Digest.of(PLAIN))
    descriptor, _, _ = sealed(jwe=jwe_recipient.wrap(inner, [RSA_KEY.public_key()]))
    with pytest.raises(DecryptionFailed) as caught:
        ocicrypt.unwrap(descriptor, ImageKeys((OTHER_KEY, EC_KEY)))
    assert caught.value.code == "wrong_key"


def test_several_recipients_each_open_it() -> None:
    inner = ocicrypt.private_options(b"k" * 32, b"n" * 16, Digest.of(PLAIN))
    entry = jwe_recipient.wrap(inner, [RSA_KEY.public_key(), EC_KEY.public_key(), OTHER_KEY.public_key()])
    packet = keyprovider.wrap(inner, KID, KEK)
    descriptor, ciphertext, key = sealed(**{"jwe": entry, "provider.attestation-agent": packet})
    for keys in (ImageKeys((RSA_KEY,)), ImageKeys((EC_KEY,)), ImageKeys((OTHER_KEY,)), ImageKeys(source=Keys())):
        opened = ocicrypt.unwrap(descriptor, keys)
        assert opened == key
        assert decrypted(opened, ciphertext) == PLAIN
    assert jwe_recipient.recipient_kinds(entry) == ["RSA-OAEP", "ECDH-ES+A256KW", "RSA-OAEP"]


def test_a_private_key_spares_the_broker() -> None:
    inner = ocicrypt.private_options(b"k" * 32, b"n" * 16, Digest.of(PLAIN))
    source = Keys()
    descriptor, _, _ = sealed(
        **{
            "provider.attestation-agent": keyprovider.wrap(inner, KID, KEK),
            "jwe": jwe_recipient.wrap(inner, [EC_KEY.public_key()]),
        }
    )
    ocicrypt.unwrap(descriptor, ImageKeys((EC_KEY,), source))
    assert source.asked == []


def test_a_layer_key_is_not_printed() -> None:
    _, _, key = sealed()
    assert "k" * 8 not in repr(key)
    assert str(key.symkey) not in repr(key)


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_pieces_do_not_matter(pieces: list[bytes]) -> None:
    whole, split = LayerEncryptor(b"k" * 32, b"\xff" * 16), LayerEncryptor(b"k" * 32, b"\xff" * 16)
    assert whole.update(b"".join(pieces)) == b"".join(split.update(piece) for piece in pieces)
    assert whole.finish() == split.finish()


# --- the provider's packet ------------------------------------------------------------------------------------------


def packet(**changes: object) -> bytes:
    value = json.loads(keyprovider.wrap(b"{}", KID, KEK))
    value.update(changes)
    return json.dumps({name: member for name, member in value.items() if member is not ...}).encode()


def test_version_1_and_version_2_are_read() -> None:
    version_1 = packet(version=..., provider=..., provider_settings=..., annotations=...)
    assert set(json.loads(version_1)) == {"kid", "wrapped_data", "iv", "wrap_type"}
    assert keyprovider.unwrap(version_1, Keys()) == b"{}"
    assert keyprovider.Packet.parse(version_1).version is None
    assert keyprovider.unwrap(packet(), Keys()) == b"{}"
    assert keyprovider.Packet.parse(packet()).version == "0.1.0"


def test_what_is_written_has_the_members_of_both_versions() -> None:
    written = json.loads(keyprovider.wrap(b"{}", KID, KEK))
    assert written["kid"] == "kbs:///default/key/1"
    assert (written["wrap_type"], written["version"], written["provider"]) == ("A256GCM", "0.1.0", "kbs")
    assert (written["provider_settings"], written["annotations"]) == ({}, {})
    assert len(base64.b64decode(written["iv"])) == 12


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"", MalformedImage),
        (b"{}", MalformedImage),
        (packet(kid=...), MalformedImage),
        (packet(kid=7), MalformedImage),
        (packet(kid="k" * 2000), MalformedImage),
        (packet(iv=...), MalformedImage),
        (packet(iv="AAAA"), MalformedImage),
        (packet(iv="%%%"), MalformedImage),
        (packet(wrapped_data=""), MalformedImage),
        (packet(wrapped_data="A" * 70000), MalformedImage),
        (packet(wrap_type=...), UnsupportedImage),
        (packet(wrap_type="A128GCM"), UnsupportedImage),
        (packet(wrap_type="none"), UnsupportedImage),
        (packet(version="9.9"), UnsupportedImage),
        (packet(provider="aliyun"), UnsupportedImage),
        (packet()[:-1] + b',"kid":"kbs:///a/b/c"}', MalformedImage),
    ],
)
def test_broken_packets(raw: bytes, kind: type[ImageError]) -> None:
    source = Keys()
    with pytest.raises(kind):
        keyprovider.unwrap(raw, source)
    assert source.asked == []


def test_a_wrapping_without_a_tag_is_read_only_when_accepted_by_name() -> None:
    iv = bytes(range(16))
    context = Cipher(AES(KEK), CTR(iv)).encryptor()
    inner = ocicrypt.private_options(b"k" * 32, b"n" * 16, Digest.of(PLAIN))
    raw = packet(
        wrap_type="A256CTR",
        iv=base64.b64encode(iv).decode(),
        wrapped_data=base64.b64encode(context.update(inner)).decode(),
    )
    descriptor, ciphertext, key = sealed(**{"provider.attestation-agent": raw})
    with pytest.raises(UnsupportedImage, match="A256CTR"):
        ocicrypt.unwrap(descriptor, ImageKeys(source=Keys()))
    opened = ocicrypt.unwrap(descriptor, ImageKeys(source=Keys(), unauthenticated_wrap_accepted=True))
    assert opened == key
    assert decrypted(opened, ciphertext) == PLAIN


def test_any_providers_name_is_read_as_cocos_guests_do() -> None:
    inner = ocicrypt.private_options(b"k" * 32, b"n" * 16, Digest.of(PLAIN))
    descriptor, _, key = sealed(**{"provider.somebody": keyprovider.wrap(inner, KID, KEK)})
    assert ocicrypt.unwrap(descriptor, ImageKeys(source=Keys())) == key


# --- JWE ------------------------------------------------------------------------------------------------------------


def jwe(**changes: object) -> bytes:
    value = json.loads(jwe_recipient.wrap(b"secret", [EC_KEY.public_key()]))
    value.update(changes)
    return json.dumps({name: member for name, member in value.items() if member is not ...}).encode()


def b64u(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"a.b.c.d.e",
        b"[]",
        b"{}",
        jwe(protected=...),
        jwe(protected=b64u({"enc": "A128GCM", "alg": "dir"})),
        jwe(protected=b64u({"enc": "A256GCM", "alg": "dir"})),
        jwe(protected=b64u({"enc": "A256GCM", "alg": "none"})),
        jwe(protected=b64u({"enc": "A256GCM", "alg": []})),
        jwe(protected=b64u({"enc": "A256GCM", "alg": {}})),
        jwe(protected=b64u({"enc": "A256GCM", "alg": "ECDH-ES+A256KW", "epk": {"kty": "EC"}})),
        jwe(protected=b64u({"enc": "A256GCM", "zip": "DEF"})),
        jwe(protected=b64u({"enc": "A256GCM", "crit": ["x"]})),
        jwe(iv="AAAA"),
        jwe(iv="="),
        jwe(tag="AAAA"),
        jwe(ciphertext="AAAA"),
        jwe(recipients=[]),
        jwe(recipients=[1]),
        jwe(recipients=[{}] * 100),
        jwe(encrypted_key="AAAA"),
        jwe(unprotected={"enc": "A256GCM"}),
        jwe(unprotected=[]),
        jwe(aad="AAAA"),
        b"x" * (jwe_recipient.MAX_JWE + 1),
    ],
)
def test_broken_jwe(raw: bytes) -> None:
    with pytest.raises(ImageError):
        jwe_recipient.unwrap(raw, [EC_KEY, RSA_KEY])


def test_an_ephemeral_key_off_the_curve() -> None:
    value = json.loads(jwe_recipient.wrap(b"secret", [EC_KEY.public_key()]))
    header = json.loads(base64.urlsafe_b64decode(value["protected"] + "=="))
    wrong: list[dict[str, object]] = [{"x": b64u(bytes(32))}, {"y": b64u(bytes(31))}]
    wrong += [{"crv": "P-192"}, {"crv": []}, {"kty": "RSA"}]
    for coordinates in wrong:
        epk = {**header["epk"], **coordinates}
        raw = json.dumps({**value, "protected": b64u({**header, "epk": epk})}).encode()
        with pytest.raises(MalformedImage):
            jwe_recipient.unwrap(raw, [EC_KEY])


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_each_curve(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    assert jwe_recipient.unwrap(jwe_recipient.wrap(b"x", [key.public_key()]), [EC_KEY, RSA_KEY, key]) == b"x"


def test_an_independent_jose_reads_ours_and_we_read_its() -> None:
    from joserfc import jwe as jose
    from joserfc.jwk import ECKey, RSAKey

    keys: dict[str, tuple[jwe_recipient.PrivateKey, RSAKey | ECKey]] = {
        "RSA-OAEP": (RSA_KEY, RSAKey.import_key(RSA_KEY.private_bytes(*PKCS8))),
        "ECDH-ES+A256KW": (EC_KEY, ECKey.import_key(EC_KEY.private_bytes(*PKCS8))),
        "RSA-OAEP-256": (RSA_KEY, RSAKey.import_key(RSA_KEY.private_bytes(*PKCS8))),
    }
    for algorithm, (private, key) in keys.items():
        registry = jose.JWERegistry(algorithms=[algorithm, "A256GCM"])
        if algorithm != "RSA-OAEP-256":
            ours = json.loads(jwe_recipient.wrap(b"payload", [private.public_key()]))
            assert jose.decrypt_json(ours, key, registry=registry).plaintext == b"payload"
        theirs = jose.GeneralJSONEncryption({"enc": "A256GCM"}, b"payload")
        theirs.add_recipient({"alg": algorithm}, key)
        encoded = json.dumps(jose.encrypt_json(theirs, None, registry=registry)).encode()
        assert jwe_recipient.unwrap(encoded, [private]) == b"payload"


# --- key files ------------------------------------------------------------------------------------------------------

PKCS8 = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_a_sec1_key_gets_the_command_that_converts_it() -> None:
    with pytest.raises(ConfigError) as caught:
        load_private_key(EC_KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    assert "openssl pkcs8 -topk8" in str(caught.value.hint)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----",
        EC_KEY.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        EC_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        rsa.generate_private_key(public_exponent=65537, key_size=1024).private_bytes(*PKCS8),
        ec.generate_private_key(ec.SECP256K1()).private_bytes(*PKCS8),
    ],
)
def test_private_keys_that_cannot_be_used(pem: bytes) -> None:
    with pytest.raises(ConfigError):
        load_private_key(pem)


def test_public_keys() -> None:
    pem = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert load_public_key(pem).public_numbers() == RSA_KEY.public_key().public_numbers()
    with pytest.raises(ConfigError):
        load_public_key(RSA_KEY.private_bytes(*PKCS8))
    with pytest.raises(ConfigError):
        load_public_key(b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
