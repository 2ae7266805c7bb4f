"""One line per request on standard error: what was asked, by whose URL, what was decided, why. Never a secret.

For operators and their log collectors. It tells no more than the client was told, so it is not the record: that is the
audit log, which is durable before the answer leaves and which only the owner reads. ``session`` and ``decision`` are
what the record knows the same by. Lines are written together a moment later, so a broker that is killed loses its last
few; the same batch is counted for ``/metrics``. On the way of a request it costs about half a microsecond.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from functools import partial
from typing import TypeAlias

import msgspec

from adyton.broker.door.answer import Answer
from adyton.broker.door.connection import HttpRequest
from adyton.broker.door.paths import Route
from adyton.broker.running.logs import LAST_SECONDS, Format, missing, plain
from adyton.broker.running.metrics import Metrics
from adyton.broker.running.outlet import Outlet

FLUSH_SECONDS = 0.1
MAX_PATH = 200
MAX_WAITING = 10_000
_QUIET = frozenset({"healthz", "readyz", "metrics"})
_STEPS = frozenset({"auth", "attest", "resource"})


class Line(msgspec.Struct, frozen=True):
    """``time`` in Unix seconds, ``ms`` how long the answer took. ``reason`` is the code of the refusal, as answered.

    ``id`` is this request's; ``session`` the handle of the attester's key, ``decision`` the refusal's name in the record.
    """

    time: float
    id: str
    method: str
    path: str
    tenant: str
    status: int
    decision: str
    reason: str
    ms: float
    peer: str
    session: str
    refusal: str
    trace: str


_Noted: TypeAlias = tuple[float, str, bytes, Route | None, int, str, float, str, str, str, str]
_ENCODE = msgspec.json.Encoder().encode


class Journal:
    """The lines of one worker, written to ``descriptor`` in batches, and counted."""

    def __init__(self, descriptor: int = 2, *, form: Format = "json", metrics: Metrics | None = None) -> None:
        self._outlet = Outlet(descriptor, partial(missing, form))
        self._form: Format = form
        self._metrics = metrics
        self._waiting: list[_Noted] = []
        self._prefix = secrets.token_hex(4)
        self._number = 0

    def request(self, request: HttpRequest, answer: Answer, began: float) -> None:
        """Note one answered request; ``began`` is when it came, in seconds of ``time.perf_counter``."""
        if not self._waiting:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        took = time.perf_counter() - began
        self._waiting.append(
            (
                time.time(), request.method, request.target[:MAX_PATH], request.where, answer.status, answer.reason, took,
                request.peer, answer.session, answer.decision, request.trace,
            )
        )  # fmt: skip
        if len(self._waiting) >= MAX_WAITING:
            self.flush()

    def flush(self) -> None:
        """Count what waits, and let it be written. A reader that went away, or reads nothing, holds up nobody."""
        noted, self._waiting = self._waiting, []
        lines = []
        metrics = self._metrics
        for one in noted:
            where = one[3]
            if metrics is not None:
                metrics.request(area(where), where.tenant if where is not None else "", one[4], one[5], one[6])
            if where is None or not (where.area == "top" and where.parts and where.parts[0] in _QUIET):
                self._number += 1
                lines.append(self._line(*one))
        if lines:
            before = self._outlet.dropped
            self._outlet.put(b"\n".join(lines) + b"\n", len(lines))
            if metrics is not None and (dropped := self._outlet.dropped - before):
                metrics.count("log_lines_dropped", dropped)

    def close(self) -> None:
        """Nothing more comes: give what waits a moment to go."""
        self.flush()
        self._outlet.drain(LAST_SECONDS)

    def _line(  # noqa: PLR0917 -- as it was noted
        self,
        at: float,
        method: str,
        target: bytes,
        where: Route | None,
        status: int,
        reason: str,
        took: float,
        peer: str,
        session: str,
        refusal: str,
        trace: str,
    ) -> bytes:
        line = Line(
            time=round(at, 3),
            id=f"{self._prefix}-{self._number:x}",
            method=method,
            path=target.partition(b"?")[0].decode("ascii", "replace"),
            tenant=where.tenant if where is not None else "",
            status=status,
            decision="allowed" if status < 400 else "refused" if status < 500 else "failed",
            reason=reason,
            ms=round(took * 1000, 2),
            peer=peer,
            session=session,
            refusal=refusal,
            trace=trace,
        )
        if self._form == "json":
            return _ENCODE(line)
        told = f"{line.decision.upper()} {line.method} {line.path} {status} {line.reason or '-'} {line.ms} ms"
        rest = f"tenant={line.tenant} id={line.id} peer={line.peer} session={line.session} refusal={line.refusal}"
        return plain(f"{told} {rest}").encode("utf-8", "replace")


def area(where: Route | None) -> str:
    """Which part of the broker a request was for: one of nine words."""
    if where is None:
        return "none"
    if where.area == "kbs":
        return where.parts[0] if where.parts and where.parts[0] in _STEPS else "kbs"
    if where.area == "top":
        return where.parts[0] if where.parts and where.parts[0] in {"ui", "healthz", "readyz"} else "top"
    return where.area
