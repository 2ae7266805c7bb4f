"""A key is used while its binding ends: the device took its time, and what it gave goes to nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adyton.broker.delivery import Asking, Delivery
from adyton.broker.key_service.key_delivery import KeyDelivery
from adyton.broker.release import Permit
from adyton.broker.running.replicas import Deadline
from adyton.crypto import jwe
from adyton.errors import Unavailable
from adyton.protocol import key_record
from adyton.protocol.key_record import KeyVersion, State
from adyton.protocol.keys import TransitAnswer
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores.keys import Material
from adyton.stores.sqlite import Store

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PATH = ResourcePath("keys", "a", "1")


class Reached(Exception):
    """What was done would have left."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    record = key_record.make("aes-256", KeyVersion(1, State.ENABLED, 1, 1))
    end = (NOW + timedelta(seconds=60)).isoformat()
    opened.keys.create(
        "default", PATH, record, Material(b"k" * 32), Binding(any_workload_i_accept=True, until=end), NOW
    )
    yield opened
    opened.close()


@pytest.mark.parametrize(("seconds", "leaves"), [(0, True), (30, True), (61, False)])
def test_what_was_done_with_a_key_leaves_before_the_end_only(
    store: Store, monkeypatch: pytest.MonkeyPatch, seconds: int, leaves: bool
) -> None:
    async def recorded(*_: object, **__: object) -> None:
        raise Reached

    monkeypatch.setattr(jwe, "encrypt", lambda *_: b"")
    nobody: Any = None
    auditor: Any = SimpleNamespace(released=recorded)
    generation, stored = store.resources.with_generation("default", PATH)
    assert stored is not None
    holder: Any = SimpleNamespace(generation=generation, key=None, claims=None, handle="")
    delivery = KeyDelivery(store, nobody, nobody, auditor, Delivery(store, nobody, auditor, nobody))
    asked = Asking(NOW, "", {}, Deadline(store), time.monotonic() - seconds)
    with pytest.raises(Reached if leaves else Unavailable) as caught:
        asyncio.run(
            delivery._answer("default", stored, holder, "encrypt", Permit("rule"), TransitAnswer(1), asked, generation)
        )
    assert leaves or getattr(caught.value, "code", "") == "changed_meanwhile"
