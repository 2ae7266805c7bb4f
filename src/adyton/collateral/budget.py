"""How often a host may be asked: at most so many requests in any minute, not before it wants, and less and less while it fails.

The counts lie in the cache, so all processes that share it share them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

from adyton.collateral import amd
from adyton.collateral.cache import Cache

_MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a collector keeps to. ``slower``: hosts that allow less. Times in seconds."""

    per_minute: int = 60
    slower: Mapping[str, int] = field(
        default_factory=lambda: {host(amd.BASE): 6}
    )  # it hands out one VCEK in ten seconds
    first_backoff: float = 1.0
    last_backoff: float = 300.0
    attempts: int = 3
    try_seconds: float = 20.0
    absent_seconds: float = 600.0


def host(url: str) -> str:
    """Host and port of a source's address: what a budget is for."""
    return urlsplit(url).netloc.lower() or url


class Budget:
    """The budgets of all hosts. ``jitter`` gives a number from 0 to 1, so that many who failed together part."""

    def __init__(self, cache: Cache, limits: Limits, jitter: Callable[[], float]) -> None:
        self._cache = cache
        self._limits = limits
        self._jitter = jitter

    def take(self, name: str, now: datetime) -> float:
        """0 and the request is counted, or how many seconds it has to wait."""
        stamp = now.timestamp()
        allowed = self._limits.slower.get(name, self._limits.per_minute)
        with self._cache.host(name) as state:
            state.asked = sorted(time for time in state.asked if stamp - _MINUTE < time <= stamp)[-allowed:]
            wait = state.not_before - stamp
            if len(state.asked) >= allowed:
                wait = max(wait, state.asked[-allowed] + _MINUTE - stamp)
            if wait > 0:
                return wait
            state.asked.append(stamp)
            return 0.0

    def good(self, name: str) -> None:
        """It answered."""
        with self._cache.host(name) as state:
            state.failures = 0

    def busy(self, name: str, now: datetime, seconds: float) -> None:
        """It wants to be asked after so many seconds."""
        with self._cache.host(name) as state:
            state.not_before = max(state.not_before, now.timestamp() + seconds)

    def failed(self, name: str, now: datetime) -> None:
        """It did not answer: wait longer each time."""
        limits = self._limits
        with self._cache.host(name) as state:
            state.failures = min(state.failures + 1, 30)
            pause = min(limits.first_backoff * 2 ** (state.failures - 1), limits.last_backoff)
            state.not_before = max(state.not_before, now.timestamp() + pause * (0.5 + self._jitter() / 2))
