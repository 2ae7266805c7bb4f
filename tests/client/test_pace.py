"""Brokers that never come to an end: each answer has one, in seconds of the whole and in bytes of whatever kind."""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adyton.broker.door import certificate
from adyton.client.address import BrokerAddress
from adyton.client.pace import RATE, Pace, TooSlow
from adyton.client.transport import MAX_ANSWER, Transport
from adyton.errors import AdytonError, TooLarge, Unavailable

SECONDS = 0.4
PATIENCE = 15.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


class Hostile:
    """Takes connections, and does with each what it was told."""

    def __init__(self, act: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.over = threading.Event()
        self._act = act
        self._context = context
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            if self._context is None:
                self._act(client)
            else:
                with self._context.wrap_socket(client, server_side=True) as talking:
                    self._act(talking)

    def drip(self, client: socket.socket, pieces: Iterator[bytes]) -> None:
        for piece in pieces:
            if self.over.wait(0.02):
                return
            client.sendall(piece)

    def close(self) -> None:
        self.over.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def hostile() -> Iterator[Callable[..., Hostile]]:
    made: list[Hostile] = []

    def make(first: bytes, again: bytes, context: ssl.SSLContext | None = None, *, pause: bool = True) -> Hostile:
        def act(client: socket.socket) -> None:
            client.recv(65536)
            client.sendall(first)
            if pause:
                server.drip(client, itertools.repeat(again))
            else:
                while not server.over.is_set():
                    client.sendall(again)

        server = Hostile(act, context)
        made.append(server)
        return server

    yield make
    for one in made:
        one.close()


def refused(where: str, *, pin: str | None = None, body: bytes | None = None) -> AdytonError:
    began = time.monotonic()
    with Transport(BrokerAddress(where, pin=pin), timeout=SECONDS) as transport, pytest.raises(AdytonError) as caught:
        transport.request("GET" if body is None else "POST", "/api/v0/about", body)
    assert time.monotonic() - began < PATIENCE
    return caught.value


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (HEAD.replace(b" 2\r", b" 100000\r"), b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.0 200 OK\r\n\r\n", b"x"),
    ],
    ids=["status line", "header", "body", "chunks", "trailer", "continue", "until it closes"],
)
def test_an_answer_that_drips_ends(hostile: Callable[..., Hostile], first: bytes, again: bytes) -> None:
    error = refused(f"http://127.0.0.1:{hostile(first, again).port}")
    assert isinstance(error, Unavailable) and error.code == "broker_too_slow"
    assert "0.4 s" in str(error.expected) and "operator" in str(error.hint)


def test_over_tls_too(hostile: Callable[..., Hostile], tmp_path: Path) -> None:
    made, key = certificate.make(tmp_path, ["localhost"], datetime.now(UTC))  # noqa: TID251 -- a certificate of today
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    port = hostile(HEAD.replace(b" 2\r", b" 100000\r"), b"x", context).port
    assert refused(f"https://127.0.0.1:{port}", pin=certificate.pin(made)).code == "broker_too_slow"


def test_a_tls_handshake_that_drips_ends(hostile: Callable[..., Hostile]) -> None:
    port = hostile(b"\x16\x03\x03\x40\x00", b"\0").port
    assert refused(f"https://127.0.0.1:{port}", pin="sha256:" + "0" * 64).code == "broker_unreachable"


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n" * 1000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;" + b"x" * 60000 + b"\r\nx\r\n"),
        (b"HTTP/1.0 200 OK\r\n\r\n", b"x" * 65536),
    ],
    ids=["continue", "trailer", "chunks of little", "body"],
)
def test_an_answer_without_end_that_is_fast_ends_by_its_bytes(
    hostile: Callable[..., Hostile], first: bytes, again: bytes
) -> None:
    server = hostile(first, again, pause=False)
    address = BrokerAddress(f"http://127.0.0.1:{server.port}")
    with Transport(address, timeout=60) as transport, pytest.raises(TooLarge) as caught:
        transport.request("GET", "/")
    assert caught.value.code == "answer_too_large"


def test_who_reads_nothing_of_a_long_question_ends_it() -> None:
    near, far = socket.socketpair()
    with near, far:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            Pace(SECONDS, MAX_ANSWER).send(near, b"x" * 1_000_000)
    assert time.monotonic() - began < PATIENCE


def test_what_was_asked_for_once_may_have_been_done(hostile: Callable[..., Hostile]) -> None:
    error = refused(f"http://127.0.0.1:{hostile(HEAD, b'').port}", body=b"{}")
    assert error.code == "broker_too_slow" and "look before you ask again" in str(error.hint)


def test_the_next_replica_is_asked(hostile: Callable[..., Hostile]) -> None:
    slow, good = hostile(b"", b"H"), hostile(HEAD + b"{}", b"")
    address = BrokerAddress(f"http://127.0.0.1:{slow.port}", others=(f"http://127.0.0.1:{good.port}",))
    with Transport(address, timeout=SECONDS) as transport:
        assert transport.request("GET", "/").body == b"{}"


def test_a_long_answer_has_the_time_that_its_bytes_take() -> None:
    now = [0.0]
    near, far = socket.socketpair()
    with near, far:
        pace = Pace(1.0, MAX_ANSWER, lambda: now[0])
        raw = near.makefile("rb", buffering=0)
        for _ in range(100):  # twice the lowest rate, for a hundred times as long as a short answer may take
            far.sendall(b"x" * RATE)
            buffer = bytearray(RATE)
            got = 0
            while got < RATE:
                got += pace.readinto(near, raw, memoryview(buffer)[got:]) or 0
            now[0] += 0.5
        now[0] += 52
        with pytest.raises(TooSlow):
            pace.readinto(near, raw, bytearray(1))
        raw.close()
