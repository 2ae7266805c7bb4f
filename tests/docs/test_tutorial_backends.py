"""The tutorial on back ends: its shell and Python blocks, in order, and its TOML, which must be acceptable."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from adyton.stores.backends.options import parse

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "broker" / "backends.md"


def _blocks(kinds: str) -> list[tuple[str, str]]:
    return re.findall(rf"```({kinds})\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)


def test_every_example_of_the_file_is_acceptable() -> None:
    found = [parse(text.encode(), Path("/etc/adyton/backends.toml")) for _, text in _blocks("toml")]
    assert {name for one in found for name in (*one.backends, *one.plugins)} == {"vault", "aws", "kmip", "provisioner"}


@pytest.mark.timeout(90)
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "adyton").write_text(f'#!/bin/sh\nexec {sys.executable} -m adyton "$@"\n')
    (programs / "adyton").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    script = ["set -eEuo pipefail\ntrap 'echo FAILED at: $BASH_COMMAND >&2; kill $(jobs -p)' ERR\n"]
    for number, (kind, text) in enumerate(_blocks("sh|python")):
        if kind == "sh":
            script.append(text)
            continue
        part = tmp_path / f"part{number}.py"
        part.write_text(text)
        script.append(f"{sys.executable} {part}\n")
    result = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        env={
            **os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(tmp_path), "BROKER_PORT": str(port)
        },
        capture_output=True, text=True, check=False, timeout=80,
    )  # fmt: skip
    said = result.stdout
    assert result.returncode == 0, f"{said[-3000:]}\n{result.stderr[-3000:]}"
    assert "SoftHSM" in said
    assert '"backend": "hsm"' in said
    assert "serving on" in said
    assert "the inner room" not in said
