"""What nothing points to any more and a back end still holds: values that were replaced or deleted, keys of a tenant that is gone.

A row is written in the transaction that takes the last pointer away, and goes when the back end has removed the thing; so
neither a crash nor a back end that is down leaves it there for ever. What is there is sealed: this is about tidiness and
about secrets that are to end, not about who can read them. Where and what is sealed; the back end's name is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from adyton.errors import Unavailable
from adyton.stores import tenants
from adyton.stores.seal import Sealer
from adyton.stores.sql import Database, Transaction

KIND = "removal"
MOST_SHOWN = 1000
STATEMENTS = (
    """CREATE TABLE removals (
    tenant TEXT NOT NULL,
    number INTEGER NOT NULL,
    backend TEXT NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (tenant, number)
) WITHOUT ROWID, STRICT""",
)


class Removal(msgspec.Struct, frozen=True):
    """A value at ``path`` (``repository/type/tag``) with the back end's ``pointer``, or a key with its handle there.

    Of what may have been put there by somebody who did not come to say where: ``put``, any value at ``path`` whose
    SHA-256 is ``pointer`` (hex), and ``made``, any key whose label is ``pointer``.
    """

    kind: Literal["value", "key", "put", "made"]
    path: str
    pointer: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """One that waits. ``number`` is unique in its tenant and grows."""

    tenant: str
    number: int
    backend: str
    removal: Removal


_DECODER = msgspec.json.Decoder(Removal)


class Removals:
    """The table. Nothing here reads what is whose across tenants."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    def add(self, transaction: Transaction, tenant: str, backend: str, removal: Removal) -> Waiting:
        """Queue it, inside the transaction that takes away what pointed to it."""
        number = tenants.touch(transaction, tenant, existing=False)  # its tenant may be gone
        sealed = self._sealer.seal(msgspec.json.encode(removal), tenant, KIND, backend, number)
        transaction.execute("INSERT INTO removals VALUES (?,?,?,?)", (tenant, number, backend, sealed))
        return Waiting(tenant, number, backend, removal)

    def queue(self, tenant: str, backend: str, removal: Removal) -> Waiting:
        """Queue it, durable on return: nothing ever pointed to it."""
        with self._database.write(apart=True) as transaction:
            return self.add(transaction, tenant, backend, removal)

    def tenants(self) -> list[str]:
        """Who has any; those that are gone too."""
        return [row[0] for row in self._database.read("SELECT DISTINCT tenant FROM removals ORDER BY tenant")]

    def of(self, tenant: str, backend: str, after: int, limit: int) -> list[Waiting]:
        """The oldest of a tenant in a back end that come after the number ``after``."""
        rows = self._database.read(
            "SELECT number, sealed FROM removals WHERE tenant=? AND backend=? AND number>? ORDER BY number LIMIT ?",
            (tenant, backend, after, limit),
        )
        return [
            Waiting(tenant, number, backend, self._open(tenant, number, backend, sealed)) for number, sealed in rows
        ]

    def counts(self, tenant: str) -> dict[str, int]:
        """How many wait, by back end."""
        found = "SELECT backend, count(*) FROM removals WHERE tenant=? GROUP BY backend ORDER BY backend"
        return {backend: int(count) for backend, count in self._database.read(found, (tenant,))}

    def keys(self, tenant: str, backend: str) -> list[Waiting]:
        """The keys that wait in a back end, at most ``MOST_SHOWN``."""
        return [one for one in self.of(tenant, backend, 0, MOST_SHOWN) if one.removal.kind == "key"]

    def done(self, one: Waiting) -> None:
        """It is gone there; forget it. Again is no error."""
        with self._database.write(apart=True) as transaction:
            transaction.execute("DELETE FROM removals WHERE tenant=? AND number=?", (one.tenant, one.number))

    def _open(self, tenant: str, number: int, backend: str, sealed: bytes) -> Removal:
        try:
            return _DECODER.decode(self._sealer.open(sealed, tenant, KIND, backend, number))
        except msgspec.DecodeError as error:
            raise Unavailable(
                "what is to be removed was written by another version of Adyton", code="stored_value_foreign"
            ) from error
