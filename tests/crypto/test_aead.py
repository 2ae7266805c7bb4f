"""Seals: forged, foreign, moved to another context, or under a key that was dropped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.crypto.aead import OVERHEAD, KeyRing, derive, random_bytes
from adyton.errors import SessionInvalid

OLD, NEW = b"old1", b"new2"
RING = KeyRing({OLD: b"a" * 32, NEW: b"b" * 32}, NEW)


@given(st.binary(max_size=200), st.binary(max_size=20))
def test_what_was_sealed_comes_back(text: bytes, context: bytes) -> None:
    sealed = RING.seal(text, context)
    assert len(sealed) == len(text) + OVERHEAD
    assert RING.open(sealed, context) == text
    with pytest.raises(SessionInvalid):
        RING.open(sealed, context + b"x")


def test_every_byte_is_authenticated() -> None:
    sealed = RING.seal(b"cookie")
    for index in range(len(sealed)):
        changed = bytearray(sealed)
        changed[index] ^= 1
        with pytest.raises(SessionInvalid):
            RING.open(bytes(changed))


@given(st.binary(max_size=64))
def test_rubbish(text: bytes) -> None:
    for prefix in (b"", NEW):
        with pytest.raises(SessionInvalid):
            RING.open(prefix + text)


def test_a_key_id_cannot_be_swapped() -> None:
    same_key = KeyRing({OLD: b"a" * 32, NEW: b"a" * 32}, NEW)
    sealed = same_key.seal(b"x")
    with pytest.raises(SessionInvalid):
        same_key.open(OLD + sealed[4:])


def test_rotation() -> None:
    before = KeyRing({OLD: b"a" * 32}, OLD)
    sealed = before.seal(b"x")
    assert RING.open(sealed) == b"x"
    with pytest.raises(SessionInvalid) as refused:
        KeyRing({NEW: b"b" * 32}, NEW).open(sealed)
    assert refused.value.code == "seal_key_unknown"


def test_repr_has_no_key() -> None:
    assert "bbbb" not in repr(RING)
    assert "aaaa" not in repr(RING)


@pytest.mark.parametrize(("keys", "current"), [({}, b"aaaa"), ({b"aaaa": b"k"}, b"aaaa"), ({b"a": b"k" * 32}, b"a")])
def test_rings_that_cannot_be(keys: dict[bytes, bytes], current: bytes) -> None:
    with pytest.raises(ValueError, match="key"):
        KeyRing(keys, current)


def test_derived_keys_differ_by_purpose() -> None:
    assert derive(b"r" * 32, "cookies") != derive(b"r" * 32, "tokens") != derive(b"s" * 32, "tokens")
    with pytest.raises(ValueError, match="root"):
        derive(b"short", "cookies")


def test_random_bytes() -> None:
    assert len(random_bytes(32)) == 32
    assert random_bytes(16) != random_bytes(16)
    with pytest.raises(ValueError, match="32"):
        random_bytes(33)
