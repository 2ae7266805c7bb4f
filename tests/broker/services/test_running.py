"""A service as something that runs: seen, limited, told other settings, killed, and ended so that nobody loses an answer."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from tests.broker import rig
from tests.broker.services.service_rig import (
    Client,
    Service,
    certificates,
    healthy,
    own_channel,
    request,
    rest_body,
    sample,
    trust,
)
from tests.broker.test_tracing import PARENT, Collector, collector
from tests.waiting import LONG, until

from adyton.broker.door import certificate as own_certificate
from adyton.broker.services.settings import ServiceSettings, check
from adyton.crypto.jwt import verify_any, verifying_keys
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import ConfigError

_ = collector  # a fixture
CHECK = "/grpc.health.v1.Health/Check"
QUERY = "/reference.ReferenceValueProviderService/QueryReferenceValue"
EVERYWHERE = ("--grpc", "127.0.0.1:0", "--rest", "127.0.0.1:0", "--metrics", "127.0.0.1:0")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> DevelopmentRoot:
    return rig.make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, root: DevelopmentRoot) -> Iterator[Service]:
    place = tmp_path_factory.mktemp("running")
    running = Service(place / "data", (*EVERYWHERE, *trust(root))).start()
    yield running
    assert running.stop() == 0


def metrics(service: Service) -> dict[str, float]:
    with urllib.request.urlopen(service.said["metrics"], timeout=LONG) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def lines(service: Service) -> list[dict[str, Any]]:
    return [json.loads(line) for line in service.log().splitlines() if line.startswith("{")]


def test_what_strangers_send_makes_no_series_and_no_line(service: Service) -> None:
    service.rest("GET", "/a-path-of-mine")
    with own_channel(service) as channel:
        for path in ("/x.Mine/Call", QUERY):
            with contextlib.suppress(grpc.RpcError):
                channel.unary_unary(path)(b"\n\x06my-own", timeout=LONG, metadata=[("x-mine", "my-header")])
    until(lambda: any(line.get("path") == QUERY for line in lines(service)))
    text = json.dumps(metrics(service))
    assert "mine" not in text.lower() and "my-" not in text
    assert "my-own" not in service.log() and "my-header" not in service.log()


def test_every_call_is_counted_and_has_its_line(service: Service, root: DevelopmentRoot, tmp_path: Path) -> None:
    client = Client(tmp_path / "protos", service.said["gRPC"])
    try:
        assert "message" in client.call("AttestationEvaluate", request(root))
        assert client.call("AttestationEvaluate", request(root, evidence="!!"))["code"] == "body_malformed"
        assert client.call("RegisterReferenceValue", {"message": "{}"})["status"] == "UNAUTHENTICATED"
        assert client.call("Check", {})["message"] == {"status": 1}
    finally:
        client.close()
    assert service.rest("POST", "/attestation", rest_body(root))[0] == 200
    found = metrics(service)
    assert found['adyton_requests_total{area="attest",code="",result="allowed"}'] >= 2
    assert found['adyton_requests_total{area="attest",code="body_malformed",result="refused"}'] >= 1
    assert found['adyton_requests_total{area="kbs",code="admin_token_missing",result="refused"}'] >= 1
    assert found['adyton_requests_total{area="readyz",code="",result="allowed"}'] >= 1
    assert found['adyton_request_seconds_count{area="attest"}'] >= 3
    assert found["adyton_audit_append_seconds_count"] >= 2
    assert 'adyton_endorsement_expires_timestamp_seconds{kind="crl"}' in found
    until(lambda: sum(line.get("path", "").endswith("AttestationEvaluate") for line in lines(service)) >= 2)
    (line, *_) = [line for line in lines(service) if line.get("reason") == "body_malformed"]
    assert (line["decision"], line["status"], line["peer"]) == ("refused", 400, "127.0.0.1")
    assert not any(line.get("path") in {CHECK, "/healthz", "/readyz"} for line in lines(service))


def test_health_and_readiness(service: Service) -> None:
    assert service.rest("GET", "/healthz") == (200, "")
    status, text = service.rest("GET", "/readyz")
    assert status == 200 and json.loads(text)["ready"] is True
    assert service.rest("GET", "/readyz", None, {"X-Forwarded-For": "192.0.2.1"}) == (200, "")
    admin = {"X-Forwarded-For": "192.0.2.1", "Authorization": f"Bearer {service.token}"}
    assert json.loads(service.rest("GET", "/readyz", None, admin)[1])["ready"] is True
    place = service.said["metrics"].removesuffix("/metrics")
    for path in ("/healthz", "/readyz"):
        with urllib.request.urlopen(place + path, timeout=LONG) as answer:
            assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(place + "/policy", timeout=LONG)


def test_not_ready_is_said_on_every_port(tmp_path: Path, root: DevelopmentRoot) -> None:
    """The end has begun: others are to be asked, and whoever asks all the same is answered."""
    running = Service(tmp_path / "data", (*EVERYWHERE, *trust(root), "--drain-seconds", "30")).start()
    with own_channel(running) as channel:
        assert channel.unary_unary(CHECK)(b"", timeout=LONG) == b"\x08\x01"
        running.signal(signal.SIGTERM)
        until(lambda: channel.unary_unary(CHECK)(b"", timeout=LONG) == b"\x08\x02")
        assert running.rest("GET", "/readyz")[0] == 503
        assert running.rest("POST", "/attestation", rest_body(root))[0] == 200  # still answered
        assert channel.unary_unary(QUERY)(b"", timeout=LONG) == b""
    running.signal(signal.SIGTERM)  # who asks twice does not want to wait
    assert running.process is not None and running.process.wait(LONG) == 0


@pytest.mark.slow
def test_whoever_asks_whether_it_serves_loses_no_answer(tmp_path: Path, root: DevelopmentRoot) -> None:
    running = Service(tmp_path / "data", (*EVERYWHERE, *trust(root), "--drain-seconds", "2")).start()
    refused: list[str] = []
    answered = 0

    def ask() -> None:
        nonlocal answered
        with own_channel(running) as channel:
            try:
                while channel.unary_unary(CHECK)(b"", timeout=LONG) == b"\x08\x01":
                    channel.unary_unary(QUERY)(b"", timeout=LONG)
                    answered += 1
            except grpc.RpcError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: answered > 20)
    running.signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert not refused
    running.signal(signal.SIGTERM)  # who asks twice does not want to wait
    assert running.process is not None and running.process.wait(30) == 0


def test_too_often_is_told_with_when_to_come_back(tmp_path: Path, root: DevelopmentRoot) -> None:
    limits = ("--peer-rate-limit", "attest=0.01:2", "--rate-limit", "admin=0.01:3")
    running = Service(tmp_path / "data", (*EVERYWHERE, *trust(root), *limits)).start()
    client = Client(tmp_path / "protos", running.said["gRPC"])
    try:
        assert "message" in client.call("AttestationEvaluate", request(root))
        assert running.rest("POST", "/attestation", rest_body(root))[0] == 200
        answer = client.call("AttestationEvaluate", request(root))
        assert (answer["status"], answer["code"]) == ("RESOURCE_EXHAUSTED", "rate")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(running.said["REST"] + "/attestation", rest_body(root), timeout=LONG)
        with caught.value as error:
            assert error.code == 429 and int(error.headers["Retry-After"]) > 1
        for _ in range(3):
            assert client.call("QueryReferenceValue", {"reference_value_id": "x"}) == {"message": {}}
        with own_channel(running) as channel, pytest.raises(grpc.RpcError) as late:
            channel.unary_unary(QUERY)(b"", timeout=LONG)
        failed: Any = late.value
        trailing = {item.key: item.value for item in failed.trailing_metadata()}
        assert trailing["adyton-code"] == "rate" and int(trailing["grpc-retry-pushback-ms"]) > 1000
        assert client.call("Check", {})["message"] == {"status": 1}  # never limited
    finally:
        client.close()
        assert running.stop() == 0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"rate_limits": ["resource=1"]}, "rate-limit"),
        ({"metrics_listen": "nowhere"}, "metrics"),
        ({"grpc": "127.0.0.1:99999"}, "grpc"),
        ({"grpc": ""}, "grpc"),
        ({"drain_seconds": -1.0}, "drain-seconds"),
        ({"max_body": 0}, "max-body"),
        ({"peers_may_change": True}, "changes-by"),
        ({"client_ca": "/ca.pem"}, "client-ca"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(ServiceSettings(**{"data": "/x", "grpc": "127.0.0.1:0", **given}))
    assert caught.value.field == told


def fingerprint(address: str) -> bytes:
    """The certificate that who connects now is shown."""
    host, _, port = address.rpartition(":")
    pem = ssl.get_server_certificate((host.rpartition("/")[2], int(port)), timeout=LONG)
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(serialization.Encoding.DER)


def test_settings_and_certificates_are_read_again(tmp_path: Path, root: DevelopmentRoot) -> None:
    now = datetime.fromtimestamp(time.time(), UTC)
    first, second = (own_certificate.make(tmp_path / name, ["localhost", "127.0.0.1"], now) for name in "ab")
    served = tmp_path / "served.pem", tmp_path / "served.key"
    ca = certificates(tmp_path)[0]

    def put(pair: tuple[Path, Path]) -> None:
        for source, place in zip(pair, served, strict=True):
            place.write_bytes(source.read_bytes())

    put(first)
    settings = tmp_path / "service.toml"
    text = f'certificate = "{served[0]}"\nprivate-key = "{served[1]}"\n'
    settings.write_text(text)
    running = Service(tmp_path / "data", (*EVERYWHERE, *trust(root), "--config", str(settings))).start()
    try:
        credentials = grpc.ssl_channel_credentials(first[0].read_bytes())
        with grpc.secure_channel(running.said["gRPC"], credentials) as standing:
            assert healthy(standing)
            old = fingerprint(running.said["REST"])
            assert fingerprint(running.said["gRPC"]) == old
            put(second)
            settings.write_text(text + 'peer-rate-limit = ["attest=0.01:1"]\nissuer = "Another"\n')
            running.signal(signal.SIGHUP)
            until(lambda: fingerprint(running.said["REST"]) != old)
            until(lambda: fingerprint(running.said["gRPC"]) == fingerprint(running.said["REST"]))
            assert healthy(standing)  # what stands is not touched
        assert "issuer" in running.log() and "peer_rate_limits" in running.log()
        context = ssl.create_default_context(cafile=str(second[0]))
        statuses = [running.rest("POST", "/attestation", rest_body(root), context=context)[0] for _ in range(2)]
        assert statuses == [200, 429]
        # A pair that does not fit, settings that are none, clients that must be certified from now on: all stays.
        current = fingerprint(running.said["gRPC"])
        served[1].write_bytes(first[1].read_bytes())
        running.signal(signal.SIGHUP)
        until(lambda: "the TLS certificate is not replaced" in running.log())
        for wrong, said in (("max-body = 'x'\n", "config_file_invalid"), (f'client-ca = "{ca}"\n', "certified")):
            settings.write_text(text + wrong)
            running.signal(signal.SIGHUP)
            until(lambda said=said: said in running.log())  # type: ignore[misc]
        assert fingerprint(running.said["gRPC"]) == current == fingerprint(running.said["REST"])
    finally:
        assert running.stop() == 0


@pytest.mark.slow
def test_other_authorities_of_clients_hold_for_who_comes_next(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (ca, certificate, key), (other_ca, other, other_key) = (certificates(tmp_path / name) for name in ("one", "two"))
    used = tmp_path / "clients.pem"
    used.write_bytes(ca.read_bytes())
    running = Service(
        tmp_path / "data", ("--grpc", "127.0.0.1:0", "--client-ca", str(used)), ("reference", "serve")
    ).start()
    server = Path(running.said["TLS"]).read_bytes()

    def known(certificate: Path, key: Path) -> bool:
        credentials = grpc.ssl_channel_credentials(server, key.read_bytes(), certificate.read_bytes())
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(running.said["gRPC"], credentials, options=options) as channel:
            return healthy(channel)

    try:
        assert known(certificate, key) and not known(other, other_key)
        used.write_bytes(other_ca.read_bytes())
        running.signal(signal.SIGHUP)
        until(lambda: known(other, other_key))
        assert not known(certificate, key)
    finally:
        assert running.stop() == 0


def test_killed_at_any_moment_it_keeps_its_keys_and_what_it_acknowledged(tmp_path: Path, root: DevelopmentRoot) -> None:
    running = Service(tmp_path / "data", (*EVERYWHERE, *trust(root))).start()
    client = Client(tmp_path / "protos", running.said["gRPC"])
    token = client.call("AttestationEvaluate", request(root))["message"]["attestation_token"]
    keys = running.rest("GET", "/.well-known/jwks.json")[1]
    admin, acknowledged = running.token, 0
    stop = threading.Event()

    def register() -> None:
        nonlocal acknowledged
        while not stop.is_set():
            said = client.call("RegisterReferenceValue", {"message": sample(number=acknowledged + 1)}, admin, timeout=3)
            if said != {"message": {}}:
                return
            acknowledged += 1

    thread = threading.Thread(target=register)
    thread.start()
    until(lambda: acknowledged > 10)
    running.signal(signal.SIGKILL)
    assert running.process is not None
    running.process.wait(10)
    stop.set()
    thread.join()
    client.close()
    running.said.clear()
    running.start()
    again = Client(tmp_path / "protos", running.said["gRPC"])
    try:
        assert running.token == admin
        assert running.rest("GET", "/.well-known/jwks.json")[1] == keys
        verify_any(token, verifying_keys(keys.encode()), now=time.time())
        found = again.call("QueryReferenceValue", {"reference_value_id": "number"})["message"]
        assert json.loads(found["reference_value_results"]) in {acknowledged, acknowledged + 1}
        new = again.call("AttestationEvaluate", request(root))["message"]["attestation_token"]
        assert new.partition(".")[0] == token.partition(".")[0]  # the same key signs on
    finally:
        again.close()
        assert running.stop() == 0


def test_a_second_service_on_the_same_data_is_refused(service: Service) -> None:
    second = Service(service.data, ("--grpc", "127.0.0.1:0"))
    log = service.log()
    try:
        with pytest.raises(RuntimeError):
            second.start()
    finally:
        (service.data.parent / f"{service.data.name}.log").write_text(log)


@pytest.mark.slow
def test_a_call_is_one_trace(tmp_path: Path, root: DevelopmentRoot, collector: Collector) -> None:
    url = f"http://127.0.0.1:{collector.server_port}"
    running = Service(tmp_path / "data", (*EVERYWHERE, *trust(root), "--otlp", url)).start()
    client = Client(tmp_path / "protos", running.said["gRPC"])
    call = {"module": "attestation", "service": "AttestationService", "method": "AttestationEvaluate"}
    try:
        client.send({**call, "message": request(root), "metadata": [["traceparent", PARENT]]})
        assert running.rest("POST", "/attestation", rest_body(root), {"traceparent": PARENT})[0] == 200
    finally:
        client.close()
        assert running.stop() == 0
    trace = PARENT.split("-")[1]
    spans = [span for span in collector.spans() if span["trace"] == trace]
    assert sorted(str(span["name"]) for span in spans) == sorted(2 * ["attest", "verify", "appraise", "audit"])
    assert {span["trace"] for span in collector.spans()} == {trace}
    assert any(line.get("trace") == trace for line in lines(running))


@pytest.mark.slow
def test_nothing_is_signed_or_set_while_the_store_takes_no_writes(tmp_path: Path, root: DevelopmentRoot) -> None:
    running = Service(tmp_path / "data", (*EVERYWHERE, *trust(root))).start()
    client = Client(tmp_path / "protos", running.said["gRPC"])
    held = sqlite3.connect(tmp_path / "data" / "broker.sqlite", isolation_level=None)
    try:
        held.execute("BEGIN IMMEDIATE")  # as a disk that hangs
        answer = client.call("RegisterReferenceValue", {"message": sample(x=1)}, running.token, timeout=40)
        assert (answer["status"], answer["code"]) in {("UNAVAILABLE", "store_busy"), ("DEADLINE_EXCEEDED", "deadline")}
        status, said = running.rest("POST", "/attestation", rest_body(root))
        assert status == 503 and "." not in said  # no token
        assert client.call("Check", {}, timeout=40)["message"] == {"status": 2}
        held.execute("ROLLBACK")
        until(lambda: client.call("Check", {})["message"] == {"status": 1})
        assert client.call("RegisterReferenceValue", {"message": sample(x=1)}, running.token) == {"message": {}}
        assert running.rest("POST", "/attestation", rest_body(root))[0] == 200
    finally:
        held.close()
        client.close()
        assert running.stop() == 0
