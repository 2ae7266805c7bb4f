"""A promotion as one transaction: all that a tenant takes over from another one, or nothing of it.

Whoever plans one reads first, and says by ``Seen`` what was read: if either tenant changed since, nothing is done. Quotas
are checked with everything in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from adyton.errors import Conflict
from adyton.protocol.resource import ResourcePath
from adyton.stores.policies import Policies
from adyton.stores.policy_types import StoredPolicy
from adyton.stores.references import References, StoredReference
from adyton.stores.resources import Resources
from adyton.stores.sql import Database, Transaction

_CHANGES = "SELECT changes FROM tenants WHERE name=?"


@dataclass(frozen=True, slots=True)
class Seen:
    """How often each of the two tenants had changed when the promotion was planned."""

    source: str
    target: str
    changes: tuple[int, int]


@dataclass(frozen=True, slots=True)
class PromotedValue:
    """A secret for ``path``: bound as what was there, else to nobody."""

    path: ResourcePath
    value: bytes = field(repr=False)


Promoted: TypeAlias = StoredPolicy | StoredReference | PromotedValue


class Promotions:
    """Writes to the tables of one tenant what was read from another's."""

    def __init__(self, database: Database, policies: Policies, references: References, resources: Resources) -> None:
        self._database = database
        self._policies = policies
        self._references = references
        self._resources = resources

    def look(self, source: str, target: str) -> Seen:
        """To be called before anything of the two is read."""
        counts = [self._database.read(_CHANGES, (name,)) for name in (source, target)]
        return Seen(source, target, (_count(counts[0]), _count(counts[1])))

    def carry(self, seen: Seen, what: Sequence[Promoted], now: datetime, *, actor: str = "") -> None:
        """Set all of it in the target, in force and durable on return; or raise, and then nothing is changed.

        ``Conflict`` ``promotion_changed`` if source or target changed since they were looked at.
        """
        with self._database.write() as transaction:
            counts = [transaction.execute(_CHANGES, (name,)).fetchall() for name in (seen.source, seen.target)]
            if (_count(counts[0]), _count(counts[1])) != seen.changes:
                raise changed()
            for one in what:
                self._put(transaction, seen.target, one, now, actor)

    def _put(self, transaction: Transaction, target: str, one: Promoted, now: datetime, actor: str) -> None:
        if isinstance(one, StoredPolicy):
            self._policies.put(transaction, target, one.kind, one.id, one.text, now, actor=actor, note="promoted")
        elif isinstance(one, StoredReference):
            self._references.put(transaction, target, one, now)
        else:
            self._resources.put(transaction, target, one.path, one.value, None, now)


def changed() -> Conflict:
    """What was shown is not what would be done."""
    return Conflict(
        "this is not what was shown: source or target changed since",
        code="promotion_changed",
        field="expected",
        hint="look at it again: adyton tenant promote --dry-run",
    )


def _count(rows: list[tuple[int]]) -> int:
    return int(rows[0][0]) if rows else 0
