"""One request of the administration as one deed: what it changes is committed with the rows that say so, or not at all.

A change that no row speaks of cannot be committed here; a full disk or a dead process takes both away.
"""

from __future__ import annotations

import logging
from datetime import datetime
from types import TracebackType
from typing import Self

from adyton.broker.audit import administered
from adyton.errors import AdytonError, Unavailable
from adyton.stores.sqlite import Store

_LOG = logging.getLogger(__name__)


class Recorded:
    """Between ``with`` and its end, what this thread writes to ``store`` is settled with its rows, in the log of ``log``."""

    def __init__(self, store: Store, log: str, now: datetime, *, actor: str, peer: str) -> None:
        self._store = store
        self._deed = store.deed()
        self._log = log
        self._now = now
        self._actor = actor
        self._peer = peer

    def __enter__(self) -> Self:
        self._deed.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deed.__exit__(kind, error, trace)

    def settle(self, *changes: tuple[str, str]) -> None:
        """Commit what was written so far, with a row for each of ``changes``; on return both are durable.

        ``Unavailable``: nothing of it was kept; or it was, and what was to follow could not be done (``erasure_pending``).
        ``RuntimeError`` for a change without a row.
        """
        if not changes and self._deed.wrote:
            raise RuntimeError("a change that no row speaks of")
        rows = [administered(action, name, actor=self._actor, peer=self._peer) for action, name in changes]
        try:
            if rows:
                self._store.record(self._log, rows, self._now)
            self._deed.settle()
        except AdytonError as error:
            _LOG.error("a change with its audit rows, or what was to follow it: %s [%s]", error.message, error.code)
            if isinstance(error, Unavailable):
                raise
            raise Unavailable(error.message, code=error.code) from error

    def undo(self) -> None:
        """As if nothing had been written since the last settlement."""
        self._deed.undo()
