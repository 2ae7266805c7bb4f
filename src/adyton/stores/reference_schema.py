"""The tables of reference values and their providers, and how an older store gets them.

``candidate`` is 0 for the value in force and 1 for the one that waits beside it. ``not_before``, ``expires``, ``state``,
``provider`` and ``proof`` stand here for people and queries; what decides is in ``sealed`` (``stores/reference_rows.py``).
"""

from __future__ import annotations

from adyton.stores.sql import Transaction

REFERENCES = """
CREATE TABLE "references" (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    candidate INTEGER NOT NULL,
    version INTEGER NOT NULL,
    updated REAL NOT NULL,
    not_before REAL,
    expires REAL,
    state TEXT NOT NULL,
    provider TEXT NOT NULL,
    proof BLOB NOT NULL,
    form INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (tenant, name, candidate)
) WITHOUT ROWID, STRICT
"""
PUBLISHED = """
CREATE TABLE published (
    tenant TEXT NOT NULL,
    provider TEXT NOT NULL,
    name TEXT NOT NULL,
    series TEXT NOT NULL,
    issue INTEGER NOT NULL,
    proof BLOB NOT NULL,
    first REAL NOT NULL,
    PRIMARY KEY (tenant, provider, name, proof)
) WITHOUT ROWID, STRICT
"""
PROVIDERS = """
CREATE TABLE providers (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    updated REAL NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (tenant, name)
) WITHOUT ROWID, STRICT
"""
STATEMENTS = (REFERENCES, PUBLISHED, PROVIDERS)


def migrate(transaction: Transaction) -> None:
    """2 to 3: what was set so far was set by hand and is stable. The sealed bytes stay as they are, in form 1."""
    transaction.execute('ALTER TABLE "references" RENAME TO references_2')
    for statement in STATEMENTS:
        transaction.execute(statement)
    transaction.execute(
        'INSERT INTO "references" SELECT tenant, name, 0, version, updated, NULL, expires,'
        " 'stable', '', x'', 1, sealed FROM references_2"
    )
    transaction.execute("DROP TABLE references_2")
