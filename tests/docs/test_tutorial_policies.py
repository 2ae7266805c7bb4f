"""The tutorial on policies: its blocks, in order, in one shell."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.docs.playing import play


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    said = play("broker/policies.md", tmp_path, blocks=6).said
    for expected in (
        "they differ", "status 1", "input.snp.reported_tcb_microcode is 150", "1 the same", "1 worse off",
        "back at version 1", "newer microcode", ">= 200", "by policy mine@1", "only with 1 gpu",
    ):  # fmt: skip
        assert expected in said, f"{expected}\n{said[-4000:]}"
