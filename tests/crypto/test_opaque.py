from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.crypto.opaque import Opaque

OPAQUE = Opaque(bytes(range(32)))
numbers = st.integers(0, 2**64 - 1)


@given(numbers, st.text(max_size=20), st.integers(0, 25), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567A =1"))
def test_no_other_name_and_no_other_owner_opens(number: int, owner: str, at: int, character: str) -> None:
    name = OPAQUE.name(number, owner)
    if name[at] != character:
        assert OPAQUE.number(name[:at] + character + name[at + 1 :], owner) is None
    assert OPAQUE.number(name, owner + "x") is None
    assert Opaque(bytes(32)).number(name, owner) is None
    assert OPAQUE.number(name.upper(), owner) is None


@given(st.text(max_size=30))
def test_any_text_names_nothing(text: str) -> None:
    assert OPAQUE.number(text, "default") is None


@given(numbers, st.text(max_size=20))
def test_a_name_opens_as_its_number(number: int, owner: str) -> None:
    name = OPAQUE.name(number, owner)
    assert len(name) == 26
    assert OPAQUE.number(name, owner) == number


def test_neighbours_have_nothing_in_common() -> None:
    names = [OPAQUE.name(number, "default") for number in range(1000)]
    assert len(set(names)) == 1000
    assert len({name[:4] for name in names}) > 990


def test_misuse() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Opaque(bytes(16))
    with pytest.raises(OverflowError):
        OPAQUE.name(-1, "default")
