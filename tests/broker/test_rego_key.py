from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from adyton.broker.policy.rego_key import MAX_KEY, Reader
from adyton.rats.types import JsonValue

PATHS = (("a",), ("b", "x"), ("b", "y"), ("b", "z"), ("c", 0), ("d", "e", "f"))
READER = Reader(PATHS, (("t",),))
LEAF = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.text(max_size=2), st.just(1.0))
VALUE = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abcdefxyzt"), inner),
    max_leaves=6,
)
DOCUMENT = st.dictionaries(st.sampled_from("abcdt"), VALUE, max_size=5)


def seen(document: dict[str, JsonValue]) -> str:
    """What the policy of ``READER`` can see of a document, walked step by step."""
    found: list[object] = []
    for path in PATHS:
        value: JsonValue = document
        there = True
        for part in path:
            if isinstance(value, dict) and part in value:
                value = value[str(part)]
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                there = False
                break
        found.append([value] if there else [])
    tested = document.get("t")
    found.append([type(tested).__name__, bool(tested)] if "t" in document else [])
    return json.dumps(found)


@given(DOCUMENT, DOCUMENT)
def test_two_documents_have_one_key_only_if_the_policy_cannot_tell_them_apart(
    one: dict[str, JsonValue], other: dict[str, JsonValue]
) -> None:
    assert (READER.key(one) == READER.key(other)) is (seen(one) == seen(other))


def test_true_is_not_one_and_what_is_too_long_has_no_key() -> None:
    assert READER.key({"a": True}) != READER.key({"a": 1})
    assert READER.key({"a": None}) != READER.key({})
    assert READER.key({"b": {"x": 1}}) != READER.key({"b": {"y": 1}})
    assert READER.key({"a": "x" * MAX_KEY}) is None
