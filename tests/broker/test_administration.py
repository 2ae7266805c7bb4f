"""Administration: by token only, ours and CoCo's, and nothing that is acknowledged is not in force."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.broker import rig
from tests.waiting import until

from adyton.client.admin import Admin
from adyton.client.handshake import Session
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import (
    AdytonError,
    MalformedRequest,
    NotFound,
    NotPermitted,
    PolicyInvalid,
    ReleaseRefused,
    TooLarge,
    Unavailable,
)
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.rats.types import JsonValue
from adyton.wire import b64

PATH = ResourcePath("admin", "key", "1")
ANY = Binding(any_workload_i_accept=True)
ALLOW = "package policy\n\ndefault allow := true\n"


def coco(broker: rig.RunningBroker, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    token = (broker.data / "admin.token").read_text().strip()
    sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    with rig.raw(broker) as client:
        status, read, _ = client.ask(method, path, sent, {"Authorization": f"Bearer {token}"})
    return status, read


@pytest.mark.parametrize("token", ["", "x", "x" * 43, "é" * 43])
def test_other_tokens(broker: rig.RunningBroker, token: str) -> None:
    with pytest.raises(NotPermitted), Admin(broker.address(), token) as admin:
        admin.list_resources()


def test_a_resource_from_birth_to_death(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with broker.admin() as admin, Session(broker.address(), rig.attester(root), rig.document().raw) as session:
        with pytest.raises(NotFound):
            admin.show_resource(PATH)
        assert admin.set_resource(PATH, b"one", Binding()).size == 3
        with pytest.raises(ReleaseRefused):
            session.resource(PATH)
        admin.bind_resource(PATH, ANY)
        assert session.resource(PATH) == b"one"
        admin.set_resource(PATH, b"two", ANY)
        assert session.resource(PATH) == b"two"
        assert PATH.uri in {view.uri for view in admin.list_resources()}
        assert b"two" not in json.dumps([view.uri for view in admin.list_resources()]).encode()
        admin.delete_resource(PATH)
        with pytest.raises(NotFound):  # acknowledged, so no session decides by the old state
            session.resource(PATH)
        for gone in (admin.delete_resource, admin.show_resource):
            with pytest.raises(NotFound):
                gone(PATH)
        with pytest.raises(NotFound):
            admin.bind_resource(PATH, ANY)


@pytest.mark.parametrize(
    "binding",
    [
        Binding(workloads=["sha256:xyz"]),
        Binding(workloads=["ab/sha256:" + "0" * 64]),
        Binding(images=["latest"]),
        Binding(signers=["sha512:" + "0" * 128]),
        Binding(policy=""),
        Binding(workloads=["sha256:" + "0" * 64] * 1001),
    ],
)
def test_bindings_that_could_never_match(broker: rig.RunningBroker, binding: Binding) -> None:
    with broker.admin() as admin, pytest.raises(MalformedRequest):
        admin.set_resource(PATH, b"x", binding)


@pytest.mark.parametrize(
    "text",
    [
        "not rego",
        "package other\nallow := true",
        'package policy\nallow := http.send({"method": "get", "url": "http://x"})',
        "package policy\nallow := opa.runtime().env",
        "package policy\nallow := time.now_ns() > 0",
        "package policy\nallow := " + "[" * 2000 + "]" * 2000,
        "",
    ],
)
def test_policies_that_are_not_accepted(broker: rig.RunningBroker, text: str) -> None:
    with broker.admin("refusing") as admin:
        for kind, name in (("attestation", "default_cpu"), ("resource", "resource-policy")):
            with pytest.raises((PolicyInvalid, MalformedRequest)):
                admin.set_policy(kind, name, text)
        assert not admin.list_policies()


def test_a_policy_from_birth_to_death(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    tenant = "one-policy"
    broker.publish(tenant)
    with broker.admin(tenant) as admin, broker.session(rig.attester(root), tenant=tenant) as session:
        admin.set_resource(PATH, b"one", ANY)
        assert session.resource(PATH) == b"one"
        admin.set_policy("resource", "resource-policy", "package policy\n\ndefault allow := false\n")
        with pytest.raises(ReleaseRefused):
            session.resource(PATH)
        view = admin.show_policy("resource", "resource-policy")
        assert "allow := false" in view.text
        assert [one.text for one in admin.list_policies()] == [""]
        admin.delete_policy("resource", "resource-policy")
        assert session.resource(PATH) == b"one"
        admin.delete_resource(PATH)


def _nested(depth: int) -> JsonValue:
    return [_nested(depth - 1)] if depth else 1


def test_reference_values(broker: rig.RunningBroker) -> None:
    published: dict[str, JsonValue] = {"a b/c%": [1, "x", None], "ü": True, "n": 0}
    refused: list[tuple[str, JsonValue, str | None]] = [
        ("x", None, None), ("x", 1, "yesterday"), ("x", 1, "2001-01-01T00:00:00Z"), ("", 1, None), ("x", 1 << 70, None),
        ("x", 0.123456789, None), ("x", _nested(70), None), ("x", 1, "9999-12-31T23:59:59-23:59"),
        ("x", 1, "0001-01-01T00:00:00+23:59"),
    ]  # fmt: skip
    with broker.admin("references") as admin:
        for name, value in published.items():
            admin.set_reference(name, value, "2099-01-01T00:00:00Z")
            assert admin.show_reference(name).value == value
        assert [view.name for view in admin.list_references()] == sorted(["a b/c%", "ü", "n"])
        for name, value, expires in refused:
            with pytest.raises(AdytonError) as caught:
                admin.set_reference(name, value, expires)
            assert not isinstance(caught.value, Unavailable)
        admin.delete_reference("n")
        with pytest.raises(NotFound):
            admin.show_reference("n")


def test_tenants_do_not_see_each_other(broker: rig.RunningBroker) -> None:
    with broker.admin("has-one") as one, broker.admin("has-none") as two:
        one.set_resource(PATH, b"x", ANY)
        assert not two.list_resources()
        with pytest.raises(NotFound):
            two.show_resource(PATH)
        assert not two.audit()
        assert one.audit()
    with pytest.raises(MalformedRequest), rig.raw(broker) as client:
        status, body, _ = client.ask("GET", "/t/..%2f/api/v0/resources")
        assert status == 404
        raise MalformedRequest(body.decode())


def test_too_large(broker: rig.RunningBroker) -> None:
    with broker.admin() as admin, pytest.raises(TooLarge):
        admin.set_resource(PATH, bytes(3_000_000), ANY)


def test_every_change_is_written_down(broker: rig.RunningBroker) -> None:
    with broker.admin("audited") as admin:
        admin.set_resource(PATH, b"x", ANY)
        admin.set_reference("r", 1)
        admin.delete_reference("r")
        admin.delete_resource(PATH)
        rows = [entry["row"] for entry in admin.audit()]
        assert [row["action"] for row in rows] == [
            "resource.set",
            "reference.set",
            "reference.delete",
            "resource.delete",
        ]
        assert all(row["actor"] == "admin" for row in rows)
        assert len(admin.audit(limit=2)) == 2
        assert [entry["sequence"] for entry in admin.audit(after=1, limit=2)] == [2, 3]
        assert not admin.audit(since="2099-01-01T00:00:00Z")
        for since in ("yesterday", "2026-01-01T00:00:00"):
            with pytest.raises(MalformedRequest):
                admin.audit(since=since)


# ---------------------------------------------------------------- CoCo's own tools


def test_cocos_resource(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    path = "/kbs/v0/resource/coco/key/1"
    assert coco(broker, "POST", path, b"raw \0 bytes") == (200, b"")
    with broker.admin() as admin, Session(broker.address(), rig.attester(root), rig.document().raw) as session:
        resource = ResourcePath("coco", "key", "1")
        assert admin.show_resource(resource).binding.is_empty  # nobody gets it until its owner says who
        with pytest.raises(ReleaseRefused):
            session.resource(resource)
        admin.bind_resource(resource, ANY)
        assert session.resource(resource) == b"raw \0 bytes"
        assert coco(broker, "POST", path, b"new value") == (200, b"")
        assert admin.show_resource(resource).binding == ANY  # CoCo's tools cannot say it, so they do not change it
        assert session.resource(resource) == b"new value"
    assert coco(broker, "DELETE", path) == (200, b"")
    assert coco(broker, "DELETE", path)[0] == 404


def test_cocos_policies(broker: rig.RunningBroker) -> None:
    text = b64.encode_url(ALLOW.encode())
    assert coco(broker, "POST", "/kbs/v0/resource-policy", {"policy": text, "type": "rego"}) == (200, b"")
    assert coco(broker, "GET", "/kbs/v0/resource-policy") == (200, b'["resource-policy"]')
    bad: list[object] = [{"policy": text + "="}, {"policy": 5}, {}, {"policy": b64.encode_url(b"\xff")}, [], "x"]
    for wrong in bad:
        assert coco(broker, "POST", "/kbs/v0/resource-policy", wrong)[0] == 400
    attestation = {"policy_id": "x_cpu", "policy": b64.encode_url(b"package policy\n\ntrust_claims := {}\n")}
    assert coco(broker, "POST", "/kbs/v0/attestation-policy", attestation)[0] == 200
    assert coco(broker, "POST", "/kbs/v0/attestation-policy", {"policy": text})[0] == 400
    with broker.admin() as admin:
        admin.delete_policy("resource", "resource-policy")
        admin.delete_policy("attestation", "x_cpu")


def test_cocos_reference_values(broker: rig.RunningBroker) -> None:
    def message(payload: object, kind: str = "sample") -> dict[str, object]:
        return {"version": "0.1.0", "type": kind, "payload": b64.encode(json.dumps(payload).encode())}

    assert coco(broker, "POST", "/kbs/v0/reference-value", message({"coco/x": ["a"], "y": 3})) == (200, b"")
    assert coco(broker, "GET", "/kbs/v0/reference-value/coco/x") == (200, b'["a"]')
    assert coco(broker, "GET", "/kbs/v0/reference-value/absent")[0] == 404
    bad: list[dict[str, object]] = [
        message({}), message([1]), message({"good": 1, "bad": None}), message({"good": 1, "bad": 1 << 70}), message({"a": 1}, "spdm"), {"version": "0.2.0"}, {"payload": "!"}
    ]  # fmt: skip
    for wrong in bad:
        assert coco(broker, "POST", "/kbs/v0/reference-value", wrong)[0] == 400
    assert coco(broker, "POST", "/kbs/v0/reference-value", message({"a": 1}, "swid"))[0] == 404  # nobody is a provider
    with broker.admin() as admin:
        assert "good" not in {view.name for view in admin.list_references()}  # all of a message or none of it
        admin.delete_reference("coco/x")
        admin.delete_reference("y")


def test_health_and_keys_are_open(broker: rig.RunningBroker) -> None:
    with rig.raw(broker) as client:
        assert client.ask("GET", "/healthz")[:2] == (200, b"")
        assert client.ask("HEAD", "/healthz")[:2] == (200, b"")
        keys = json.loads(client.ask("GET", "/.well-known/jwks.json")[1])["keys"]
    assert [key["alg"] for key in keys] == ["ES256"]
    assert all("d" not in key for key in keys)


def _ends_with(log: str, words: str) -> bool:
    return log.endswith("\n") and words in log[log.rfind("\n", 0, -1) + 1 :]


def test_each_request_is_one_line_of_the_log(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with rig.raw(broker) as client:
        client.ask("GET", "/kbs/v0/resource/journal/key/begins")
        until(lambda: _ends_with(broker.log(), "journal/key/begins"))  # written a moment after its answer
        before = len(broker.log())
        client.ask("GET", "/kbs/v0/resource/journal/key/1?token=hush-hush-hush")
        client.ask("GET", "/t/one/api/v0/resources", headers={"Authorization": "Bearer " + "w" * 43})
        client.ask("GET", "/healthz")
    with Session(broker.address(), rig.attester(root), rig.document().raw) as session, pytest.raises(NotFound):
        session.resource(ResourcePath("journal", "key", "1"))
    until(lambda: _ends_with(broker.log()[before:], '"resource_absent"'))
    said = broker.log()[before:]
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert [(line["path"], line["status"], line["decision"], line["reason"]) for line in lines] == [
        ("/kbs/v0/resource/journal/key/1", 401, "refused", "session_missing"),
        ("/t/one/api/v0/resources", 401, "refused", "admin_token_refused"),
        ("/kbs/v0/auth", 200, "allowed", ""),
        ("/kbs/v0/attest", 200, "allowed", ""),
        ("/kbs/v0/resource/journal/key/1", 404, "refused", "resource_absent"),
    ]
    assert "hush-hush" not in said and "w" * 20 not in said


def test_nothing_secret_is_in_the_log(broker: rig.RunningBroker) -> None:
    token = (broker.data / "admin.token").read_text().strip()
    assert token not in broker.log()
    assert rig.SECRET.decode("latin-1")[:20] not in Path(broker.data.parent / "data.log").read_text("latin-1")
