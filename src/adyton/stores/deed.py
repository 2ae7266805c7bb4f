"""One request's changes as one transaction, whatever tables they are of: with the rows that say so, or not at all.

While a thread has a deed, what it writes joins one transaction, which begins with the first write and ends when the deed
is settled; so nothing slow lies inside that was done before. What the thread reads meanwhile, it reads in there. One
write that fails undoes all of them. What is no part of it (a queue's bookkeeping, what is announced) says ``apart``, and
comes before the first write or after the end: ``afterwards``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Self

from adyton.errors import AdytonError
from adyton.stores.sql import EVERYTHING, Row, Transaction

if TYPE_CHECKING:  # databases have deeds
    from adyton.stores.sql import Database

UNKNOWN = "store_outcome_unknown"
"""The code of a commit that may have been kept or not."""
_LOG = logging.getLogger(__name__)
_Later = tuple[Callable[[], None], Callable[[], None] | None]


class Deeds:
    """The deeds under way on one database: at most one in each thread."""

    def __init__(self) -> None:
        self.under_way: dict[int, Deed] = {}

    def mine(self) -> Deed | None:
        """This thread's, if it has one."""
        return self.under_way.get(get_ident())

    def open(self) -> Deed | None:
        """This thread's, if it has written anything that is not settled."""
        deed = self.under_way.get(get_ident())
        return deed if deed is not None and deed.wrote else None

    def afterwards(self, done: Callable[[], None], undone: Callable[[], None] | None = None) -> None:
        """Call ``done`` once what this thread has written is durable: at once, if it has no deed.

        ``undone`` is called instead if that came to nothing; neither, if nobody knows.
        """
        deed = self.mine()
        if deed is None:
            done()
        else:
            deed.later.append((done, undone))


class Deed:
    """What one thread does between ``with`` and its end. What was not settled by then is undone."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._opening: AbstractContextManager[Transaction] | None = None
        self._transaction: Transaction | None = None
        self._locks: set[str] = set()
        self._parts = 0
        self._lost = False
        self.later: list[_Later] = []

    @property
    def wrote(self) -> bool:
        """Whether anything was written that is not settled yet."""
        return self._transaction is not None

    def __enter__(self) -> Self:
        under_way = self._database.deeds.under_way
        if get_ident() in under_way:
            raise RuntimeError("a thread does one deed at a time")
        under_way[get_ident()] = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        forgotten = self.wrote and error is None
        try:
            self.undo()
        finally:
            self._database.deeds.under_way.pop(get_ident(), None)
        if forgotten:
            raise RuntimeError("something was written that no row speaks of; it was undone")

    @contextmanager
    def part(self, locks: Sequence[str]) -> Iterator[Transaction]:
        """A write that joins. If it fails, all that was written since the last settlement is undone."""
        if self._lost:
            raise RuntimeError("what was written before was undone")
        try:
            transaction = self._joined(locks or (EVERYTHING,))
            yield transaction
        except BaseException as error:
            self._lose(error)
            raise
        self._parts += 1

    def read(self, statement: str, parameters: Sequence[object]) -> list[Row]:
        """As the database's, with what this deed has written."""
        if self._transaction is None:
            raise ValueError("nothing was written")
        try:
            return self._transaction.execute(statement, parameters).fetchall()
        except BaseException as error:
            self._lose(error)
            raise

    def settle(self) -> None:
        """Commit what was written, then do what waited for that. What follows is another transaction."""
        if self._lost:
            raise RuntimeError("what was written before was undone")
        opening, self._opening, self._transaction = self._opening, None, None
        self._locks.clear()
        if opening is not None:
            try:
                opening.__exit__(None, None, None)
            except BaseException as error:
                self._lost = True
                if isinstance(error, AdytonError) and error.code == UNKNOWN:
                    self.later.clear()  # what it would take back may be in use
                raise
        self._parts = 0
        later, self.later = self.later, []
        failed: AdytonError | None = None
        for done, _ in later:
            try:
                done()
            except AdytonError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def undo(self) -> None:
        """As if nothing had been written since the last settlement; then something else may be."""
        if self._opening is not None:
            try:
                self._lose(_Undone())
            except AdytonError as error:  # the connection is gone, and what was under way with it
                _LOG.warning("a transaction could not even be undone: %s [%s]", error.message, error.code)
        self._lost, self._parts = False, 0
        later, self.later = self.later, []
        for _, undone in later:
            if undone is not None:
                try:
                    undone()
                except AdytonError as error:
                    _LOG.warning("what was prepared is not taken back: %s [%s]", error.message, error.code)

    def _joined(self, locks: Sequence[str]) -> Transaction:
        if self._transaction is None:
            opening = self._database.write(*locks, apart=True)
            self._transaction = opening.__enter__()
            self._opening = opening
        else:
            self._database.lock(self._transaction, *[name for name in locks if name not in self._locks])
        self._locks.update(locks)
        return self._transaction

    def _lose(self, error: BaseException) -> None:
        """Roll back; raises what the database makes of ``error``, if that is another one."""
        opening, self._opening, self._transaction = self._opening, None, None
        self._lost = self._lost or self._parts > 0
        self._parts = 0
        self._locks.clear()
        if opening is not None:
            opening.__exit__(type(error), error, error.__traceback__)


class _Undone(Exception):
    """Why a transaction ends that nobody wants any more. It leaves this file for nobody."""
