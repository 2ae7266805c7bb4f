"""What the record of decisions costs: appending a row, proving one, and checking all of them.

* ``append_over_plain_insert``: a row of the log (canonical JSON, its hash in the tree, the link to the row before, the
  nodes that it completes) over encoding the same row and inserting it into a bare table of the same form. CPU of this
  thread; 8 rows a commit, as a broker under load has them, and 1 (alone) and 32.
* ``append_us``: the whole CPU of a row at 8 a commit, the plain insert included; ``append_us_alone`` with a commit of its own.
  A handshake writes two rows: ``of_handshake`` is what they cost at 8 a commit, over ``--handshake`` microseconds (400:
  what its handlers burn where P-384 is quick; with OpenSSL's they burn twice that), ``beyond_plain_of_handshake`` without
  the plain inserts.
* ``proof_ms_1m``: an inclusion and a consistency proof made over a log of a million rows (``--rows``), in milliseconds
  elapsed, median and worst of many; ``proof_check_us`` is what the auditor pays for one.
* ``checkpoint_ms_1m``: signing a checkpoint of such a log, with the proof that it continues the one before.
* with ``--store both``: ``append_us_postgresql`` (CPU of this thread, the server's is not counted) and
  ``commit_ms_postgresql`` beside ``commit_ms``, elapsed, at 8 rows a commit: a PostgreSQL started here, with fsync.
* ``verify_rows_per_second``: the broker's own check of all rows; ``reading_rows_per_second`` an auditor's, of an export.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from adyton.broker.record.checkpoints import Checkpoints
from adyton.crypto import merkle
from adyton.protocol import audit_row, checkpoint
from adyton.protocol.audit_check import Reading
from adyton.protocol.audit_row import AuditEntry, AuditRow
from adyton.stores.sqlite import Store

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
ROW = AuditRow(
    action="attest", decision="allowed", tee="snp", measurement="ab" * 48, host_data="cd" * 32, root="custom",
    root_fingerprint="ef" * 32, status="warning", policy_digest="01" * 32, reference_generation=5, request_id="a" * 16,
    peer="127.0.0.1", claims="23" * 32, vector=(0, 3, 3, 0, 32, 0, 0, 0),
)  # fmt: skip
TENANT = "default"
ROWS_A_COMMIT = (1, 8, 32)


class Plain:
    """The same rows in a bare table: encoded, inserted, on the disk when the commit returns. Nothing else."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        for statement in (
            "PRAGMA journal_mode=WAL",
            "PRAGMA synchronous=FULL",
            (
                "CREATE TABLE plain (tenant TEXT NOT NULL, sequence INTEGER NOT NULL, time REAL NOT NULL, body BLOB NOT NULL,"
                " PRIMARY KEY (tenant, sequence)) WITHOUT ROWID, STRICT"
            ),
        ):
            self.connection.execute(statement)
        self.sequence = 0

    def append(self, count: int) -> None:
        """So many rows in one transaction."""
        self.connection.execute("BEGIN IMMEDIATE")
        rows = []
        for _ in range(count):
            self.sequence += 1
            body = audit_row.encode(AuditEntry(TENANT, self.sequence, NOW, audit_row.START, ROW, audit_row.VERSION))
            rows.append((TENANT, self.sequence, NOW.timestamp(), body))
        self.connection.executemany("INSERT INTO plain VALUES (?,?,?,?)", rows)
        self.connection.execute("COMMIT")


def appending(directory: Path, rounds: int) -> dict[int, tuple[float, float]]:
    """CPU µs of a row, plain and ours, by rows a commit. The two take turns; medians over rounds of 256 rows."""
    store = Store.open(directory, root_key=bytes(32), now=NOW)
    plain = Plain(directory / "plain.sqlite")
    found = {}
    try:
        for count in ROWS_A_COMMIT:
            batch = [(TENANT, ROW, NOW)] * count
            calls: tuple[Callable[[], object], ...] = (
                lambda count=count: plain.append(count),  # type: ignore[misc]
                lambda batch=batch: store.audit._commit(batch),  # type: ignore[misc]
            )
            spent: tuple[list[float], list[float]] = ([], [])
            for _ in range(rounds):
                for call, times in zip(calls, spent, strict=True):
                    began = time.thread_time()
                    for _ in range(256 // count):
                        call()
                    times.append((time.thread_time() - began) / 256 * 1e6)
            found[count] = (statistics.median(spent[0]), statistics.median(spent[1]))
        assert store.audit.verify(TENANT).sequence == rounds * 256 * len(ROWS_A_COMMIT)
    finally:
        plain.connection.close()
        store.close()
    return found


def commits(store: Store, rounds: int) -> tuple[float, float]:
    """CPU µs of a row and milliseconds of a commit, at 8 rows a commit; medians."""
    batch = [(TENANT, ROW, NOW)] * 8
    spent, elapsed = [], []
    for _ in range(rounds * 4):
        began, cpu = time.perf_counter(), time.thread_time()
        store.audit._commit(batch)
        spent.append((time.thread_time() - cpu) / 8 * 1e6)
        elapsed.append((time.perf_counter() - began) * 1e3)
    assert store.audit.verify(TENANT).sequence == rounds * 32
    return statistics.median(spent), statistics.median(elapsed)


def both(directory: Path, rounds: int) -> dict[str, float]:
    """The same commits into a file and into a PostgreSQL on the same disk."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tests.postgresql import Server

    running = Server.make()
    try:
        running.start()
        found: dict[str, float] = {}
        for name, opener in (("", None), ("_postgresql", running.opener())):
            store = Store.open(directory / f"commits{name}", root_key=bytes(32), now=NOW, database=opener)
            cpu, elapsed = commits(store, rounds)
            found |= {f"append_us{name}": round(cpu, 1), f"commit_ms{name}": round(elapsed, 2)}
            store.close()
        return found
    finally:
        running.close()


def timed(call: Callable[[], object]) -> float:
    """Seconds elapsed."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def proving(directory: Path, rows: int, rounds: int) -> dict[str, float]:
    """A log of ``rows`` decisions, written as the broker writes them, then asked."""
    store = Store.open(directory, root_key=bytes(32), now=NOW)
    log = store.audit
    try:
        began = time.perf_counter()
        for start in range(0, rows, 4096):
            log._commit([(TENANT, ROW, NOW)] * min(4096, rows - start))
        built = time.perf_counter() - began
        signing = Checkpoints(store)
        note = signing.sign(TENANT, NOW)
        newest = checkpoint.verify(note, [signing.key(TENANT)])
        assert newest.size == rows
        choose = random.Random(4711)
        made, checked, signed = [], [], []
        for _ in range(rounds):
            number, old = choose.randint(1, rows), choose.randint(1, rows)
            paths: list[list[bytes]] = []
            made.append(timed(lambda n=number, p=paths: p.append(log.inclusion(TENANT, n, rows))))  # type: ignore[misc]
            made.append(timed(lambda o=old, p=paths: p.append(log.consistency(TENANT, o, rows))))  # type: ignore[misc]
            leaf = audit_row.leaf(log.body(TENANT, number))
            checked.append(
                timed(lambda a=leaf, n=number, p=paths: merkle.verify_inclusion(a, n - 1, rows, p[0], newest.root))  # type: ignore[misc]
            )
            merkle.verify_consistency(old, log.root(TENANT, old), rows, newest.root, paths[1])
        for number in range(rounds):
            log.append(TENANT, ROW, NOW)
            signed.append(timed(lambda n=number: signing.sign(TENANT, NOW + timedelta(seconds=n))))  # type: ignore[misc]
        whole = timed(lambda: log.verify(TENANT, signing.all(TENANT)))
        bodies = log.bodies(TENANT, 0, min(rows, 100_000))
        reading = Reading(TENANT)
        read = timed(lambda: [reading.row(body) for body in bodies])
        return {
            "rows": rows,
            "proof_ms": round(statistics.median(made) * 1e3, 2),
            "proof_ms_worst": round(max(made) * 1e3, 2),
            "proof_check_us": round(statistics.median(checked) * 1e6, 1),
            "checkpoint_ms": round(statistics.median(signed) * 1e3, 2),
            "written_rows_per_second": round(rows / built),
            "verify_rows_per_second": round(log.size(TENANT) / whole),
            "reading_rows_per_second": round(len(bodies) / read),
            "bytes_per_row": round((directory / "broker.sqlite").stat().st_size / rows),
        }
    finally:
        store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and a log of 20,000 rows")
    parser.add_argument("--json", action="store_true", help="only the figures, as one JSON object")
    parser.add_argument("--rows", type=int, help="length of the log that is asked for proofs")
    parser.add_argument("--handshake", type=float, default=400.0, help="CPU of a handshake's handlers, in microseconds")
    parser.add_argument("--store", choices=("embedded", "both"), default="embedded", help="also into a PostgreSQL")
    options = parser.parse_args()
    rows = options.rows or (20_000 if options.quick else 1_000_000)
    with tempfile.TemporaryDirectory() as directory:
        found = appending(Path(directory) / "append", 15 if options.quick else 101)
        shared = both(Path(directory), 15 if options.quick else 101) if options.store == "both" else {}
        asked = proving(Path(directory) / "prove", rows, 50 if options.quick else 300)
    named = "_1m" if rows == 1_000_000 else ""
    (plain_alone, alone), (plain, ours), (plain_32, ours_32) = (found[count] for count in ROWS_A_COMMIT)
    figures = {
        "append_over_plain_insert": round(ours / plain, 2),
        "append_over_plain_insert_alone": round(alone / plain_alone, 2),
        "append_over_plain_insert_32": round(ours_32 / plain_32, 2),
        "append_us": round(ours, 1),
        "append_us_alone": round(alone, 1),
        "append_us_32": round(ours_32, 1),
        "beyond_plain_us": round(ours - plain, 1),
        "of_handshake": round(2 * ours / options.handshake, 3),
        "beyond_plain_of_handshake": round(2 * (ours - plain) / options.handshake, 3),
        **{name: value for name, value in shared.items() if name != "append_us"},
        **{name + (named if "_ms" in name else ""): value for name, value in asked.items()},
    }
    if not options.json:
        for name, value in figures.items():
            print(f"{name:<34}{value:>12}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
