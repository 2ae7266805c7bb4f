"""The broker is killed between each two steps of a handshake; the next one carries on as if nothing had been."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.broker import rig
from tests.waiting import LONG, until

from adyton.broker.door import certificate
from adyton.client.handshake import Session
from adyton.client.transport import Transport
from adyton.crypto import jwe
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import ConfigError, ReleaseRefused
from adyton.protocol import rcar
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores import rootkey
from adyton.stores.sqlite import Store

RESOURCE = "/kbs/v0/resource/default/key/1"
KEY = ResourcePath("default", "key", "1")


@pytest.fixture
def own(tmp_path: Path, root: DevelopmentRoot) -> Iterator[rig.RunningBroker]:
    running = rig.started(tmp_path / "data", root)
    running.publish()
    with running.admin() as admin:
        admin.set_resource(KEY, rig.SECRET, Binding(workloads=[str(rig.document().digest)]))
    yield running
    running.stop()


def test_killed_between_each_two_steps(own: rig.RunningBroker, root: DevelopmentRoot) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    client = rig.Raw(own.port)
    _, body, _ = client.ask("POST", "/kbs/v0/auth", rcar.request_body("snp"))
    own.kill()
    client.close()
    attest = rig.attest_body(json.loads(body)["nonce"], rig.attester(root), rig.document(), key)
    status, body, _ = client.ask("POST", "/kbs/v0/attest", attest)
    assert status == 200, body
    token = rcar.parse_token(body)
    own.kill()
    client.close()
    status, body, _ = client.ask("GET", RESOURCE)
    assert status == 200
    assert jwe.decrypt(key, body) == rig.SECRET
    own.kill()
    client.close()
    status, body, _ = client.ask("GET", RESOURCE, headers={"Cookie": "", "Authorization": f"Bearer {token}"})
    assert jwe.decrypt(key, body) == rig.SECRET
    client.close()
    with own.admin() as admin:
        rows = [entry["row"]["action"] for entry in admin.audit() if entry["row"]["action"] in {"attest", "release"}]
        assert rows == ["attest", "release", "release"]  # nothing acknowledged is lost
        assert admin.audit_head().sequence == len(admin.audit())


def test_killed_in_the_middle_of_many(own: rig.RunningBroker, root: DevelopmentRoot) -> None:
    released = 0
    client = own.session(rig.attester(root))
    for _ in range(5):
        assert client.resource(KEY) == rig.SECRET
        released += 1
    own.kill()
    assert client.resource(KEY) == rig.SECRET
    client.close()
    with own.admin() as admin:
        rows = [entry["row"]["action"] for entry in admin.audit(limit=1000)]
    assert rows.count("release") == released + 1


def test_a_second_broker_on_the_same_data_is_refused(own: rig.RunningBroker) -> None:
    command = [sys.executable, "-m", "adyton", "broker", "serve", "--data", str(own.data), "--listen", "127.0.0.1:0"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=LONG)
    assert second.returncode == 1
    assert "broker_running" in second.stderr
    with own.admin() as admin:
        assert admin.about().tenant == "default"


def test_graceful_stop_leaves_nothing(own: rig.RunningBroker) -> None:
    assert (own.data / "broker.json").exists()
    assert own.stop(signal.SIGINT) == 0
    assert not (own.data / "broker.json").exists()


def test_files_are_the_owners_alone(own: rig.RunningBroker) -> None:
    for name in ("root.key", "admin.token", "broker.sqlite"):
        assert (own.data / name).stat().st_mode & 0o077 == 0, name
    assert own.data.stat().st_mode & 0o077 == 0
    everything = b"".join(path.read_bytes() for path in own.data.rglob("*") if path.is_file())
    assert rig.SECRET not in everything
    arguments = Path(f"/proc/{own.process.pid}/cmdline").read_bytes() if own.process else b""
    assert (own.data / "admin.token").read_text().strip().encode() not in arguments


@pytest.mark.slow
def test_several_workers_serve_one_session(tmp_path: Path, root: DevelopmentRoot) -> None:
    running = rig.started(tmp_path / "data", root, "--workers", "2")
    try:
        running.publish()
        with running.admin() as admin:
            admin.set_resource(KEY, rig.SECRET, Binding(workloads=[str(rig.document().digest)]))
        key = ec.generate_private_key(ec.SECP256R1())
        jar: dict[str, tuple[str, str]] = {}
        for _ in range(10):  # every step on a connection of its own, so that both workers get some
            client = rig.Raw(running.port)
            client.jar = jar
            _, body, _ = client.ask("POST", "/kbs/v0/auth", rcar.request_body("snp"))
            client.close()
            attest = rig.attest_body(json.loads(body)["nonce"], rig.attester(root), rig.document(), key)
            assert client.ask("POST", "/kbs/v0/attest", attest)[0] == 200
            client.close()
            status, body, _ = client.ask("GET", RESOURCE)
            assert status == 200
            assert jwe.decrypt(key, body) == rig.SECRET
            client.close()
        # one worker dies: another takes its place
        assert running.process is not None
        children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        time.sleep(1.5)
        with running.session(rig.attester(root)) as session:
            assert session.resource(KEY) == rig.SECRET
    finally:
        assert running.stop() == 0
    assert not [child for child in children if Path(f"/proc/{child}/cmdline").exists()]


@pytest.mark.slow
def test_acknowledged_means_decided_by_every_worker(tmp_path: Path, root: DevelopmentRoot) -> None:
    running = rig.started(tmp_path / "data", root, "--workers", "2")

    def ask(token: str) -> set[int]:
        """What a token gets on connections of their own, so that both workers are asked."""
        found = set()
        for _ in range(8):
            with rig.raw(running) as client:
                found.add(client.ask("GET", RESOURCE, headers={"Authorization": f"Bearer {token}"})[0])
        return found

    def attest() -> str:
        with rig.raw(running) as client:
            return client.handshake(rig.attester(root), rig.document())[0]

    try:
        running.publish()
        mine = Binding(workloads=[str(rig.document().digest)])
        with running.admin() as admin:
            admin.set_resource(KEY, rig.SECRET, mine)
            token = attest()
            for _ in range(5):
                assert ask(token) == {200}
                admin.bind_resource(KEY, Binding())
                assert ask(token) == {403}
                admin.bind_resource(KEY, mine)
            admin.delete_resource(KEY)
            assert ask(token) == {404}
            admin.set_resource(KEY, rig.SECRET, mine)
            for change in (
                lambda: admin.set_reference("snp_launch_measurement", ["00" * 48]),
                lambda: admin.set_policy("resource", "resource-policy", "package policy\ndefault allow := false\n"),
                lambda: admin.delete_policy("resource", "resource-policy"),
                lambda: admin.set_policy("requirements", "snp", '{"vmpls": [1]}'),
            ):
                token = attest()
                change()
                assert ask(token) == {401}
    finally:
        assert running.stop() == 0


def _has_child(process: int) -> bool:
    return any(task.read_text() for task in Path(f"/proc/{process}/task").glob("*/children"))


def test_more_at_once_than_a_worker_takes_on_is_429(tmp_path: Path) -> None:
    """The first request starts the policy engine, so it is under way while the second comes."""
    program = """
import sys
from adyton.broker.policy import rego
from adyton.broker.running import server
from adyton.broker.settings import Settings
rego._START = "import time; time.sleep(3); " + rego._START
settings = Settings(data=sys.argv[1], port=0, max_in_flight=1)
server.serve(server.prepare(settings, tls=False), lambda listening: print("ready", flush=True))
"""
    data = tmp_path / "data"
    with subprocess.Popen([sys.executable, "-c", program, str(data)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            port = int(json.loads((data / "broker.json").read_text())["url"].rpartition(":")[2])
            headers = {"Authorization": "Bearer " + (data / "admin.token").read_text().strip()}
            body = json.dumps({"text": "package policy\ndefault allow := false\n"})
            busy, other = rig.Raw(port), rig.Raw(port)
            with contextlib.closing(busy), contextlib.closing(other):
                busy.connection.request("PUT", "/api/v0/policies/resource/resource-policy", body, headers)
                until(lambda: _has_child(process.pid), what="the policy engine does not start")
                status, said, answered = other.ask("GET", "/api/v0/about", headers=headers)
                assert (status, answered["retry-after"]) == (429, "1")
                assert set(json.loads(said)) == {"type", "detail"}
                assert other.ask("GET", "/healthz")[0] == 200
                accepted = busy.connection.getresponse()
                assert (accepted.status, bool(accepted.read())) == (200, True)
                assert other.ask("GET", "/api/v0/about", headers=headers)[0] == 200
        finally:
            process.terminate()
            assert process.wait(LONG) == 0


@pytest.mark.parametrize("umask", ["000", "777"])
def test_files_are_the_owners_alone_whatever_the_umask(tmp_path: Path, umask: str) -> None:
    data = tmp_path / "above" / "data"
    serve = [sys.executable, "-m", "adyton", "broker", "serve", "--data", str(data), "--listen", "127.0.0.1:0", "--tls"]
    log = tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen(["sh", "-c", f'umask {umask}; exec "$@"', "sh", *serve], stdout=out, stderr=out)
    try:
        until(lambda: "JWK set" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        made = [tmp_path / "above", data, *data.rglob("*")]
        assert {"broker.json", "root.key", "admin.token", "private-key.pem", "broker.sqlite"} <= {p.name for p in made}
        for path in made:
            assert path.stat().st_mode & 0o077 == 0, path
            assert path.stat().st_mode & 0o600 == 0o600, path
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert next(line for line in limits.splitlines() if "core file" in line).split()[4:6] == ["0", "0"]
    finally:
        process.terminate()
        assert process.wait(LONG) == 0


def test_a_broker_process_cannot_be_dumped() -> None:
    program = "import ctypes; from adyton.broker.running.process import harden; harden(10); print(ctypes.CDLL(None).prctl(3,0,0,0,0))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LONG).stdout == "0\n"


@pytest.mark.parametrize(
    ("name", "mode", "code"),
    [
        (".", 0o777, "data_exposed"),
        ("admin.token", 0o644, "admin_token_exposed"),
        ("root.key", 0o640, "root_key_exposed"),
    ],
)
def test_what_others_could_reach_stops_the_start(own: rig.RunningBroker, name: str, mode: int, code: str) -> None:
    own.stop()
    (own.data / name).chmod(mode)
    assert code in refused_start(own.data.parent, "--listen", "127.0.0.1:0")


def test_a_lost_root_key_is_not_made_anew(own: rig.RunningBroker) -> None:
    own.stop()
    (own.data / "root.key").rename(own.data / "elsewhere")
    assert "root_key_missing" in refused_start(own.data.parent, "--listen", "127.0.0.1:0")
    assert not (own.data / "root.key").exists()


# ---------------------------------------------------------------- how it is started


def test_tls_by_pin(tmp_path: Path, root: DevelopmentRoot) -> None:
    running = rig.started(tmp_path / "data", root, "--tls")
    try:
        assert running.description["url"].startswith("https://")
        running.publish()
        with running.admin() as admin:
            admin.set_resource(KEY, rig.SECRET, Binding(workloads=[str(rig.document().digest)]))
        with running.session(rig.attester(root)) as session:
            assert session.resource(KEY) == rig.SECRET
        address = running.address()
        for pin in ("sha256:" + "0" * 64, None):
            wrong = type(address)(address.url, pin=pin)
            with Transport(wrong) as transport, pytest.raises(ConfigError) as refused:
                transport.request("GET", "/healthz")
            assert refused.value.code == ("broker_pin_mismatch" if pin else "broker_certificate")
        trusted = type(address)(address.url, ca_pem=Path(running.description["certificate"]).read_text())
        with Transport(trusted) as transport:
            assert transport.request("GET", "/healthz").status == 200
        pin = running.description["pin"]
    finally:
        running.stop()
    running.start()  # the certificate, and so the pin, survives
    assert running.description["pin"] == pin
    running.stop()


def test_the_certificate_follows_its_names_and_the_pin_stays(tmp_path: Path) -> None:
    now = datetime.fromtimestamp(time.time(), UTC)

    def names() -> set[str]:
        extension = x509.load_pem_x509_certificate(file.read_bytes()).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        return {str(name.value) for name in extension.value}

    file, key = certificate.make(tmp_path, ["localhost", "127.0.0.1"], now)
    pin, written = certificate.pin(file), file.read_bytes()
    certificate.make(tmp_path, ["127.0.0.1"], now)
    assert file.read_bytes() == written
    certificate.make(tmp_path, ["broker.example", "2001:db8::1"], now)
    assert names() == {"localhost", "127.0.0.1", "broker.example", "2001:db8::1"}
    assert certificate.pin(file) == pin
    certificate.make(tmp_path, ["localhost"], now + timedelta(days=3640))  # it would end soon
    assert file.read_bytes() != written and certificate.pin(file) == pin
    file.write_bytes(written[:100])  # as a full disk may leave it
    certificate.make(tmp_path, ["localhost"], now)
    assert names() == {"localhost"} and certificate.pin(file) == pin
    key.write_bytes(b"rubbish")
    with pytest.raises(ConfigError) as refused:
        certificate.make(tmp_path, ["localhost"], now)
    assert refused.value.code == "certificate_unreadable"
    for wrong in ("not ascii: é", "a b", "", "a..b", "x" * 64):
        with pytest.raises(ConfigError):
            certificate.make(tmp_path / "other", [wrong], now)


def test_old_tls_and_slow_handshakes(tmp_path: Path) -> None:
    running = rig.started(tmp_path / "data", None, "--tls")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this is old is the point
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("127.0.0.1", running.port)) as plain, pytest.raises(OSError):
            context.wrap_socket(plain)
    finally:
        running.stop()


def test_a_key_with_a_passphrase_is_not_asked_for(tmp_path: Path) -> None:
    file, key = certificate.make(tmp_path, ["localhost"], datetime.fromtimestamp(time.time(), UTC))
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"hush")
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key.write_bytes(private.private_bytes(pem, form, locked))
    said = refused_start(tmp_path, "--certificate", str(file), "--private-key", str(key), "--listen", "127.0.0.1:0")
    assert "certificate_unusable" in said and "passphrase" in said
    assert "setting_invalid" in refused_start(tmp_path, "--private-key", str(key), "--tls")


def refused_start(tmp_path: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "adyton", "broker", "serve", "--data", str(tmp_path / "data"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    assert result.returncode in {1, 3}
    return result.stderr


def test_development_roots_only_where_they_may_be(tmp_path: Path) -> None:
    trust = ("--trust-dev-root", "ab" * 32)
    for environment in ((), ("--environment", "production"), ("--environment", "pre-production")):
        assert "development_root_refused" in refused_start(tmp_path, *trust, *environment)
    assert "setting_invalid" in refused_start(tmp_path, "--trust-dev-root", "xyz", "--environment", "test")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--listen", "nowhere"), "setting_invalid"),
        (("--listen", "127.0.0.1:99999"), "setting_invalid"),
        (("--listen", "203.0.113.7:1"), "listen_failed"),
        (("--workers", "0"), "setting_invalid"),
        (("--endorsements", "/nonexistent"), "does not exist"),
    ],
)
def test_wrong_settings_stop_the_start(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused_start(tmp_path, *arguments)


def test_a_policy_that_no_longer_compiles_stops_the_start(tmp_path: Path, root: DevelopmentRoot) -> None:
    directory = tmp_path / "data"
    running = rig.started(directory, root)
    running.publish()
    running.publish("broken")
    running.stop()
    key, _ = rootkey.load_or_create(directory / "root.key")
    now = datetime.fromtimestamp(time.time(), UTC)
    store = Store.open(directory, root_key=key, now=now)  # as an older version, with another allow-list, left it
    store.policies.set("broken", "attestation", "default_cpu", "package policy\nx := opa.runtime()", now)
    store.close()
    said = refused_start(tmp_path, "--listen", "127.0.0.1:0")
    assert "policy_stored_invalid" in said
    assert "attestation policy default_cpu of tenant broken" in said
    assert "--keep-broken-policies" in said
    running.arguments = (*running.arguments, "--keep-broken-policies")
    running.start()
    try:
        assert "tenant broken" in running.log()
        with running.session(rig.attester(root)) as session:
            assert session.token()
        with running.session(rig.attester(root), tenant="broken") as session, pytest.raises(ReleaseRefused):
            session.token()
        with running.admin("broken") as admin:
            admin.delete_policy("attestation", "default_cpu")
        with running.session(rig.attester(root), tenant="broken") as session:
            assert session.token()
    finally:
        running.stop()


def test_an_engine_that_cannot_run_stops_the_start(tmp_path: Path) -> None:
    program = """
import sys
from adyton.broker.policy import rego
rego._START = rego._START.replace("from adyton", "sys.modules['regopy'] = None; from adyton", 1)
from adyton.cli import main
main(sys.argv[1:])
"""
    command = ["broker", "serve", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0"]
    result = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True, timeout=LONG)
    assert result.returncode == 1
    assert "policy_engine_unfit" in result.stderr and "hint" in result.stderr


def test_endorsements_are_read_again(tmp_path: Path, root: DevelopmentRoot) -> None:
    place = tmp_path / "endorsements"
    place.mkdir()
    trust = ("--environment", "test", "--trust-dev-root", root.fingerprint, "--endorsements", str(place))
    running = rig.started(tmp_path / "data", None, *trust)

    def attested() -> int:
        with Session(running.address(), rig.attester(root), rig.document().raw) as session:
            try:
                return session.token().count(".")
            except ReleaseRefused:
                return 0

    try:
        with running.session(rig.attester(root)) as session, pytest.raises(ReleaseRefused) as refused:
            session.token()
        assert "revocation_unknown" in str(refused.value)
        for file in root.endorsements.iterdir():
            (place / file.name).write_bytes(file.read_bytes())
        assert running.process is not None
        running.process.send_signal(signal.SIGHUP)
        until(lambda: attested() == 2)
        (place / "crl.der").write_bytes(b"rubbish")
        running.process.send_signal(signal.SIGHUP)
        until(lambda: "not reloaded" in running.log())
        assert attested() == 2  # what cannot be read never replaces what could
    finally:
        running.stop()
