"""The demo, as a user runs it: everything as it has to be, twice in a row, and nothing left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
REFUSALS = [
    "changed layer",
    "changed command line",
    "debug bit",
    "stale evidence (replay)",
    "foreign root",
    "no reference value",
]


def _traces() -> tuple[set[str], set[str], set[int]]:
    left = {str(path) for path in Path("/var/tmp").glob("adyton-demo-*")}
    mounts = {line for line in Path("/proc/self/mounts").read_text().splitlines() if "adyton" in line}
    running = {
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any("adyton-demo-" in word for word in process.info["cmdline"] or [])
    }
    return left, mounts, running


@pytest.mark.root
@pytest.mark.timeout(900)
def test_the_demo_tells_its_story_twice_and_leaves_nothing(guest: Path) -> None:
    before = _traces()
    for _ in range(2):
        result = subprocess.run(
            [sys.executable, "-m", "adyton", "demo", "--json", "--guest", str(guest)],
            capture_output=True,
            text=True,
            check=False,
            timeout=140,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        told = json.loads(result.stdout)
        rows = {row["step"]: row for row in told["steps"]}
        assert told["ok"]
        assert [row for row in rows if row in REFUSALS] == REFUSALS
        assert all(rows[name]["expected"] == "refused" for name in REFUSALS)
        assert rows["the scan sees the marker where it is"]["got"].startswith("found in 1")
        assert rows["marker scan of the host"]["got"].startswith("not found")
        assert _traces() == before
