"""The door between the store's tables and the database under them: SQL that every engine of ours understands.

Statements are written once, in what SQLite and PostgreSQL share: ``?`` for parameters, ``INSERT … ON CONFLICT``,
``RETURNING``, and values that are ``int``, ``float``, ``str``, ``bytes`` or ``None``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

Row: TypeAlias = tuple[Any, ...]


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

    def read(self, statement: str, parameters: Sequence[object] = (), /) -> list[Row]:
        """All rows of one ``SELECT``, from one snapshot."""
        ...

    def write(self) -> AbstractContextManager[Transaction]:
        """One transaction: durable when the block ends, as if it had never been if it raises."""
        ...

    def purge(self) -> None:
        """Make sure that rows which were deleted can no longer be read from where the database lies.

        As far as the engine can: what copies of its files hold, and what a disk keeps under them, is beyond it.
        ``Unavailable`` ``erasure_pending`` if somebody is still in the way; call it again.
        """
        ...

    def close(self) -> None:
        """Let go of it."""
        ...
