"""What is sent a second time, and what never is."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from adyton.client.address import BrokerAddress
from adyton.client.transport import Reply, Transport
from adyton.errors import Unavailable

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Forgetful:
    """Answers the first request of each connection. After the second it is gone (``silent``), or it hangs up at once."""

    def __init__(self, *, silent: bool) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = BrokerAddress(f"http://127.0.0.1:{self.listener.getsockname()[1]}")
        self.asked: list[str] = []
        self.hung_up = threading.Event()
        self._silent = silent
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client:
                self._take(client)
                client.sendall(ANSWER)
                if self._silent:
                    self._take(client)
            self.hung_up.set()

    def _take(self, client: socket.socket) -> None:
        read = client.recv(65536)
        if read:
            self.asked.append(read.split(b" HTTP")[0].decode())

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def silent() -> Iterator[Forgetful]:
    server = Forgetful(silent=True)
    yield server
    server.close()


@pytest.fixture
def hanging_up() -> Iterator[Forgetful]:
    server = Forgetful(silent=False)
    yield server
    server.close()


@pytest.mark.parametrize(("method", "path"), [("POST", "/api/v1/keys/a/b/c/rotate"), ("DELETE", "/api/v1/tenant")])
def test_a_change_that_may_have_been_made_is_not_asked_for_twice(silent: Forgetful, method: str, path: str) -> None:
    with Transport(silent.address) as transport:
        transport.request("GET", "/first")
        with pytest.raises(Unavailable) as caught:
            transport.request(method, path, b"{}")
    assert silent.asked == ["GET /first", f"{method} {path}"]
    assert "may have been done" in str(caught.value.hint)


@pytest.mark.parametrize(("method", "path"), [("GET", "/api/v1/keys"), ("POST", "/kbs/v0/attest")])
def test_what_may_be_repeated_is(silent: Forgetful, method: str, path: str) -> None:
    with Transport(silent.address) as transport:
        transport.request("GET", "/first")
        assert transport.request(method, path).status == 200
    assert silent.asked == ["GET /first", f"{method} {path}", f"{method} {path}"]


def test_a_connection_that_is_over_is_seen_before_a_change_is_sent(hanging_up: Forgetful) -> None:
    with Transport(hanging_up.address) as transport:
        transport.request("GET", "/first")
        assert hanging_up.hung_up.wait(5)
        assert transport.request("POST", "/api/v1/keys/a/b/c/rotate", b"{}").status == 200
    assert hanging_up.asked == ["GET /first", "POST /api/v1/keys/a/b/c/rotate"]


@pytest.mark.parametrize(("said", "seconds"), [("3", 3), ("\xb2", 1), ("-1", 1), ("9" * 30, 1), ("600", 10), ("", 1)])
def test_how_long_to_wait(said: str, seconds: int) -> None:
    assert Reply(429, {"retry-after": said}, b"").retry_after == seconds
