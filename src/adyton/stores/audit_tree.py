"""The Merkle tree over each tenant's audit rows: which of its nodes are stored, and how the others are had from them.

A row holds its own leaf hash. Of the nodes above, every eighth level is stored: the hash over 256 rows, over 256 of
those, and so on, written in the transaction of the row that completes it. So appending costs one hash and seldom more,
and a proof reads at most two runs of 256 hashes for each eight levels, whatever the log's length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from adyton.crypto import merkle
from adyton.errors import LogBroken

if TYPE_CHECKING:  # it makes older stores' trees with this module
    from adyton.stores.sql import Database, Transaction

HEIGHT = 8
WIDTH = 1 << HEIGHT
_LEAVES = "SELECT leaf FROM audit WHERE tenant=? AND sequence>? AND sequence<=? ORDER BY sequence"
_NODES = "SELECT hash FROM audit_nodes WHERE tenant=? AND level=? AND number>=? AND number<? ORDER BY number"


def complete(transaction: Transaction, tenant: str, before: int, size: int) -> None:
    """Store every node that became complete as the log grew from ``before`` rows to ``size``, in this transaction."""
    level = 1
    while before >> HEIGHT != size >> HEIGHT:
        before, size = before >> HEIGHT, size >> HEIGHT
        written = []
        for number in range(before, size):
            below = transaction.execute(*_run(tenant, level - 1, number << HEIGHT, (number + 1) << HEIGHT)).fetchall()
            written.append((tenant, level, number, merkle.perfect(_whole(tenant, below, WIDTH))))
        transaction.executemany("INSERT INTO audit_nodes VALUES (?,?,?,?)", written)
        level += 1


class Tree:
    """The nodes of one tenant's tree, as ``merkle`` asks for them; rows that are there never change."""

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    def __call__(self, level: int, number: int) -> bytes:
        """The hash of a complete subtree; ``LogBroken`` ``nodes_missing`` if a stored one is not there."""
        stored, above = divmod(level, HEIGHT)
        start, end = number << above, (number + 1) << above
        found = self._database.read(*_run(self._tenant, stored, start, end))
        return merkle.perfect(_whole(self._tenant, found, 1 << above))

    def stored(self, level: int, start: int, end: int) -> Sequence[bytes]:
        """The stored nodes of a level (in steps of ``HEIGHT``) that are there between two numbers."""
        return [row[0] for row in self._database.read(*_run(self._tenant, level, start, end))]


def _run(tenant: str, level: int, start: int, end: int) -> tuple[str, tuple[object, ...]]:
    return (_NODES, (tenant, level, start, end)) if level else (_LEAVES, (tenant, start, end))


def _whole(tenant: str, rows: Iterable[tuple[Any, ...]], count: int) -> list[bytes]:
    found = [row[0] for row in rows]
    if len(found) != count or any(len(item) != merkle.HASH_SIZE for item in found):
        raise LogBroken(
            "hashes of the audit log are missing",
            code="nodes_missing",
            field=tenant,
            expected=count,
            got=len(found),
            hint="adyton audit verify tells which row is the first that is not as it was",
        )
    return found
