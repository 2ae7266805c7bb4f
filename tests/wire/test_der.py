from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.wire import der


@pytest.mark.parametrize(
    "data",
    ["", "02", "0201", "0280", "0281", "028101", "02810101", "0282000101", "02820001", "0285000000000101", "1f0101", "3f0101",
     "0284ffffffff", "02ff"],
)  # fmt: skip
def test_what_is_not_der(data: str) -> None:
    with pytest.raises(ValueError, match="DER"):
        der.read(bytes.fromhex(data))


def test_lengths_take_their_shortest_form() -> None:
    for size in (0, 1, 127, 128, 255, 256, 65535, 65536):
        length = bytes([size]) if size < 128 else _long(size)
        element = der.read(b"\x04" + length + bytes(size) + b"tail")
        assert (element.tag, element.content, element.end) == (4, bytes(size), 1 + len(length) + size)


def _long(size: int) -> bytes:
    body = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(body)]) + body


@pytest.mark.parametrize(
    ("data", "value"),
    [("020100", 0), ("02017f", 127), ("02020080", 128), ("020200d9", 217), ("020200ff", 255), ("02020100", 256)],
)
def test_integers(data: str, value: int) -> None:
    assert der.read_integer(bytes.fromhex(data)) == value


@pytest.mark.parametrize(
    "data", ["0200", "020180", "0201ff", "02020000", "0202007f", "02010000", "040100", "16", "0a0100"]
)
def test_integers_that_are_none(data: str) -> None:
    with pytest.raises(ValueError, match="DER"):
        der.read_integer(bytes.fromhex(data))


@given(st.integers(0, 2**80))
def test_integers_have_one_encoding(value: int) -> None:
    body = value.to_bytes(value.bit_length() // 8 + 1, "big")
    assert der.read_integer(bytes((2, len(body))) + body) == value
    with pytest.raises(ValueError, match="longer"):
        der.read_integer(bytes((2, len(body) + 1, 0)) + body)


def test_strings() -> None:
    assert der.read_ia5(b"\x16\x08Milan-B0") == "Milan-B0"
    for wrong in (b"\x0c\x05Milan", b"\x16\x05Milan ", b"\x16\x01\x00", b"\x16\x01\xff", b"\x16\x01\n"):
        with pytest.raises(ValueError, match=r"DER|IA5"):
            der.read_ia5(wrong)


def test_children_leave_no_gap() -> None:
    content = bytes.fromhex("0201050500")
    assert [element.tag for element in der.children(content)] == [2, 5]
    assert der.children(b"") == []
    for length in range(1, len(content)):
        if length != 3:
            with pytest.raises(ValueError, match="DER"):
                der.children(content[:length])


@given(st.binary(max_size=64))
def test_any_bytes_are_der_or_raise_one_error(data: bytes) -> None:
    for function in (der.read, der.children, der.read_integer, der.read_ia5):
        with contextlib.suppress(ValueError):
            function(data)
    with contextlib.suppress(ValueError):
        element = der.read(data)
        assert data[element.start : element.end].endswith(element.content)
