"""The tutorials on the root key and on backups: their shell blocks, in order, as a reader types them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.docs.playing import play


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_who_holds_the_root_key(tmp_path: Path) -> None:
    said = play("broker/root-key.md", tmp_path, blocks=6).stdout
    for text in ("plain file", "root_key_locked", "kbs:///default/recipe/1", "2 of 3", "root-key.recover"):
        assert text in said


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_backup_and_restore(tmp_path: Path) -> None:
    said = play("broker/backup.md", tmp_path, blocks=3).stdout
    assert "backup_too_old" in said
    assert said.count("kbs:///default/recipe/2") >= 1
