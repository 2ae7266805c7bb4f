"""How often each version of an AES key has encrypted: never more than its random nonces allow (NIST SP 800-38D, 8.3).

A worker takes uses in blocks, each one durable write, and counts within a block in memory. So the number that is stored is
never less than what was done; a worker that dies loses what is left of its blocks, at most ``MOST`` uses a version.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from adyton.errors import Conflict
from adyton.protocol.key_record import KeyVersion
from adyton.protocol.resource import ResourcePath
from adyton.stores.sql import Database, Transaction

BOUND = 1 << 32
"""Invocations under one key with 96-bit random nonces, over all workers and brokers."""
FIRST, MOST = 1 << 10, 1 << 16
"""Uses in a version's first block in a worker, and in a later one: what is used a lot asks seldom."""
LATE = 3 / 4
"""Part of the bound from which on blocks are counted as late."""
COUNTED = frozenset({"aes-128", "aes-192", "aes-256"})
MAKES = frozenset({"encrypt", "wrap", "datakey", "rewrap"})
MAX_HELD = 16_384
STATEMENTS = (
    """CREATE TABLE key_uses (
    tenant TEXT NOT NULL,
    path TEXT NOT NULL,
    serial INTEGER NOT NULL,
    uses INTEGER NOT NULL,
    PRIMARY KEY (tenant, path, serial)
) WITHOUT ROWID, STRICT""",
)
_ONE = "tenant=? AND path=? AND serial=?"


@dataclass(slots=True)
class _Block:
    left: int
    size: int


class KeyUses:
    """The table, and this worker's blocks. Of any thread."""

    def __init__(self, database: Database, bound: int = BOUND) -> None:
        self._database = database
        self._bound = bound
        self._blocks: dict[tuple[str, str, int], _Block] = {}
        self._lock = threading.Lock()
        self._taking = threading.Lock()
        self.counters = {"key_uses_reserved": 0, "key_uses_late_blocks": 0, "key_uses_refused": 0}

    def spend(self, tenant: str, path: ResourcePath, version: KeyVersion) -> None:
        """Count one use before it is made; ``Conflict`` ``key_version_exhausted`` if there is none left."""
        key = (tenant, str(path), version.serial)
        if self._spent(key):
            return
        with self._taking:
            if self._spent(key):  # another thread has taken a block meanwhile
                return
            known = self._blocks.get(key)
            size = FIRST if known is None else min(known.size * 4, MOST)
            taken = self._take(key, size)
            if not taken:
                self.counters["key_uses_refused"] += 1
                raise Conflict(
                    f"version {version.number} of the key has encrypted as often as it may",
                    code="key_version_exhausted",
                    field="version",
                    expected=f"at most {self._bound} times: its nonces are random",
                    got=version.number,
                    spec="NIST SP 800-38D 8.3",
                    hint=f"adyton key rotate {path.uri}; what it encrypted still opens",
                )
            with self._lock:
                while len(self._blocks) >= MAX_HELD:
                    del self._blocks[next(iter(self._blocks))]
                self._blocks[key] = _Block(taken - 1, size)

    def of(
        self, tenant: str, first: ResourcePath | None = None, last: ResourcePath | None = None
    ) -> dict[tuple[str, int], int]:
        """Uses that were taken, by path and serial: of the key at ``first``, of all from there to ``last``, or of all."""
        part, given = ("", ()) if first is None else (" AND path>=? AND path<=?", (str(first), str(last or first)))
        rows = self._database.read(f"SELECT path, serial, uses FROM key_uses WHERE tenant=?{part}", (tenant, *given))  # noqa: S608 -- a constant
        return {(name, int(serial)): int(uses) for name, serial, uses in rows}

    def _spent(self, key: tuple[str, str, int]) -> bool:
        with self._lock:
            block = self._blocks.get(key)
            if block is None or not block.left:
                return False
            block.left -= 1
            return True

    def _take(self, key: tuple[str, str, int], size: int) -> int:
        with self._database.write(apart=True) as transaction:  # what is counted here is used, whatever comes of it
            row = transaction.execute(f"SELECT uses FROM key_uses WHERE {_ONE}", key).fetchone()  # noqa: S608 -- a constant
            if row is None:
                raise Conflict("the version of the key is destroyed", code="key_version_destroyed", field="version")
            before = int(row[0])
            taken = max(min(size, self._bound - before), 0)
            if taken:
                transaction.execute(f"UPDATE key_uses SET uses=uses+? WHERE {_ONE}", (taken, *key))  # noqa: S608 -- a constant
        self.counters["key_uses_reserved"] += taken
        self.counters["key_uses_late_blocks"] += bool(taken) and before + taken > self._bound * LATE
        return taken


def begin(transaction: Transaction, tenant: str, path: ResourcePath, serial: int, kind: str) -> None:
    """A new version has made nothing yet."""
    if kind in COUNTED:
        transaction.execute("INSERT INTO key_uses VALUES (?,?,?,0)", (tenant, str(path), serial))


def forget(transaction: Transaction, tenant: str, path: ResourcePath, serial: int | None = None) -> None:
    """A version, or all of a key, is destroyed."""
    if serial is None:
        transaction.execute("DELETE FROM key_uses WHERE tenant=? AND path=?", (tenant, str(path)))
    else:
        transaction.execute(f"DELETE FROM key_uses WHERE {_ONE}", (tenant, str(path), serial))  # noqa: S608 -- a constant
