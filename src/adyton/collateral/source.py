"""The port through which endorsements come, and what passes through it.

Who composes a program decides which sources there are. Nothing in evidence ever names one: where endorsements come from is
configuration (evidence 15, "caller-chosen PCCS URL").
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from adyton.collateral.wanted import Wanted


@dataclass(frozen=True, slots=True)
class Answer:
    """What a source gave: body and issuers as ``Item`` keeps them, the URL, and how long HTTP says that it stays fresh (seconds)."""

    body: bytes
    chain: bytes
    url: str
    max_age: int | None = None


class EndorsementSource(Protocol):
    """Somebody who may have endorsements.

    Laws: it gives what was asked for or raises; it keeps nothing; it may be called from several threads.
    """

    @property
    def name(self) -> str:
        """For messages, the budget and what is known to be absent: its base URL."""
        ...

    def offers(self, wanted: Wanted) -> bool:
        """Whether it can be asked for this at all."""
        ...

    def get(self, wanted: Wanted, *, seconds: float) -> Answer:
        """Ask, and be done after at most ``seconds``.

        ``NotFound`` if it says that there is no such thing, ``TooMany`` (with ``retry_after``) if it is to be asked later,
        ``EndorsementMalformed`` if it answers with something else, ``Unavailable`` or ``ConfigError`` if it cannot be asked.
        """
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request below a source's base URL; ``target`` begins with a slash."""

    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer: header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    url: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server of ours answers: headers besides those that every answer has."""

    status: int
    content_type: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
