"""Playing a tutorial: its blocks, in order, in one shell, as a reader types them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests import ports

DOCS = Path(__file__).resolve().parents[2] / "docs"


@dataclass(frozen=True)
class Played:
    """What the tutorial printed."""

    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """All of it."""
        return self.stdout + self.stderr


def free_port() -> str:
    """One that nobody else is given."""
    return str(ports.reserve())


def play(
    page: str,
    directory: Path,
    *,
    blocks: int,
    variables: Mapping[str, str] | None = None,
    python: bool = False,
    one_session: bool = False,
    options: str = "-eEuo pipefail",
    seconds: float = 500,
) -> Played:
    """Run ``docs/<page>``, which has exactly ``blocks`` blocks of shell (and of Python, if ``python``), to its end.

    ``one_session``: what an earlier block of Python bound stays bound.
    """
    found = re.findall(
        r"```(sh|python)\n(.*?)```" if python else r"```(sh)\n(.*?)```", (DOCS / page).read_text(), re.DOTALL
    )
    assert len(found) == blocks, f"{page} has {len(found)} blocks"
    programs = directory / "bin"
    programs.mkdir()
    (programs / "adyton").write_text(f'#!/bin/sh\nexec {sys.executable} -m adyton "$@"\n')
    (programs / "adyton").chmod(0o755)
    trap = "trap 'echo FAILED at: $BASH_COMMAND >&2; [ ! -e broker.log ] || cat broker.log >&2; kill $(jobs -p)' ERR"
    script, before = [f"set {options}", trap], ""
    for number, (kind, text) in enumerate(found):
        if kind == "sh":
            script.append(text)
            continue
        part = directory / f"part{number}.py"
        part.write_text(before + text)
        before += text if one_session else ""
        script.append(f"{sys.executable} {part}")
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "TMPDIR": str(directory),
        "BROKER_PORT": free_port(),
        **(variables or {}),
    }
    shell = subprocess.Popen(
        ["bash", "-c", "\n".join(script)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = shell.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(shell.pid, signal.SIGKILL)  # with whatever it started
        out, err = shell.communicate()
    assert shell.returncode == 0, f"{out[-3000:]}\n{err[-5000:]}"
    return Played(out, err)
