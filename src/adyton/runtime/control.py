"""A connection to the platform service's control socket."""

from __future__ import annotations

import array
import contextlib
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from adyton import errors
from adyton.errors import AdytonError, Unavailable
from adyton.protocol import devtee


class Control:
    """Requests out, replies in. One connection carries one request and what follows from it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    @classmethod
    def connect(cls, path: Path) -> Control:
        """``Unavailable`` with code ``platform_absent`` when nobody listens there."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.connect(str(path))
        except OSError as error:
            connection.close()
            raise Unavailable(
                "the development TEE's platform service is not running",
                code="platform_absent",
                got=error.strerror or str(error),
                expected=str(path),
                hint="start it: adyton devtee serve",
            ) from error
        return cls(connection)

    def send(self, message: devtee.ControlRequest, descriptors: Sequence[int] = ()) -> None:
        """One request; ``descriptors`` go with its first byte.

        A service that has left is not said here: it may have said why before, and ``receive`` has that first.
        """
        data = devtee.frame(message)
        try:
            if descriptors:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
                data = data[self._connection.sendmsg([data], rights) :]
            self._connection.sendall(data)
        except ConnectionError:
            return
        except OSError as error:
            raise _gone() from error

    def receive(self) -> devtee.ControlReply | None:
        """The next reply, ``None`` when the service closed after a whole one. ``Failed`` raises what it carries."""
        header = self._exactly(devtee.HEADER.size)
        if header is None:
            return None
        body = self._exactly(devtee.body_length(header))
        if body is None:
            raise _gone()
        reply: devtee.ControlReply = devtee.decode(devtee.CONTROL_REPLY, body)
        if isinstance(reply, devtee.Failed):
            raise failure(reply)
        return reply

    def replies(self) -> Iterator[devtee.ControlReply]:
        """Everything that comes, until the service closes."""
        while (reply := self.receive()) is not None:
            yield reply

    def ask(self, message: devtee.ControlRequest) -> devtee.ControlReply:
        """One request, one reply."""
        self.send(message)
        reply = self.receive()
        if reply is None:
            raise _gone()
        return reply

    def close(self) -> None:
        """End the connection. The service lets a running instance of it run on."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _exactly(self, length: int) -> bytes | None:
        data = bytearray()
        while len(data) < length:
            piece = b""
            with contextlib.suppress(ConnectionError):
                piece = self._connection.recv(min(length - len(data), 1 << 16))
            if not piece:
                if data:
                    raise _gone()
                return None
            data += piece
        return bytes(data)


def failure(reply: devtee.Failed) -> AdytonError:
    """The error that a ``Failed`` carries, of its own class where this version knows it."""
    told = reply.error

    def text(name: str) -> str | None:
        value = told.get(name)
        return value if isinstance(value, str) else None

    message = text("message") or "the development TEE could not do it"
    kind = getattr(errors, text("kind") or "", None)
    if kind is errors.ReleaseRefused:
        reasons = told.get("reasons")
        listed = tuple(str(reason) for reason in reasons) if isinstance(reasons, list) else ()
        return errors.ReleaseRefused(message, reasons=listed, code=text("code"), hint=text("hint"))
    if kind is errors.TooMany:
        return errors.TooMany(message, code=text("code"), hint=text("hint"))
    chosen = kind if isinstance(kind, type) and issubclass(kind, AdytonError) else AdytonError
    return chosen(
        message,
        code=text("code"),
        tee=text("tee"),
        field=text("field"),
        expected=told.get("expected"),
        got=told.get("got"),
        spec=text("spec"),
        hint=text("hint"),
    )


def failed(error: AdytonError) -> devtee.Failed:
    """The frame for an error; what ``failure`` reads."""
    return devtee.Failed({**msgspec.to_builtins(error.as_dict()), "kind": type(error).__name__})


def _gone() -> Unavailable:
    return Unavailable(
        "the development TEE's platform service went away", code="platform_gone", hint="look at its log: adyton devtee"
    )
