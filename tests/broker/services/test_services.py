"""The attestation service and the reference value service as processes of their own, and clients that know only CoCo's wire."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.broker import rig
from tests.broker.services.service_rig import (
    ALLOW_ALL,
    RUNTIME,
    Client,
    Service,
    b64url,
    certificates,
    evidence,
    healthy,
    own_channel,
    request,
    rest_body,
    sample,
    silent,
    trust,
)  # fmt: skip
from tests.waiting import LONG, until

from adyton.crypto.jwt import verify_any, verifying_keys
from adyton.devtee.root import DevelopmentRoot


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> DevelopmentRoot:
    return rig.make_root(tmp_path_factory.mktemp("root"))


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


def test_one_connection_of_silent_callers_keeps_nobody_waiting(service: Service) -> None:
    with own_channel(service) as bad, own_channel(service) as good:
        for _ in range(4):
            calls = silent(bad, 100)
            time.sleep(0.5)
            assert healthy(good)
            for call in calls:
                call.cancel()
            until(lambda: healthy(bad), what="the connection's calls are not free again")


def test_what_is_refused_leaves_no_traceback(service: Service) -> None:
    with own_channel(service) as channel:
        for message in (b"", b"\xff"):
            with pytest.raises(grpc.RpcError):
                channel.unary_unary("/attestation.AttestationService/AttestationEvaluate")(message, timeout=LONG)
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
        assert healthy(good)  # half of all may wait for their clients; others went
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
        json.dumps({"version": "0.1.0", "type": "spdm", "payload": ""}),
    ):
        assert client.call("RegisterReferenceValue", {"message": wrong}, service.token)["status"] == "INVALID_ARGUMENT"


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
