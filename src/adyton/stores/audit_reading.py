"""Reading the record of decisions back: rows, proofs, and whether all of it is still what was written."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from adyton.crypto import merkle
from adyton.crypto.merkle import Frontier
from adyton.errors import LogBroken, NotFound, Unavailable
from adyton.protocol import audit_check, audit_row
from adyton.protocol.audit_check import Reading
from adyton.protocol.audit_row import AuditEntry
from adyton.protocol.checkpoint import Checkpoint
from adyton.stores.audit_tree import WIDTH, Tree
from adyton.stores.sql import Database

PAGE = 500


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The end of a tenant's log: how many rows, and the root of the tree over them, in hex."""

    sequence: int
    root: str


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A signed checkpoint as it was made."""

    size: int
    time: datetime
    note: str


class AuditReading:
    """What can be asked about every tenant's log. Nothing here reads across tenants.

    ``ending``: set when the process is to end; whoever is in the middle of a long log then stops.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.ending = threading.Event()

    def body(self, tenant: str, sequence: int) -> bytes:
        """A row's bytes; ``NotFound`` ``row_absent``."""
        rows = self._database.read("SELECT body FROM audit WHERE tenant=? AND sequence=?", (tenant, sequence))
        if not rows:
            raise NotFound(f"there is no decision {sequence}", code="row_absent", field="sequence", got=sequence)
        return bytes(rows[0][0])

    def bodies(self, tenant: str, after: int, limit: int) -> list[bytes]:
        """The bytes of the rows that follow row ``after``, in order."""
        rows = self._database.read(
            "SELECT body FROM audit WHERE tenant=? AND sequence>? ORDER BY sequence LIMIT ?", (tenant, after, limit)
        )
        return [row[0] for row in rows]

    def size(self, tenant: str) -> int:
        """How many rows there are."""
        rows = self._database.read("SELECT max(sequence) FROM audit WHERE tenant=?", (tenant,))
        return int(rows[0][0] or 0)

    def root(self, tenant: str, size: int) -> bytes:
        """The root over the first ``size`` rows, from stored hashes."""
        return merkle.root(self._within(tenant, size), Tree(self._database, tenant))

    def frontier(self, tenant: str, size: int) -> Frontier:
        """The right edge of the tree over the first ``size`` rows, for whoever goes on from there."""
        return merkle.frontier(self._within(tenant, size), Tree(self._database, tenant))

    def inclusion(self, tenant: str, sequence: int, size: int) -> list[bytes]:
        """The path that proves a row to be among the first ``size``; ``NotFound`` if it is not."""
        if not 0 < sequence <= self._within(tenant, size):
            raise NotFound(
                f"there is no decision {sequence} among the first {size}",
                code="row_absent",
                field="sequence",
                expected=f"1 to {size}",
                got=sequence,
            )
        return merkle.inclusion(sequence - 1, size, Tree(self._database, tenant))

    def consistency(self, tenant: str, old: int, new: int) -> list[bytes]:
        """The path that proves the first ``new`` rows to begin with the first ``old``."""
        if not 0 <= old <= self._within(tenant, new):
            raise NotFound("the older log is not within the newer", code="size_absent", expected=f"0 to {new}", got=old)
        return merkle.consistency(old, new, Tree(self._database, tenant))

    def _within(self, tenant: str, size: int) -> int:
        held = self.size(tenant)
        if not 0 <= size <= held:
            raise NotFound(
                f"the log has no {size} rows",
                code="size_absent",
                field="size",
                expected=f"0 to {held}",
                got=size,
                hint="if a checkpoint says so, the log was cut: adyton audit verify",
            )
        return size

    def checkpoints(self, tenant: str, after: int = -1, limit: int = 1000) -> list[StoredCheckpoint]:
        """Signed checkpoints of more than ``after`` rows, the smallest first."""
        rows = self._database.read(
            "SELECT size, time, note FROM checkpoints WHERE tenant=? AND size>? ORDER BY size LIMIT ?",
            (tenant, after, limit),
        )
        return [StoredCheckpoint(size, datetime.fromtimestamp(at, UTC), note) for size, at, note in rows]

    def latest_checkpoint(self, tenant: str) -> StoredCheckpoint | None:
        """The largest, or ``None``."""
        rows = self._database.read(
            "SELECT size, time, note FROM checkpoints WHERE tenant=? ORDER BY size DESC LIMIT 1", (tenant,)
        )
        return StoredCheckpoint(rows[0][0], datetime.fromtimestamp(rows[0][1], UTC), rows[0][2]) if rows else None

    def keep_checkpoint(self, tenant: str, size: int, note: str, now: datetime) -> None:
        """Keep a signed checkpoint; the first of a size stays, and equals any other."""
        with self._database.write(f"checkpoints {tenant}", apart=True) as transaction:
            transaction.execute(
                "INSERT INTO checkpoints VALUES (?,?,?,?) ON CONFLICT (tenant, size) DO NOTHING",
                (tenant, size, now.timestamp(), note),
            )

    def tenants_with_rows(self) -> list[str]:
        """Whose logs there are; skips from one to the next, whatever their lengths."""
        found: list[str] = []
        while rows := self._database.read(
            "SELECT min(tenant) FROM audit WHERE tenant>?", (found[-1] if found else "",)
        ):
            if rows[0][0] is None:
                break
            found.append(rows[0][0])
        return found

    def verify(self, tenant: str, checkpoints: Iterable[Checkpoint] = ()) -> AuditHead:
        """Recompute all of it; ``LogBroken`` names the first row that is not what it was.

        ``Unavailable`` ``broker_ending`` if the process is to end before that: nothing is said of the log then.
        Of the ``checkpoints``, verified by the caller, each must be met. Rows that are added meanwhile are not read.
        """
        tree, reading = Tree(self._database, tenant), Reading(tenant, checkpoints)
        block: list[bytes] = []
        for sequence, leaf, body in self._all(tenant, self.size(tenant)):
            if sequence != reading.size + 1:
                raise audit_check.broken(reading.size + 1, "row_missing", "is missing", reading.size + 1, sequence)
            reading.row(body, leaf)
            block.append(leaf)
            if len(block) == WIDTH:
                number = (sequence - 1) // WIDTH
                if tree.stored(1, number, number + 1) != [merkle.perfect(block)]:
                    raise _nodes_differ(sequence - WIDTH + 1, sequence)
                block.clear()
        reading.finish()
        self._verify_above(tree, reading.size)
        return AuditHead(reading.size, reading.root().hex())

    def _verify_above(self, tree: Tree, size: int) -> None:
        """The stored nodes above the first level are what is below them, and none are there that should not be."""
        level, count = 1, size // WIDTH
        while True:
            if len(tree.stored(level, count, 2**62)):
                raise _nodes_differ(size + 1, size + 1)
            if not count:
                return
            for number in range(count // WIDTH):
                self._check_goes_on()
                below = tree.stored(level, number * WIDTH, (number + 1) * WIDTH)
                if tree.stored(level + 1, number, number + 1) != [merkle.perfect(below)]:
                    raise _nodes_differ(number * WIDTH ** (level + 1) + 1, (number + 1) * WIDTH ** (level + 1))
            level, count = level + 1, count // WIDTH

    def _all(self, tenant: str, until: int) -> Iterator[tuple[int, bytes, bytes]]:
        after = 0
        while rows := self._database.read(
            "SELECT sequence, leaf, body FROM audit WHERE tenant=? AND sequence>? AND sequence<=?"
            " ORDER BY sequence LIMIT ?",
            (tenant, after, until, PAGE),
        ):
            self._check_goes_on()
            yield from rows
            after = rows[-1][0]

    def _check_goes_on(self) -> None:
        if self.ending.is_set():
            raise Unavailable(
                "the broker ends before the log was gone through: nothing is known of it",
                code="broker_ending",
                hint="ask again when a broker serves",
            )

    def list(
        self, tenant: str, since: datetime | None = None, limit: int = 100, after: int | None = None
    ) -> list[AuditEntry]:
        """At most ``limit`` rows in order: the newest, or with ``after`` those that follow that sequence number."""
        start = since.timestamp() if since else float("-inf")
        order = "DESC" if after is None else "ASC"
        rows = self._database.read(
            f"SELECT body FROM audit WHERE tenant=? AND time>=? AND sequence>? ORDER BY sequence {order} LIMIT ?",  # noqa: S608 -- one of two words of ours
            (tenant, start, after or 0, limit),
        )
        entries = [audit_row.decode(row[0]) for row in rows]
        return entries[::-1] if after is None else entries


def _nodes_differ(first: int, last: int) -> LogBroken:
    return LogBroken(
        f"the stored hashes over the rows {first} to {last} were changed; no row up to them differs",
        code="nodes_changed",
        field=f"row {first}",
        hint="keep the file as evidence; proofs from this store do not hold",
    )
