"""Versions, activation, rollback, dry runs, recordings: the tables alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.stores.conftest import Engine

from adyton.errors import Conflict, NotFound, Unavailable
from adyton.stores import policies, schema
from adyton.stores.policies import Policies
from adyton.stores.sqlite import FILE, Store

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
NAME = ("default", "attestation", "default_cpu")


@pytest.fixture
def store(tmp_path: Path, engine: Engine) -> Iterator[Store]:
    store = Store.open(tmp_path, root_key=bytes(32), now=NOW, database=engine)
    yield store
    store.close()


def put(store: Store, text: str, *, activate: bool = True, tenant: str = "default") -> int:
    return store.policies.set(
        tenant, "attestation", "default_cpu", text, NOW, actor="ann", note="why", activate=activate
    ).version


def active(store: Store) -> tuple[int, str] | None:
    found = store.policies.get(*NAME)  # type: ignore[arg-type]
    return (found.version, found.text) if found else None


def test_a_candidate_decides_nothing_and_moves_no_generation(store: Store) -> None:
    put(store, "candidate", activate=False)
    assert active(store) is None and store.generation("default") == 0
    assert store.policies.list("default", "attestation") == []
    put(store, "one")
    generation = store.generation("default")
    put(store, "two", activate=False)
    assert active(store) == (2, "one") and store.generation("default") == generation


def test_a_candidate_moved_into_force_on_the_disk_does_not_open(store: Store, tmp_path: Path) -> None:
    put(store, "strict")
    put(store, "lax", activate=False)
    with sqlite3.connect(tmp_path / FILE) as connection:
        (sealed,) = connection.execute("SELECT sealed FROM policy_versions WHERE version=2").fetchone()
        connection.execute("UPDATE policies SET version=2, sealed=?", (sealed,))
    connection.close()
    with pytest.raises(Unavailable):
        active(store)


def test_what_is_not_there_is_neither_activated_nor_rolled_back_to(store: Store) -> None:
    put(store, "one")
    for call in (
        lambda: store.policies.activate("default", "attestation", "default_cpu", 2, NOW),
        lambda: store.policies.activate("other", "attestation", "default_cpu", 1, NOW),
        lambda: store.policies.activate("default", "resource", "default_cpu", 1, NOW),
        lambda: store.policies.rollback("default", "attestation", "default_cpu", NOW),
        lambda: store.policies.rollback("other", "attestation", "default_cpu", NOW),
        lambda: store.policies.before("default", "attestation", "default_cpu"),
        lambda: store.policies.version("default", "attestation", "default_cpu", 9),
        lambda: store.policies.pin("default", "attestation", "default_cpu", 9),
        lambda: store.dry_runs.begin("default", "attestation", "default_cpu", 9, NOW),
        lambda: store.dry_runs.begin("other", "attestation", "default_cpu", 1, NOW),
        lambda: store.dry_runs.end("default", "attestation", "default_cpu"),
    ):
        with pytest.raises(NotFound):
            call()
    assert active(store) == (1, "one")


def test_a_second_rollback_goes_one_further_back(store: Store) -> None:
    for text in ("one", "two", "three"):
        put(store, text)
    assert store.policies.before("default", "attestation", "default_cpu") == 2
    with pytest.raises(NotFound):
        store.policies.rollback("default", "attestation", "default_cpu", NOW, expected=1)
    for version, text in ((2, "two"), (1, "one")):
        before = store.generation("default")
        assert store.policies.rollback("default", "attestation", "default_cpu", NOW).version == version
        assert active(store) == (version, text) and store.generation("default") == before + 1
    with pytest.raises(NotFound):
        store.policies.rollback("default", "attestation", "default_cpu", NOW)
    assert put(store, "four") == 4
    assert store.policies.rollback("default", "attestation", "default_cpu", NOW).version == 1
    done = [(one.version, one.action) for one in store.policies.activations("default", "attestation", "default_cpu")]
    assert done[:3] == [(1, "rollback"), (4, "activate"), (1, "rollback")]


def test_deletion_keeps_the_history_and_a_rollback_undoes_it(store: Store) -> None:
    put(store, "one")
    store.policies.delete("default", "attestation", "default_cpu", NOW, actor="bob")
    assert active(store) is None
    assert [one.text for one in store.policies.versions("default", "attestation", "default_cpu")] == ["one"]
    assert store.policies.activations("default", "attestation", "default_cpu")[0].action == "delete"
    assert store.policies.ids("default", "attestation") == [("default_cpu", 1, 0)]
    assert store.policies.rollback("default", "attestation", "default_cpu", NOW).text == "one"
    store.policies.delete("default", "attestation", "default_cpu", NOW)
    assert put(store, "two") == 2  # numbers are never used again
    assert store.policies.rollback("default", "attestation", "default_cpu", NOW).version == 1


def test_activating_what_is_in_force_changes_nothing(store: Store) -> None:
    put(store, "one")
    put(store, "two")
    generation = store.generation("default")
    store.policies.activate("default", "attestation", "default_cpu", 2, NOW)
    assert store.generation("default") == generation
    assert store.policies.rollback("default", "attestation", "default_cpu", NOW).version == 1


def test_versions_are_bounded_and_what_is_needed_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "MAX_VERSIONS", 5)
    monkeypatch.setattr(policies, "MAX_NAMES", 2)
    put(store, "pinned")
    store.policies.pin("default", "attestation", "default_cpu", 1)
    put(store, "back")
    put(store, "active")
    put(store, "trial", activate=False)
    store.dry_runs.begin("default", "attestation", "default_cpu", 4, NOW)
    for number in range(5, 9):
        put(store, f"candidate {number}", activate=False)
    kept = [one.version for one in store.policies.versions("default", "attestation", "default_cpu")]
    assert kept == [8, 4, 3, 2, 1]
    assert active(store) == (3, "active")
    store.policies.set("default", "resource", "second", "x", NOW)
    with pytest.raises(Conflict):
        store.policies.set("default", "resource", "third", "x", NOW)
    monkeypatch.setattr(policies, "MAX_VERSIONS", 4)
    for version in kept:
        store.policies.pin("default", "attestation", "default_cpu", version)
    with pytest.raises(Conflict):
        put(store, "one too many")


def test_who_and_why_come_back(store: Store) -> None:
    put(store, "one")
    (one,) = store.policies.versions("default", "attestation", "default_cpu")
    assert (one.actor, one.note, one.text, one.created) == ("ann", "why", "one", NOW)
    assert store.policies.version("default", "attestation", "default_cpu", 1) == one


def test_dry_runs_count_only_for_their_own_version(store: Store) -> None:
    put(store, "one")
    put(store, "two", activate=False)
    generation = store.generation("default")
    store.dry_runs.begin("default", "attestation", "default_cpu", 2, NOW, "ann")
    store.dry_runs.count("default", [("attestation", "default_cpu", 2, 1, 2, 3, 4)])
    store.dry_runs.count("default", [("attestation", "default_cpu", 1, 9, 9, 9, 9)])
    store.dry_runs.count("other", [("attestation", "default_cpu", 2, 9, 9, 9, 9)])
    (run,) = store.dry_runs.list("default")
    assert (run.same, run.differ, run.failed, run.skipped, run.actor) == (1, 2, 3, 4, "ann")
    assert store.generation("default") == generation and store.dry_runs.list("other") == []
    store.dry_runs.end("default", "attestation", "default_cpu")
    assert store.dry_runs.list("default") == []


def test_recordings_are_bounded_sealed_and_a_tenants_own(store: Store, tmp_path: Path) -> None:
    keep, old = 3, NOW - timedelta(days=1)
    store.recordings.add("default", [b"recorded-%d" % number for number in range(5)], NOW, keep=keep, since=old)
    assert store.recordings.list("default") == [(number, b"recorded-%d" % (number - 1)) for number in (3, 4, 5)]
    assert store.recordings.list("other") == [] and store.recordings.newest("default") == 5
    assert store.recordings.list("default", after=4, limit=9) == [(5, b"recorded-4")]
    assert store.recordings.list("default", since=NOW + timedelta(seconds=1)) == []
    store.recordings.add("default", [b"new"], NOW + timedelta(days=2), keep=keep, since=NOW + timedelta(days=1))
    assert store.recordings.list("default") == [(6, b"new")]
    assert all(b"recorded-4" not in path.read_bytes() for path in tmp_path.iterdir())
    assert store.recordings.forget("default") == 1


def test_a_store_of_schema_3_keeps_its_policies(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as then:  # when tenants had no data keys of their own
        then.setattr(store.sealer, "seal_for", lambda _, *what: store.sealer.seal(*what))
        version = put(store, "kept")
    store.close()
    connection = sqlite3.connect(tmp_path / FILE)
    with connection:
        for made in schema.FOURTH:
            if made.split()[1] == "TABLE":
                connection.execute(f"DROP TABLE {made.split()[2]}")
        connection.execute("PRAGMA user_version=3")
    connection.close()
    again = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    try:
        assert active(again) == (version, "kept")
        (one,) = again.policies.versions("default", "attestation", "default_cpu")
        assert (one.text, one.version, one.actor) == ("kept", version, "")
        assert put(again, "next") == version + 1
        assert again.policies.rollback("default", "attestation", "default_cpu", NOW).text == "kept"
    finally:
        again.close()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["set", "candidate", "rollback", "delete", "activate 1", "activate 2"]), max_size=12))
def test_what_is_in_force_is_what_was_last_put_there(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    """Against a model: a stack of versions, where deletion is an empty place."""
    store = Store.open(tmp_path_factory.mktemp("p"), root_key=bytes(32), now=NOW)
    table: Policies = store.policies
    stack: list[int] = []
    newest = 0
    try:
        for step in steps:
            if step in {"set", "candidate"}:
                newest += 1
                put(store, f"text {newest}", activate=step == "set")
                stack += [newest] if step == "set" else []
            elif step == "delete":
                if stack and stack[-1]:
                    table.delete("default", "attestation", "default_cpu", NOW)
                    stack.append(0)
            elif step == "rollback":
                under = stack[:-1]
                while under and not under[-1]:
                    under.pop()
                if under:
                    table.rollback("default", "attestation", "default_cpu", NOW)
                    stack = under
                else:
                    with pytest.raises(NotFound):
                        table.rollback("default", "attestation", "default_cpu", NOW)
            elif (version := int(step[-1])) <= newest:
                table.activate("default", "attestation", "default_cpu", version, NOW)
                stack += [version] if not stack or stack[-1] != version else []
            expected = (stack[-1], f"text {stack[-1]}") if stack and stack[-1] else None
            assert active(store) == expected
    finally:
        store.close()
