"""What the broker's judgement costs: appraising, writing the token's claims, deciding, recording. CPU of this process.

Floors, measured in the same run on the same file system:

* ``judgement_over_floor``: everything warm from verified evidence to the permit, over what nobody can leave out: SHA-256
  of the init data, two reads of the generation, one read of the sealed resource and its AES-GCM, the token's claims
  written and read as JSON once.
* ``audit_over_commit``: one row of the audit log alone, and 32 at once, over a bare SQLite insert committed to the disk.
* ``fresh_over_remembered``: an appraisal whose Rego must run, over one that is remembered.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from adyton.appraisal.policies import DEFAULT_CPU
from adyton.appraisal.rego_check import check
from adyton.broker.appraiser import Appraiser
from adyton.broker.audit import Auditor
from adyton.broker.policy.policies import ATTESTATION_RULES, PolicyBook
from adyton.broker.policy.rego import RegoEngine
from adyton.broker.release import Releaser
from adyton.config import Environment
from adyton.protocol import ear, initdata, workload
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.rats.result import AttestationResult
from adyton.rats.types import JsonValue, ReportData, RootKind, VerifiedEvidence
from adyton.stores.sqlite import FILE, Store

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
PATH = ResourcePath("models", "key", "one")
ROOT = "ef" * 32
DOCUMENT = workload.write(
    workload.Workload(
        image="sha256:" + "a" * 64,
        command=["/usr/bin/python3", "-m", "service"],
        env={"LANG": "C.UTF-8"},
        network="host",
    )
)
CLAIMS: dict[str, JsonValue] = {
    "measurement": "ab" * 48, "report_data": "00" * 64, "init_data": DOCUMENT.digest.hex, "chip_id": "cc" * 64,
    "reported_tcb_bootloader": 3, "reported_tcb_tee": 0, "reported_tcb_snp": 8, "reported_tcb_microcode": 115, "policy_abi_major": 0,
    "policy_abi_minor": 31, "policy_smt_allowed": True, "policy_migrate_ma": False, "policy_debug_allowed": False,
    "policy_single_socket": False, "platform_tsme_enabled": False, "platform_smt_enabled": True,
}  # fmt: skip
REFERENCES: dict[str, JsonValue] = {
    "snp_launch_measurement": ["ab" * 48], "snp_bootloader": [3], "snp_microcode": [115], "snp_snp_svn": [8], "snp_tee_svn": [0],
}  # fmt: skip
RUNTIME: dict[str, JsonValue] = {
    "tee-pubkey": {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": "x" * 43, "y": "y" * 43},
    "nonce": "n" * 44,
    "additional-evidence": "",
}


def evidence(number: int) -> VerifiedEvidence:
    """Verified evidence of handshake ``number``: the report data differs, the platform is the same."""
    report_data = number.to_bytes(64, "big")
    return VerifiedEvidence(
        tee="snp",
        tee_class="cpu",
        claims={"vmpl": 0, "report_version": 3},
        coco_claims={**CLAIMS, "report_data": report_data.hex()},
        tcb={},
        report_data=ReportData(report_data),
        init_data=DOCUMENT.digest.value,
        root=RootKind.CUSTOM,
        root_fingerprint=ROOT,
        checks=(),
        expires=NOW + timedelta(days=1),
        expires_first="CRL",
    )


class Bench:
    """A broker's parts on a real store in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = Store.open(directory, root_key=bytes(32), now=NOW)
        for name, value in REFERENCES.items():
            self.store.references.set("default", name, value, NOW + timedelta(days=1), NOW)
        self.store.resources.set("default", PATH, os.urandom(1024), Binding(workloads=[str(DOCUMENT.digest)]), NOW)
        self.engine = RegoEngine()
        self.book = book = PolicyBook(self.store, self.engine)
        self.appraiser = Appraiser(book, self.engine)
        self.releaser = Releaser(
            book, self.engine, environment=Environment.DEVELOPMENT, development_roots=frozenset({ROOT})
        )
        self.auditor = Auditor(self.store)
        self.document = initdata.parse(DOCUMENT.raw)
        self.encode, self.number = msgspec.json.Encoder().encode, 0

    async def appraise(self) -> AttestationResult:
        """One handshake's evidence, never the same twice."""
        self.number += 1
        return await self.appraiser.appraise("default", [evidence(self.number)], RUNTIME, self.document, NOW)

    def write(self, result: AttestationResult) -> bytes:
        """The token's payload."""
        return self.encode(ear.claims(result, issued=NOW, expires=NOW + timedelta(minutes=5)))

    async def judge(self) -> bytes:
        """From verified evidence to the permit, as the two requests of a handshake do it."""
        body = self.write(await self.appraise())
        claims = ear.parse(body)
        stored = self.store.resources.get("default", PATH)
        permit = await self.releaser.decide("default", claims, PATH, stored, NOW)
        assert permit.by == "workload" and stored is not None
        return body


async def cpu(action: Callable[[], Awaitable[object]], rounds: int, batches: int = 5) -> float:
    """Median over batches of the mean CPU µs of one ``action``, all threads of this process."""
    await action()
    found = []
    for _ in range(batches):
        started = time.process_time()
        for _ in range(rounds // batches):
            await action()
        found.append((time.process_time() - started) / (rounds // batches) * 1e6)
    return statistics.median(found)


async def run(directory: Path, rounds: int) -> tuple[list[tuple[str, float]], dict[str, float]]:
    bench = Bench(directory)
    try:
        body = await bench.judge()
        result = await bench.appraise()
        # Its own work first: right answers, and wrong ones refused.
        assert result.primary.vector["hardware"] == 32 and result.mismatches == ()
        stored = bench.store.resources.get("default", PATH)
        assert stored is not None and len(stored.value) == 1024
        claims = ear.parse(body)
        assert claims.primary.image == "sha256:" + "a" * 64

        key, nonce, raw = AESGCM(bytes(32)), bytes(12), sqlite3.connect(directory / FILE, isolation_level=None)
        sealed = key.encrypt(nonce, stored.value, b"")
        value = msgspec.json.decode(body)

        async def floor() -> None:
            hashlib.sha256(DOCUMENT.raw).digest()
            for _ in range(2):
                raw.execute("SELECT generation FROM tenants WHERE name=?", ("default",)).fetchall()
            raw.execute("SELECT sealed FROM resources WHERE tenant=? AND path=?", ("default", str(PATH))).fetchall()
            key.decrypt(nonce, sealed, b"")
            msgspec.json.decode(bench.encode(value))

        async def make_evidence() -> None:
            evidence(1)

        async def write() -> None:
            bench.write(result)

        async def parse() -> None:
            ear.parse(body)

        async def read() -> None:
            bench.store.resources.get("default", PATH)

        async def decide() -> None:
            await bench.releaser.decide("default", claims, PATH, stored, NOW)

        policy = check(DEFAULT_CPU)
        annotated, data = result.primary.annotated, {"reference": REFERENCES}

        async def fresh() -> None:
            bench.engine.evaluate(policy, ATTESTATION_RULES, annotated, data)

        async def record() -> None:
            await bench.auditor.released("default", PATH, claims, "workload", NOW)

        async def record_32() -> None:
            await asyncio.gather(*(record() for _ in range(32)))

        own = await cpu(make_evidence, rounds)
        appraise = await cpu(bench.appraise, rounds) - own
        judged = await cpu(bench.judge, rounds) - own
        lowest = await cpu(floor, rounds)
        rows = [
            ("appraise, remembered", appraise),
            ("claims to JSON", await cpu(write, rounds)),
            ("claims from JSON", await cpu(parse, rounds)),
            ("resource read and opened", await cpu(read, rounds)),
            ("decide", await cpu(decide, rounds)),
            ("all of this", judged),
            ("floor of this", lowest),
        ]
        started = time.perf_counter()
        for _ in range(rounds // 10):
            await fresh()
        wall = (time.perf_counter() - started) / (rounds // 10) * 1e6
        rows.append(("Rego afresh, in its process (elapsed)", wall))

        other = sqlite3.connect(directory / "floor.sqlite", isolation_level=None)
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("PRAGMA synchronous=FULL")
        other.execute("CREATE TABLE t (tenant TEXT, n INTEGER, body BLOB, PRIMARY KEY (tenant, n)) WITHOUT ROWID")
        count = 0

        async def commit() -> None:
            nonlocal count
            count += 1
            other.execute("BEGIN IMMEDIATE")
            other.execute("INSERT INTO t VALUES ('default', ?, ?)", (count, bytes(700)))
            other.execute("COMMIT")

        floor_commit = await cpu(commit, rounds)
        alone = await cpu(record, rounds)
        together = await cpu(record_32, max(rounds // 16, 20)) / 32
        rows += [
            ("bare durable commit", floor_commit),
            ("audit row, alone", alone),
            ("audit row, 32 at once", together),
        ]
        assert bench.store.audit.verify("default").sequence > rounds
        raw.close()
        other.close()
        ratios = {
            "judgement_over_floor": round(judged / lowest, 2),
            "audit_over_commit": round(alone / floor_commit, 2),
            "audit_32_over_commit": round(together / floor_commit, 2),
            "fresh_over_remembered": round((wall + appraise) / appraise, 1),
        }
        return rows, ratios
    finally:
        bench.engine.close()
        bench.store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="only the ratios, as one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        rows, ratios = asyncio.run(run(Path(directory), 500 if options.quick else 3000))
    if not options.json:
        for name, value in rows:
            print(f"{name:<42}{value:>9.1f} µs")
        for name, value in ratios.items():
            print(f"{name:<42}{value:>9.2f}")
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
