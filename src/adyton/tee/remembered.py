"""What a verifier may remember between two pieces of evidence: chains that it has verified, and for how long.

The caller holds it and hands it in; without it everything is verified anew. A chain is remembered under the content of
all that was looked at (certificates, CRLs, trust anchors, how revocation was asked for) and for the ``Window`` around
the time of its verification in which no element begins or ceases to be valid. So a remembered chain gives exactly the
verdict that a fresh one would give. Failures are never remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

import msgspec

DEFAULT_LIMIT = 1024

_TICK = timedelta(microseconds=1)  # the resolution of datetime
_BEGINNING = datetime.min.replace(tzinfo=UTC)
_END = datetime.max.replace(tzinfo=UTC)
_T_co = TypeVar("_T_co", covariant=True)


class Window(msgspec.Struct, frozen=True):
    """The times at which a verdict on validity stays the same: ``first`` to ``last``, both included."""

    first: datetime
    last: datetime

    def __contains__(self, now: datetime) -> bool:
        return self.first <= now <= self.last

    @classmethod
    def around(cls, now: datetime, lifetimes: Iterable[tuple[datetime, datetime]]) -> Window:
        """The longest one around ``now`` in which none of ``lifetimes`` (both ends included) begins or ends."""
        first, last = _BEGINNING, _END
        for begin, end in lifetimes:
            if begin > now:
                last = min(last, begin - _TICK)
            elif begin > first:
                first = begin
            if end < now:
                first = max(first, end + _TICK)
            elif end < last:
                last = end
        return cls(first, last)


class Chain(msgspec.Struct, Generic[_T_co], frozen=True):
    """A verified chain, as its TEE's room describes it, and the window in which it stays so."""

    facts: _T_co
    window: Window


class Remembered:
    """At most ``limit`` chains; the least recently used one goes first. It is not locked.

    Each step is one dictionary operation, so a thread that races with another loses a memory, never a check.
    ``beside``: what a TEE's room keeps under the chains' facts. Its bound is of all chains together, and the room's to keep.
    """

    __slots__ = ("_chains", "_limit", "beside")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        if limit < 1:
            raise ValueError("a memory of no chains")
        self._limit = limit
        self._chains: OrderedDict[Hashable, Chain[object]] = OrderedDict()
        self.beside: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self._chains)

    def recall(self, key: Hashable, now: datetime) -> object | None:
        """The facts of the chain under ``key``, or ``None`` if there is none or ``now`` is outside its window."""
        chain = self._chains.get(key)
        if chain is None:
            return None
        if now not in chain.window:
            self._chains.pop(key, None)
            return None
        self._use(key)
        return chain.facts

    def keep(self, key: Hashable, chain: Chain[object]) -> None:
        """Remember ``chain``; forgets the least recently used one if there are too many."""
        self._chains[key] = chain
        self._use(key)
        while len(self._chains) > self._limit:
            try:
                self._chains.popitem(last=False)
            except KeyError:
                return  # another thread has just forgotten the last one

    def _use(self, key: Hashable) -> None:
        try:
            self._chains.move_to_end(key)
        except KeyError:
            return  # another thread has just forgotten it
