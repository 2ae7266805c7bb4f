"""What every holder must do, whatever stands behind it: the laws of ``stores/backends/port.py``."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from adyton.crypto.transit import MAX_AAD
from adyton.errors import ConfigError, Unavailable
from adyton.protocol.resource import ResourcePath
from adyton.stores.backends.guard import ANSWERED
from adyton.stores.backends.port import MAX_PLAINTEXT, KeyHolder, KeyKind, SecretHolder, Signing
from adyton.stores.backends.signatures import hash_of

Use = Callable[[], object]
ONE = ResourcePath("default", "key", "1")
OTHER = ResourcePath("default", "key", "2")
ODD = (
    ResourcePath("_", "-..", "a.b-c_D"),
    ResourcePath("default", "key-1", "x"),
    ResourcePath("default-key", "1", "x"),
)


def secrets(holder: SecretHolder, largest: int = 64 * 1024) -> None:
    """All of a ``SecretHolder``'s laws, on an empty one."""
    assert holder.get("acme", ONE) is None and holder.list("acme") == []
    holder.delete("acme", ONE)  # nothing there is no error
    first = holder.put("acme", ONE, b"first\0\xff")
    assert holder.get("acme", ONE) == b"first\0\xff" == holder.get("acme", ONE, first)
    assert 0 < len(first) <= 200 and first.isascii() and first.isprintable()
    # another tenant, whose name begins the same, and another path have nothing of it
    for tenant in ("acme2", "acm", "default"):
        assert holder.get(tenant, ONE) is None and holder.list(tenant) == []
        assert holder.get(tenant, ONE, first) is None
    assert holder.get("acme", OTHER) is None and holder.get("acme", OTHER, first) is None
    holder.delete("acme2", ONE)
    # a newer value does not end an older pointer
    pointers = [first, *(holder.put("acme", ONE, b"value %d" % number) for number in range(6))]
    assert len(set(pointers)) == len(pointers)
    assert holder.get("acme", ONE, first) == b"first\0\xff"
    assert holder.get("acme", ONE, pointers[3]) == b"value 2"
    assert sorted(holder.pointers("acme", ONE)) == sorted(pointers)
    assert not holder.pointers("acme2", ONE) and not holder.pointers("acme", OTHER)
    for pointer in pointers[:-1]:
        holder.delete("acme", ONE, pointer)
        assert holder.get("acme", ONE, pointer) is None
    assert holder.get("acme", ONE, pointers[-1]) == b"value 5" == holder.get("acme", ONE)
    assert list(holder.pointers("acme", ONE)) == pointers[-1:]
    for path in ODD:
        holder.put("acme", path, str(path).encode())
    for path in ODD:
        assert holder.get("acme", path) == str(path).encode()
    assert holder.list("acme") == sorted([ONE, *ODD], key=str)
    holder.delete("acme", ONE)
    assert holder.get("acme", ONE) is None and holder.get("acme", ONE, pointers[-1]) is None
    big = os.urandom(largest)
    assert holder.get("acme", OTHER, holder.put("acme", OTHER, big)) == big
    with pytest.raises(ConfigError) as caught:
        holder.put("acme", OTHER, big + b"1")
    assert caught.value.code == "backend_value_too_large"
    assert holder.check()


def secrets_from_threads(holder: SecretHolder) -> None:
    paths = [ResourcePath("threads", "key", str(number)) for number in range(24)]

    def work(path: ResourcePath) -> bool:
        value = os.urandom(64)
        return holder.get("acme", path, holder.put("acme", path, value)) == value

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, paths))


def symmetric(holder: KeyHolder, *, garbage: bool = True) -> None:
    """AEAD, with everything that must not open; ``garbage``: also what is another key's, or none."""
    handle, other = holder.generate(KeyKind.AES_256, "root"), holder.generate(KeyKind.AES_256, "root")
    assert handle != other and len(handle) <= 200 and handle.isascii() and handle.isprintable()
    root = os.urandom(32)
    sealed = holder.encrypt(handle, root, b"who")
    assert root not in sealed and holder.encrypt(handle, root, b"who") != sealed
    assert holder.decrypt(handle, sealed, b"who") == root
    assert holder.decrypt(handle, holder.encrypt(handle, root)) == root
    largest = os.urandom(4096)
    assert holder.decrypt(handle, holder.encrypt(handle, largest, b"a"), b"a") == largest
    with pytest.raises(ConfigError) as caught:
        holder.encrypt(handle, largest + b"1", b"a")
    assert caught.value.code == "plaintext_too_large"
    flipped = [sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in (len(sealed) - 1, len(sealed) - 20)]
    refused = [(handle, sealed, b"wha"), (handle, sealed, b"")]
    refused += [(handle, bad, b"who") for bad in (*flipped, sealed[:-1])]
    if garbage:
        refused += [(other, sealed, b"who"), *((handle, bad, b"who") for bad in (sealed[:10], b"", b"\0" * 60))]
    for whose, what, aad in refused:
        with pytest.raises(Unavailable) as failed:
            holder.decrypt(whose, what, aad)
        assert failed.value.code == "ciphertext_refused", what
    wrongs: list[Use] = [lambda: holder.public(handle), lambda: holder.sign(handle, Signing.ES256, b"m")]
    for wrong in wrongs:
        with pytest.raises(ConfigError) as caught:
            wrong()
        assert caught.value.code == "not_by_this_device"
    holder.destroy(other)
    holder.destroy(other)
    with pytest.raises(ConfigError) as caught:
        holder.encrypt(other, root)
    assert caught.value.code == "held_key_absent"
    assert holder.decrypt(handle, sealed, b"who") == root


def found_by_label(holder: KeyHolder) -> None:
    """What was made with a label, and nothing else, is found and destroyed by it."""
    name = f"adyton-{os.urandom(8).hex()}"
    other = holder.generate(KeyKind.AES_256, f"{name}-longer")
    assert not holder.labelled(name)
    handles = [holder.generate(KeyKind.AES_256, name), holder.generate(KeyKind.RSA_2048, name)]
    found = holder.labelled(name)
    assert found
    for one in found:
        holder.destroy(one)
    assert not holder.labelled(name)
    for handle in handles:
        with pytest.raises(ConfigError) as caught:
            holder.decrypt(handle, b"x" * 60)
        assert caught.value.code == "held_key_absent"
    assert holder.decrypt(other, holder.encrypt(other, b"v")) == b"v"
    holder.destroy(other)


def absent(holder: KeyHolder, handle: str) -> None:
    uses: list[Use] = [
        lambda: holder.encrypt(handle, b"x"),
        lambda: holder.decrypt(handle, b"x" * 60),
        lambda: holder.sign(handle, Signing.ES256, b"x"),
        lambda: holder.public(handle),
    ]
    for use in uses:
        with pytest.raises(ConfigError) as caught:
            use()
        assert caught.value.code == "held_key_absent"


def signing(
    holder: KeyHolder, kind: KeyKind, algorithms: tuple[Signing, ...], wrong: Signing, salt: Any = None
) -> None:
    """Signatures that pyca verifies with the public half, and none by an algorithm of another kind of key."""
    handle = holder.generate(kind, "signer")
    spki = holder.public(handle)
    for algorithm in algorithms:
        verify(spki, algorithm, holder.sign(handle, algorithm, b"a message"), b"a message", salt)
    with pytest.raises(ConfigError) as caught:
        holder.sign(handle, wrong, b"a message")
    assert caught.value.code == "not_by_this_device"
    holder.destroy(handle)
    absent(holder, handle)


def verify(spki: bytes, algorithm: Signing, signature: bytes, message: bytes, salt: Any = None) -> None:
    key = serialization.load_der_public_key(spki)
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, message)
        return
    made = hash_of(algorithm)
    if isinstance(key, ec.EllipticCurvePublicKey):
        half = (key.curve.key_size + 7) // 8
        assert len(signature) == 2 * half
        r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(made))
        return
    assert isinstance(key, rsa.RSAPublicKey)
    pss = padding.PSS(padding.MGF1(made), salt or made.digest_size)
    key.verify(signature, message, pss if algorithm.value.startswith("PS") else padding.PKCS1v15(), made)


def rsa_oaep(holder: KeyHolder) -> None:
    handle = holder.generate(KeyKind.RSA_2048, "wrap")
    root = os.urandom(32)
    sealed = holder.encrypt(handle, root)
    assert holder.decrypt(handle, sealed) == root
    for bad in (sealed[:-1] + bytes([sealed[-1] ^ 1]), b"short", bytes(256)):
        with pytest.raises(Unavailable) as failed:
            holder.decrypt(handle, bad)
        assert failed.value.code == "ciphertext_refused"
    uses: list[Use] = [lambda: holder.encrypt(handle, root, b"a"), lambda: holder.decrypt(handle, sealed, b"a")]
    for use in uses:
        with pytest.raises(ConfigError) as caught:
            use()
        assert caught.value.code == "not_by_this_device"
    holder.destroy(handle)


def odd_requests_are_answered(holder: KeyHolder) -> None:
    """Nothing that somebody may ask for looks as if the back end were not there: others would be shut out with him."""
    handle = holder.generate(KeyKind.AES_256, "odd")
    for plaintext in (b"", bytes(1), bytes(MAX_PLAINTEXT)):
        for aad in (b"", b"\0", bytes(MAX_AAD)):
            try:
                assert holder.decrypt(handle, holder.encrypt(handle, plaintext, aad), aad) == plaintext
            except ConfigError as error:
                assert error.code == "not_by_this_device"
            except Unavailable as error:
                assert error.code in ANSWERED, error.as_dict()
            for junk in (b"", b"\x01", b"vault:v1:", b"vault:v9:AAAA", bytes(40), bytes(7000)):
                with pytest.raises((Unavailable, ConfigError)) as caught:
                    holder.decrypt(handle, junk, aad)
                assert isinstance(caught.value, ConfigError) or caught.value.code in ANSWERED, caught.value.as_dict()
    if KeyKind.P256 in holder.kinds:
        with pytest.raises(ConfigError):
            holder.encrypt(holder.generate(KeyKind.P256, "odd"), b"x")
