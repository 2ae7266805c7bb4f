from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton.crypto import sm2
from adyton.crypto.sm2 import N, P, Sm2Key
from adyton.devtee.sm2 import SigningKey
from adyton.errors import SignatureInvalid

KEY = SigningKey.of(0x5EED)
USER = b"someone"


def key(*, prepared: bool) -> Sm2Key:
    public = Sm2Key(*KEY.point)
    if prepared:
        public.prepare()
    return public


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("number", [0, N, N + 1, 2**256 - 1, -1])
def test_numbers_out_of_range(number: int, prepared: bool) -> None:
    r, s = KEY.sign(b"data", user_id=USER)
    for pair in ((number, s), (r, number)):
        with pytest.raises(SignatureInvalid):
            key(prepared=prepared).verify(*pair, b"data", user_id=USER)


@pytest.mark.parametrize("prepared", [False, True])
def test_what_does_not_verify(prepared: bool) -> None:
    public = key(prepared=prepared)
    r, s = KEY.sign(b"data", user_id=USER)
    public.verify(r, s, b"data", user_id=USER)
    for wrong in ((r ^ 1, s), (r, s ^ 1), (s, r), (r, N - s), (N - r, s), (r, (N - r) % N)):
        with pytest.raises(SignatureInvalid):
            public.verify(*wrong, b"data", user_id=USER)
    with pytest.raises(SignatureInvalid):
        public.verify(r, s, b"Data", user_id=USER)
    with pytest.raises(SignatureInvalid):
        public.verify(r, s, b"data", user_id=b"someone else")
    public.verify(r, s, b"data", user_id=USER)  # the id of before is still known
    with pytest.raises(SignatureInvalid):
        SigningKey.of(0x5EEE).public.verify(r, s, b"data", user_id=USER)


@pytest.mark.parametrize(
    "point", [(0, 0), (1, 1), (sm2.G[0], P - sm2.G[1] + 1), (P, 0), (sm2.G[0] + P, sm2.G[1]), (-1, 1)]
)
def test_points_off_the_curve(point: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="curve"):
        Sm2Key(*point)


def test_a_user_id_has_a_length_in_two_bytes() -> None:
    public = key(prepared=False)
    assert public.identity(b"a" * 8191) != public.identity(b"a" * 8190)
    with pytest.raises(ValueError, match="8191"):
        public.identity(b"a" * 8192)


# GB/T 32918.5-2017 A.2, the standard's own example on the recommended curve.
def test_example_of_the_standard() -> None:
    signer = SigningKey.of(0x3945208F7B2144B13F36E38AC6D39F95889393692860B51A42FB81EF4DF7C5B8)
    assert signer.point == (
        0x09F9DF311E5421A150DD7D161E4BC5C672179FAD1833FC076BB08FF356F35020,
        0xCCEA490CE26775A52DC6EA718CC1AA600AED05FBF35E084A6632F6072DA9AD13,
    )
    user = b"1234567812345678"
    assert signer.public.identity(user).hex() == "b2e14c5c79c6df5b85f4fe7ed8db7a262b9da7e07ccb0ea9f4747b8ccda8a4f3"
    nonce = 0x59276E27D506861A16680F3AD9C02DCCEF3CC1FA3CDBE4CE6D54B80DEAC1BC21
    r, s = signer.sign(b"message digest", user_id=user, nonce=nonce)
    assert r == 0xF5A03B0648D2C4630EEAC513E1BB81A15944DA3827D5B74143AC7EACEEE720B3
    assert s == 0xB1B6AA29DF212FD8763182BC0D421CA1BB9038FD1F7F42D4840B69C485BBC1AA
    public = signer.public
    public.verify(r, s, b"message digest", user_id=user)
    public.prepare()
    public.verify(r, s, b"message digest", user_id=user)


# GB/T 32905-2016 A.1 and A.2.
@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (b"abc", "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"),
        (b"abcd" * 16, "debe9ff92275b8a138604889c18e5a4d6fdb70e5387e5765293dcba39c0c5732"),
    ],
)
def test_sm3_examples(data: bytes, digest: str) -> None:
    assert sm2.sm3(data).hex() == digest


def test_hmac_is_hmac_over_sm3() -> None:
    inner = sm2.sm3(bytes(byte ^ 0x36 for byte in b"key".ljust(64, b"\0")) + b"data")
    assert sm2.hmac_sm3(b"key", b"data") == sm2.sm3(bytes(byte ^ 0x5C for byte in b"key".ljust(64, b"\0")) + inner)


def test_keys_are_their_points() -> None:
    one, other = KEY.public, SigningKey.of(7).public
    assert one == KEY.public
    assert one != other
    assert len({one, KEY.public, other}) == 2
    assert len(one.spki) == 91
    assert one.spki.endswith(KEY.point[0].to_bytes(32, "big") + KEY.point[1].to_bytes(32, "big"))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, N - 2), st.binary(max_size=80), st.binary(max_size=40), st.booleans())
def test_what_is_signed_verifies(private: int, data: bytes, user: bytes, prepared: bool) -> None:
    signer = SigningKey.of(private)
    public = signer.public
    if prepared:
        public.prepare()
    r, s = signer.sign(data, user_id=user)
    public.verify(r, s, data, user_id=user)
    with pytest.raises(SignatureInvalid):
        public.verify(r, s, data + b"\0", user_id=user)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, N - 1) | st.integers(0, 40) | st.integers(N - 40, N - 1), st.integers(0, N - 1) | st.integers(0, 40)
)
def test_both_ways_lead_to_one_point(one: int, other: int) -> None:
    plain = sm2._add(sm2._generator().multiply(one), sm2._ladder(other, KEY.point))
    both = sm2._twin(one, other, sm2._Comb(KEY.point, teeth=6, blocks=4))
    assert (plain[2] == 0) == (both[2] == 0)
    if plain[2]:
        assert sm2._affine([plain]) == sm2._affine([both])


def test_adding_a_point_to_itself_and_to_its_opposite() -> None:
    point = (*sm2.G, 1)
    assert sm2._affine([sm2._add_affine(point, sm2.G)]) == sm2._affine([sm2._double(point)])
    assert sm2._add_affine(point, (sm2.G[0], P - sm2.G[1])) == sm2.INFINITY
    assert sm2._add(sm2.INFINITY, point) == point
    assert sm2._add(point, sm2.INFINITY) == point
    # -G + G on the way: both ways give infinity
    assert sm2._add(sm2._generator().multiply(5), sm2._ladder(N - 5, sm2.G))[2] == 0


@pytest.mark.parametrize("private", [0, N - 1, N, -1])
def test_private_keys_out_of_range(private: int) -> None:
    with pytest.raises(ValueError, match="private"):
        SigningKey.of(private)
