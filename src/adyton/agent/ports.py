"""Published ports: a TCP forwarder in user space from the host's network into the workload's.

The agent listens in the network namespace that it was started in; one thread then enters the workload's namespace, so
that the sockets it makes from there on are the workload's loopback. Sockets keep the namespace they were made in, and
threads may differ in theirs.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from adyton.agent import kernel
from adyton.errors import PlatformError
from adyton.protocol.devtee import Publish

_BUFFER = 1 << 18
_PATIENCE = 0.1  # seconds between two looks whether descriptors are free again
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no wait: closing sends RST, as a closed port would


@dataclass(slots=True)
class _End:
    """One socket of a connection: what is still to be written to it, and whether its reading side has ended."""

    socket: socket.socket
    peer: _End | None = None
    pending: bytearray = field(default_factory=bytearray)
    connecting: bool = False
    ended: bool = False
    shut: bool = False


class Forwarder:
    """Listens at once, so that a taken port is an error before anything runs; forwards after ``serve``."""

    def __init__(self, publish: Sequence[Publish]) -> None:
        self._listeners: list[tuple[socket.socket, int]] = []
        self._selector = selectors.DefaultSelector()
        self._paused = 0.0  # until when
        self.published: list[Publish] = []
        try:
            for item in publish:
                listener = _listen(item)
                self._listeners.append((listener, item.container_port))
                port = int(listener.getsockname()[1])
                self.published.append(Publish(item.container_port, port, item.host_address))
        except BaseException:
            self.close()
            raise

    def serve(self, pid: int) -> None:
        """Forward into the network namespace of process ``pid`` from now on; ``OSError`` if it cannot be entered."""
        namespace = kernel.open_namespace(pid, "net")
        ready = threading.Event()
        failure: list[OSError] = []

        def enter() -> None:
            try:
                kernel.setns(namespace, kernel.CLONE_NEWNET)
            except OSError as error:
                failure.append(error)
            finally:
                os.close(namespace)
                ready.set()
            if not failure:
                self._loop()

        threading.Thread(target=enter, name="ports", daemon=True).start()
        ready.wait()
        if failure:
            raise failure[0]

    def close(self) -> None:
        """Stop listening."""
        for listener, _ in self._listeners:
            listener.close()

    def _loop(self) -> None:
        self._resume()
        while True:
            for key, events in self._selector.select(_PATIENCE if self._paused else None):
                if isinstance(key.data, int):
                    self._accept(key.fileobj, key.data)
                elif key.data.socket.fileno() >= 0:
                    self._step(key.data, events)
            if self._paused and time.monotonic() >= self._paused:
                self._resume()

    def _pause(self) -> None:
        """No descriptor is left: who comes now waits in the listeners' queues."""
        self._paused = time.monotonic() + _PATIENCE
        for listener, _ in self._listeners:
            if listener.fileno() in self._selector.get_map():
                self._selector.unregister(listener)

    def _resume(self) -> None:
        self._paused = 0.0
        for listener, port in self._listeners:
            if listener.fileno() >= 0:  # closed: the workload has ended
                self._selector.register(listener, selectors.EVENT_READ, port)

    def _accept(self, listener: object, port: int) -> None:
        assert isinstance(listener, socket.socket)  # noqa: S101 -- only sockets are registered
        try:
            inner_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        except OSError:
            self._pause()
            return
        try:  # second, so that nobody is accepted who has to be sent away
            outer_socket, _ = listener.accept()
        except OSError as error:
            inner_socket.close()
            if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                self._pause()
            return
        outer, inner = _End(outer_socket), _End(inner_socket, connecting=True)
        outer.peer, inner.peer = inner, outer
        try:
            for end in (outer, inner):
                end.socket.setblocking(False)
                end.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            inner_socket.connect_ex(("127.0.0.1", port))
            self._selector.register(inner_socket, selectors.EVENT_WRITE, inner)
        except OSError:
            self._drop(outer)

    def _step(self, end: _End, events: int) -> None:
        try:
            if end.connecting:
                self._connected(end)
            if events & selectors.EVENT_READ and end.peer is not None:
                data = end.socket.recv(_BUFFER)
                end.peer.pending += data
                end.ended = not data
                self._flush(end.peer)
            if events & selectors.EVENT_WRITE:
                self._flush(end)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(end)
            return
        self._watch(end)

    @staticmethod
    def _connected(end: _End) -> None:
        number = end.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
        end.connecting = False

    @staticmethod
    def _flush(end: _End) -> None:
        """Write what is pending; when the other side has ended and all is written, pass the end on."""
        if end.connecting:
            return
        try:
            while end.pending:
                del end.pending[: end.socket.send(end.pending)]
        except BlockingIOError:
            return
        if end.peer is not None and end.peer.ended and not end.shut:
            end.shut = True
            end.socket.shutdown(socket.SHUT_WR)

    def _watch(self, end: _End) -> None:
        peer = end.peer
        if peer is None:
            return
        if end.ended and peer.ended and not end.pending and not peer.pending:
            self._drop(end, reset=False)
            return
        for one, other in ((end, peer), (peer, end)):
            events = 0
            if not one.connecting and not one.ended and len(other.pending) < _BUFFER and not other.connecting:
                events |= selectors.EVENT_READ
            if one.connecting or one.pending:
                events |= selectors.EVENT_WRITE
            self._register(one, events)

    def _register(self, end: _End, events: int) -> None:
        registered = end.socket.fileno() in self._selector.get_map()
        if events and registered:
            self._selector.modify(end.socket, events, end)
        elif events:
            self._selector.register(end.socket, events, end)
        elif registered:
            self._selector.unregister(end.socket)

    def _drop(self, end: _End, *, reset: bool = True) -> None:
        for one in (end, end.peer):
            if one is None or one.socket.fileno() < 0:
                continue
            if one.socket.fileno() in self._selector.get_map():
                self._selector.unregister(one.socket)
            if reset:
                one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            one.socket.close()


def _listen(item: Publish) -> socket.socket:
    family = socket.AF_INET6 if ":" in item.host_address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((item.host_address, item.host_port))
        listener.listen(128)
        listener.setblocking(False)
    except (OSError, OverflowError) as error:
        listener.close()
        raise PlatformError(
            f"port {item.host_port} of {item.host_address} cannot be published",
            code="port_unavailable",
            field="publish",
            got=getattr(error, "strerror", None) or str(error),
            hint="another program has it; choose another: -p HOST_PORT:CONTAINER_PORT",
        ) from error
    return listener
