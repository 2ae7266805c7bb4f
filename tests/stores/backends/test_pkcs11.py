"""A real token: SoftHSM2, through its PKCS#11 module. Refusals first."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pkcs11
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from tests.stores.backends import laws
from tests.waiting import LONG

from adyton.errors import AdytonError, ConfigError, MalformedRequest, Unavailable
from adyton.protocol.resource import ResourcePath
from adyton.stores.backends.options import Pkcs11Options as Options
from adyton.stores.backends.pkcs11 import Pkcs11
from adyton.stores.backends.port import KeyKind, Signing

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "a1b2c3d4"


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Options]]:
    """Makes tokens; the module reads its configuration once a process, so all lie in one directory."""
    place = tmp_path_factory.mktemp("softhsm")
    (place / "tokens").mkdir()
    configuration = place / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {place}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
    pin = place / "pin"
    pin.write_text(PIN + "\n")
    pin.chmod(0o600)
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(configuration)

    def make(name: str) -> Options:
        subprocess.run(
            ["softhsm2-util", "--init-token", "--free", "--label", name, "--pin", PIN, "--so-pin", "87654321"],
            check=True, capture_output=True,
        )  # fmt: skip
        library = pkcs11.lib(MODULE)
        library.reinitialize()  # to see a token that was made meanwhile
        return Options(module=MODULE, token=name, pin_file=str(pin))

    yield make
    pkcs11.lib(MODULE).finalize()
    os.environ.pop("SOFTHSM2_CONF")
    if before is not None:
        os.environ["SOFTHSM2_CONF"] = before


@pytest.fixture(scope="module")
def options(token: Callable[[str], Options]) -> Options:
    return token("adyton")


@pytest.fixture
def hsm(options: Options) -> Iterator[Pkcs11]:
    holder = Pkcs11(options)
    yield holder
    holder.close()


def _changed(options: Options, **change: object) -> Options:
    return Options(**{**{name: getattr(options, name) for name in options.__struct_fields__}, **change})


def test_an_exposed_or_empty_pin_file_is_refused(options: Options, tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    for content, mode, code in (
        (PIN, 0o640, "backend_credential_exposed"),
        (PIN, 0o604, "backend_credential_exposed"),
        ("", 0o600, "backend_credential_invalid"),
        ("\n" + PIN, 0o600, "backend_credential_invalid"),
    ):
        pin.write_text(content)
        pin.chmod(mode)
        with pytest.raises(ConfigError) as caught:
            Pkcs11(_changed(options, pin_file=str(pin)))
        assert caught.value.code == code and PIN not in str(caught.value.as_dict())
    with pytest.raises(ConfigError) as caught:
        Pkcs11(_changed(options, pin_file=str(tmp_path)))
    assert caught.value.code == "backend_credential_exposed"
    with pytest.raises(ConfigError) as caught:
        Pkcs11(_changed(options, pin_file=str(tmp_path / "none")))
    assert caught.value.code == "backend_file_unreadable"


def test_a_wrong_pin_a_wrong_token_and_a_wrong_module_say_so(token: Callable[[str], Options], tmp_path: Path) -> None:
    own = token("pins")
    pin = tmp_path / "pin"
    pin.write_text("00000000")
    pin.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        Pkcs11(_changed(own, pin_file=str(pin))).check()
    assert caught.value.code == "hsm_pin_refused" and "00000000" not in str(caught.value.as_dict())
    with pytest.raises(Unavailable) as absent:
        Pkcs11(_changed(own, token="nobody")).check()
    assert absent.value.code == "hsm_token_absent"
    for module in ("/nowhere.so", "libsofthsm2.so"):
        with pytest.raises(ConfigError) as caught:
            Pkcs11(_changed(own, module=module))
        assert caught.value.code == "hsm_module_unusable"
    with pytest.raises(ConfigError) as caught:
        Pkcs11(_changed(own, module=__file__)).check()
    assert caught.value.code == "hsm_module_unusable"


def test_values_and_their_laws(token: Callable[[str], Options]) -> None:
    holder = Pkcs11(token("values"))
    with pytest.raises(Unavailable):
        holder.get("acme", laws.ONE, "not hex")
    # What a stranger's token has that ours would not write is not listed
    library = pkcs11.lib(MODULE).get_token(token_label="values")
    holder.check()
    with library.open(rw=True) as session:
        session.create_object({
            pkcs11.Attribute.CLASS: pkcs11.ObjectClass.DATA, pkcs11.Attribute.TOKEN: True,
            pkcs11.Attribute.APPLICATION: "adyton", pkcs11.Attribute.LABEL: "acme/../x", pkcs11.Attribute.VALUE: b"!",
        })  # fmt: skip
    # Without a pointer a token cannot tell which of several is newest, so the laws of order are not asked of it here.
    first = holder.put("acme", laws.ONE, b"one")
    assert holder.get("acme", laws.ONE) == b"one"
    second = holder.put("acme", laws.ONE, b"two")
    assert sorted(holder.pointers("acme", laws.ONE)) == sorted([first, second])
    assert holder.get("acme", laws.ONE, first) == b"one" and holder.get("acme", laws.ONE, second) == b"two"
    with pytest.raises(Unavailable) as several:
        holder.get("acme", laws.ONE)
    assert several.value.code == "backend_value_ambiguous"
    assert holder.get("acme2", laws.ONE, first) is None and holder.get("acme", laws.OTHER, first) is None
    assert holder.list("acme") == [laws.ONE] and holder.list("acme2") == []
    holder.delete("acme", laws.ONE)
    assert holder.list("acme") == [] and holder.get("acme", laws.ONE, second) is None
    big = os.urandom(64 * 1024)
    assert holder.get("acme", laws.ONE, holder.put("acme", laws.ONE, big)) == big
    with pytest.raises(ConfigError):
        holder.put("acme", laws.ONE, big + b"1")
    laws.secrets_from_threads(holder)
    holder.close()


def test_names_cannot_be_made_to_leave_their_tenant() -> None:
    for parts in (("..", "key", "1"), ("default", "key/2", "1"), ("default", "", "1"), ("a", "b", "c\0")):
        with pytest.raises(MalformedRequest):
            ResourcePath(*parts)


def test_symmetric_keys(hsm: Pkcs11) -> None:
    laws.symmetric(hsm)
    laws.found_by_label(hsm)
    laws.odd_requests_are_answered(hsm)
    laws.absent(hsm, "id:" + "00" * 16)
    for handle in ("no such label", "id:", "id:zz", ""):
        laws.absent(hsm, handle)


def test_signatures(hsm: Pkcs11) -> None:
    laws.signing(hsm, KeyKind.P256, (Signing.ES256,), Signing.ES384)
    laws.signing(hsm, KeyKind.P384, (Signing.ES384,), Signing.ES256)
    laws.signing(hsm, KeyKind.P521, (Signing.ES512,), Signing.RS256)
    laws.signing(hsm, KeyKind.ED25519, (Signing.EDDSA,), Signing.ES256)
    algorithms = (Signing.RS256, Signing.RS384, Signing.RS512, Signing.PS256, Signing.PS384, Signing.PS512)
    laws.signing(hsm, KeyKind.RSA_2048, algorithms, Signing.EDDSA)


def test_rsa_encryption_with_the_hash_that_the_token_knows(options: Options, hsm: Pkcs11) -> None:
    handle = hsm.generate(KeyKind.RSA_2048, "sha-256")
    with pytest.raises(ConfigError) as caught:  # SoftHSM2 knows OAEP with SHA-1 only: said, not replaced
        hsm.decrypt(handle, hsm.encrypt(handle, b"x"))
    assert caught.value.code == "not_by_this_device"
    other = Pkcs11(_changed(options, oaep_hash="sha-1"))
    laws.rsa_oaep(other)
    other.close()
    with pytest.raises(ConfigError):
        Pkcs11(_changed(options, oaep_hash="md5"))


def test_keys_never_leave(hsm: Pkcs11, options: Options) -> None:
    handles = [hsm.generate(kind, "kept") for kind in (KeyKind.AES_256, KeyKind.P256)]
    hsm.import_key(KeyKind.AES_256, "imported", bytes(32))
    with pkcs11.lib(MODULE).get_token(token_label=options.token).open() as session:
        for handle in handles:
            for found in session.get_objects({pkcs11.Attribute.ID: bytes.fromhex(handle[3:])}):
                if found[pkcs11.Attribute.CLASS] == pkcs11.ObjectClass.PUBLIC_KEY:
                    continue
                assert found[pkcs11.Attribute.SENSITIVE] and not found[pkcs11.Attribute.EXTRACTABLE]
                with pytest.raises(pkcs11.AttributeSensitive):
                    found[pkcs11.Attribute.VALUE]


def test_import(hsm: Pkcs11) -> None:
    def der(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
        return key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    curve = ec.generate_private_key(ec.SECP256R1())
    for kind, material in (
        (KeyKind.AES_256, bytes(31)),
        (KeyKind.P256, b"junk"),
        (KeyKind.P384, der(curve)),
        (KeyKind.RSA_2048, der(curve)),
    ):
        with pytest.raises(ConfigError) as caught:
            hsm.import_key(kind, "x", material)
        assert caught.value.code == "key_material_invalid"
    with pytest.raises(ConfigError) as caught:
        hsm.import_key(KeyKind.ED25519, "x", der(ed25519.Ed25519PrivateKey.generate()))
    assert caught.value.code == "not_by_this_device"
    handle = hsm.import_key(KeyKind.P256, "x", der(curve))
    spki = curve.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert hsm.public(handle) == spki
    laws.verify(spki, Signing.ES256, hsm.sign(handle, Signing.ES256, b"m"), b"m")
    handle = hsm.import_key(KeyKind.RSA_2048, "x", der(rsa.generate_private_key(65537, 2048)))
    laws.verify(hsm.public(handle), Signing.PS256, hsm.sign(handle, Signing.PS256, b"m"), b"m")
    handle = hsm.import_key(KeyKind.AES_256, "x", bytes(range(32)))
    assert hsm.decrypt(handle, hsm.encrypt(handle, b"v", b"a"), b"a") == b"v"
    with pytest.raises(ConfigError):
        hsm.generate(KeyKind.AES_256, "a/b")


def test_a_key_made_by_an_operator_is_used_by_its_label(hsm: Pkcs11) -> None:
    handle = hsm.generate(KeyKind.AES_256, "by-label")
    assert hsm.decrypt(handle, hsm.encrypt("by-label", b"v")) == b"v"
    hsm.generate(KeyKind.AES_256, "by-label")
    with pytest.raises(ConfigError) as caught:
        hsm.encrypt("by-label", b"v")
    assert caught.value.code == "held_key_ambiguous"


def test_sessions_that_were_lost_are_opened_again(hsm: Pkcs11) -> None:
    handle = hsm.generate(KeyKind.AES_256, "lost")
    sealed = hsm.encrypt(handle, b"v")
    library = pkcs11.lib(MODULE)
    library.reinitialize()  # every session and login is gone
    assert hsm.decrypt(handle, sealed) == b"v"
    library.finalize()  # the module too
    assert hsm.decrypt(handle, sealed) == b"v"
    hsm.close()
    assert hsm.decrypt(handle, sealed) == b"v"


def test_a_token_that_is_taken_away_and_comes_back(token: Callable[[str], Options]) -> None:
    holder = Pkcs11(token("away"))
    handle = holder.generate(KeyKind.AES_256, "k")
    sealed = holder.encrypt(handle, b"v")
    place = Path(os.environ["SOFTHSM2_CONF"]).parent
    (place / "tokens").rename(place / "elsewhere")
    (place / "tokens").mkdir()
    try:
        pkcs11.lib(MODULE).reinitialize()
        with pytest.raises(Unavailable) as absent:
            holder.decrypt(handle, sealed)
        assert absent.value.code == "hsm_token_absent"
    finally:
        (place / "tokens").rmdir()
        (place / "elsewhere").rename(place / "tokens")
    assert holder.decrypt(handle, sealed) == b"v"
    holder.close()


def test_threads_take_turns_and_do_not_wait_forever(options: Options, hsm: Pkcs11) -> None:
    handle = hsm.generate(KeyKind.AES_256, "threads")
    other = Pkcs11(_changed(options, seconds=0.05))
    failed: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(20):
                assert hsm.decrypt(handle, hsm.encrypt(handle, b"v", b"a"), b"a") == b"v"
        except (AssertionError, AdytonError) as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with hsm._turn():
            held.set()
            done.wait(LONG)

    holding = threading.Thread(target=hold)
    holding.start()
    held.wait()
    with pytest.raises(Unavailable) as busy:
        other.encrypt(handle, b"v")
    assert busy.value.code == "hsm_busy"
    done.set()
    holding.join()
    assert other.decrypt(handle, hsm.encrypt(handle, b"v")) == b"v"  # a second login of one process
