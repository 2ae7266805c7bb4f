"""Reference values in the store: what counts, what comes back, what an older file becomes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.stores.conftest import Engine

from adyton.errors import AdytonError, ConfigError, NotFound, TooMany, Unavailable
from adyton.stores import reference_schema, schema
from adyton.stores.providers import MAX_PROVIDERS
from adyton.stores.references import Published, StoredReference
from adyton.stores.sqlite import FILE, Store

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
DAY = timedelta(days=1)
ROOT_KEY = bytes(range(32))
MADE = StoredReference(
    name="launch", value=["aa"], version=0, updated=NOW, expires=NOW + 10 * DAY, not_before=NOW, provider="p",
    kind="json", proof=b"\x01" * 32, signers=("k",), series="json:a", issue=1,
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path, engine: Engine) -> Iterator[Store]:
    store = Store.open(tmp_path, root_key=ROOT_KEY, now=NOW, database=engine)
    yield store
    store.close()


def publish(store: Store, *made: StoredReference, provider: str = "p", now: datetime = NOW) -> list[StoredReference]:
    return store.references.publish(
        "default", provider, [one.name for one in made], lambda *_: made, now, unchanged=lambda _: None
    )


def names(store: Store, now: datetime = NOW) -> dict[str, object]:
    return dict(store.references.snapshot("default", now).values)


def change(directory: Path, statement: str, *parameters: object) -> None:
    connection = sqlite3.connect(directory / FILE)
    with connection:
        assert connection.execute(statement, parameters).rowcount > 0
    connection.close()


@pytest.mark.parametrize("column", ["state", "provider", "not_before", "expires"])
def test_columns_beside_the_sealed_value_are_not_believed(store: Store, tmp_path: Path, column: str) -> None:
    publish(store, replace(MADE, state="candidate"), replace(MADE, name="old", expires=NOW + DAY))
    value: object = {"state": "stable", "provider": "q"}.get(column, 9e9)
    change(tmp_path, f'UPDATE "references" SET {column}=?', value)
    assert names(store) == {"old": ["aa"]}
    assert {one.provider for one in store.references.list("default")} == {"p"}
    assert not names(store, NOW + DAY)


@pytest.mark.parametrize("change_to", ["candidate=0", "form=1", "version=99"])
def test_a_row_opens_only_as_what_it_was_sealed_as(store: Store, tmp_path: Path, change_to: str) -> None:
    publish(store, replace(MADE, state="candidate"))
    change(tmp_path, f'UPDATE "references" SET {change_to}')
    with pytest.raises(Unavailable) as caught:
        store.references.list("default")
    assert caught.value.code == "sealed_value_broken"


def test_only_what_counts_is_in_a_snapshot(store: Store) -> None:
    publish(
        store,
        MADE,
        replace(MADE, name="waits", state="candidate"),
        replace(MADE, name="old", state="deprecated"),
        replace(MADE, name="begins", not_before=NOW + DAY),
        replace(MADE, name="never", not_before=NOW + 20 * DAY),
        replace(MADE, name="ends", expires=NOW + 2 * DAY),
        replace(MADE, name="gone", state="revoked"),
    )
    snapshot = store.references.snapshot("default", NOW)
    assert set(snapshot.names()) == {"launch", "old", "ends"}
    assert snapshot.deprecated == {"old"}
    assert snapshot.expires_next == NOW + DAY
    assert set(names(store, NOW + DAY)) == {"launch", "old", "ends", "begins"}
    assert set(names(store, NOW + 2 * DAY)) == {"launch", "old", "begins"}
    assert not names(store, NOW + 10 * DAY)


def test_a_candidate_stands_beside_and_changes_no_decision(store: Store) -> None:
    publish(store, MADE)
    before = store.generation("default")
    publish(store, replace(MADE, value=["bb"], state="candidate", proof=b"\x02" * 32))
    assert store.generation("default") == before
    assert names(store) == {"launch": ["aa"]}
    assert [one.state for one in store.references.list("default")] == ["stable", "candidate"]
    shown = store.references.get("default", "launch")
    assert shown is not None and shown.state == "stable"
    publish(store, replace(MADE, value=["bb"], proof=b"\x02" * 32))
    assert store.generation("default") == before + 1
    assert names(store) == {"launch": ["bb"]} and len(store.references.list("default")) == 1


def test_revoked_at_once_and_kept(store: Store) -> None:
    publish(store, MADE, replace(MADE, name="other"))
    before = store.generation("default")
    (gone,) = store.references.revoke("default", lambda one: one.name == "launch", "leaked", NOW)
    assert (gone.state, gone.reason, store.generation("default")) == ("revoked", "leaked", before + 1)
    assert names(store) == {"other": ["aa"]}
    with pytest.raises(NotFound):
        store.references.revoke("default", lambda one: one.name == "launch", "again", NOW)
    with pytest.raises(NotFound):
        store.references.revoke("elsewhere", lambda _: True, "", NOW)


def test_what_was_published_is_remembered_until_it_is_deleted(store: Store) -> None:
    told: list[Mapping[str, list[Published]]] = []
    standing: list[Mapping[str, list[StoredReference]]] = []

    def decide(
        found: Mapping[str, list[StoredReference]], published: Mapping[str, list[Published]]
    ) -> list[StoredReference]:
        standing.append(found)
        told.append(published)
        return [replace(MADE, issue=len(told), proof=bytes([len(told)]) * 32)]

    def again(provider: str = "p") -> None:
        store.references.publish("default", provider, ["launch"], decide, NOW, unchanged=lambda _: None)

    again()
    again()
    store.references.set("default", "launch", ["by hand"], None, NOW)
    again()
    assert [len(one["launch"]) for one in told] == [0, 1, 2]
    assert told[2]["launch"][0].first == NOW
    assert [[one.provider for one in found["launch"]] for found in standing] == [[], ["p"], [""]]
    again("another")
    assert not told[3]["launch"]
    store.references.delete("default", "launch")
    again()
    assert not told[4]["launch"] and not standing[4]["launch"]


def test_nothing_is_stored_if_anything_is_refused(store: Store) -> None:
    def refuse(*_: object) -> list[StoredReference]:
        raise NotFound("no")

    def changed(_: object) -> None:
        raise Unavailable("changed")

    attempts: list[Callable[[], object]] = [
        lambda: store.references.publish("default", "p", ["launch"], refuse, NOW, unchanged=lambda _: None),
        lambda: store.references.publish("default", "p", ["launch"], lambda *_: [MADE], NOW, unchanged=changed),
        lambda: publish(store, MADE, replace(MADE, name="x\n")),
        lambda: publish(store, MADE, replace(MADE, name="none", value=None)),
        lambda: publish(store, MADE, replace(MADE, name="large", value="x" * 300_000)),
    ]
    for attempt in attempts:
        with pytest.raises(AdytonError):
            attempt()
        assert not store.references.list("default") and store.generation("default") == 0


def test_a_provider_that_changes_loses_what_it_could_not_publish_any_more(store: Store) -> None:
    store.providers.set("default", "p", b"{}", lambda _: True, NOW)
    publish(store, MADE, replace(MADE, name="other"), replace(MADE, name="next", state="candidate"))
    publish(store, replace(MADE, name="foreign", provider="q"), provider="q")
    stored, gone = store.providers.set("default", "p", b"{1}", lambda one: one.name == "launch", NOW)
    assert stored.body == b"{1}"
    assert [one.name for one in gone] == ["next", "other"]
    assert set(names(store)) == {"launch", "foreign"}
    assert [one.name for one in store.providers.delete("default", "p", NOW)] == ["launch"]
    assert set(names(store)) == {"foreign"}
    with pytest.raises(NotFound):
        store.providers.delete("default", "p", NOW)
    assert not store.providers.list("default") and not store.providers.list("other")


def test_providers_are_bounded_and_sealed(store: Store, tmp_path: Path) -> None:
    for number in range(MAX_PROVIDERS):
        store.providers.set("default", f"p{number}", b"{}", lambda _: True, NOW)
    with pytest.raises(TooMany):
        store.providers.set("default", "more", b"{}", lambda _: True, NOW)
    store.providers.set("default", "p0", b"{}", lambda _: True, NOW)
    change(tmp_path, "UPDATE providers SET name='q' WHERE name='p1'")
    with pytest.raises(Unavailable):
        store.providers.list("default")


OLD = """CREATE TABLE "references" (
    tenant TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, updated REAL NOT NULL, expires REAL,
    sealed BLOB NOT NULL, PRIMARY KEY (tenant, name)
) WITHOUT ROWID, STRICT"""


def test_an_older_store_keeps_its_reference_values(store: Store, tmp_path: Path) -> None:
    """A file of version 2, as the version before wrote it: eight bytes of expiry, then the value."""
    expires = NOW + DAY
    kept = {"a": (b"[1,2]", None), "b": (b'"x"', expires)}
    connection = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    newer = [made.split()[2] for made in schema.FOURTH if made.split()[1] == "TABLE"]
    for table in ('"references"', "published", "providers", *newer):
        connection.execute(f"DROP TABLE {table}")
    connection.execute(OLD)
    for version, (name, (value, end)) in enumerate(kept.items(), 1):
        micros = round(end.timestamp() * 1_000_000) if end else 0
        sealed = store.sealer.seal(micros.to_bytes(8, "big") + value, "default", "reference", name, version)
        row = ("default", name, version, NOW.timestamp(), end.timestamp() if end else None, sealed)
        connection.execute('INSERT INTO "references" VALUES (?,?,?,?,?,?)', row)
    connection.execute("INSERT INTO tenants VALUES ('default', 2, 2, 2)")
    connection.execute("PRAGMA user_version=2")
    connection.close()
    store.close()
    again = Store.open(tmp_path, root_key=ROOT_KEY, now=NOW)
    try:
        assert names(again) == {"a": [1, 2], "b": "x"}
        assert names(again, expires) == {"a": [1, 2]}
        assert [(one.provider, one.state, one.proof) for one in again.references.list("default")] == [
            ("", "stable", b"")
        ] * 2
        again.references.set("default", "a", 3, None, NOW)
        assert names(again) == {"a": 3, "b": "x"}
        again.references.revoke("default", lambda one: one.name == "b", "", NOW)
        assert names(again) == {"a": 3}
    finally:
        again.close()


def test_a_newer_store_is_left_alone(store: Store, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute(f"PRAGMA user_version={schema.VERSION + 1}")
    connection.close()
    store.close()
    with pytest.raises(ConfigError):
        Store.open(tmp_path, root_key=ROOT_KEY, now=NOW)
    assert len(reference_schema.STATEMENTS) == 3
