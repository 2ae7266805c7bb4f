"""An answer has an end: in seconds of the whole exchange, however slowly it drips, and in bytes of whatever kind.

A socket's timeout is for one read, and an answer that comes byte by byte has millions of them. So what is sent and what
is read goes through here, where both are counted: an exchange has so many seconds, and for each ``RATE`` bytes that
were moved one more.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Callable
from typing import Any

RATE = 32 * 1024
"""Bytes a second that who moves much has to move at the least."""
_PIECE = 64 * 1024


class TooSlow(TimeoutError):
    """The exchange took longer than it may, although something came."""


class TooMuch(http.client.HTTPException):
    """More came than any answer has, its head and its framing included."""


class Pace:
    """One exchange's end. ``seconds`` for the whole; ``most`` bytes of answer, as they come from the socket."""

    def __init__(self, seconds: float, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = clock() + seconds
        self._most = most
        self.read = 0
        self._sent = 0

    def left(self) -> float:
        """Seconds that remain, more than 0; ``TooSlow`` or, if nothing came yet, ``TimeoutError``."""
        left = self._until + (self.read + self._sent) / RATE - self._clock()
        if left <= 0:
            raise self._late()
        return left

    def _late(self) -> TimeoutError:
        return TooSlow() if self.read else TimeoutError()

    def send(self, sock: socket.socket, data: bytes) -> None:
        """All of it."""
        rest = memoryview(data)
        while rest:
            sock.settimeout(self.left())
            count = sock.send(rest[:_PIECE])
            self._sent += count
            rest = rest[count:]

    def readinto(self, sock: socket.socket, raw: Any, buffer: Any) -> int | None:
        """As a raw file's, from ``raw``, which is the file of ``sock``."""
        if self.read >= self._most:
            raise TooMuch
        sock.settimeout(self.left())
        try:
            with memoryview(buffer)[: self._most - self.read] as view:
                count: int | None = raw.readinto(view)
        except TimeoutError as error:
            raise self._late() from error
        self.read += count or 0
        return count


class _File(io.RawIOBase):
    """The file of a socket, at its exchange's pace."""

    def __init__(self, pace: Pace, sock: socket.socket, raw: Any) -> None:
        self._pace = pace
        self._sock = sock
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        return self._pace.readinto(self._sock, self._raw, buffer)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer that is read at the pace of the exchange: head, framing and body."""

    def __init__(self, pace: Pace, sock: socket.socket, *rest: Any, **named: Any) -> None:
        super().__init__(sock, *rest, **named)
        self.fp: Any = io.BufferedReader(_File(pace, sock, self.fp.detach()))


class Plain(http.client.HTTPConnection):
    """A connection whose exchanges end; ``pace`` is set before each."""

    pace: Pace

    def response_class(self, *rest: Any, **named: Any) -> _Answer:  # type: ignore[override]
        """What ``getresponse`` makes."""
        return _Answer(self.pace, *rest, **named)

    def send(self, data: Any) -> None:
        """What ``request`` writes: bytes, since we give it nothing else."""
        if self.sock is None:
            self.connect()
        self.pace.send(self.sock, data)


class Secured(Plain, http.client.HTTPSConnection):
    """The same over TLS."""
