"""Endorsements that the operator did not lay out: from a cache on disk and, if asked for, from the vendors' services.

Nothing here is on the way of evidence whose endorsements are at hand, and nothing here holds up the event loop: what is
gathered is gathered on a few threads, by a deadline, for at most ``MAX_WAITING`` handshakes at a time. Evidence never says
where to ask; what is fetched is believed no more than what lies in a file: verification decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from adyton.broker.policy.rego import Memory
from adyton.broker.settings import Settings
from adyton.collateral import gather, services
from adyton.collateral.cache import Cache
from adyton.collateral.collector import Collector
from adyton.collateral.needs import needs
from adyton.collateral.source import EndorsementSource
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import AdytonError, EvidenceError

DEADLINE = 10.0  # seconds that a handshake waits
MAX_WAITING = 32
_THREADS = 2
_REMEMBERED = 256
_LOG = logging.getLogger(__name__)

Piece = tuple[str, bytes]
Key = tuple[str, ...]


class Fetching:
    """One worker's. ``sources``: whom to ask, as ``adyton collateral`` writes them; none: the cache alone."""

    def __init__(self, directory: Path, sources: Sequence[EndorsementSource], clock: Callable[[], datetime]) -> None:
        self._cache = Cache(directory)
        self._collector = Collector(self._cache, sources, clock=clock, background=True)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="endorsements")
        self._sets = Memory[tuple[EndorsementSet, EndorsementSet]](_REMEMBERED)
        self._under_way: set[Future[EndorsementSet]] = set()

    def known(self, pieces: Sequence[Piece], laid_out: EndorsementSet) -> EndorsementSet | None:
        """What was gathered before for evidence that needs the same, together with what is laid out."""
        found = self._sets.get(_key(pieces))
        return found[1] if found is not None and found[0] is laid_out else None

    async def gathered(self, pieces: Sequence[Piece], laid_out: EndorsementSet, now: datetime) -> EndorsementSet | None:
        """What this evidence needs, with what is laid out; ``None`` if it cannot be had in time, or is not to be had."""
        key = _key(pieces)
        if not key or len(self._under_way) >= MAX_WAITING:
            return None
        work = self._pool.submit(self._gather, pieces, laid_out, now)
        self._under_way.add(work)
        work.add_done_callback(self._under_way.discard)  # not before its thread is free, whoever has stopped waiting
        try:
            found = await asyncio.wait_for(asyncio.wrap_future(work), DEADLINE)
        except TimeoutError:
            _LOG.warning("endorsements were not gathered within %g s", DEADLINE)
            return None
        self._sets.put(key, (laid_out, found))
        return found

    def _gather(self, pieces: Sequence[Piece], laid_out: EndorsementSet, now: datetime) -> EndorsementSet:
        problems: list[AdytonError] = []
        found = laid_out
        for tee, evidence in pieces:
            more = gather.gather(tee, evidence, self._collector, now, seconds=DEADLINE / 2, problems=problems)
            found = found.with_all(more)
        for problem in problems:
            _LOG.warning("an endorsement cannot be had: %s [%s]", problem.message, problem.code)
        return found

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._collector.close()
        self._cache.close()


def sources(asked: Sequence[str], clock: Callable[[], datetime], *, vendors: bool) -> list[EndorsementSource]:
    """Whom to ask: the named ones, else the vendors' own services if they may be; ``ConfigError`` for a bad name."""
    if asked:
        return [services.source(text, clock=clock) for text in asked]
    return services.vendors(clock) if vendors else []


def asked(settings: Settings, clock: Callable[[], datetime]) -> Fetching | None:
    """What the settings ask for; ``None`` without a cache."""
    if not settings.collateral_cache:
        return None
    found = sources(settings.fetch_from, clock, vendors=settings.fetch_endorsements)
    return Fetching(Path(settings.collateral_cache), found, clock)


def _key(pieces: Sequence[Piece]) -> Key:
    """The names of what is needed; empty if nothing is, or the evidence cannot be read: verification says why."""
    try:
        return tuple([wanted.name for tee, evidence in pieces for wanted in needs(tee, evidence)])
    except EvidenceError:
        return ()
