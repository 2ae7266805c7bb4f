"""Who owns rows, and the counters that make "acknowledged" mean "decided".

Every change of what an appraisal depends on (policies, reference values) grows its tenant's ``generation`` in the same
transaction. A worker reads the generation for each decision, one read of a few microseconds, and remembers nothing
beyond it; resources are read for each release and never remembered. So once a change is acknowledged, no worker decides
by the old state (contracts, 4).
"""

from __future__ import annotations

import re

from adyton.errors import MalformedRequest
from adyton.stores.sql import Transaction

DEFAULT = "default"
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


def touch(transaction: Transaction, tenant: str, *, policies: bool = False, references: bool = False) -> int:
    """Count a change inside ``transaction``; returns a number that this tenant never had before.

    The tenant comes into being on first use.
    """
    row = transaction.execute(_TOUCH, (tenant, int(policies or references), int(references))).fetchone()
    return int(row[0])


def touch_all(transaction: Transaction) -> None:
    """Count a change of what every tenant's appraisals depend on."""
    transaction.execute("UPDATE tenants SET changes = changes + 1, generation = generation + 1")
