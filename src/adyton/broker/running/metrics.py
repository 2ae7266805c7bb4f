"""What a worker counts: plain numbers in its own memory, added up in batches off the way of a request.

Label values come from closed sets: areas of the API, results, codes of our own errors (the first ``MAX_CODES`` of them,
then ``other``). Nothing of a request becomes a label: no path, no peer, and no tenant unless that was asked for, then at
most that many that exist, the rest being ``other``. So whatever strangers send, there are never more than a few hundred
series, and no secret among them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable

import msgspec

MAX_CODES = 200
OTHER = "other"
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds; the last bucket has none."""


class Times(msgspec.Struct):
    """A histogram over ``BUCKETS``: counts by bucket, and the sum in seconds."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def add(self, other: Times) -> None:
        """Count all of ``other``'s."""
        self.counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class Snapshot(msgspec.Struct):
    """What one worker, or several together, counted since they began.

    ``requests`` by ``area|result|code``, ``tenants`` by ``tenant|result``; ``seconds`` by area, ``timed`` by name;
    ``now`` are gauges that add up over workers, ``moments`` times in Unix seconds of which the earliest counts.
    """

    requests: dict[str, int] = {}
    tenants: dict[str, int] = {}
    seconds: dict[str, Times] = {}
    timed: dict[str, Times] = {}
    counters: dict[str, int] = {}
    now: dict[str, float] = {}
    moments: dict[str, float] = {}

    def past(self) -> Snapshot:
        """What stays of a worker that has ended: all that only grows."""
        return Snapshot(self.requests, self.tenants, self.seconds, self.timed, self.counters)


def together(snapshots: Iterable[Snapshot]) -> Snapshot:
    """The sum."""
    whole = Snapshot({}, {}, {}, {}, {}, {}, {})
    for one in snapshots:
        for mine, its in (
            (whole.requests, one.requests),
            (whole.tenants, one.tenants),
            (whole.counters, one.counters),
        ):
            for name, number in its.items():
                mine[name] = mine.get(name, 0) + number
        for sums, more in ((whole.seconds, one.seconds), (whole.timed, one.timed)):
            for name, times in more.items():
                sums.setdefault(name, Times()).add(times)
        for name, value in one.now.items():
            whole.now[name] = whole.now.get(name, 0) + value
        for name, value in one.moments.items():
            whole.moments[name] = min(value, whole.moments.get(name, value))
    return whole


class Metrics:
    """One worker's counts. Not for several threads, but for ``count`` and ``time``, whose loss of one in a race is no harm."""

    def __init__(self, *, tenants: int = 0) -> None:
        self._max_tenants = tenants
        self._known_tenants: frozenset[str] = frozenset()
        self._requests: dict[tuple[str, str, str], int] = {}
        self._codes: set[str] = set()
        self._tenants: dict[tuple[str, str], int] = {}
        self._seconds: dict[str, Times] = {}
        self._timed: dict[str, Times] = {}
        self._counters: dict[str, int] = {}

    def know(self, tenants: Collection[str]) -> None:
        """Which tenants exist; the first ones by name get a label, if any do."""
        if self._max_tenants:
            self._known_tenants = frozenset(sorted(tenants)[: self._max_tenants])

    def request(self, area: str, tenant: str, status: int, code: str, seconds: float) -> None:
        """Count one answered request."""
        result = "allowed" if status < 400 else "refused" if status < 500 else "failed"
        key = (area, result, code)
        if key in self._requests:
            self._requests[key] += 1
        else:
            if code not in self._codes:
                if len(self._codes) >= MAX_CODES:
                    key = (area, result, OTHER)
                else:
                    self._codes.add(code)
            self._requests[key] = self._requests.get(key, 0) + 1
        if (times := self._seconds.get(area)) is None:
            times = self._seconds[area] = Times()
        times.observe(seconds)
        if self._max_tenants:
            label = (tenant if tenant in self._known_tenants else OTHER, result)
            self._tenants[label] = self._tenants.get(label, 0) + 1

    def count(self, name: str, number: int = 1) -> None:
        """Count something of ours; ``name`` is a constant."""
        self._counters[name] = self._counters.get(name, 0) + number

    def time(self, name: str, seconds: float) -> None:
        """Note how long something of ours took; ``name`` is a constant."""
        if (times := self._timed.get(name)) is None:
            times = self._timed[name] = Times()
        times.observe(seconds)

    def snapshot(self, counters: dict[str, int], now: dict[str, float], moments: dict[str, float]) -> Snapshot:
        """All of it, with what is counted elsewhere."""
        return Snapshot(
            {"|".join(key): number for key, number in self._requests.items()},
            {"|".join(key): number for key, number in self._tenants.items()},
            {name: Times(list(times.counts), times.total) for name, times in self._seconds.items()},
            {name: Times(list(times.counts), times.total) for name, times in self._timed.items()},
            {**self._counters, **counters},
            now,
            moments,
        )
