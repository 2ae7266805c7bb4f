"""The agent's end of the report channel: the one descriptor that says which instance this is.

A thread reads it once the document is here, so that a signal reaches the workload, or ends a long pull, at any moment.
It is close-on-exec: neither the OCI runtime nor the workload ever holds it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from queue import SimpleQueue

from adyton.errors import MalformedRequest, Unavailable
from adyton.protocol import devtee

Event = devtee.Signal | devtee.Resize
REPORT_TIMEOUT = 30.0


class Channel:
    """Frames over a stream socket. ``send`` and ``report`` may be called from any thread, one report at a time."""

    def __init__(self, connection: socket.socket) -> None:
        connection.set_inheritable(False)
        connection.setblocking(True)
        self._connection = connection
        self._sending = threading.Lock()
        self._answers: SimpleQueue[devtee.Report | devtee.Failed | None] = SimpleQueue()

    def start(self) -> devtee.Start:
        """The first frame; ``MalformedRequest`` if it is anything else, ``Unavailable`` if there is none."""
        message = self._receive()
        if message is None:
            raise Unavailable("the platform went away before it said what to run", code="platform_gone")
        if not isinstance(message, devtee.Start):
            raise MalformedRequest("the platform's first message is not Start", code="frame_unexpected")
        return message

    def listen(self, on_event: Callable[[Event | None], None]) -> None:
        """Read on from now on, in a thread. ``on_event`` gets signals and sizes, and ``None`` when the platform left."""
        threading.Thread(target=self._read, args=(on_event,), name="channel", daemon=True).start()

    def send(self, message: devtee.FromAgent) -> None:
        """One frame to the platform; ``Unavailable`` if it left."""
        try:
            with self._sending:
                self._connection.sendall(devtee.frame(message))
        except OSError as error:
            raise Unavailable("the platform went away", code="platform_gone") from error

    def report(self, report_data: bytes) -> devtee.Report:
        """A new report over 64 bytes. ``listen`` must have been called."""
        self.send(devtee.ReportRequest(report_data))
        import _queue

        try:
            answer = self._answers.get(timeout=REPORT_TIMEOUT)
        except _queue.Empty:
            raise Unavailable("the platform did not make a report in time", code="report_failed") from None
        if isinstance(answer, devtee.Report):
            return answer
        reason = answer.error.get("message") if answer is not None else "the platform went away"
        raise Unavailable(f"the platform made no report: {str(reason)[:200]}", code="report_failed", tee="snp")

    def _read(self, on_event: Callable[[Event | None], None]) -> None:
        while True:
            try:
                message = self._receive()
            except (MalformedRequest, Unavailable):
                message = None  # a platform that talks nonsense is as good as gone
            if message is None:
                self._answers.put(None)
                on_event(None)
                return
            if isinstance(message, devtee.Report | devtee.Failed):
                self._answers.put(message)
            elif isinstance(message, devtee.Signal | devtee.Resize):
                on_event(message)

    def _receive(self) -> devtee.ToAgent | None:
        header = self._exactly(devtee.HEADER.size)
        if header is None:
            return None
        body = self._exactly(devtee.body_length(header))
        if body is None:
            raise Unavailable("the platform went away in the middle of a message", code="platform_gone")
        message: devtee.ToAgent = devtee.decode(devtee.TO_AGENT, body)
        return message

    def _exactly(self, length: int) -> bytes | None:
        """``length`` bytes, or ``None`` if the peer closed before the first of them."""
        data = bytearray()
        while len(data) < length:
            try:
                piece = self._connection.recv(min(length - len(data), 1 << 16))
            except OSError:
                piece = b""
            if not piece:
                if data:
                    raise Unavailable("the platform went away in the middle of a message", code="platform_gone")
                return None
            data += piece
        return bytes(data)
