"""The tables of a broker's store. Every row that belongs to somebody carries its tenant, from this first version on.

``application_id`` tells our files from other SQLite files, ``user_version`` is the version of this schema. A file of a
newer version is refused: an older program must not write what it does not understand.
"""

from __future__ import annotations

APPLICATION_ID = 0x41645974  # "AdYt"
VERSION = 1

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

CREATE TABLE "references" (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    updated REAL NOT NULL,
    expires REAL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (tenant, name)
) WITHOUT ROWID, STRICT;

-- body is the row as JSON and holds the digest of the row before it; digest = SHA-256(body): stores/audit.py.
CREATE TABLE audit (
    tenant TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    time REAL NOT NULL,
    body BLOB NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (tenant, sequence)
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
# One by one, because sqlite3's executescript would commit the transaction that makes them all or none.
STATEMENTS = tuple(
    "\n".join(line for line in statement.splitlines() if not line.startswith("--"))
    for statement in TABLES.split(";\n\n")
)
