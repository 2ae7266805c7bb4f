"""The record of decisions: append-only, one Merkle tree per tenant, durable before anybody learns the decision.

A row's bytes are hashed as they are stored (``protocol.audit_row``), its leaf hash lies beside it, and the nodes above
in ``stores/audit_tree.py``, written in the same transaction. Rows are not secret and not sealed: an auditor checks them
without a key. Reading them back, and checking them, is ``stores/audit_reading.py``.

Brokers that share a database append one after the other, tenant by tenant: a lock held for one transaction. Whoever
changes something writes the rows that say so in the same transaction (``enter``), and takes that lock last.

Group commit: rows that arrive together share one transaction, so many decisions cost one wait for the disk. While the
loop is busy with requests whose rows come next, a commit waits for those, at most ``GATHER_SECONDS``. While another process
of the broker writes, rows are gathered too, at most ``TURN_TRIES`` times ``TURN_SECONDS``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import msgspec

from adyton.errors import AdytonError, LogBroken, Unavailable
from adyton.protocol import audit_row
from adyton.protocol.audit_row import VERSION, AuditEntry, AuditRow
from adyton.stores import audit_tree
from adyton.stores.audit_reading import AuditReading
from adyton.stores.sql import Database, Transaction
from adyton.stores.turns import Turn

SLOW_SECONDS = 0.001
GATHER_SECONDS = 0.005
GATHER_ROWS = 64
GATHER_TURNS = 2
TURN_SECONDS, TURN_TRIES = 0.001, 20
_START = bytes(32)
_AVERAGE = 0.1


class _Pending(msgspec.Struct):
    tenant: str
    row: AuditRow
    time: datetime
    done: asyncio.Future[int]


_HEAD = "SELECT sequence, leaf FROM audit WHERE tenant=? ORDER BY sequence DESC LIMIT 1"
_LEAF = "SELECT leaf FROM audit WHERE tenant=? AND sequence=?"
_Head = tuple[int, bytes]


class AuditLog(AuditReading):
    """Every tenant's log. ``append`` for threads, ``append_async`` for one event loop: both durable on return."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._pending: list[_Pending] = []
        self._flushing: asyncio.AbstractEventLoop | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._commit_seconds = 0.0
        self.turn: Turn | None = None  # where other processes write to the same file
        self.observe: Callable[[float], None] | None = None  # is told how long each commit took, seconds
        self._known: dict[str, _Head] = {}  # the last row that this process wrote, by tenant

    def append(self, tenant: str, row: AuditRow, now: datetime) -> int:
        """Write one row and wait until it is on the disk; returns its sequence number."""
        return self._commit([(tenant, row, now)])[0]

    async def append_async(self, tenant: str, row: AuditRow, now: datetime) -> int:
        """As ``append``, with every row that arrives meanwhile in the same transaction."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[int] = loop.create_future()
        self._pending.append(_Pending(tenant, row, now, done))
        if self._flushing is not loop:  # nothing is under way, or it was in a loop that has ended since
            self._pending = self._pending[-1:]
            self._flushing = loop
            loop.call_soon(self._gather, loop, loop.time() + GATHER_SECONDS, 0, 0)
        return await done

    def _gather(self, loop: asyncio.AbstractEventLoop, until: float, before: int, idle: int) -> None:
        """Commit once two turns of the loop have brought no row: one reads requests, the next one handles them."""
        rows = len(self._pending)
        idle = idle + 1 if rows == before else 0
        if idle >= GATHER_TURNS or rows >= GATHER_ROWS or loop.time() >= until:
            self._flush(loop)
        else:
            loop.call_soon(self._gather, loop, until, rows, idle)

    def _flush(self, loop: asyncio.AbstractEventLoop, tries: int = TURN_TRIES) -> None:
        ours = self.turn is not None and self.turn.take()
        if self.turn is not None and not ours and tries > 0:
            loop.call_later(TURN_SECONDS, self._flush, loop, tries - 1)
            return
        batch, self._pending = self._pending, []
        rows = [(item.tenant, item.row, item.time) for item in batch]
        # A quick disk is waited for here: cheaper than waking a thread. A slow one, or another machine's, must not hold
        # up the loop.
        if self._commit_seconds <= SLOW_SECONDS and not self._database.elsewhere:
            try:
                self._finish(loop, batch, self._committed(rows, ours))
            except AdytonError as error:
                self._finish(loop, batch, error)
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit")
        job = loop.run_in_executor(self._thread, self._committed, rows, ours)
        job.add_done_callback(
            lambda job: self._finish(loop, batch, job.exception() or job.result() if not job.cancelled() else None)
        )

    def _finish(
        self, loop: asyncio.AbstractEventLoop, batch: list[_Pending], outcome: Sequence[int] | BaseException | None
    ) -> None:
        for index, item in enumerate(batch):
            if item.done.done():  # the request was abandoned; its row is there all the same
                continue
            if isinstance(outcome, BaseException):
                item.done.set_exception(outcome)
            elif outcome is None:
                item.done.cancel()
            else:
                item.done.set_result(outcome[index])
        if self._pending:
            loop.call_soon(self._gather, loop, loop.time() + GATHER_SECONDS, 0, 0)
        else:
            self._flushing = None

    def _committed(self, rows: Sequence[tuple[str, AuditRow, datetime]], ours: bool) -> list[int]:
        try:
            return self._commit(rows)
        finally:
            if ours and self.turn is not None:
                self.turn.give()

    def _commit(self, rows: Sequence[tuple[str, AuditRow, datetime]]) -> list[int]:
        try:
            return self._write(rows)
        except Unavailable as error:
            if error.code != "store_lost":
                raise
        return self._write(rows)  # nothing of it was kept: the connection broke, and another one may hold

    def _write(self, rows: Sequence[tuple[str, AuditRow, datetime]]) -> list[int]:
        started = time.perf_counter()
        heads: dict[str, _Head] = {}

        def landed(transaction: Transaction) -> bool:
            """Whether the last rows of this very batch are there, where the answer to the commit was lost."""
            asked = [transaction.execute(_LEAF, (tenant, number)).fetchone() for tenant, (number, _) in heads.items()]
            return [row and row[0] for row in asked] == [leaf for _, leaf in heads.values()]

        locks = sorted({lock(tenant) for tenant, _, _ in rows})
        with self._database.write(*locks, landed=landed, appends=True) as transaction:
            numbers = self._put(transaction, rows, heads)
        self._know(heads)
        took = time.perf_counter() - started
        self._commit_seconds += _AVERAGE * (took - self._commit_seconds)
        if self.observe is not None:
            self.observe(took)
        return numbers

    def enter(self, transaction: Transaction, tenant: str, rows: Sequence[AuditRow], now: datetime) -> list[int]:
        """Write rows inside a transaction that changes what they speak of, as the last thing that is done in it.

        It has taken the log's lock. Returns their numbers; the tree grows with them.
        """
        heads: dict[str, _Head] = {}
        numbers = self._put(transaction, [(tenant, row, now) for row in rows], heads)
        if self._database.deeds.mine() is not None:
            self._database.deeds.afterwards(lambda: self._know(heads))
        return numbers

    def _put(
        self,
        transaction: Transaction,
        rows: Sequence[tuple[str, AuditRow, datetime]],
        heads: dict[str, _Head],
    ) -> list[int]:
        """Write rows under their logs' locks; fills ``heads`` with what is the last row of each then."""
        numbers = []
        before: dict[str, int] = {}
        written: list[tuple[object, ...]] = []
        for tenant, row, now in rows:
            if (head := heads.get(tenant)) is None:
                head = transaction.execute(_HEAD, (tenant,)).fetchone() or (0, _START)
                self._continues(tenant, head)
                before[tenant] = head[0]
            number = head[0] + 1
            at = now if now.tzinfo is UTC else now.astimezone(UTC)
            body = audit_row.encode(AuditEntry(tenant, number, at, head[1].hex(), row, VERSION))
            leaf = audit_row.leaf(body)
            written.append((tenant, number, now.timestamp(), leaf, body))
            heads[tenant] = (number, leaf)
            numbers.append(number)
        transaction.executemany("INSERT INTO audit VALUES (?,?,?,?,?)", written)
        for tenant, size in before.items():
            audit_tree.complete(transaction, tenant, size, heads[tenant][0])
        return numbers

    def _know(self, heads: dict[str, _Head]) -> None:
        """Remember what was committed. Threads come here in any order, and an earlier row says less than a later one."""
        for tenant, head in heads.items():
            known = self._known.get(tenant)
            if known is None or known[0] < head[0]:
                self._known[tenant] = head

    def _continues(self, tenant: str, head: _Head) -> None:
        """Nothing is written after rows that were cut off or changed while this process ran."""
        known = self._known.get(tenant)
        if known is not None and (head[0] < known[0] or (head[0] == known[0] and head[1] != known[1])):
            raise LogBroken(
                f"the end of the audit log is not what was written: row {known[0]}",
                code="log_end_changed",
                field=f"row {known[0]}",
                expected=known[1],
                got=head[1],
                hint="keep the file as evidence, find out who changed it, and restore the last backup",
            )

    def close(self) -> None:
        """End the thread, if there is one, after what it is writing."""
        if self._thread is not None:
            self._thread.shutdown(wait=True)
            self._thread = None
        if self.turn is not None:
            self.turn.close()
            self.turn = None


def lock(tenant: str) -> str:
    """The name of what is held by who appends to a tenant's log."""
    return f"audit {tenant}"
