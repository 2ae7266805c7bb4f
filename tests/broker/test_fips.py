"""The FIPS profile, restriction by restriction, on real brokers and real connections."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.broker import rig

from adyton.broker.running import fips
from adyton.broker.settings import Settings, check
from adyton.client.keys import Keys
from adyton.crypto import profile
from adyton.crypto.key_kinds import Kind
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import AdytonError, ConfigError
from adyton.protocol import rcar
from adyton.protocol.keys import NewKey
from adyton.protocol.resource import ResourcePath

ACCEPTING = ("--fips", "--unvalidated-module-i-accept")


@pytest.fixture(scope="module")
def restricted(tmp_path_factory: pytest.TempPathFactory, root: DevelopmentRoot) -> Iterator[rig.RunningBroker]:
    running = rig.started(tmp_path_factory.mktemp("fips") / "data", root, "--tls", *ACCEPTING)
    yield running
    running.stop()


def unvalidated() -> bool:
    return not fips.state(fips=True).validated


@pytest.mark.skipif(not unvalidated(), reason="both modules run in their FIPS mode here")
def test_modules_without_a_fips_provider_stop_the_start(tmp_path: Path, root: DevelopmentRoot) -> None:
    with pytest.raises(RuntimeError, match="fips_module"):
        rig.started(tmp_path / "data", root, "--fips")
    assert not (tmp_path / "data").exists()
    with pytest.raises(RuntimeError, match="setting_invalid"):
        rig.started(tmp_path / "other", root, "--unvalidated-module-i-accept")


def test_both_modules_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_python_in_fips_mode", "_cryptography_in_fips_mode"):
        with monkeypatch.context() as patch:
            patch.setattr(fips, "_python_in_fips_mode", lambda: True)
            patch.setattr(fips, "_cryptography_in_fips_mode", lambda: True)
            assert fips.state(fips=True).validated
            patch.setattr(fips, name, lambda: False)
            assert not fips.state(fips=True).validated
            fips.check_start.cache_clear()
            with pytest.raises(ConfigError) as caught:
                fips.check_start(fips=True, accept_unvalidated=False)
            assert caught.value.code == "fips_module"


def test_a_module_that_lacks_something(monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm

    def refused() -> None:
        raise UnsupportedAlgorithm("ed25519 is not supported")

    fips.check_start.cache_clear()
    fips.check_start(fips=True, accept_unvalidated=True)  # what is needed is there
    fips.check_start.cache_clear()
    monkeypatch.setitem(fips._NEEDED, "Ed25519", refused)
    with pytest.raises(ConfigError) as caught:
        fips.check_start(fips=True, accept_unvalidated=True)
    assert (caught.value.code, caught.value.field) == ("fips_module_lacks", "Ed25519")
    fips.check_start(fips=False, accept_unvalidated=False)
    fips.check_start.cache_clear()


def test_rsa1_5_contradicts_it() -> None:
    check(Settings(data="/nowhere", allow_rsa1_5=True))
    with pytest.raises(ConfigError) as caught:
        check(Settings(data="/nowhere", allow_rsa1_5=True, fips=True, unvalidated_module=True))
    assert caught.value.code == "fips_rsa1_5"


def test_the_usual_profile_refuses_nothing() -> None:
    usual = profile.of(fips=False)
    for kind in Kind:
        usual.check_kind(kind)
    for name in rcar.TEES:
        usual.check_tee(name)
    usual.check_rsa1_5(wanted=True)


def reached(broker: rig.RunningBroker, prepare: Any) -> tuple[str, bytes]:
    """The cipher that a connection came to use, and what it was answered."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    prepare(context)
    with (
        socket.create_connection(("127.0.0.1", broker.port), timeout=10) as plain,
        context.wrap_socket(plain) as secure,
    ):
        cipher = secure.cipher()
        assert cipher is not None
        secure.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        return cipher[0], secure.recv(100)


def test_tls_of_approved_algorithms(restricted: rig.RunningBroker) -> None:
    cipher, answer = reached(restricted, lambda _: None)
    assert "GCM" in cipher
    assert answer.startswith(b"HTTP/1.1 200")

    def older(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    cipher, answer = reached(restricted, older)
    assert cipher.startswith("ECDHE-ECDSA-AES")
    assert answer.startswith(b"HTTP/1.1 200")


def test_tls_1_2_with_chacha_or_x25519_does_not_come_to_stand(restricted: rig.RunningBroker) -> None:
    def chacha(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE+CHACHA20")

    def montgomery(context: ssl.SSLContext) -> None:
        context.set_ecdh_curve("X25519")

    for prepare in (chacha, montgomery):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            reached(restricted, prepare)


def test_tls_1_3_with_chacha_is_cut(restricted: rig.RunningBroker, broker: rig.RunningBroker) -> None:
    """Python cannot name the suites of TLS 1.3; openssl's client can."""
    said = _s_client(restricted.port)
    assert "TLS_CHACHA20_POLY1305_SHA256" in said
    assert "HTTP/1.1 200" not in said


def test_a_usual_broker_speaks_chacha(tmp_path: Path, root: DevelopmentRoot) -> None:
    running = rig.started(tmp_path / "data", root, "--tls")
    try:
        assert "HTTP/1.1 200" in _s_client(running.port)
    finally:
        running.stop()


def _s_client(port: int) -> str:
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256",
         "-tls1_3", "-groups", "P-256:X25519", "-ign_eof"],
        input=b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", capture_output=True, timeout=20,
        check=False,
    )  # fmt: skip
    return done.stdout.decode("latin-1")


@pytest.mark.parametrize("name", ["csv", "hygondcu"])
def test_evidence_under_sm2(restricted: rig.RunningBroker, broker: rig.RunningBroker, name: str) -> None:
    from adyton.client.transport import Transport

    with Transport(restricted.address()) as transport:
        reply = transport.request("POST", "/kbs/v0/auth", rcar.request_body(name))
        assert reply.status == 401
        assert "fips_evidence" in reply.detail
        assert transport.request("POST", "/kbs/v0/auth", rcar.request_body("snp")).status == 200
    with Transport(broker.address()) as transport:
        assert "fips" not in transport.request("POST", "/kbs/v0/auth", rcar.request_body(name)).detail


def test_devices_under_sm2(restricted: rig.RunningBroker, root: DevelopmentRoot) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    from adyton.client.transport import Transport

    with Transport(restricted.address()) as transport:
        reply = transport.request("POST", "/kbs/v0/auth", rcar.request_body("snp"))
        nonce = json.loads(reply.body)["nonce"]
        cookie = reply.headers["set-cookie"].partition(";")[0]
        key = ec.generate_private_key(ec.SECP256R1())
        body = rig.attest_body(nonce, rig.attester(root), rig.document(), key, '{"csv":{}}')
        reply = transport.request("POST", "/kbs/v0/attest", body, {"Cookie": cookie})
    assert reply.status == 401
    assert "fips_evidence" in reply.detail


def test_kinds_of_keys(restricted: rig.RunningBroker) -> None:
    with restricted.admin() as admin:
        for which in (Kind.P256, Kind.ED25519, Kind.AES_256):
            Keys(admin).create(ResourcePath("default", "key", which.value), NewKey(which.value))
        with pytest.raises(AdytonError) as caught:
            Keys(admin).create(ResourcePath("default", "key", "x"), NewKey(Kind.X25519.value))
    assert caught.value.code == "fips_key_kind"


def test_what_status_and_doctor_say(restricted: rig.RunningBroker) -> None:
    with restricted.admin() as admin:
        told = admin.about().cryptography
    assert told.startswith("profile fips; Python: OpenSSL")
    done = subprocess.run(
        [sys.executable, "-m", "adyton", "broker", "doctor", "--data", str(restricted.data), "--json"],
        capture_output=True, text=True, check=False, env={**os.environ, "ADYTON_HOME": str(restricted.data.parent)},
    )  # fmt: skip
    found = {one["id"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert found["fips"]["level"] == ("weak" if unvalidated() else "ok")
    assert found["fips"]["text"].startswith(told)
    assert "FIPS       profile fips" in restricted.log()


def test_passphrases(tmp_path: Path, root: DevelopmentRoot) -> None:
    words = tmp_path / "words"
    words.write_text("eight words that no attacker will ever guess here\n")
    words.chmod(0o600)
    for kdf in ("argon2id", "pbkdf2"):
        data = tmp_path / kdf
        made = subprocess.run(
            [sys.executable, "-m", "adyton", "broker", "root-key", "init", "--data", str(data), "--custody",
             "passphrase", "--kdf", kdf, "--new-passphrase-file", str(words)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
    given = ("--passphrase-file", str(words))
    with pytest.raises(RuntimeError, match="fips_custody"):
        rig.started(tmp_path / "argon2id", root, *ACCEPTING, *given)
    for arguments in ((*ACCEPTING, *given), given):
        running = rig.started(tmp_path / "pbkdf2", root, *arguments)
        assert running.stop() == 0
