"""A request of the administration that has passed the gate, and what several of its parts read from one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from adyton.broker.door.answer import Answer
from adyton.broker.people.people import NOBODY, Principal
from adyton.errors import DocumentInvalid


class Settling(Protocol):
    """The request's changes on their way: committed with the rows that say so, or undone (``record.recorded``)."""

    def settle(self, *changes: tuple[str, str]) -> None:
        """Commit what was changed so far, with these rows. What the answer names is settled without being asked."""
        ...

    def undo(self) -> None:
        """Take back what was changed and not settled."""
        ...


class Alone:
    """A room used without a broker around it: each change is durable by itself, and no row is written."""

    def settle(self, *changes: tuple[str, str]) -> None:
        """Nothing."""

    def undo(self) -> None:
        """Nothing."""


ALONE = Alone()


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of the administration: who owns what it speaks of, what it says, and who says it (for the record)."""

    method: str
    tenant: str
    body: bytes
    now: datetime
    query: str = ""
    principal: Principal = NOBODY
    peer: str = ""
    deed: Settling = ALONE

    @property
    def who(self) -> str:
        """Who asks, as the record names them."""
        return self.principal.name


class Room(Protocol):
    """What answers for one or several nouns of our API (``/api/v0/<noun>/…``)."""

    def handle(self, asked: Asked, parts: tuple[str, ...]) -> Answer:
        """The answer; ``parts`` begin with the noun. Errors of the tree leave as they are."""
        ...


def parse_time(text: str | None) -> datetime | None:
    """An RFC 3339 time with its zone, in UTC; ``DocumentInvalid`` ``time_malformed``.

    9999-12-31T23:59:59-01:00 is none: what comes after the last date can be kept, and never be read again.
    """
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise DocumentInvalid("not a time", code="time_malformed", expected="RFC 3339", got=text[:40]) from error
    raise DocumentInvalid("a time without its zone", code="time_malformed", expected="RFC 3339", got=text[:40])
