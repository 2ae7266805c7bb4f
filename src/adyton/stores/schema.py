"""The tables of a broker's store. Every row that belongs to somebody carries its tenant, from this first version on.

``application_id`` tells our files from other SQLite files, ``user_version`` is the version of this schema. A file of a
newer version is refused: an older program must not write what it does not understand.
"""

from __future__ import annotations

from adyton.stores import (
    authorities,
    erasures,
    intents,
    key_uses,
    keys_schema,
    people_schema,
    policy_schema,
    reference_schema,
    removals,
    resources,
    revoked,
    seal,
)
from adyton.stores.custody import slots

APPLICATION_ID = 0x41645974  # "AdYt"
VERSION = 4

TABLES = """
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID, STRICT;

-- Data keys, wrapped under the root key. The newest seals; all of them open.
CREATE TABLE data_keys (
    id INTEGER PRIMARY KEY,
    wrapped BLOB NOT NULL,
    created REAL NOT NULL
) STRICT;

-- changes grows with every write and numbers versions; generation with policies and reference values, which results of
-- appraisal depend on; reference_generation with reference values only.
CREATE TABLE tenants (
    name TEXT PRIMARY KEY,
    changes INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    reference_generation INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE resources (
    tenant TEXT NOT NULL,
    path TEXT NOT NULL,
    version INTEGER NOT NULL,
    updated REAL NOT NULL,
    size INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (tenant, path)
) STRICT;

CREATE TABLE policies (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    updated REAL NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (tenant, kind, name)
) WITHOUT ROWID, STRICT;

-- body is the row as JSON, leaf its hash in the tenant's Merkle tree; leaf comes first, so that reading it reads no
-- overflow pages. audit_nodes are the stored nodes of that tree: stores/audit_tree.py. Rows are added, never changed.
CREATE TABLE audit (
    tenant TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    time REAL NOT NULL,
    leaf BLOB NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (tenant, sequence)
) WITHOUT ROWID, STRICT;

CREATE TABLE audit_nodes (
    tenant TEXT NOT NULL,
    level INTEGER NOT NULL,
    number INTEGER NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (tenant, level, number)
) WITHOUT ROWID, STRICT;

-- Signed checkpoints of the logs, as they were made.
CREATE TABLE checkpoints (
    tenant TEXT NOT NULL,
    size INTEGER NOT NULL,
    time REAL NOT NULL,
    note TEXT NOT NULL,
    PRIMARY KEY (tenant, size)
) WITHOUT ROWID, STRICT;

-- Claims that are too large for a cookie, by digest, until they expire.
CREATE TABLE claims (
    tenant TEXT NOT NULL,
    digest BLOB NOT NULL,
    expires REAL NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (tenant, digest)
) WITHOUT ROWID, STRICT;

-- What the broker itself keeps, such as its token-signing key. An empty tenant means the whole broker.
CREATE TABLE secrets (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (tenant, name)
) WITHOUT ROWID, STRICT
"""
APPEND_ONLY = tuple(
    f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table}"
    f" BEGIN SELECT RAISE(ABORT, 'the record of decisions is append-only'); END"
    for table in ("audit", "audit_nodes", "checkpoints")
    for change in ("UPDATE", "DELETE")
)
"""Against accidents and careless tools. Whoever may write the file can drop them: then the tree tells."""
# One by one, because sqlite3's executescript would commit the transaction that makes them all or none.
_MADE = tuple(
    "\n".join(line for line in statement.splitlines() if not line.startswith("--"))
    for statement in TABLES.split(";\n\n")
)
FOURTH: tuple[str, ...] = (
    *policy_schema.STATEMENTS,
    *slots.STATEMENTS,
    *keys_schema.STATEMENTS,
    *key_uses.STATEMENTS,
    *authorities.STATEMENTS,
    *revoked.STATEMENTS,
    *people_schema.STATEMENTS,
    *removals.STATEMENTS,
    *intents.STATEMENTS,
    *erasures.STATEMENTS,
    *resources.STATEMENTS,
    *seal.STATEMENTS,
)
"""What came with version 4: each part's tables stand beside what reads and writes them."""
STATEMENTS = (*_MADE, *reference_schema.STATEMENTS, *FOURTH, *APPEND_ONLY)


def statement(table: str) -> str:
    """The one that makes ``table``, for a migration."""
    return next(made for made in _MADE if made.strip().startswith(f"CREATE TABLE {table} ("))


def tables_of_tenants() -> tuple[str, ...]:
    """The names of all tables whose rows are some tenant's."""
    made = (text.strip() for text in STATEMENTS)
    named = (text.removeprefix("CREATE TABLE ").partition("(") for text in made if text.startswith("CREATE TABLE "))
    return tuple(name.strip().strip('"') for name, _, columns in named if columns.strip().startswith("tenant "))
