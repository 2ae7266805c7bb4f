"""Bringing a store of an older schema up to date: all of it in one transaction, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from adyton.crypto import merkle
from adyton.errors import LogBroken
from adyton.stores import policy_schema, reference_schema, schema
from adyton.stores.audit_tree import complete
from adyton.stores.sql import Transaction

_PAGE = 1000


def bring_up(transaction: Transaction, version: int) -> None:
    """From ``version`` to the present one, step by step."""
    for step in range(version, schema.VERSION):
        _STEPS[step](transaction)


def _merkle_trees(transaction: Transaction) -> None:
    """1 to 2: rows that were chained by digest get a tree. Their bytes stay, and in them the chain, checked as before."""
    transaction.execute("ALTER TABLE audit RENAME TO audit_1")
    for table in ("audit", "audit_nodes", "checkpoints"):
        transaction.execute(schema.statement(table))
    sizes: dict[str, int] = {}
    rows = transaction.execute("SELECT tenant, sequence, time, body FROM audit_1 ORDER BY tenant, sequence")
    while page := rows.fetchmany(_PAGE):
        for tenant, sequence, *_ in page:
            if sequence != sizes.get(tenant, 0) + 1:
                raise _unfit(tenant, sizes.get(tenant, 0) + 1, sequence)
            sizes[tenant] = sequence
        transaction.executemany(
            "INSERT INTO audit VALUES (?,?,?,?,?)",
            [(tenant, sequence, time, merkle.leaf_hash(body), body) for tenant, sequence, time, body in page],
        )
    for tenant, size in sizes.items():
        complete(transaction, tenant, 0, size)
    transaction.execute("DROP TABLE audit_1")
    for trigger in schema.APPEND_ONLY:
        transaction.execute(trigger)


def _fourth(transaction: Transaction) -> None:
    """3 to 4: what is new has no rows yet, but for the versions of policies."""
    for statement in schema.FOURTH:
        transaction.execute(statement)
    policy_schema.take_over(transaction)


def _unfit(tenant: str, number: int, got: int) -> LogBroken:
    return LogBroken(
        f"the audit log of the older store lacks row {number}: it cannot be taken over",
        code="row_missing",
        field=f"row {number} of {tenant}",
        expected=number,
        got=got,
        hint="the store was left as it was: keep it as evidence, and restore the last backup",
    )


_STEPS: Mapping[int, Callable[[Transaction], None]] = {
    1: _merkle_trees,
    2: reference_schema.migrate,
    3: _fourth,
}
