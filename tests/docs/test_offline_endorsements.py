"""The tutorial's blocks, in order, in one shell: what a reader types is what is run here."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.collateral.endorser import pem, play_amd, running
from tests.docs.playing import free_port, play

from adyton.devtee.forge import Forge


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.timeout(600)
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    forge = Forge.new(datetime.now(UTC))  # noqa: TID251 -- the commands read the clock themselves
    (tmp_path / "report.bin").write_bytes(forge.report())
    (tmp_path / "root.pem").write_bytes(pem(forge.certificates[2][1]))
    with running() as upstream:
        play_amd(upstream, forge)
        variables = {
            "UPSTREAM": upstream.url,
            "REPORT": str(tmp_path / "report.bin"),
            "ROOT": str(tmp_path / "root.pem"),
            "PROXY_PORT": free_port(),
        }
        played = play("tutorials/offline-endorsements.md", tmp_path, blocks=10, variables=variables)
        assert len(upstream.asked) == 3
    assert "VERIFIED" in played.stdout
    assert "bundle_malformed" in played.said
    assert "404" in played.stdout
