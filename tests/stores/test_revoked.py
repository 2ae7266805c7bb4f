"""What is revoked, over both engines: all or none, counted as a change of policies, a long list read once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.stores.conftest import Engine

from adyton.broker import keys
from adyton.broker.revoked_api import PublishedLists
from adyton.errors import NotFound, TooMany
from adyton.protocol import revoked
from adyton.stores.revoked import EVERYWHERE
from adyton.stores.sqlite import Store

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path, engine: Engine) -> Iterator[Store]:
    opened = Store.open(tmp_path, root_key=bytes(32), now=NOW, database=engine)
    yield opened
    opened.close()


def test_a_long_list_is_read_once(store: Store) -> None:
    assert store.revoked.current("a") is revoked.NOTHING
    store.revoked.add("a", "chip", ["aaaa"], "why", "me", NOW)
    first = store.revoked.current("a")
    assert store.revoked.current("a") is first and store.revoked.current("b") is revoked.NOTHING
    store.revoked.add("", "chip", ["bbbb"], "why", "me", NOW)
    assert store.revoked.current("a").entries == {("chip", "aaaa"), ("chip", "bbbb")}
    assert store.revoked.current("b").entries == {("chip", "bbbb")}
    store.revoked.lift("a", "chip", "aaaa")
    store.revoked.lift("", "chip", "bbbb")
    assert not store.revoked.current("a") and not store.revoked.current("b") and store.revoked.list("a") == []


def test_all_or_none(store: Store) -> None:
    with pytest.raises(TooMany):
        store.revoked.add("a", "chip", [f"{number:08x}" for number in range(1, 10_002)], "why", "me", NOW)
    assert not store.revoked.current("a")
    with pytest.raises(NotFound):
        store.revoked.lift("a", "chip", "aaaa")
    with pytest.raises(NotFound):
        store.revoked.lift("a", "", "")  # the row that counts is no entry


def test_every_change_is_one_of_policies(store: Store) -> None:
    for tenant in ("a", "b"):
        store.policies.set(tenant, "resource", "resource-policy", "package policy\ndefault allow = false", NOW)
    before = [store.generation("a"), store.generation("b")]
    store.revoked.add("a", "chip", ["aaaa"], "first", "me", NOW)
    assert [store.generation("a"), store.generation("b")] == [before[0] + 1, before[1]]
    store.revoked.add("", "chip", ["bbbb"], "why", "me", NOW)
    assert [store.generation("a"), store.generation("b")] == [before[0] + 2, before[1] + 1]
    store.revoked.add("a", "chip", ["aaaa"], "second", "me", NOW)
    assert [one.reason for one in store.revoked.list("a") if one.tenant == "a"] == ["first"]
    store.check_writable()


def test_made_up_tenants_cost_no_memory(store: Store) -> None:
    """Anybody can ask about any name; the broker's own list is there once for all that have none."""
    store.revoked.add(EVERYWHERE, "measurement", ["ab" * 48], "why", "who", NOW)
    everywhere = store.revoked.current("one").entries
    assert all(store.revoked.current(f"made-up-{number}").entries is everywhere for number in range(50))
    store.revoked.add("two", "measurement", ["cd" * 48], "why", "who", NOW)
    assert len(store.revoked.current("two").entries) == 2 and len(everywhere) == 1
    lists, current = PublishedLists(store), keys.load(store.secrets, NOW.timestamp())
    kept = lists.answer("two", current, NOW.timestamp())
    for number in range(300):
        found = lists.answer(f"made-up-{number}", current, NOW.timestamp())
        assert found.status == 200
    assert lists.answer("two", current, NOW.timestamp()).body is kept.body
