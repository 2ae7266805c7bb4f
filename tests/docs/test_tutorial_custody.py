"""The tutorials on the root key and on backups: their shell blocks, in order, as a reader types them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def played(name: str, place: Path) -> str:
    blocks = re.findall(r"```sh\n(.*?)```", (REPOSITORY / "docs" / "broker" / name).read_text(), re.DOTALL)
    assert len(blocks) >= 3
    programs = place / "bin"
    programs.mkdir()
    (programs / "adyton").write_text(f'#!/bin/sh\nexec {sys.executable} -m adyton "$@"\n')
    (programs / "adyton").chmod(0o755)
    script = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + "\n".join(blocks)
    result = subprocess.run(
        ["bash", "-c", script],
        env={
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "TMPDIR": str(place),
            "BROKER_PORT": str(_free_port()),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert result.returncode == 0, f"{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_who_holds_the_root_key(tmp_path: Path) -> None:
    said = played("root-key.md", tmp_path)
    for text in ("plain file", "root_key_locked", "kbs:///default/recipe/1", "2 of 3", "root-key.recover"):
        assert text in said


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_backup_and_restore(tmp_path: Path) -> None:
    said = played("backup.md", tmp_path)
    assert "backup_too_old" in said
    assert said.count("kbs:///default/recipe/2") >= 1
