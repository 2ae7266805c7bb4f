"""Reference values by tenant and name: set by hand or published by providers; read as frozen snapshots.

A name holds at most one value in force and one candidate beside it. What providers published is remembered by series and
issue for as long as the name exists, so that an older document cannot come back (``published``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from adyton.errors import DocumentInvalid, NotFound
from adyton.rats.types import JsonValue
from adyton.stores import quotas, tenants
from adyton.stores import reference_rows as rows
from adyton.stores.reference_rows import MAX_NAME, MAX_VALUE, Snapshot, StoredReference
from adyton.stores.seal import Sealer
from adyton.stores.sql import Database, Row, Transaction

__all__ = ["MAX_NAME", "MAX_VALUE", "Published", "References", "Snapshot", "StoredReference", "revoke"]

_PUBLISHED = "SELECT series, issue, proof, first FROM published WHERE tenant=? AND provider=? AND name=?"


@dataclass(frozen=True, slots=True)
class Published:
    """A document that a provider published under a name, whether it still stands or not."""

    series: str
    issue: int
    proof: bytes
    first: datetime


Standing = Callable[
    [Mapping[str, list[StoredReference]], Mapping[str, list[Published]]],
    Iterable[StoredReference],
]
"""Decides inside the transaction: from what stands under names and what the provider published, to what is stored."""


class References:
    """The table of reference values."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    def set(self, tenant: str, name: str, value: JsonValue, expires: datetime | None, now: datetime) -> StoredReference:
        """Set or replace by hand, durable on return. ``null`` is refused: it would mean *missing*."""
        return self.set_all(tenant, {name: value}, expires, now)[0]

    def set_all(
        self, tenant: str, values: Mapping[str, JsonValue], expires: datetime | None, now: datetime
    ) -> list[StoredReference]:
        """As ``set``, all of them or, if one cannot be taken, none."""
        tenants.check(tenant)
        for name, value in values.items():
            rows.check(name, value)
            if expires is not None and expires <= now:
                raise DocumentInvalid(
                    "the reference value has expired already",
                    code="reference_expired",
                    field=name,
                    got=expires.isoformat(),
                )
        found = []
        with self._database.write() as transaction:
            for name, value in values.items():
                version = tenants.touch(transaction, tenant, references=True)
                one = StoredReference(name, value, version, now, expires)
                _remove(transaction, tenant, name)
                rows.write(transaction, self._sealer, tenant, one, slot=0)
                found.append(one)
            quotas.check(transaction, self._sealer, tenant, "references")
        return found

    def put(self, transaction: Transaction, tenant: str, one: StoredReference, now: datetime) -> StoredReference:
        """Set or replace ``one`` with its provider and proof, if it has them, inside a transaction."""
        rows.check(one.name, one.value)
        stored = replace(one, version=tenants.touch(transaction, tenant, references=True), updated=now)
        _remove(transaction, tenant, one.name)
        rows.write(transaction, self._sealer, tenant, stored, slot=0)
        if one.provider:
            _remember(transaction, tenant, one, now)
        quotas.check(transaction, self._sealer, tenant, "references")
        return stored

    def published(self, tenant: str, provider: str, name: str) -> list[Published]:
        """What a provider ever published under a name that there is."""
        found = self._database.read(_PUBLISHED, (tenant, provider, name))
        return [_was_published(row) for row in found]

    def publish(
        self,
        tenant: str,
        provider: str,
        names: Iterable[str],
        decide: Standing,
        now: datetime,
        *,
        unchanged: Callable[[Transaction], None],
    ) -> list[StoredReference]:
        """Store what ``decide`` makes of the names, in one transaction with what it looked at; or nothing if it raises.

        ``unchanged`` raises if what was verified before the transaction no longer holds, such as the provider's entry.
        """
        tenants.check(tenant)
        with self._database.write() as transaction:
            unchanged(transaction)
            standing = {name: select(transaction, self._sealer, tenant, name) for name in names}
            chosen = list(
                decide(standing, {name: _published(transaction, tenant, provider, name) for name in standing})
            )
            for one in chosen:
                rows.check(one.name, one.value)
            version = tenants.touch(transaction, tenant, references=any(not one.candidate for one in chosen))
            found = [replace(one, version=version, updated=now) for one in chosen]
            for one in found:
                slot = int(one.candidate)
                if not slot:
                    _remove(transaction, tenant, one.name)
                rows.write(transaction, self._sealer, tenant, one, slot=slot)
                _remember(transaction, tenant, one, now)
            quotas.check(transaction, self._sealer, tenant, "references")
        return found

    def revoke(
        self, tenant: str, chosen: Callable[[StoredReference], bool], reason: str, now: datetime
    ) -> list[StoredReference]:
        """Revoke those of a tenant's values that are ``chosen``, durable on return; ``NotFound`` if there is none."""
        with self._database.write() as transaction:
            found = revoke(transaction, self._sealer, tenant, chosen, reason=reason, now=now)
            if not found:
                raise NotFound("there is no such reference value to revoke", code="reference_absent", field="name")
        return found

    def list(self, tenant: str) -> list[StoredReference]:
        """All of a tenant's reference values by name, the one in force before its candidate, whatever their state."""
        found = self._database.read(
            f'SELECT {rows.COLUMNS} FROM "references" WHERE tenant=? ORDER BY name, candidate',  # noqa: S608 -- ours
            (tenant,),
        )
        return [rows.read(self._sealer, tenant, row) for row in found]

    def get(self, tenant: str, name: str) -> StoredReference | None:
        """One reference value, counting or not: the one in force, else its candidate."""
        found = self._database.read(
            f'SELECT {rows.COLUMNS} FROM "references" WHERE tenant=? AND name=? ORDER BY candidate LIMIT 1',  # noqa: S608
            (tenant, name),
        )
        return rows.read(self._sealer, tenant, found[0]) if found else None

    def snapshot(self, tenant: str, now: datetime) -> Snapshot:
        """What holds at ``now``: counter and values from one read, so that they belong together."""
        columns = ", ".join(f"r.{column.strip()}" for column in rows.COLUMNS.split(","))
        found = self._database.read(
            f"SELECT t.reference_generation, {columns} FROM tenants t"  # noqa: S608 -- ours
            ' LEFT JOIN "references" r ON r.tenant = t.name AND r.candidate = 0 WHERE t.name=? ORDER BY r.name',
            (tenant,),
        )
        stored = [rows.read(self._sealer, tenant, row[1:]) for row in found if row[1] is not None]
        return Snapshot.of(int(found[0][0]) if found else 0, stored, now)

    def delete(self, tenant: str, name: str) -> None:
        """Withdraw and forget it with its history, durable on return; ``NotFound`` if there is none."""
        with self._database.write() as transaction:
            if not _remove(transaction, tenant, name):
                raise NotFound(f"there is no reference value {name!r}", code="reference_absent", field="name")
            transaction.execute("DELETE FROM published WHERE tenant=? AND name=?", (tenant, name))
            tenants.touch(transaction, tenant, references=True)


def select(transaction: Transaction, sealer: Sealer, tenant: str, name: str) -> list[StoredReference]:
    """What a name holds, inside a transaction: the value in force before its candidate."""
    found = transaction.execute(
        f'SELECT {rows.COLUMNS} FROM "references" WHERE tenant=? AND name=? ORDER BY candidate',  # noqa: S608 -- ours
        (tenant, name),
    ).fetchall()
    return [rows.read(sealer, tenant, row) for row in found]


def revoke(
    transaction: Transaction,
    sealer: Sealer,
    tenant: str,
    chosen: Callable[[StoredReference], bool],
    *,
    reason: str,
    now: datetime,
) -> list[StoredReference]:
    """Revoke the chosen ones that are not yet, inside a transaction; the generation grows if there are any."""
    found = []
    all_rows = transaction.execute(
        f'SELECT {rows.COLUMNS} FROM "references" WHERE tenant=? ORDER BY name, candidate',  # noqa: S608 -- ours
        (tenant,),
    ).fetchall()
    for row in all_rows:
        one = rows.read(sealer, tenant, row)
        if one.state != rows.REVOKED and chosen(one):
            version = tenants.touch(transaction, tenant, references=True)
            gone = replace(one.revoked(reason), version=version, updated=now)
            rows.write(transaction, sealer, tenant, gone, slot=int(row[1]))
            found.append(gone)
    return found


def _remove(transaction: Transaction, tenant: str, name: str) -> int:
    return transaction.execute('DELETE FROM "references" WHERE tenant=? AND name=?', (tenant, name)).rowcount


def _published(transaction: Transaction, tenant: str, provider: str, name: str) -> list[Published]:
    found = transaction.execute(_PUBLISHED, (tenant, provider, name)).fetchall()
    return [_was_published(row) for row in found]


def _was_published(row: Row) -> Published:
    series, issue, proof, first = row
    return Published(series, issue, bytes(proof), datetime.fromtimestamp(first, UTC))


def _remember(transaction: Transaction, tenant: str, one: StoredReference, now: datetime) -> None:
    transaction.execute(
        "INSERT INTO published VALUES (?,?,?,?,?,?,?) ON CONFLICT (tenant, provider, name, proof) DO NOTHING",
        (tenant, one.provider, one.name, one.series, one.issue, one.proof, now.timestamp()),
    )
