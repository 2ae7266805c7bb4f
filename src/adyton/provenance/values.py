"""What provenance is made of: a document's values, what may be published of them, and what stands already.

Pure: bytes, values, keys and ``now`` in; ``Provided`` values or an error out. Nothing here trusts a document: who may
publish what is the ``Provider`` that the owner configured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from types import MappingProxyType

from adyton.errors import DocumentInvalid
from adyton.rats.types import JsonValue

MAX_DOCUMENT = 4 * 1024 * 1024  # bytes
MAX_VALUES = 2000
MAX_NAME = 256


class State(Enum):
    """Where a reference value is in its life. Only ``STABLE`` and ``DEPRECATED`` values count in appraisal."""

    CANDIDATE = "candidate"
    STABLE = "stable"
    DEPRECATED = "deprecated"
    REVOKED = "revoked"

    @property
    def counts(self) -> bool:
        """Whether evidence may match a value in this state."""
        return self in {State.STABLE, State.DEPRECATED}


@dataclass(frozen=True, slots=True)
class Stated:
    """One value as a verified document states it.

    ``series`` and ``issue`` order documents about the same thing: of one series, a lower issue is older. ``exact`` says
    that two documents of one series never share an issue.
    """

    value: JsonValue
    series: str
    issue: int
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Statement:
    """What one document says, after its signatures were verified against its provider's keys.

    ``proof`` is SHA-256 of what is signed, not of the file: a signature can be written in two ways. ``signers`` are the
    ids of the provider's keys that verified; empty only for a document that is unsigned and was accepted as such.
    ``issued`` is when it was made, ``not_before`` and ``not_after`` its own validity, ``None`` where it has none.
    """

    kind: str
    values: Mapping[str, Stated]
    proof: bytes
    signers: frozenset[str]
    issued: datetime | None = None
    not_before: datetime | None = None
    not_after: datetime | None = None
    state: State = State.STABLE
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Provided:
    """A reference value that may be stored: it counts from ``not_before`` until before ``not_after``."""

    name: str
    value: JsonValue
    provider: str
    kind: str
    proof: bytes
    signers: frozenset[str]
    series: str
    issue: int
    issued: datetime | None
    not_before: datetime
    not_after: datetime
    state: State


@dataclass(frozen=True, slots=True)
class Current:
    """What stands under a name. ``provider`` is empty for a value that the owner set by hand."""

    provider: str
    proof: bytes
    state: State
    issued: datetime | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A document that a provider once published under a name, whether it still stands or not."""

    series: str
    issue: int
    proof: bytes
    first: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """What the store knows about the names of a statement: what stands, and what this provider published before."""

    current: Mapping[str, tuple[Current, ...]] = field(default_factory=lambda: MappingProxyType({}))
    seen: Mapping[str, tuple[Seen, ...]] = field(default_factory=lambda: MappingProxyType({}))


def refused(message: str, code: str, **facts: object) -> DocumentInvalid:
    """The error for a document that is not accepted; ``facts`` are the error tree's fields."""
    return DocumentInvalid(message, code=code, **facts)  # type: ignore[arg-type]  # the tree's own names
