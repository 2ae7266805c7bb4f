"""The service with what is not a report and a nonce: devices beside a CPU, and IBM Secure Execution by its own challenge."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.broker.services.service_rig import RUNTIME, Client, Service, b64url
from tests.broker.test_secure_execution import World

from adyton.crypto.x509 import Certificate, spki_fingerprint
from adyton.devtee import se as forging


@pytest.fixture(scope="module")
def machine() -> forging.Machine:
    made = forging.Machine(forging.image_header())
    return forging.Machine(forging.image_header(made.key_hash), made.key)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, machine: forging.Machine) -> Iterator[Client]:
    place: Path = tmp_path_factory.mktemp("others")
    forge = forging.SeForge.new(datetime.fromtimestamp(time.time(), UTC))
    endorsements = place / "endorsements"
    endorsements.mkdir()
    certificates = forge.certificates()
    for number, blob in enumerate((*certificates, *forge.crls())):
        (endorsements / f"{number}.der").write_bytes(blob)
    (place / "hkd").write_bytes(forge.host_key_document(machine.key.public_key()))
    (place / "image").write_bytes(bytes(0x1000) + machine.image.encode())
    root = spki_fingerprint(Certificate(certificates[2])).hex()
    service = Service(
        place / "data",
        (
            "--grpc", "127.0.0.1:0", "--environment", "test", "--trust-sample-evidence", "--endorsements", str(endorsements),
            "--se-host-key-document", str(place / "hkd"), "--se-image-header", str(place / "image"), "--se-root", root,
        ),
    ).start()  # fmt: skip
    made = Client(place / "protos", service.said["gRPC"])
    yield made
    made.close()
    assert service.stop() == 0


def digest(value: Any, algorithm: str = "sha384") -> bytes:
    return hashlib.new(algorithm, json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).digest()


def claims_of(answer: dict[str, Any]) -> dict[str, Any]:
    part = answer["message"]["attestation_token"].split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def evidence(report_data: bytes, svn: str) -> str:
    return b64url(json.dumps({"svn": svn, "report_data": base64.b64encode(report_data).decode()}))


def test_a_device_beside_a_cpu(client: Client) -> None:
    shared = {name: value for name, value in RUNTIME.items() if name != "additional-evidence"}
    device = {
        "tee": "sampledevice",
        "evidence": evidence(digest(shared), "2"),
        "structured_runtime_data": json.dumps(shared),
    }
    text = json.dumps({"sampledevice": {}})
    bound = {**RUNTIME, "additional-evidence": text}
    primary = {
        "tee": "sample",
        "evidence": evidence(digest(bound), "1"),
        "structured_runtime_data": json.dumps(bound),
    }
    answer = client.call("AttestationEvaluate", {"verification_requests": [primary, device]})
    submodules = claims_of(answer)["submods"]
    assert set(submodules) == {"cpu0", "gpu0"}
    said = submodules["gpu0"]["ear.veraison.annotated-evidence"]
    assert said["runtime_data_claims"] == shared
    for wrong in ([device, primary], [device], [primary, {**device, "evidence": evidence(digest(bound), "2")}]):
        assert client.call("AttestationEvaluate", {"verification_requests": wrong})["status"] == "ABORTED"


def test_secure_execution_by_its_challenge(client: Client, machine: forging.Machine) -> None:
    """As CoCo's KBS does it: the challenge is the nonce, SHA-512, and a vendor's root is no development root."""
    answer = client.call("GetAttestationChallenge", {"inner": {"tee": "se", "tee_params": '""'}})
    nonce = answer["message"]["attestation_challenge"]
    other = client.call("GetAttestationChallenge", {"inner": {"tee": "se", "tee_params": ""}})["message"]
    members = RUNTIME["tee-pubkey"]
    world = World(None, machine, machine)  # type: ignore[arg-type]  # only the guest of it
    runtime = {"additional-evidence": "", "nonce": nonce, "tee-pubkey": members}
    piece = {
        "tee": "se",
        "evidence": b64url(json.dumps(world.evidence(nonce, members))),
        "structured_runtime_data": json.dumps(runtime),
        "runtime_data_hash_algorithm": "sha512",
    }
    good = client.call("AttestationEvaluate", {"verification_requests": [piece]})
    cpu = claims_of(good)["submods"]["cpu0"]
    assert cpu["ear.status"] == "affirming"
    assert cpu["ear.veraison.annotated-evidence"]["adyton"]["root"] == "vendor"
    stale = {**piece, "structured_runtime_data": json.dumps({**runtime, "nonce": other["attestation_challenge"]})}
    assert client.call("AttestationEvaluate", {"verification_requests": [stale]})["code"] == "report_data_mismatch"
    with_document = {**piece, "init_data_digest": b64url(b"x" * 32)}
    assert client.call("AttestationEvaluate", {"verification_requests": [with_document]})["code"] == "init_data_unbound"


def test_without_the_extra_it_is_named() -> None:
    program = (
        "import sys; sys.modules['grpc'] = None\n"
        "from adyton.errors import ConfigError\n"
        "try:\n    import adyton.broker.services.grpc_port\n"
        "except ConfigError as error:\n    print(error.code, error.hint)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.startswith("extra_missing") and "adyton[grpc]" in said


def test_nothing_but_grpc_needs_the_extra() -> None:
    program = (
        "import sys; sys.modules['grpc'] = None; import adyton.broker.services.program, adyton.cli.attestation_service"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
