"""A change of the administration and the rows that say so are one transaction, whatever happens to the broker between.

A whole broker in this process answers the administration's requests, one after the other; it is killed at every
statement of the database, its disk is full at every row, its database is cut off. Whatever is left is explained by the
audit log: replayed, its rows give the state, no more and no less.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from tests.postgresql import Server
from tests.stores.backends.vault_server import VaultServer

from adyton.broker.door.answer import Answer
from adyton.broker.door.connection import HttpRequest
from adyton.broker.policy import policies
from adyton.broker.running.worker import Program
from adyton.broker.settings import Settings
from adyton.crypto import key_kinds
from adyton.errors import Unavailable
from adyton.stores import audit, database
from adyton.stores.backends.vault import Vault
from adyton.stores.sql import Database
from adyton.stores.sqlite import Store

AT = 1_800_000_000.0
NOW = datetime.fromtimestamp(AT, UTC)
TOKEN = "t" * 40
ALLOW = "package policy\ndefault allow := true\n"
NOBODY = {"any_workload_i_accept": True}
PAIR = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"
Request = tuple[str, str, object]
REQUESTS: tuple[Request, ...] = (
    ("PUT", "references/a", {"value": 1}),
    ("PUT", "policies/resource/one", {"text": ALLOW}),
    ("PUT", "policies/resource/one", {"text": ALLOW + "#2"}),
    ("POST", "policies/resource/one/rollback", {}),
    ("POST", "policies/resource/one/activate", {"version": 2}),
    ("PUT", "policies/requirements/snp", {"text": '{"vmpls": [1]}'}),
    ("PUT", "policies/resource/two", {"text": ALLOW, "activate": False}),
    ("DELETE", "policies/resource/one", None),
    ("PUT", "resources/a/b/c", {"value": "eA==", "binding": NOBODY}),
    ("PUT", "resources/a/b/c/binding", {"any_workload_i_accept": False}),
    ("PUT", "resources/a/b/d", {"value": "eA==", "binding": NOBODY}),
    ("DELETE", "resources/a/b/c", None),
    ("PUT", "keys/k/e/y", {"kind": "aes-256"}),
    ("POST", "keys/k/e/y/rotate", {}),
    ("POST", "keys/k/e/y/versions/1/destroy", None),
    ("PUT", "keys/k/e/z", {"kind": "p-256", "certificate": {"subject": "x", "names": ["x.example"]}}),
    ("DELETE", "keys/k/e/z", None),
    ("PUT", "people/ann", {"role": "owner"}),
    ("POST", "people/ann/keys", {"pem": PAIR}),
    ("PUT", "people/bob", {"role": "auditor"}),
    ("DELETE", "people/bob", None),
    ("POST", "revoked", {"kind": "session", "values": ["00000000000000aa", "00000000000000bb"], "reason": "lost"}),
    ("POST", "revoked/lift", {"kind": "session", "value": "00000000000000aa", "reason": "found"}),
    ("PUT", "tenant/quotas", {"quotas": {"bytes": 500000}}),
    ("PUT", "references/b", {"value": 2}),
    ("DELETE", "references/a", None),
)
"""One after the other, as an administrator makes them; each is accepted."""


class Broker:
    """One worker in this process."""

    def __init__(
        self,
        directory: Path,
        database: Callable[[], Database] | None = None,
        *,
        others: bool = False,
        backends: str = "",
    ) -> None:
        directory.mkdir(exist_ok=True)
        token = directory / "admin.token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        self.store = Store.open(directory, root_key=bytes(32), now=NOW, database=database)
        self.program = Program(
            Settings(data=str(directory), workers=2 if others else 1, backends_file=backends), self.store
        )
        self.program._front._clock = lambda: AT

    def ask(self, method: str, target: str, body: object = None, tenant: str = "", token: str = TOKEN) -> Answer:
        async def asked() -> Answer:
            base = f"/t/{tenant}" if tenant else ""
            headers = {b"host": b"localhost", b"authorization": b"Bearer " + token.encode()}
            sent = b"" if body is None else json.dumps(body).encode()
            request = HttpRequest(
                method, f"{base}/api/v0/{target}".encode(), headers, sent, keep_alive=True, peer="192.0.2.1"
            )
            answer = self.program._front(request)
            return answer if isinstance(answer, Answer) else await answer

        return asyncio.run(asked())

    def close(self) -> None:
        self.program._engine.close()
        self.program._backends.close()
        self.store.close()


def said(store: Store) -> dict[str, Any]:
    """The state that the rows of the log tell of: replayed from nothing."""
    store.audit.verify("default")
    active: dict[str, int] = {}
    found: dict[str, Any] = {
        "versions": set(), "active": active, "references": set(), "resources": set(), "keys": {}, "people": set(),
        "credentials": set(), "revoked": set(), "quotas": "",
    }  # fmt: skip
    for entry in [*store.audit.list("default", limit=10_000), *store.audit.list("broker", limit=10_000)]:
        action, name = entry.row.action, entry.row.resource
        if entry.row.decision != "allowed":
            continue
        match action:
            case "policy.set":
                found["versions"].add(name.partition(" ")[0])
            case "policy.activate" | "policy.rollback":
                policy, _, version = name.partition(" ")[0].partition("@")
                active[policy] = int(version)
            case "policy.delete":
                del active[name]
            case "reference.set":
                found["references"].add(name)
            case "reference.delete":
                found["references"].remove(name)
            case "resource.set":
                found["resources"].add((name, True))
            case "resource.bind":
                found["resources"] -= {(name, True), (name, False)}
                found["resources"].add((name, False))
            case "resource.delete":
                found["resources"] -= {(name, True), (name, False)}
            case "key.set":
                found["keys"][name] = ["enabled"]
            case "key.rotate":
                found["keys"][name.partition("?")[0]].append("enabled")
            case "key.destroy":
                uri, _, version = name.partition("?version=")
                for index in [int(version) - 1] if version else range(len(found["keys"][uri])):
                    found["keys"][uri][index] = "destroyed"
            case "key.delete":
                del found["keys"][name]
            case "person.set":
                found["people"].add(name)
            case "person.delete":
                found["people"] = {one for one in found["people"] if not one.startswith(f"{name}:")}
            case "person.key":
                found["credentials"].add(name)
            case "revoke.session":
                found["revoked"].add(name.partition(":")[0])
            case "lift.session":
                found["revoked"].remove(name.partition(":")[0])
            case "tenant.quotas":
                found["quotas"] = name
            case _:
                raise AssertionError(f"a row of something else: {action}")
    return found


def is_(store: Store) -> dict[str, Any]:
    """The state as it is."""
    tenant = "default"
    kinds: tuple[Any, ...] = ("attestation", "resource", "requirements")
    ids = [(kind, name, active) for kind in kinds for name, _, active in store.policies.ids(tenant, kind)]
    resources = store.resources.list(tenant)
    members = store.people.members("")
    settings = store.registry.find(tenant)
    return {
        "versions": {
            f"{kind}/{name}@{one.version}" for kind, name, _ in ids for one in store.policies.versions(tenant, kind, name)
        },
        "active": {f"{kind}/{name}": active for kind, name, active in ids if active},
        "references": {one.name for one in store.references.list(tenant)},
        "resources": {(one.path.uri, one.binding.any_workload_i_accept) for one in resources if one.key is None},
        "keys": {
            one.path.uri: [version.state.value for version in one.key.versions] for one in resources if one.key is not None
        },
        "people": {f"{name}: {person.role} of everything" for name, person in members},
        "credentials": {f"{one.value.person} {one.id}" for one in store.people.credentials("", kind="key")},
        "revoked": {one.value for one in store.revoked.list(tenant)},
        "quotas": ", ".join(f"{name} {value}" for name, value in settings.settings.quotas.items()) if settings else "",
    }  # fmt: skip


@pytest.fixture
def broker(tmp_path: Path, quick: None) -> Iterator[Broker]:
    made = Broker(tmp_path / "a")
    yield made
    made.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "STAGE_SECONDS", 0.0)


def killed_at(directory: Path, statement: int, database: Callable[[], Database] | None = None) -> bool:
    """Ask everything in a child that is killed before its n-th statement that writes; whether it got to the end."""
    child = os.fork()
    if child:
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert ended in {0, -signal.SIGKILL}
        return ended == 0
    try:
        broker = Broker(directory, database, others=True)
        left = statement

        def count(text: str) -> None:
            nonlocal left
            if text.lstrip()[:6].upper() in {"SELECT", "PRAGMA"}:
                return
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        broker.store._database._writer.set_trace_callback(count)  # type: ignore[attr-defined]
        for method, target, body in REQUESTS:
            answer = broker.ask(method, target, body)
            if answer.status >= 300:
                os.write(2, answer.body)
                os._exit(1)
        os._exit(0)
    finally:
        os._exit(2)


def explained(directory: Path, statement: int) -> bool:
    """Kill there, and look; whether it was over before."""
    there = directory / f"killed{statement}"
    over = killed_at(there, statement)
    store = Store.open(there, root_key=bytes(32), now=NOW)
    try:
        assert is_(store) == said(store), statement
    finally:
        store.close()
        shutil.rmtree(there)
    return over


def test_everything_is_recorded_as_it_is(broker: Broker) -> None:
    for method, target, body in REQUESTS:
        answer = broker.ask(method, target, body)
        assert answer.status < 300, (target, answer.body)
        assert is_(broker.store) == said(broker.store), target


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("statement", [0, 7, 23, 38, 61, 97, 140, 211])
def test_killed_somewhere_the_record_explains_what_there_is(tmp_path: Path, statement: int) -> None:
    assert not explained(tmp_path, statement)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("quick")
def test_killed_anywhere_the_record_explains_what_there_is(tmp_path: Path) -> None:
    deaths = 0
    for statement in range(0, 2000, 5):
        if explained(tmp_path, statement):
            break
        deaths += 1
    assert deaths > 40


# ---------------------------------------------------------------- a disk that is full at the row


def full(*_: object) -> None:
    raise Unavailable("the disk is full", code="store_disk")


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: f"{one[0]}-{one[1]}")
def test_without_its_row_there_is_no_change(broker: Broker, monkeypatch: pytest.MonkeyPatch, request_: Request) -> None:
    for one in REQUESTS[: REQUESTS.index(request_)]:
        broker.ask(*one)
    before, rows = is_(broker.store), broker.store.audit.size("default")
    with monkeypatch.context() as disk:
        disk.setattr("adyton.stores.audit_tree.complete", full)
        assert broker.ask(*request_).status == 503
    assert is_(broker.store) == before == said(broker.store)
    assert broker.store.audit.size("default") == rows
    assert broker.ask(*request_).status < 300
    assert is_(broker.store) == said(broker.store)


def test_a_commit_that_fails_is_neither(broker: Broker) -> None:
    database: Any = broker.store._database
    real = database._writer

    class Failing:
        def execute(self, statement: str, *rest: Any) -> sqlite3.Cursor:
            if statement == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return cast("sqlite3.Cursor", real.execute(statement, *rest))

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    database._writer = Failing()
    assert broker.ask(*REQUESTS[0]).status == 503
    database._writer = real
    assert is_(broker.store) == said(broker.store) and not broker.store.references.list("default")


def test_a_handler_that_fails_after_its_change(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:

    def broken(*_: object) -> None:
        raise OSError("gone")

    with monkeypatch.context() as patched:
        patched.setattr("adyton.broker.reference_api._view", broken)
        assert broker.ask(*REQUESTS[0]).status == 500
    assert not broker.store.references.list("default")
    assert broker.ask(*REQUESTS[0]).status == 200


def test_a_change_that_names_no_row_is_not_made(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("adyton.broker.reference_api.api_bodies.answer", lambda *_: Answer(200))
        assert broker.ask(*REQUESTS[0]).status == 500
    assert not broker.store.references.list("default")
    assert "no row speaks of" in caplog.text


def test_a_refusal_has_its_row_as_before(broker: Broker) -> None:
    broker.ask("PUT", "people/aud", {"role": "auditor"})
    number = json.loads(broker.ask("POST", "people/aud/tokens", {"days": 1}).body)
    assert broker.ask("PUT", "references/a", {"value": 1}, token=number["token"]).status == 403
    row = broker.store.audit.list("default", limit=100)[-1].row
    assert (row.action, row.decision, row.actor) == ("reference.set", "refused", "aud")


# ---------------------------------------------------------------- steps that others must agree to


def votes(
    broker: Broker, rule: str = "reference", request: Request = ("PUT", "references/a", {"value": 1})
) -> tuple[str, str, str]:
    """A proposal with one vote, and the second voter's token."""
    tokens = []
    for name in ("ann", "bob"):
        broker.ask("PUT", f"people/{name}", {"role": "owner"})
        tokens.append(json.loads(broker.ask("POST", f"people/{name}/tokens", {"days": 1}).body)["token"])
    assert broker.ask("PUT", "tenant/approvals", {"actions": [rule], "needed": 2}).status == 200
    proposal = json.loads(broker.ask(*request, token=tokens[0]).body)
    return proposal["id"], proposal["digest"], tokens[1]


def actions(broker: Broker) -> list[str]:
    return [entry.row.action for entry in broker.store.audit.list("default", limit=1000)]


def test_what_is_agreed_to_is_done_recorded_and_over_at_once(broker: Broker) -> None:
    number, digest, token = votes(broker)
    vote = ("POST", f"approvals/{number}/votes", {"digest": digest, "choice": "approve"})
    assert json.loads(broker.ask(*vote, token=token).body)["state"] == "done"
    assert actions(broker)[-3:] == ["approval.approve", "reference.set", "approval.done"]
    last = broker.store.audit.list("default", limit=1000)[-2].row
    assert last.actor == "bob" and f"[proposal {number} of ann]" in last.resource


def test_an_approved_change_whose_row_is_not_written_is_not_made(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, digest, token = votes(broker)
    vote = ("POST", f"approvals/{number}/votes", {"digest": digest, "choice": "approve"})
    put = audit.AuditLog.enter
    calls = 0

    def second(self: audit.AuditLog, *given: Any) -> list[int]:
        nonlocal calls
        calls += 1
        if calls == 2:
            full()
        return put(self, *given)

    with monkeypatch.context() as disk:
        disk.setattr(audit.AuditLog, "enter", second)
        answer = broker.ask(*vote, token=token)
    assert json.loads(answer.body)["state"] == "failed", answer.body
    assert actions(broker)[-2:] == ["approval.approve", "approval.failed"]
    assert not broker.store.references.list("default")


def test_an_approved_change_that_is_refused_leaves_the_vote(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    number, digest, token = votes(broker)
    assert broker.ask("PUT", "tenant/quotas", {"quotas": {"references": 0}}).status in {200, 202}
    broker.store.registry.change(
        "default", lambda _, was: type(was)(was.organisation, was.environment, was.approvals, {"references": 0})
    )
    answer = broker.ask("POST", f"approvals/{number}/votes", {"digest": digest, "choice": "approve"}, token=token)
    assert json.loads(answer.body)["state"] == "failed"
    assert actions(broker)[-2:] == ["approval.approve", "approval.failed"]


def test_what_was_done_is_not_said_to_have_failed_because_its_erasure_waits(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change, its row and the proposal's end are committed; that bytes are still to be overwritten undoes none of it."""
    assert broker.ask("PUT", "keys/k/e/y", {"kind": "aes-256"}).status == 200
    number, digest, token = votes(broker, rule="key", request=("DELETE", "keys/k/e/y", None))
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    path = broker.store._database.path  # type: ignore[attr-defined]
    reader = sqlite3.connect(path, isolation_level=None)
    try:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM audit").fetchall()  # an older state, which somebody goes on reading
        answer = broker.ask("POST", f"approvals/{number}/votes", {"digest": digest, "choice": "approve"}, token=token)
    finally:
        reader.close()
    assert answer.status == 503 and b"erasure_pending" in answer.body
    assert actions(broker)[-3:] == ["approval.approve", "key.delete", "approval.done"]
    found = broker.store.proposals.get("default", number)
    assert found is not None and found.state == "done"
    assert is_(broker.store)["keys"] == {}


def test_a_deletion_whose_erasure_waits_can_be_asked_for_again(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    assert broker.ask("PUT", "keys/k/e/y", {"kind": "aes-256"}).status == 200
    assert broker.ask("POST", "keys/k/e/y/rotate", {}).status == 200
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    path = broker.store._database.path  # type: ignore[attr-defined]
    reader = sqlite3.connect(path, isolation_level=None)
    try:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM audit").fetchall()
        assert broker.ask("POST", "keys/k/e/y/versions/1/destroy").status == 503
        assert json.loads(broker.ask("GET", "keys/k/e/y").body)["erasing"] == ["the store"]
        for _ in range(2):
            answer = broker.ask("DELETE", "keys/k/e/y")
            assert answer.status == 503 and b"erasure_pending" in answer.body
        shown = broker.ask("GET", "keys/k/e/y")
        assert shown.status == 404 and b"adyton key delete kbs:///k/e/y" in shown.body
    finally:
        reader.close()
    assert broker.ask("DELETE", "keys/k/e/y").status == 204
    assert broker.ask("DELETE", "keys/k/e/y").status == 404
    assert b"adyton key delete" not in broker.ask("GET", "keys/k/e/y").body


def test_what_lies_where_a_key_was_erased_is_not_deleted_with_it(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second "key delete" goes on with the erasure; a value that its owner put there meanwhile is no key."""
    assert broker.ask("PUT", "keys/k/e/y", {"kind": "aes-256"}).status == 200
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    reader = sqlite3.connect(broker.store._database.path, isolation_level=None)  # type: ignore[attr-defined]
    try:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM audit").fetchall()
        assert broker.ask("DELETE", "keys/k/e/y").status == 503
        assert broker.ask("PUT", "resources/k/e/y", {"value": "eA==", "binding": NOBODY}).status == 200
        answer = broker.ask("DELETE", "keys/k/e/y")
        assert answer.status == 503 and b"erasure_pending" in answer.body
    finally:
        reader.close()
    assert broker.ask("DELETE", "keys/k/e/y").status == 204
    assert broker.ask("DELETE", "keys/k/e/y").status == 404
    assert [str(one.path) for one in broker.store.resources.list("default")] == ["k/e/y"]


def test_the_broker_erases_by_itself_what_waits(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    assert broker.ask("PUT", "keys/k/e/y", {"kind": "aes-256"}).status == 200
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    reader = sqlite3.connect(broker.store._database.path, isolation_level=None)  # type: ignore[attr-defined]
    sweeper = broker.program._values.sweeper
    try:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM audit").fetchall()
        assert broker.ask("DELETE", "keys/k/e/y").status == 503
        sweeper.sweep()
        assert broker.store.erasures.paths("default")
    finally:
        reader.close()
    sweeper.sweep()
    assert not broker.store.erasures.paths("default")
    assert broker.ask("DELETE", "keys/k/e/y").status == 404


def test_nobody_votes_without_a_row(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    number, digest, token = votes(broker)
    with monkeypatch.context() as disk:
        disk.setattr("adyton.stores.audit_tree.complete", full)
        answer = broker.ask("POST", f"approvals/{number}/votes", {"digest": digest, "choice": "approve"}, token=token)
    assert answer.status == 503
    found = broker.store.proposals.get("default", number)
    assert found is not None and found.state == "pending" and len(found.votes) == 1


# ---------------------------------------------------------------- what lies elsewhere


@pytest.fixture
def vault() -> Iterator[VaultServer]:
    with VaultServer() as server:
        yield server


@pytest.fixture
def holding(tmp_path: Path, vault: VaultServer) -> Iterator[Broker]:
    (tmp_path / "token").write_text("steward\n")
    (tmp_path / "token").chmod(0o600)
    (tmp_path / "backends.toml").write_text(
        f'[backends.vault]\nkind = "vault"\nurl = "{vault.url}"\ntoken_file = "token"\n'
    )
    made = Broker(tmp_path / "a", backends=str(tmp_path / "backends.toml"))
    yield made
    made.close()


def left(broker: Broker) -> int:
    waits = broker.store.removals.counts("default"), broker.store.intents.counts("default")
    return sum(sum(one.values()) for one in waits)


def test_what_a_back_end_was_given_is_taken_back_with_its_row(
    holding: Broker, vault: VaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = ("PUT", "resources/a/b/c", {"value": "eA==", "binding": NOBODY, "backend": "vault"})
    key = ("PUT", "keys/k/e/y", {"kind": "aes-256", "backend": "vault"})
    for one in (value, key, ("POST", "keys/k/e/y/rotate", {}), value):
        before, keys = is_(holding.store), len(vault.keys)
        with monkeypatch.context() as disk:
            disk.setattr("adyton.stores.audit_tree.complete", full)
            assert holding.ask(*one).status == 503
        assert is_(holding.store) == before == said(holding.store)
        assert len(vault.keys) == keys and not left(holding)
        assert holding.ask(*one).status == 200
        assert is_(holding.store) == said(holding.store) and not left(holding)
    found = vault.secrets["adyton/default/a/b/c"]
    assert len([one for one in found.versions.values() if not one["destroyed"]]) == 1


def test_a_binding_that_names_a_version_goes_with_what_is_made_elsewhere_first(holding: Broker) -> None:
    """The version is kept before anything slow begins, and not in the middle of the change."""
    assert holding.ask("PUT", "policies/resource/one", {"text": ALLOW}).status == 200
    bound = {"policy_id": "one@1"}
    for target, body in (
        ("resources/a/b/c", {"value": "eA==", "backend": "vault"}),
        ("keys/k/e/y", {"kind": "aes-256", "backend": "vault"}),
        ("keys/k/e/z", {"kind": "p-256", "certificate": {"subject": "x", "names": ["x.example"]}}),
    ):
        answer = holding.ask("PUT", target, {**body, "binding": bound})
        assert answer.status == 200, answer.body
    assert not left(holding)
    assert holding.store.policies.version("default", "resource", "one", 1).pinned


def test_nobody_waits_for_a_key_that_is_being_made(holding: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is named in its binding: no lock of the store is held before the key is there."""
    assert holding.ask("PUT", "policies/resource/one", {"text": ALLOW}).status == 200
    make, held = key_kinds.generate, []

    def slow(*given: Any) -> bytes:
        held.append(holding.store._database.deeds.open())
        return make(*given)

    monkeypatch.setattr(key_kinds, "generate", slow)
    body = {"kind": "p-256", "binding": {"policy_id": "one@1"}}
    assert holding.ask("PUT", "keys/k/e/y", body).status == 200
    assert held == [None]


def test_a_key_whose_device_does_not_destroy_it_is_recorded_as_destroyed(
    holding: Broker, vault: VaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the record it is, from then on: nobody uses it any more, and the owner is told to ask again."""
    assert holding.ask("PUT", "keys/k/e/y", {"kind": "aes-256", "backend": "vault"}).status == 200
    with monkeypatch.context() as gone:
        gone.setattr(Vault, "destroy", full)
        assert holding.ask("DELETE", "keys/k/e/y").status == 503
    assert len(vault.keys) == 1
    assert is_(holding.store) == said(holding.store)
    assert is_(holding.store)["keys"] == {"kbs:///k/e/y": ["destroyed"]}
    assert holding.ask("DELETE", "keys/k/e/y").status == 204
    assert is_(holding.store) == said(holding.store) and not vault.keys


# ---------------------------------------------------------------- PostgreSQL


@pytest.fixture
def shared(tmp_path: Path, postgresql: Server, quick: None) -> Iterator[tuple[Broker, Broker]]:
    opener = postgresql.opener()
    two = Broker(tmp_path / "a", opener), Broker(tmp_path / "b", opener)
    yield two
    for one in two:
        one.close()


def test_two_brokers_in_turns_over_one_database(shared: tuple[Broker, Broker]) -> None:
    for number, (method, target, body) in enumerate(REQUESTS):
        answer = shared[number % 2].ask(method, target, body)
        assert answer.status < 300, (target, answer.body)
    assert is_(shared[0].store) == said(shared[1].store)


def test_over_a_database_without_a_row_there_is_no_change(
    shared: tuple[Broker, Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    for method, target, body in REQUESTS:
        before = is_(shared[0].store)
        with monkeypatch.context() as disk:
            disk.setattr("adyton.stores.audit_tree.complete", full)
            assert shared[0].ask(method, target, body).status == 503
        now = is_(shared[1].store)
        assert now == before == said(shared[1].store), target
        assert shared[1].ask(method, target, body).status < 300
