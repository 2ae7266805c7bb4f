"""The tables of organisations, tenants' settings, people, and what waits for their approval.

What decides over rights is sealed: whoever may write the file and lacks the root key makes nobody an owner. An empty
organisation is the broker itself.
"""

from __future__ import annotations

STATEMENTS = (
    """CREATE TABLE organisations (
    name TEXT PRIMARY KEY,
    created REAL NOT NULL
) WITHOUT ROWID, STRICT""",
    # gone: everything that was the tenant's is deleted but its log; the name is never given again.
    """CREATE TABLE tenant_settings (
    tenant TEXT PRIMARY KEY,
    organisation TEXT NOT NULL,
    gone INTEGER NOT NULL,
    version INTEGER NOT NULL,
    sealed BLOB NOT NULL
) WITHOUT ROWID, STRICT""",
    """CREATE TABLE people (
    organisation TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (organisation, name)
) WITHOUT ROWID, STRICT""",
    # id: a key's thumbprint, a token's id, or provider and subject; sealed holds the digest of a token's secret.
    """CREATE TABLE credentials (
    organisation TEXT NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    person TEXT NOT NULL,
    version INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (organisation, kind, id)
) WITHOUT ROWID, STRICT""",
    """CREATE TABLE identity_providers (
    organisation TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (organisation, name)
) WITHOUT ROWID, STRICT""",
    """CREATE TABLE proposals (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    created REAL NOT NULL,
    state TEXT NOT NULL,
    version INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID, STRICT""",
    # voter: whom the vote counts for; sealed says who gave it.
    """CREATE TABLE votes (
    tenant TEXT NOT NULL,
    proposal TEXT NOT NULL,
    voter TEXT NOT NULL,
    version INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (tenant, proposal, voter)
) WITHOUT ROWID, STRICT""",
)
