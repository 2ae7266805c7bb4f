"""The tutorial on back ends: its shell and Python blocks, in order, and its TOML, which must be acceptable."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.docs.playing import DOCS, play

from adyton.stores.backends.options import parse


def test_every_example_of_the_file_is_acceptable() -> None:
    page = (DOCS / "broker" / "backends.md").read_text()
    found = [
        parse(text.encode(), Path("/etc/adyton/backends.toml"))
        for text in re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    ]
    assert {name for one in found for name in (*one.backends, *one.plugins)} == {"vault", "aws", "kmip", "provisioner"}


@pytest.mark.timeout(600)
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    said = play("broker/backends.md", tmp_path, blocks=5, python=True).stdout
    for told in ("SoftHSM", '"backend": "hsm"', "serving on"):
        assert told in said
    assert "the inner room" not in said
