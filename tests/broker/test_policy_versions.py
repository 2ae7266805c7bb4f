"""Versions, activation and rollback over the API of real brokers: nothing decides that was not activated."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.broker import rig

from adyton.client.admin import Admin
from adyton.client.handshake import Session
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import AdytonError, MalformedRequest, NotFound, PolicyInvalid, ReleaseRefused
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath

ANY = Binding(any_workload_i_accept=True)
PATH = ResourcePath("models", "key", "1")
DENY = "package policy\n\ndefault allow := false\n"
ALLOW = "package policy\n\ndefault allow := true\n"
LOOSE = 'package policy\nimport rego.v1\ntrust_claims := {"hardware": 2, "executables": 3, "configuration": 2}\n'
POLICY = ("resource", "resource-policy")
_NUMBERS = iter(range(10_000))


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory, root: DevelopmentRoot) -> Iterator[rig.RunningBroker]:
    running = rig.started(tmp_path_factory.mktemp("two") / "data", root, "--workers", "2")
    running.publish()
    yield running
    assert running.stop() == 0


@pytest.fixture
def admin(broker: rig.RunningBroker) -> Iterator[Admin]:
    """Of a tenant of this test's own."""
    tenant = f"versions-{next(_NUMBERS)}"
    broker.publish(tenant)
    with broker.admin(tenant) as admin:
        admin.set_resource(PATH, b"one", ANY)
        yield admin


def got(broker: rig.RunningBroker, root: DevelopmentRoot, admin: Admin) -> bool:
    """Whether a new session of the administrator's tenant gets the secret."""
    with Session(broker.address(tenant_of(admin)), rig.attester(root), rig.document().raw) as session:
        try:
            return session.resource(PATH) == b"one"
        except ReleaseRefused:
            return False


def tenant_of(admin: Admin) -> str:
    return admin._transport.address.tenant


def test_a_candidate_never_decides(broker: rig.RunningBroker, root: DevelopmentRoot, admin: Admin) -> None:
    view = admin.set_policy(*POLICY, DENY, activate=False, note="one day")
    assert view.state == "candidate" and admin.list_policies() == []
    assert got(broker, root, admin)
    assert [one.state for one in admin.list_policies(every=True)] == ["candidate"]
    admin.activate_policy(*POLICY, view.version)
    assert not got(broker, root, admin)
    admin.set_policy(*POLICY, ALLOW, activate=False)
    assert not got(broker, root, admin)


def test_what_does_not_compile_is_no_version(admin: Admin) -> None:
    admin.set_policy(*POLICY, ALLOW, activate=False)
    before = len(admin.policy_versions(*POLICY))
    for text in ("package policy\nallow := ", "package policy\nallow := http.send({})", ""):
        for activate in (True, False):
            with pytest.raises((PolicyInvalid, MalformedRequest)):
                admin.set_policy(*POLICY, text, activate=activate)
    assert len(admin.policy_versions(*POLICY)) == before


def test_of_another_tenant_there_is_nothing(broker: rig.RunningBroker, admin: Admin) -> None:
    version = admin.set_policy(*POLICY, DENY).version
    with broker.admin("stranger") as stranger:
        for call in (
            lambda: stranger.activate_policy(*POLICY, version),
            lambda: stranger.rollback_policy(*POLICY),
            lambda: stranger.show_policy(*POLICY, version),
            lambda: stranger.policy_versions(*POLICY),
            lambda: stranger.dry_run_policy(*POLICY, version),
        ):
            with pytest.raises(NotFound):
                call()
        assert stranger.list_policies(every=True) == [] and stranger.policy_activations(*POLICY) == []


def test_a_rollback_and_another(broker: rig.RunningBroker, root: DevelopmentRoot, admin: Admin) -> None:
    one = admin.set_policy(*POLICY, ALLOW).version
    two = admin.set_policy(*POLICY, DENY).version
    admin.set_policy(*POLICY, DENY + "# again")
    assert admin.rollback_policy(*POLICY).version == two
    assert not got(broker, root, admin)
    assert admin.rollback_policy(*POLICY).version == one
    assert got(broker, root, admin)
    admin.delete_policy(*POLICY)
    assert got(broker, root, admin)
    assert admin.show_policy(*POLICY, two).text == DENY
    with pytest.raises(NotFound):
        admin.show_policy(*POLICY)


def test_everything_is_written_down_with_version_and_digest(
    broker: rig.RunningBroker, root: DevelopmentRoot, admin: Admin
) -> None:
    one = admin.set_policy(*POLICY, ALLOW)
    two = admin.set_policy(*POLICY, DENY, activate=False)
    admin.activate_policy(*POLICY, two.version)
    admin.rollback_policy(*POLICY)
    rows = [entry["row"] for entry in admin.audit(limit=5)]
    assert [row["action"] for row in rows] == [
        "policy.set", "policy.activate", "policy.set", "policy.activate", "policy.rollback",
    ]  # fmt: skip
    assert rows[-1]["resource"] == f"resource/resource-policy@{one.version} sha256:{one.digest}"
    assert got(broker, root, admin)
    attest, release = (entry["row"] for entry in admin.audit(limit=2))
    (by,) = attest["policies"]
    assert by["id"] == "default_cpu" and "version" not in by and by["digest"] == attest["policy_digest"]
    assert release["policies"] == [
        by,
        {"kind": "resource", "id": "resource-policy", "version": one.version, "digest": one.digest},
    ]
    admin.set_policy("attestation", "default_cpu", LOOSE)
    got(broker, root, admin)
    attest = next(entry["row"] for entry in admin.audit(limit=2) if entry["row"]["action"] == "attest")
    assert attest["policies"][0]["version"] == 1


def test_an_activation_that_is_acknowledged_decides_in_every_worker(
    two_workers: rig.RunningBroker, root: DevelopmentRoot
) -> None:
    with two_workers.admin() as admin:
        admin.set_resource(PATH, b"one", ANY)
        allow = admin.set_policy(*POLICY, ALLOW).version
        deny = admin.set_policy(*POLICY, DENY, activate=False).version
        for version, expected in ((deny, False), (allow, True), (deny, False)):
            admin.activate_policy(*POLICY, version)
            assert [got(two_workers, root, admin) for _ in range(8)] == [expected] * 8
        admin.rollback_policy(*POLICY)
        assert all(got(two_workers, root, admin) for _ in range(8))


# --- policies of single resources and of repositories


def refused(broker: rig.RunningBroker, root: DevelopmentRoot, admin: Admin) -> list[str]:
    assert not got(broker, root, admin)
    return [reason.partition(":")[0] for reason in admin.audit(limit=1)[0]["row"]["reasons"]]


def test_a_resource_names_a_policy_that_is_set(broker: rig.RunningBroker, root: DevelopmentRoot, admin: Admin) -> None:
    for wrong in ("absent", "absent@1", "a b", "x@0", "x@"):
        with pytest.raises(AdytonError):
            admin.bind_resource(PATH, Binding(policy_id=wrong))
    one = admin.set_policy("resource", "mine", ALLOW).version
    with pytest.raises(NotFound):
        admin.bind_resource(PATH, Binding(policy_id="mine@7"))
    admin.bind_resource(PATH, Binding(policy_id="mine"))
    assert got(broker, root, admin)
    row = admin.audit(limit=1)[0]["row"]
    assert row["policies"][1] == {
        "kind": "resource",
        "id": "mine",
        "version": one,
        "digest": row["policies"][1]["digest"],
    }
    assert row["reasons"] == ["by_policy_id"]
    two = admin.set_policy("resource", "mine", DENY).version
    assert refused(broker, root, admin) == ["binding_policy"]
    admin.bind_resource(PATH, Binding(policy_id=f"mine@{one}"))
    assert got(broker, root, admin)
    assert next(v for v in admin.policy_versions("resource", "mine") if v.version == one).pinned
    admin.bind_resource(PATH, Binding(policy_id=f"mine@{two}"))
    assert not got(broker, root, admin)
    admin.bind_resource(PATH, Binding(policy_id=f"mine@{one}"))
    admin.delete_policy("resource", "mine")  # in use: then nothing decides by it, also not by an older version
    assert refused(broker, root, admin) == ["binding_policy_absent"]
    admin.rollback_policy("resource", "mine")
    assert got(broker, root, admin)
    admin.bind_resource(PATH, ANY)


def test_a_repository_has_attestation_policies_of_its_own(
    broker: rig.RunningBroker, root: DevelopmentRoot, admin: Admin
) -> None:
    strict = LOOSE.replace('"executables": 3', '"executables": 33')
    rules = '{"repositories": {"models": {"attestation": "models"}}}'
    with pytest.raises(PolicyInvalid):
        admin.set_policy("requirements", "release", rules.replace('"models"}', '"a/b"}'))
    admin.set_policy("requirements", "release", rules)
    assert refused(broker, root, admin) == ["policy_absent"]  # never the default in its place
    admin.set_policy("attestation", "models_cpu", strict)
    assert refused(broker, root, admin) == ["executables_not_accepted"]
    models = admin.set_policy("attestation", "models_cpu", LOOSE)
    assert got(broker, root, admin)
    assert admin.audit(limit=1)[0]["row"]["policies"] == [
        {"kind": "attestation", "id": "models_cpu", "version": models.version, "digest": models.digest}
    ]
    admin.set_policy("attestation", "default_cpu", strict)  # what all others are appraised by
    assert got(broker, root, admin)
    lower = rig.attester(root, vmpl=1)  # no policy waives what is required of evidence
    with Session(broker.address(tenant_of(admin)), lower, rig.document().raw) as session, pytest.raises(ReleaseRefused):
        session.resource(PATH)
    admin.bind_resource(PATH, Binding(any_workload_i_accept=True, attestation="default"))
    assert refused(broker, root, admin) == ["executables_not_accepted"]
    admin.bind_resource(PATH, ANY)
    admin.delete_policy("attestation", "models_cpu")
    assert refused(broker, root, admin) == ["policy_absent"]


def test_devices_that_are_demanded_must_be_there(
    broker: rig.RunningBroker, root: DevelopmentRoot, admin: Admin
) -> None:
    for wrong in ({"gpu": 0}, {"gpu": -1}, {"gpus": 1}, {"gpu": 1000}):
        with pytest.raises(AdytonError):
            admin.bind_resource(PATH, Binding(any_workload_i_accept=True, devices=wrong))
    admin.bind_resource(PATH, Binding(any_workload_i_accept=True, devices={"gpu": 1}))
    assert refused(broker, root, admin) == ["device_missing"]
    admin.bind_resource(PATH, ANY)
    assert got(broker, root, admin)
    admin.set_policy("requirements", "release", '{"repositories": {"models": {"devices": {"gpu": 2}}}}')
    assert refused(broker, root, admin) == ["device_missing"]
    admin.set_policy("requirements", "release", '{"devices": {"switch": 1}}')
    assert refused(broker, root, admin) == ["device_missing"]


@pytest.mark.parametrize("version", [-1, 2**31, 2**63, 10**30])
def test_a_version_that_no_store_can_count_to(admin: Admin, version: int) -> None:
    admin.set_policy(*POLICY, ALLOW)
    for ask in (admin.activate_policy, admin.dry_run_policy):
        with pytest.raises(MalformedRequest) as caught:
            ask(*POLICY, version)
        assert caught.value.code == "body_malformed"
