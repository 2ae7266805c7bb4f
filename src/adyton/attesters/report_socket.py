"""The development TEE's report channel for a program that is an instance itself: one question, one answer.

The descriptor is inherited from the platform, which alone knows which instance holds it; it is close-on-exec here, so no
process that is started from here has it.
"""

from __future__ import annotations

import socket
import threading

from adyton.errors import ConfigError, MalformedRequest, Unavailable
from adyton.protocol import devtee
from adyton.protocol.devtee import Failed, Report, ReportRequest

TIMEOUT = 30.0


class ReportSocket:
    """A ``ReportChannel`` over an inherited stream socket. From any thread, one report at a time."""

    def __init__(self, descriptor: int) -> None:
        try:
            self._socket = socket.socket(fileno=descriptor)
        except OSError as error:
            raise ConfigError(
                "there is no report channel at this descriptor",
                code="report_channel",
                field="attester",
                got=descriptor,
                hint="the development TEE hands it to the instance that it starts",
            ) from error
        self._socket.set_inheritable(False)
        self._socket.settimeout(TIMEOUT)
        self._lock = threading.Lock()

    def report(self, report_data: bytes) -> Report:
        """A new report over these 64 bytes; ``Unavailable``."""
        with self._lock:
            try:
                self._socket.sendall(devtee.frame(ReportRequest(report_data)))
                body = self._exactly(devtee.body_length(self._exactly(devtee.HEADER.size)))
                answer = devtee.decode(devtee.TO_AGENT, body)
            except (OSError, MalformedRequest, Unavailable) as error:
                self._socket.close()  # what it may still say would be taken for the answer to the next question
                raise Unavailable(
                    "the platform made no report",
                    code="report_failed",
                    tee="snp",
                    hint="the channel is not used again: start this instance anew",
                ) from error
        if isinstance(answer, Report):
            return answer
        reason = answer.error.get("message") if isinstance(answer, Failed) else "it said something else"
        raise Unavailable(f"the platform made no report: {str(reason)[:200]}", code="report_failed", tee="snp")

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            piece = self._socket.recv(length - len(data))
            if not piece:
                raise Unavailable("the platform went away", code="platform_gone", tee="snp")
            data += piece
        return data
