"""Vault's HTTP interface, against a server that behaves as its documentation says. Refusals first."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.stores.backends import laws
from tests.stores.backends.certificates import Authority
from tests.stores.backends.vault_server import EVERYTHING, STEWARD, Token, VaultServer

from adyton.errors import AdytonError, ConfigError, Unavailable
from adyton.stores.backends.options import VaultOptions as Options
from adyton.stores.backends.port import KeyKind, Signing
from adyton.stores.backends.vault import Vault


@pytest.fixture
def server() -> Iterator[VaultServer]:
    with VaultServer() as running:
        yield running


@pytest.fixture
def credential(tmp_path: Path) -> Callable[[str, str], str]:
    def write(name: str, content: str) -> str:
        path = tmp_path / name
        path.write_text(content + "\n")
        path.chmod(0o600)
        return str(path)

    return write


@pytest.fixture
def vault(server: VaultServer, credential: Callable[[str, str], str]) -> Iterator[Vault]:
    holder = Vault(Options(url=server.url, token_file=credential("token", "steward"), seconds=20.0))
    yield holder
    holder.close()


def _code(call: Callable[[], object]) -> str:
    with pytest.raises(AdytonError) as caught:
        call()
    text = str(caught.value.as_dict())
    assert "hvs." not in text and "steward" not in text and "secret-id" not in text
    return caught.value.code


def test_options_that_cannot_be_right(server: VaultServer, credential: Callable[[str, str], str]) -> None:
    token = credential("token", "steward")
    for options in (
        Options(url="ftp://vault", token_file=token),
        Options(url="https://", token_file=token),
        Options(url="https://user:word@vault", token_file=token),
        Options(url=server.url),
        Options(url=server.url, role_id_file=token),
        Options(url=server.url, token_file=token, role_id_file=token, secret_id_file=token),
    ):
        assert _code(lambda given=options: Vault(given)) == "backend_option_invalid"  # type: ignore[misc]
    assert _code(lambda: Vault(Options(url="http://vault.example:8200", token_file=token))) == "backend_plain_http"
    Path(token).chmod(0o644)
    assert _code(Vault(Options(url=server.url, token_file=token)).check) == "backend_credential_exposed"


def test_a_server_that_is_down_sealed_slow_or_says_nonsense(
    server: VaultServer, vault: Vault, credential: Callable[[str, str], str]
) -> None:
    handle = vault.generate(KeyKind.AES_256, "k")
    first = vault.put("acme", laws.ONE, b"v")

    def ask() -> object:
        return vault.get("acme", laws.ONE, first)

    server.sealed = True
    assert _code(ask) == "vault_sealed" and _code(vault.check) == "vault_sealed"
    server.sealed = False
    body = b'{"data":{"data":{"adyton":"dg=="'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
    for raw, code in (
        (head + b"400\r\n\r\n" + body, "backend_answer_malformed"),  # cut in the middle
        (head + b"%d\r\n\r\n" % len(body) + body, "backend_answer_malformed"),
        (head + b"4\r\n\r\nnull", "backend_answer_malformed"),
        (head + b'11\r\n\r\n{"data":[]}', "backend_answer_malformed"),
        (head + b'28\r\n\r\n{"data":{"data":"text"}}    ', "backend_answer_malformed"),
        (b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "backend_answer_malformed"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", "backend_failed"),
        (b"HTTP/1.1 429 Oh\r\nContent-Length: 0\r\n\r\n", "backend_failed"),
        (b"\r\n\r\n", "backend_unreachable"),
    ):  # fmt: skip
        server.before = lambda *_, answer=raw: answer
        assert _code(ask) == code, raw
        assert _code(lambda: vault.encrypt(handle, b"x")) in {code, "not_by_this_device"}, raw
    hasty = Vault(Options(url=server.url, token_file=credential("token", "steward"), seconds=0.5))
    server.before = lambda *_: time.sleep(0.8)
    assert _code(lambda: hasty.get("acme", laws.ONE, first)) == "backend_slow"
    server.before = lambda *_: None
    hasty.close()
    assert vault.get("acme", laws.ONE, first) == b"v"
    server.__exit__()
    vault.close()
    assert _code(ask) == "backend_unreachable"


def test_tls_of_a_stranger_is_refused(tmp_path: Path, credential: Callable[[str, str], str]) -> None:
    ours, strangers = Authority(tmp_path, "ours"), Authority(tmp_path, "strangers")
    token = credential("token", "steward")
    with VaultServer(tls=strangers.issue("vault")) as server:
        assert (
            _code(Vault(Options(url=server.url, token_file=token, ca_file=ours.ca)).check)
            == "backend_certificate_refused"
        )
        assert _code(Vault(Options(url=server.url, token_file=token)).check) == "backend_certificate_refused"
        assert server.requests == []  # the token never left
        missing = Options(url=server.url, token_file=token, ca_file=str(tmp_path / "none"))
        assert _code(Vault(missing).check) == "backend_file_unreadable"
        assert Vault(Options(url=server.url, token_file=token, ca_file=strangers.ca)).check() == "Vault 1.20.0"


def test_a_policy_forbids_and_names_the_path(server: VaultServer, credential: Callable[[str, str], str]) -> None:
    server.tokens["narrow"] = Token({"secret/data/adyton/acme/": {"read", "update"}, **STEWARD})
    vault = Vault(Options(url=server.url, token_file=credential("narrow", "narrow")))
    vault.put("acme", laws.ONE, b"v")
    with pytest.raises(ConfigError) as caught:
        vault.put("acme2", laws.ONE, b"v")
    assert caught.value.code == "backend_forbidden" and "acme2" in str(caught.value.got)
    assert _code(lambda: vault.list("acme")) == "backend_forbidden"
    assert _code(lambda: vault.generate(KeyKind.AES_256, "k")) == "backend_forbidden"


def test_mounts_that_are_not_there_and_namespaces(server: VaultServer, credential: Callable[[str, str], str]) -> None:
    token = credential("token", "steward")
    vault = Vault(Options(url=server.url, token_file=token, kv_mount="kv", transit_mount="engine"))
    assert _code(lambda: vault.put("acme", laws.ONE, b"v")) == "backend_mount_absent"
    assert _code(lambda: vault.generate(KeyKind.AES_256, "k")) == "backend_mount_absent"
    with VaultServer(namespace="team") as other:
        assert _code(Vault(Options(url=other.url, token_file=token)).check) == "backend_forbidden"
        inside = Vault(Options(url=other.url, token_file=token, namespace="team"))
        inside.put("acme", laws.ONE, b"v")
        assert inside.get("acme", laws.ONE) == b"v"


def test_values_and_their_laws(server: VaultServer, vault: Vault) -> None:
    laws.secrets(vault)
    laws.secrets_from_threads(vault)
    assert all(".." not in path for path in server.secrets)


def test_a_pointer_does_not_lead_to_what_was_written_after_a_destruction(server: VaultServer, vault: Vault) -> None:
    pointer = vault.put("acme", laws.ONE, b"old")
    vault.delete("acme", laws.ONE)
    vault.put("acme", laws.ONE, b"new")  # version 1 again
    assert vault.get("acme", laws.ONE, pointer) is None
    vault.delete("acme", laws.ONE, pointer)
    assert vault.get("acme", laws.ONE) == b"new"
    for bad in ("x", "1", "@", "1@", "..@x", "1/../2@y"):
        assert _code(lambda given=bad: vault.get("acme", laws.ONE, given)) == "backend_pointer_invalid"  # type: ignore[misc]


def test_softly_deleted_versions_are_absent(server: VaultServer, vault: Vault) -> None:
    pointer = vault.put("acme", laws.ONE, b"v")
    server.answer("DELETE", "/v1/secret/data/adyton/acme/default/key/1", {"X-Vault-Token": "steward"}, b"")
    assert vault.get("acme", laws.ONE) is None and vault.get("acme", laws.ONE, pointer) is None


def test_values_that_others_wrote(server: VaultServer, vault: Vault) -> None:
    def write(body: bytes) -> None:
        path = "/v1/secret/data/adyton/acme/default/key/1"
        assert server.answer("POST", path, {"X-Vault-Token": "steward"}, body)[0] == 200

    write(b'{"data": {"value": "s3cr\\u00e9t", "other": 1}}')
    assert vault.get("acme", laws.ONE) == "s3crét".encode()
    for body in (b'{"data": {"value": 7}}', b'{"data": {}}', b'{"data": {"adyton": "not base64!"}}'):
        write(body)
        assert _code(lambda: vault.get("acme", laws.ONE)) in {"backend_value_malformed", "backend_answer_malformed"}


def test_symmetric_keys(server: VaultServer, vault: Vault) -> None:
    laws.symmetric(vault)
    laws.odd_requests_are_answered(vault)
    for handle in ("nobody", "", "../x", "a/b", "a..b"):
        laws.absent(vault, handle)
    assert "nobody" not in server.keys  # which Vault would have made, asked to encrypt


def test_an_answer_without_end_is_not_read_to_its_end(server: VaultServer, vault: Vault) -> None:
    first = vault.put("acme", laws.ONE, b"v")
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    server.before = lambda *_: head % (1 << 40) + bytes(5 * 1024 * 1024)
    began = time.monotonic()
    assert _code(lambda: vault.get("acme", laws.ONE, first)) == "backend_answer_too_large"
    assert time.monotonic() - began < 10
    server.before = lambda *_: None
    assert vault.get("acme", laws.ONE, first) == b"v"


def test_what_vault_refuses_is_an_answer_and_its_words_stay_with_it(server: VaultServer, vault: Vault) -> None:
    handle = vault.generate(KeyKind.RSA_2048, "k")
    facts = vault.public(handle)
    said = b'{"errors": ["what was sent: hvs.hunter2"]}'
    answer = b"HTTP/1.1 400 X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said)
    server.before = lambda method, *_: answer if method != "GET" else None
    for call in (
        lambda: vault.encrypt(handle, b"x"),
        lambda: vault.sign(handle, Signing.PS256, b"x"),
        lambda: vault.generate(KeyKind.AES_256, "other"),
        lambda: vault.destroy(handle),
    ):
        assert _code(call) == "backend_refused"
    server.before = lambda *_: answer
    assert _code(lambda: vault.public(handle)) == "backend_refused"
    server.before = lambda *_: None
    assert vault.public(handle) == facts


def test_signatures(vault: Vault) -> None:
    laws.signing(vault, KeyKind.P256, (Signing.ES256,), Signing.ES384)
    laws.signing(vault, KeyKind.P384, (Signing.ES384,), Signing.EDDSA)
    laws.signing(vault, KeyKind.P521, (Signing.ES512,), Signing.RS512)
    laws.signing(vault, KeyKind.ED25519, (Signing.EDDSA,), Signing.ES256)
    algorithms = (Signing.RS256, Signing.RS384, Signing.RS512, Signing.PS256, Signing.PS384, Signing.PS512)
    laws.signing(vault, KeyKind.RSA_2048, algorithms, Signing.ES256)


def test_rsa_encryption(vault: Vault) -> None:
    laws.rsa_oaep(vault)


def test_a_key_that_an_operator_rotates_opens_what_it_sealed(server: VaultServer, vault: Vault) -> None:
    handle = vault.generate(KeyKind.AES_256, "root")
    sealed = vault.encrypt(handle, bytes(32), b"a")
    server.answer("POST", f"/v1/transit/keys/{handle}/rotate", {"X-Vault-Token": "steward"}, b"{}")
    newer = vault.encrypt(handle, bytes(32), b"a")
    assert newer.startswith(b"vault:v2:") and sealed.startswith(b"vault:v1:")
    assert vault.decrypt(handle, sealed, b"a") == vault.decrypt(handle, newer, b"a") == bytes(32)
    assert _code(lambda: vault.decrypt(handle, sealed.replace(b"v1", b"v2"), b"a")) == "ciphertext_refused"
    assert _code(lambda: vault.decrypt(handle, sealed.replace(b"v1", b"v9"), b"a")) == "ciphertext_refused"


def test_import(vault: Vault) -> None:
    handle = vault.import_key(KeyKind.AES_256, "k", bytes(range(32)))
    assert vault.decrypt(handle, vault.encrypt(handle, b"v", b"a"), b"a") == b"v"
    key = ec.generate_private_key(ec.SECP256R1())
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    handle = vault.import_key(KeyKind.P256, "k", der)
    laws.verify(vault.public(handle), Signing.ES256, vault.sign(handle, Signing.ES256, b"m"), b"m")
    for kind, material in ((KeyKind.AES_256, bytes(31)), (KeyKind.P256, os.urandom(40)), (KeyKind.RSA_2048, der)):
        assert _code(lambda k=kind, m=material: vault.import_key(k, "k", m)) == "key_material_invalid"  # type: ignore[misc]


def test_a_role_logs_in_renews_and_logs_in_again(server: VaultServer, credential: Callable[[str, str], str]) -> None:
    server.roles["role"] = ("secret-id", EVERYTHING, 60.0)
    by_role = Options(
        url=server.url, role_id_file=credential("role", "role"), secret_id_file=credential("secret", "secret-id")
    )
    wrong = Options(url=server.url, role_id_file=by_role.role_id_file, secret_id_file=by_role.role_id_file)
    assert _code(Vault(wrong).check) == "backend_login_refused"
    vault = Vault(by_role)
    pointer = vault.put("acme", laws.ONE, b"v")
    assert server.logins == 1 and server.renewals == 0
    vault._link._renew_at = 0.0  # half of its life is over
    assert vault.get("acme", laws.ONE, pointer) == b"v" and server.renewals == 1 and server.logins == 1
    server.tokens.clear()  # revoked behind our back
    assert vault.get("acme", laws.ONE, pointer) == b"v" and server.logins == 2
    server.tokens.clear()
    vault._link._renew_at = 0.0  # renewal fails
    assert vault.get("acme", laws.ONE, pointer) == b"v" and server.logins == 3
    server.tokens.clear()
    server.roles.clear()
    assert _code(lambda: vault.get("acme", laws.ONE, pointer)) == "backend_login_refused"


def test_a_token_file_that_an_agent_replaces(server: VaultServer, credential: Callable[[str, str], str]) -> None:
    server.tokens["first"] = Token(EVERYTHING, time.monotonic() + 60, 60.0, renewable=True)
    vault = Vault(Options(url=server.url, token_file=credential("token", "first")))
    pointer = vault.put("acme", laws.ONE, b"v")
    vault._link._renew_at = 0.0
    assert vault.get("acme", laws.ONE, pointer) == b"v" and server.renewals == 1
    del server.tokens["first"]
    assert _code(lambda: vault.get("acme", laws.ONE, pointer)) == "backend_forbidden"
    server.tokens["second"] = Token(EVERYTHING)
    credential("token", "second")
    assert vault.get("acme", laws.ONE, pointer) == b"v"


def test_the_environment_is_not_asked(
    server: VaultServer, credential: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "steward")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    vault = Vault(Options(url=server.url, token_file=credential("token", "unknown")))
    assert _code(lambda: vault.put("acme", laws.ONE, b"v")) == "backend_forbidden"
    with pytest.raises(Unavailable):
        vault.get("acme", laws.ONE, "nonsense")


def test_keys_are_found_by_their_label(vault: Vault) -> None:
    laws.found_by_label(vault)
