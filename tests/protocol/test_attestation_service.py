"""What an attestation service is asked for: what is no question about one environment."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adyton.errors import MalformedRequest
from adyton.protocol import attestation_service as wire
from adyton.wire import b64


def piece(tee: str, runtime: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    return {"tee": tee, "evidence": "AA", "runtime_data": runtime, **more}


def raw(value: bytes) -> dict[str, Any]:
    return {"raw": b64.encode_url(value)}


def parse(*pieces: dict[str, Any]) -> wire.Evaluation:
    return wire.parse(json.dumps({"verification_requests": pieces, "policy_ids": []}).encode())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (raw(b"one"), raw(b"two")),
        (raw(b"one"), {"structured": {}}),
        ({"structured": {}}, raw(b"one")),
        (raw(b"{}"), {"structured": {}}),
        (raw(b"one"), None),
        (None, raw(b"one")),
        ({"structured": {}}, None),
        ({"structured": {"n": 1}}, {"structured": {"n": True}}),
        ({"structured": {"n": [0]}}, {"structured": {"n": [False]}}),
        ({"structured": {"n": 1}}, {"structured": {"n": 2}}),
        ({"structured": {"n": 1}}, {"structured": {"n": 1, "additional-evidence": ""}}),
    ],
)
def test_a_device_that_answers_another_challenge(first: dict[str, Any] | None, second: dict[str, Any] | None) -> None:
    with pytest.raises(MalformedRequest) as caught:
        parse(piece("snp", first), piece("nvidia", second))
    assert caught.value.code == "runtime_data_differs"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (raw(b"one"), raw(b"one")),
        ({"structured": {"b": 1, "a": 2}}, {"structured": {"a": 2, "b": 1}}),
        ({"structured": {"n": 1, "additional-evidence": "x"}}, {"structured": {"n": 1}}),
        (None, None),
    ],
)
def test_a_device_that_answers_the_cpus(first: dict[str, Any] | None, second: dict[str, Any] | None) -> None:
    assert len(parse(piece("snp", first), piece("nvidia", second)).pieces) == 2
