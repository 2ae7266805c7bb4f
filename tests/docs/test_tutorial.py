"""The tutorial's blocks, in order, in one shell: what a reader types is what is run here."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.docs.playing import play


@pytest.mark.root
@pytest.mark.timeout(600)
def test_the_tutorial_does_what_it_says(tmp_path: Path, guest: Path) -> None:
    variables = {"TMPDIR": "/tmp", "GUEST": str(guest)}  # a socket's path has at most 107 bytes
    said = play("tutorials/first-secret.md", tmp_path, blocks=12, variables=variables).stdout
    assert "the recipe" in said
    assert "workload_not_bound" in said and "signer_absent" in said
