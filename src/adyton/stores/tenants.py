"""Who owns rows, and the counters that make "acknowledged" mean "decided".

Every change of what an appraisal depends on (policies, reference values) grows its tenant's ``generation`` in the same
transaction. A worker asks for the generation for each decision, and remembers nothing beyond it: one read of the store, or
where several workers share one, of the memory in which each tells that it changes something (``stores.changes``).
Resources are read for each release and never remembered. So once a change is acknowledged, no worker decides
by the old state (contracts, 4).
"""

from __future__ import annotations

import re

from adyton.errors import MalformedRequest, NotFound
from adyton.stores.sql import Transaction

DEFAULT = "default"
BROKER = "broker"
"""The reserved tenant: it has no things, and its log holds what concerns the broker as a whole."""
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_TOUCH = (
    "INSERT INTO tenants VALUES (?, 1, ?, ?) ON CONFLICT (name) DO UPDATE SET changes = tenants.changes + 1,"
    " generation = tenants.generation + excluded.generation,"
    " reference_generation = tenants.reference_generation + excluded.reference_generation RETURNING changes"
)


def check(tenant: str) -> str:
    """``tenant`` itself if it is a name: 1 to 63 of ``a-z 0-9 -``, not at the ends; else ``MalformedRequest``."""
    if not _NAME.match(tenant):
        raise MalformedRequest(
            "a tenant's name has 1 to 63 lower-case letters, digits and inner hyphens",
            code="tenant_invalid",
            field="tenant",
            got=tenant[:80],
        )
    return tenant


_FOUND = (
    "SELECT s.gone, (SELECT count(*) FROM organisations) FROM (SELECT 1 AS one) o"
    " LEFT JOIN tenant_settings s ON s.tenant = ?"
)


def must_exist(transaction: Transaction, tenant: str) -> None:
    """``NotFound`` unless the tenant exists, made or implicit, at this moment: it may have been deleted since it was asked for.

    Whatever writes a tenant's row looks here or calls ``touch``, in the transaction that writes.
    """
    gone, organisations = transaction.execute(_FOUND, (tenant,)).fetchone()
    if gone or (gone is None and organisations and tenant != BROKER):
        raise absent()


def absent() -> NotFound:
    """The tenant does not exist."""
    return NotFound("there is no such tenant", code="tenant_absent", field="tenant")


def touch(
    transaction: Transaction, tenant: str, *, policies: bool = False, references: bool = False, existing: bool = True
) -> int:
    """Count a change inside ``transaction``; returns a number that this tenant never had before.

    An implicit tenant comes into being on first use; ``NotFound`` for one that does not exist. ``existing`` false: for
    the transaction that makes or deletes it.
    """
    if existing:
        must_exist(transaction, tenant)
    row = transaction.execute(_TOUCH, (tenant, int(policies or references), int(references))).fetchone()
    return int(row[0])


def touch_all(transaction: Transaction) -> None:
    """Count a change of what every tenant's appraisals depend on."""
    transaction.execute("UPDATE tenants SET changes = changes + 1, generation = generation + 1")
