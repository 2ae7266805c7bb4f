"""Dry runs, recordings and ``policy test`` on a real broker: nothing on trial ever has a say."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from tests.broker import rig
from tests.waiting import until

from adyton.broker.door.asked import Asked
from adyton.broker.policy.policies import PolicyBook
from adyton.broker.policy.rego import RegoEngine
from adyton.broker.policy.trial import Bench, Named
from adyton.broker.policy.trial_api import TrialApi
from adyton.cli import adyton
from adyton.client.admin import Admin
from adyton.client.handshake import Session
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import AdytonError, DocumentInvalid, MalformedRequest, PolicyInvalid, ReleaseRefused, TooMany
from adyton.protocol import recording, recording_files
from adyton.protocol.audit_row import PolicyUsed
from adyton.protocol.policies import TestBody
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores.sqlite import Store

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ANY = Binding(any_workload_i_accept=True)
PATH = ResourcePath("models", "key", "1")
HEAD = "package policy\nimport rego.v1\n"
ALLOW, DENY = HEAD + "default allow := true\n", HEAD + "default allow := false\n"
GOOD = '{"hardware": 2, "executables": 3, "configuration": 2}'
ACCEPT = HEAD + f"trust_claims := {GOOD}\n"
STRICT = HEAD + f"trust_claims := {GOOD} if input.snp.reported_tcb_microcode >= 250\n"
LOOP = (
    HEAD
    + 'trust_claims := {"hardware": count([x | some a in numbers.range(1, 3000); some b in numbers.range(1, 3000); x := a * b])}\n'
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trials")


@pytest.fixture
def admin(broker: rig.RunningBroker) -> Iterator[Admin]:
    broker.publish("trials")
    with broker.admin("trials") as admin:
        admin.set_resource(PATH, b"one", ANY)
        yield admin
        for view in admin.list_policies():
            admin.delete_policy(view.kind, view.id)
        admin.forget_recordings()


def got(broker: rig.RunningBroker, root: DevelopmentRoot) -> bool:
    with Session(broker.address("trials"), rig.attester(root), rig.document().raw) as session:
        try:
            return session.resource(PATH) == b"one"
        except ReleaseRefused:
            return False


def test_a_dry_run_changes_no_answer_and_is_counted(
    broker: rig.RunningBroker, root: DevelopmentRoot, admin: Admin
) -> None:
    admin.set_policy("resource", "resource-policy", ALLOW)
    trial = admin.set_policy("resource", "resource-policy", DENY, activate=False)
    got(broker, root)
    with Session(broker.address("trials"), rig.attester(root), rig.document().raw) as session:
        assert session.resource(PATH) == b"one"
        admin.dry_run_policy("resource", "resource-policy", trial.version)
        assert session.resource(PATH) == b"one"  # its beginning ends nobody's session
    until(  # a worker looks for dry runs once a second
        lambda: got(broker, root) and admin.dry_runs("resource", "resource-policy")[0].differ >= 3
    )
    assert all(got(broker, root) for _ in range(3))
    rows = [entry["row"] for entry in admin.audit(limit=30) if "dry_run" in entry["row"]]
    assert rows and rows[-1]["dry_run"]["policy"]["version"] == trial.version
    assert (rows[-1]["dry_run"]["said"], rows[-1]["dry_run"]["would"]) == ("allow", "deny")
    assert any(one["sequence"] == rows[-1]["dry_run"]["sequence"] for one in admin.audit(limit=60))
    admin.end_dry_run("resource", "resource-policy")
    assert admin.dry_runs("resource", "resource-policy") == []


def test_a_dry_run_that_loops_refuses_nobody(broker: rig.RunningBroker, root: DevelopmentRoot, admin: Admin) -> None:
    active = admin.set_policy("attestation", "default_cpu", ACCEPT)
    trial = admin.set_policy("attestation", "default_cpu", LOOP, activate=False)
    admin.dry_run_policy("attestation", "default_cpu", trial.version)
    answers: list[bool] = []

    def counted() -> bool:
        answers.append(got(broker, root))
        return admin.dry_runs("attestation", "default_cpu")[0].failed >= 1

    until(counted)
    assert all(answers) and all(got(broker, root) for _ in range(5))
    (run,) = admin.dry_runs("attestation", "default_cpu")
    assert run.same == 0 and run.differ == 0
    assert admin.show_policy("attestation", "default_cpu").version == active.version
    admin.end_dry_run("attestation", "default_cpu")


def test_nothing_is_recorded_unasked_and_what_is_can_be_tried(
    broker: rig.RunningBroker, root: DevelopmentRoot, admin: Admin, home: Path
) -> None:
    got(broker, root)
    assert admin.recordings() == []
    for wrong in ("{}", '{"keep": -1}', '{"keep": 1, "days": 0}', '{"keep": 1, "more": 1}', "x"):
        with pytest.raises(PolicyInvalid):
            admin.set_policy("requirements", "record", wrong)
    admin.set_policy("requirements", "record", '{"keep": 5, "days": 1}')
    assert got(broker, root)
    until(lambda: got(broker, root) and len(admin.recordings()) == 5)
    assert got(broker, root) and len(admin.recordings()) == 5  # no more than were to be kept
    kept = [recording.decode(line) for line in admin.recordings()]
    assert {one.kind for one in kept} == {"attestation", "resource"} and all(one.sequence for one in kept)
    assert b"the secret" not in b"".join(admin.recordings())
    with broker.admin("stranger") as stranger:
        assert stranger.recordings() == []

    same = admin.test_policy(TestBody("attestation", "default_cpu", _default()))
    assert same.tried == same.same > 0  # the same text on the same evidence: nothing changes
    strict = admin.test_policy(TestBody("attestation", "default_cpu", STRICT))
    assert strict.worse == strict.tried and "cpu0.executables: 3 -> 0" in strict.trials[0].changed
    deny = admin.test_policy(TestBody("resource", "resource-policy", DENY))
    assert deny.tried == deny.worse > 0 and deny.trials[0].changed == ("allow: allow -> deny",)
    with pytest.raises(PolicyInvalid):
        admin.test_policy(TestBody("resource", "resource-policy", "package policy\nallow := "))
    with pytest.raises(MalformedRequest):
        admin.test_policy(TestBody("requirements", "snp", "{}"))
    assert admin.list_policies()[0].id == "record" and len(admin.list_policies()) == 1  # nothing was set

    lines = home / "recordings.jsonl"
    lines.write_bytes(b"\n".join(admin.recordings()))
    admin.set_policy("requirements", "record", '{"keep": 0}')
    admin.forget_recordings()
    assert admin.recordings() == []


def _default() -> str:
    from adyton.appraisal.policies import DEFAULT_CPU

    return DEFAULT_CPU


# --- without a broker


def evidence(home: Path, **change: object) -> Path:
    file = home / "evidence.json"
    snp = {"measurement": "ab" * 48, "reported_tcb_microcode": 100, "policy_debug_allowed": False, **change}
    file.write_text(json.dumps({"snp": snp, "adyton": {"tee": "snp", "root": "vendor", "measurement": "ab" * 48}}))
    return file


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(adyton, ["policy", "test", *map(str, arguments)])
    return result.exit_code, result.output


def test_files_are_tried_without_a_broker_and_the_cause_is_named(tmp_path: Path) -> None:
    base, candidate = tmp_path / "base.rego", tmp_path / "new.rego"
    rule = HEAD + f"trust_claims := {GOOD} if {{\n\tinput.snp.policy_debug_allowed == false\n"
    base.write_text(rule + "}\n")
    candidate.write_text(rule + '\tinput.snp.measurement in query_reference_value("known")\n}\n')
    known = tmp_path / "references.json"
    known.write_text(json.dumps({"known": ["cd" * 48]}))
    asked = ("--against", evidence(tmp_path), "--baseline", base, "--references", known, "--json")
    status, output = run(candidate, *asked)
    report = json.loads(output)
    assert status == 1 and report["worse"] == 1
    assert [cause["path"] for cause in report["trials"][0]["causes"]] == ["input.snp.measurement"]
    status, output = run(base, *asked)
    assert (status, json.loads(output)["same"]) == (0, 1)
    known.write_text(json.dumps({"known": ["ab" * 48]}))
    assert run(candidate, *asked)[0] == 0


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    for data in (b"", b"{}", b"[]", b"a.b.c", b"x", b'{"submods": 1}', b'{"form": "adyton-recording/1"}', b"\xff"):
        with pytest.raises(DocumentInvalid):
            recording_files.read(data, "x")
        with pytest.raises(AdytonError):
            recording.decode(data)
    assert recording_files.read(evidence(tmp_path).read_bytes(), "x")[0].appraised[0].tee == "snp"


def test_a_trial_ends_in_time() -> None:
    """A policy that loops takes a tenth of a second and a new process each time: thousands of decisions are not waited for."""
    nothing = PolicyUsed("attestation", "default_cpu")
    evidence = [
        recording.Recording(
            kind="attestation",
            time="2030-01-01T00:00:00Z",
            sequence=number,
            appraised=(recording.Appraised("cpu0", "snp", "vendor", {"snp": {"measurement": str(number)}}, (0,) * 8),),
        )
        for number in range(500)
    ]
    engine = RegoEngine()
    try:
        bench = Bench(engine, "attestation", "default_cpu", Named(nothing, None), Named(nothing, LOOP), {}, seconds=0.5)
        began = time.monotonic()
        with pytest.raises(PolicyInvalid) as caught:
            bench.run(evidence)
    finally:
        engine.close()
    assert caught.value.code == "policy_test_too_long"
    assert time.monotonic() - began < 15  # and not the minute that so many would take


def test_one_trial_at_a_time(tmp_path: Path) -> None:
    """Who waited for another's would hold a thread that all tenants' administration needs."""
    store = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    engine = RegoEngine()
    try:
        api = TrialApi(store, PolicyBook(store, engine))
        body = msgspec.json.encode(TestBody("resource", "resource-policy", DENY))
        asked = Asked("POST", "default", body, NOW)
        with api._busy, pytest.raises(TooMany):
            api.handle(asked, ("policy-tests",))
        assert api.handle(asked, ("policy-tests",)).status == 200
    finally:
        engine.close()
        store.close()
