"""One request of the administration as one deed: what it changes is committed with the rows that say so, or not at all.

A change that no row speaks of cannot be committed here; a full disk or a dead process takes both away.
"""

from __future__ import annotations

from datetime import datetime
from types import TracebackType
from typing import Self

from adyton.broker.audit import administered
from adyton.stores.sqlite import Store


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

        Errors of the store leave as they are: then nothing of it was kept. ``RuntimeError`` for a change without a row.
        """
        if changes:
            rows = [administered(action, name, actor=self._actor, peer=self._peer) for action, name in changes]
            self._store.record(self._log, rows, self._now)
        elif self._deed.wrote:
            raise RuntimeError("a change that no row speaks of")
        self._deed.settle()

    def undo(self) -> None:
        """As if nothing had been written since the last settlement."""
        self._deed.undo()
