"""Organisations, and what is set about each tenant: whose it is, which environment it is, quotas, approvals.

**Implicit tenants.** As long as there is no organisation, a tenant comes into being when something is first set for it,
and its environment is the broker's. The first organisation ends that: tenants that there are go on, as tenants of no
organisation, and every further one must be made. A deleted tenant's name is never given again, because its log is kept.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from adyton.errors import Conflict, MalformedRequest, NotFound, Unavailable
from adyton.protocol.people import ApprovalRules
from adyton.stores import policy_schema, tenants
from adyton.stores.seal import Sealer
from adyton.stores.sql import CLAIMS, EVERYTHING, Database, Transaction
from adyton.stores.tenants import BROKER, absent

__all__ = [
    "BROKER",
    "IMPLICIT",
    "KIND",
    "RESERVED",
    "Organisation",
    "StoredTenant",
    "TenantRegistry",
    "TenantSettings",
    "absent",
]

RESERVED = frozenset({BROKER, "adyton", "admin", "system", "all", "none", "public", "default-organisation"})
KIND = "tenant settings"
_ERASING = "erasing"
_LOG = logging.getLogger(__name__)
_USED = (
    "SELECT (SELECT count(*) FROM resources WHERE tenant=?), (SELECT coalesce(sum(size), 0) FROM resources WHERE tenant=?),"  # noqa: S608 -- ours
    f' ({policy_schema.COUNT}), (SELECT count(*) FROM "references" WHERE tenant=?),'
    " (SELECT count(DISTINCT path) FROM key_versions WHERE tenant=?)"
)
_KEPT = frozenset({"audit", "audit_nodes", "checkpoints", "tenants", "tenant_settings", "removals", "intents"})


class TenantSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """As stored. ``environment`` empty: the broker's. A quota that is absent does not limit.

    ``rates`` (``CLASS=PER_SECOND[:BURST]``) take the place of the broker's for this tenant's requests.
    """

    organisation: str = ""
    environment: str = ""
    approvals: ApprovalRules = ApprovalRules()
    quotas: Mapping[str, int] = {}
    rates: tuple[str, ...] = ()


IMPLICIT = TenantSettings()


@dataclass(frozen=True, slots=True)
class StoredTenant:
    """A tenant that exists. ``made``: it has settings of its own, so it is not implicit."""

    name: str
    settings: TenantSettings
    made: bool


@dataclass(frozen=True, slots=True)
class Organisation:
    """An organisation and when it was made."""

    name: str
    created: datetime


class TenantRegistry:
    """The tables of organisations and tenants' settings. ``erasable`` are the tables whose rows end with their tenant.

    ``leaving`` is called before they do, inside the transaction.
    """

    def __init__(
        self, database: Database, sealer: Sealer, erasable: tuple[str, ...], leaving: Callable[[Transaction, str], None]
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._leaving = leaving
        self._erasable = tuple(table for table in erasable if table not in _KEPT)

    def find(self, tenant: str) -> StoredTenant | None:
        """The tenant if it exists, made or implicit."""
        rows = self._database.read(
            "SELECT s.gone, s.version, s.sealed, (SELECT count(*) FROM organisations)"
            " FROM (SELECT 1 AS one) o LEFT JOIN tenant_settings s ON s.tenant = ?",
            (tenant,),
        )
        gone, version, sealed, organisations = rows[0]
        if version is None:
            known = not organisations or tenant == BROKER
            return StoredTenant(tenant, IMPLICIT, made=False) if known else None
        return None if gone else StoredTenant(tenant, self._open(tenant, version, sealed), made=True)

    def settings(self, transaction: Transaction, tenant: str) -> TenantSettings:
        """What is set about a tenant, inside a transaction that changes its things."""
        row = transaction.execute("SELECT version, sealed FROM tenant_settings WHERE tenant=?", (tenant,)).fetchone()
        return self._open(tenant, *row) if row else IMPLICIT

    def tenants(self) -> list[StoredTenant]:
        """All that exist and that anything was ever set for, by name."""
        names = self._database.read("SELECT tenant FROM tenant_settings UNION SELECT name FROM tenants ORDER BY 1")
        found = (self.find(str(name)) for (name,) in names if name != BROKER)
        return [one for one in found if one is not None]

    def make(self, tenant: str, settings: TenantSettings) -> StoredTenant:
        """Make a tenant, or take over an implicit one; ``Conflict`` if it was made before, ``NotFound`` organisation."""
        tenants.check(tenant)
        if tenant in RESERVED:
            raise MalformedRequest(
                "this name is reserved", code="name_reserved", field="tenant", expected="another name", got=tenant
            )
        with self._database.write() as transaction:
            row = transaction.execute("SELECT gone FROM tenant_settings WHERE tenant=?", (tenant,)).fetchone()
            if row is not None:
                raise Conflict(
                    "a tenant of this name was deleted, and its log is kept: names are not given twice"
                    if row[0]
                    else "there is a tenant of this name",
                    code="tenant_retired" if row[0] else "tenant_exists",
                    field="tenant",
                    got=tenant,
                )
            self._check_organisation(transaction, settings.organisation)
            self._write(transaction, tenant, settings)
        return StoredTenant(tenant, settings, made=True)

    def change(self, tenant: str, edit: Callable[[Transaction, TenantSettings], TenantSettings]) -> StoredTenant:
        """Change what is set, durable and in force on return. An implicit tenant gets settings of its own by it."""
        tenants.check(tenant)
        with self._database.write() as transaction:
            tenants.must_exist(transaction, tenant)
            settings = edit(transaction, self.settings(transaction, tenant))
            self._check_organisation(transaction, settings.organisation)
            self._write(transaction, tenant, settings)
        return StoredTenant(tenant, settings, made=True)

    def delete(self, tenant: str) -> int:
        """Delete everything that is the tenant's but its log; how many rows went. The name stays taken.

        With its wrapped data keys gone, neither the root key nor this store opens what copies of its values there may be.
        Their bytes go with ``finish_erasure``, which is called next, and later once more if it fails or somebody dies.
        """
        with self._database.write(EVERYTHING, CLAIMS) as transaction:
            row = transaction.execute("SELECT gone FROM tenant_settings WHERE tenant=?", (tenant,)).fetchone()
            known = row or transaction.execute("SELECT 1 FROM tenants WHERE name=?", (tenant,)).fetchone()
            if known is None or (row is not None and row[0]):  # a name that was mistyped is not taken for ever
                raise absent()
            gone = 0
            settings = self.settings(transaction, tenant)
            self._leaving(transaction, tenant)
            for table in self._erasable:
                gone += transaction.execute(f'DELETE FROM "{table}" WHERE tenant=?', (tenant,)).rowcount  # noqa: S608 -- ours
            self._write(transaction, tenant, TenantSettings(organisation=settings.organisation), gone=True)
            tenants.touch(transaction, tenant, references=True, existing=False)
            transaction.execute(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value=excluded.value",
                (_ERASING, os.urandom(8)),
            )
        self._database.deeds.afterwards(lambda: self._sealer.forget(tenant))
        return gone

    def finish_erasure(self) -> bool:
        """Overwrite what deleted tenants had, if that is still to be done; false if somebody is in the way yet."""
        pending = self._database.read("SELECT value FROM meta WHERE name=?", (_ERASING,))
        if not pending:
            return True
        try:
            self._database.purge(keys=True)
        except Unavailable as error:
            _LOG.warning(
                "a tenant was deleted, and its bytes are not overwritten yet: %s [%s]", error.message, error.code
            )
            return False
        with self._database.write(apart=True) as transaction:  # unless another one was deleted meanwhile
            transaction.execute("DELETE FROM meta WHERE name=? AND value=?", (_ERASING, bytes(pending[0][0])))
        return True

    def used(self, tenant: str) -> dict[str, int]:
        """How much there is of what quotas limit."""
        (row,) = self._database.read(
            _USED,
            (tenant,) * 5,
        )
        names = ("resources", "bytes", "policies", "references", "keys")
        return {name: int(count) for name, count in zip(names, row, strict=True)}

    def organisations(self) -> list[Organisation]:
        """All of them by name."""
        rows = self._database.read("SELECT name, created FROM organisations ORDER BY name")
        return [Organisation(name, datetime.fromtimestamp(created, UTC)) for name, created in rows]

    def make_organisation(self, name: str, now: datetime) -> Organisation:
        """Make one; ``Conflict`` if it exists. With the first one, tenants that exist are written down."""
        tenants.check(name)
        if name in RESERVED:
            raise MalformedRequest("this name is reserved", code="name_reserved", field="organisation", got=name)
        with self._database.write() as transaction:
            if transaction.execute("SELECT 1 FROM organisations WHERE name=?", (name,)).fetchone():
                raise Conflict("there is an organisation of this name", code="organisation_exists", got=name)
            (count,) = transaction.execute("SELECT count(*) FROM organisations").fetchone()
            if not count:
                used = [row[0] for row in transaction.execute("SELECT name FROM tenants").fetchall()]
                for tenant in {tenants.DEFAULT, *used} - {BROKER}:
                    known = transaction.execute("SELECT 1 FROM tenant_settings WHERE tenant=?", (tenant,)).fetchone()
                    if not known:
                        self._write(transaction, tenant, IMPLICIT)
            transaction.execute("INSERT INTO organisations VALUES (?,?)", (name, now.timestamp()))
        return Organisation(name, now)

    def delete_organisation(self, name: str) -> None:
        """Delete one that has no tenants, with its people; ``Conflict`` if it has tenants, ``NotFound``."""
        with self._database.write() as transaction:
            if transaction.execute("SELECT 1 FROM tenant_settings WHERE organisation=? AND gone=0", (name,)).fetchone():
                raise Conflict("the organisation has tenants", code="organisation_in_use", got=name)
            for table in ("people", "credentials", "identity_providers"):
                transaction.execute(f"DELETE FROM {table} WHERE organisation=?", (name,))  # noqa: S608 -- ours
            if not transaction.execute("DELETE FROM organisations WHERE name=?", (name,)).rowcount:
                raise NotFound("there is no such organisation", code="organisation_absent", got=name[:80])

    def _check_organisation(self, transaction: Transaction, name: str) -> None:
        if name and not transaction.execute("SELECT 1 FROM organisations WHERE name=?", (name,)).fetchone():
            raise NotFound("there is no such organisation", code="organisation_absent", got=name[:80])

    def _write(self, transaction: Transaction, tenant: str, settings: TenantSettings, *, gone: bool = False) -> None:
        version = tenants.touch(transaction, tenant, policies=True, existing=False)
        what = (msgspec.json.encode(settings), tenant, KIND, str(int(gone)), version)
        sealed = self._sealer.seal(*what) if gone else self._sealer.seal_for(transaction, *what)
        transaction.execute(
            "INSERT INTO tenant_settings VALUES (?,?,?,?,?) ON CONFLICT (tenant) DO UPDATE SET"
            " organisation=excluded.organisation, gone=excluded.gone, version=excluded.version, sealed=excluded.sealed",
            (tenant, settings.organisation, int(gone), version, sealed),
        )

    def _open(self, tenant: str, version: int, sealed: bytes) -> TenantSettings:
        return msgspec.json.decode(self._sealer.open(sealed, tenant, KIND, "0", version), type=TenantSettings)
