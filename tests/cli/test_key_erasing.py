"""What a key's owner is told while something of a destroyed version still lies somewhere."""

from __future__ import annotations

import json

import pytest

from adyton.cli.key import said
from adyton.protocol.keys import KeyVersionView, KeyView
from adyton.protocol.release import Binding


def view(*erasing: str) -> KeyView:
    version = KeyVersionView(1, "destroyed", "2026-11-21T00:00:00Z", "2026-11-21T00:00:00Z")
    return KeyView(
        "kbs:///a/b/c",
        "aes-256",
        version.changed,
        True,
        [],
        [],
        Binding(),
        [version],
        backend="hsm",
        erasing=[*erasing],
    )


def test_where_it_lies_and_how_to_ask_again(capsys: pytest.CaptureFixture[str]) -> None:
    said(view(), as_json=False)
    assert "still lies" not in capsys.readouterr().out
    said(view("the store", "hsm"), as_json=False)
    told = capsys.readouterr().out
    assert "still lies in the store and in hsm" in told
    assert "adyton key destroy kbs:///a/b/c" in told and "adyton key delete kbs:///a/b/c" in told
    said(view("hsm"), as_json=True)
    assert json.loads(capsys.readouterr().out)["erasing"] == ["hsm"]
