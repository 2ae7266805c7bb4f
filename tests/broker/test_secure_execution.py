"""IBM Secure Execution at a real broker: the request in the nonce's place, and a guest with firmware that answers it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.broker import rig

from adyton.crypto import jwe, jwk
from adyton.crypto.x509 import Certificate, spki_fingerprint
from adyton.devtee import se as forging
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.rats import binding
from adyton.tee.se import json_form
from adyton.tee.se.header import HeaderTags
from adyton.tee.se.json_form import Response
from adyton.wire import b64

PATH = ResourcePath("default", "se", "1")
RESOURCE = "/kbs/v0/resource/default/se/1"
OFFER = {"supported-hash-algorithms": ["sha256", "SHA512", "sha384"]}


@dataclass
class World:
    broker: rig.RunningBroker
    machine: forging.Machine
    stranger: forging.Machine

    def challenge(self, client: rig.Raw, offer: Any = OFFER, version: str = "0.4.0", tee: str = "se") -> Any:
        sent = {"version": version, "tee": tee, "extra-params": offer}
        status, read, _ = client.ask("POST", "/kbs/v0/auth", json.dumps(sent))
        return status, json.loads(read)

    def evidence(
        self, nonce: str, members: dict[str, str], algorithm: str = "sha512", machine: forging.Machine | None = None
    ) -> dict[str, Any]:
        """What CoCo's attester makes of a challenge: the digest, padded to 64 bytes, is what firmware vouches for."""
        asked = json.loads(nonce)
        bound = hashlib.new(algorithm, binding.primary_object(nonce, members)).digest().ljust(64, b"\0")
        answer = (machine or self.machine).attest(b64.decode(asked["request_blob"]), bound)
        response = Response(
            answer.measurement, answer.additional_data, answer.user_data, answer.cuid,
            HeaderTags.parse(b64.decode(asked["image_hdr_tags"])),
            (b64.decode(asked["encr_measurement_key"]), b64.decode(asked["encr_request_nonce"])),
        )  # fmt: skip
        return json_form.to_json(response)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    place: Path = tmp_path_factory.mktemp("se")
    forge = forging.SeForge.new(datetime.fromtimestamp(time.time(), UTC))
    machine = forging.Machine(forging.image_header())
    machine = forging.Machine(forging.image_header(machine.key_hash), machine.key)
    stranger = forging.Machine(forging.image_header(machine.key_hash), machine.key)
    endorsements = place / "endorsements"
    endorsements.mkdir()
    certificates = forge.certificates()
    for number, blob in enumerate(certificates):
        (endorsements / f"{number}.crt").write_bytes(blob)
    for number, blob in enumerate(forge.crls()):
        (endorsements / f"{number}.crl").write_bytes(blob)
    (place / "hkd.crt").write_bytes(forge.host_key_document(machine.key.public_key()))
    (place / "image.hdr").write_bytes(machine.image.encode())
    root = spki_fingerprint(Certificate(certificates[2])).hex()
    broker = rig.started(
        place / "data", None, "--environment", "test", "--trust-dev-root", root, "--endorsements", str(endorsements),
        "--se-host-key-document", str(place / "hkd.crt"), "--se-image-header", str(place / "image.hdr"),
    )  # fmt: skip
    with broker.admin() as admin:
        admin.set_resource(PATH, rig.SECRET, Binding(any_workload_i_accept=True))
    yield World(broker, machine, stranger)
    assert broker.stop() == 0


def attest(client: rig.Raw, nonce: str, members: dict[str, str], evidence: Any, additional: str = "") -> Any:
    body = {
        "runtime-data": {"nonce": nonce, "tee-pubkey": members},
        "tee-evidence": {"primary_evidence": evidence, "additional_evidence": additional},
    }
    status, read, _ = client.ask("POST", "/kbs/v0/attest", json.dumps(body))
    return status, json.loads(read)


def key_pair() -> tuple[ec.EllipticCurvePrivateKey, dict[str, str]]:
    key = ec.generate_private_key(ec.SECP256R1())
    return key, dict(jwk.from_public(key.public_key()).members)


def test_versions_that_cannot_say_which_request_they_answer(world: World) -> None:
    with rig.raw(world.broker) as client:
        for version in ("0.1.1", "0.2.0", "0.3.0"):
            status, answer = world.challenge(client, version=version)
            assert status == 401 and "tee_unsupported" in answer["detail"]


def test_not_served_without_its_files(broker: rig.RunningBroker) -> None:
    with rig.raw(broker) as client:
        sent = {"version": "0.4.0", "tee": "se", "extra-params": ""}
        assert client.ask("POST", "/kbs/v0/auth", json.dumps(sent))[0] == 401


def test_another_image_and_another_key_and_another_challenge(world: World) -> None:
    _, members = key_pair()
    _, others = key_pair()
    with rig.raw(world.broker) as client, rig.raw(world.broker) as second:
        nonce = world.challenge(client)[1]["nonce"]
        for evidence, code in (
            (world.evidence(nonce, members, machine=world.stranger), "measurement_mac"),
            (world.evidence(nonce, others), "report_data_mismatch"),
            (world.evidence(nonce, members, "sha384"), "report_data_mismatch"),
        ):
            status, answer = attest(client, nonce, members, evidence)
            assert status == 401 and code in answer["detail"], answer
        stale = world.evidence(nonce, members)
        fresh = world.challenge(second)[1]["nonce"]
        assert "nonce_mismatch" in attest(second, nonce, members, stale)[1]["detail"]
        assert "report_data_mismatch" in attest(second, fresh, members, stale)[1]["detail"]
        good = world.evidence(fresh, members)
        device = json.dumps({"sampledevice": {}})
        assert attest(second, fresh, members, good, device)[0] == 401


def test_secrets_that_the_broker_did_not_seal(world: World) -> None:
    """Bug: a measurement key out of the evidence is anybody's."""
    _, members = key_pair()
    with rig.raw(world.broker) as client:
        nonce = world.challenge(client)[1]["nonce"]
        for name in ("encr_measurement_key", "encr_request_nonce"):
            evidence = world.evidence(nonce, members)
            changed = bytearray(b64.decode(evidence[name]))
            changed[-1] ^= 1
            status, answer = attest(client, nonce, members, {**evidence, name: b64.encode(bytes(changed))})
            assert status == 401 and "measurement_key_foreign" in answer["detail"]


def test_a_challenge_of_another_tenant(world: World) -> None:
    _, members = key_pair()
    with rig.raw(world.broker, "/t/other") as other, rig.raw(world.broker) as client:
        foreign = world.challenge(other)[1]["nonce"]
        world.challenge(client)
        assert attest(client, foreign, members, world.evidence(foreign, members))[0] == 401


@pytest.mark.parametrize(("offer", "algorithm"), [(OFFER, "sha512"), ("", "sha384")])
def test_the_guest_gets_its_secret(world: World, offer: Any, algorithm: str) -> None:
    key, members = key_pair()
    with rig.raw(world.broker) as client:
        status, challenge = world.challenge(client, offer)
        assert status == 200
        assert challenge["extra-params"] == ({"selected-hash-algorithm": "sha512"} if offer else "")
        asked = json.loads(challenge["nonce"])
        assert (asked["measurement_size"], asked["additional_size"]) == (64, 64)
        nonce = challenge["nonce"]
        status, answer = attest(client, nonce, members, world.evidence(nonce, members, algorithm))
        assert status == 200, answer
        status, read, _ = client.ask("GET", RESOURCE)
        assert status == 200, read
        assert jwe.decrypt(key, read) == rig.SECRET


def test_files_that_are_not_that(tmp_path: Path) -> None:
    (tmp_path / "none").write_bytes(b"nothing")
    for arguments in (
        ("--se-host-key-document", str(tmp_path / "none")),
        ("--se-host-key-document", str(tmp_path / "none"), "--se-image-header", str(tmp_path / "none")),
        ("--se-root", "ab"),
    ):
        with pytest.raises(RuntimeError, match="the broker ended"):
            rig.started(tmp_path / "data", None, *arguments)
