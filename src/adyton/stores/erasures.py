"""Keys that were destroyed, and whose bytes may still lie in the store's files: until those are overwritten.

A row is written in the transaction that deletes them and goes once ``Database.purge`` is through. So who asks again for a
key that is gone already is told the truth, and neither a crash nor somebody who reads for long leaves the bytes there.
"""

from __future__ import annotations

from adyton.protocol.resource import ResourcePath
from adyton.stores import tenants
from adyton.stores.sql import Database, Transaction

STATEMENTS = (
    """CREATE TABLE erasures (
    tenant TEXT NOT NULL,
    path TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (tenant, path)
) WITHOUT ROWID, STRICT""",
)
_MOST = 1000


class Erasures:
    """The table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, transaction: Transaction, tenant: str, path: ResourcePath) -> None:
        """Inside the transaction that deletes what is to be overwritten; ``finish`` comes after it."""
        transaction.execute(
            "INSERT INTO erasures VALUES (?,?,?) ON CONFLICT (tenant, path) DO UPDATE SET number=excluded.number",
            (tenant, str(path), tenants.touch(transaction, tenant)),
        )

    def paths(self, tenant: str) -> frozenset[str]:
        """Of the tenant's keys, there still or not, those of which bytes are left."""
        return frozenset(row[0] for row in self._database.read("SELECT path FROM erasures WHERE tenant=?", (tenant,)))

    def waits(self, transaction: Transaction, tenant: str, path: ResourcePath) -> bool:
        """Whether bytes are left of what was at ``path``."""
        found = transaction.execute("SELECT 1 FROM erasures WHERE tenant=? AND path=?", (tenant, str(path)))
        return found.fetchone() is not None

    def finish(self) -> None:
        """Overwrite whatever waits for it. ``Unavailable`` ``erasure_pending``: call it again.

        In a thread with a deed that has written something: once that is settled.
        """
        if self._database.deeds.open() is not None:
            self._database.deeds.afterwards(self.finish)
            return
        pending = self._database.read("SELECT tenant, path, number FROM erasures LIMIT ?", (_MOST,))
        if not pending:
            return
        self._database.purge()
        with self._database.write(apart=True) as transaction:  # but not what was deleted meanwhile
            for row in pending:
                transaction.execute("DELETE FROM erasures WHERE tenant=? AND path=? AND number=?", row)
