"""Instances of the development TEE for brokers under test: a report channel, and a platform that answers on it."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.broker import rig

from adyton.devtee.root import DevelopmentRoot
from adyton.devtee.snp import ReportFields, issue_report
from adyton.protocol import devtee
from adyton.protocol.devtee import Certificate, Report

MEASUREMENT, DOCUMENT = bytes(range(48)), bytes(range(32))


class Platform:
    """Hands an instance its report channel, and answers on it with what it is told to say of that instance."""

    def __init__(self, root: DevelopmentRoot, **fields: Any) -> None:
        self.root = root
        self.fields = {"measurement": MEASUREMENT, "host_data": DOCUMENT, **fields}
        self.ours, self.theirs = socket.socketpair()
        self.theirs.set_inheritable(True)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with closing(self.ours.makefile("rb")) as stream:
            while header := stream.read(devtee.HEADER.size):
                request = devtee.decode(devtee.FROM_AGENT, stream.read(struct.unpack(">I", header)[0]))
                assert isinstance(request, devtee.ReportRequest)
                fields = ReportFields(**{**self.fields, "report_data": request.report_data})
                report = issue_report(self.root.signer, fields)
                certificates = [Certificate(kind, der) for kind, der in self.root.certificates]
                self.ours.sendall(devtee.frame(Report(report=report, certificates=certificates)))

    @property
    def attester(self) -> str:
        return f"devtee:{self.theirs.fileno()}"

    def close(self) -> None:
        self.ours.shutdown(socket.SHUT_RDWR)
        self.ours.close()
        self.theirs.close()


@contextmanager
def instance(data: Path, root: DevelopmentRoot, *arguments: str, tls: bool = False, **fields: Any) -> Iterator[Any]:
    platform = Platform(root, **fields)
    trust = ("--environment", "test", "--trust-dev-root", root.fingerprint, "--endorsements", str(root.endorsements))
    broker = rig.RunningBroker(
        data,
        ("--listen", "127.0.0.1:0", *trust, "--attester", platform.attester, *(["--tls"] if tls else []), *arguments),
        descriptors=(platform.theirs.fileno(),),
    )
    try:
        broker.start()
        yield broker
    finally:
        if broker.process is not None:
            broker.stop()
        platform.close()
