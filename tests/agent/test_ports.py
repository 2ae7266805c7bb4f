"""The forwarder under load: much data both ways, half-closed connections, peers that vanish."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from tests import ports
from tests.waiting import LONG

from adyton.agent.ports import Forwarder
from adyton.errors import PlatformError
from adyton.protocol.devtee import Publish

pytestmark = pytest.mark.root  # entering a network namespace, be it one's own
Handler = Callable[[socket.socket], None]


@contextlib.contextmanager
def forwarded(handler: Handler) -> Iterator[int]:
    """A server behind a forwarder; the port to connect to."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError as error:
                    if error.errno != errno.EMFILE:
                        return
                    time.sleep(0.05)
                    continue
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        def serve(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                handler(connection)

        threading.Thread(target=accept, daemon=True).start()
        forwarder = Forwarder([Publish(server.getsockname()[1])])
        forwarder.serve(os.getpid())
        yield forwarder.published[0].host_port
        forwarder.close()
        server.shutdown(socket.SHUT_RDWR)


def echo(connection: socket.socket) -> None:
    while data := connection.recv(1 << 16):
        connection.sendall(data)


def count(connection: socket.socket) -> None:
    total = 0
    while data := connection.recv(1 << 16):
        total += len(data)
    connection.sendall(str(total).encode())


def everything(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


@pytest.mark.parametrize("address", ["256.0.0.1", "192.0.2.1"])
def test_addresses_that_are_not_here(address: str) -> None:
    with pytest.raises(PlatformError) as caught:
        Forwarder([Publish(80, 0, address)])
    assert caught.value.code == "port_unavailable"


def test_one_taken_port_frees_the_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = ports.reserve()
        with pytest.raises(PlatformError):
            Forwarder([Publish(80, port), Publish(81, taken.getsockname()[1])])
    socket.create_server(("127.0.0.1", port)).close()


def test_the_far_end_learns_that_this_one_has_ended() -> None:
    with forwarded(count) as port, socket.create_connection(("127.0.0.1", port), LONG) as client:
        client.sendall(b"x" * 3_000_000)
        client.shutdown(socket.SHUT_WR)
        assert everything(client) == b"3000000"


def test_much_data_both_ways_at_once() -> None:
    sent = os.urandom(1 << 20) * 8
    with forwarded(echo) as port, socket.create_connection(("127.0.0.1", port), LONG) as client:

        def send() -> None:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        assert everything(client) == sent
        sender.join()


def test_many_connections() -> None:
    with forwarded(echo) as port:
        clients = [socket.create_connection(("127.0.0.1", port), LONG) for _ in range(100)]
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
            client.shutdown(socket.SHUT_WR)
        assert [everything(client) for client in clients] == [b"%d" % number for number in range(100)]
        for client in clients:
            client.close()


def test_more_connections_than_descriptors_wait_and_are_served() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with forwarded(echo) as port, contextlib.ExitStack() as held:
        idle = [held.enter_context(socket.create_connection(("127.0.0.1", port), LONG)) for _ in range(5)]
        for connection in idle:  # both ends of each are open now
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
        late = [held.enter_context(socket.socket()) for _ in range(4)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (late[-1].fileno() + 8, hard))
        filled: list[int] = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    filled.append(os.open(os.devnull, os.O_RDONLY))
            os.close(filled.pop())  # one is free for a connection that needs two
            for connection in late:
                connection.settimeout(LONG)
                connection.connect(("127.0.0.1", port))
            time.sleep(0.3)
            began = time.process_time()
            time.sleep(0.3)
            assert time.process_time() - began < 0.1  # it waits, it does not spin
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in filled:
                os.close(descriptor)
        for connection in idle:
            connection.close()
        with socket.create_connection(("127.0.0.1", port), LONG) as another:
            another.sendall(b"still here")
            assert another.recv(10) == b"still here"
        for connection in late:
            connection.sendall(b"y")
            assert connection.recv(1) == b"y"


def test_a_vanished_client_does_not_hold_the_server_up() -> None:
    ended = threading.Event()

    def until_gone(connection: socket.socket) -> None:
        try:
            while True:
                connection.sendall(b"y" * (1 << 16))
        finally:
            ended.set()

    with forwarded(until_gone) as port:
        client = socket.create_connection(("127.0.0.1", port), LONG)
        client.recv(10)
        client.close()
        assert ended.wait(LONG)
        time.sleep(0.1)
        with socket.create_connection(("127.0.0.1", port), LONG) as other:  # and the forwarder lives
            assert other.recv(1) == b"y"
