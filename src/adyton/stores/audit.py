"""The record of decisions: append-only, chained per tenant, durable before anybody learns the decision.

Each row is one JSON object that holds the digest of the row before it; a row's digest is SHA-256 of its bytes. So a row
that was changed, taken out or put in shows (``verify``), and whoever wrote down the last digest can tell that the end
was cut off. Rows are not secret and not sealed: an auditor checks them without a key.

Group commit: rows that arrive together share one transaction, so many decisions cost one wait for the disk. While the
loop is busy with requests whose rows come next, a commit waits for those, at most ``GATHER_SECONDS``.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import msgspec

from adyton.errors import AdytonError, Unavailable
from adyton.stores.database import Database

SLOW_SECONDS = 0.001
GATHER_SECONDS = 0.005
GATHER_ROWS = 64
GATHER_TURNS = 2
_START = b"\0" * 32
_AVERAGE = 0.1


class AuditRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One decision. ``action`` is what was asked (``attest``, ``release``, ``resource.set``…), ``reasons`` are ``code: text``.

    ``measurement`` and ``host_data`` are lower-case hex, ``root`` is ``vendor`` or ``custom`` with the fingerprint of its
    key. Never a secret, never a token.
    """

    action: str
    decision: Literal["allowed", "refused"]
    resource: str = ""
    tee: str = ""
    measurement: str = ""
    host_data: str = ""
    root: str = ""
    root_fingerprint: str = ""
    status: str = ""
    reasons: tuple[str, ...] = ()
    policy_digest: str = ""
    reference_generation: int | None = None
    request_id: str = ""
    peer: str = ""
    actor: str = ""


class AuditEntry(msgspec.Struct, frozen=True):
    """A row as it stands in the chain. ``sequence`` counts from 1 in each tenant; digests are lower-case hex."""

    tenant: str
    sequence: int
    time: datetime
    previous: str
    row: AuditRow


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The end of a tenant's chain: how many rows, and the digest of the last (64 zeros if there is none)."""

    sequence: int
    digest: str


@dataclass(slots=True)
class _Pending:
    tenant: str
    row: AuditRow
    time: datetime
    done: asyncio.Future[int]


_HEAD = "SELECT sequence, digest FROM audit WHERE tenant=? ORDER BY sequence DESC LIMIT 1"
_ENCODE = msgspec.json.Encoder().encode
_ENTRY = msgspec.json.Decoder(AuditEntry)


class AuditLog:
    """The chain of every tenant. ``append`` for threads, ``append_async`` for one event loop: both durable on return."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: list[_Pending] = []
        self._flushing: asyncio.AbstractEventLoop | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._commit_seconds = 0.0

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

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        batch, self._pending = self._pending, []
        rows = [(item.tenant, item.row, item.time) for item in batch]
        # A quick disk is waited for here: cheaper than waking a thread. A slow one must not hold up the loop.
        if self._commit_seconds <= SLOW_SECONDS:
            try:
                self._finish(loop, batch, self._commit(rows))
            except AdytonError as error:
                self._finish(loop, batch, error)
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit")
        job = loop.run_in_executor(self._thread, self._commit, rows)
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

    def _commit(self, rows: Sequence[tuple[str, AuditRow, datetime]]) -> list[int]:
        started = time.perf_counter()
        numbers = []
        heads: dict[str, tuple[int, bytes]] = {}
        written: list[tuple[object, ...]] = []
        with self._database.write() as transaction:
            for tenant, row, now in rows:
                if (head := heads.get(tenant)) is None:
                    head = transaction.execute(_HEAD, (tenant,)).fetchone() or (0, _START)
                number = head[0] + 1
                at = now if now.tzinfo is UTC else now.astimezone(UTC)
                body = _ENCODE(AuditEntry(tenant, number, at, head[1].hex(), row))
                digest = hashlib.sha256(body).digest()
                written.append((tenant, number, now.timestamp(), body, digest))
                heads[tenant] = (number, digest)
                numbers.append(number)
            transaction.executemany("INSERT INTO audit VALUES (?,?,?,?,?)", written)
        self._commit_seconds += _AVERAGE * (time.perf_counter() - started - self._commit_seconds)
        return numbers

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
        entries = [_decode(row[0], tenant) for row in rows]
        return entries[::-1] if after is None else entries

    def verify(self, tenant: str) -> AuditHead:
        """Check the whole chain; ``Unavailable`` ``audit_broken`` names the first row that does not fit."""
        number, digest = 0, _START
        while rows := self._database.read(
            "SELECT sequence, body, digest FROM audit WHERE tenant=? AND sequence>? ORDER BY sequence LIMIT 1000",
            (tenant, number),
        ):
            for sequence, body, stored in rows:
                entry = _decode(body, tenant)
                number += 1
                if (
                    sequence != number
                    or entry.sequence != number
                    or entry.tenant != tenant
                    or entry.previous != digest.hex()
                    or hashlib.sha256(body).digest() != stored
                ):
                    raise _broken(tenant, number)
                digest = stored
        return AuditHead(sequence=number, digest=digest.hex())

    def close(self) -> None:
        """End the thread, if there is one, after what it is writing."""
        if self._thread is not None:
            self._thread.shutdown(wait=True)
            self._thread = None


def _decode(body: bytes, tenant: str) -> AuditEntry:
    try:
        return _ENTRY.decode(body)
    except msgspec.DecodeError as error:
        raise _broken(tenant, None) from error


def _broken(tenant: str, number: int | None) -> Unavailable:
    return Unavailable(
        "the audit log was changed: its chain does not hold",
        code="audit_broken",
        field=tenant,
        got=number,
        hint="keep the file as evidence; rows before the one named are intact",
    )
