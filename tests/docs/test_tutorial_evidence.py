"""The tutorial on evidence: its shell and Python blocks, in order, as a reader types them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TUTORIAL = REPOSITORY / "docs" / "tutorials" / "verify-evidence.md"


def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    blocks = re.findall(r"```(sh|python)\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    assert len(blocks) >= 7
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "adyton").write_text(f'#!/bin/sh\nexec {sys.executable} -m adyton "$@"\n')
    (programs / "adyton").chmod(0o755)
    script, python = ["set -euo pipefail"], ""
    for kind, text in blocks:
        if kind == "sh":
            script.append(text)
            continue
        python += text  # one session: what an earlier block bound stays bound
        part = tmp_path / f"part{len(script)}.py"
        part.write_text(python)
        script.append(f"{sys.executable} {part}")
    result = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert result.returncode == 0, f"{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    assert "✗ root" in result.stdout
    assert "VERIFIED" in result.stdout
    for code in ("report_sig", "report_data_mismatch", "root_untrusted", "malformed_evidence"):
        assert f"{code}: " in result.stdout
