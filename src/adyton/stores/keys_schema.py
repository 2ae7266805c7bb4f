"""The table of key material.

One row a version that is not destroyed: ``sealed`` is under a data key of its own, ``data_key`` that key, sealed under
the store's. To destroy a version is to delete the row where deleting overwrites (``Database.purge``).
"""

STATEMENTS = (
    """
CREATE TABLE key_versions (
    tenant TEXT NOT NULL,
    path TEXT NOT NULL,
    serial INTEGER NOT NULL,
    data_key BLOB NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (tenant, path, serial)
) WITHOUT ROWID, STRICT
""",
)
