"""Just enough of HTTP/2, written out, to misuse a port that speaks gRPC: frames as they are, and no manners."""

from __future__ import annotations

import contextlib
import socket
import struct
from types import TracebackType
from typing import Self

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
INITIAL_WINDOW_SIZE = 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEALTH = "/grpc.health.v1.Health/Check"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _text(value: bytes) -> bytes:
    if len(value) < 127:
        return bytes([len(value)]) + value
    rest, out = len(value) - 127, b"\x7f"
    while rest >= 128:
        out += bytes([rest % 128 | 128])
        rest //= 128
    return out + bytes([rest]) + value


def header(name: str, value: str) -> bytes:
    """A literal that no table keeps."""
    return b"\x00" + _text(name.encode()) + _text(value.encode())


def head(path: str, *more: tuple[str, str]) -> bytes:
    given = (
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"),
        ("te", "trailers"), ("content-type", "application/grpc"), *more,
    )  # fmt: skip
    return b"".join(header(name, value) for name, value in given)


def message(body: bytes = b"") -> bytes:
    return b"\x00" + struct.pack(">I", len(body)) + body


class Raw:
    """One connection. ``window``: how much of each answer the client will take."""

    def __init__(self, address: str, *, window: int | None = None, preface: bool = True) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        self.read = b""
        settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, window) if window is not None else b""
        if preface:
            self.send(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(SETTINGS, 1, 0))
        self._stream = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.socket.sendall(data)

    def ask(self, path: str = HEALTH, body: bytes | None = b"", *more: tuple[str, str]) -> int:
        """A call; with ``body`` ``None`` its message never comes."""
        self._stream += 2
        self.send(frame(HEADERS, 4, self._stream, head(path, *more)))
        if body is not None:
            self.send(frame(DATA, 1, self._stream, message(body)))
        return self._stream

    def frames(self, until: int, stream: int | None = None) -> list[tuple[int, int, int, bytes]]:
        """What comes, until a frame of this kind (on this stream) has, or the end, or nothing for a while."""
        found = []
        while True:
            while len(self.read) >= 9:
                size = int.from_bytes(self.read[:3], "big")
                if len(self.read) < 9 + size:
                    break
                kind, flags = self.read[3], self.read[4]
                number = int.from_bytes(self.read[5:9], "big")
                found.append((kind, flags, number, self.read[9 : 9 + size]))
                self.read = self.read[9 + size :]
                if kind == until and stream in {None, number}:
                    return found
            try:
                more = self.socket.recv(65536)
            except OSError:
                return found
            if not more:
                return found
            self.read += more

    def ended(self, seconds: float) -> bool:
        """Whether the other side closes within ``seconds``."""
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True
