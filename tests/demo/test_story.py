"""The demo, as a user runs it: everything as it has to be, twice in a row, and nothing left behind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tests.waiting import until

REPOSITORY = Path(__file__).resolve().parents[2]
REFUSALS = [
    "changed layer",
    "changed command line",
    "debug bit",
    "stale evidence (replay)",
    "foreign root",
    "no reference value",
]


def _traces() -> set[str]:
    """Of demos that are over, whoever played them: another one may be played on this machine meanwhile."""
    named = set()
    for process in psutil.process_iter(["cmdline"]):
        named |= set(re.findall(r"/var/tmp/adyton-demo-\w+", " ".join(process.info["cmdline"] or [])))
    there = {str(path) for path in Path("/var/tmp").glob("adyton-demo-*")}
    mounts = {line for line in Path("/proc/self/mounts").read_text().splitlines() if "adyton" in line}
    return {f"running in {path}" for path in named - there} | {f"left: {path}" for path in there - named} | mounts


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
            timeout=700,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        told = json.loads(result.stdout)
        rows = {row["step"]: row for row in told["steps"]}
        assert told["ok"]
        assert [row for row in rows if row in REFUSALS] == REFUSALS
        assert all(rows[name]["expected"] == "refused" for name in REFUSALS)
        assert rows["the scan sees the marker where it is"]["got"].startswith("found in 1")
        assert rows["marker scan of the host"]["got"].startswith("not found")
        until(lambda: _traces() <= before, what=lambda: _traces() - before)
