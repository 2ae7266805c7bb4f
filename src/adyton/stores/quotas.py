"""How much a tenant may have, checked in the transaction that adds to it: several workers cannot pass it together."""

from __future__ import annotations

import msgspec

from adyton.errors import TooMany
from adyton.stores import policy_schema
from adyton.stores.seal import Sealer
from adyton.stores.sql import Transaction
from adyton.stores.tenant_settings import KIND, TenantSettings

_COUNTS = {
    "resources": "SELECT count(*) FROM resources WHERE tenant=?",
    "bytes": "SELECT coalesce(sum(size), 0) FROM resources WHERE tenant=?",
    "policies": policy_schema.COUNT,
    "references": 'SELECT count(*) FROM "references" WHERE tenant=?',
    "keys": "SELECT count(DISTINCT path) FROM key_versions WHERE tenant=?",
}


def count(transaction: Transaction, tenant: str, name: str) -> int:
    """How much there is of what this quota limits; of keys, those that are not destroyed."""
    return int(transaction.execute(_COUNTS[name], (tenant,)).fetchone()[0])


def check(transaction: Transaction, sealer: Sealer, tenant: str, *names: str) -> None:
    """``TooMany`` ``quota_exceeded`` if what the transaction has written is more than a quota; then nothing is kept."""
    for name, allowed in limits(transaction, sealer, tenant).items():
        if name in names and count(transaction, tenant, name) > allowed:
            raise exceeded(name, allowed)


def limits(transaction: Transaction, sealer: Sealer, tenant: str) -> dict[str, int]:
    """The tenant's quotas by name; what is absent has no limit."""
    row = transaction.execute("SELECT version, sealed FROM tenant_settings WHERE tenant=?", (tenant,)).fetchone()
    if row is None:
        return {}
    settings = msgspec.json.decode(sealer.open(row[1], tenant, KIND, "0", row[0]), type=TenantSettings)
    return dict(settings.quotas)


def exceeded(name: str, allowed: int) -> TooMany:
    """The quota is used up."""
    return TooMany(
        f"the tenant's quota of {name} is {allowed}",
        code="quota_exceeded",
        retry_after=3600,
        hint="delete something, or ask the broker's operator: adyton tenant quota",
    )
