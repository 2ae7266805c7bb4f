"""What is made of the ``.proto`` files is what is in the tree."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "protos.py"


def test_messages_are_those_of_their_proto() -> None:
    spec = importlib.util.spec_from_file_location("protos", SCRIPT)
    assert spec is not None and spec.loader is not None
    protos = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(protos)
    assert protos.differing() == []
