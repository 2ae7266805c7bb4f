"""A store in PostgreSQL is not backed up by ``adyton broker backup``: it says by what, and what else must be kept."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.broker import rig
from tests.broker.replicas.conftest import Replicas


def refused(broker: rig.RunningBroker) -> dict[str, str]:
    command = [sys.executable, "-m", "adyton", "broker", "backup", str(broker.data.parent / "copy"), "--json"]
    done = subprocess.run(
        [*command, "--data", str(broker.data)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode and not (broker.data.parent / "copy").exists()
    found: dict[str, str] = json.loads(done.stdout)["error"]
    return found


def test_it_is_refused_and_told_what_to_do(replicas: Replicas) -> None:
    broker = replicas.add()
    for stale in (False, True):  # a store of before the broker had a database is not what it decides by
        if stale:
            (broker.data / "broker.sqlite").write_bytes(b"")
        error = refused(broker)
        assert error["code"] == "backup_elsewhere"
        assert all(word in error["hint"] for word in ("pg_dump", "root.key", "apart", "adyton audit checkpoint"))
        assert error["got"].startswith("database ")
    (broker.data / "broker.sqlite").unlink()
    broker.stop()
    error = refused(broker)
    assert error["code"] == "store_absent" and "pg_dump" in error["hint"]
