"""One line of JSON per request on standard error: what was asked, what was decided, why. Never a secret.

For operators and their log collectors. It tells no more than the client was told, so it is not the record: that is the
audit log, which is durable before the answer leaves and which only the owner reads. Lines are written together a
moment later, so a broker that is killed loses its last few; a line costs about two microseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

import msgspec

from adyton.broker.answer import Answer
from adyton.broker.connection import HttpRequest

FLUSH_SECONDS = 0.1
MAX_PATH = 200
MAX_WAITING = 10_000
_QUIET = frozenset({b"/healthz"})


class Line(msgspec.Struct, frozen=True):
    """``time`` in Unix seconds, ``ms`` how long the answer took. ``reason`` is the code of the refusal, as answered."""

    time: float
    method: str
    path: str
    status: int
    decision: str
    reason: str
    ms: float
    peer: str


_ENCODE = msgspec.json.Encoder().encode


class Journal:
    """The lines of one worker, written to ``descriptor`` in batches."""

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self._waiting: list[bytes] = []

    def request(self, request: HttpRequest, answer: Answer, began: float) -> None:
        """Note one answered request; ``began`` is when it came, in seconds of ``time.perf_counter``."""
        path = request.target.partition(b"?")[0]
        if path in _QUIET:
            return
        status = answer.status
        line = Line(
            time=round(time.time(), 3),
            method=request.method,
            path=path[:MAX_PATH].decode("ascii", "replace"),
            status=status,
            decision="allowed" if status < 400 else "refused" if status < 500 else "failed",
            reason=answer.reason,
            ms=round((time.perf_counter() - began) * 1000, 2),
            peer=request.peer,
        )
        if not self._waiting:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(_ENCODE(line))

    def flush(self) -> None:
        """Write what waits. A reader that went away does not stop the broker."""
        lines, self._waiting = self._waiting, []
        if lines:
            with contextlib.suppress(OSError):
                _write(self._descriptor, b"\n".join(lines) + b"\n")


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
