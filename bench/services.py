"""Attestation alone: the service over REST and over gRPC, against the bare verification of the same evidence.

* ``bare_per_second``: ``tee.verify`` of an SNP report whose chain is known, in one thread: nothing appraised, signed or written.
* ``rest_per_second``, ``grpc_per_second``: whole evaluations of a service process (verify, appraise by CoCo's CPU policy,
  sign, record on the disk) with ``--connections`` clients that keep theirs; the clients share the machine with it.
* ``*_p50_ms``, ``*_p99_ms``: one client, one after the other. ``*_over_bare``: elapsed per evaluation over a bare verification.

Requests are prepared beforehand, each with a nonce of its own.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from adyton import tee
from adyton.collateral import directory
from adyton.crypto import jwk
from adyton.devtee.root import DevelopmentRoot
from adyton.devtee.snp import ReportFields, issue_report
from adyton.protocol import workload
from adyton.protocol.workload import Workload
from adyton.rats import binding
from adyton.rats.types import Revocation, TrustAnchors
from adyton.tee.snp import json_form
from adyton.tee.snp.abi import SnpReport

DOCUMENT = workload.write(Workload(image="sha256:" + "ab" * 32, command=["/bin/true"]))
KEY = dict(jwk.from_public(ec.generate_private_key(ec.SECP256R1()).public_key()).members)
Ask = Callable[[Any], None]


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Guest:
    """Evidence of one development machine."""

    def __init__(self, place: Path) -> None:
        self.root = DevelopmentRoot.create(place, datetime.fromtimestamp(time.time(), UTC))
        self.count = 0

    def piece(self) -> tuple[dict[str, Any], bytes, Any]:
        """Runtime data, evidence and what it binds."""
        self.count += 1
        nonce = base64.b64encode(hashlib.sha256(self.count.to_bytes(8)).digest()).decode()
        canonical = binding.primary_object(nonce, KEY)
        expected = binding.expected("snp", canonical)
        fields = ReportFields(report_data=expected.value, measurement=bytes(range(48)), host_data=DOCUMENT.digest.value)
        report = SnpReport.parse(issue_report(self.root.signer, fields))
        evidence = json.dumps(json_form.to_json(report, list(self.root.certificates))).encode()
        return {"additional-evidence": "", "nonce": nonce, "tee-pubkey": KEY}, evidence, expected

    def rest(self) -> bytes:
        """A body of ``POST /attestation``."""
        runtime, evidence, _ = self.piece()
        one = {
            "tee": "snp",
            "evidence": b64url(evidence),
            "runtime_data": {"structured": runtime},
            "init_data": {"init_data_toml": DOCUMENT.raw.decode()},
        }
        return json.dumps({"verification_requests": [one], "policy_ids": ["default"]}).encode()

    def grpc(self) -> Any:
        """An ``AttestationRequest``."""
        from adyton.protocol.grpc import attestation_pb2

        runtime, evidence, _ = self.piece()
        one = attestation_pb2.IndividualAttestationRequest(
            tee="snp",
            evidence=b64url(evidence),
            structured_runtime_data=json.dumps(runtime),
            init_data_toml=DOCUMENT.raw.decode(),
        )
        return attestation_pb2.AttestationRequest(verification_requests=[one], policy_ids=["default"])


def bare(guest: Guest, count: int) -> float:
    """Verifications a second."""
    given = directory.load([Path(guest.root.endorsements)])
    anchors = TrustAnchors(custom=frozenset([bytes.fromhex(guest.root.fingerprint)]))
    remembered = tee.Remembered()
    pieces = [guest.piece() for _ in range(count)]
    now = datetime.fromtimestamp(time.time(), UTC)
    began = 0.0
    for number, (_, evidence, expected) in enumerate(pieces):
        if number == 1:  # the chain is known from here on
            began = time.perf_counter()
        tee.verify(
            "snp", evidence, endorsements=given, now=now, anchors=anchors, revocation=Revocation.REQUIRED,
            report_data=expected, init_data=DOCUMENT.digest.value, remembered=remembered,
        )  # fmt: skip
    return (count - 1) / (time.perf_counter() - began)


def rest_client(url: str) -> Ask:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)

    def ask(body: Any) -> None:
        connection.request("POST", "/attestation", body)
        answer = connection.getresponse()
        read = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{answer.status} {read[:300]!r}")

    return ask


def grpc_client(address: str) -> Ask:
    import grpc

    from adyton.protocol.grpc import attestation_pb2

    channel = grpc.insecure_channel(address)
    call = channel.unary_unary(
        "/attestation.AttestationService/AttestationEvaluate",
        request_serializer=attestation_pb2.AttestationRequest.SerializeToString,
        response_deserializer=attestation_pb2.AttestationResponse.FromString,
    )

    def ask(message: Any) -> None:
        if not call(message, timeout=60).attestation_token:
            raise SystemExit("no token")

    return ask


def rate(clients: list[Ask], bodies: list[Any]) -> float:
    """Evaluations a second of all clients together."""
    lock, queue = threading.Lock(), list(bodies)

    def run(ask: Ask) -> None:
        while True:
            with lock:
                if not queue:
                    return
                body = queue.pop()
            ask(body)

    began = time.perf_counter()
    with ThreadPoolExecutor(len(clients)) as pool:
        for done in [pool.submit(run, ask) for ask in clients]:
            done.result()
    return len(bodies) / (time.perf_counter() - began)


def latencies(ask: Ask, bodies: list[Any]) -> tuple[float, float]:
    """p50 and p99 in ms."""
    took = []
    for body in bodies:
        began = time.perf_counter()
        ask(body)
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took), sorted(took)[max(0, int(len(took) * 0.99) - 1)]


def start(place: Path, guest: Guest) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    log = place / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "adyton", "attestation-service", "serve", "--data", str(place / "data"),
                "--grpc", "127.0.0.1:0", "--rest", "127.0.0.1:0", "--environment", "test",
                "--trust-dev-root", guest.root.fingerprint, "--endorsements", str(guest.root.endorsements),
            ],
            stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    while "\nserving" not in log.read_text():
        if process.poll() is not None:
            raise SystemExit(log.read_text())
        time.sleep(0.05)
    lines = [line.split() for line in log.read_text().splitlines()]
    return process, {line[0]: line[1] for line in lines if len(line) > 1}


def measure(place: Path, count: int, connections: int) -> dict[str, float]:
    guest = Guest(place / "root")
    found = {"bare_per_second": bare(guest, count)}
    process, said = start(place, guest)
    try:
        wires: list[tuple[str, Callable[[], Any], Callable[[str], Ask], str]] = [
            ("rest", guest.rest, rest_client, said["REST"]),
            ("grpc", guest.grpc, grpc_client, said["gRPC"]),
        ]
        for name, make, client, where in wires:
            first = client(where)
            for _ in range(10):
                first(make())
            found[f"{name}_p50_ms"], found[f"{name}_p99_ms"] = latencies(first, [make() for _ in range(count)])
            found[f"{name}_per_second"] = rate(
                [client(where) for _ in range(connections)], [make() for _ in range(2 * count)]
            )
            found[f"{name}_over_bare"] = found["bare_per_second"] / found[f"{name}_per_second"]
    finally:
        process.terminate()
        process.wait(30)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of it")
    parser.add_argument("--json", action="store_true", help="one object")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = measure(Path(place), options.count // 10 if options.quick else options.count, options.connections)
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:<20} {value:10.2f}")


if __name__ == "__main__":
    main()
