"""More connections than places: peers that never speak, that stop half-way, that stay; and no descriptors left at all."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvloop
from tests.broker import rig
from tests.waiting import LONG, until

from adyton.broker.door import certificate, entrance, refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.connection import Connection, HttpRequest
from adyton.broker.door.entrance import Entrance
from adyton.broker.door.worker import Limits, Worker

GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
LIMITS = Limits(head_seconds=20.0, body_seconds=20.0, idle_seconds=20.0, max_connections=20, sweep_seconds=0.05)


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Enough of them for both sides."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate.make(tmp_path_factory.mktemp("tls"), ["localhost"], datetime.fromtimestamp(time.time(), UTC))


class Served:
    """An entrance on a loop in a thread, as a worker has it."""

    def __init__(self, limits: Limits, context: ssl.SSLContext | None, new_loop: object) -> None:
        self.worker = Worker(self.answer, limits, refusals.OVERLOADED, refusals.UNREADABLE)  # type: ignore[arg-type]
        self.loop: asyncio.AbstractEventLoop = new_loop()  # type: ignore[operator]
        self.ready = threading.Event()
        self.stop, self.go = asyncio.Event(), asyncio.Event()
        self.drain_seconds = 2.0
        self.context = context
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        assert self.ready.wait(LONG)

    async def slow(self) -> Answer:
        await self.go.wait()
        return Answer(200, b"slow")

    def answer(self, request: HttpRequest) -> object:
        return self.slow() if request.target == b"/slow" else Answer(200, b"here")

    def run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self.main())
        self.loop.close()

    async def main(self) -> None:
        self.entrance = Entrance(self.worker, socket.create_server(("127.0.0.1", 0), backlog=1024), self.context)
        self.port = self.entrance.port
        sweep = asyncio.ensure_future(self.worker.sweep())
        self.ready.set()
        await self.stop.wait()
        self.entrance.take_all()
        self.entrance.close()
        await self.worker.drain(self.drain_seconds)
        sweep.cancel()

    @property
    def places(self) -> int:
        return len(self.worker.connections) + len(self.worker.arriving)

    def end(self) -> None:
        with suppress(RuntimeError):  # it has ended
            self.loop.call_soon_threadsafe(self.stop.set)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=LONG)


@contextmanager
def serving(
    limits: Limits, files: tuple[Path, Path] | None, new_loop: object = uvloop.new_event_loop
) -> Iterator[Served]:
    context = None
    if files is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
    served = Served(limits, context, new_loop)
    try:
        yield served
    finally:
        served.end()
        served.thread.join(LONG)
        assert not served.thread.is_alive()


def trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def asked(port: int, *, tls: bool) -> bytes:
    """What a client gets that comes once."""
    with socket.create_connection(("127.0.0.1", port), timeout=LONG) as plain:
        if not tls:
            plain.sendall(GET)
            return plain.recv(4096)
        with trusting().wrap_socket(plain) as client:
            client.sendall(GET)
            return client.recv(4096)


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("places", ["50", "1024"])
def test_thousands_who_never_speak_keep_nobody_out(tmp_path: Path, tls: bool, places: str) -> None:
    running = rig.started(tmp_path / "data", None, "--max-connections", places, *(["--tls"] if tls else []))
    assert running.process is not None
    try:
        with ExitStack() as silent:
            for _ in range(3000):
                silent.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=LONG))
            for _ in range(5):
                began = time.monotonic()
                assert asked(running.port, tls=tls).startswith(b"HTTP/1.1 200"), "the first try succeeds"
                assert time.monotonic() - began < 8
            assert descriptors_of(running.process.pid) <= int(places) + 100
            assert not (tmp_path / "data.log").read_text().count("accept_failed")
        assert asked(running.port, tls=tls).startswith(b"HTTP/1.1 200")
    finally:
        assert running.stop() == 0


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_places_count_from_the_first_moment_on(files: tuple[Path, Path], new_loop: object) -> None:
    with serving(LIMITS, files, new_loop) as served, ExitStack() as open_:
        held = [open_.enter_context(served.connect()) for _ in range(25)]
        until(lambda: served.worker.taken == 25)
        assert served.places <= 20 and served.worker.refused == 5
        assert [one.recv(1) for one in held[:5]] == [b""] * 5, "who came first, and said nothing, makes way"
        assert asked(served.port, tls=True).endswith(b"here")
        until(lambda: served.places == 19)
        for one in held[6:]:
            one.close()
        until(lambda: served.places == 0)
        assert served.worker.unmade == 25


@pytest.mark.parametrize("said", [b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
def test_who_stops_within_its_handshake_makes_way_after_a_second(files: tuple[Path, Path], said: bytes) -> None:
    with serving(LIMITS, files) as served, ExitStack() as open_:
        for _ in range(20):
            one = open_.enter_context(served.connect())
            one.sendall(said)
        until(lambda: served.places == 20)
        with served.connect() as early, suppress(ConnectionResetError):
            assert early.recv(1) == b"", "they may be about to finish: the newcomer is turned away, at once"
        time.sleep(1.1)
        assert asked(served.port, tls=True).endswith(b"here")
        assert served.places <= 20


@pytest.mark.parametrize("tls", [True, False])
def test_who_only_stays_makes_way_and_who_is_answered_does_not(files: tuple[Path, Path], tls: bool) -> None:
    with serving(LIMITS, files if tls else None) as served, ExitStack() as open_:
        kept: list[socket.socket] = []
        for _ in range(20):
            one = open_.enter_context(served.connect())
            kept.append(open_.enter_context(trusting().wrap_socket(one)) if tls else one)
            kept[-1].sendall(GET)
            assert kept[-1].recv(4096).endswith(b"here")
            time.sleep(0.02)
        time.sleep(1.1)
        kept[0].sendall(GET)  # not idle any more
        assert kept[0].recv(4096).endswith(b"here")
        assert asked(served.port, tls=tls).endswith(b"here")
        assert kept[1].recv(1) == b"", "the one idle longest"
        for one in [kept[0], *kept[2:]]:
            one.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda: served.worker.busy == 19)
        with served.connect() as last:
            last.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab" if not tls else b"\x16")
            until(lambda: served.places == 20)
            if not tls:
                assert asked(served.port, tls=tls).startswith(b"HTTP/1.1 429 ")
        served.loop.call_soon_threadsafe(served.go.set)
        for one in [kept[0], *kept[2:]]:
            assert one.recv(4096).endswith(b"slow")


def test_a_handshake_under_way_at_the_end_is_finished_and_answered(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adyton.broker.door.connection.STOPPING_SECONDS", 3.0)
    with serving(LIMITS, files) as served, served.connect() as plain, served.connect() as silent:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = trusting().wrap_bio(incoming, outgoing)
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        hello = outgoing.read()
        plain.sendall(hello[:50])
        until(lambda: len(served.worker.arriving) == 2)
        served.drain_seconds = LONG
        began = time.monotonic()
        served.end()
        until(lambda: served.worker.stopping)
        plain.sendall(hello[50:])
        answer = b""
        while not answer:
            incoming.write(plain.recv(65536))
            try:
                client.do_handshake()
                client.write(GET)
                plain.sendall(outgoing.read())
                answer = client.read(4096)
            except ssl.SSLWantReadError:
                continue
        assert answer.endswith(b"here") and b"connection: close" in answer
        plain.close()
        served.thread.join(LONG)
        assert time.monotonic() - began < LONG / 2, "who says nothing does not hold up the end"
        assert silent.recv(1) == b""


@pytest.mark.parametrize("tls", [True, False])
def test_no_descriptor_left_is_waited_for_without_burning_the_cpu(tmp_path: Path, tls: bool) -> None:
    running = rig.started(tmp_path / "data", None, *(["--tls"] if tls else []))
    assert running.process is not None
    pid = running.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    try:
        assert asked(running.port, tls=tls).startswith(b"HTTP/1.1 200")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors_of(pid) + 10, hard))
        with ExitStack() as held:
            for _ in range(40):
                one = held.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=LONG))
                one.sendall(b"\x16\x03\x01\x02\x00" if tls else b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n")
            until(lambda: "accept_failed" in running.log())
            before = spent(pid)
            time.sleep(1.5)
            assert spent(pid) - before < 0.4, "seconds of CPU, in one and a half"
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
            began = time.monotonic()
            assert asked(running.port, tls=tls).startswith(b"HTTP/1.1 200"), "it goes on as soon as there are some"
            assert time.monotonic() - began < 10
        assert running.log().count("accept_failed") == 1
    finally:
        assert running.stop() == 0


def descriptors_of(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def spent(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_flood_is_looked_at_in_bounded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody makes way, newcomers do not each make the worker look at everybody."""
    looked = 0
    limits = replace(LIMITS, max_connections=300)
    with serving(limits, None) as served, ExitStack() as open_:
        for _ in range(300):
            one = open_.enter_context(served.connect())
            one.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")  # has five seconds
        until(lambda: len(served.worker.connections) == 300)
        inner = Connection.patience

        def counted(self: object, now: float) -> float:
            nonlocal looked
            looked += 1
            return inner(self, now)  # type: ignore[arg-type]

        monkeypatch.setattr(Connection, "patience", counted)
        began = time.monotonic()
        for _ in range(400):
            with served.connect() as one:
                assert one.recv(4096).startswith(b"HTTP/1.1 429")
        assert looked <= 400 * entrance.LOOK + 300 * ((time.monotonic() - began) / entrance.LOOK_AGAIN_SECONDS + 2)
