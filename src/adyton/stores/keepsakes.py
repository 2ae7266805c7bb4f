"""What the broker keeps for itself: its own secrets, and claims that are too large for a cookie."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime

from adyton.stores import tenants
from adyton.stores.seal import Sealer
from adyton.stores.sql import CLAIMS, Database, Transaction

_KIND = "secret"
_REPLACE = (
    "INSERT INTO secrets VALUES (?,?,?,?) ON CONFLICT (tenant, name) DO UPDATE SET"
    " version=excluded.version, sealed=excluded.sealed"
)


class Secrets:
    """Named secrets of the broker (such as its token-signing key), sealed. ``tenant`` ``""`` is the whole broker."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    def get(self, name: str, tenant: str = "") -> bytes | None:
        """The secret, or ``None``."""
        rows = self._database.read("SELECT version, sealed FROM secrets WHERE tenant=? AND name=?", (tenant, name))
        return self._sealer.open(rows[0][1], tenant, _KIND, name, rows[0][0]) if rows else None

    def get_or_create(self, name: str, make: Callable[[], bytes], tenant: str = "") -> bytes:
        """The secret; if there is none, what ``make`` gives. Of several workers that ask at once, all get the same."""
        found = self.get(name, tenant)
        if found is not None:
            return found
        value = make()
        with self._database.write(apart=True) as transaction:
            _check(transaction, tenant)
            sealed = self._sealer.seal_for(transaction, value, tenant, _KIND, name, 1)
            transaction.execute(
                "INSERT INTO secrets VALUES (?,?,1,?) ON CONFLICT (tenant, name) DO NOTHING", (tenant, name, sealed)
            )
            version, kept = transaction.execute(
                "SELECT version, sealed FROM secrets WHERE tenant=? AND name=?", (tenant, name)
            ).fetchone()
        return self._sealer.open(kept, tenant, _KIND, name, version)

    def set(self, name: str, value: bytes, tenant: str = "") -> None:
        """Set or replace, durable on return."""
        self.change(name, lambda _: value, tenant)

    def change(self, name: str, turn: Callable[[bytes | None], bytes | None], tenant: str = "") -> bool:
        """Replace the secret by what ``turn`` makes of it, ``None`` to leave it; of several that ask, one at a time.

        Tells whether it was replaced: then it is durable.
        """
        with self._database.write() as transaction:
            _check(transaction, tenant)
            row = transaction.execute(
                "SELECT version, sealed FROM secrets WHERE tenant=? AND name=?", (tenant, name)
            ).fetchone()
            known = self._sealer.open(row[1], tenant, _KIND, name, row[0]) if row else None
            value = turn(known)
            if value is None:
                return False
            version = row[0] + 1 if row else 1
            sealed = self._sealer.seal_for(transaction, value, tenant, _KIND, name, version)
            transaction.execute(_REPLACE, (tenant, name, version, sealed))
        return True


def _check(transaction: Transaction, tenant: str) -> None:
    if tenant:
        tenants.must_exist(transaction, tenant)


class ClaimSets:
    """Large claim sets by digest, until they expire. A cookie holds the digest; every worker finds the rest here."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, tenant: str, body: bytes, expires: datetime, now: datetime) -> bytes:
        """Keep ``body`` until ``expires``; returns its SHA-256. What has expired goes on the way."""
        digest = hashlib.sha256(body).digest()
        with self._database.write(CLAIMS) as transaction:
            tenants.must_exist(transaction, tenant)
            transaction.execute("DELETE FROM claims WHERE tenant=? AND expires<=?", (tenant, now.timestamp()))
            transaction.execute(
                "INSERT INTO claims VALUES (?,?,?,?) ON CONFLICT (tenant, digest) DO UPDATE SET expires ="
                " CASE WHEN claims.expires < excluded.expires THEN excluded.expires ELSE claims.expires END",
                (tenant, digest, expires.timestamp(), body),
            )
        return digest

    def forget_expired(self, now: datetime) -> None:
        """Drop what has expired, also of tenants that nobody attests to any more."""
        if self._database.read("SELECT 1 FROM claims WHERE expires<=? LIMIT 1", (now.timestamp(),)):
            with self._database.write(CLAIMS) as transaction:
                transaction.execute("DELETE FROM claims WHERE expires<=?", (now.timestamp(),))

    def get(self, tenant: str, digest: bytes, now: datetime) -> bytes | None:
        """The claims behind ``digest``, or ``None`` if they have expired or are not what the digest says."""
        rows = self._database.read(
            "SELECT body FROM claims WHERE tenant=? AND digest=? AND expires>?", (tenant, digest, now.timestamp())
        )
        return bytes(rows[0][0]) if rows and hashlib.sha256(rows[0][0]).digest() == digest else None
