"""What is said of dependencies in three places is the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def _names(lines: list[str]) -> set[str]:
    return {
        re.split(r"[<>=;\s\[]", line, maxsplit=1)[0].lower().replace(".", "-")
        for line in lines
        if line and line[0].isalpha()
    }


def test_the_lock_covers_the_project_and_every_line_has_a_hash() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    asked = _names((REPOSITORY / "requirements" / "run.in").read_text().splitlines())
    locked_text = (REPOSITORY / "requirements" / "run.txt").read_text()
    assert _names(project) == asked
    assert asked <= _names(locked_text.splitlines())
    for block in re.split(r"\n(?=[a-z])", locked_text):
        assert "--hash=sha256:" in block, block.splitlines()[0]


def test_every_run_time_dependency_has_its_line_in_the_document() -> None:
    document = (REPOSITORY / "docs" / "dependencies.md").read_text()
    for line in (REPOSITORY / "requirements" / "run.in").read_text().split():
        assert f"`{line}`" in document, line


def test_every_debian_package_of_the_set_up_has_its_line() -> None:
    document = (REPOSITORY / "docs" / "dependencies.md").read_text()
    script = (REPOSITORY / "scripts" / "setup.sh").read_text()
    packages = re.search(r'^packages="([^"]+)"', script, re.MULTILINE)
    assert packages is not None
    for package in packages[1].split():
        assert f"`{package}`" in document, package
