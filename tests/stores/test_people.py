"""Tables of tenants, people and proposals, over both engines: what is refused, what is sealed, what ends with a tenant."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.stores.conftest import Engine

from adyton.errors import AdytonError, Conflict, MalformedRequest, NotFound, TooMany, Unavailable
from adyton.protocol.people import ApprovalRules, Mapped, ProviderBody
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores import schema
from adyton.stores.people import MAX_CREDENTIALS, Credential, Person
from adyton.stores.proposals import MAX_PENDING, Ballot, Proposal
from adyton.stores.sqlite import Store
from adyton.stores.tenant_settings import IMPLICIT, TenantSettings

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PATH = ResourcePath("a", "b", "c")


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> Iterator[Store]:
    opened = Store.open(tmp_path_factory.mktemp("store"), root_key=bytes(32), now=NOW, database=engine)
    yield opened
    opened.close()


def proposal(**change: object) -> Proposal:
    fields = {
        "action": "resource.delete", "area": "api", "method": "DELETE", "parts": ("resources", "a", "b", "c"), "query": "",
        "body": b"", "digest": "ab" * 32, "by": "acme/ann", "organisation": "acme", "person": "ann", "root": False,
        "created": NOW.timestamp(), "expires": NOW.timestamp() + 3600, **change,
    }  # fmt: skip
    return Proposal(**fields)  # type: ignore[arg-type]


def ballot(who: str, choice: str = "approve") -> Ballot:
    return Ballot(f"acme/{who}", choice, NOW.timestamp(), "acme", who, False)


def test_tenants_are_implicit_until_the_first_organisation(store: Store) -> None:
    store.resources.set("old", PATH, b"x", Binding(), NOW)
    for name in ("old", "never-seen", "broker"):
        found = store.registry.find(name)
        assert found is not None and not found.made and found.settings == IMPLICIT
    store.registry.make_organisation("acme", NOW)
    assert store.registry.find("never-seen") is None
    assert store.registry.find("broker") is not None
    for name in ("old", "default"):
        found = store.registry.find(name)
        assert found is not None and found.made and found.settings == IMPLICIT
    with pytest.raises(Conflict):
        store.registry.make("old", TenantSettings("acme"))
    with pytest.raises(NotFound):
        store.registry.make("new", TenantSettings("nobody"))
    for name in ("Broker", "", "a b", "x" * 64):
        with pytest.raises(MalformedRequest):
            store.registry.make(name, TenantSettings())
    assert [one.name for one in store.registry.tenants()] == ["default", "old"]


def test_every_change_of_settings_counts_at_once(store: Store) -> None:
    store.registry.make_organisation("acme", NOW)
    before = store.generation("a")
    store.registry.make("a", TenantSettings("acme", "test"))
    made = store.generation("a")
    store.registry.change("a", lambda _, found: TenantSettings(found.organisation, "production"))
    assert before < made < store.generation("a")


def test_what_a_tenant_had_ends_with_it_and_the_log_does_not(store: Store) -> None:
    store.registry.make_organisation("acme", NOW)
    for name in ("gone", "stays"):
        store.registry.make(name, TenantSettings("acme", "test", ApprovalRules(("policy",)), {"resources": 5}))
        store.resources.set(name, PATH, b"x", Binding(), NOW)
        store.policies.set(name, "resource", "p", "package policy", NOW)
        store.references.set_all(name, {"r": 1}, None, NOW)
        store.providers.set(name, "p", b"{}", lambda _: True, NOW)
        store.claims.put(name, b"claims", NOW + timedelta(hours=1), NOW)
        store.proposals.make(name, "0" * 12, proposal(), "acme/ann", ballot("ann"))
        store.secrets.set("own", b"secret", name)
    read = store._database.read
    erased = [table for table in schema.tables_of_tenants() if table not in {"audit", "audit_nodes", "checkpoints"}]
    count = {table: len(read(f'SELECT 1 FROM "{table}" WHERE tenant=?', ("stays",))) for table in erased}
    assert {"resources", "policies", "references", "providers", "claims", "proposals", "votes", "secrets"} <= {
        table for table, rows in count.items() if rows
    }
    generation = store.generation("gone")
    assert store.registry.delete("gone") >= 8
    for table in erased:
        left = len(read(f'SELECT 1 FROM "{table}" WHERE tenant=?', ("gone",)))
        assert left == (1 if table == "tenant_settings" else 0), table
        assert len(read(f'SELECT 1 FROM "{table}" WHERE tenant=?', ("stays",))) == count[table], table
    assert store.generation("gone") > generation  # whoever remembers it looks again
    assert store.registry.find("gone") is None
    for call in (
        lambda: store.registry.make("gone", TenantSettings("acme")),
        lambda: store.registry.delete("gone"),
        lambda: store.registry.change("gone", lambda _, found: found),
    ):
        with pytest.raises(AdytonError):
            call()


def test_organisations_with_tenants_stay(store: Store) -> None:
    store.registry.make_organisation("acme", NOW)
    store.people.set("acme", "ann", Person("owner"), (), NOW)
    store.registry.make("a", TenantSettings("acme"))
    with pytest.raises(Conflict):
        store.registry.delete_organisation("acme")
    store.registry.delete("a")
    store.registry.delete_organisation("acme")
    assert store.people.get("acme", "ann") is None


def test_people_and_credentials_are_their_organisations(store: Store) -> None:
    for organisation in ("", "acme", "bolt"):
        store.people.set(organisation, "ann", Person("owner"), (), NOW)
        store.people.add(organisation, "key", "thumb", Credential("ann", bytes(32)))
    store.people.delete("acme", "ann")
    assert store.people.credential("acme", "key", "thumb") is None
    assert store.people.credential("bolt", "key", "thumb") is not None
    with pytest.raises(NotFound):
        store.people.add("acme", "key", "thumb", Credential("ann"))
    with pytest.raises(NotFound):
        store.people.delete("acme", "ann")
    with pytest.raises(Conflict):
        store.people.add("bolt", "key", "thumb", Credential("ann"))
    with pytest.raises(NotFound):
        store.people.remove("bolt", "ben", "key", "thumb")
    assert [one.id for one in store.people.credentials("bolt", "ann")] == ["thumb"]
    assert not store.people.credentials("bolt", "ann", "token")
    for number in range(MAX_CREDENTIALS - 1):
        store.people.add("bolt", "token", str(number), Credential("ann", b"", 0.0, NOW.timestamp() + number))
    with pytest.raises(TooMany):
        store.people.add("bolt", "token", "more", Credential("ann"))
    store.people.forget_expired(NOW + timedelta(seconds=10))
    assert len(store.people.credentials("bolt", kind="token")) == MAX_CREDENTIALS - 1 - 11


def test_a_subject_is_one_persons(store: Store) -> None:
    store.people.set("acme", "ann", Person("owner"), ("idp:1", "idp:2"), NOW)
    with pytest.raises(Conflict):
        store.people.set("acme", "ben", Person("owner"), ("idp:2",), NOW)
    assert store.people.get("acme", "ben") is None  # all of it or nothing
    store.people.set("acme", "ann", Person("auditor"), ("idp:1",), NOW)
    store.people.set("acme", "ben", Person("owner"), ("idp:2",), NOW)
    assert [one.id for one in store.people.credentials("acme", "ann")] == ["idp:1"]


def test_identity_providers(store: Store) -> None:
    body = ProviderBody("https://a.example", "x", "acme", roles={"o": Mapped("owner"), "a": Mapped("auditor", ("t",))})
    store.people.set_provider("idp", body)
    assert store.people.providers("acme") == [("idp", body)]
    assert list(store.people.providers("acme")[0][1].roles) == ["o", "a"]  # in order: the first that fits counts
    assert not store.people.providers("")
    with pytest.raises(NotFound):
        store.people.delete_provider("", "idp")
    store.people.delete_provider("acme", "idp")


def test_proposals_go_one_way(store: Store) -> None:
    store.proposals.make("t", "1", proposal(), "acme/ann", ballot("ann"))
    with pytest.raises(Conflict):
        store.proposals.vote("t", "1", "acme/ann", ballot("ann"))
    with pytest.raises(NotFound):
        store.proposals.vote("other", "1", "acme/ben", ballot("ben"))
    assert len(store.proposals.vote("t", "1", "acme/ben", ballot("ben")).votes) == 2
    assert store.proposals.move("t", "1", "pending", "executing")
    assert not store.proposals.move("t", "1", "pending", "executing")
    assert not store.proposals.move("other", "1", "executing", "done")
    with pytest.raises(Conflict):
        store.proposals.vote("t", "1", "acme/cleo", ballot("cleo"))
    assert store.proposals.move("t", "1", "executing", "done", "204")
    assert [one.state for one in store.proposals.list("t", pending=False)] == ["done"]
    assert not store.proposals.list("t", pending=True) and not store.proposals.list("other", pending=False)
    store.proposals.forget(NOW + timedelta(seconds=1))
    assert store.proposals.get("t", "1") is None


def test_not_too_many_wait(store: Store) -> None:
    for number in range(MAX_PENDING):
        store.proposals.make("t", str(number), proposal(), "acme/ann", ballot("ann"))
    with pytest.raises(TooMany):
        store.proposals.make("t", "more", proposal(), "acme/ann", ballot("ann"))
    store.proposals.make("u", "more", proposal(), "acme/ann", ballot("ann"))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE people SET name='ben' WHERE name='ann'",
        "UPDATE people SET organisation='' WHERE name='ann'",
        "UPDATE people SET sealed=(SELECT sealed FROM people WHERE name='boss') WHERE name='ann'",
        "UPDATE tenant_settings SET version=version+1 WHERE tenant='a'",
        "UPDATE tenant_settings SET tenant='b' WHERE tenant='a'",
    ],
)
def test_rights_cannot_be_written_into_the_file(tmp_path: Path, change: str) -> None:
    """Whoever may write the file and lacks the root key makes nobody an owner, and no tenant another one's."""
    store = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    store.registry.make_organisation("acme", NOW)
    store.registry.make("a", TenantSettings("acme"))
    store.people.set("acme", "ann", Person("auditor"), (), NOW)
    store.people.set("", "boss", Person("owner"), (), NOW)
    with store._database.write() as transaction:
        transaction.execute(change)

    def read() -> None:
        for organisation in ("", "acme"):
            for name in ("ann", "ben", "boss"):
                store.people.get(organisation, name)
        for tenant in ("a", "b"):
            store.registry.find(tenant)

    with pytest.raises(Unavailable) as caught:
        read()
    assert caught.value.code == "sealed_value_broken"
    store.close()
