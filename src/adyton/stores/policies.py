"""Policies by tenant, kind and id. Their text is sealed, so a policy changed on the disk does not open."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from adyton.errors import NotFound
from adyton.stores import tenants
from adyton.stores.seal import Sealer
from adyton.stores.sql import Database, Row

PolicyKind: TypeAlias = Literal["attestation", "resource", "requirements"]


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """A policy. ``digest`` is SHA-256 of its text in hex; ``version`` grows with every change."""

    kind: PolicyKind
    id: str
    text: str = field(repr=False)
    digest: str
    version: int
    updated: datetime


class Policies:
    """The table of policies. It stores what it is given: whether a text is acceptable is the broker's business."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    def set(self, tenant: str, kind: PolicyKind, policy_id: str, text: str, now: datetime) -> StoredPolicy:
        """Set or replace, durable on return: no decision follows the old text from then on."""
        tenants.check(tenant)
        with self._database.write() as transaction:
            version = tenants.touch(transaction, tenant, policies=True)
            sealed = self._sealer.seal(text.encode(), tenant, f"policy {kind}", policy_id, version)
            transaction.execute(
                "INSERT OR REPLACE INTO policies VALUES (?,?,?,?,?,?)",
                (tenant, kind, policy_id, version, now.timestamp(), sealed),
            )
        return StoredPolicy(kind, policy_id, text, _digest(text), version, now)

    def get(self, tenant: str, kind: PolicyKind, policy_id: str) -> StoredPolicy | None:
        """The policy, or ``None``: then a built-in one may apply."""
        rows = self._database.read(
            "SELECT name, version, updated, sealed FROM policies WHERE tenant=? AND kind=? AND name=?",
            (tenant, kind, policy_id),
        )
        return self._open(tenant, kind, rows[0]) if rows else None

    def list(self, tenant: str, kind: PolicyKind) -> list[StoredPolicy]:
        """All of a tenant's policies of one kind, by id."""
        return [
            self._open(tenant, kind, row)
            for row in self._database.read(
                "SELECT name, version, updated, sealed FROM policies WHERE tenant=? AND kind=? ORDER BY name",
                (tenant, kind),
            )
        ]

    def delete(self, tenant: str, kind: PolicyKind, policy_id: str) -> None:
        """Forget it, durable on return; ``NotFound`` if there is none."""
        with self._database.write() as transaction:
            done = transaction.execute(
                "DELETE FROM policies WHERE tenant=? AND kind=? AND name=?", (tenant, kind, policy_id)
            )
            if not done.rowcount:
                raise NotFound(f"there is no {kind} policy {policy_id!r}", code="policy_absent", field="policy_id")
            tenants.touch(transaction, tenant, policies=True)

    def _open(self, tenant: str, kind: PolicyKind, row: Row) -> StoredPolicy:
        policy_id, version, updated, sealed = row
        text = self._sealer.open(sealed, tenant, f"policy {kind}", policy_id, version).decode()
        return StoredPolicy(kind, policy_id, text, _digest(text), version, datetime.fromtimestamp(updated, UTC))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
