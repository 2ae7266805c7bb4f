from __future__ import annotations

import resource
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.wire import cbor

REFUSED = {
    "nothing": "",
    "cut off": "a1",
    "two items": "0000",
    "an item and a break": "00ff",
    "an array and more": "8100f6",
    "open array": "9f00ff",
    "open map": "bf0000ff",
    "chunked bytes": "5f41004100ff",
    "chunked text": "7f61616162ff",
    "a break alone": "ff",
    "duplicate integer keys": "a2000100f6",
    "duplicate text keys": "a2616101616102",
    "duplicate keys of two lengths": "a200011800f6",
    "true as a key": "a1f500",
    "true and one": "a2f5000100",
    "zero as a float and as an integer": "a2f9000000 0000",
    "bytes as a key": "a1410000",
    "null as a key": "a1f600",
    "an array as a key": "a1810000",
    "a map as a key": "a1a1000000",
    "a float": "fb3ff0000000000000",
    "a half float": "f93c00",
    "not a number": "f97e00",
    "undefined": "f7",
    "a simple value": "e0",
    "a simple value of two bytes": "f820",
    "a reserved length": "1c",
    "text that is no UTF-8": "62c328",
    "a time": "c11a00000000",
    "a big number": "c2420100",
    "a monstrous number": "c5821a7fffffff01",
    "a shared value": "d81c8100",
    "a reference to itself": "d81c81d81d00",
    "a regular expression": "d823625b28",
    "a string reference": "d9010082614161 41",
    "self-described": "d9d9f700",
    "an unknown tag": "d9018f00",
    "a tag inside": "8181d81800",
    "nested too deeply": "81" * 17 + "00",
    "nested deeply, cut off": "81" * 60_000,
    "maps nested too deeply": "a100" * 17 + "00",
    "an array of 2**64 - 1": "9bffffffffffffffff",
    "an array of 2**28": "9a10000000",
    "a map of 2**32 - 1": "bb00000000ffffffff",
    "bytes of 2**63": "5b8000000000000000",
    "bytes of 2**32 - 1": "5affffffff00",
    "text of 2**64 - 1": "7bffffffffffffffff00",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    data = bytes.fromhex(REFUSED[name].replace(" ", ""))
    with pytest.raises(ValueError, match=r"."):
        cbor.decode(data)


def test_no_tag_is_given_a_meaning() -> None:
    bodies = ("00", "6130", "4161", "820102", "f6", "8100", "a0", "81414100")
    for tag in (*range(700), 1004, 43000, 55799, 55800, 2**32, 2**64 - 1):
        for body in bodies:
            with pytest.raises(ValueError, match=r"."):
                cbor.decode(b"\x81" + cbor.head(6, tag) + bytes.fromhex(body))


def test_a_hostile_length_allocates_nothing() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for head in ("9b", "bb", "5b", "7b", "db"):
        for size in (2**63, 2**40, 2**33, 2**31):
            with pytest.raises(ValueError, match=r"."):
                cbor.decode(bytes.fromhex(head) + size.to_bytes(8, "big") + b"x" * 64)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024  # kB


def test_sizes_and_depths_are_bounded() -> None:
    data = cbor.encode(bytes(100))
    assert cbor.decode(data, max_size=102) == bytes(100)
    with pytest.raises(ValueError, match="larger"):
        cbor.decode(data, max_size=101)
    nested = cbor.encode([[[1]]])
    assert cbor.decode(nested, max_depth=3) == [[[1]]]
    with pytest.raises(ValueError, match=r"."):
        cbor.decode(nested, max_depth=2)


def test_integer_and_text_keys_are_different_keys() -> None:
    value = {1: "integer", "1": "text"}
    assert cbor.decode(cbor.encode(value)) == value


def test_longer_forms_are_read() -> None:
    assert cbor.decode(bytes.fromhex("190001")) == 1
    assert cbor.decode(bytes.fromhex("580161")) == b"a"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("bf0001ff00", "end"),
        ("bf0001ffff", "end"),
        ("bf0001", r"."),
        ("bf00", r"."),
        ("bf", r"."),
        ("bf009f01ffff", "shortest"),
        ("bf005f4101ffff", "shortest"),
        ("bf001801ff", "shortest"),
        ("bf00010002ff", r"."),
        ("bff500ff", "key"),
        ("9f0001ff", r"."),
        ("5f4101ff", r"."),
        ("bf00c100ff", r"."),
        ("bf" + "00" * 3 + "ff", r"."),
    ],
)
def test_an_open_map_is_open_outside_only(data: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        cbor.decode(bytes.fromhex(data), open_map=True)


@pytest.mark.parametrize("count", [0, 1, 23, 24, 300])
def test_an_open_map_where_it_is_let_pass(count: int) -> None:
    value = {number: [number] for number in range(count)}
    definite = cbor2.dumps(value)
    data = b"\xbf" + definite[len(cbor.head(5, count)) :] + b"\xff"
    assert cbor.decode(data, open_map=True) == value
    assert cbor.decode(definite, open_map=True) == value
    with pytest.raises(ValueError, match=r"."):
        cbor.decode(data)


def test_the_tag_in_front() -> None:
    assert cbor.split_tag(b"\xd2\x00") == (18, b"\x00")
    assert cbor.split_tag(bytes.fromhex("d9018ff6")) == (399, b"\xf6")
    assert cbor.split_tag(cbor.encode(1, tag=2**40)) == (2**40, b"\x01")
    assert cbor.split_tag(b"\x84") == (None, b"\x84")
    assert cbor.split_tag(b"") == (None, b"")
    for cut_off in ("d8", "d9", "d901", "d9018f", "dc00", "df", "d812 00".replace(" ", ""), "d9001200", "da00018f00"):
        with pytest.raises(ValueError, match="tag"):
            cbor.split_tag(bytes.fromhex(cut_off))


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        {1.0: 1},
        {b"": 1},
        {None: 1},
        2**64,
        -(2**64) - 1,
        {2**64: 1},
        {1},
        "\ud800",
        {"\udfff": 1},
        cbor2.undefined,
        object(),
        cbor2.CBORTag(1, 1),
    ],
)
def test_what_cannot_be_read_is_not_written(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        cbor.encode(value)


def test_a_value_without_end_is_not_written() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ValueError, match="deep"):
        cbor.encode(value)


def test_keys_are_sorted_by_their_encoding() -> None:
    value = {"a": 0, -1: 0, 256: 0, 10: 0, "": 0, "aa": 0, 100: 0}
    assert list(cbor.decode(cbor.encode(value))) == [10, 100, 256, -1, "", "a", "aa"]  # RFC 8949 4.2.1
    assert cbor.encode(value) == cbor.encode(dict(reversed(value.items())))


leaves = st.integers(-(2**64), 2**64 - 1) | st.binary() | st.text() | st.booleans() | st.none()
keys = st.integers(-(2**64), 2**64 - 1) | st.text()
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=20)


@given(values)
def test_written_is_read_again(value: Any) -> None:
    data = cbor.encode(value)
    assert cbor.decode(data, max_depth=64) == value
    assert cbor.encode(cbor.decode(data, max_depth=64)) == data
    for end in range(len(data)):
        with pytest.raises(ValueError, match=r"."):
            cbor.decode(data[:end], max_depth=64)
    with pytest.raises(ValueError, match="end"):
        cbor.decode(data + b"\0", max_depth=64)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_a_value_or_an_error(data: bytes, open_map: bool) -> None:
    try:
        value = cbor.decode(data, open_map=open_map)
    except ValueError:
        return
    assert cbor.decode(cbor.encode(value)) == value


def test_tags_inside_only_where_a_caller_names_them() -> None:
    data = bytes.fromhex("82d82041aac103")  # [32(h'aa'), 1(3)]
    with pytest.raises(ValueError, match="strict"):
        cbor.decode(data)
    with pytest.raises(ValueError, match="strict"):
        cbor.decode(data, tags=frozenset({32}))
    assert cbor.decode(data, tags=frozenset({1, 32})) == [cbor.Tagged(32, b"\xaa"), cbor.Tagged(1, 3)]
    with pytest.raises(ValueError, match="key"):
        cbor.decode(bytes.fromhex("a1c10300"), tags=frozenset({1}))
    with pytest.raises(ValueError, match="kind"):
        cbor.decode(bytes.fromhex("c1f90000"), tags=frozenset({1}))
    with pytest.raises(ValueError, match="end"):
        cbor.decode(bytes.fromhex("c10300"), tags=frozenset({1}))
