from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from adyton.tee.snp import same_text
from adyton.tee.snp.same_text import digest_of


@given(st.binary(max_size=600), st.integers(0, 600), st.integers(0, 600))
def test_it_is_always_this_text_s_own_digest(document: bytes, one: int, other: int) -> None:
    start, end = sorted((min(one, len(document)), min(other, len(document))))
    text = document[start:end]
    for _ in range(2):
        assert digest_of(document, start, end) == (hashlib.sha256(text).digest() if text else b"")


def test_texts_whose_samples_are_equal_are_told_apart() -> None:
    texts = [bytes(251) + bytes([number]) * 249 for number in range(3)] + [bytes(200), bytes(250)]
    assert len({text[::251] for text in texts}) < len(texts)
    for text in (*texts, *texts):
        assert digest_of(b"x" + text + b"y", 1, 1 + len(text)) == hashlib.sha256(text).digest()


def test_what_is_kept_is_bounded() -> None:
    for number in range(3 * same_text.LIMIT):
        digest_of(number.to_bytes(4, "big") * 10, 0, 40)
    digest_of(bytes(same_text.LONGEST + 1), 0, same_text.LONGEST + 1)
    assert len(same_text._known) <= same_text.LIMIT
    assert all(len(text) <= same_text.LONGEST for text, _ in same_text._known.values())
