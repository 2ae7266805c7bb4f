from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from adyton.demo.scan import scan

MARKER = b"0123456789abcdef-marker"


def test_a_marker_is_found_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "plain").write_bytes(b"x" * 100 + MARKER)
    (tmp_path / "across").write_bytes(b"x" * ((1 << 20) - 5) + MARKER + b"y")
    (tmp_path / "packed.gz").write_bytes(gzip.compress(b"z" * 1000 + MARKER))
    result = scan([tmp_path], MARKER)
    assert {path.name for path in result.found} == {"plain", "across", "packed.gz"}
    assert result.files == 3


def test_what_is_not_there_is_not_found_and_links_are_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "secret").write_bytes(MARKER)
    scanned = tmp_path / "scanned"
    scanned.mkdir()
    (scanned / "link").symlink_to(elsewhere / "secret")
    (scanned / "not-gzip").write_bytes(b"\x1f\x8bnot really")
    (scanned / "cut.gz").write_bytes(gzip.compress(MARKER * 50)[:-12])
    os.mkfifo(scanned / "pipe")
    result = scan([scanned], MARKER)
    assert [path.name for path in result.found if path.name != "cut.gz"] == []
    assert result.unread == ()


def test_a_short_marker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="by chance"):
        scan([tmp_path], b"short")
