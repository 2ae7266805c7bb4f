"""Several real brokers over one real database."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests import ports
from tests.broker import rig
from tests.postgresql import Server
from tests.waiting import LONG

from adyton.client.address import BrokerAddress
from adyton.client.handshake import Session
from adyton.devtee.root import DevelopmentRoot
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath

KEY = ResourcePath("default", "key", "1")


@dataclass
class Replicas:
    """Brokers with one root key, one token, one database; each has a directory and a port of its own."""

    directory: Path
    root: DevelopmentRoot
    url: str
    brokers: list[rig.RunningBroker] = field(default_factory=list)
    coming: list[threading.Thread] = field(default_factory=list)

    def add(self, *arguments: str) -> rig.RunningBroker:
        data = self.directory / f"replica{len(self.brokers)}"
        if self.brokers:
            data.mkdir(mode=0o700)
            for name in ("root.key", "admin.token"):
                shutil.copy(self.brokers[0].data / name, data / name)
        broker = rig.started(data, self.root, "--database", self.url, *arguments)
        self.brokers.append(broker)
        return broker

    def prepare(self) -> None:
        self.brokers[0].publish()
        with self.brokers[0].admin() as admin:
            admin.set_resource(KEY, rig.SECRET, Binding(workloads=[str(rig.document().digest)]))

    def address(self, first: int = 0) -> BrokerAddress:
        urls = [broker.description["url"] for broker in self.brokers]
        turned = urls[first:] + urls[:first]
        return BrokerAddress(turned[0], others=tuple(turned[1:]))

    def session(self, attester: Any, first: int = 0) -> Session:
        return Session(self.address(first), attester, rig.document().raw, timeout=LONG)

    def dies(self, index: int) -> None:
        """``kill -9``, and somebody starts it again on its old port."""
        broker = self.brokers[index]
        port = broker.port
        assert broker.process is not None
        broker.process.kill()
        broker.process.wait()
        ports.keep(port)
        broker.arguments = tuple(f"127.0.0.1:{port}" if part == "127.0.0.1:0" else part for part in broker.arguments)
        with (self.directory / f"{broker.data.name}.log").open("a") as log:
            log.write("--started--\n")
        thread = threading.Thread(target=broker.start)
        thread.start()
        self.coming.append(thread)

    def all_back(self) -> None:
        for thread in self.coming:
            thread.join(2 * LONG)
        self.coming.clear()

    def stop(self) -> None:
        self.all_back()
        for broker in self.brokers:
            if broker.process is not None and broker.process.poll() is None:
                broker.process.send_signal(signal.SIGCONT)
            try:
                broker.stop()
            except subprocess.TimeoutExpired:
                assert broker.process is not None
                broker.process.kill()
                raise


@pytest.fixture
def replicas(tmp_path: Path, root: DevelopmentRoot, postgresql: Server) -> Iterator[Replicas]:
    """None yet: ``add`` as many as wanted."""
    made = Replicas(tmp_path, root, postgresql.schema())
    yield made
    made.stop()


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that the test may kill."""
    server = Server.make()
    server.start()
    yield server
    server.close()
