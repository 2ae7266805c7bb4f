"""The tutorial on tenants and people: its shell blocks, in order, as a reader types them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "broker" / "people.md"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    assert len(blocks) == 7
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "adyton").write_text(f'#!/bin/sh\nexec {sys.executable} -m adyton "$@"\n')
    (programs / "adyton").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    fail = "set -eEuo pipefail\ntrap 'echo FAILED at: $BASH_COMMAND >&2; kill $(jobs -p)' ERR\n"
    result = subprocess.run(
        ["bash", "-c", fail + "\n".join(blocks)],
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
    for told in ("acme/ann: owner of everything of acme", "acme/rita: auditor of acme-prod", "1 of 2", "2 of 2 agree",
                 "promoted, sha256:", "of 100", "role auditor", "switched off"):  # fmt: skip
        assert told in said, (told, said[-4000:])
