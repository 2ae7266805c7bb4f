"""What a worker compiles ahead, because another one announced that it is about to be activated."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from adyton.broker.policy.policies import PolicyBook
from adyton.errors import AdytonError
from adyton.stores.policy_types import PolicyKind
from adyton.stores.sqlite import Store

REHEARSAL_SECONDS = 0.1
_LOG = logging.getLogger(__name__)


class Rehearsal:
    """Looks ten times a second whether anything was changed, and nearly always nothing was."""

    def __init__(self, store: Store, book: PolicyBook) -> None:
        self._store = store
        self._book = book
        self._done: frozenset[tuple[str, PolicyKind, str, int]] = frozenset()
        self._seen: bytes | None = None

    def due(self) -> frozenset[tuple[str, PolicyKind, str, int]]:
        """What was announced and not compiled here yet."""
        seen = self._store.seen()
        if seen is not None and seen == self._seen:
            return frozenset()
        announced = frozenset(self._store.staged.list())
        self._done &= announced
        self._seen = seen
        return announced - self._done

    def compile(self, due: frozenset[tuple[str, PolicyKind, str, int]]) -> None:
        """Compile it. What cannot be is left to whoever asks for it."""
        for item in due:
            with suppress(AdytonError):
                self._book.rehearse(*item)
        self._done |= due

    async def keep_up(self, *, shared: bool) -> None:
        """Until it is cancelled. ``shared``: the store is another machine's, which is not waited for on the loop."""
        while True:
            await asyncio.sleep(REHEARSAL_SECONDS)
            try:
                due = await asyncio.to_thread(self.due) if shared else self.due()
                if due:
                    await asyncio.to_thread(self.compile, due)
            except AdytonError as error:
                _LOG.error("policies cannot be compiled ahead: %s [%s]", error.message, error.code)
            except Exception:  # noqa: BLE001 -- a chore that ended would never look again
                _LOG.exception("policies cannot be compiled ahead")
