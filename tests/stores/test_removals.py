"""What back ends are to remove is written with what made it so, survives, is nobody else's, and is tried in turn."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adyton.broker.outside.sweeping import MOST, Sweeper
from adyton.errors import Conflict, MalformedRequest, Unavailable
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores.backends.configured import Backend, Backends
from adyton.stores.backends.options import VaultOptions
from adyton.stores.removals import Removal
from adyton.stores.resource_rows import Elsewhere
from adyton.stores.sqlite import Store

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PATH = ResourcePath("a", "b", "c")
ROOT = bytes(32)


def opened(directory: Path) -> Store:
    return Store.open(directory, root_key=ROOT, now=NOW)


def where(pointer: str, backend: str = "vault", sealed: int = 1) -> Elsewhere:
    return Elsewhere(backend, pointer, sealed, 3)


class Shelf:
    """A back end's holder that remembers what it was told to delete."""

    def __init__(self) -> None:
        self.gone: list[tuple[str, str, str]] = []
        self.asked = 0
        self.down = False
        self.refuses: set[str] = set()

    def delete(self, tenant: str, path: ResourcePath, pointer: str = "") -> None:
        self.asked += 1
        if self.down:
            raise Unavailable("it is down", code="vault_sealed")
        if pointer in self.refuses:
            raise MalformedRequest("not such a pointer", code="backend_pointer_invalid")
        self.gone.append((tenant, str(path), pointer))

    def destroy(self, handle: str) -> None:
        self.delete("", PATH, handle)

    def close(self) -> None:
        return


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def backends(shelf: Shelf) -> Backends:
    made = Backends()
    backend = Backend("vault", VaultOptions(url="https://127.0.0.1:1", token_file="none"))
    backend._opened = shelf
    made._all["vault"] = backend
    return made


def test_a_change_that_fails_queues_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.resources.set("default", PATH, where("1"), Binding(), NOW)
    store.registry.change("default", lambda _, before: before)
    from msgspec.structs import replace

    store.registry.change("default", lambda _, before: replace(before, quotas={"bytes": 10}))
    with pytest.raises(Exception, match="quota"):
        store.resources.set("default", PATH, bytes(100), None, NOW)
    assert store.removals.counts("default") == {}
    stored = store.resources.get("default", PATH)
    assert stored is not None and stored.info.elsewhere == where("1")
    with pytest.raises(Conflict):
        _ = stored.value
    store.close()


def test_it_lasts_is_sealed_and_is_the_tenants_own(tmp_path: Path, shelf: Shelf) -> None:
    store = opened(tmp_path)
    for tenant in ("acme", "default"):
        store.resources.set(tenant, PATH, where("pointer-1"), Binding(), NOW)
        store.resources.set(tenant, PATH, where("pointer-2", sealed=2), Binding(), NOW)
    store.resources.delete("acme", PATH)
    store.resources.set("default", ResourcePath("x", "y", "z"), where("", sealed=0), Binding(), NOW)
    store.resources.delete("default", ResourcePath("x", "y", "z"))  # foreign: theirs to remove
    store.close()
    raw = sqlite3.connect(tmp_path / "broker.sqlite")
    assert b"pointer-" not in b"".join(row[0] for row in raw.execute("SELECT sealed FROM removals"))
    raw.execute("UPDATE removals SET tenant='default', number=number+100 WHERE tenant='acme' AND number=3")
    raw.commit()
    raw.close()
    store = opened(tmp_path)
    assert store.removals.counts("acme") == {"vault": 1} and store.removals.counts("default") == {"vault": 2}
    with pytest.raises(Unavailable):  # a row that was moved to another tenant removes nothing there
        store.removals.of("default", "vault", 0, 10)
    assert [one.removal for one in store.removals.of("acme", "vault", 0, 10)] == [
        Removal("value", str(PATH), "pointer-2")
    ]
    store.close()


def test_a_round_is_bounded_and_one_that_is_refused_holds_up_nobody(tmp_path: Path, shelf: Shelf) -> None:
    store = opened(tmp_path)
    for number in range(2 * MOST + 5):
        store.removals.queue("default", "vault", Removal("value", str(PATH), str(number)))
    store.removals.queue("default", "gone", Removal("value", str(PATH), "x"))
    sweeper = Sweeper(store, backends(shelf))
    shelf.down = True
    assert sweeper.sweep() == 0 and shelf.asked == 1  # one question tells that it is down
    shelf.down, shelf.refuses = False, {str(number) for number in range(MOST)}
    assert sweeper.sweep() == 0
    assert sweeper.sweep() == MOST and sweeper.sweep() == 5
    assert store.removals.counts("default") == {"gone": 1, "vault": MOST}
    shelf.refuses = set()
    assert sweeper.sweep() == MOST and sweeper.sweep() == 0
    assert len(set(shelf.gone)) == len(shelf.gone) == 2 * MOST + 5
    store.close()


def test_what_a_resource_points_to_is_never_removed(tmp_path: Path, shelf: Shelf) -> None:
    store = opened(tmp_path)
    store.resources.set("default", PATH, where("7"), Binding(), NOW)
    store.removals.queue("default", "vault", Removal("value", str(PATH), "7"))
    assert Sweeper(store, backends(shelf)).sweep() == 1
    assert shelf.gone == [] and store.removals.counts("default") == {}
    store.close()
