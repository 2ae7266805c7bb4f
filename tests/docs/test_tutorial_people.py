"""The tutorial on tenants and people: its shell blocks, in order, as a reader types them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.docs.playing import play


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    said = play("broker/people.md", tmp_path, blocks=8).said
    for told in ("acme/ann: owner of everything of acme", "acme/rita: auditor of acme-prod", "1 of 2", "2 of 2 agree",
                 "promoted, sha256:", "of 100", "role auditor", "switched off"):  # fmt: skip
        assert told in said, (told, said[-4000:])
