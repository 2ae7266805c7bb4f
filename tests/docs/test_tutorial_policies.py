"""The tutorial on policies: its blocks, in order, in one shell."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "broker" / "policies.md"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    assert len(blocks) == 6
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "adyton").write_text(f'#!/bin/sh\nexec {sys.executable} -m adyton "$@"\n')
    (programs / "adyton").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    script = "set -eEuo pipefail\ntrap 'echo FAILED at: $BASH_COMMAND >&2; kill $(jobs -p)' ERR\n" + "\n".join(blocks)
    result = subprocess.run(
        ["bash", "-c", script],
        env={
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "TMPDIR": str(tmp_path),
            "BROKER_PORT": str(port),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    said = result.stdout + result.stderr
    assert result.returncode == 0, said[-4000:]
    for expected in (
        "they differ", "status 1", "input.snp.reported_tcb_microcode is 150", "1 the same", "1 worse off",
        "back at version 1", "newer microcode", ">= 200", "by policy mine@1", "only with 1 gpu",
    ):  # fmt: skip
        assert expected in said, f"{expected}\n{said[-4000:]}"
