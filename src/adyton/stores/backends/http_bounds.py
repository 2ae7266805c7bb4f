"""HTTP answers with an end: so many bytes, status line and header included, within so many seconds of the request.

urllib3, and requests and botocore over it, read a header of any pace and a body of any length. Here every read of an
answer goes through a reader that counts both. It is put below them, where ``http.client`` makes its file of the socket.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Mapping
from typing import Any

from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from adyton.stores.backends import deadline

POOLS: Mapping[str, Any] = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}


class TooMuch(http.client.HTTPException):
    """An answer longer than any that is meant."""


class _Reader(io.RawIOBase):
    """The raw file of a socket, with an end in bytes and time."""

    def __init__(self, sock: socket.socket, raw: Any, most: int, seconds: float) -> None:
        self._sock = sock
        self._raw = raw
        self._left = most
        self._until = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        remaining = self._until - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the answer takes too long")
        if self._left <= 0:
            raise TooMuch("the answer is too long")
        self._sock.settimeout(remaining)
        with memoryview(buffer)[: self._left] as view:
            count: int | None = self._raw.readinto(view)
        self._left -= count or 0
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def pools(given: Mapping[str, Any], most: int, seconds: float) -> dict[str, Any]:
    """Connection pools by scheme, as ``given``, whose answers have at most ``most`` bytes and ``seconds``."""

    class Answer(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *rest: Any, **named: Any) -> None:
            allowed = deadline.left(seconds)
            super().__init__(sock, *rest, **named)
            raw = self.fp.detach()
            self.fp = io.BufferedReader(_Reader(sock, raw, most, allowed))

    made: dict[str, Any] = {}
    for scheme, pool in given.items():
        connection = type("Connection", (pool.ConnectionCls,), {"response_class": Answer})
        made[scheme] = type("Pool", (pool,), {"ConnectionCls": connection})
    return made


def was_too_much(error: BaseException | None) -> bool:
    """Whether ``TooMuch`` is what ``error`` came from."""
    seen: list[object] = []
    pending: list[object] = [error]
    while pending:
        one = pending.pop()
        if isinstance(one, TooMuch):
            return True
        if isinstance(one, BaseException) and one not in seen and len(seen) < 20:
            seen.append(one)
            pending += [one.__cause__, one.__context__, *one.args, getattr(one, "reason", None)]
    return False
