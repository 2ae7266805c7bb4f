"""The OpenAPI document says what the API does: against a running broker, by schemathesis; and it says all of it."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.broker import rig

from adyton.broker.door import openapi
from adyton.broker.door.openapi_routes import ROUTES
from adyton.broker.people.permissions import TABLE

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def document() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(openapi.document())
    return read


def test_a_route_without_a_description_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    openapi.document.cache_clear()
    fewer = {name: one for name, one in ROUTES.items() if name != "GET about"}
    monkeypatch.setattr("adyton.broker.door.openapi.ROUTES", fewer)
    with pytest.raises(ValueError, match="GET about"):
        openapi.document()
    openapi.document.cache_clear()


def test_every_route_is_there_once() -> None:
    operations = [operation for path in document()["paths"].values() for operation in path.values()]
    assert len(operations) == len([line for line in TABLE if line.area == "api"])
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        assert operation["summary"]
        assert operation["description"]


def test_every_reference_leads_somewhere() -> None:
    text, whole = openapi.document().decode(), document()

    def walk(value: object) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                at: Any = whole
                for part in value["$ref"].removeprefix("#/").split("/"):
                    at = at[part]
            for one in value.values():
                walk(one)
        elif isinstance(value, list):
            for one in value:
                walk(one)

    walk(whole)
    assert "token" in text


def test_it_is_served(broker: rig.RunningBroker) -> None:
    with rig.raw(broker) as client:
        assert client.ask("GET", "/api/v0/openapi.json")[0] == 401
        token = (broker.data / "admin.token").read_text().strip()
        status, body, _ = client.ask("GET", "/api/v0/openapi.json", headers={"Authorization": f"Bearer {token}"})
    assert (status, body) == (200, openapi.document())


schema = schemathesis.openapi.from_dict(document())


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A broker of its own: what schemathesis does to it is nobody else's loss."""
    running = rig.started(tmp_path_factory.mktemp("schemathesis") / "data", None)
    running.publish()
    yield running
    assert running.stop() == 0


@schema.parametrize()
@settings(
    max_examples=60 if os.environ.get("ADYTON_ALL") else 6,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=True,
)
def test_the_broker_keeps_to_it(case: schemathesis.Case[Any], victim: rig.RunningBroker) -> None:
    token = (victim.data / "admin.token").read_text().strip()
    case.call_and_validate(
        base_url=f"{victim.description['url']}/t/victim/api/v0",
        headers={"Authorization": f"Bearer {token}"},
        checks=CHECKS,
    )


@schema.parametrize()
@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
def test_nothing_is_told_without_a_token(case: schemathesis.Case[Any], victim: rig.RunningBroker) -> None:
    answer = case.call(base_url=f"{victim.description['url']}/api/v0", headers={"Authorization": "Bearer nobody"})
    assert answer.status_code in {401, 404, 405}
    assert b"hint" not in answer.content
