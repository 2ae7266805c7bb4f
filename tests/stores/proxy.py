"""A wire between a store and its database that can be cut, or fall silent, at a chosen moment."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Wire:
    """Forwards connections to ``port`` on loopback. ``deaf``: nothing comes back; ``silent``: nothing passes at all.

    ``unheard``: how many pieces of answers came while it was deaf.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.deaf = self.silent = False
        self.unheard = 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            while self.silent:
                time.sleep(0.01)
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            self._pairs.append((near, far))
            threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                while self.silent:
                    time.sleep(0.005)
                if answers and self.deaf:
                    self.unheard += 1
                    continue
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        source.close()  # the other direction closes the other one

    def cut(self) -> None:
        """Break every connection there is; new ones work."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for one in pair:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.silent = False
        self.cut()
