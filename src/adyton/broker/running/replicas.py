"""What a broker does because others may share its database: opens it, goes by its clock, and never decides by what is old.

Every decision reads what it depends on from the database, and its record is written there before it is acted on. So a
replica that is cut off refuses. One that was merely held up between the two (a stopped process, a slow network) refuses
too, once more than ``OLDEST_DECISION`` seconds have passed (contracts, 4).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from adyton.broker.settings import Settings
from adyton.errors import Unavailable
from adyton.stores.sql import Database
from adyton.stores.sqlite import FILE, Store

OLDEST_DECISION = 1.0
CLOCKS_APART = 5.0
STEADY_SECONDS = 24 * 3600.0  # as long as a session may last
_JUMP = 30.0
_LOG = logging.getLogger(__name__)


def opener(settings: Settings) -> Callable[[], Database] | None:
    """How the shared database of the settings is opened; ``None`` where there is none: the store is a file."""
    if not settings.database:
        return None

    def opened() -> Database:
        from adyton.stores.postgres_address import DatabaseAddress

        password = Path(settings.database_password_file) if settings.database_password_file else None
        address = DatabaseAddress.read(settings.database, password)
        from adyton.stores.postgres import PostgresDatabase  # with the package that the line before asks for

        if (settings.directory / FILE).exists():
            _LOG.warning("%s is not used: the store is the %s", settings.directory / FILE, address.where)
        return PostgresDatabase(address)

    return opened


def where(settings: Settings) -> str | None:
    """What messages call the shared database of the settings, or ``None``: no password is in it."""
    if not settings.database:
        return None
    from adyton.stores.postgres_address import DatabaseAddress

    return DatabaseAddress.read(settings.database).where


class Deadline:
    """From reading what a decision depends on to acting on it: ``check`` refuses when that took too long."""

    __slots__ = ("_began", "_clock")

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock if store.shared else None
        self._began = clock() if store.shared else 0.0

    def check(self) -> None:
        """``Unavailable`` ``decision_old``: what was decided by may have been changed, and the change acknowledged."""
        if self._clock is None:
            return
        took = self._clock() - self._began
        if took > OLDEST_DECISION:
            raise Unavailable(
                "deciding took so long that it may not count any more",
                code="decision_old",
                expected=f"at most {OLDEST_DECISION} s",
                got=f"{took:.1f} s",
                hint="ask again",
            )


class Clocks:
    """Watches this machine's clock. ``steady``: it has not jumped for a day, nor was this process started within it.

    Keys are thrown away only then: a clock that jumps ahead for a while must not make good ones look old.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._last = (0.0, 0.0)
        self._said = float("-inf")

    def steady(self, now: float, monotonic: float) -> bool:
        """Call it often, with both clocks."""
        wall, before = self._last
        if self._since is None or abs((now - wall) - (monotonic - before)) > _JUMP:
            self._since = monotonic
        self._last = (now, monotonic)
        return monotonic - self._since >= STEADY_SECONDS

    def compare(self, own: float, shared: float, monotonic: float) -> None:
        """Say it, once a minute, when this machine's clock is not the database's."""
        if abs(own - shared) > CLOCKS_APART and monotonic - self._said >= 60:
            self._said = monotonic
            _LOG.error(
                "this machine's clock is %+.0f s from the database's: sessions of other replicas may end early or late;"
                " keep all of them in step (NTP) [clock_differs]",
                own - shared,
            )
