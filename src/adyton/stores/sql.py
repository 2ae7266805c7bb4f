"""The door between the store's tables and the database under them: SQL that every engine of ours understands.

Statements are written once, in what SQLite and PostgreSQL share: ``?`` for parameters, ``INSERT … ON CONFLICT (…)``,
``RETURNING``, and values that are ``int``, ``float``, ``str``, ``bytes`` or ``None``. In ``DO UPDATE SET`` a column's old
value is named with its table. A parameter's type must be plain from its place: not ``SELECT ?``, not ``? IS NULL``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:  # a deed is made of transactions
    from adyton.stores.deed import Deeds

Row: TypeAlias = tuple[Any, ...]
EVERYTHING = "tables"
"""The lock of transactions that name none."""
CLAIMS = "claims"
"""The lock of those that keep claims for a session."""


class Result(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int:
        """How many rows were changed."""
        ...

    def fetchone(self) -> Any:
        """The next row, or ``None``."""
        ...

    def fetchmany(self, size: int = ..., /) -> list[Any]:
        """Some of the rows that follow."""
        ...

    def fetchall(self) -> list[Any]:
        """All rows that follow."""
        ...


class Transaction(Protocol):
    """One transaction under way."""

    def execute(self, statement: str, parameters: Sequence[Any] = ..., /) -> Result:
        """Run one statement."""
        ...

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> Result:
        """Run one statement for each of ``rows``."""
        ...


class Database(Protocol):
    """An open database. Laws: ``read`` sees what was last committed by any process; ``write`` is all or nothing."""

    @property
    def where(self) -> str:
        """What an error calls it: a path or a name, never a secret."""
        ...

    @property
    def deeds(self) -> Deeds:
        """What threads do as one transaction each (``stores.deed``)."""
        ...

    def read(self, statement: str, parameters: Sequence[object] = (), /) -> list[Row]:
        """All rows of one ``SELECT``, from one snapshot; in a thread with a deed, as that has written them."""
        ...

    @property
    def elsewhere(self) -> bool:
        """Whether it is another machine's: then a commit is not waited for on an event loop."""
        ...

    def write(
        self,
        *locks: str,
        landed: Callable[[Transaction], bool] | None = None,
        apart: bool = False,
        appends: bool = False,
    ) -> AbstractContextManager[Transaction]:
        """One transaction: durable when the block ends, as if it had never been if it raises.

        In a thread with a deed it is part of that, and durable when that is settled; unless it is to stand ``apart``.

        It runs alone among those that name one of the same ``locks``; whoever names none, among all that name none.
        ``landed`` tells, in a transaction of its own, whether this one was committed, where the answer was lost.
        ``appends``: only rows of logs are appended, so no decision depends on it.
        """
        ...

    def lock(self, transaction: Transaction, *names: str) -> None:
        """Take further locks, after those that a transaction began with: last the one of a log, whose holder waits for none."""
        ...

    def time(self, own: float) -> float:
        """The time that all who share the database go by; ``own``, this machine's, where nobody else does."""
        ...

    def purge(self, *, keys: bool = False) -> None:
        """Make sure that rows which were deleted can no longer be read from where the database lies.

        ``keys``: wrapped data keys are among them, on which everything else hangs.
        As far as the engine can: what copies of its files hold, and what a disk keeps under them, is beyond it.
        ``Unavailable`` ``erasure_pending`` if somebody is still in the way; call it again. In a thread with a deed that
        has written something, once that is settled.
        """
        ...

    def close(self) -> None:
        """Let go of it."""
        ...
