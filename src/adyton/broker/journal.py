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
from typing import TypeAlias

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


_Noted: TypeAlias = tuple[float, str, bytes, int, str, float, str]
_ENCODE = msgspec.json.Encoder().encode


class Journal:
    """The lines of one worker, written to ``descriptor`` in batches."""

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self._waiting: list[_Noted] = []

    def request(self, request: HttpRequest, answer: Answer, began: float) -> None:
        """Note one answered request; ``began`` is when it came, in seconds of ``time.perf_counter``."""
        path = request.target.partition(b"?")[0]
        if path in _QUIET:
            return
        if not self._waiting:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        if len(self._waiting) < MAX_WAITING:
            took = time.perf_counter() - began
            noted = (time.time(), request.method, path[:MAX_PATH], answer.status, answer.reason, took, request.peer)
            self._waiting.append(noted)

    def flush(self) -> None:
        """Write what waits. A reader that went away does not stop the broker."""
        lines, self._waiting = self._waiting, []
        if lines:
            with contextlib.suppress(OSError):
                _write(self._descriptor, b"\n".join([_line(*line) for line in lines]) + b"\n")


def _line(  # noqa: PLR0917 -- as it was noted
    at: float, method: str, path: bytes, status: int, reason: str, took: float, peer: str
) -> bytes:
    return _ENCODE(
        Line(
            time=round(at, 3),
            method=method,
            path=path.decode("ascii", "replace"),
            status=status,
            decision="allowed" if status < 400 else "refused" if status < 500 else "failed",
            reason=reason,
            ms=round(took * 1000, 2),
            peer=peer,
        )
    )


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
