"""What workers tell each other of what they counted, on a disk that takes nothing more."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adyton.broker.running import reports
from adyton.broker.running.metrics import Snapshot


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=320k", "adyton-test", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_ends_no_worker(small: Path) -> None:
    """A map over a file with holes would: a page that cannot be had is SIGBUS."""
    directory = reports.fresh(small)
    program = (
        "import sys; from pathlib import Path; from adyton.broker.running.reports import Report\n"
        "from adyton.broker.running.metrics import Snapshot\n"
        "report = Report(Path(sys.argv[1]), 1)\n"
        "report.write(Snapshot(counters={'connections': 1}))\n"
        "with Path(sys.argv[1], 'fill').open('wb', 0) as file:\n"
        "    try:\n"
        "        while file.write(bytes(1024)): pass\n"
        "    except OSError: pass\n"
        "report.write(Snapshot(requests={f'area|allowed|code{n}': n for n in range(4000)}))\n"
        "report.close()\n"
        "Report(Path(sys.argv[1]), 2).write(Snapshot(counters={'connections': 1}))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(directory)], check=False)
    assert ended.returncode == 0
    reports.fold(directory, 1)
    assert [one.counters for one in reports.read(directory)] in ([], [{"connections": 1}])
    (directory / "fill").unlink()
    reports.Report(directory, 3).write(Snapshot(counters={"connections": 3}))
    assert {"connections": 3} in [one.counters for one in reports.read(directory)]


def test_a_shorter_report_after_a_longer_one(tmp_path: Path) -> None:
    report = reports.Report(tmp_path, 1)
    report.write(Snapshot(requests={f"area|allowed|code{n}": n for n in range(100)}))
    report.write(Snapshot(counters={"connections": 2}))
    (read,) = reports.read(tmp_path)
    assert (read.requests, read.counters) == ({}, {"connections": 2})
    assert not reports.read(tmp_path, but=1)
    report.close()


def test_a_place_that_is_taken_by_something_else_is_made_free(tmp_path: Path) -> None:
    (tmp_path / reports.DIRECTORY).write_text("a file")
    assert reports.fresh(tmp_path).is_dir()
