"""Getting endorsements: from the cache while they are fresh, from sources within their budget, and never past their validity.

What is still valid but has not been asked for lately is served at once and refreshed behind (``background``), or asked for
again and served all the same if nobody answers. One fetch at a time for one item, over all processes that share the cache.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from adyton.collateral.budget import Budget, Limits, host
from adyton.collateral.cache import Cache, Stored
from adyton.collateral.items import Item
from adyton.collateral.source import EndorsementSource
from adyton.collateral.wanted import AmdChain, AmdVcek, AzureThim, IntelPck, NvidiaOcsp, NvidiaRim, Wanted
from adyton.errors import (
    AdytonError,
    ConfigError,
    EndorsementError,
    EndorsementExpired,
    NotFound,
    OperatorError,
    TooMany,
    Unavailable,
)

_HOUR = 3600.0
_FRESH = {
    AmdVcek: 720 * _HOUR, AmdChain: 720 * _HOUR, IntelPck: 720 * _HOUR, NvidiaRim: 168 * _HOUR, AzureThim: 24 * _HOUR,
    NvidiaOcsp: _HOUR,
}  # fmt: skip
_LISTS = 6 * _HOUR  # CRLs, TCB info, identities
_LEAST = 600.0  # nothing is asked for again sooner
_POLL = 0.05
_WORKERS = 4


class Collector:
    """Gets what is wanted. ``clock`` is read, ``sleep`` waited with: whoever composes a program hands both in.

    No ``sources``: the cache alone. Safe from several threads. ``close`` ends what is refreshed behind.
    """

    def __init__(
        self,
        cache: Cache,
        sources: Sequence[EndorsementSource],
        *,
        clock: Callable[[], datetime],
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
        limits: Limits | None = None,
        background: bool = False,
    ) -> None:
        self._cache = cache
        self._sources = tuple(sources)
        self._clock = clock
        self._sleep = sleep
        self._limits = limits or Limits()
        self._budget = Budget(cache, self._limits, jitter)
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="collateral") if background else None
        self._refreshing: set[str] = set()
        self._lock = threading.Lock()

    def get(self, wanted: Wanted, *, at: datetime | None = None, seconds: float = 30.0) -> Item:
        """The newest that is valid ``at`` (default: now), within ``seconds``.

        ``NotFound`` if every source says that there is none, ``TooMany`` with the seconds to wait, ``Unavailable`` if nobody
        answers, an ``EndorsementError`` if what came cannot be used, ``ConfigError`` if there is nobody to ask.
        """
        now = self._clock()
        moment = at if at is not None else now
        stored = self._cache.find(wanted, moment)
        if stored is not None:
            if fresh_until(stored) > now or moment < now - timedelta(seconds=_LEAST) or not self._asked(wanted):
                return stored.item
            if self._pool is not None:
                self._refresh(wanted)
                return stored.item
        try:
            return self._fetch(wanted, moment, now + timedelta(seconds=seconds))
        except (EndorsementError, NotFound, TooMany, Unavailable, OperatorError):
            if stored is None:
                raise
            return stored.item

    def refresh(self, wanted: Wanted, *, seconds: float = 30.0) -> Item:
        """Ask a source for it whatever the cache holds."""
        now = self._clock()
        return self._fetch(wanted, now, now + timedelta(seconds=seconds), anew=True)

    def close(self) -> None:
        """Wait for what is being refreshed; begin nothing more."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _asked(self, wanted: Wanted) -> list[EndorsementSource]:
        return [source for source in self._sources if source.offers(wanted)]

    def _refresh(self, wanted: Wanted) -> None:
        with self._lock:
            if self._pool is None or wanted.name in self._refreshing:
                return
            self._refreshing.add(wanted.name)
        try:
            self._pool.submit(self._refresh_now, wanted)
        except RuntimeError:  # closed meanwhile
            with self._lock:
                self._refreshing.discard(wanted.name)

    def _refresh_now(self, wanted: Wanted) -> None:
        try:
            now = self._clock()
            self._fetch(wanted, now, now + timedelta(seconds=self._limits.try_seconds))
        except AdytonError:
            pass  # what is there is served as long as it is valid; then the caller hears why
        finally:
            with self._lock:
                self._refreshing.discard(wanted.name)

    def _fetch(self, wanted: Wanted, moment: datetime, deadline: datetime, *, anew: bool = False) -> Item:
        sources = self._asked(wanted)
        if not sources:
            raise _nobody(wanted)
        begun = self._clock()
        while True:
            with self._cache.claimed(wanted) as mine:
                if mine:
                    stored = self._cache.find(wanted, moment)
                    if (
                        not anew
                        and stored is not None
                        and (stored.item.fetched >= begun or fresh_until(stored) > begun)
                    ):
                        return stored.item  # somebody else fetched it while we waited
                    return self._ask(sources, wanted, moment, deadline)
            if self._clock() >= deadline:
                raise Unavailable(
                    f"another process is still fetching {wanted.name[:120]}",
                    code="endorser_unreachable",
                    field=wanted.name,
                )
            self._sleep(_POLL)

    def _ask(self, sources: Sequence[EndorsementSource], wanted: Wanted, moment: datetime, deadline: datetime) -> Item:
        problems: list[AdytonError] = []
        for source in sources:
            if (until := self._cache.absent(wanted, source.name, self._clock())) is not None:
                problems.append(_absent(wanted, source.name, until))
                continue
            try:
                return self._from(source, wanted, moment, deadline)
            except NotFound as error:
                self._cache.note_absent(wanted, source.name, self._clock(), self._limits.absent_seconds)
                problems.append(error)
            except (EndorsementError, TooMany, Unavailable, ConfigError) as error:
                problems.append(error)
        raise _worst(problems)

    def _from(self, source: EndorsementSource, wanted: Wanted, moment: datetime, deadline: datetime) -> Item:
        name, failures = host(source.name), 0
        while True:
            self._wait(name, deadline)
            left = (deadline - self._clock()).total_seconds()
            try:
                answer = source.get(wanted, seconds=max(min(left, self._limits.try_seconds), 0.001))
            except TooMany as error:
                self._budget.busy(name, self._clock(), error.retry_after)
                continue  # within the deadline we wait, beyond it ``_wait`` says how long
            except Unavailable:
                self._budget.failed(name, self._clock())
                failures += 1
                if failures >= self._limits.attempts:
                    raise
                continue
            except NotFound:
                self._budget.good(name)
                raise
            self._budget.good(name)
            now = self._clock()
            known = self._cache.certificates(wanted.name.partition("/")[0])
            item = Item.read(wanted, answer.body, answer.chain, url=answer.url, fetched=now, known=known)
            if not item.facts.valid(moment):
                raise _outside(item, source.name, moment)
            return self._cache.put(item, max_age=answer.max_age)

    def _wait(self, name: str, deadline: datetime) -> None:
        while wait := self._budget.take(name, self._clock()):
            if self._clock() + timedelta(seconds=wait) >= deadline:
                raise TooMany(
                    f"{name} is not asked again before {math.ceil(wait)} s are over",
                    code="endorser_busy",
                    retry_after=max(math.ceil(wait), 1),
                    hint="what is in the cache is used meanwhile; import an offline bundle to need no network at all",
                )
            self._sleep(wait)


def fresh_until(stored: Stored) -> datetime:
    """Until when an item need not be asked for again: as HTTP or its kind says, but ahead of the end of its validity."""
    item, facts = stored.item, stored.item.facts
    usual = _FRESH.get(type(item.wanted), _LISTS)
    until = item.fetched + timedelta(seconds=usual if stored.max_age is None else min(stored.max_age, 720 * _HOUR))
    if facts.expires is not None:
        span = facts.expires - (facts.issued or item.fetched)
        until = min(until, facts.expires - min(span / 10, timedelta(days=7)))
    until = max(until, item.fetched + timedelta(seconds=_LEAST))
    return min(until, facts.expires) if facts.expires is not None else until


def _worst(problems: Sequence[AdytonError]) -> AdytonError:
    """Of what several sources said: that one is to be asked later counts before that another cannot be asked, or has none."""
    for kind in (TooMany, Unavailable, EndorsementError, ConfigError):
        found = [error for error in problems if isinstance(error, kind)]
        if found:
            return min(found, key=lambda error: getattr(error, "retry_after", 0))
    return problems[0]


def _nobody(wanted: Wanted) -> ConfigError:
    return ConfigError(
        f"{wanted.name[:120]} is not in the cache, and no source for it is configured",
        code="endorsement_no_source",
        field=wanted.name,
        hint="name one with --from, or import a bundle: adyton collateral import FILE",
    )


def _absent(wanted: Wanted, source: str, until: datetime) -> NotFound:
    return NotFound(
        f"{source} has no {wanted.name[:120]}; it is not asked again before {until.isoformat(timespec='seconds')}",
        code="endorsement_absent",
        field=wanted.name,
    )


def _outside(item: Item, source: str, moment: datetime) -> EndorsementExpired:
    facts = item.facts
    return EndorsementExpired(
        f"{source} serves a {item.wanted.name[:120]} that is not valid at that time",
        code="endorsement_not_current",
        field=item.wanted.name,
        expected=f"{facts.issued.isoformat() if facts.issued else ''} to {facts.expires.isoformat() if facts.expires else ''}",
        got=moment.isoformat(timespec="seconds"),
        spec="evidence 1, rule 12",
        hint="ask another source; for an earlier time, keep a bundle of that time",
    )
