"""docs/broker/replicas.md: what a reader types is what is run here."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.postgresql import Server

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "broker" / "replicas.md"


def _free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_tutorial_does_what_it_says(tmp_path: Path, postgresql: Server) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    assert len(blocks) == 4
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "adyton").write_text(f'#!/bin/sh\nexec {sys.executable} -m adyton "$@"\n')
    (programs / "adyton").chmod(0o755)
    script = "set -eEumo pipefail\ntrap 'echo FAILED at: $BASH_COMMAND >&2; kill $(jobs -p)' ERR\n" + "\n".join(blocks)
    result = subprocess.run(
        ["bash", "-c", script],
        env={
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "TMPDIR": str(tmp_path),
            "DATABASE": postgresql.schema(),
            "EMPTY_DATABASE": postgresql.schema(),
            "PORT_1": _free_port(),
            "PORT_2": _free_port(),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert result.returncode == 0, f"{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    assert "moved" in result.stderr and "compared row by row" in result.stderr
