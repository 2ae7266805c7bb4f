"""What was revoked, by whom and why (``protocol.revoked``). A change counts as one of policies: no decision follows the old state.

Tenant ``""`` is the whole broker: what is revoked there is so for every tenant, and every tenant's generation grows.
The row without kind and value counts a tenant's changes in ``time``, so that a long list is read once for each.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from adyton.errors import NotFound, TooMany
from adyton.protocol.revoked import NOTHING, Revoked
from adyton.stores import tenants
from adyton.stores.sql import Database, Transaction

EVERYWHERE = ""
MAX_ENTRIES = 10_000
MAX_KNOWN = 1024
STATEMENTS = (
    """CREATE TABLE revoked (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    time REAL NOT NULL,
    who TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (tenant, kind, value)
) WITHOUT ROWID, STRICT""",
)


class StoredRevocation(msgspec.Struct, frozen=True):
    """One row. ``tenant`` is empty for the whole broker."""

    tenant: str
    kind: str
    value: str
    time: datetime
    who: str
    reason: str


class Revocations:
    """The table. Values are stored as they are compared."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, tuple[frozenset[tuple[str, float]], Revoked]] = {}

    def add(  # noqa: PLR0917 -- one value each
        self, tenant: str, kind: str, values: Iterable[str], reason: str, who: str, now: datetime
    ) -> list[StoredRevocation]:
        """Revoke, durable on return; what was revoked already keeps its first reason. ``TooMany`` beyond ``MAX_ENTRIES``."""
        added = [StoredRevocation(tenant, kind, value, now, who, reason) for value in dict.fromkeys(values)]
        with self._database.write() as transaction:
            for one in added:
                transaction.execute(
                    "INSERT INTO revoked VALUES (?,?,?,?,?,?) ON CONFLICT (tenant, kind, value) DO NOTHING",
                    (tenant, one.kind, one.value, now.timestamp(), who, reason),
                )
            (count,) = transaction.execute(
                "SELECT count(*) FROM revoked WHERE tenant=? AND kind<>''", (tenant,)
            ).fetchone()
            if count > MAX_ENTRIES:
                raise TooMany(f"more than {MAX_ENTRIES} are revoked one by one", code="revocations_too_many")
            _touch(transaction, tenant)
        return added

    def lift(self, tenant: str, kind: str, value: str) -> None:
        """Take it back, durable on return; ``NotFound``."""
        with self._database.write() as transaction:
            done = transaction.execute(
                "DELETE FROM revoked WHERE tenant=? AND kind=? AND value=? AND kind<>''", (tenant, kind, value)
            )
            if not done.rowcount:
                raise NotFound(f"no such {kind} is revoked", code="revocation_absent", field="value", got=value[:80])
            _touch(transaction, tenant)

    def list(self, tenant: str) -> list[StoredRevocation]:
        """What holds for a tenant: its own, and the broker's."""
        rows = self._database.read(
            "SELECT tenant, kind, value, time, who, reason FROM revoked WHERE tenant IN (?, ?)"
            " AND kind<>'' ORDER BY tenant, kind, value",
            (EVERYWHERE, tenant),
        )
        return [
            StoredRevocation(owner, kind, value, datetime.fromtimestamp(at, UTC), who, reason)
            for owner, kind, value, at, who, reason in rows
        ]

    def current(self, tenant: str) -> Revoked:
        """The same, to look things up in; read anew only if something was revoked or lifted since."""
        changes = frozenset(
            (str(owner), float(count))
            for owner, count in self._database.read(
                "SELECT tenant, time FROM revoked WHERE tenant IN (?, ?) AND kind='' AND value=''", (EVERYWHERE, tenant)
            )
        )
        if not changes:
            return NOTHING
        if all(not owner for owner, _ in changes):
            tenant = EVERYWHERE  # nothing of its own: strangers' made-up names are not remembered one by one
        known = self._known.get(tenant)
        if known is None or known[0] != changes:
            # Read after the counts: what is newer than they are is read again when they have grown.
            rows = self._database.read(
                "SELECT kind, value FROM revoked WHERE tenant IN (?, ?) AND kind<>''", (EVERYWHERE, tenant)
            )
            known = changes, Revoked(frozenset((kind, value) for kind, value in rows)) if rows else NOTHING
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[tenant] = known
        return known[1]


def _touch(transaction: Transaction, tenant: str) -> None:
    transaction.execute(
        "INSERT INTO revoked VALUES (?, '', '', 1, '', '')"
        " ON CONFLICT (tenant, kind, value) DO UPDATE SET time = revoked.time + 1",
        (tenant,),
    )
    if tenant == EVERYWHERE:
        tenants.touch_all(transaction)
    else:
        tenants.touch(transaction, tenant, policies=True)
