"""Shares as files: another's, damaged or ambiguous ones are refused; what comes is a value or an error of the tree."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton.crypto import jwk
from adyton.crypto.shamir import recover, split
from adyton.errors import AdytonError, DecryptionFailed, DocumentInvalid
from adyton.protocol import backup, peers, shares

SECRET = bytes(range(32))
OWNER = ec.generate_private_key(ec.SECP256R1())


def sealed(index: int = 0) -> bytes:
    share = split(SECRET, 2, 3)[index]
    return shares.seal(share, "ab" * 16, "shares", jwk.from_public(OWNER.public_key()))


def test_anothers_share_is_refused() -> None:
    with pytest.raises(DecryptionFailed) as caught:
        shares.open_(sealed(), ec.generate_private_key(ec.SECP256R1()))
    assert caught.value.code == "share_not_yours"


@pytest.mark.parametrize(
    ("name", "value"), [("index", 2), ("threshold", 3), ("count", 4), ("store", "cd" * 16), ("slot", "other")]
)
def test_what_it_says_outside_must_be_what_it_says_inside(name: str, value: object) -> None:
    with pytest.raises(DecryptionFailed) as caught:
        shares.open_(json.dumps({**json.loads(sealed()), name: value}).encode(), OWNER)
    assert caught.value.code == "share_broken"


def test_a_member_twice_is_no_share() -> None:
    text = shares.open_(sealed(), OWNER)
    with pytest.raises(DocumentInvalid):
        shares.parse(text.replace(b'"index":1', b'"index":2,"index":1'))
    with pytest.raises(DocumentInvalid) as caught:
        shares.parse(sealed())
    assert "still sealed" in (caught.value.hint or "")


def test_one_flipped_bit_never_opens() -> None:
    raw = json.loads(sealed())
    for member in ("encrypted_key", "iv", "ciphertext", "tag"):
        text = raw["jwe"][member]
        flipped = {**raw["jwe"], member: ("A" if text[3] != "A" else "B").join((text[:3], text[4:]))}
        with pytest.raises(DecryptionFailed):
            shares.open_(json.dumps({**raw, "jwe": flipped}).encode(), OWNER)


def test_the_road_of_a_share() -> None:
    dealt = split(SECRET, 2, 3)
    key = jwk.from_public(OWNER.public_key())
    back = [shares.parse(shares.open_(shares.seal(one, "ab" * 16, "s", key), OWNER)) for one in dealt[1:]]
    assert recover([share for share, _, _ in back]) == SECRET
    assert {(store, slot) for _, store, slot in back} == {("ab" * 16, "s")}


READERS = [
    shares.parse,
    shares.described,
    backup.parse,
    peers.parse_hello,
    peers.parse_welcome,
    peers.parse_join,
    peers.parse_given,
]


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_any_bytes(reader: object, raw: bytes) -> None:
    assert callable(reader)
    try:
        reader(raw)
    except AdytonError:
        return
