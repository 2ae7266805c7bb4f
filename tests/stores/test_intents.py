"""What is put into a back end is written down first: whoever dies, or comes too late, leaves nothing there unknown."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.stores.test_removals import backends

from adyton.broker.outside.elsewhere import ElsewhereValues
from adyton.errors import AdytonError, NotFound, Unavailable
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores.intents import GRACE, Intent
from adyton.stores.removals import Removal
from adyton.stores.sqlite import Store

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PATH = ResourcePath("a", "b", "c")
ROOT = bytes(32)


class Died(BaseException):
    """What is raised where the power goes: nobody catches it."""


class Shelf:
    """A back end over memory. ``at`` names where the power goes: ``before`` or ``after`` a put."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str, str], bytes] = {}
        self.keys: dict[str, str] = {}
        self.at = ""
        self.during: Callable[[], object] = lambda: None
        self._numbers = itertools.count(1)

    def put(self, tenant: str, path: ResourcePath, value: bytes) -> str:
        if self.at == "before":
            raise Died
        self.during()
        pointer = str(next(self._numbers))
        self.held[tenant, str(path), pointer] = value
        if self.at == "after":
            raise Died
        if self.at == "slow":
            raise Unavailable("it does not answer in time", code="backend_slow")
        return pointer

    def get(self, tenant: str, path: ResourcePath, pointer: str = "") -> bytes | None:
        return self.held.get((tenant, str(path), pointer))

    def pointers(self, tenant: str, path: ResourcePath) -> list[str]:
        return [pointer for whose, name, pointer in self.held if (whose, name) == (tenant, str(path))]

    def delete(self, tenant: str, path: ResourcePath, pointer: str = "") -> None:
        if self.at == "down":
            raise Unavailable("it is down", code="vault_sealed")
        self.held.pop((tenant, str(path), pointer), None)

    def labelled(self, label: str) -> list[str]:
        return [handle for handle, name in self.keys.items() if name == label]

    def destroy(self, handle: str) -> None:
        self.keys.pop(handle, None)

    def close(self) -> None:
        return


def opened(directory: Path) -> Store:
    return Store.open(directory, root_key=ROOT, now=NOW)


def values_of(store: Store, shelf: Shelf) -> ElsewhereValues:
    return ElsewhereValues(store, backends(shelf), NOW.timestamp)  # type: ignore[arg-type]


def put(store: Store, shelf: Shelf, value: bytes = b"v") -> None:
    values_of(store, shelf).set("default", PATH, value, Binding(), "vault", NOW)


@pytest.mark.parametrize("at", ["before", "after"])
def test_a_process_that_dies_around_the_put(tmp_path: Path, at: str) -> None:
    shelf, store = Shelf(), opened(tmp_path)
    put(store, shelf, b"first")
    shelf.at = at
    with pytest.raises(Died):
        put(store, shelf, b"second")
    assert store.intents.counts("default") == {"vault": 1}
    store.close()
    shelf.at, store = "", opened(tmp_path)  # another instance: what the old one was at is given up at once
    assert len(shelf.held) == (2 if at == "after" else 1)
    assert values_of(store, shelf).sweeper.sweep() == 1
    assert list(shelf.held) == [("default", str(PATH), "1")]
    assert store.intents.counts("") == {} == store.removals.counts("default")
    stored = store.resources.get("default", PATH)
    assert stored is not None and stored.info.elsewhere is not None and stored.info.elsewhere.pointer == "1"
    store.close()


def test_an_intent_of_this_broker_has_its_time(tmp_path: Path) -> None:
    shelf, store = Shelf(), opened(tmp_path)
    shelf.at = "slow"
    with pytest.raises(Unavailable):
        put(store, shelf)
    assert store.intents.counts("default") == {"vault": 1}  # it may still be under way
    later = (NOW + timedelta(seconds=GRACE)).timestamp()
    assert store.intents.abandoned(later - 1) == []
    assert len(store.intents.abandoned(later + 1)) == 1
    sweeper = values_of(store, shelf).sweeper
    shelf.at, sweeper.grace = "down", 0.0
    assert sweeper.sweep() == 0 and len(shelf.held) == 1
    assert store.removals.counts("default") == {"vault": 1}
    shelf.at = ""
    assert sweeper.sweep() == 1 and shelf.held == {}
    store.close()


def test_what_comes_too_late_is_no_row(tmp_path: Path) -> None:
    store = opened(tmp_path)
    version, sealed, intent = store.resources.seal_elsewhere("default", PATH, b"v", "value elsewhere", "vault", NOW)
    assert intent.removal == Removal("put", str(PATH), hashlib.sha256(sealed).hexdigest())
    assert store.intents.give_up(intent) is not None and store.intents.give_up(intent) is None
    from adyton.stores.resource_rows import Elsewhere

    with pytest.raises(Unavailable) as caught:
        store.resources.exchange("default", PATH, Elsewhere("vault", "1", version, 1), Binding(), NOW, intent)
    assert caught.value.code == "intent_abandoned"
    assert store.resources.get("default", PATH) is None
    store.close()


def test_a_request_that_has_waited_long_still_has_its_time(tmp_path: Path) -> None:
    shelf, store = Shelf(), opened(tmp_path)
    values = ElsewhereValues(store, backends(shelf))  # type: ignore[arg-type]
    shelf.during = values.sweeper.sweep
    asked_at = datetime.now(UTC) - timedelta(seconds=2 * GRACE)  # noqa: TID251 -- the sweeper's own clock decides
    info = values.set("default", PATH, b"v", Binding(), "vault", asked_at)
    assert info.updated == asked_at and list(shelf.held) == [("default", str(PATH), "1")]
    store.close()


def test_what_comes_after_it_was_given_up_is_removed(tmp_path: Path) -> None:
    """Whoever gave it up has looked, and it was not there yet."""
    shelf, store = Shelf(), opened(tmp_path)
    values = values_of(store, shelf)
    values.sweeper.grace = -1.0
    shelf.during = values.sweeper.sweep
    with pytest.raises(Unavailable) as caught:
        values.set("default", PATH, b"v", Binding(), "vault", NOW)
    assert caught.value.code == "intent_abandoned"
    assert shelf.held == {} and store.removals.counts("default") == {}
    shelf.keys["h1"] = "adyton-1"
    intent = values.begin("default", "vault", Removal("made", str(PATH), "adyton-2"))
    values.sweeper.sweep()
    shelf.keys["h2"] = "adyton-2"
    values.unused(intent, Removal("key", str(PATH), "h2"), Unavailable("x", code="intent_abandoned"))
    assert shelf.keys == {"h1": "adyton-1"}
    store.close()


def test_what_is_refused_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    shelf, store = Shelf(), opened(tmp_path)
    for _ in range(8):
        with pytest.raises(NotFound):
            values_of(store, shelf).set("default", PATH, b"v", Binding(), "nobody", NOW)
    made = backends(shelf)  # type: ignore[arg-type]
    made._all["vault"].guard.close()
    with pytest.raises(AdytonError):
        ElsewhereValues(store, made).set("default", PATH, b"v", Binding(), "vault", NOW)
    assert store.intents.counts("default") == {} == store.removals.counts("default")
    store.close()


def test_another_value_at_the_path_is_left_alone(tmp_path: Path) -> None:
    shelf, store = Shelf(), opened(tmp_path)
    shelf.held["default", str(PATH), "theirs"] = b"somebody else's"
    shelf.at = "after"
    with pytest.raises(Died):
        put(store, shelf)
    shelf.at = ""
    sweeper = values_of(store, shelf).sweeper
    sweeper.grace = -1.0
    assert sweeper.sweep() == 1
    assert list(shelf.held) == [("default", str(PATH), "theirs")]
    store.close()


def test_a_key_is_found_by_its_label(tmp_path: Path) -> None:
    shelf, store = Shelf(), opened(tmp_path)
    shelf.keys = {"h1": "adyton-1", "h2": "adyton-1", "h3": "adyton-2"}
    store.intents.begin("default", "vault", Removal("made", str(PATH), "adyton-1"), NOW)
    store.close()
    store = opened(tmp_path)
    assert values_of(store, shelf).sweeper.sweep() == 1
    assert shelf.keys == {"h3": "adyton-2"}
    store.close()


def test_of_a_tenant_that_is_gone_it_is_still_removed(tmp_path: Path) -> None:
    shelf, store = Shelf(), opened(tmp_path)
    intent: Intent = store.intents.begin("acme", "vault", Removal("made", str(PATH), "adyton-1"), NOW)
    shelf.keys = {"h1": "adyton-1"}
    assert store.intents.give_up(intent) is not None
    assert values_of(store, shelf).sweeper.sweep() == 1 and shelf.keys == {}
    store.close()
