"""The tutorial's blocks, in order, in one shell: what a reader types is what is run here."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.collateral.endorser import pem, play_amd, running

from adyton.devtee.forge import Forge

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "offline-endorsements.md"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.timeout(180)
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    assert len(blocks) >= 9
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "adyton").write_text(f'#!/bin/sh\nexec {sys.executable} -m adyton "$@"\n')
    (programs / "adyton").chmod(0o755)
    forge = Forge.new(datetime.now(UTC))  # noqa: TID251 -- the commands read the clock themselves
    (tmp_path / "report.bin").write_bytes(forge.report())
    (tmp_path / "root.pem").write_bytes(pem(forge.certificates[2][1]))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    script = "set -eEuo pipefail\ntrap 'echo FAILED at: $BASH_COMMAND >&2; kill $(jobs -p)' ERR\n" + "\n".join(blocks)
    with running() as upstream:
        play_amd(upstream, forge)
        result = subprocess.run(
            ["bash", "-c", script],
            env={
                **os.environ,
                "PATH": f"{programs}:{os.environ['PATH']}",
                "TMPDIR": str(tmp_path),
                "UPSTREAM": upstream.url,
                "REPORT": str(tmp_path / "report.bin"),
                "ROOT": str(tmp_path / "root.pem"),
                "PROXY_PORT": str(port),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )
        assert len(upstream.asked) == 3
    assert result.returncode == 0, f"{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    assert "VERIFIED" in result.stdout
    assert "bundle_malformed" in result.stderr + result.stdout
    assert "404" in result.stdout
