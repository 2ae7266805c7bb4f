"""Values on their way into the engine, and results on their way out of it."""

from __future__ import annotations

import json

from adyton.appraisal.rego_check import MAX_DEPTH
from adyton.errors import MalformedRequest, PolicyInvalid, TooLarge
from adyton.rats.types import JsonValue


def prepare(value: JsonValue, depth: int = 0) -> JsonValue:
    """``value`` as the engine must be given it: strings escaped as JSON, no number that it would take for another.

    ``TooLarge`` for what is nested deeper than 64, ``MalformedRequest`` for integers beyond 64 bits and for
    floating-point numbers that six decimals do not hold: the engine would silently take another number.
    """
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)[1:-1]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise MalformedRequest("an integer that policies cannot compare", code="policy_input_number")
        return value
    if isinstance(value, float):
        if not (abs(value) < 1e15 and float(f"{value:f}") == value):
            raise MalformedRequest("a number that policies cannot compare", code="policy_input_number")
        return value
    if depth >= MAX_DEPTH:
        raise TooLarge(f"what policies read is nested deeper than {MAX_DEPTH}", code="policy_input_too_deep")
    if isinstance(value, list):
        return [prepare(item, depth + 1) for item in value]
    return {json.dumps(name, ensure_ascii=False)[1:-1]: prepare(item, depth + 1) for name, item in value.items()}


def single(rule: str, text: str) -> JsonValue:
    """The one value in a rule's result; ``PolicyInvalid`` if there are several, or none."""
    try:
        expressions = json.loads(text)["expressions"]
        if len(expressions) == 1:
            value: JsonValue = expressions[0]
            return value
    except (ValueError, KeyError, TypeError, RecursionError):
        pass  # the engine writes errors, such as two values for one rule, into the result
    raise PolicyInvalid(
        f"the policy could not be evaluated: rule {rule} has no single value",
        code="policy_failed",
        hint="a rule has several values, or the engine met something that it cannot do",
    )
