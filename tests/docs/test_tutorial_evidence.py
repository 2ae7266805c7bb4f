"""The tutorial on evidence: its shell and Python blocks, in order, as a reader types them."""

from __future__ import annotations

from pathlib import Path

from tests.docs.playing import play


def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    said = play("tutorials/verify-evidence.md", tmp_path, blocks=7, python=True, one_session=True).stdout
    assert "✗ root" in said
    assert "VERIFIED" in said
    for code in ("report_sig", "report_data_mismatch", "root_untrusted", "malformed_evidence"):
        assert f"{code}: " in said
