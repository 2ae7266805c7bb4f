"""Organisations, tenants, environments, quotas, promotion: what is one's is refused in another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.broker import rig
from tests.broker.people_rig import Somebody

from adyton.client.admin import Admin
from adyton.client.people import People
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import AdytonError, Conflict, MalformedRequest, NotFound, NotPermitted, ReleaseRefused, TooMany
from adyton.protocol import rcar
from adyton.protocol.people import DeleteTenantBody, PersonBody, PromotionBody, TenantBody
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath

ANY = Binding(any_workload_i_accept=True)
PATH = ResourcePath("default", "key", "1")
DENY = "package policy\n\ndefault allow := false\n"


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory, root: DevelopmentRoot) -> Iterator[rig.RunningBroker]:
    """Two organisations; acme has a development and a production tenant, bolt one."""
    running = rig.started(tmp_path_factory.mktemp("people") / "data", root)
    with running.admin() as admin:
        People(admin).make_organisation("acme")
        People(admin).make_organisation("bolt")
    for name, organisation, environment in (
        ("acme-dev", "acme", "development"),
        ("acme-prod", "acme", "production"),
        ("bolt-dev", "bolt", "development"),
    ):
        with running.admin(name) as admin:
            People(admin).make_tenant(TenantBody(organisation, environment))
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def owner(busy: rig.RunningBroker) -> Somebody:
    return Somebody(busy, "acme-dev", "olga")


def code(call: Any, *arguments: Any) -> str:
    with pytest.raises(AdytonError) as caught:
        call(*arguments)
    return caught.value.code


def rows(admin: Admin, limit: int = 500) -> list[dict[str, Any]]:
    return [one["row"] for one in admin.audit(limit=limit)]


def last(admin: Admin) -> dict[str, Any]:
    return rows(admin, 1)[0]


def test_a_tenant_must_be_made(busy: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with busy.admin("nobodys") as admin:
        assert code(admin.set_resource, PATH, b"x", ANY) == "tenant_absent"
        assert code(admin.list_resources) == "tenant_absent"
    with (
        busy.session(rig.attester(root), tenant="nobodys") as session,
        pytest.raises(AdytonError, match="no such tenant"),
    ):
        session.resource(PATH)
    with busy.admin() as admin:  # the one that there was before the first organisation goes on
        admin.set_resource(PATH, b"x", ANY)
        assert People(admin).show_tenant().environment == "test"


@pytest.mark.parametrize("name", ["broker", "adyton", "admin", "system"])
def test_reserved_names(busy: rig.RunningBroker, name: str) -> None:
    with busy.admin(name) as admin:
        assert code(People(admin).make_tenant, TenantBody()) == "name_reserved"
    with busy.admin() as admin:
        assert code(People(admin).make_organisation, name) == "name_reserved"


def test_who_may_make_tenants(busy: rig.RunningBroker, owner: Somebody) -> None:
    with owner.admin("acme-new") as admin:  # the name is free, and an answer that tells so would tell of others too
        free = code(People(admin).make_tenant, TenantBody("acme"))
    with owner.admin("bolt-dev") as admin:
        assert code(People(admin).make_tenant, TenantBody("acme")) == free == "admin_token_refused"
    with busy.admin("acme-dev") as admin:
        assert code(People(admin).make_tenant, TenantBody()) == "tenant_exists"
    with busy.admin("acme-x") as admin:
        assert code(People(admin).make_tenant, TenantBody("nobody")) == "organisation_absent"
        assert code(People(admin).make_tenant, TenantBody("acme", "staging")) == "environment_invalid"


def test_environments_decide_over_release(busy: rig.RunningBroker, owner: Somebody, root: DevelopmentRoot) -> None:
    """The same evidence, the same binding: released in development, refused in production, on one broker."""
    for tenant in ("acme-dev", "acme-prod"):
        busy.publish(tenant)
        with owner.admin(tenant) as admin:
            admin.set_resource(PATH, tenant.encode(), ANY)
    with busy.session(rig.attester(root), rig.document(), "acme-dev") as session:
        assert session.resource(PATH) == b"acme-dev"
    with busy.session(rig.attester(root), rig.document(), "acme-prod") as session, pytest.raises(AdytonError):
        session.resource(PATH)
    with owner.admin("acme-prod") as admin:
        told = last(admin)  # before there is a token that others might believe
        assert (told["action"], told["decision"]) == ("attest", "refused")
        assert told["reasons"][0].startswith("endorsement_untrusted: ") and "field environment" in told["reasons"][0]


@pytest.mark.parametrize("environment", ["pre-production", "production", "test", "ci", "development"])
def test_evidence_under_a_development_root(busy: rig.RunningBroker, root: DevelopmentRoot, environment: str) -> None:
    """A test broker trusts the root: a tenant may be stricter than its broker, and this is told apart at attest."""
    name = f"acme-is-{environment}"
    with busy.admin(name) as admin:
        People(admin).make_tenant(TenantBody("acme", environment))
        admin.set_resource(PATH, b"x", ANY)
    busy.publish(name)
    with busy.session(rig.attester(root), rig.document(), name) as session:
        if environment in {"pre-production", "production"}:
            with pytest.raises(AdytonError):
                session.resource(PATH)
        else:
            assert session.resource(PATH) == b"x"
    with busy.admin(name) as admin:
        told = rows(admin)
        assert [row["decision"] for row in told if row["action"] == "attest"] == [
            "refused" if environment in {"pre-production", "production"} else "allowed"
        ]


def test_an_environment_is_not_loosened_over_secrets(busy: rig.RunningBroker, owner: Somebody) -> None:
    with owner.admin("acme-prod") as admin:
        admin.set_resource(PATH, b"secret", ANY)
        assert code(People(admin).set_environment, "development") == "role_not_permitted"
    with busy.admin("acme-prod") as admin:
        people = People(admin)
        assert code(people.set_environment, "development") == "environment_holds_secrets"
        assert code(people.set_environment, "no") == "environment_invalid"
        assert people.set_environment("pre-production").environment == "pre-production"
        assert people.set_environment("production").environment == "production"


def test_a_change_of_environment_counts_at_once(busy: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with busy.admin("acme-turn") as admin:
        People(admin).make_tenant(TenantBody("acme", "test"))
        busy.publish("acme-turn")
        admin.set_resource(PATH, b"x", ANY)
        with busy.session(rig.attester(root), rig.document(), "acme-turn") as session:
            assert session.resource(PATH) == b"x"
            People(admin).set_environment("production")
            with pytest.raises(AdytonError):
                session.resource(PATH)


def test_a_session_of_one_tenant_is_nothing_in_another(busy: rig.RunningBroker, root: DevelopmentRoot) -> None:
    for tenant in ("acme-dev", "bolt-dev"):
        busy.publish(tenant)
        with busy.admin(tenant) as admin:
            admin.set_resource(PATH, tenant.encode(), ANY)
    attester, runs = rig.attester(root), rig.document()
    with rig.raw(busy, "/t/acme-dev") as mine, rig.raw(busy, "/t/bolt-dev") as theirs:
        token, _ = mine.handshake(attester, runs)
        cookie = "; ".join(f"{name}={value}" for name, (value, _) in mine.jar.items())
        assert mine.ask("GET", f"/kbs/v0/resource/{PATH}")[0] == 200
        for headers in ({"Cookie": cookie}, {"Authorization": f"Bearer {token}"}):
            status, body, _ = theirs.ask("GET", f"/kbs/v0/resource/{PATH}", headers=headers)
            assert status == 401, body
        # The nonce of one is no nonce in the other: evidence over it is refused with the other's cookie.
        status, read, _ = mine.ask("POST", "/kbs/v0/auth", rcar.request_body("snp"))
        nonce = json.loads(read)["nonce"]
        theirs.ask("POST", "/kbs/v0/auth", rcar.request_body("snp"))
        key = ec.generate_private_key(ec.SECP256R1())
        status, body, _ = theirs.ask("POST", "/kbs/v0/attest", rig.attest_body(nonce, attester, runs, key))
        assert status == 401 and b"nonce" in body
        # Nor is the other's cookie taken here.
        status, body, _ = theirs.ask(
            "POST", "/kbs/v0/attest", rig.attest_body(nonce, attester, runs, key), {"Cookie": cookie}
        )
        assert status == 401, body


def test_people_are_their_organisations(busy: rig.RunningBroker, owner: Somebody) -> None:
    with owner.admin("acme-prod") as admin:
        who = People(admin).whoami()
        assert (who.name, who.role, who.tenants) == ("acme/olga", "owner", None)
        assert {one.name for one in People(admin).list_tenants()} >= {"acme-dev", "acme-prod"}
        assert not {one.name for one in People(admin).list_tenants()} & {"bolt-dev", "default"}
        assert [one.name for one in People(admin).list_people()] == ["olga"]
    with owner.admin("bolt-dev") as admin:
        assert code(admin.list_resources) == "admin_token_refused"
    with owner.admin("default") as admin:
        assert code(admin.list_resources) == "admin_token_refused"
    with owner.admin("acme-dev") as admin:  # the same name elsewhere is nobody's business
        People(admin).set_person("zoe", PersonBody("auditor"))
    with busy.admin("bolt-dev") as admin:
        People(admin).set_person("zoe", PersonBody("owner"))
        People(admin).delete_person("zoe")
    with owner.admin("acme-dev") as admin:
        assert People(admin).show_person("zoe").role == "auditor"
        People(admin).delete_person("zoe")


def test_who_is_refused_is_written_down(busy: rig.RunningBroker, owner: Somebody) -> None:
    with owner.admin("acme-dev") as admin:
        reader = Somebody(busy, "acme-dev", "rita", "auditor", tenants=("acme-dev",), by=owner.admin("acme-dev"))
        with reader.admin("acme-dev") as reading:
            assert code(reading.set_resource, PATH, b"x", ANY) == "role_not_permitted"
            assert code(reading.list_resources) == "role_not_permitted"
            assert last(reading)["actor"] == "acme/rita"
        told = last(admin)
        assert (told["action"], told["decision"], told["actor"]) == ("resource.set", "refused", "acme/rita")
        with reader.admin("acme-prod") as reading:
            assert code(reading.audit) == "tenant_not_permitted"
        People(admin).delete_person("rita")
        with reader.admin("acme-dev") as reading:
            assert code(reading.audit) == "admin_token_refused"


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("a/b", PersonBody("owner")), ("", PersonBody("owner")), ("x" * 101, PersonBody("owner")),
        ("x", PersonBody("root")), ("x", PersonBody("operator")), ("x", PersonBody("owner", ("bolt-dev",))),
        ("x", PersonBody("owner", ("nobodys",))), ("x", PersonBody("owner", None, ("idp:x",))),
    ],
)  # fmt: skip
def test_people_that_cannot_be(owner: Somebody, name: str, body: PersonBody) -> None:
    with owner.admin("acme-dev") as admin, pytest.raises((MalformedRequest, NotFound)):
        People(admin).set_person(name, body)


def test_the_admin_tokens_name_is_taken(busy: rig.RunningBroker) -> None:
    with busy.admin() as admin:
        assert code(People(admin).set_person, "admin", PersonBody("owner")) == "person_invalid"


def test_an_operator_runs_the_broker_and_sees_nothing(busy: rig.RunningBroker) -> None:
    runs = Somebody(busy, "default", "omar", "operator")
    with runs.admin("acme-prod") as admin:
        for call in (admin.list_resources, admin.list_policies, admin.list_references, admin.audit):
            assert code(call) == "role_not_permitted"
        assert code(admin.set_policy, "resource", "resource-policy", DENY) == "role_not_permitted"
        people = People(admin)
        assert people.set_quotas({"resources": 3}).quotas == {"resources": 3}
        assert people.set_quotas({}).quotas == {}
        assert [one.name for one in people.list_organisations()] == ["acme", "bolt"]
        assert code(people.make_organisation, "mine") == "role_not_permitted"
        assert code(people.set_person, "me", PersonBody("owner")) == "role_not_permitted"


def test_quotas(busy: rig.RunningBroker, owner: Somebody) -> None:
    with busy.admin("acme-small") as admin:
        People(admin).make_tenant(TenantBody("acme", "test"))
        People(admin).set_quotas({"resources": 2, "bytes": 100, "policies": 1, "references": 1})
        for wrong in ({"x": 1}, {"bytes": -1}, {"bytes": 2**41}):
            assert code(People(admin).set_quotas, wrong) == "quota_invalid"
    with owner.admin("acme-small") as admin:
        assert code(People(admin).set_quotas, {}) == "role_not_permitted"
        admin.set_resource(ResourcePath("a", "b", "1"), b"x" * 50, ANY)
        for path, value in ((ResourcePath("a", "b", "2"), b"x" * 51), (ResourcePath("a", "b", "1"), b"x" * 101)):
            with pytest.raises(TooMany) as caught:
                admin.set_resource(path, value, ANY)
            assert caught.value.code == "quota_exceeded"
        admin.set_resource(ResourcePath("a", "b", "2"), b"x" * 50, ANY)
        with pytest.raises(TooMany):
            admin.set_resource(ResourcePath("a", "b", "3"), b"", ANY)
        assert len(admin.list_resources()) == 2  # nothing of what was refused was kept
        admin.set_policy("resource", "resource-policy", DENY)
        with pytest.raises(TooMany):
            admin.set_policy("resource", "other", DENY)
        with pytest.raises(TooMany):  # what decides nothing takes room all the same
            admin.set_policy("resource", "other", DENY, activate=False)
        admin.set_policy("resource", "resource-policy", DENY, activate=False)
        admin.set_policy("resource", "resource-policy", DENY + "\n")
        admin.set_reference("one", 1)
        with pytest.raises(TooMany):
            admin.set_reference("two", 2)
        assert [one.name for one in admin.list_references()] == ["one"]
        assert People(admin).show_tenant().used == {
            "resources": 2,
            "bytes": 100,
            "policies": 1,
            "references": 1,
            "keys": 0,
        }


def test_promotion(busy: rig.RunningBroker, owner: Somebody) -> None:
    for name in ("acme-from", "acme-to"):
        with busy.admin(name) as admin:
            People(admin).make_tenant(TenantBody("acme"))
    with owner.admin("acme-from") as admin:
        admin.set_policy("resource", "resource-policy", DENY)
        admin.set_reference("a", [1, 2])
        admin.set_reference("same", 7)
        admin.set_resource(PATH, b"secret of from", ANY)
    with owner.admin("acme-to") as admin:
        admin.set_reference("same", 7)
        admin.set_reference("own", 1)
        admin.set_policy("resource", "resource-policy", DENY.replace("false", "true"))
        people = People(admin)
        wanted = PromotionBody("acme-from", policies=True, references=True)
        plan = people.plan_promotion(wanted)
        assert {(step.kind, step.name, step.change) for step in plan.steps} == {
            ("policy", "resource/resource-policy", "changed"), ("reference", "a", "new"), ("reference", "same", "same"),
        }  # fmt: skip
        assert "-default allow := true" in plan.steps[0].diff and "+default allow := false" in plan.steps[0].diff
        assert code(people.promote, wanted) == "promotion_changed"  # never without having been shown
        with owner.admin("acme-from") as source:
            source.set_reference("a", [1, 2, 3])
        agreed = PromotionBody("acme-from", policies=True, references=True, expected=plan.digest)
        assert code(people.promote, agreed) == "promotion_changed"
        assert {one.name for one in admin.list_references()} == {"same", "own"}
        agreed = PromotionBody("acme-from", True, True, (), people.plan_promotion(wanted).digest)
        assert people.promote(agreed).done
        assert {one.name for one in admin.list_references()} == {"same", "own", "a"}
        assert "false" in admin.show_policy("resource", "resource-policy").text
        assert not admin.list_resources()  # no secret goes that is not named
        told = [row["action"] for row in rows(admin, 3)]
        assert told == ["promotion", "promotion.policy", "promotion.reference"]
        named = PromotionBody("acme-from", resources=(PATH.uri,))
        named = PromotionBody("acme-from", False, False, (PATH.uri,), people.plan_promotion(named).digest)
        people.promote(named)
        assert admin.show_resource(PATH).binding.is_empty  # to whom it is released here is decided here
        assert code(people.plan_promotion, PromotionBody("acme-to", True)) == "promotion_invalid"
        assert code(people.plan_promotion, PromotionBody("acme-from")) == "promotion_invalid"


@pytest.mark.parametrize("source", ["bolt-dev", "default", "nobodys", "broker"])
def test_nothing_is_promoted_from_somebody_elses(owner: Somebody, source: str) -> None:
    with owner.admin("acme-dev") as admin:
        with pytest.raises(NotPermitted) as caught:
            People(admin).plan_promotion(PromotionBody(source, True, True))
        assert caught.value.code == "tenant_not_permitted"


def test_a_tenant_ends_and_its_log_stays(busy: rig.RunningBroker, owner: Somebody, root: DevelopmentRoot) -> None:
    with busy.admin("acme-gone") as admin:
        People(admin).make_tenant(TenantBody("acme", "test"))
        busy.publish("acme-gone")
        admin.set_resource(PATH, b"secret", ANY)
        admin.set_policy("resource", "resource-policy", DENY)
        key = ResourcePath("a", "key", "1")
        admin.set_resource(key, b"secret", ANY)
    one = Somebody(busy, "acme-dev", "tina", tenants=("acme-gone",), by=owner.admin("acme-dev"))
    with one.admin("acme-gone") as admin:
        assert code(People(admin).delete_tenant) == "role_not_permitted"  # theirs, and not to end
    session = busy.session(rig.attester(root), rig.document(), "acme-gone")
    with owner.admin("acme-gone") as admin, session:
        with pytest.raises(ReleaseRefused):
            session.resource(PATH)  # by its policy
        known = admin.audit_head().sequence
        with pytest.raises(MalformedRequest):
            admin.send("DELETE", "/tenant", DeleteTenantBody("acme"))
        assert People(admin).delete_tenant()["rows"] >= 6
        assert code(admin.list_resources) == "admin_token_refused"
        with pytest.raises(AdytonError):
            session.resource(PATH)
    with busy.admin("acme-gone") as admin:
        assert code(admin.list_resources) == "tenant_absent"
        assert admin.audit_head().sequence > known
        assert last(admin)["action"] == "tenant.delete"
        with pytest.raises(Conflict) as caught:
            People(admin).make_tenant(TenantBody("acme"))
        assert caught.value.code == "tenant_retired"
    with owner.admin("acme-dev") as admin:
        People(admin).delete_person("tina")


def test_organisations(busy: rig.RunningBroker) -> None:
    with busy.admin() as admin:
        people = People(admin)
        assert code(people.make_organisation, "acme") == "organisation_exists"
        assert code(people.delete_organisation, "acme") == "organisation_in_use"
        assert code(people.delete_organisation, "nobody") == "organisation_absent"
        people.make_organisation("empty")
        people.delete_organisation("empty")
        assert People(admin).whoami().by == "admin token"
    with busy.admin("broker") as admin:  # what concerns the broker is in its own log
        told = {(row["action"], row["resource"]) for row in rows(admin)}
        assert ("organisation.create", "empty") in told and ("organisation.delete", "empty") in told
    with busy.admin() as admin:
        assert not {row["action"] for row in rows(admin)} & {"organisation.create"}


def test_the_admin_token_goes_once_people_own_the_broker(tmp_path: Path) -> None:
    running = rig.started(tmp_path / "data", None)
    try:
        with running.admin() as admin:
            assert code(People(admin).switch_admin_token) == "admin_token_needed"
        boss = Somebody(running, "default", "boss")
        with boss.admin("default") as owning:
            People(owning).switch_admin_token()
            with running.admin() as admin:
                assert code(admin.list_resources) == "admin_token_off"
            owning.set_resource(PATH, b"x", ANY)
            assert last(owning)["actor"] == "boss"
            People(owning).switch_admin_token(enabled=True)
        with running.admin() as admin:
            assert admin.list_resources()
    finally:
        assert running.stop() == 0


def test_other_tokens_of_the_same_person(busy: rig.RunningBroker, owner: Somebody) -> None:
    with owner.admin("acme-dev") as admin:
        made = People(admin).own_token(1)
        with Admin(busy.address("acme-prod"), made.token) as mine:
            assert People(mine).whoami().name == "acme/olga"
        with Admin(busy.address("bolt-dev"), made.token) as mine:
            assert code(mine.list_resources) == "admin_token_refused"
        assert made.token not in json.dumps(admin.audit(limit=50))
        People(admin).remove_own_token(made.id)
        with Admin(busy.address("acme-prod"), made.token) as mine:
            assert code(mine.list_resources) == "admin_token_refused"
        assert code(People(admin).own_token, 0) == "person_invalid"
