"""Services as processes of their own, and clients that know only CoCo's wire."""

from __future__ import annotations

import atexit
import base64
import hashlib
import json
import os
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
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.broker import rig
from tests.waiting import LONG, until

from adyton.crypto import jwk
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
        process = self.process
        atexit.register(process.kill)  # does nothing to one that has ended
        until(lambda: "\nserving" in log.read_text() or process.poll() is not None, what=log.read_text)
        text = log.read_text()
        if "\nserving" not in text:
            raise RuntimeError(text)
        for line in text.splitlines():
            name, _, value = line.partition(" ")
            self.said.setdefault(name, value.strip().partition("  ")[0])
        return self

    @property
    def token(self) -> str:
        return (self.data / "admin.token").read_text().strip()

    def log(self) -> str:
        return (self.data.parent / f"{self.data.name}.log").read_text()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(LONG)

    def rest(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, **more: Any
    ) -> tuple[int, str]:
        request = urllib.request.Request(self.said["REST"] + path, body, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=LONG, **more) as answer:
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
        self.process.wait(LONG)
        self.process.stdout.close()


def trust(root: DevelopmentRoot) -> tuple[str, ...]:
    return (
        "--environment", "test", "--trust-dev-root", root.fingerprint, "--endorsements", str(root.endorsements),
    )  # fmt: skip


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
        return bool(channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=LONG / 10) == b"\x08\x01")
    except grpc.RpcError:
        return False


def sample(**values: Any) -> str:
    payload = base64.b64encode(json.dumps(values).encode()).decode()
    return json.dumps({"version": "0.1.0", "type": "sample", "payload": payload})


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
