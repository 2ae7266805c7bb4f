"""The untrusted wire between the TEE and the broker: it forwards everything, and remembers it.

What anybody on the path could do: record a handshake and play it again later.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class RecordingWire:
    """A TCP forwarder on a free loopback port. ``url`` is where the TEE is told that its broker is."""

    def __init__(self, broker_url: str) -> None:
        parts = urlsplit(broker_url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._sent: list[bytearray] = []
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, name="wire", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    def recorded_attestations(self) -> list[bytes]:
        """The bodies of every ``POST …/attest`` that went past, oldest first."""
        with self._lock:
            streams = [bytes(stream) for stream in self._sent]
        return [body for stream in streams for body in _attestations(stream)]

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target, timeout=10)
                far.settimeout(None)
            except OSError:
                near.close()
                continue
            record = bytearray()
            with self._lock:
                self._sent.append(record)
                self._open |= {near, far}
            threading.Thread(target=self._pump, args=(near, far, record), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, None), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, record: bytearray | None) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                if record is not None:
                    with self._lock:
                        record += piece
                target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        if record is None:  # the answering side is done: so is the connection
            with self._lock:
                self._open -= {source, target}
            source.close()
            target.close()


def _attestations(stream: bytes) -> list[bytes]:
    bodies: list[bytes] = []
    position = 0
    while (end := stream.find(b"\r\n\r\n", position)) >= 0:
        head = stream[position:end].decode("latin-1").split("\r\n")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        length = int(fields.get("content-length", "0"))
        body = stream[end + 4 : end + 4 + length]
        if head[0].startswith("POST ") and head[0].split()[1].endswith("/attest") and len(body) == length:
            bodies.append(body)
        position = end + 4 + length
    return bodies
