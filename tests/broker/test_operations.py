"""Running a broker: what it tells, to whom; new certificates and settings while it serves; ends that lose nothing."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.broker import rig
from tests.waiting import LONG, until

from adyton.broker.running import logs, reports
from adyton.broker.running.metrics import MAX_CODES, Metrics, Snapshot, together
from adyton.broker.settings import Settings, check, merged
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import ConfigError
from adyton.protocol import rcar
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath

KEY = ResourcePath("default", "key", "1")
RESOURCE = "/kbs/v0/resource/default/key/1"
MARKER = "never-to-be-seen-in-any-log"


def fetch(url: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=LONG)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


# metrics


def test_labels_are_bounded_whatever_comes() -> None:
    metrics = Metrics(tenants=2)
    metrics.know([f"t{number:04}" for number in range(500)])
    for number in range(5000):
        metrics.request("attest", f"t{number % 500:04}", 401, f"code_{number}", 0.001)
        metrics.request("attest", f"stranger-{number}", 200, "", 0.001)
    told = metrics.snapshot({}, {}, {})
    assert len(told.requests) <= MAX_CODES + 2 and sum(told.requests.values()) == 10_000
    assert set(told.tenants) == {f"{name}|{result}" for name in ("t0000", "t0001") for result in ("refused",)} | {
        "other|refused", "other|allowed",
    }  # fmt: skip
    assert not Metrics().snapshot({}, {}, {}).tenants


def test_snapshots_add_up_and_the_past_stays(tmp_path: Path) -> None:
    directory = reports.fresh(tmp_path)
    assert directory.stat().st_mode & 0o777 == 0o700
    for process in (11, 12):
        metrics = Metrics()
        metrics.request("auth", "default", 200, "", 0.002)
        report = reports.Report(directory, process)
        report.write(
            metrics.snapshot({"connections": 3}, {"connections_open": 2}, {"endorsement|crl": 100.0 + process})
        )
        report.close()
    whole = together(reports.read(directory))
    assert whole.requests == {"auth|allowed|": 2} and whole.counters == {"connections": 6}
    assert whole.now == {"connections_open": 4} and whole.moments == {"endorsement|crl": 111.0}
    assert sum(whole.seconds["auth"].counts) == 2
    reports.fold(directory, 11)
    reports.fold(directory, 11)
    left = together(reports.read(directory))
    assert left.requests == {"auth|allowed|": 2} and left.now == {"connections_open": 2}
    assert together(reports.read(directory, but=12)).counters == {"connections": 3}
    (directory / "13.metrics").write_bytes(b"\0" * 40)
    (directory / "14.metrics").write_bytes(b"x")
    assert together(reports.read(directory)).requests == left.requests
    reports.Report(directory, 15).write(Snapshot(requests={"x" * 300_000: 1}))  # too large: left out
    assert together(reports.read(directory)).requests == left.requests
    assert reports.fresh(tmp_path).exists() and not reports.read(directory)


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory, root: DevelopmentRoot) -> Iterator[rig.RunningBroker]:
    running = rig.started(
        tmp_path_factory.mktemp("observed") / "data", root, "--workers", "2", "--metrics", "127.0.0.1:0",
        "--admin-listen", "127.0.0.1:0", "--metrics-tenants", "1",
    )  # fmt: skip
    running.publish()
    with running.admin() as admin:
        admin.set_resource(KEY, rig.SECRET, Binding(workloads=[str(rig.document().digest)]))
    yield running
    assert running.stop() == 0


def public(broker: rig.RunningBroker) -> rig.Raw:
    return rig.Raw(int(broker.description["public_url"].rpartition(":")[2]))


def test_metrics_of_all_workers(observed: rig.RunningBroker, root: DevelopmentRoot) -> None:
    url = observed.description["metrics_url"]
    for _ in range(6):
        client = public(observed)
        client.handshake(rig.attester(root), rig.document())
        assert client.ask("GET", RESOURCE)[0] == 200
        assert client.ask("GET", "/kbs/v0/resource/a/b/" + MARKER)[0] == 404
        client.close()
    text = ""

    def value(line: str) -> float:
        found = re.search("^" + re.escape(line) + r" (\S+)$", text, re.MULTILINE)
        return float(found.group(1)) if found else 0.0

    def counted() -> bool:  # workers tell of themselves once a second
        nonlocal text
        status, text = fetch(url, "/metrics")
        assert status == 200 and MARKER not in text
        refused = value('adyton_requests_total{area="resource",code="resource_absent",result="refused"}')
        return value('adyton_requests_total{area="attest",code="",result="allowed"}') >= 6 and refused >= 6

    until(counted, what=lambda: text)
    assert value('adyton_request_seconds_count{area="resource"}') >= 12
    assert value("adyton_audit_append_seconds_count") >= 6
    assert (
        value("adyton_policy_evaluations_total") + value("adyton_policy_remembered_total") >= 1
    )  # attestations that are alike ask once
    assert value("adyton_workers") == 2 and value("adyton_connections_total") >= 6
    assert value('adyton_endorsement_expires_timestamp_seconds{kind="crl"}') > time.time()
    assert 'tenant="default"' in text or 'tenant="other"' in text
    assert fetch(url, "/kbs/v0/auth")[0] == fetch(url, "/api/v0/about")[0] == 404


def test_the_collectors_port_is_not_held_up(observed: rig.RunningBroker) -> None:
    parts = urlsplit(observed.description["metrics_url"])
    slow = [socket.create_connection((parts.hostname, parts.port)) for _ in range(16)]
    for one in slow:
        one.sendall(b"GET /met")
    time.sleep(0.2)
    client = public(observed)
    assert client.ask("GET", "/healthz")[0] == 200  # what it costs is the collectors' alone
    client.close()
    until(lambda: _quietly(observed.description["metrics_url"]) == 200)
    for one in slow:
        one.close()


def _quietly(url: str) -> int:
    try:
        return fetch(url, "/metrics")[0]
    except (OSError, http.client.HTTPException):
        return 0


def test_administration_is_kept_off_the_public_port(observed: rig.RunningBroker) -> None:
    token = {"Authorization": "Bearer " + (observed.data / "admin.token").read_text().strip()}
    client = public(observed)
    for method, path in (
        ("GET", "/api/v0/about"), ("GET", "/api/v0/resources"), ("POST", "/kbs/v0/resource/a/b/c"), ("GET", "/ui"),
        ("POST", "/kbs/v0/attestation-policy"), ("GET", "/api/v0/openapi.json"),
    ):  # fmt: skip
        assert client.ask(method, path, b"{}", token)[0] == 404, path
    assert client.ask("GET", "/.well-known/jwks.json")[0] == 200
    client.close()
    assert fetch(observed.description["url"], "/api/v0/about", token)[0] == 200


def test_who_is_told_what_is_not_ready(observed: rig.RunningBroker) -> None:
    url = observed.description["public_url"]
    status, body = fetch(url, "/readyz")
    assert status == 200 and {part["name"] for part in json.loads(body)["parts"]} == {
        "serving", "store", "policy engine", "endorsements", "keys",
    }  # fmt: skip
    assert fetch(url, "/readyz", {"X-Forwarded-For": "203.0.113.9"}) == (200, "")
    wrong = {"X-Forwarded-For": "203.0.113.9", "Authorization": "Bearer " + "x" * 40}
    assert fetch(url, "/readyz", wrong) == (200, "")
    right = {**wrong, "Authorization": "Bearer " + (observed.data / "admin.token").read_text().strip()}
    assert json.loads(fetch(url, "/readyz", right)[1])["ready"]
    assert fetch(url, "/healthz")[0] == 200


# logs


def test_no_line_is_anybodys_but_ours() -> None:
    evil = 'x"}\n{"time":1,"decision":"allowed"\r\x1b[2J\x00\u2028\x85'
    for form in logs.FORMATS:
        import logging

        record = logging.LogRecord("a", logging.ERROR, "", 1, "said %s", (evil,), None)
        line = logs.Lines(form).format(record)
        assert (
            "\n" not in line and "\r" not in line and "\x1b" not in line and "\u2028" not in line and "\x85" not in line
        )
        if form == "json":
            assert json.loads(line)["message"] == "said " + evil


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_line_for_each_request_and_no_secret_in_any(tmp_path: Path, root: DevelopmentRoot, form: str) -> None:
    running = rig.started(tmp_path / "data", root, "--log-format", form)
    running.publish()
    token = (running.data / "admin.token").read_text().strip()
    with running.admin() as admin:
        admin.set_resource(KEY, MARKER.encode(), Binding(workloads=[str(rig.document().digest)]))
    with rig.raw(running) as client:
        passport, _ = client.handshake(rig.attester(root), rig.document())
        assert client.ask("GET", RESOURCE + "?token=" + MARKER, headers={"X-Secret": MARKER})[0] == 200
        assert client.ask("GET", "/kbs/v0/resource/default/key/2")[0] == 404
        cookie = next(iter(client.jar.values()))[0]
    with socket.create_connection(("127.0.0.1", running.port)) as raw:
        raw.sendall(b'GET /\x1b[31m"}{"decision":"allowed HTTP/1.1\r\nHost: a\r\n\r\n')
        raw.sendall(b"GET /a%0a{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        raw.settimeout(LONG)
        raw.recv(4096)
    assert running.stop() == 0
    log = running.log()
    for secret in (
        MARKER,
        token,
        passport,
        passport.split(".")[1][:60],
        cookie[:60],
        rig.SECRET[:20].decode("latin-1"),
    ):
        assert secret not in log
    assert "\x1b" not in log
    if form == "text":
        assert f"ALLOWED GET {RESOURCE} 200" in log and "tenant=default" in log
        return
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{") and '"path"' in line]
    released = next(line for line in lines if line["path"] == RESOURCE)
    assert released["decision"] == "allowed" and released["tenant"] == "default" and len(released["session"]) == 16
    absent = next(line for line in lines if line["path"].endswith("key/2"))
    assert absent["reason"] == "resource_absent" and absent["refusal"] and absent["id"] != released["id"]


# TLS


def issue(directory: Path, name: str, ca: tuple[Any, Any] | None = None, days: int = 30) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.fromtimestamp(time.time(), UTC)
    issuer, signer = (ca[0].subject, ca[1]) if ca else (subject, key)
    certificate = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca is None, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )  # fmt: skip
    paths = directory / f"{name}.pem", directory / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def connect(port: int, **load: Any) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if load:
        context.load_cert_chain(load["certificate"], load["key"])
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=LONG))


def shown(port: int) -> bytes:
    with connect(port) as there:
        return there.getpeercert(binary_form=True) or b""


def der(path: Path) -> bytes:
    return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_certificate_is_replaced_under_standing_connections(tmp_path: Path, workers: str) -> None:
    first, second, third = (issue(tmp_path, name) for name in ("first", "second", "third"))
    used = tmp_path / "used.pem", tmp_path / "used.key"
    for source, target in zip(first, used, strict=True):
        shutil.copy(source, target)
    running = rig.started(
        tmp_path / "data", None, "--certificate", str(used[0]), "--private-key", str(used[1]), "--workers", workers,
        "--listen", "127.0.0.1:0",
    )  # fmt: skip
    port = running.port
    assert shown(port) == der(first[0])
    with connect(port) as standing:
        assert standing.version() == "TLSv1.3"
        used[0].write_bytes(second[0].read_bytes())  # half of a pair: the key is still the old one's
        assert running.process is not None
        running.process.send_signal(signal.SIGHUP)
        until(lambda: "not replaced, the old one stays" in running.log())
        assert shown(port) == der(first[0])
        used[1].write_bytes(second[1].read_bytes())
        running.process.send_signal(signal.SIGHUP)
        until(lambda: all(shown(port) == der(second[0]) for _ in range(4)))
        standing.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert standing.recv(4096).startswith(b"HTTP/1.1 200")
        for source, target in zip(third, used, strict=True):  # nobody says anything: it is seen
            shutil.copy(source, target)
        until(lambda: all(shown(port) == der(third[0]) for _ in range(4)))
    before = running.log().count("not replaced, the old one stays")
    used[0].write_text("rubbish")
    running.process.send_signal(signal.SIGHUP)
    until(lambda: running.log().count("not replaced, the old one stays") > before)
    assert shown(port) == der(third[0])
    with pytest.raises(ssl.SSLError):
        _with(port, ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        _with(port, ssl.TLSVersion.TLSv1_2, "AES128-SHA")
    assert _with(port, ssl.TLSVersion.TLSv1_2, "ECDHE+AESGCM") == "TLSv1.2"
    assert running.stop() == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def _with(port: int, version: ssl.TLSVersion, ciphers: str) -> str | None:
    import warnings

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers(ciphers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = version
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=LONG)) as there:
        return there.version()


def test_who_administers_shows_a_certificate(tmp_path: Path) -> None:
    server, authority, stranger = (issue(tmp_path, name) for name in ("server", "authority", "stranger"))
    signer = (
        x509.load_pem_x509_certificate(authority[0].read_bytes()),
        serialization.load_pem_private_key(authority[1].read_bytes(), None),
    )
    mine = issue(tmp_path, "mine", signer)
    running = rig.started(
        tmp_path / "data", None, "--certificate", str(server[0]), "--private-key", str(server[1]),
        "--admin-listen", "127.0.0.1:0", "--client-ca", str(authority[0]),
    )  # fmt: skip
    admin = int(running.description["url"].rpartition(":")[2])
    for load in ({}, {"certificate": stranger[0], "key": stranger[1]}):
        with pytest.raises((ssl.SSLError, ConnectionError)), connect(admin, **load) as there:
            there.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            if not there.recv(100):
                raise ConnectionError("cut")
            raise AssertionError("let in")
    with connect(admin, certificate=mine[0], key=mine[1]) as there:
        there.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert there.recv(100).startswith(b"HTTP/1.1 200")
    with connect(int(running.description["public_url"].rpartition(":")[2])) as there:
        there.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert there.recv(100).startswith(b"HTTP/1.1 200")
    assert running.stop() == 0
    with pytest.raises(ConfigError):
        check(Settings(data="/x", client_ca=str(authority[0])))


# settings


def serve_config(tmp_path: Path, text: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "broker.toml"
    file.write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "adyton", "broker", "serve", "--config", str(file)],
        capture_output=True, text=True, timeout=LONG, env={**os.environ, "ADYTON_HOME": str(tmp_path / "home")},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lisen = 'x'", "lisen"), ("workers = 'two'", "workers"), ("workers = 2.5", "workers"), ("page = 'yes'", "page"),
        ("environment = 'prod'", "environment"), ("trust-dev-root = 'abc'", "trust-dev-root"), ("workers = ", "read"),
        ("log-level = 'loud'", "log-level"), ("config = 'x'", "config"), ("[listen]\nport = 1", "listen"),
        ("certificate = 'nowhere.pem'", "nowhere.pem"), ("workers = 0", "workers"), ("drain-seconds = -1.0", "drain-seconds"),
    ],
)  # fmt: skip
def test_a_file_of_settings_that_is_wrong_says_where(tmp_path: Path, text: str, said: str) -> None:
    done = serve_config(
        tmp_path, f"data = 'data'\nlisten = '127.0.0.1:0'\n{text}\n".replace("listen = '127.0.0.1:0'\n[", "[")
    )
    assert done.returncode in {1, 3} and said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_what_can_change_live_and_what_cannot() -> None:
    old = Settings(data="/a", max_body=10, certificate="c", private_key="k")
    new = Settings(data="/b", max_body=20, workers=3, certificate="", log_level="debug", private_key="")
    settings, stuck = merged(old, new)
    assert settings == Settings(data="/a", max_body=20, certificate="c", private_key="k", log_level="debug")
    assert set(stuck) == {"data", "workers", "tls"}


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_settings_are_read_again(tmp_path: Path, workers: str) -> None:
    file = tmp_path / "broker.toml"
    file.write_text(f"workers = {workers}\nmax-body = 1000\nlog-level = 'info'\n")
    running = rig.started(tmp_path / "data", None, "--config", str(file))
    assert running.process is not None

    def size(count: int) -> int:
        with rig.raw(running) as client:
            return client.ask("POST", "/kbs/v0/auth", b"x" * count)[0]

    assert size(900) == 400 and size(1100) == 413
    file.write_text(f"workers = {workers}\nmax-body = 'lots'\n")
    running.process.send_signal(signal.SIGHUP)
    until(lambda: "settings are not read again" in running.log())
    assert size(1100) == 413
    file.write_text("workers = 7\nmax-body = 2000\nenvironment = 'test'\n")
    running.process.send_signal(signal.SIGHUP)
    until(lambda: "only when the broker starts anew" in running.log())
    until(lambda: all(size(1100) == 400 for _ in range(4)))
    assert running.stop() == 0


# ends


class Asker(threading.Thread):
    """Asks on kept connections until it is told not to; what was sent and never answered is a loss."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)  # a test that fails leaves it asking
        self.port, self.stopping = port, threading.Event()
        self.answered = self.lost = self.refused = 0

    def run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        fresh = True
        while not self.stopping.is_set():
            if connection is None:
                connection, fresh = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONG), True
            try:
                connection.request("POST", "/kbs/v0/auth", rcar.request_body("snp"))
                answer = connection.getresponse()
                answer.read()
                assert answer.status in {200, 429}
                self.answered += 1
                fresh = False
                if answer.will_close:
                    connection.close()
                    connection = None
            except ConnectionRefusedError:
                self.refused += 1
                connection = None
                time.sleep(0.02)
            except (OSError, http.client.HTTPException):
                # A kept connection may be closed in the moment of asking: every client asks again. A new one may not.
                self.lost += fresh
                if connection is not None:
                    connection.close()
                connection = None
        if connection is not None:
            connection.close()


@pytest.mark.slow
def test_workers_are_relieved_and_nobody_notices(tmp_path: Path) -> None:
    running = rig.started(tmp_path / "data", None, "--workers", "2", "--metrics", "127.0.0.1:0")
    askers = [Asker(running.port) for _ in range(6)]
    for asker in askers:
        asker.start()
    assert running.process is not None
    for round_ in range(2):
        running.process.send_signal(signal.SIGUSR2)
        until(lambda: running.log().count("all workers were relieved") == round_ + 1)  # noqa: B023
    time.sleep(0.5)
    for asker in askers:
        asker.stopping.set()
    for asker in askers:
        asker.join()
    assert [asker.lost for asker in askers] == [0] * 6 and [asker.refused for asker in askers] == [0] * 6
    answered = sum(asker.answered for asker in askers)
    time.sleep(1.5)
    status, text = fetch(running.description["metrics_url"], "/metrics")
    found = re.search(r'adyton_requests_total\{area="auth",code="",result="allowed"\} (\S+)', text)
    assert status == 200 and found and float(found.group(1)) >= answered * 0.99, "what relieved workers counted stays"
    assert running.stop() == 0


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_an_end_that_is_said_first_and_loses_nothing(tmp_path: Path, workers: str) -> None:
    running = rig.started(tmp_path / "data", None, "--workers", workers, "--drain-seconds", "60")
    askers = [Asker(running.port) for _ in range(4)]
    for asker in askers:
        asker.start()
    url = running.description["url"]
    until(lambda: all(asker.answered > 5 for asker in askers))
    assert running.process is not None
    running.process.send_signal(signal.SIGTERM)
    body = ""

    def ending() -> bool:
        nonlocal body
        status, body = fetch(url, "/readyz")
        return status == 503

    until(ending)
    assert "about to end" in body and fetch(url, "/healthz")[0] == 200
    time.sleep(0.5)
    running.process.send_signal(signal.SIGTERM)  # long enough
    assert running.process.wait(LONG) == 0
    for asker in askers:
        asker.stopping.set()
    for asker in askers:
        asker.join()
    assert sum(asker.answered for asker in askers) > 10
    assert sum(asker.lost for asker in askers) == 0


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind(str(tmp_path / "notify"))
        there.settimeout(LONG)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        running = rig.started(tmp_path / "data", None)
        assert there.recv(1000).startswith(b"READY=1\nSTATUS=serving http")
        assert running.process is not None
        running.process.send_signal(signal.SIGHUP)
        assert there.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert there.recv(1000).startswith(b"READY=1")
        assert running.stop() == 0
        assert there.recv(1000) == b"STOPPING=1"


@pytest.mark.slow
def test_a_store_that_takes_nothing_is_not_ready(tmp_path: Path) -> None:
    running = rig.started(tmp_path / "data", None)
    import sqlite3

    own = sqlite3.connect(running.data / "broker.sqlite", isolation_level=None)
    own.execute("BEGIN IMMEDIATE")  # nobody else can write for longer than the broker waits
    try:
        began = time.monotonic()
        status, body = fetch_patient(running.description["url"], "/readyz")
        assert status == 503 and "store" in body and "store_busy" in body and time.monotonic() - began < 15
        assert fetch(running.description["url"], "/healthz")[0] == 200
    finally:
        own.execute("ROLLBACK")
        own.close()
    until(lambda: fetch(running.description["url"], "/readyz")[0] == 200)
    assert running.stop() == 0


def fetch_patient(url: str, path: str) -> tuple[int, str]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found
