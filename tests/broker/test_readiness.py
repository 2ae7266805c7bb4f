"""Readiness: a check that fails in a way of its own, or somebody who goes away, does not stay the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adyton.broker.outside.endorsements import Endorsements
from adyton.broker.policy.policies import PolicyBook
from adyton.broker.policy.rego import RegoEngine
from adyton.broker.running import readiness
from adyton.broker.running.readiness import Readiness
from adyton.stores.sqlite import Store

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Readiness, Store]]:
    monkeypatch.setattr(readiness, "KEEP_SECONDS", 0.0)
    store, engine = Store.open(tmp_path / "data", root_key=bytes(32), now=NOW), RegoEngine()
    yield Readiness(store, PolicyBook(store, engine), engine, Endorsements(()), lambda: NOW, fetches=False), store
    engine.close()
    store.close()


def test_what_cannot_be_asked_is_not_ready_and_is_asked_again(
    asked: tuple[Readiness, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, store = asked

    def fails() -> None:
        raise OSError("no more files")

    async def main() -> None:
        assert all(part.ready for part in await ready.parts())
        with monkeypatch.context() as then:
            then.setattr(store, "check_writable", fails)
            for _ in range(2):
                assert [part.name for part in await ready.parts() if not part.ready] == ["store"]
        assert all(part.ready for part in await ready.parts())

    asyncio.run(main())


def test_who_goes_away_takes_nobodys_answer_along(asked: tuple[Readiness, Store]) -> None:
    ready, _ = asked

    async def main() -> None:
        first = asyncio.ensure_future(ready.parts())
        await asyncio.sleep(0)
        second = asyncio.ensure_future(ready.parts())
        await asyncio.sleep(0)
        first.cancel()
        assert all(part.ready for part in await second)
        assert all(part.ready for part in await ready.parts())

    asyncio.run(main())
