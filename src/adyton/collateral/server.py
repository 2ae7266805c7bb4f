"""The proxy's HTTP: GET and HEAD only, every size and every wait bounded, however slow or talkative the client is."""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus

import httptools

from adyton.collateral.front import HEALTH, Front, plain, refusal, route
from adyton.collateral.source import Reply
from adyton.errors import AdytonError, PlatformError

MAX_HEAD = 16 * 1024
MAX_CONNECTIONS = 256
MAX_WAITING = 64  # requests that wait for sources
HEAD_SECONDS = 10.0
IDLE_SECONDS = 30.0
WRITE_SECONDS = 20.0
DRAIN_SECONDS = 5.0
_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class _Head:
    """One request's line and the headers that matter, filled by the parser."""

    url: bytes = b""
    has_body: bool = False
    hosts: int = 0
    complete: bool = field(default=False)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-length":
                self.has_body = self.has_body or value.strip() != b"0"
            case b"transfer-encoding" | b"upgrade":
                self.has_body = True
            case b"host":
                self.hosts += 1

    def on_message_complete(self) -> None:
        self.complete = True


class Server:
    """A listening proxy. ``start`` and ``stop`` run in one event loop."""

    def __init__(self, front: Front, *, tls: ssl.SSLContext | None = None, head_seconds: float = HEAD_SECONDS) -> None:
        self._front = front
        self._tls = tls
        self._head_seconds = head_seconds
        self._quick = ThreadPoolExecutor(2, thread_name_prefix="collateral-quick")
        self._slow = ThreadPoolExecutor(16, thread_name_prefix="collateral-slow")
        self._waiting = 0
        self._connections: set[asyncio.Task[None]] = set()
        self._idle: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; the address that it got. ``PlatformError`` if it cannot be had."""
        try:
            self._server = await asyncio.start_server(
                self._connected, host, port, limit=MAX_HEAD, ssl=self._tls, backlog=MAX_CONNECTIONS,
                **({"ssl_handshake_timeout": self._head_seconds} if self._tls else {}),
            )  # fmt: skip
        except OSError as error:
            raise PlatformError(
                f"cannot listen on {host}:{port}: {error.strerror or error}",
                code="listen_failed",
                field="listen",
                hint="another address or a free port: --listen HOST:PORT",
            ) from error
        name = self._server.sockets[0].getsockname()
        return str(name[0]), int(name[1])

    async def stop(self) -> None:
        """Take no more; give those under way a few seconds."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._idle):
            writer.close()
        if self._connections:
            _, late = await asyncio.wait(self._connections, timeout=DRAIN_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._quick.shutdown(wait=False, cancel_futures=True)
        self._slow.shutdown(wait=False, cancel_futures=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- asyncio calls us in one
        self._connections.add(task)
        try:
            if len(self._connections) > MAX_CONNECTIONS:
                await self._send(writer, plain(503, "too many connections"), keep=False, head=False)
                return
            wait = self._head_seconds
            while await self._one(reader, writer, wait):
                wait = IDLE_SECONDS
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError):
            pass  # who is slow or gone gets nothing
        finally:
            self._connections.discard(task)
            writer.close()
            with suppress(OSError, TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(1.0):
                    await writer.wait_closed()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wait: float) -> bool:
        """One request and its answer; whether another may follow."""
        self._idle.add(writer)
        try:
            async with asyncio.timeout(wait):
                raw = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            await self._send(writer, plain(431, "the request's head is too large"), keep=False, head=False)
            return False
        finally:
            self._idle.discard(writer)
        head = _Head()
        parser = httptools.HttpRequestParser(head)
        try:
            parser.feed_data(raw)
            method, keep = parser.get_method(), parser.should_keep_alive() and self._server is not None
        except httptools.HttpParserError:
            await self._send(writer, plain(400, "not HTTP"), keep=False, head=False)
            return False
        if head.has_body or head.hosts > 1 or not head.complete:
            await self._send(writer, plain(400, "a request here has no body and one host"), keep=False, head=False)
            return False
        if method not in {b"GET", b"HEAD"}:
            reply = plain(405, "GET and HEAD only")
            reply.headers["Allow"] = "GET, HEAD"
        else:
            reply = await self._answer(head.url)
        await self._send(writer, reply, keep=keep, head=method == b"HEAD")
        return keep

    async def _answer(self, url: bytes) -> Reply:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        try:
            target = url.decode("ascii")
            found = None if target == HEALTH else route(target)
        except ValueError as error:
            return plain(400, f"wrong request: {error}"[:200] if str(error).isprintable() else "wrong request")
        if found is None:
            return plain(200, "ok") if target == HEALTH else plain(404, "no such endorsement is served here")
        wanted, path, query = found
        at_hand = False
        try:
            at_hand = await loop.run_in_executor(self._quick, self._front.at_hand, wanted)
            if not at_hand and self._waiting >= MAX_WAITING:
                reply = plain(503, "too many requests wait for sources")
                reply.headers["Retry-After"] = "5"
            else:
                self._waiting += not at_hand
                try:
                    pool = self._quick if at_hand else self._slow
                    reply = await loop.run_in_executor(pool, self._front.answer, wanted, path, query)
                finally:
                    self._waiting -= not at_hand
        except AdytonError as error:
            reply = refusal(error)
        except Exception:  # noqa: BLE001 -- the last door: one request's defect is not the end of the server
            _LOG.exception("a request failed")
            reply = plain(500, "internal error")
        kind = "/".join(wanted.name.split("/")[:2])  # further parts may identify a machine
        _LOG.info("%s %d %s %.1f ms", kind, reply.status, "cache" if at_hand else "asked", 1000 * (loop.time() - begin))
        return reply

    @staticmethod
    async def _send(writer: asyncio.StreamWriter, reply: Reply, *, keep: bool, head: bool) -> None:
        lines = [
            f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}",
            f"Content-Type: {reply.content_type}",
            f"Content-Length: {len(reply.body)}",
            f"Request-ID: {secrets.token_hex(16)}",
            "X-Content-Type-Options: nosniff",
            *(f"{name}: {value}" for name, value in reply.headers.items()),
            *(() if keep else ("Connection: close",)),
        ]
        writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (b"" if head else reply.body))
        async with asyncio.timeout(WRITE_SECONDS):
            await writer.drain()


def tls_context(certificate: str, private_key: str) -> ssl.SSLContext:
    """TLS 1.2 or later with this PEM chain and key; ``PlatformError`` if they cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, private_key)
    except (OSError, ssl.SSLError) as error:
        raise PlatformError(
            "the certificate or its key cannot be used", code="certificate_unreadable", field=certificate
        ) from error
    return context
