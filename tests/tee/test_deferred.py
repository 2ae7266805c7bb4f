from __future__ import annotations

from adyton.rats.types import JsonValue
from adyton.tee.deferred import Deferred


def test_what_is_ready_makes_nothing_and_the_rest_is_made_once() -> None:
    made: list[int] = []

    def make() -> dict[str, JsonValue]:
        made.append(1)
        return {"vmpl": 0, "policy": "0x30000"}

    claims = Deferred(make, {"vmpl": 0})
    assert claims["vmpl"] == 0
    assert claims.get("vmpl") == 0
    assert not made
    assert claims["policy"] == "0x30000"
    assert claims.get("absent") is None
    assert claims == {"vmpl": 0, "policy": "0x30000"}
    assert list(claims) == ["vmpl", "policy"]
    assert len(claims) == 2
    assert "policy" in repr(claims)
    assert made == [1]
