"""The clients of ``bench/load.py``: many kept connections on one loop, with as little CPU of their own as Python allows.

Requests are written as bytes beforehand. A handshake is POST auth, POST attest, GET resource; the attest answers a
challenge that was fetched, and the evidence for it made, before the clock runs, so what is timed is the broker's work
and never the making of evidence.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import uvloop

Prepared = tuple[bytes, bytes]
"""Body and cookie of an attest that was begun."""


class Line(asyncio.Protocol):
    """One kept connection: a request, then its answer."""

    def __init__(self) -> None:
        self.transport: asyncio.WriteTransport | None = None
        self.waiting: asyncio.Future[tuple[bytes, bytes]] | None = None
        self.read = b""
        self.wanted = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands."""
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing here closes one that is waited for."""
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(exc or ConnectionError("the broker closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Until head and body are there."""
        self.read = self.read + data if self.read else data
        if not self.wanted:
            end = self.read.find(b"\r\n\r\n")
            if end < 0:
                return
            at = self.read.find(b"content-length: ") + 16
            self.wanted = end + 4 + int(self.read[at : self.read.find(b"\r\n", at)])
        if len(self.read) >= self.wanted and self.waiting is not None:
            head, _, body = self.read.partition(b"\r\n\r\n")
            self.read, self.wanted = b"", 0
            self.waiting.set_result((head, body))

    def ask(self, request: bytes) -> asyncio.Future[tuple[bytes, bytes]]:
        """Head and body of the answer."""
        assert self.transport is not None
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.waiting


def request(method: str, path: str, body: bytes = b"", cookie: bytes = b"") -> bytes:
    """A whole request as bytes."""
    lines = [f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode()]
    if cookie:
        lines.append(b"Cookie: " + cookie + b"\r\n")
    if body:
        lines.append(b"Content-Length: %d\r\n" % len(body))
    return b"".join([*lines, b"\r\n", body])


def ok(answer: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """Body and cookie of a 200; anything else ends the run."""
    head, body = answer
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"{head[:300]!r} {body[:300]!r}")
    at = head.find(b"set-cookie: ")
    return body, head[at + 12 :].partition(b";")[0] if at >= 0 else b""


@dataclass
class Load:
    """Clients of one broker. ``resource`` is the path of what is fetched, ``hello`` the body of an auth."""

    port: int
    hello: bytes
    resource: str
    tls: bool = False

    def __post_init__(self) -> None:
        self._auth = request("POST", "/kbs/v0/auth", self.hello)

    def run(
        self,
        connections: int,
        work: Callable[[list[Line]], Awaitable[object]],
        owners: Callable[[], Mapping[int, int]] | None = None,
        workers: int = 1,
    ) -> object:
        """``work`` with so many connections, each of which has answered once.

        ``owners`` tells which process has taken the connection from a port of ours. Then each of ``workers`` has as many
        as any other: by themselves they come near that, and what is compared should not differ by chance.
        """

        async def main() -> object:
            lines: list[Line] = []
            taken: dict[int, int] = {}
            for _ in range(connections * 20):
                if len(lines) == connections:
                    break
                line = await self._connect()
                ok(await line.ask(self._auth))
                assert line.transport is not None
                if owners is not None:
                    owner = owners().get(line.transport.get_extra_info("sockname")[1], 0)
                    if taken.get(owner, 0) >= connections // workers:
                        line.transport.close()
                        continue
                    taken[owner] = taken.get(owner, 0) + 1
                lines.append(line)
            else:
                raise SystemExit("one worker takes all connections")
            result = await work(lines)
            for line in lines:
                if line.transport is not None:
                    line.waiting = None
                    line.transport.close()
            await asyncio.sleep(0.05)
            return result

        return uvloop.run(main())

    async def _connect(self) -> Line:
        context = None
        if self.tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # what is timed is not the client's care
        loop = asyncio.get_running_loop()
        _, line = await loop.create_connection(Line, "127.0.0.1", self.port, ssl=context)
        return line

    async def begin(self, lines: Sequence[Line], count: int) -> list[tuple[bytes, bytes]]:
        """So many challenges, each with its cookie."""
        return [ok(await lines[number % len(lines)].ask(self._auth)) for number in range(count)]

    async def handshakes(
        self, lines: Sequence[Line], prepared: Sequence[Prepared], *, auth: bool = True, rate: float = 0.0
    ) -> tuple[float, list[float]]:
        """Seconds for all, and each one's own in ms. ``rate``: so many begin a second, and wait for nobody.

        Then the time of one that finds all connections busy runs from when it should have begun.
        """
        queue = list(enumerate(prepared))[::-1]
        get = f"/kbs/v0/resource/{self.resource}"
        took: list[float] = []
        began = time.perf_counter()

        async def client(line: Line) -> None:
            while queue:
                number, (body, cookie) = queue.pop()
                since = time.perf_counter()
                if rate:
                    since = began + number / rate
                    if (early := since - time.perf_counter()) > 0:
                        await asyncio.sleep(early)
                if auth:
                    ok(await line.ask(self._auth))
                _, cookie = ok(await line.ask(request("POST", "/kbs/v0/attest", body, cookie)))
                ok(await line.ask(request("GET", get, b"", cookie)))
                took.append((time.perf_counter() - since) * 1e3)

        await asyncio.gather(*(client(line) for line in lines))
        return time.perf_counter() - began, sorted(took)

    async def gets(self, lines: Sequence[Line], cookie: bytes, count: int) -> tuple[float, list[float]]:
        """As ``handshakes``, of the resource alone, on a session that is attested."""
        asked = request("GET", f"/kbs/v0/resource/{self.resource}", b"", cookie)
        left = count
        took: list[float] = []
        began = time.perf_counter()

        async def client(line: Line) -> None:
            nonlocal left
            while left > 0:
                left -= 1
                since = time.perf_counter()
                ok(await line.ask(asked))
                took.append((time.perf_counter() - since) * 1e3)

        await asyncio.gather(*(client(line) for line in lines))
        return time.perf_counter() - began, sorted(took)

    def challenges(self, connections: int, count: int, *, together: int = 8) -> float:
        """So many handshakes that nobody goes on with, some requests sent together on each connection; seconds."""
        left = count

        async def client(counting: Counting) -> None:
            nonlocal left
            while left > 0:
                now = min(together, left)
                left -= now
                await counting.ask(self._auth * now, now)

        async def main() -> float:
            loop = asyncio.get_running_loop()
            made = [await loop.create_connection(Counting, "127.0.0.1", self.port) for _ in range(connections)]
            began = time.perf_counter()
            await asyncio.gather(*(client(counting) for _, counting in made))
            took = time.perf_counter() - began
            for transport, _ in made:
                transport.close()
            await asyncio.sleep(0.05)
            return took

        return uvloop.run(main())


class Counting(asyncio.Protocol):
    """A connection that counts answers, each a 200, and reads no more of them."""

    _GOOD = b"HTTP/1.1 200 OK"

    def __init__(self) -> None:
        self.transport: asyncio.WriteTransport | None = None
        self.waiting: asyncio.Future[None] | None = None
        self.missing = 0
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands."""
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing here closes one that is waited for."""
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(exc or ConnectionError("the broker closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Count."""
        read = self.tail + data
        answers, good = read.count(b"HTTP/1.1 "), read.count(self._GOOD)
        self.tail = read[-len(self._GOOD) + 1 :]
        if answers > good and not (answers == good + 1 and b"HTTP/1.1 " in self.tail):
            raise SystemExit(f"not all were answered: {read[:300]!r}")
        self.missing -= good
        if self.missing <= 0 and self.waiting is not None and not self.waiting.done():
            self.tail = b""
            self.waiting.set_result(None)

    def ask(self, requests: bytes, count: int) -> asyncio.Future[None]:
        """Done when all of them are answered."""
        assert self.transport is not None
        self.missing, self.tail = count, b""
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(requests)
        return self.waiting
