"""Ways around an approval, each tried by one owner alone: another route, another tenant, another identity."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from tests.broker import rig
from tests.broker.people_rig import Provider, Somebody
from tests.broker.test_approvals import code, pending

from adyton.broker.door.answer import Answer
from adyton.broker.door.asked import Asked
from adyton.broker.people.approvals import Approvals, falls_under
from adyton.broker.people.gate import Gate
from adyton.broker.people.identity import Identities
from adyton.broker.people.people import Principal, Role, principal
from adyton.broker.people.permissions import line
from adyton.client.people import People
from adyton.errors import TooMany
from adyton.protocol.people import ApprovalRules, PersonBody, PromotionBody, ProviderBody, TenantBody
from adyton.protocol.policies import TestBody
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores.people import Person
from adyton.stores.proposals import MAX_PENDING
from adyton.stores.sqlite import Store
from adyton.stores.tenant_settings import StoredTenant, TenantSettings

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ANY = Binding(any_workload_i_accept=True)
OPEN = "package policy\n\ndefault allow := true\n"
PATH = ResourcePath("default", "key", "1")
ALONE = ApprovalRules(("policy.activate", "resource.bind"), 2, 1)


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.RunningBroker]:
    running = rig.started(tmp_path_factory.mktemp("detours") / "data", None)
    with running.admin() as admin:
        People(admin).make_organisation("acme")
    for name, environment in (("acme", "production"), ("acme-two", "production"), ("acme-dev", "development")):
        with running.admin(name) as admin:
            People(admin).make_tenant(TenantBody("acme", environment))
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def ann(busy: rig.RunningBroker) -> Somebody:
    """One of two owners of acme, where some things need both."""
    ann, _ = Somebody(busy, "acme", "ann"), Somebody(busy, "acme", "ben")
    with ann.admin("acme") as admin:
        admin.set_resource(PATH, b"secret", ANY)
        People(admin).set_approvals(ALONE)
    return ann


@pytest.mark.parametrize(
    ("rule", "action"),
    [
        ("policy.activate", "policy.set"),
        ("policy.activate", "policy.rollback"),
        ("policy.activate", "policy.delete"),
        ("policy.activate", "promotion"),
        ("policy.delete", "policy.set"),
        ("policy.rollback", "policy.activate"),
        ("reference.set", "reference.publish"),
        ("reference.publish", "reference.set"),
        ("reference", "provider.set"),
        ("resource.set", "promotion"),
        ("resource", "promotion"),
        ("resource", "key.delete"),
        ("key", "resource.delete"),
        ("key.delete", "resource.delete"),
    ],
)
def test_what_comes_to_the_samefalls_under_the_same_rule(rule: str, action: str) -> None:
    assert falls_under(action, ApprovalRules((rule,)))


def test_setting_a_policy_activates_it(ann: Somebody) -> None:
    with ann.admin("acme") as admin:
        pending(admin.set_policy, "resource", "resource-policy", OPEN)
        assert not admin.list_policies()
        kept = admin.set_policy("resource", "resource-policy", OPEN, activate=False)  # what decides nothing is free
        pending(admin.activate_policy, "resource", "resource-policy", kept.version)


def test_a_secret_is_not_carried_to_where_one_decides(ann: Somebody) -> None:
    """In acme two decide to whom it is bound; in the other tenants of the same owner, one does."""
    for target in ("acme-two", "acme-dev"):
        with ann.admin(target) as admin:
            wanted = PromotionBody("acme", resources=(PATH.uri,))
            assert code(People(admin).plan_promotion, wanted) in {"promotion_of_approved", "environment_holds_secrets"}
            assert not admin.list_resources()


def test_secrets_of_production_do_not_go_to_development(busy: rig.RunningBroker) -> None:
    with busy.admin("acme-two") as admin:
        admin.set_resource(PATH, b"secret", ANY)
    with busy.admin("acme-dev") as admin:
        wanted = PromotionBody("acme-two", resources=(PATH.uri,))
        assert code(People(admin).plan_promotion, wanted) == "environment_holds_secrets"


def test_trying_a_policy_needs_nobody(busy: rig.RunningBroker, ann: Somebody) -> None:
    with ann.admin("acme") as admin:
        report = admin.test_policy(TestBody("resource", "resource-policy", OPEN))
    assert report.tried == 0


def test_whoever_has_the_admin_token_does_not_become_somebody_else(
    busy: rig.RunningBroker, ann: Somebody, tmp_path: Path
) -> None:
    """Somebody is known by a provider: putting another one in its place would make the broker's people two."""
    genuine, forged = Provider(tmp_path), Provider(tmp_path)
    try:
        with busy.admin("acme-two") as admin:
            People(admin).make_organisation("bolt")
        with busy.admin("bolt") as admin:
            people = People(admin)
            people.make_tenant(TenantBody("bolt"))
            people.set_provider("idp", ProviderBody(genuine.issuer, "x", "bolt", ca=genuine.ca))
            people.set_person("bea", PersonBody("owner", None, ("idp:1",)))
            people.set_person("bob", PersonBody("owner"))
            people.set_approvals(ApprovalRules(("policy",), 2, 1))
            mine = ProviderBody(forged.issuer, "x", "bolt", ca=forged.ca)
            assert code(people.set_provider, "idp", mine) == "identity_provider_linked"
            assert code(people.set_provider, "idp", replace(mine, issuer=genuine.issuer)) == "identity_provider_linked"
            people.set_provider("idp", ProviderBody(genuine.issuer, "y", "bolt", ca=genuine.ca))
            people.delete_provider("idp", "bolt")
            assert code(people.set_provider, "idp", mine) == "identity_provider_linked"
            people.set_provider("other", mine)  # of whom nobody is anybody yet
    finally:
        genuine.stop()
        forged.stop()


def test_a_tenant_to_be_made_can_be_agreed_on(busy: rig.RunningBroker) -> None:
    own = [Somebody(busy, "broker", name) for name in ("kim", "lea")]
    with own[0].admin("broker") as admin:
        People(admin).set_approvals(ApprovalRules(("tenant.create",), 2, 1))
    try:
        with own[0].admin("fresh") as admin:
            number = pending(People(admin).make_tenant, TenantBody("acme"))
        with own[1].admin("broker") as admin:
            people = People(admin)
            shown = people.show_proposal(number)
            assert shown.path == "t/fresh/tenant"
            assert people.vote(number, shown.digest, "approve").state == "done"
            assert "fresh" in {one.name for one in people.list_tenants()}
    finally:
        with own[0].admin("broker") as admin:
            number = pending(People(admin).set_approvals, ApprovalRules())
        with own[1].admin("broker") as admin:
            assert People(admin).vote(number, People(admin).show_proposal(number).digest, "approve").state == "done"


def test_others_of_the_organisation_are_shown_to_who_owns_all_of_it(busy: rig.RunningBroker) -> None:
    """Who reads one tenant learns who else has to do with it, and not which other tenants there are."""
    with busy.admin() as admin:
        People(admin).make_organisation("cole")
    for name in ("cole", "cole-two"):
        with busy.admin(name) as admin:
            People(admin).make_tenant(TenantBody("cole"))
    Somebody(busy, "cole", "uma")
    Somebody(busy, "cole", "zoe", tenants=("cole", "cole-two"))
    one, other = (Somebody(busy, "cole", name, "auditor", tenants=("cole",)) for name in ("yan", "xia"))
    Somebody(busy, "cole", "vic", tenants=("cole-two",))
    for who in (one, other):
        with who.admin("cole") as admin:
            listed = {person.name: person.tenants for person in People(admin).list_people()}
            assert listed == {"uma": None, "zoe": ("cole",), "yan": ("cole",), "xia": ("cole",)}
            assert code(People(admin).show_person, "vic") == "person_absent"
    with busy.admin("cole") as admin:
        assert {person.name for person in People(admin).list_people()} == {"uma", "zoe", "yan", "xia", "vic"}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[tuple[Approvals, Store, StoredTenant]]:
    store = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    store.registry.make_organisation("acme", NOW)
    tenant = store.registry.make("acme", TenantSettings("acme", "", ApprovalRules(("resource",), 2, 1)))
    for name in ("a", "b"):
        store.people.set("acme", name, Person("owner"), (), NOW)
    yield Approvals(store, Gate("x" * 43, store, Identities())), store, tenant
    store.close()


def _asked(who: Principal, at: datetime = NOW, method: str = "DELETE", body: bytes = b"") -> Asked:
    return Asked(method, "acme", body, at, "", who)


def test_who_agrees_sees_all_that_decides(desk: tuple[Approvals, Store, StoredTenant]) -> None:
    approvals, _, tenant = desk
    parts = ("resources", "a", "b", "c")
    deleting = line("api", "DELETE", parts)
    assert deleting is not None
    asked = Asked("DELETE", "acme", b"", NOW, "version=7", principal("acme", "a", Person("owner"), "key"))
    waits = approvals.ask(deleting, asked, parts, tenant)
    assert waits is not None
    assert msgspec.json.decode(waits.body)["path"] == "resources/a/b/c?version=7"


def test_what_nobody_decided_makes_room(desk: tuple[Approvals, Store, StoredTenant]) -> None:
    approvals, _, tenant = desk
    who = principal("acme", "a", Person("owner"), "key")
    parts = ("resources", "a", "b", "c")
    deleting = line("api", "DELETE", parts)
    assert deleting is not None
    for _ in range(MAX_PENDING):
        approvals.ask(deleting, _asked(who), parts, tenant)
    with pytest.raises(TooMany):
        approvals.ask(deleting, _asked(who), parts, tenant)
    assert approvals.ask(deleting, _asked(who, NOW + timedelta(hours=2)), parts, tenant) is not None


def test_whom_a_provider_alone_knows_may_ask(desk: tuple[Approvals, Store, StoredTenant]) -> None:
    """They are not among those who agree; when enough others do, it is done."""
    approvals, store, tenant = desk
    done: list[Asked] = []

    def carry_out(_: str, __: tuple[str, ...], asked: Asked) -> Answer:
        done.append(asked)
        return Answer(204)

    approvals.carry_out = carry_out
    store.people.set("acme", "c", Person("owner"), (), NOW)
    who = Principal("acme/oidc:idp:7", Role.OWNER, "acme", frozenset({"acme"}), "identity provider idp")
    parts = ("resources", "a", "b", "c")
    deleting = line("api", "DELETE", parts)
    assert deleting is not None
    waits = approvals.ask(deleting, _asked(who), parts, tenant)
    assert waits is not None
    made = msgspec.json.decode(waits.body)
    vote = msgspec.json.encode({"digest": made["digest"], "choice": "approve"})
    for name in ("a", "b"):
        voter = principal("acme", name, Person("owner"), "key")
        told = approvals.handle(_asked(voter, method="POST", body=vote), ("approvals", made["id"], "votes"))
    assert msgspec.json.decode(told.body)["state"] == "done"
    (asked,) = done
    assert (asked.principal.name, asked.principal.role, asked.principal.tenants) == (who.name, who.role, who.tenants)
