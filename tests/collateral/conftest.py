from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.collateral.endorser import Clock, Endorser, running

from adyton.collateral import services
from adyton.collateral.budget import Limits
from adyton.collateral.cache import Cache
from adyton.collateral.collector import Collector
from adyton.collateral.source import EndorsementSource
from adyton.devtee.forge import Forge

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="session")
def forge() -> Forge:
    return Forge.new(NOW)


@pytest.fixture
def endorser() -> Iterator[Endorser]:
    with running() as started:
        yield started


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "cache") as opened:
        yield opened


Collect = Callable[..., Collector]


@pytest.fixture
def collect(cache: Cache, clock: Clock) -> Iterator[Collect]:
    """Make a collector: ``collect("kds=http://…", per_minute=10)``."""
    made: list[Collector] = []

    def make(*texts: str, background: bool = False, **limits: float) -> Collector:
        sources: list[EndorsementSource] = [services.source(text, clock=clock) for text in texts]
        collector = Collector(
            cache, sources, clock=clock, sleep=clock.sleep, jitter=lambda: 1.0, background=background,
            limits=Limits(**{"slower": {}, **limits}),  # type: ignore[arg-type]  # a test's own
        )  # fmt: skip
        made.append(collector)
        return collector

    yield make
    for collector in made:
        collector.close()
