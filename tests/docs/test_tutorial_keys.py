"""The tutorial on keys: its shell and Python blocks, in order, as a reader types them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.docs.playing import play


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    played = play("broker/keys.md", tmp_path, blocks=12, python=True)
    said = played.stdout
    assert said.count("web.pem: OK") == 2
    assert "web.pem is revoked" in said
    assert "adyton:enc:1:" in said
    assert "adyton:enc:2:" in said
    assert "you may not" in said
    assert "b'card 4711\\n'" in said
    assert "ES256 64 bytes" in said
    assert "settings: {'threads': 8} before {'threads': 4, 'hosts': ['a.example', 'b.example']}" in said
    assert "certificate and key: 3 PEM blocks" in said
    assert said.count("refused: the broker did not") == 3
    assert "key.decrypt" in said
    assert "valid for version 1 (ES256)" in played.stderr
    assert "BEGIN PRIVATE KEY" not in said
