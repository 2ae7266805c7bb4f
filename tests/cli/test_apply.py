"""Tenants as one document: said first, done once, and nothing the second time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.broker import rig

from adyton.cli import adyton
from adyton.cli.output import run
from adyton.errors import DocumentInvalid
from adyton.protocol import declared
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath

DIGEST = "sha256:" + "ab" * 32
POLICY = "package policy\nimport rego.v1\ndefault allow := false\n"
DOCUMENT = f"""
[tenants.default.quotas]
resources = 50

[tenants.default.resources."default/key/1"]
file = "key.bin"
binding = {{ workloads = ["{DIGEST}"] }}

[tenants.default.policies."resource/resource-policy"]
file = "policy.rego"

[tenants.default.references.snp_launch_measurement]
value = ["{"cd" * 48}"]
expires = "2099-01-01T00:00:00Z"

[tenants.default.providers.ci]
names = ["ci_*"]
kinds = ["json"]
accept = ["unsigned-documents-i-accept"]
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.RunningBroker]:
    running = rig.started(tmp_path_factory.mktemp("apply") / "data", None)
    yield running
    assert running.stop() == 0


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ({}, "tenants"), ({"tenants": {"a": {"resource": {}}}}, "resource"), ({"tenants": {}, "format": 2}, "format"),
        ({"tenants": {"a": {"resources": {"one/two": {}}}}}, "one/two"),
        ({"tenants": {"a": {"policies": {"attestation": {"text": "x"}}}}}, "attestation"),
        ({"tenants": {"a": {"policies": {"attestation/x": {}}}}}, "attestation/x"),
        ({"tenants": {"a": {"policies": {"attestation/x": {"text": "x", "file": "y"}}}}}, "attestation/x"),
        ({"tenants": {"a": {"resources": {"a/b/c": {"binding": {"anybody": True}}}}}}, "binding"),
        ({"tenants": {"a": {"resources": {"a/b/c": {"value": "c2VjcmV0"}}}}}, "value"),
        ({"tenants": []}, "tenants"),
    ],
)  # fmt: skip
def test_documents_that_say_nothing_clear(document: dict[str, object], where: str) -> None:
    with pytest.raises(DocumentInvalid) as refused:
        declared.read(document)
    assert where in f"{refused.value.field} {refused.value.message}"


def call(broker: rig.RunningBroker, *arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = run(
        adyton,
        [*arguments, "--broker", broker.description["url"], "--admin-token-file", str(broker.data / "admin.token")],
    )
    told = capsys.readouterr()
    return status, told.out, told.err


def test_apply_is_said_first_and_done_once(
    broker: rig.RunningBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tenants.toml"
    file.write_text(DOCUMENT)
    status, _, err = call(broker, "apply", "-f", str(file), capsys=capsys)
    assert status == 3 and "policy.rego" in err
    (tmp_path / "policy.rego").write_text(POLICY)
    (tmp_path / "key.bin").write_bytes(b"the value itself")
    status, out, _ = call(broker, "apply", "-f", str(file), "--diff", capsys=capsys)
    assert status == 0 and "+ default: resource default/key/1" in out and "the value itself" not in out
    with broker.admin() as admin:
        assert admin.list_resources() == []
    assert call(broker, "diff", "-f", str(file), capsys=capsys)[0] == 1
    status, out, err = call(broker, "apply", "-f", str(file), capsys=capsys)
    assert status == 0 and out.count("\n+ ") + out.startswith("+ ") == 4 and "5 change(s) made" in err, (out, err)
    status, out, err = call(broker, "apply", "-f", str(file), capsys=capsys)
    assert (status, out) == (0, "") and "nothing to change" in err
    assert call(broker, "diff", "-f", str(file), capsys=capsys)[0] == 0
    with broker.admin() as admin:
        view = admin.show_resource(ResourcePath("default", "key", "1"))
        assert view.binding == Binding(workloads=[DIGEST])
        admin.bind_resource(ResourcePath("default", "key", "1"), Binding())
        admin.set_resource(ResourcePath("default", "key", "2"), b"by hand", Binding())
    status, out, _ = call(broker, "apply", "-f", str(file), "--json", capsys=capsys)
    (change,) = [json.loads(line) for line in out.splitlines()]
    assert (change["kind"], change["verb"]) == ("binding", "change")
    status, out, _ = call(broker, "diff", "-f", str(file), "--prune", capsys=capsys)
    assert status == 1 and "- default: resource default/key/2" in out
    assert call(broker, "apply", "-f", str(file), "--prune", capsys=capsys)[0] == 0
    with broker.admin() as admin:
        assert [one.uri for one in admin.list_resources()] == ["kbs:///default/key/1"]
    status, out, _ = call(broker, "export", capsys=capsys)
    assert status == 0 and "the value itself" not in out
    (tmp_path / "out.json").write_text(out)
    status, changes, _ = call(broker, "diff", "-f", str(tmp_path / "out.json"), "--prune", capsys=capsys)
    assert (status, changes) == (0, ""), "what was exported is what is there"


def test_status(broker: rig.RunningBroker, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(broker, "broker", "status", capsys=capsys)
    assert status == 0 and out.startswith("ready: Adyton") and "policy engine" in out
    status, out, _ = call(broker, "broker", "status", "--json", capsys=capsys)
    assert json.loads(out)["ready"] is True


def test_reload_without_a_broker(tmp_path: Path) -> None:
    done = CliRunner(env={"ADYTON_HOME": str(tmp_path)}).invoke(adyton, ["broker", "reload"])
    assert done.exit_code != 0
