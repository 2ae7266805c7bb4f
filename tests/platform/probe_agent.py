"""What runs as the agent in the platform's tests: it executes the Python in ``env["PROBE"]`` and says what that says."""

import json
import os
import socket
import sys

from adyton.protocol import devtee


class Host:
    """The report channel, for probes."""

    def __init__(self) -> None:
        self.socket = socket.socket(fileno=3)

    def exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            piece = self.socket.recv(length - len(data))
            if not piece:
                os._exit(9)
            data += piece
        return data

    def receive(self) -> object:
        length = devtee.body_length(self.exactly(4))
        return devtee.decode(devtee.TO_AGENT, self.exactly(length))

    def send(self, message: devtee.FromAgent) -> None:
        self.socket.sendall(devtee.frame(message))

    def report(self, report_data: bytes) -> object:
        self.send(devtee.ReportRequest(report_data))
        return self.receive()

    def say(self, value: object) -> None:
        self.send(devtee.Phase("probe", label=json.dumps(value)))


def main() -> None:
    host = Host()
    start = host.receive()
    assert isinstance(start, devtee.Start)
    exec(start.run.env["PROBE"], {"host": host, "start": start, "devtee": devtee, "os": os, "json": json, "sys": sys})
    host.send(devtee.Exited(0))
