"""What a program keeps in order while it serves: endorsements, its certificate, settings that change live, chores.

The same for a broker's worker and for the services alone. What else each has to do it brings as chores of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from adyton.broker.door.tls import Identity, Watched
from adyton.broker.outside.endorsements import Endorsements
from adyton.broker.running.metrics import Metrics
from adyton.broker.running.process import harden
from adyton.broker.running.readiness import Readiness
from adyton.broker.running.serving import Doors
from adyton.broker.settings import Settings
from adyton.errors import AdytonError

SECONDS = 5.0
_LOG = logging.getLogger(__name__)


class Upkeep:
    """Of one program. ``doors`` is set once they are open."""

    doors: Doors

    def __init__(self, endorsements: Endorsements, watched: Watched, readiness: Readiness, metrics: Metrics) -> None:
        self._endorsements = endorsements
        self._watched = watched
        self._readiness = readiness
        self._metrics = metrics
        self._identity: Identity | None = watched.current

    def apply(self, settings: Settings) -> None:
        """Go on with ``settings``, as far as they are everybody's; of what cannot be used the old stays."""
        logging.getLogger().setLevel(settings.log_level.upper())
        harden(settings.connections)
        self._endorsements.replace(settings.endorsements)
        self._endorsements.refresh(force=True)
        self.doors.limit(settings)
        self._watched.refresh(settings, force=True)

    def look(self, settings: Settings) -> None:
        """Read anew what somebody else may have replaced: endorsements, certificates."""
        self._endorsements.refresh()
        self._watched.refresh(settings)
        self.renew(settings)

    def renew(self, settings: Settings) -> None:
        """Open the doors anew with the identity that is current, if it is another one; gRPC asks for it by itself."""
        if self._watched.current is not self._identity:
            self._identity = self._watched.current
            self.doors.reopen(settings, self._identity)

    async def every(self, seconds: float, what: str, chore: Callable[[], Awaitable[None]]) -> None:
        """Do it again and again; one that failed is logged as ``what``, counted, and done the next time all the same."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await chore()
            except AdytonError as error:
                self._failed(error.code)
                _LOG.error("%s: %s [%s]", what, error.message, error.code)
            except Exception:  # noqa: BLE001 -- a chore that ended would never turn a key or read a CRL again
                self._failed("")
                _LOG.exception("%s", what)

    def _failed(self, code: str) -> None:
        self._metrics.count("maintenance_failures")
        if code.startswith(("keys_", "sealed_")):
            self._readiness.keys_loaded = False
