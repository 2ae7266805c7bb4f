"""No sequence of calls by A changes or reveals anything of B.

Two brokers get the same calls of A's people. In one of them there is B with all kinds of things, and B goes on working; in
the other B does not even exist. Every answer that A gets is the same in both (but for what is random), and nothing of B's
bytes changes but by B. A knows all of B's names, and tries them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from adyton.broker.door.answer import Answer
from adyton.broker.door.connection import HttpRequest
from adyton.broker.door.openapi_routes import ROUTES
from adyton.broker.people.gate import new_token
from adyton.broker.people.permissions import TABLE, Line
from adyton.broker.running.worker import Program
from adyton.broker.settings import Settings
from adyton.protocol.people import ApprovalRules
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores import schema
from adyton.stores.people import Credential, Person
from adyton.stores.sqlite import Store
from adyton.stores.tenant_settings import TenantSettings

NOW = 1_900_000_000.0
MARK = "zeitgeist"  # in everything that is B's, and in nothing that A sends but B's names
ROOT = "r" * 43
RANDOM = re.compile(rb"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----|[0-9a-f]{12,}|[A-Za-z0-9_+/-]{12,}={0,2}")
ALLOW = "package policy\n\ndefault allow := true\n"
NAMES = (
    "default",
    "key",
    "1",
    "bolt",
    "acme",
    "ann",
    f"{MARK}-person",
    MARK,
    "resource",
    "attestation",
    "resource-policy",
    "x",
)
QUERIES = (
    "",
    "all",
    "all=1",
    "after=0",
    "limit=5",
    "old=1",
    "size=1",
    "version=1",
    "organisation=bolt",
    f"resource=kbs:///default/{MARK}/1",
)
BODIES: tuple[Any, ...] = (
    None, {}, {"value": "eA==", "binding": {"any_workload_i_accept": True}}, {"any_workload_i_accept": True},
    {"text": ALLOW}, {"text": "no rego"}, {"value": [1]}, {"value": 1, "expires": "2031-01-01T00:00:00Z"},
    {"role": "owner"}, {"role": "owner", "tenants": ["bolt"]}, {"role": "auditor", "tenants": ["acme"]}, {"role": "operator"},
    {"days": 1}, {"actions": ["policy"], "needed": 2, "hours": 1}, {"actions": []}, {"name": "bolt"}, {"name": "acme"},
    {"source": "bolt", "policies": True, "references": True}, {"source": "acme-two", "policies": True},
    {"source": "bolt", "resources": [f"kbs:///default/{MARK}/1"]}, {"organisation": "bolt"}, {"organisation": "bolt", "environment": "test"},
    {"environment": "test"}, {"quotas": {}}, {"quotas": {"resources": 1}}, {"digest": "0" * 64, "choice": "approve"},
    {"enabled": False}, {"kind": "aes256"}, {"names": [MARK]}, {"kind": "session", "value": "x", "reason": "y"}, {"version": 1},
    {"issuer": "https://a.example", "audience": "x", "organisation": "bolt"}, {"policy_id": "default_cpu", "policy": "eA"},
)  # fmt: skip
LOOP = asyncio.new_event_loop()
LINES = [line for line in TABLE if line.who != "none"]


def _fit(line: Line) -> list[Any]:
    """Bodies that the line's handler can read, so that what is behind the reading is reached."""
    given = ROUTES.get(f"{line.method} {'/'.join(line.path)}") if line.area == "api" else None
    if given is None or given.body is None:
        return [None] if given is not None else list(BODIES)
    found = []
    for body in BODIES:
        with contextlib.suppress(msgspec.ValidationError):
            msgspec.convert(body, given.body)
            found.append(body)
    return found or list(BODIES)


CALLS = st.one_of(
    st.sampled_from(LINES).flatmap(lambda line: st.tuples(st.just(line), st.sampled_from(_fit(line)))),
    st.tuples(st.sampled_from(LINES), st.sampled_from(BODIES)),
)


class World:
    """A whole broker in this process, at a time that stands still. ``with_b``: B is there."""

    def __init__(self, directory: Path, *, with_b: bool) -> None:
        from datetime import UTC, datetime

        self.now = datetime.fromtimestamp(NOW, UTC)
        directory.mkdir()
        (directory / "admin.token").write_text(ROOT)
        (directory / "admin.token").chmod(0o600)
        self.store = Store.open(directory, root_key=bytes(32), now=self.now)
        registry, people = self.store.registry, self.store.people
        registry.make_organisation("acme", self.now)
        for name in ("acme", "acme-two"):
            registry.make(name, TenantSettings("acme", "test"))
        for name, role in (("ann", "owner"), ("aud", "auditor")):
            people.set("acme", name, Person(role), (), self.now)
        self.changes = 0
        if with_b:
            self._make_b()
        self.program = Program(Settings(data=str(directory)), self.store)
        self.program._front._clock = lambda: NOW

    def _make_b(self) -> None:
        store, now = self.store, self.now
        store.registry.make_organisation("bolt", now)
        store.registry.make("bolt", TenantSettings("bolt", "test", ApprovalRules(("policy",), 2, 1)))
        store.people.set("bolt", "ann", Person("owner"), (), now)
        store.people.set("bolt", f"{MARK}-person", Person("owner"), (), now)
        store.resources.set("bolt", ResourcePath("default", MARK, "1"), b"the secret " + MARK.encode(), Binding(), now)
        store.resources.set("bolt", ResourcePath("default", "key", "1"), b"x", Binding(), now)
        store.policies.set("bolt", "resource", "resource-policy", f"# {MARK}\n{ALLOW}", now)
        store.references.set_all("bolt", {MARK: MARK}, None, now)
        store.providers.set("bolt", MARK, b"{}", lambda _: True, now)

    def b_works(self) -> None:
        """B changes something of its own, and somebody attests there."""
        self.changes += 1
        self.store.references.set_all("bolt", {f"{MARK}{self.changes}": MARK}, None, self.now)
        self.store.resources.set("bolt", ResourcePath("default", MARK, str(self.changes)), b"x", Binding(), self.now)
        auditor = self.program._front._handlers.auditor
        LOOP.run_until_complete(auditor.administered("bolt", "reference.set", MARK, self.now, actor="bolt/ann"))

    def everything_of_b(self) -> dict[str, Any]:
        """Each of B's rows, byte for byte."""
        read = self.store._database.read
        found = {
            table: read(f'SELECT * FROM "{table}" WHERE tenant=?', ("bolt",))
            for table in (*schema.tables_of_tenants(),)
        }
        for table in ("people", "credentials", "identity_providers"):
            found[table] = read(f"SELECT * FROM {table} WHERE organisation=?", ("bolt",))
        found["tenants"] = read("SELECT * FROM tenants WHERE name=?", ("bolt",))
        return found

    def ask(self, method: str, target: str, token: str, body: bytes) -> Answer:
        headers = {b"host": b"localhost", b"authorization": b"Bearer " + token.encode()} if token else {}
        request = HttpRequest(method, target.encode(), headers, body, keep_alive=True, peer="192.0.2.1")
        answer = self.program._front(request)
        return answer if isinstance(answer, Answer) else LOOP.run_until_complete(_waited(answer))

    def close(self) -> None:
        self.program._engine.close()
        self.store.close()


async def _waited(answer: Any) -> Answer:
    found = await answer
    assert isinstance(found, Answer)
    return found


def told(answer: Answer) -> tuple[Any, ...]:
    """What can be told from an answer, but for what is random in it."""
    head, _, body = answer.render().partition(b"\r\n\r\n")
    head = re.sub(rb"content-length: \d+", b"content-length", head) if RANDOM.search(body) else head
    return head, RANDOM.sub(b"#", body)


class Tenants(RuleBasedStateMachine):
    """A's people call whatever there is; B works now and then."""

    @initialize()
    def start(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.full = World(Path(self.directory.name) / "full", with_b=True)
        self.empty = World(Path(self.directory.name) / "empty", with_b=False)
        self.tokens = {"stranger": ""}
        for name in ("ann", "aud"):
            number, token, digest = new_token()
            self.tokens[name] = token
            for world in (self.full, self.empty):
                world.store.people.add("acme", "token", number, Credential(name, digest, NOW, NOW + 3600))

    @rule()
    def b_works(self) -> None:
        self.full.b_works()

    @precondition(lambda self: hasattr(self, "full"))
    @rule(
        who=st.sampled_from(["ann", "ann", "ann", "aud", "stranger"]),
        call=CALLS,
        tenant=st.sampled_from(["acme", "acme", "acme-two", "bolt", "default", "broker", "nobodys"]),
        names=st.lists(st.sampled_from(NAMES), min_size=6, max_size=6),
        query=st.sampled_from(QUERIES),
    )
    def a_calls(self, who: str, call: tuple[Line, Any], tenant: str, names: list[str], query: str) -> None:
        (line, body), given = call, iter(names)
        parts = [next(given) if part in {"*", "**"} else part for part in line.path]
        base = "/api/v0" if line.area == "api" else "/kbs/v0"
        target = f"/t/{tenant}{base}/{'/'.join(parts)}" + (f"?{query}" if query else "")
        sent = b"" if body is None else json.dumps(body).encode()
        before = self.full.everything_of_b()
        answers = [world.ask(line.method, target, self.tokens[who], sent) for world in (self.full, self.empty)]
        asked = (who, line.method, target, body)
        assert told(answers[0]) == told(answers[1]), asked
        assert self.full.everything_of_b() == before, asked
        assert b"the secret" not in answers[0].body, asked

    @precondition(lambda self: hasattr(self, "full"))
    @rule(
        noun=st.sampled_from(["promotions/plan", "promotions"]),
        tenant=st.sampled_from(["acme", "acme-two"]),
        wanted=st.sampled_from([{"policies": True}, {"references": True}, {"resources": [f"kbs:///default/{MARK}/1"]}]),
    )
    def a_reaches_over(self, noun: str, tenant: str, wanted: dict[str, Any]) -> None:
        """What takes another tenant's name in its body, as the only requests that do."""
        sent = json.dumps({"source": "bolt", **wanted}).encode()
        before = self.full.everything_of_b()
        answers = [
            world.ask("POST", f"/t/{tenant}/api/v0/{noun}", self.tokens["ann"], sent)
            for world in (self.full, self.empty)
        ]
        assert told(answers[0]) == told(answers[1]), (noun, wanted)
        assert self.full.everything_of_b() == before

    def teardown(self) -> None:
        if hasattr(self, "full"):
            self.full.close()
            self.empty.close()
            self.directory.cleanup()


Tenants.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=40,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
TestTenants = Tenants.TestCase
