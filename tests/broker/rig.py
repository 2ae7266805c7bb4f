"""A real broker process, real SNP evidence under a development root, and a client of CoCo's kind, for tests."""

from __future__ import annotations

import atexit
import contextlib
import functools
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from tests import ports, postgresql
from tests.waiting import LONG, until

from adyton.client.address import BrokerAddress
from adyton.client.admin import Admin
from adyton.client.handshake import Session
from adyton.crypto import jwk
from adyton.devtee.root import DevelopmentRoot
from adyton.devtee.snp import ReportFields, issue_report
from adyton.protocol import rcar, workload
from adyton.protocol.workload import Workload, WorkloadDocument
from adyton.rats import binding
from adyton.rats.ports import CollectedEvidence
from adyton.rats.types import JsonValue, ReportData
from adyton.tee.snp import json_form
from adyton.tee.snp.abi import SnpReport

MEASUREMENT = bytes(range(48))
IMAGE = "sha256:" + "ab" * 32
SECRET = b"the secret of the temple\0\xff"
REFERENCES: dict[str, JsonValue] = {
    "snp_launch_measurement": [MEASUREMENT.hex()],
    "snp_bootloader": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    "snp_microcode": list(range(256)),
    "snp_snp_svn": list(range(256)),
    "snp_tee_svn": list(range(256)),
}


def document(**change: Any) -> WorkloadDocument:
    return workload.write(Workload(**{"image": IMAGE, "command": ["/bin/true"], **change}))


@dataclass
class DevAttester:
    """Evidence of an instance that runs ``host_data``'s document; any report field may be set."""

    root: DevelopmentRoot
    host_data: bytes = bytes(32)
    fields: dict[str, Any] = field(default_factory=dict)
    tee: str = "snp"
    collected: int = 0

    def collect(self, report_data: ReportData) -> CollectedEvidence:
        self.collected += 1
        settings = {"report_data": report_data.value, "measurement": MEASUREMENT, "host_data": self.host_data}
        report = issue_report(self.root.signer, ReportFields(**{**settings, **self.fields}))
        return CollectedEvidence("snp", json_form.to_json(SnpReport.parse(report), list(self.root.certificates)))


def attester(root: DevelopmentRoot, runs: WorkloadDocument | None = None, **fields: Any) -> DevAttester:
    return DevAttester(root, (runs or document()).digest.value, fields)


@dataclass
class RunningBroker:
    """``adyton broker serve`` as a process."""

    data: Path
    arguments: tuple[str, ...]
    process: subprocess.Popen[str] | None = None
    descriptors: tuple[int, ...] = ()

    def start(self) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "ADYTON_HOME": str(self.data.parent / "home")}
        log = (self.data.parent / f"{self.data.name}.log").open("a")
        with log:
            log.write("--started--\n")  # what an earlier process of this data said is not what this one says
            log.flush()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "adyton", "broker", "serve", "--data", str(self.data), *self.arguments],
                stdout=log, stderr=log, text=True, env=environment, pass_fds=self.descriptors,
            )  # fmt: skip
        process = self.process
        atexit.register(process.kill)  # does nothing to one that has ended
        try:
            until(
                lambda: process.poll() is not None or self._up(),
                what=lambda: f"the broker does not start: {self.log()}",
            )
        except AssertionError:
            process.kill()
            process.wait()
            raise
        if process.poll() is not None:
            raise RuntimeError(f"the broker ended with {process.returncode}: {self.log()}")

    def _up(self) -> bool:
        return "JWK set" in self.log().rpartition("--started--")[2] and (self.data / "broker.json").exists()

    def log(self) -> str:
        return (self.data.parent / f"{self.data.name}.log").read_text()

    @property
    def description(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self.data / "broker.json").read_text())
        return read

    @property
    def port(self) -> int:
        return int(self.description["url"].rpartition(":")[2])

    def address(self, tenant: str = "default") -> BrokerAddress:
        return BrokerAddress(self.description["url"], pin=self.description["pin"], tenant=tenant)

    def admin(self, tenant: str = "default") -> Admin:
        return Admin(self.address(tenant), (self.data / "admin.token").read_text())

    def session(self, attester: DevAttester, runs: WorkloadDocument | None = None, tenant: str = "default") -> Session:
        return Session(self.address(tenant), attester, (runs or document()).raw)

    def publish(self, tenant: str = "default", **change: JsonValue) -> None:
        with self.admin(tenant) as admin:
            for name, value in {**REFERENCES, **change}.items():
                admin.set_reference(name, value)

    def kill(self) -> None:
        """As a power cut would, then a new process on the same port and data."""
        port = self.port
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        ports.keep(port)
        self.arguments = tuple(f"127.0.0.1:{port}" if "127.0.0.1:" in part else part for part in self.arguments)
        with (self.data.parent / f"{self.data.name}.log").open("a") as log:
            log.write("--started--\n")
        (self.data / "broker.json").unlink()
        self.start()

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(LONG)


def started(data: Path, root: DevelopmentRoot | None, *arguments: str) -> RunningBroker:
    trust: tuple[str, ...] = ()
    if root is not None:
        trust = (
            "--environment",
            "test",
            "--trust-dev-root",
            root.fingerprint,
            "--endorsements",
            str(root.endorsements),
        )
    if os.environ.get("ADYTON_TEST_STORE") == "postgresql" and "--database" not in arguments:
        arguments = (*arguments, "--database", shared_server().schema())
    broker = RunningBroker(data, ("--listen", "127.0.0.1:0", *trust, *arguments))
    broker.start()
    return broker


@functools.cache
def shared_server() -> postgresql.Server:
    """For ``ADYTON_TEST_STORE=postgresql``: every broker of these tests then keeps its store there."""
    server = postgresql.Server.make()
    server.start()
    atexit.register(server.close)
    return server


def make_root(directory: Path) -> DevelopmentRoot:
    """Made yesterday: the time that a file of tests calls now may be an hour old when they are run."""
    return DevelopmentRoot.create(directory, datetime.fromtimestamp(time.time(), UTC) - timedelta(days=1))


class Raw:
    """HTTP by hand over one connection, with a cookie jar of RFC 6265's rules: what CoCo's client has."""

    def __init__(self, port: int, base: str = "") -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
        self.base = base
        self.jar: dict[str, tuple[str, str]] = {}

    def ask(
        self, method: str, path: str, body: bytes | str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        target = self.base + path
        sent = dict(headers or {})
        cookies = [
            f"{name}={value}"
            for name, (value, scope) in self.jar.items()
            if target == scope or target.startswith(scope.rstrip("/") + "/")
        ]
        if cookies and "Cookie" not in sent:
            sent["Cookie"] = "; ".join(cookies)
        self.connection.request(method, target, body, sent)
        answer = self.connection.getresponse()
        read = answer.read()
        for line in answer.headers.get_all("Set-Cookie") or []:
            pair, *attributes = (part.strip() for part in line.split(";"))
            name, _, value = pair.partition("=")
            named = [part[5:] for part in attributes if part.lower().startswith("path=")]
            scope = named[0] if named else target.split("?")[0].rpartition("/")[0] or "/"
            self.jar[name] = (value, scope)
        return answer.status, read, answer.headers

    def handshake(self, attester: DevAttester, runs: WorkloadDocument | None, key: Any = None) -> tuple[str, Any]:
        """Both steps; the token and the private key."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        status, read, _ = self.ask("POST", "/kbs/v0/auth", rcar.request_body("snp"))
        assert status == 200, read
        status, read, _ = self.ask(
            "POST", "/kbs/v0/attest", attest_body(json.loads(read)["nonce"], attester, runs, key)
        )
        assert status == 200, read
        return json.loads(read)["token"], key

    def close(self) -> None:
        self.connection.close()


def attest_body(
    nonce: str, attester: DevAttester, runs: WorkloadDocument | None, key: Any, additional: str = ""
) -> bytes:
    members = jwk.from_public(key.public_key()).members
    report_data = binding.report_data(binding.primary_object(nonce, members, additional))
    primary = attester.collect(report_data).primary
    return rcar.attestation_body(nonce, members, primary, runs.raw if runs else None, additional)


@contextlib.contextmanager
def raw(broker: RunningBroker, base: str = "") -> Iterator[Raw]:
    client = Raw(broker.port, base)
    try:
        yield client
    finally:
        client.close()
