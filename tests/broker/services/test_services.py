"""The attestation service and the reference value service as processes of their own, and clients that know only CoCo's wire."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.broker import rig

from adyton.crypto import jwk
from adyton.crypto.jwt import verify_any, verifying_keys
from adyton.devtee.root import DevelopmentRoot
from adyton.rats.types import ReportData

# As a client has them, written from the list of fields (kbs-protocol 2.1, 3.1).
ATTESTATION = """
syntax = "proto3"; package attestation;
message AttestationRequest { repeated IndividualAttestationRequest verification_requests = 1; repeated string policy_ids = 2; }
message IndividualAttestationRequest {
  string tee = 1; string evidence = 3;
  oneof runtime_data { string raw_runtime_data = 4; string structured_runtime_data = 5; }
  oneof init_data { string init_data_digest = 6; string init_data_toml = 7; }
  string runtime_data_hash_algorithm = 8;
}
message AttestationResponse { string attestation_token = 1; }
message SetPolicyRequest { string policy_id = 1; string policy = 2; }
message SetPolicyResponse {}
message ChallengeRequest { map<string, string> inner = 1; }
message ChallengeResponse { string attestation_challenge = 1; }
service AttestationService {
  rpc AttestationEvaluate(AttestationRequest) returns (AttestationResponse) {};
  rpc SetAttestationPolicy(SetPolicyRequest) returns (SetPolicyResponse) {};
  rpc GetAttestationChallenge(ChallengeRequest) returns (ChallengeResponse) {};
}
"""
REFERENCE = """
syntax = "proto3"; package reference;
message ReferenceValueQueryRequest { string reference_value_id = 1; }
message ReferenceValueQueryResponse { optional string reference_value_results = 1; }
message ReferenceValueRegisterRequest { string message = 1; }
message ReferenceValueRegisterResponse {}
service ReferenceValueProviderService {
  rpc QueryReferenceValue(ReferenceValueQueryRequest) returns (ReferenceValueQueryResponse) {};
  rpc RegisterReferenceValue(ReferenceValueRegisterRequest) returns (ReferenceValueRegisterResponse) {};
}
"""
HEALTH = """
syntax = "proto3"; package grpc.health.v1;
message HealthCheckRequest { string service = 1; }
message HealthCheckResponse { int32 status = 1; }
service Health { rpc Check(HealthCheckRequest) returns (HealthCheckResponse); }
"""
ALLOW_ALL = 'package policy\nimport rego.v1\ntrust_claims := {"hardware": 2, "executables": 3}\n'


def b64url(data: bytes | str) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass
class Service:
    """``adyton … serve`` as a process."""

    data: Path
    arguments: tuple[str, ...]
    command: tuple[str, ...] = ("attestation-service", "serve")
    said: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    def start(self) -> Service:
        log = self.data.parent / f"{self.data.name}.log"
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "ADYTON_HOME": str(self.data.parent / "home")}
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "adyton", *self.command, "--data", str(self.data), *self.arguments],
                stdout=out, stderr=out, text=True, env=environment,
            )  # fmt: skip
        for _ in range(600):
            text = log.read_text()
            if "\nserving" in text:
                break
            if self.process.poll() is not None:
                raise RuntimeError(text)
            time.sleep(0.03)
        for line in text.splitlines():
            name, _, value = line.partition(" ")
            self.said.setdefault(name, value.strip().partition("  ")[0])
        return self

    @property
    def token(self) -> str:
        return (self.data / "admin.token").read_text().strip()

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def rest(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, **more: Any
    ) -> tuple[int, str]:
        request = urllib.request.Request(self.said["REST"] + path, body, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20, **more) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


class Client:
    """The process of ``coco_client.py``."""

    def __init__(self, place: Path, address: str, *secrets: str) -> None:
        place.mkdir(exist_ok=True)
        for name, text in (("attestation", ATTESTATION), ("reference", REFERENCE), ("health", HEALTH)):
            (place / f"{name}.proto").write_text(text)
        program = Path(__file__).with_name("coco_client.py")
        self.process = subprocess.Popen(
            [sys.executable, str(program), str(place), address, *secrets],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def send(self, call: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(call) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def call(self, method: str, message: dict[str, Any], token: str = "", **more: Any) -> dict[str, Any]:
        service, module = "AttestationService", "attestation"
        if "ReferenceValue" in method:
            service, module = "ReferenceValueProviderService", "reference"
        if method == "Check":
            service, module = "Health", "health"
        metadata = [["authorization", f"Bearer {token}"]] if token else []
        return self.send(
            {"service": service, "module": module, "method": method, "message": message, "metadata": metadata, **more}
        )

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> DevelopmentRoot:
    return rig.make_root(tmp_path_factory.mktemp("root"))


def trust(root: DevelopmentRoot) -> tuple[str, ...]:
    return (
        "--environment", "test", "--trust-dev-root", root.fingerprint, "--endorsements", str(root.endorsements),
    )  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, root: DevelopmentRoot) -> Iterator[Service]:
    place = tmp_path_factory.mktemp("service")
    running = Service(
        place / "data", ("--grpc", "127.0.0.1:0", "--rest", "127.0.0.1:0", *trust(root), "--issuer", "Elsewhere")
    ).start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def client(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    made = Client(tmp_path_factory.mktemp("protos"), service.said["gRPC"])
    yield made
    made.close()


NONCE = base64.b64encode(bytes(32)).decode()
TEE_KEY = dict(jwk.from_public(ec.generate_private_key(ec.SECP256R1()).public_key()).members)
RUNTIME: dict[str, Any] = {"additional-evidence": "", "nonce": NONCE, "tee-pubkey": TEE_KEY}


def evidence(root: DevelopmentRoot, value: bytes | None = None, algorithm: str = "sha384") -> str:
    """What CoCo's KBS sends for a guest that binds ``RUNTIME``."""
    text = json.dumps(RUNTIME, sort_keys=True, separators=(",", ":")).encode()
    bound = value or hashlib.new(algorithm, text).digest()
    primary = rig.attester(root).collect(ReportData(bound.ljust(64, b"\0"))).primary
    return b64url(json.dumps(primary))


def request(root: DevelopmentRoot, **change: Any) -> dict[str, Any]:
    one = {
        "tee": "snp",
        "evidence": evidence(root),
        "structured_runtime_data": json.dumps(RUNTIME),
        "init_data_toml": rig.document().raw.decode(),
        "runtime_data_hash_algorithm": "sha384",
    }
    return {
        "verification_requests": [{name: value for name, value in {**one, **change}.items() if value is not None}],
        "policy_ids": ["default"],
    }


def rest_body(root: DevelopmentRoot, **change: Any) -> bytes:
    one = {
        "tee": "snp",
        "evidence": evidence(root),
        "runtime_data": {"structured": RUNTIME},
        "init_data": {"init_data_toml": rig.document().raw.decode()},
    }
    requests = [{name: value for name, value in {**one, **change}.items() if value is not None}]
    return json.dumps({"verification_requests": requests, "policy_ids": []}).encode()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"tee": "nosuch", "init_data_toml": None}, "tee_unsupported"),
        ({"evidence": "!!"}, "body_malformed"),
        ({"evidence": b64url("{}")}, "json_malformed"),
        ({"evidence": b64url("[" * 5000)}, "malformed_evidence"),
        ({"structured_runtime_data": "[" * 5000}, "body_malformed"),
        ({"structured_runtime_data": "[]"}, "body_malformed"),
        ({"structured_runtime_data": '{"a":1,"a":2}'}, "body_malformed"),
        ({"structured_runtime_data": '{"a":1.5}'}, "body_malformed"),
        ({"structured_runtime_data": json.dumps({**RUNTIME, "nonce": "x"})}, "report_data_mismatch"),
        ({"structured_runtime_data": None}, "runtime_data_missing"),
        ({"structured_runtime_data": None, "raw_runtime_data": ""}, "runtime_data_size"),
        ({"structured_runtime_data": None, "raw_runtime_data": b64url(bytes(64))}, "runtime_data_size"),
        ({"structured_runtime_data": None, "raw_runtime_data": b64url(b"x" * 65)}, "runtime_data_size"),
        ({"structured_runtime_data": None, "raw_runtime_data": b64url(b"x" * 64)}, "report_data_mismatch"),
        ({"runtime_data_hash_algorithm": "sha256"}, "report_data_mismatch"),
        ({"runtime_data_hash_algorithm": "md5"}, "body_malformed"),
        ({"init_data_toml": "x = 1"}, ""),
        ({"init_data_toml": rig.document(command=["/bin/false"]).raw.decode()}, ""),
        ({"init_data_toml": None, "init_data_digest": b64url(b"x" * 32)}, ""),
        ({"init_data_toml": None, "init_data_digest": b64url(b"x" * 31)}, "init_data_algorithm"),
        ({"init_data_toml": None, "init_data_digest": b64url(b"x" * 48)}, "init_data_algorithm"),
    ],
)
def test_grpc_refuses(client: Client, root: DevelopmentRoot, change: dict[str, Any], code: str) -> None:
    answer = client.call("AttestationEvaluate", request(root, **change))
    assert answer.get("status") == "ABORTED", answer
    assert answer["code"] and (not code or answer["code"] == code), answer
    assert f"[{answer['code']}]" in answer["details"]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"verification_requests": []}, "body_malformed"),
        ({"verification_requests": [{"tee": "snp"}] * 17}, "body_malformed"),
        ({"verification_requests": [{"tee": "snp", "evidence": "e30", "structured_runtime_data": "{}"}] * 16}, None),
    ],
)
def test_grpc_counts(client: Client, message: dict[str, Any], code: str | None) -> None:
    answer = client.call("AttestationEvaluate", message)
    assert answer["status"] == "ABORTED" and (code is None or answer["code"] == code)


def test_grpc_garbage_size_and_deadline(client: Client, root: DevelopmentRoot) -> None:
    path = "/attestation.AttestationService/AttestationEvaluate"
    garbage = client.send({"raw": base64.b64encode(b"\xff" * 100).decode(), "method": path})
    assert (garbage["status"], garbage["code"]) == ("ABORTED", "body_malformed")
    too_large = client.call("AttestationEvaluate", request(root, evidence="A" * 3_000_000))
    assert too_large["status"] == "RESOURCE_EXHAUSTED"
    assert client.send({"raw": "", "method": "/attestation.AttestationService/Nothing"})["status"] == "UNIMPLEMENTED"
    assert client.call("AttestationEvaluate", request(root), timeout=0.0001)["status"] == "DEADLINE_EXCEEDED"
    assert client.call("Check", {})["message"] == {"status": 1}


def silent(channel: Any, count: int) -> list[Any]:
    """Calls whose message never comes."""

    def nothing() -> Iterator[bytes]:
        threading.Event().wait(60)
        yield b""

    how = channel.stream_unary("/attestation.AttestationService/AttestationEvaluate")
    return [how.future(nothing()) for _ in range(count)]


def own_channel(service: Service) -> Any:
    return grpc.insecure_channel(service.said["gRPC"], options=[("grpc.use_local_subchannel_pool", 1)])


def healthy(channel: Any) -> bool:
    try:
        return bool(channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5) == b"\x08\x01")
    except grpc.RpcError:
        return False


def test_one_connection_of_silent_callers_keeps_nobody_waiting(service: Service) -> None:
    with own_channel(service) as bad, own_channel(service) as good:
        for _ in range(4):
            calls = silent(bad, 100)
            time.sleep(0.5)
            assert healthy(good)
            for call in calls:
                call.cancel()
            for _ in range(50):  # they leave nothing that counts as a call
                if healthy(bad):
                    break
                time.sleep(0.1)
            else:
                pytest.fail("the connection's calls are not free again")


def test_what_is_refused_leaves_no_traceback(service: Service) -> None:
    with own_channel(service) as channel:
        for message in (b"", b"\xff"):
            with pytest.raises(grpc.RpcError):
                channel.unary_unary("/attestation.AttestationService/AttestationEvaluate")(message, timeout=5)
        call = silent(channel, 1)[0]
        call.cancel()
        assert healthy(channel)
    log = service.data.with_name(f"{service.data.name}.log").read_text()
    assert "Traceback" not in log


@pytest.mark.slow
def test_silent_callers_are_sent_away(service: Service) -> None:
    with own_channel(service) as one, own_channel(service) as two, own_channel(service) as good:
        calls = silent(one, 32) + silent(two, 32)
        time.sleep(0.5)
        assert not healthy(good)  # as many as are served at once
        assert all(call.exception(timeout=20) is not None for call in calls)
        assert healthy(good)


def test_a_device_in_the_cpus_place(client: Client, root: DevelopmentRoot) -> None:
    """Two CPUs in one request, or devices that answer another challenge, are no environment."""
    first = request(root)["verification_requests"][0]
    second = {key: value for key, value in first.items() if "init" not in key}
    other = json.dumps({**RUNTIME, "nonce": "another"})
    answer = client.call(
        "AttestationEvaluate", {"verification_requests": [first, {**second, "structured_runtime_data": other}]}
    )
    assert answer["code"] == "runtime_data_differs"
    shared = {name: value for name, value in RUNTIME.items() if name != "additional-evidence"}
    text = json.dumps(shared, sort_keys=True, separators=(",", ":")).encode()
    two = {
        **second,
        "evidence": evidence(root, hashlib.sha384(text).digest()),
        "structured_runtime_data": json.dumps(shared),
    }
    assert client.call("AttestationEvaluate", {"verification_requests": [first, two]})["code"] == "device_class"


def test_tokens_say_what_cocos_say(service: Service, client: Client, root: DevelopmentRoot) -> None:
    answer = client.call("AttestationEvaluate", request(root))
    status, again = service.rest("POST", "/attestation", rest_body(root))
    assert status == 200, again
    status, keys = service.rest("GET", "/.well-known/jwks.json")
    for token in (answer["message"]["attestation_token"], again):
        claims: dict[str, Any] = verify_any(token, verifying_keys(keys.encode()), now=time.time())
        assert claims["iss"] == "Elsewhere" and claims["eat_profile"].endswith("Trustee")
        cpu = claims["submods"]["cpu0"]
        assert cpu["ear.appraisal-policy-id"] == "default"
        said = cpu["ear.veraison.annotated-evidence"]
        assert said["runtime_data_claims"] == RUNTIME
        assert said["init_data_claims"]["workload"]["image"] == rig.IMAGE
        assert said["snp"]["measurement"] == rig.MEASUREMENT.hex()


@pytest.mark.parametrize("value", [b"x" * 64, b"short"])
def test_raw_runtime_data(client: Client, root: DevelopmentRoot, value: bytes) -> None:
    change = {"evidence": evidence(root, value), "structured_runtime_data": None, "raw_runtime_data": b64url(value)}
    assert "attestation_token" in client.call("AttestationEvaluate", request(root, **change))["message"]


def test_init_data_by_its_digest(client: Client, root: DevelopmentRoot) -> None:
    digest = b64url(rig.document().digest.value)
    answer = client.call("AttestationEvaluate", request(root, init_data_toml=None, init_data_digest=digest))
    assert "message" in answer, answer


def test_challenges(service: Service, client: Client) -> None:
    assert client.call("GetAttestationChallenge", {"inner": {"tee": "snp", "tee_params": ""}}) == {"message": {}}
    for inner in ({}, {"tee": "se"}, {"tee": "se", "tee_params": ""}, {"tee": "x", "tee_params": ""}):
        assert client.call("GetAttestationChallenge", {"inner": inner})["status"] == "ABORTED"
    assert service.rest("POST", "/challenge", b'{"tee":"tdx","tee_params":""}') == (200, "")
    assert service.rest("POST", "/challenge", b'{"tee":"se","tee_params":""}')[0] == 500


def test_changes_need_the_token(service: Service, client: Client) -> None:
    policy = {"policy_id": "mine_cpu", "policy": b64url(ALLOW_ALL)}
    for token in ("", "x" * 43):
        assert client.call("SetAttestationPolicy", policy, token)["status"] == "UNAUTHENTICATED"
        assert client.call("RegisterReferenceValue", {"message": "{}"}, token)["status"] == "UNAUTHENTICATED"
    assert service.rest("POST", "/policy", json.dumps(policy).encode())[0] == 401
    assert service.rest("DELETE", "/policy/mine_cpu")[0] == 401
    assert service.rest("GET", "/policy/mine_cpu")[0] == 401


def test_a_policy_of_its_own(service: Service, client: Client, root: DevelopmentRoot) -> None:
    answer = client.call("AttestationEvaluate", {**request(root), "policy_ids": ["mine"]})
    assert answer["code"] == "policy_absent"
    bad = {"policy_id": "mine_cpu", "policy": b64url("package policy\nx :=")}
    assert client.call("SetAttestationPolicy", bad, service.token)["status"] == "ABORTED"
    assert client.call(
        "SetAttestationPolicy", {"policy_id": "mine_cpu", "policy": b64url(ALLOW_ALL)}, service.token
    ) == {"message": {}}
    answer = client.call("AttestationEvaluate", {**request(root), "policy_ids": ["mine", "other"]})
    payload = answer["message"]["attestation_token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    assert claims["submods"]["cpu0"]["ear.appraisal-policy-id"] == "mine"
    assert claims["submods"]["cpu0"]["ear.trustworthiness-vector"]["hardware"] == 32  # the development root's floor
    listed = json.loads(service.rest("GET", "/policy")[1])
    assert {"policy-id": "mine_cpu"} in listed
    admin = {"Authorization": f"Bearer {service.token}"}
    assert service.rest("GET", "/policy/mine_cpu", None, admin)[1] == ALLOW_ALL
    assert service.rest("DELETE", "/policy/mine_cpu", None, admin)[0] == 200
    assert client.call("AttestationEvaluate", {**request(root), "policy_ids": ["mine"]})["code"] == "policy_absent"


def sample(**values: Any) -> str:
    payload = base64.b64encode(json.dumps(values).encode()).decode()
    return json.dumps({"version": "0.1.0", "type": "sample", "payload": payload})


def register_and_query(service: Service, client: Client) -> None:
    assert client.call("QueryReferenceValue", {"reference_value_id": "nothing"}) == {"message": {}}
    message = sample(**{"a/b:c": [1, "x"], "plain": True})
    assert client.call("RegisterReferenceValue", {"message": message}, service.token) == {"message": {}}
    found = client.call("QueryReferenceValue", {"reference_value_id": "a/b:c"})["message"]
    assert json.loads(found["reference_value_results"]) == [1, "x"]
    for wrong in (
        "",
        "[]",
        "[" * 3000,
        '{"version":"9"}',
        json.dumps({"version": "0.1.0", "type": "corim", "payload": ""}),
    ):
        assert client.call("RegisterReferenceValue", {"message": wrong}, service.token)["status"] == "ABORTED"


def test_reference_values_beside_the_verifier(service: Service, client: Client) -> None:
    register_and_query(service, client)


def test_the_reference_value_service_alone(tmp_path: Path) -> None:
    running = Service(tmp_path / "data", ("--grpc", "127.0.0.1:0"), ("reference", "serve")).start()
    alone = Client(tmp_path / "protos", running.said["gRPC"])
    try:
        register_and_query(running, alone)
        assert alone.call("AttestationEvaluate", {})["status"] == "UNIMPLEMENTED"
    finally:
        alone.close()
        assert running.stop() == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/attestation", b"", 400),
        ("POST", "/attestation", b"[" * 100_000, 400),
        ("POST", "/attestation", b'{"verification_requests":[]}', 400),
        ("POST", "/attestation", b'{"verification_requests":[],"policy_ids":[]}', 400),
        ("POST", "/attestation", b"x" * 2_100_000, 413),
        ("GET", "/attestation", None, 405),
        ("PUT", "/policy", b"", 405),
        ("POST", "/challenge", b"{}", 400),
        ("GET", "/nothing", None, 404),
        ("GET", "/kbs/v0/auth", None, 404),
        ("GET", "/healthz", None, 200),
    ],
)
def test_rest_edges(service: Service, method: str, path: str, body: bytes | None, status: int) -> None:
    with contextlib.suppress(ConnectionError):
        assert service.rest(method, path, body)[0] == status


def test_rest_says_why_as_cocos_does(service: Service, root: DevelopmentRoot) -> None:
    status, text = service.rest("POST", "/attestation", rest_body(root, runtime_data={"structured": {"nonce": "x"}}))
    assert status == 500 and text.startswith("An internal error occured:") and "[report_data_mismatch]" in text
    assert service.rest("POST", "/attestation", rest_body(root, runtime_data=None))[0] == 500
    both = {"raw": "AA", "structured": {}}
    assert service.rest("POST", "/attestation", rest_body(root, runtime_data=both))[0] == 400


def certificates(place: Path) -> tuple[Path, Path, Path]:
    """A CA of its own, and a client that it certifies."""
    key, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    now = datetime.fromtimestamp(time.time(), UTC)

    def made(name: str, public: Any, *, ca: bool) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clients")]))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )

    paths = place / "ca.pem", place / "client.pem", place / "client.key"
    paths[0].write_bytes(made("clients", key.public_key(), ca=True).public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(made("kbs", own.public_key(), ca=False).public_bytes(serialization.Encoding.PEM))
    paths[2].write_bytes(
        own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def test_mutual_tls(tmp_path: Path) -> None:
    ca, certificate, key = certificates(tmp_path)
    running = Service(
        tmp_path / "data",
        ("--grpc", "127.0.0.1:0", "--rest", "127.0.0.1:0", "--client-ca", str(ca), "--changes-by", "peers"),
    ).start()
    server = running.said["TLS"]
    known = Client(tmp_path / "protos", running.said["gRPC"], server, str(certificate), str(key))
    stranger = Client(tmp_path / "protos", running.said["gRPC"], server)
    try:
        message = {"message": sample(x=1)}
        assert known.call("RegisterReferenceValue", message) == {
            "message": {}
        }  # as CoCo's KBS calls it, without a token
        assert stranger.call("RegisterReferenceValue", message)["status"] == "UNAVAILABLE"
        context = ssl.create_default_context(cafile=server)
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            running.rest("GET", "/healthz", context=context)
        context.load_cert_chain(certificate, key)
        assert running.rest("GET", "/healthz", context=context)[0] == 200
    finally:
        known.close()
        stranger.close()
        assert running.stop() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--changes-by", "peers"),
        ("--client-ca", "CA", "--no-tls"),
        ("--grpc", "nowhere"),
        ("--grpc", "127.0.0.1:99999"),
    ],
)
def test_settings_that_contradict_each_other(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ca = certificates(tmp_path)[0]
    with pytest.raises(RuntimeError):
        Service(tmp_path / "data", tuple(str(ca) if part == "CA" else part for part in arguments)).start()
