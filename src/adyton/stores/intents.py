"""What is about to be put into a back end and has no row yet: written first, so that no crash leaves it there unknown.

The order is: the intent; the back end; then in one transaction the row that points there and the end of the intent. So at
any moment either the row exists, or the intent does, by which the thing is found and removed: a value by the digest of
its sealed bytes among what is at its path, a key by its label. An intent that was given up cannot be kept any more:
``finish`` refuses, and what comes late is no row that points to nothing.

An intent of a broker that has ended is given up at once; one of a broker that may still be at it, after ``GRACE``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec

from adyton.errors import Unavailable
from adyton.stores import tenants
from adyton.stores.removals import KIND, Removal, Removals, Waiting
from adyton.stores.seal import Sealer
from adyton.stores.sql import Database, Transaction

GRACE = 600.0
"""Seconds; more than twice the longest deadline of a back end's two calls."""
STATEMENTS = (
    """CREATE TABLE intents (
    tenant TEXT NOT NULL,
    number INTEGER NOT NULL,
    backend TEXT NOT NULL,
    instance TEXT NOT NULL,
    begun REAL NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (tenant, number)
) WITHOUT ROWID, STRICT""",
)
_DECODER = msgspec.json.Decoder(Removal)


@dataclass(frozen=True, slots=True)
class Intent:
    """One under way. ``number`` is unique in its tenant; ``removal`` is how to find what was put there."""

    tenant: str
    number: int
    backend: str
    removal: Removal


class Intents:
    """The table. ``instance``: which broker this is; ``shared``: whether others may be at work on the same store."""

    def __init__(self, database: Database, sealer: Sealer, removals: Removals, instance: str, *, shared: bool) -> None:
        self._database = database
        self._sealer = sealer
        self._removals = removals
        self._instance = instance
        self._shared = shared

    def begin(self, tenant: str, backend: str, removal: Removal, now: datetime) -> Intent:
        """Write down what is about to be done, durable on return."""
        with self._database.write(apart=True) as transaction:
            return self.add(transaction, tenant, tenants.touch(transaction, tenant), backend, removal, now)

    def add(  # noqa: PLR0917 -- one value each
        self, transaction: Transaction, tenant: str, number: int, backend: str, removal: Removal, now: datetime
    ) -> Intent:
        """As ``begin``, inside a transaction; ``number`` is ``tenants.touch``'s."""
        sealed = self._sealer.seal(msgspec.json.encode(removal), tenant, KIND, backend, number)
        row = (tenant, number, backend, self._instance, now.timestamp(), sealed)
        transaction.execute("INSERT INTO intents VALUES (?,?,?,?,?,?)", row)
        return Intent(tenant, number, backend, removal)

    def finish(self, transaction: Transaction, one: Intent) -> None:
        """It has its row, in this transaction; ``Unavailable`` ``intent_abandoned`` if it was given up meanwhile."""
        if not self._ended(transaction, one):
            raise Unavailable(
                "the back end took so long that what was put there was given up",
                code="intent_abandoned",
                field=one.backend,
                hint="try again",
            )

    def drop(self, one: Intent) -> None:
        """Nothing was put anywhere."""
        with self._database.write(apart=True) as transaction:
            self._ended(transaction, one)

    def give_up(self, one: Intent, removal: Removal | None = None) -> Waiting | None:
        """What was put there is to be removed, by ``removal`` where more is known; ``None`` if somebody did that already."""
        with self._database.write(apart=True) as transaction:
            if not self._ended(transaction, one):
                return None
            return self._removals.add(transaction, one.tenant, one.backend, removal or one.removal)

    def abandoned(self, now: float, grace: float = GRACE) -> list[Intent]:
        """Those that nobody will finish, or not in time."""
        alone = "" if self._shared else " OR instance<>?"
        found = self._database.read(
            f"SELECT tenant, number, backend, sealed FROM intents WHERE begun<?{alone} ORDER BY begun LIMIT 1000",  # noqa: S608 -- a constant
            (now - grace, *([] if self._shared else [self._instance])),
        )
        return [
            Intent(tenant, number, backend, self._open(tenant, number, backend, sealed))
            for tenant, number, backend, sealed in found
        ]

    def counts(self, tenant: str) -> dict[str, int]:
        """How many there are, by back end; of all tenants for an empty ``tenant``."""
        whose, given = ("WHERE tenant=? ", (tenant,)) if tenant else ("", ())
        found = f"SELECT backend, count(*) FROM intents {whose}GROUP BY backend ORDER BY backend"  # noqa: S608 -- a constant
        return {backend: int(count) for backend, count in self._database.read(found, given)}

    @staticmethod
    def _ended(transaction: Transaction, one: Intent) -> bool:
        done = transaction.execute("DELETE FROM intents WHERE tenant=? AND number=?", (one.tenant, one.number))
        return bool(done.rowcount)

    def _open(self, tenant: str, number: int, backend: str, sealed: bytes) -> Removal:
        try:
            return _DECODER.decode(self._sealer.open(sealed, tenant, KIND, backend, number))
        except msgspec.DecodeError as error:
            raise Unavailable(
                "what was about to be put into a back end was written by another version of Adyton",
                code="stored_value_foreign",
            ) from error
