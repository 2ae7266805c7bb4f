"""The tables of policies' versions, and how a store of schema 3 gets them.

``policies`` (``stores/schema.py``) holds what decides, one row for each policy in force. What stands here never decides:
versions as they were set, which of them was in force when, dry runs, and what is about to be activated. A version's
bytes are sealed as a version, an active policy's as a policy: moving a row on the disk activates nothing.
"""

from __future__ import annotations

from adyton.stores.sql import Transaction

COUNT = (
    "SELECT count(*) FROM policy_heads h LEFT JOIN policies p ON p.tenant=h.tenant AND p.kind=h.kind AND p.name=h.name"
    " WHERE h.tenant=? AND (p.name IS NOT NULL OR h.top=0)"
)
"""How many a tenant has: those in force, and candidates that never were, which take room too. Not what was deleted."""
# newest is the last version's number, top the number of the last activation; 0 for none. Deleted policies stay here.
HEADS = """
CREATE TABLE policy_heads (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    newest INTEGER NOT NULL,
    top INTEGER NOT NULL,
    PRIMARY KEY (tenant, kind, name)
) WITHOUT ROWID, STRICT
"""
# form 0 was taken over from a store that knew no versions: sealed as the policy that it was, text only.
VERSIONS = """
CREATE TABLE policy_versions (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    created REAL NOT NULL,
    pinned INTEGER NOT NULL,
    form INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (tenant, kind, name, version)
) STRICT
"""
# version 0: the policy was deleted. below is the number of the activation that this one lies on: what a rollback uncovers.
ACTIVATIONS = """
CREATE TABLE policy_activations (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    number INTEGER NOT NULL,
    version INTEGER NOT NULL,
    below INTEGER NOT NULL,
    time REAL NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    PRIMARY KEY (tenant, kind, name, number)
) WITHOUT ROWID, STRICT
"""
DRY_RUNS = """
CREATE TABLE policy_dry_runs (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    since REAL NOT NULL,
    actor TEXT NOT NULL,
    same INTEGER NOT NULL,
    differ INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    PRIMARY KEY (tenant, kind, name)
) WITHOUT ROWID, STRICT
"""
# What workers compile ahead: an activation announces itself here before it counts.
STAGED = """
CREATE TABLE policy_staged (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    time REAL NOT NULL,
    PRIMARY KEY (tenant, kind, name)
) WITHOUT ROWID, STRICT
"""
RECORDINGS = """
CREATE TABLE recordings (
    tenant TEXT NOT NULL,
    number INTEGER NOT NULL,
    time REAL NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (tenant, number)
) STRICT
"""
STATEMENTS = (HEADS, VERSIONS, ACTIVATIONS, DRY_RUNS, STAGED, RECORDINGS)


def take_over(transaction: Transaction) -> None:
    """3 to 4, after the tables were made: what is in force becomes a version, activated when it was set."""
    transaction.execute(
        "INSERT INTO policy_heads SELECT tenant, kind, name, version, 1 FROM policies",
    )
    transaction.execute(
        "INSERT INTO policy_versions SELECT tenant, kind, name, version, updated, 0, 0, sealed FROM policies",
    )
    transaction.execute(
        "INSERT INTO policy_activations SELECT tenant, kind, name, 1, version, 0, updated, '', 'activate' FROM policies",
    )
