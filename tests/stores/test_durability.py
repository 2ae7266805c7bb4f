"""Killed at any moment, or out of space: what was acknowledged is there, and nothing half-done is."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adyton.errors import Unavailable
from adyton.protocol.audit_row import AuditRow
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores.sqlite import Store

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
WRITER = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.protocol.audit_row import AuditRow
from adyton.stores.sqlite import Store
now = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
run = sys.argv[2]
store = Store.open(Path(sys.argv[1]), root_key=bytes(32), now=now)
def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()
async def writer(name):
    for turn in range(100000):
        number = await store.audit.append_async("default", AuditRow("attest", "allowed", peer=f"{run}.{name}.{turn}"), now)
        say("audit", number, f"{run}.{name}.{turn}")
        if turn % 7 == 0:
            store.resources.set("default", ResourcePath("r", name, str(turn % 5)), f"{run}.{turn}".encode() * 50, Binding(), now)
            say("resource", f"r/{name}/{turn % 5}", f"{run}.{turn}")
        if turn % 11 == 0:
            store.references.set("default", name, turn, None, now)
            say("reference", name, turn)
async def main():
    await asyncio.gather(*(writer(f"w{n}") for n in range(4)))
asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(6))
def test_killed_while_writing_nothing_acknowledged_is_lost(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    audit: dict[int, str] = {}
    resources: dict[str, str] = {}
    references: dict[str, int] = {}
    for run in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), f"run{run}"], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        first = process.stdout.readline()
        time.sleep(chance.uniform(0, 0.15))
        process.kill()
        lines = [first, *process.stdout.read().splitlines(keepends=True)]
        process.stdout.close()
        process.wait()
        for line in lines:
            if not line.endswith("\n"):
                continue  # cut off by the kill: not acknowledged
            kind, *rest = line.split()
            if kind == "audit":
                audit[int(rest[0])] = rest[1]
            elif kind == "resource":
                resources[rest[0]] = rest[1]
            else:
                references[rest[0]] = int(rest[1])
        store = Store.open(tmp_path, root_key=bytes(32), now=NOW)
        try:
            head = store.audit.verify("default")
            assert head.sequence >= max(audit)
            entries = {entry.sequence: entry.row.peer for entry in store.audit.list("default", limit=10**6)}
            assert {number: entries[number] for number in audit} == audit
            for path, acknowledged in resources.items():
                found = store.resources.get("default", ResourcePath.parse(path))
                assert found is not None
                written = found.value[: len(found.value) // 50].decode()
                assert found.value == written.encode() * 50  # whole, and no older than what was acknowledged
                assert _order(written) >= _order(acknowledged)
            for name, least in references.items():
                kept = store.references.get("default", name)
                assert kept is not None and isinstance(kept.value, int) and (kept.value >= least or kept.value == 0)
        finally:
            store.close()


def _order(text: str) -> tuple[str, int]:
    run, turn = text.split(".")
    return run, int(turn)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "adyton-test", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.root
def test_a_full_disk_is_said_and_nothing_is_lost(small_disk: Path) -> None:
    path = ResourcePath("a", "b", "c")
    store = Store.open(small_disk, root_key=bytes(32), now=NOW)
    try:
        store.resources.set("default", path, b"first", Binding(), NOW)
        written = [path]
        with pytest.raises(Unavailable) as caught:
            for number in range(200):
                item = ResourcePath("fill", "disk", str(number))
                store.resources.set("default", item, bytes(60_000), Binding(), NOW)
                written.append(item)
        assert caught.value.code == "store_disk" and caught.value.hint
        assert 1 < len(written) < 30
        assert [info.path for info in store.resources.list("default")] == sorted(written, key=str)
        with pytest.raises(Unavailable):
            for _ in range(100_000):
                store.audit.append("default", AuditRow("attest", "allowed", peer="x" * 300), NOW)
        rows = store.audit.verify("default").sequence
        subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)  # the operator makes space
        store.resources.delete("default", written[1])
        assert store.audit.append("default", AuditRow("attest", "allowed"), NOW) == rows + 1
    finally:
        store.close()
    store = Store.open(small_disk, root_key=bytes(32), now=NOW)
    try:
        kept = store.resources.get("default", path)
        assert kept is not None and kept.value == b"first"
        assert store.audit.verify("default").sequence == rows + 1
    finally:
        store.close()


@pytest.mark.root
def test_a_store_cannot_be_made_on_a_full_disk(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(1024 * 1024 - 8192))
    with pytest.raises(Unavailable) as caught:
        Store.open(small_disk, root_key=bytes(32), now=NOW).close()
    assert caught.value.code == "store_disk"
    (small_disk / "filler").unlink()
    Store.open(small_disk, root_key=bytes(32), now=NOW).close()
