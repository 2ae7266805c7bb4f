from __future__ import annotations

import importlib
from datetime import UTC, datetime

import pytest

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import UnsupportedEvidence
from adyton.rats.types import TrustAnchors


def test_every_room_stands_and_has_a_wire_name() -> None:
    for name, module in tee.ROOMS.items():
        assert name in tee.WIRE_NAMES
        room = importlib.import_module(module)
        assert callable(room.verify)
        assert callable(room.show)


@pytest.mark.parametrize("name", ["hygondcu", "nvidiadpu", "", "SNP", "snp ", "x" * 1000])
def test_other_tees_are_unsupported_not_guessed(name: str) -> None:
    with pytest.raises(UnsupportedEvidence) as caught:
        tee.show(name, b"")
    assert len(str(caught.value.got)) <= 40
    with pytest.raises(UnsupportedEvidence):
        tee.verify(
            name,
            b"",
            endorsements=EndorsementSet(),
            now=datetime(2026, 1, 1, tzinfo=UTC),
            anchors=TrustAnchors(),
        )
