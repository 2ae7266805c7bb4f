"""What a client may do to a connection: be slow, leave half-way, send too much, send rubbish. Real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest
from tests.waiting import LONG, until

from adyton.broker.door import refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.connection import HttpRequest
from adyton.broker.door.entrance import Entrance
from adyton.broker.door.worker import Limits, Worker

LIMITS = Limits(
    max_body=1000,
    head_seconds=LONG,
    body_seconds=LONG,
    idle_seconds=LONG,
    max_connections=5,
    linger_seconds=0.2,
    sweep_seconds=0.05,
)
IMPATIENT = replace(LIMITS, head_seconds=0.6, body_seconds=0.6, idle_seconds=0.6)


@dataclass
class Served:
    port: int
    worker: Worker
    requests: list[HttpRequest] = field(default_factory=list)
    loop: asyncio.AbstractEventLoop | None = None


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(LIMITS) as running:
        yield running


@pytest.fixture
def impatient() -> Iterator[Served]:
    with serving(IMPATIENT) as running:
        yield running


@contextmanager
def serving(limits: Limits) -> Iterator[Served]:
    seen: list[HttpRequest] = []

    async def slow(request: HttpRequest) -> Answer:
        await asyncio.sleep(0.2)
        return Answer(200, b"slow")

    async def broken(request: HttpRequest) -> Answer:
        await asyncio.sleep(0)
        raise OverflowError("a defect")

    def application(request: HttpRequest) -> object:
        seen.append(request)
        if request.target == b"/slow":
            return slow(request)
        if request.target == b"/broken":
            raise OverflowError("a defect")
        if request.target == b"/broken-later":
            return broken(request)
        if request.target == b"/large":
            return Answer(200, bytes(30_000_000))
        return Answer(200, request.target + b" " + request.body)

    worker = Worker(application, limits, refusals.OVERLOADED, refusals.UNREADABLE)  # type: ignore[arg-type]
    ready = threading.Event()
    box: dict[str, object] = {}

    async def main() -> None:
        loop = asyncio.get_running_loop()
        entrance = Entrance(worker, socket.create_server(("127.0.0.1", 0)), None)
        box.update(port=entrance.port, loop=loop, stop=asyncio.Event())
        sweep = asyncio.ensure_future(worker.sweep())
        ready.set()
        await box["stop"].wait()  # type: ignore[attr-defined]
        entrance.close()
        await worker.drain(1.0)
        sweep.cancel()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert ready.wait(LONG)
    loop = box["loop"]
    assert isinstance(loop, asyncio.AbstractEventLoop)
    try:
        yield Served(int(str(box["port"])), worker, seen, loop)
    finally:
        loop.call_soon_threadsafe(box["stop"].set)  # type: ignore[attr-defined]
        thread.join(LONG)
    assert not thread.is_alive()


def connect(served: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), timeout=LONG)


def read_all(client: socket.socket) -> bytes:
    data = b""
    try:
        while piece := client.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


def ask(served: Served, request: bytes) -> bytes:
    with connect(served) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        return read_all(client)


def test_an_ordinary_request(served: Served) -> None:
    answer = ask(served, b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n/a?b ")
    assert b"cache-control: no-store" in answer


def test_keep_alive_and_pieces(served: Served) -> None:
    with connect(served) as client:
        for _ in range(3):
            for byte in b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc":
                client.sendall(bytes([byte]))
            assert client.recv(4096).endswith(b"/p abc")


def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    many = b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(50))
    answer = ask(served, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + many)
    bodies = [part.split(b"\r\n\r\n", 1)[1].strip() for part in answer.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [b"slow", *(b"/%d" % number for number in range(50))]


def test_half_closed_still_gets_its_answer(served: Served) -> None:
    assert ask(served, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"slow")


def test_half_closed_in_the_middle_of_a_body(served: Served) -> None:
    assert ask(served, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc") == b""
    assert not served.requests


def test_gone_before_the_answer(served: Served) -> None:
    client = connect(served)
    client.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    until(lambda: served.worker.busy == 1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()  # a reset
    until(lambda: served.worker.busy == 0 and not served.worker.connections)
    assert ask(served, b"GET /after HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"/after ")


@pytest.mark.parametrize(
    "trickle",
    [
        b"",
        b"GET / HTTP/1.1\r\nX-A: ",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_slow_clients_are_cut(impatient: Served, trickle: bytes) -> None:
    with connect(impatient) as client:
        client.sendall(trickle)
        started = time.monotonic()
        client.settimeout(0.05)
        while time.monotonic() - started < LONG:
            try:
                if not client.recv(4096):
                    break
            except TimeoutError:
                if b"Content-Length" in trickle or b"X-A" in trickle:
                    try:
                        client.sendall(b"a")  # a byte now and then does not help
                    except OSError:
                        break
            except OSError:
                break
        assert 0.2 < time.monotonic() - started < LONG / 2


def test_a_client_that_does_not_read_is_cut(impatient: Served) -> None:
    with connect(impatient) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: impatient.requests)
        until(lambda: not impatient.worker.connections)


def _lingers_at_most(served: Served) -> bool:
    latest = time.monotonic() + LIMITS.linger_seconds  # not the longer time that a body may take
    return all(connection.deadline <= latest for connection in list(served.worker.connections))


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n" + b"a" * 1001,
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"200\r\n" + b"a" * 512 + b"\r\n") * 3,
        b"GET / HTTP/1.1\r\nX-A: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 40_000 + b"\r\n",
    ],
)
def test_too_large_is_413_with_the_error_body(served: Served, request_: bytes) -> None:
    with connect(served) as client:
        client.sendall(request_)
        answer = client.recv(4096)
        until(lambda: _lingers_at_most(served), LONG / 3)  # the answer is out before the deadline is set
        answer += read_all(client)
    assert answer.startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 400 ") if b"9999" in request_ else b"HTTP/1.1 413 ")
    assert b'"type":"https://github.com/confidential-containers/kbs/errors/' in answer
    assert not served.requests


def test_a_chunked_body(served: Served) -> None:
    chunked = b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert ask(served, chunked).endswith(b"/c abcde")


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HELLO\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"GET / HTTP/1.1\r\nA\0B: c\r\n\r\n",
    ],
)
def test_rubbish_is_400_and_the_end(served: Served, rubbish: bytes) -> None:
    answer = ask(served, rubbish)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in answer
    assert not served.requests


def test_expect_continue(served: Served) -> None:
    with connect(served) as client:
        client.sendall(b"POST /e HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"ab")
        assert client.recv(4096).endswith(b"/e ab")


def test_head_has_no_body(served: Served) -> None:
    assert ask(served, b"HEAD /h HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"\r\n\r\n")


def test_upgrade_is_ignored(served: Served) -> None:
    answer = ask(
        served, b"GET /u HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nPRI * HTTP/2.0\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert len(served.requests) == 1


def test_too_many_connections_are_told_so(served: Served) -> None:
    held = [connect(served) for _ in range(5)]
    for one in held:
        one.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    until(lambda: served.worker.busy == 5)
    with connect(served) as client:
        client.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after: 1\r\n" in answer
    for one in held:
        assert one.recv(4096).endswith(b"slow"), "nobody is cut while it is answered"
        one.close()
    until(lambda: not served.worker.connections)
    assert ask(served, b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"/x ")


def test_no_answers_are_made_for_who_does_not_read_them(served: Served) -> None:
    """Else a few hundred kilobytes of requests would fill the memory with answers."""
    with connect(served) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 5)
        until(lambda: served.requests)
        time.sleep(0.3)
        assert len(served.requests) == 1
        got = 0
        while got < 5 * 30_000_000 and (piece := client.recv(1 << 20)):
            got += len(piece)
    assert got > 5 * 30_000_000
    assert len(served.requests) == 5


def test_who_reads_slowly_is_served() -> None:
    limits = replace(LIMITS, body_seconds=2.0)
    with serving(limits) as served, connect(served) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\nGET /after HTTP/1.1\r\nHost: x\r\n\r\n")
        began, got, tail = time.monotonic(), 0, b""
        while not tail.endswith(b"/after "):
            piece = client.recv(1_000_000)
            assert piece
            got, tail = got + len(piece), (tail + piece)[-20:]
            time.sleep(0.08)
        assert got > 30_000_000
        assert time.monotonic() - began > limits.body_seconds


@pytest.mark.parametrize(
    "said", [b"", b"POST /late HTTP/1.1\r\nHo", b"POST /late HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na"]
)
def test_who_is_asking_when_the_end_comes_is_answered(
    served: Served, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adyton.broker.door.connection.STOPPING_SECONDS", LONG)
    whole = b"POST /late HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    assert served.loop is not None
    with connect(served) as client, connect(served) as idle:
        idle.sendall(whole)
        assert idle.recv(4096).endswith(b"abc")
        client.sendall(said)
        time.sleep(0.1)
        drained = asyncio.run_coroutine_threadsafe(served.worker.drain(LONG), served.loop)
        assert idle.recv(4096) == b"", "who was answered and asks nothing is let go at once"
        client.sendall(whole[len(said) :])
        answer = read_all(client)
        assert answer.endswith(b"/late abc") and b"connection: close" in answer.lower()
    drained.result(LONG)


def test_who_came_and_asks_nothing_does_not_hold_up_the_end(served: Served) -> None:
    assert served.loop is not None
    with connect(served) as client:
        until(lambda: served.worker.connections)
        began = time.monotonic()
        asyncio.run_coroutine_threadsafe(served.worker.drain(LONG), served.loop).result(2 * LONG)
        assert time.monotonic() - began < LONG / 2 and read_all(client) == b""


@pytest.mark.parametrize("target", ["/broken", "/broken-later"])
def test_a_defect_is_the_brokers_and_the_connection_goes_on(
    served: Served, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(served) as client:
        client.sendall(f"GET {target} HTTP/1.1\r\n\r\n".encode())
        assert client.recv(65536).startswith(b"HTTP/1.1 500 ")
        client.sendall(b"GET /next HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert b"/next" in read_all(client)
    until(lambda: served.worker.busy == 0)
    assert "OverflowError: a defect" in caplog.text
