"""Reference value providers by tenant and name: the owner's entries, as JSON that is not read here.

Whoever changes or deletes an entry says which of the provider's values hold no longer; they are revoked in the same
transaction, so that no moment exists at which a key is gone and what it signed still counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from adyton.errors import NotFound, TooMany
from adyton.stores import tenants
from adyton.stores.reference_rows import StoredReference
from adyton.stores.references import revoke
from adyton.stores.seal import Sealer
from adyton.stores.sql import Database, Transaction

MAX_PROVIDERS = 200
_KIND = "provider"


@dataclass(frozen=True, slots=True)
class StoredProvider:
    """An entry; ``body`` is its JSON."""

    name: str
    body: bytes
    version: int
    updated: datetime


class Providers:
    """The table of providers."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    def set(
        self, tenant: str, name: str, body: bytes, holds: Callable[[StoredReference], bool], now: datetime
    ) -> tuple[StoredProvider, list[StoredReference]]:
        """Set or replace, durable on return; its values for which ``holds`` is not true are revoked and returned."""
        tenants.check(tenant)
        with self._database.write() as transaction:
            (count,) = transaction.execute(
                "SELECT count(*) FROM providers WHERE tenant=? AND name<>?", (tenant, name)
            ).fetchone()
            if count >= MAX_PROVIDERS:
                raise TooMany(f"a tenant has at most {MAX_PROVIDERS} providers", code="too_many_providers")
            version = tenants.touch(transaction, tenant)
            sealed = self._sealer.seal_for(transaction, body, tenant, _KIND, name, version)
            transaction.execute(
                "INSERT INTO providers VALUES (?,?,?,?,?) ON CONFLICT (tenant, name) DO UPDATE SET"
                " version=excluded.version, updated=excluded.updated, sealed=excluded.sealed",
                (tenant, name, version, now.timestamp(), sealed),
            )
            gone = revoke(
                transaction,
                self._sealer,
                tenant,
                lambda one: one.provider == name and not holds(one),
                reason="its provider's entry no longer allows it",
                now=now,
            )
        return StoredProvider(name, body, version, now), gone

    def delete(self, tenant: str, name: str, now: datetime) -> list[StoredReference]:
        """Forget it, durable on return; all its values are revoked and returned. ``NotFound`` if there is none."""
        with self._database.write() as transaction:
            done = transaction.execute("DELETE FROM providers WHERE tenant=? AND name=?", (tenant, name))
            if not done.rowcount:
                raise NotFound(f"there is no provider {name[:80]!r}", code="provider_absent", field="name")
            tenants.touch(transaction, tenant)
            return revoke(
                transaction,
                self._sealer,
                tenant,
                lambda one: one.provider == name,
                reason="its provider was deleted",
                now=now,
            )

    def list(self, tenant: str, transaction: Transaction | None = None) -> list[StoredProvider]:
        """All of a tenant's, by name; inside ``transaction`` if one is given."""
        statement = "SELECT name, version, updated, sealed FROM providers WHERE tenant=? ORDER BY name"
        if transaction is None:
            found = self._database.read(statement, (tenant,))
        else:
            found = transaction.execute(statement, (tenant,)).fetchall()
        return [
            StoredProvider(
                name,
                self._sealer.open(sealed, tenant, _KIND, name, version),
                version,
                datetime.fromtimestamp(updated, UTC),
            )
            for name, version, updated, sealed in found
        ]
