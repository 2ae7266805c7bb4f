"""A token that was made by a token: it ends with it, is revoked with it, and may do no more than it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.broker.test_recorded import AT, Broker

DAY = 86_400.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path / "a")
    for name, role in (("ann", "owner"), ("bob", "owner"), ("aud", "auditor")):
        assert made.ask("PUT", f"people/{name}", {"role": role}).status == 200
    yield made
    made.close()


def first(broker: Broker, name: str, days: int) -> dict[str, Any]:
    """A token that the admin token made: nothing of it is bounded by another."""
    return told(broker.ask("POST", f"people/{name}/tokens", {"days": days}))


def told(answer: Any) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    found = json.loads(answer.body)
    return {**found, "ends": datetime.fromisoformat(found["expires"]).timestamp()}


def own(broker: Broker, token: str, days: int = 90) -> dict[str, Any]:
    return told(broker.ask("POST", "own-tokens", {"days": days}, token=token))


def status(broker: Broker, token: str) -> tuple[int, str]:
    answer = broker.ask("GET", "whoami", token=token)
    return answer.status, answer.reason


def at(broker: Broker, seconds: float) -> None:
    broker.program._front._clock = lambda: AT + seconds


@pytest.mark.parametrize("name", ["ann", "aud"])
def test_it_never_outlives_what_made_it(broker: Broker, name: str) -> None:
    parent = first(broker, name, 2)
    child = own(broker, parent["token"])
    grandchild = own(broker, child["token"])
    shorter = own(broker, grandchild["token"], 1)
    assert parent["ends"] == child["ends"] == grandchild["ends"] == AT + 2 * DAY
    assert shorter["ends"] == AT + DAY
    at(broker, 2 * DAY - 1)
    last = own(broker, grandchild["token"])
    assert last["ends"] == AT + 2 * DAY
    at(broker, 2 * DAY)
    for one in (parent, child, grandchild, last):
        assert status(broker, one["token"]) == (403, "token_expired") or status(broker, one["token"])[0] == 401


def test_by_no_other_path_either(broker: Broker) -> None:
    parent = first(broker, "ann", 2)
    for name in ("ann", "bob"):
        made = told(broker.ask("POST", f"people/{name}/tokens", {"days": 90}, token=parent["token"]))
        assert made["ends"] == parent["ends"]


def test_it_is_revoked_with_what_made_it(broker: Broker) -> None:
    parent = first(broker, "aud", 9)
    child = own(broker, parent["token"])
    grandchild = own(broker, child["token"])
    other = first(broker, "aud", 9)
    assert broker.ask("DELETE", f"people/aud/tokens/{child['id']}").status == 204
    assert status(broker, parent["token"])[0] == status(broker, other["token"])[0] == 200
    assert status(broker, child["token"])[1] == status(broker, grandchild["token"])[1] == "admin_token_refused"
    assert broker.ask("POST", "own-tokens", {"days": 1}, token=grandchild["token"]).reason == "admin_token_refused"


def test_it_may_do_no_more(broker: Broker) -> None:
    child = own(broker, first(broker, "aud", 9)["token"])
    assert broker.ask("PUT", "references/a", {"value": 1}, token=child["token"]).status == 403
    assert broker.ask("POST", "people/ann/tokens", {"days": 1}, token=child["token"]).status == 403
    of_an_owner = own(broker, first(broker, "ann", 9)["token"])
    assert broker.ask("PUT", "references/a", {"value": 1}, token=of_an_owner["token"]).status == 200
    assert broker.ask("PUT", "people/ann", {"role": "auditor"}).status == 200
    assert broker.ask("PUT", "references/a", {"value": 2}, token=of_an_owner["token"]).status == 403


def test_who_is_gone_and_comes_back_gets_none_of_them_back(broker: Broker) -> None:
    child = own(broker, first(broker, "aud", 9)["token"])
    assert broker.ask("DELETE", "people/aud").status == 204
    assert broker.ask("PUT", "people/aud", {"role": "owner"}).status == 200
    assert status(broker, child["token"])[1] == "admin_token_refused"
