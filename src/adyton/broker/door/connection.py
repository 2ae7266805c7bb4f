"""One HTTP/1.1 connection, on llhttp (httptools) and asyncio. Bytes in, requests out, answers back in order.

Why not uvicorn or granian: measured on two cores with a 11.6 kB body, keep-alive, CPU of the whole server, uvicorn took
44 to 48 µs a request, granian 57 to 121, this 32 to 36; and neither bounds what a slow client may
hold open. Here every state of a connection has a deadline, which a sweep (one a second) enforces:

* a head must be complete ``head_seconds`` after its first byte (or after the connection), a body ``body_seconds`` later;
* an idle connection may stay ``idle_seconds``; a client that reads nothing of its answers is cut after ``body_seconds``,
  and until it has read them none is made for what it sends on;
* a head over 128 KiB or a body over the limit is answered 413 and the rest of what comes is thrown away;
* a half-closed connection still gets the answers to what it has sent in full.

Requests of one connection are handled one after the other; a client that sends on is not read from meanwhile.
How connections come, and who goes where all places are taken: ``entrance.py``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

import httptools
import msgspec

from adyton.broker.door.answer import Answer
from adyton.broker.door.worker import STOPPING_SECONDS

if TYPE_CHECKING:
    from adyton.broker.door.paths import Route
    from adyton.broker.door.worker import Worker

_LOG = logging.getLogger(__name__)
MAX_HEAD = 128 * 1024
MAX_QUEUE = 8
IMPATIENT_SECONDS, PATIENT_SECONDS = 1.0, 5.0


class HttpRequest(msgspec.Struct):
    """A whole request. ``target`` as it was sent; header names in lower case, the last of equal names wins.

    ``where`` is what the application makes of the target, ``trace`` the trace that it belongs to, for the log. ``outside``:
    it came to the port of workloads while administration has one of its own.
    """

    method: str
    target: bytes
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool
    peer: str = ""
    where: Route | None = None
    trace: str = ""
    outside: bool = False


class Application(Protocol):
    """Answers requests. Laws: never raises; an ``Answer`` that is not awaited for costs no task."""

    def __call__(self, request: HttpRequest) -> Answer | Awaitable[Answer]:
        """The answer, or something that will be."""
        ...


class Connection(asyncio.Protocol):
    """See the module. The parser calls the ``on_`` methods."""

    __slots__ = (
        "_body",
        "_closing",
        "_discarding",
        "_fresh",
        "_handling",
        "_head_bytes",
        "_head_size",
        "_headers",
        "_parser",
        "_peer",
        "_piled",
        "_queue",
        "_size",
        "_target",
        "_transport",
        "_unread",
        "_worker",
        "deadline",
        "since",
    )

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[HttpRequest] = deque()
        self._handling = self._closing = self._discarding = self._piled = False
        self._fresh = True
        self._head_bytes = self._unread = 0
        self._peer = ""
        self._reset()
        self._wait(worker.limits.head_seconds)

    def _reset(self) -> None:
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._size = self._head_size = 0

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands, TLS included."""
        self._transport = cast("asyncio.Transport", transport)
        worker = self._worker
        worker.arriving.pop(self, None)
        if self._closing:  # cut in the very moment
            self._transport.abort()
            return
        if worker.ciphers is not None and not _among(transport, worker.ciphers):
            worker.refused += 1
            self._transport.abort()
            self._closing = True
            return
        worker.connections.add(self)
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if isinstance(peer, tuple) else ""
        # One that came while the end had begun still gets its answer, if it asks at once.
        self._wait(min(worker.limits.head_seconds, STOPPING_SECONDS) if worker.stopping else worker.limits.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it; an answer under way goes nowhere."""
        self._closing = True
        self._queue.clear()
        self._worker.forget(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what it cannot read ends the connection with one answer."""
        if self._discarding or self._closing:
            return
        if self._head_bytes >= 0:
            if not self._head_bytes:
                self._wait(self._worker.limits.head_seconds)
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._discarding = True  # the request was taken as it stands; nothing may follow it
        except httptools.HttpParserError:
            self._refuse("unreadable")
            return
        if self._head_bytes > MAX_HEAD:
            self._refuse("head")
        elif len(self._queue) >= MAX_QUEUE and self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The peer sends no more: keep its answers coming, then close."""
        busy = self._handling or bool(self._queue)
        self._discarding = True
        if not busy:
            return False
        return self._transport is not None and self._transport.get_extra_info("sslcontext") is None

    def pause_writing(self) -> None:
        """The peer reads more slowly than it asks: make no more answers for now."""
        self._piled = True

    def resume_writing(self) -> None:
        """It has read them."""
        self._piled = False
        if not self._handling and not self._closing:
            self._wait(self._worker.limits.idle_seconds)
            self._next()

    # the parser's side

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self._target += url
        self._head_size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._headers[name.lower()] = value
        self._head_size += len(name) + len(value) + 4

    def on_headers_complete(self) -> None:
        """The head is there: refuse a body that is announced too large, ask for one that waits."""
        self._head_bytes = -1
        if self._head_size > MAX_HEAD:
            self._refuse("head")
            return
        length = self._headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > self._worker.limits.max_body:
            self._refuse("body")
            return
        if self._headers.get(b"expect", b"").lower() == b"100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._wait(self._worker.limits.body_seconds)

    def on_body(self, body: bytes) -> None:
        """A piece of the body; chunked ones are counted here."""
        if self._discarding:
            return
        self._size += len(body)
        if self._size > self._worker.limits.max_body:
            self._refuse("body")
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """A whole request: answer it, or let it wait its turn."""
        if self._discarding or self._closing:
            return
        parser = self._parser
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        keep = bool(parser.should_keep_alive()) and not self._worker.leaving
        request = HttpRequest(parser.get_method().decode("ascii"), self._target, self._headers, body, keep, self._peer)
        if self._fresh:
            self._fresh = False
            self._worker.unheard.pop(self, None)
        self._head_bytes = 0
        self._reset()
        self._queue.append(request)
        if not self._handling:
            self._next()

    # answering

    def _next(self) -> None:
        while self._queue and not self._closing and not self._piled:
            request = self._queue.popleft()
            self._handling = True
            self._worker.busy += 1
            self.deadline = float("inf")
            try:
                answer = self._worker.application(request)
            except Exception:  # noqa: BLE001 -- in the parser's call it would pass for a request that cannot be read
                answer = self._failed()
            if not isinstance(answer, Answer):
                asyncio.ensure_future(answer).add_done_callback(partial(self._done, request))
                return
            self._answered(request, answer)

    def _done(self, request: HttpRequest, answered: asyncio.Future[Answer]) -> None:
        try:
            answer = answered.result()
        except Exception:  # noqa: BLE001 -- as above: the peer would wait for ever, and so would the end of the broker
            answer = self._failed()
        self._answered(request, answer)
        self._next()

    def _failed(self) -> Answer:
        _LOG.exception("a request failed")
        return self._worker.refusals["failed"]

    def _answered(self, request: HttpRequest, answer: Answer) -> None:
        self._handling = False
        self._worker.busy -= 1
        if self._closing or self._transport is None:
            return
        last = not request.keep_alive or (self._discarding and not self._queue) or self._worker.leaving
        self._transport.write(answer.render(keep_alive=not last, head_only=request.method == "HEAD"))
        if self._piled:
            self._unread = self._transport.get_write_buffer_size()
        if last:
            self._end()
            return
        self._wait(self._worker.limits.body_seconds if self._piled else self._worker.limits.idle_seconds)
        if len(self._queue) == MAX_QUEUE - 1:
            self._transport.resume_reading()

    def _refuse(self, reason: str) -> None:
        """Answer once, then read and forget for a moment, so that the answer is not lost to a reset."""
        if self._discarding or self._transport is None:
            return
        self._discarding = True
        self._queue.clear()
        self._transport.write(self._worker.refusals[reason].render(keep_alive=False))
        self._wait(self._worker.limits.linger_seconds)

    def _wait(self, seconds: float) -> None:
        self.since = now = asyncio.get_running_loop().time()
        self.deadline = now + seconds

    def _end(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.close()
        self._wait(self._worker.limits.body_seconds)  # for a peer that does not read

    def expire(self) -> None:
        """The deadline has passed: whatever it was waiting for did not come. Who still reads an answer may go on."""
        unread = self._transport.get_write_buffer_size() if self._transport is not None else 0
        if self._piled and unread < self._unread:
            self._unread = unread
            self._wait(self._worker.limits.body_seconds)
            return
        self.abort()

    def close_when_idle(self) -> None:
        """Close now if nothing is under way; else after the answer. Who is asking, or came to ask, has a moment for it."""
        if self._handling or self._queue or self._closing:
            return
        if self._fresh or self._head_bytes:
            self.deadline = min(self.deadline, asyncio.get_running_loop().time() + STOPPING_SECONDS)
        else:
            self._end()

    def patience(self, now: float) -> float:
        """Seconds that the peer may still keep this waiting while others find no place; infinite while it is answered."""
        if self.deadline == float("inf"):
            return self.deadline
        granted = PATIENT_SECONDS if self._head_bytes < 0 or self._piled else IMPATIENT_SECONDS
        return self.since + granted - now

    def abort(self) -> None:
        """Cut the connection, or what would become one; its place is free at once."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()
        elif (making := self._worker.arriving.pop(self, None)) is not None:
            making.cancel()
        self._worker.forget(self)


def _among(transport: asyncio.BaseTransport, ciphers: frozenset[str]) -> bool:
    """Whether the connection's cipher is one of these; TLS 1.3 offers what Python cannot take out. Plain HTTP has none."""
    cipher = transport.get_extra_info("cipher")
    return cipher is None or cipher[0] in ciphers
