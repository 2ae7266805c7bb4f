"""Nesting is found without walking over every byte in Python."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.wire import strict_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def height(value: object) -> int:
    if isinstance(value, list):
        return 1 + max(map(height, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(height, value.values()), default=0)
    return 0


@given(VALUES)
def test_it_is_as_deep_as_its_deepest_bracket(value: object) -> None:
    text, deep = json.dumps(value, ensure_ascii=False).encode(), height(value)
    assert not strict_json.deeper(text, deep)
    assert deep == 0 or strict_json.deeper(text, deep - 1)


@pytest.mark.parametrize("text", ['"[[["', r'"\"[[["', r'"\\"', '{"[":"]"}', "[]", '["a\\\\","["]'])
def test_brackets_in_strings_are_none(text: str) -> None:
    json.loads(text)
    assert not strict_json.deeper(text.encode(), 1)


@pytest.mark.parametrize("text", ["[" * 65 + "]" * 65, "[" * 100, "[" * 70 + '"'])
def test_too_deep_or_cut_off_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="nested deeper"):
        strict_json.parse(text, max_size=1000)


@pytest.mark.parametrize("part", [b"[],", b"[[[[[]]]]],", b'{"a":[]},', b'"\\\\",[],', b'"['])
def test_megabytes_of_brackets_are_looked_at_in_time(part: bytes) -> None:
    data = b"[" + part * (1_800_000 // len(part)) + b"0]"
    began = time.process_time()
    strict_json.deeper(data, strict_json.MAX_DEPTH)
    assert time.process_time() - began < 5


def test_64_deep_is_read() -> None:
    assert strict_json.parse("[" * 64 + "]" * 64, max_size=1000)
