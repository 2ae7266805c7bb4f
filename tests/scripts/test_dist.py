"""What is released can be made again, bit for bit, by whoever has the commit; and says what it is made of."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def made(source: Path, umask: int) -> Path:
    """``make dist`` of a copy of the commit, by another user's habits."""
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(source)], check=True)
    for path in source.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            os.utime(path, (umask * 1000, umask * 1000))
    environment = {**os.environ, "PYTHON": sys.executable, "TZ": f"UTC{umask % 10}"}
    subprocess.run(["scripts/dist.sh"], cwd=source, check=True, env=environment, umask=umask, stdout=subprocess.DEVNULL)
    return source / "dist"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("one") / "adyton", 0o022)


def test_two_machines_make_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    other = made(tmp_path / "elsewhere", 0o077)
    assert (dist / "SHA256SUMS").read_text() == (other / "SHA256SUMS").read_text()
    assert len((dist / "SHA256SUMS").read_text().splitlines()) == 3


def test_the_bill_of_materials_is_the_lock(dist: Path) -> None:
    bill = json.loads((dist / "adyton.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "adyton"
    locked = set(
        re.findall(r"^([a-z0-9.-]+)==(\S+)", (REPOSITORY / "requirements" / "run.txt").read_text(), re.MULTILINE)
    )
    assert {(one["name"].lower(), one["version"]) for one in bill["components"]} == locked
    assert all(one["purl"].startswith("pkg:pypi/") and one["externalReferences"] for one in bill["components"])


def test_the_wheel_works_where_there_is_no_checkout(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
    assert not [name for name in names if name.startswith(("tests", "bench")) or name.endswith(".pyc")]
    shutil.copytree(tmp_path / "installed", tmp_path / "moved")
    script = (
        "import sys; sys.path = [p for p in sys.path if 'src' not in p]; sys.path.insert(0, sys.argv[1]);"
        "import adyton; assert adyton.__file__.startswith(sys.argv[1]), adyton.__file__;"
        "from adyton.broker.page import Page; assert Page().answer(());"
        "from adyton.appraisal import policies; assert len(policies.DEFAULTS) > 1;"
        "from adyton.cli import main; main(['--version'])"
    )
    told = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "moved")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("adyton ")
