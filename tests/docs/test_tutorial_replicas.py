"""docs/broker/replicas.md: what a reader types is what is run here."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.docs.playing import free_port, play
from tests.postgresql import Server


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tutorial_does_what_it_says(tmp_path: Path, postgresql: Server) -> None:
    variables = {
        "DATABASE": postgresql.schema(),
        "EMPTY_DATABASE": postgresql.schema(),
        "PORT_1": free_port(),
        "PORT_2": free_port(),
    }
    told = play("broker/replicas.md", tmp_path, blocks=4, variables=variables, options="-eEumo pipefail").stderr
    assert "moved" in told
    assert "compared row by row" in told
