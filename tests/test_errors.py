from __future__ import annotations

import inspect
import json
import re

import pytest

from adyton import errors
from adyton.cli.output import exit_status

LEAVES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.AdytonError)]


@pytest.mark.parametrize("kind", LEAVES)
def test_every_error_can_be_made_from_a_message_and_printed_as_json(kind: type[errors.AdytonError]) -> None:
    error = kind("what went wrong", hint="what to do")
    as_dict = error.as_dict()
    assert json.loads(json.dumps(as_dict)) == as_dict
    assert re.fullmatch(r"[a-z_]+", error.code)
    assert exit_status(error) in {1, 2, 4}


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = set(re.findall(r"[A-Z][A-Za-z]+", (errors.__doc__ or "").split("::", 1)[1].split("HTTP status")[0]))
    assert {kind.__name__ for kind in LEAVES} <= drawn


def test_values_are_printable_and_bytes_are_hex() -> None:
    error = errors.EvidenceError("m", expected=b"\x01\xff", got=(b"\x02", 3, None))
    assert error.as_dict()["expected"] == "01ff"
    assert error.as_dict()["got"] == ["02", 3, None]
