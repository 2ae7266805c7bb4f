"""Every row of the comparison names what shows it: a test that is there, wherever it says that Adyton does something."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (REPOSITORY / "docs/compare.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| feature ")
]
LACKING = ("no", "not yet")  # said so, and nothing to show


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_row_is_shown_by_a_test(row: list[str]) -> None:
    feature, _, ours, shown = row
    named = re.findall(r"`((?:tests|bench)/[^`]+)`", shown)
    assert any(name.startswith("tests/") for name in named) or ours in LACKING, f"{feature}: no test shows it"
    assert [name for name in named if not (REPOSITORY / name).exists()] == []


def test_the_features_that_trustee_has_and_had() -> None:
    """kbs-protocol 6, and what users of it ask for in vain (U1 to U5, U15, U17)."""
    text = (REPOSITORY / "docs/compare.md").read_text()
    assert len(ROWS) > 40
    for asked in ("U1", "U2", "U3", "U4", "U5", "U15", "U17"):
        assert re.search(rf"\({asked}\)", text), asked
