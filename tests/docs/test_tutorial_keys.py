"""The tutorial on keys: its shell and Python blocks, in order, as a reader types them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TUTORIAL = REPOSITORY / "docs" / "broker" / "keys.md"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    blocks = re.findall(r"```(sh|python)\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    assert len(blocks) >= 9
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "adyton").write_text(f'#!/bin/sh\nexec {sys.executable} -m adyton "$@"\n')
    (programs / "adyton").chmod(0o755)
    script = ["set -eEuo pipefail\ntrap 'echo FAILED at: $BASH_COMMAND >&2; kill $(jobs -p)' ERR\n"]
    for kind, text in blocks:
        if kind == "sh":
            script.append(text)
            continue
        part = tmp_path / "part.py"
        part.write_text(text)
        script.append(f"{sys.executable} {part}\n")
    result = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        env={
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "TMPDIR": str(tmp_path),
            "BROKER_PORT": str(_free_port()),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    said = result.stdout
    assert result.returncode == 0, f"{said[-3000:]}\n{result.stderr[-3000:]}"
    assert "web.pem: OK" in said
    assert "adyton:enc:1:" in said
    assert "adyton:enc:2:" in said
    assert "you may not" in said
    assert "b'card 4711\\n'" in said
    assert "ES256 64 bytes" in said
    assert "settings: {'threads': 8} before {'threads': 4, 'hosts': ['a.example', 'b.example']}" in said
    assert "certificate and key: 3 PEM blocks" in said
    assert said.count("refused: the broker did not") == 3
    assert "key.decrypt" in said
    assert "valid for version 1 (ES256)" in result.stderr
    assert "BEGIN PRIVATE KEY" not in said
