from __future__ import annotations

import runpy
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_written_command_line_is_the_real_one() -> None:
    script = runpy.run_path(str(REPOSITORY / "scripts" / "cli_reference.py"))
    assert (REPOSITORY / "docs" / "reference" / "cli.md").read_text() == script["render"](), (
        "run .venv/bin/python scripts/cli_reference.py"
    )
