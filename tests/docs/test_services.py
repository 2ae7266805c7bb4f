"""The tutorial's blocks, in order, in one shell: what a reader types is what is run here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.broker import rig
from tests.broker.services.service_rig import rest_body
from tests.docs.playing import play


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.timeout(600)
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    root = rig.make_root(tmp_path / "root")
    (tmp_path / "request.json").write_bytes(rest_body(root))
    variables = {
        "FINGERPRINT": root.fingerprint,
        "ENDORSEMENTS": str(root.endorsements),
        "REQUEST": str(tmp_path / "request.json"),
    }
    said = play("broker/services.md", tmp_path, blocks=7, variables=variables, python=True).said
    for told in (
        "NO HARDWARE PROTECTION",
        "mine_cpu",
        "401",
        "token_expired",
        "abababab",
        "INVALID_ARGUMENT",
        "provenance_unsigned",
        '"ready":true',
    ):
        assert told in said
