"""What follows a decision: one tenant's trouble, trials or end cost no other tenant's recordings."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.waiting import LONG, until

from adyton.broker.policy import afterwards
from adyton.broker.policy.afterwards import Afterwards, Event
from adyton.broker.policy.policies import PolicyBook
from adyton.broker.policy.rego import RegoEngine
from adyton.protocol import recording
from adyton.protocol.ear import TokenClaims
from adyton.protocol.recording import RecordRules
from adyton.protocol.resource import ResourcePath
from adyton.stores.sqlite import Store

PATH = ResourcePath("models", "key", "1")
HEAD = "package policy\nimport rego.v1\n"
SLOW = HEAD + "allow := count([a | some a in numbers.range(1, 4000); a % 7 == input.n % 7]) > 0\n"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "data", root_key=bytes(32), now=now())
    yield store
    store.close()


@pytest.fixture
def engine() -> Iterator[RegoEngine]:
    engine = RegoEngine()
    yield engine
    engine.close()


def now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def event(tenant: str, number: int = 0) -> Event:
    claims = TokenClaims(0, 0, (), {"n": number})
    return Event(tenant, now(), number + 1, claims=claims, path=PATH, released=True)


def recorded(store: Store, *tenants: str) -> None:
    for tenant in tenants:
        store.policies.set(tenant, "requirements", "record", recording.written(RecordRules(1000, 7)), now())


def test_a_tenant_that_was_deleted_takes_nobodys_recordings_along(
    store: Store, engine: RegoEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(afterwards, "FLUSH_SECONDS", LONG)
    recorded(store, "ended", "goes-on")

    async def main() -> None:
        after = Afterwards(store, PolicyBook(store, engine))
        after.start(asyncio.get_running_loop())
        await asyncio.sleep(0.1)
        for tenant in ("ended", "goes-on"):
            after.note(event(tenant))
        until(lambda: after._bodies.keys() == {"ended", "goes-on"}, LONG / 2)
        store.registry.delete("ended")
        after.stop()
        assert after._thread is None

    asyncio.run(main())
    assert len(store.recordings.list("goes-on")) == 1


def test_a_store_that_fails_does_not_hold_up_the_end(
    tmp_path: Path, engine: RegoEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(afterwards, "FLUSH_SECONDS", LONG)
    store = Store.open(tmp_path / "data", root_key=bytes(32), now=now())
    recorded(store, "a")

    async def main() -> float:
        after = Afterwards(store, PolicyBook(store, engine))
        after.start(asyncio.get_running_loop())
        after.note(event("a"))
        until(lambda: after._bodies)
        store.close()
        thread, began = after._thread, time.monotonic()
        after.stop()
        assert thread is not None and not thread.is_alive()
        return time.monotonic() - began

    assert asyncio.run(main()) < LONG / 2


def test_what_fails_with_every_decision_is_not_said_with_every_one(
    store: Store, engine: RegoEngine, caplog: pytest.LogCaptureFixture
) -> None:
    recorded(store, "gone")
    store.registry.delete("gone")

    async def main() -> None:
        after = Afterwards(store, PolicyBook(store, engine))
        after.start(asyncio.get_running_loop())
        for number in range(200):
            after.note(event("gone", number))
        until(lambda: not after._of_tenant)
        after.stop()

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    said = [record for record in caplog.records if record.name == afterwards.__name__]
    assert 1 <= len(said) <= 3 and "tenant_absent" in said[0].getMessage()
    assert not any(record.exc_info for record in said)


def test_slow_trials_of_one_tenant_cost_no_other_its_recordings(store: Store, engine: RegoEngine) -> None:
    recorded(store, "quiet", "busy")
    store.policies.set("busy", "resource", "resource-policy", HEAD + "allow := true\n", now())
    trial = store.policies.set("busy", "resource", "resource-policy", SLOW, now(), activate=False)
    store.dry_runs.begin("busy", "resource", "resource-policy", trial.version, now(), actor="me")

    async def main() -> None:
        after = Afterwards(store, PolicyBook(store, engine))
        after.start(asyncio.get_running_loop())
        after.note(event("busy"))
        until(lambda: "busy" in after._known)
        for number in range(3000):
            after.note(event("busy", number))
        for number in range(20):
            after.note(event("quiet", number))
        await asyncio.to_thread(until, lambda: len(store.recordings.list("quiet")) == 20)
        await asyncio.to_thread(after.stop)

    asyncio.run(main())
    (run,) = store.dry_runs.list("busy")
    assert run.skipped > 2000 and run.same > 0, "what is passed over is counted"
