"""Threshold shares: any k give the secret back, fewer say nothing, and a false one is named."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton.crypto import shamir
from adyton.crypto.shamir import Share, ShareSet, recover, split
from adyton.errors import DocumentInvalid

SECRET = bytes(range(32))


def code(shares: list[Share], expected: ShareSet | None = None) -> tuple[str, str | None]:
    with pytest.raises(DocumentInvalid) as caught:
        recover(shares, expected)
    return caught.value.code, caught.value.field


def changed(share: Share, **change: object) -> Share:
    return Share(**{"set": share.set, "index": share.index, "value": share.value, **change})  # type: ignore[arg-type]


def test_too_few_are_refused() -> None:
    shares = split(SECRET, 3, 5)
    assert code([]) == ("shares_too_few", "shares")
    assert code(list(shares[:2])) == ("shares_too_few", "shares")


def test_the_same_share_twice_is_not_two() -> None:
    shares = split(SECRET, 2, 3)
    assert code([shares[1], shares[1]]) == ("share_twice", "share 2")


@pytest.mark.parametrize("byte", [0, 13, 31])
def test_a_forged_share_is_named(byte: int) -> None:
    shares = list(split(SECRET, 3, 5))
    value = bytearray(shares[3].value)
    value[byte] ^= 1
    shares[3] = changed(shares[3], value=bytes(value))
    assert code(shares) == ("share_forged", "share 4")
    assert recover([*shares[:3], shares[4]]) == SECRET


def test_a_share_under_anothers_index_is_named() -> None:
    shares = split(SECRET, 2, 3)
    assert code([shares[0], changed(shares[2], index=2)]) == ("share_forged", "share 2")


def test_a_share_of_another_set_is_named() -> None:
    shares, others = split(SECRET, 3, 5), split(SECRET, 3, 5)
    assert code([shares[0], shares[1], others[2], shares[3]]) == ("share_foreign", "share 3")
    assert code([shares[0], shares[1], shares[2]], others[0].set)[0] == "share_foreign"


def test_a_share_whose_owner_wrote_its_own_commitment_is_named() -> None:
    shares = split(SECRET, 3, 5)
    value = bytes(32)
    own = shamir._commitment(shares[0].set.id, 3, 5, 2, value)
    lying = ShareSet(
        shares[0].set.id, 3, shares[0].set.secret, (shares[0].set.shares[0], own, *shares[0].set.shares[2:])
    )
    forged = Share(lying, 2, value)
    assert forged.is_genuine
    assert code([shares[0], forged, shares[2]]) == ("share_foreign", "share 2")


def test_a_lowered_threshold_is_another_set() -> None:
    shares = split(SECRET, 3, 5)
    lowered = ShareSet(shares[0].set.id, 2, shares[0].set.secret, shares[0].set.shares)
    assert code([Share(lowered, one.index, one.value) for one in shares[:2]])[0] == "share_forged"


def test_a_dealer_who_commits_to_another_secret_is_found() -> None:
    shares = split(SECRET, 2, 2)
    lying = ShareSet(shares[0].set.id, 2, bytes(32), shares[0].set.shares)
    assert code([Share(lying, one.index, one.value) for one in shares])[0] == "share_set_broken"


@pytest.mark.parametrize(("threshold", "count"), [(1, 3), (0, 1), (4, 3), (2, 65)])
def test_senseless_sets_are_misuse(threshold: int, count: int) -> None:
    with pytest.raises(ValueError, match="threshold"):
        split(SECRET, threshold, count)


def test_a_secret_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32"):
        split(SECRET[:-1], 2, 3)


def test_products_are_those_of_the_standard() -> None:
    assert shamir.times(0x57, 0x83) == 0xC1  # FIPS 197 section 4.2
    assert shamir.times(0x57, 0x13) == 0xFE  # FIPS 197 section 4.2.1
    assert shamir.inverse(0x53) == 0xCA
    with pytest.raises(ValueError, match="zero"):
        shamir.inverse(0)


def test_every_element_but_zero_has_its_inverse() -> None:
    assert all(shamir.times(value, shamir.inverse(value)) == 1 for value in range(1, 256))


def test_a_line_through_two_points_by_hand() -> None:
    """f(x) = secret + a x: the shares are what pencil and paper give."""
    drawn = iter([b"\x02" * 32, b"i" * 16])
    first, second, third = split(b"\x10" * 32, 2, 3, draw=lambda _: next(drawn))
    assert (first.value[0], second.value[0], third.value[0]) == (0x12, 0x14, 0x16)
    assert recover([third, first]) == b"\x10" * 32


@settings(max_examples=40)
@given(st.binary(min_size=32, max_size=32), st.integers(2, 6), st.integers(0, 4), st.randoms(use_true_random=False))
def test_any_threshold_of_them_recover(secret: bytes, threshold: int, more: int, chance: random.Random) -> None:
    shares = list(split(secret, threshold, threshold + more))
    chosen = chance.sample(shares, chance.randint(threshold, len(shares)))
    assert recover(chosen) == secret
    assert all(one.is_genuine for one in shares)


def test_every_subset_of_four_of_six() -> None:
    shares = split(SECRET, 4, 6)
    for some in itertools.combinations(shares, 4):
        assert recover(list(some)) == SECRET


@settings(max_examples=25)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_fewer_fit_every_secret(secret: bytes, other: bytes) -> None:
    """For any two values and any other secret there is a polynomial through them: so they say nothing about it."""
    one, two, _ = split(secret, 3, 3)
    third = shamir._interpolated([0x01, 0x02, 0x03], [one.value, two.value, bytes(32)])
    weight = shamir._interpolated([0x01, 0x02, 0x03], [bytes(32), bytes(32), b"\x01" * 32])[0]
    missing = bytes(
        shamir.times(wanted ^ base, shamir.inverse(weight)) for wanted, base in zip(other, third, strict=True)
    )
    assert shamir._interpolated([1, 2, 3], [one.value, two.value, missing]) == other


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, SECRET])
def test_one_share_of_a_fixed_secret_is_uniform(secret: bytes) -> None:
    counts: Counter[int] = Counter()
    rounds = 800
    for _ in range(rounds):
        counts.update(split(secret, 2, 2)[1].value)
    mean = rounds * 32 / 256
    chi_square = sum((counts[value] - mean) ** 2 / mean for value in range(256))
    assert 150 < chi_square < 380  # 255 degrees of freedom: both ends are beyond 5 sigma


def test_no_share_shows_its_value() -> None:
    share = split(SECRET, 2, 2)[0]
    assert share.value.hex() not in repr(share)
    assert "value" not in repr(share)
