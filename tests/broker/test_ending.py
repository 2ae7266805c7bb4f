"""A broker that is to end does not wait for who recomputes a long log; who asked is told that nothing is known."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.broker.test_recorded import TOKEN, Broker

from adyton.broker.door.answer import Answer
from adyton.broker.door.connection import HttpRequest
from adyton.broker.running import worker
from adyton.broker.running.serving import Ending
from adyton.errors import Unavailable
from adyton.protocol.audit_check import Reading
from adyton.protocol.audit_row import AuditRow
from adyton.stores import audit_reading
from adyton.stores.sqlite import Store

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ROWS = 600
FOREVER = 0.05  # a row: half a minute for the whole


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A log that takes long, row by row; set once somebody reads it."""
    begun = threading.Event()
    row = Reading.row

    def slow(self: Reading, body: bytes, leaf: bytes) -> None:
        begun.set()
        time.sleep(FOREVER)
        row(self, body, leaf)

    monkeypatch.setattr(audit_reading, "PAGE", 1)
    monkeypatch.setattr(Reading, "row", slow)
    return begun


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path / "a")
    made.store.audit._commit([("default", AuditRow("attest", "allowed"), NOW)] * ROWS)
    yield made
    made.close()


def test_the_broker_ends_in_the_middle_of_a_log(
    broker: Broker, slowly: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "settle", lambda: None)  # that is for a process that does nothing else

    async def scene() -> tuple[Answer, float]:
        ending, ready = Ending(), asyncio.Event()
        serving = asyncio.ensure_future(broker.program.serve({}, ending, ready.set))
        await ready.wait()
        headers = {b"host": b"x", b"authorization": b"Bearer " + TOKEN.encode()}
        asked = broker.program._front(HttpRequest("GET", b"/api/v0/audit/verify", headers, b"", keep_alive=True))
        assert not isinstance(asked, Answer)
        answering = asyncio.ensure_future(asked)
        await asyncio.to_thread(slowly.wait, 20)
        began = time.monotonic()
        ending.wish()
        answer = await answering
        took = time.monotonic() - began
        await serving
        return answer, took

    answer, took = asyncio.run(scene())
    assert took < ROWS * FOREVER / 2
    assert answer.status == 503 and answer.reason == "broker_ending"


def test_nothing_is_said_of_a_log_that_was_not_read_to_its_end(tmp_path: Path) -> None:
    store = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    store.audit._commit([("default", AuditRow("attest", "allowed"), NOW)] * ROWS)
    assert store.audit.verify("default").sequence == ROWS
    store.audit.ending.set()
    with pytest.raises(Unavailable) as caught:
        store.audit.verify("default")
    assert caught.value.code == "broker_ending"
    store.close()
