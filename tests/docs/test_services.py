"""The tutorial's blocks, in order, in one shell: what a reader types is what is run here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.broker import rig
from tests.broker.services.test_services import rest_body

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "broker" / "services.md"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.timeout(120)
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    assert len(blocks) == 4
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "adyton").write_text(f'#!/bin/sh\nexec {sys.executable} -m adyton "$@"\n')
    (programs / "adyton").chmod(0o755)
    root = rig.make_root(tmp_path / "root")
    (tmp_path / "request.json").write_bytes(rest_body(root))
    script = "set -eEuo pipefail\ntrap 'echo FAILED at: $BASH_COMMAND >&2; kill $(jobs -p)' ERR\n" + "\n".join(blocks)
    result = subprocess.run(
        ["bash", "-c", script],
        env={
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "TMPDIR": str(tmp_path),
            "FINGERPRINT": root.fingerprint,
            "ENDORSEMENTS": str(root.endorsements),
            "REQUEST": str(tmp_path / "request.json"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    said = result.stdout + result.stderr
    assert result.returncode == 0, said[-4000:]
    assert "NO HARDWARE PROTECTION" in said and "mine_cpu" in said and "401" in said and "token_expired" in said
