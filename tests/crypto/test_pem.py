"""PEM: blocks in any text, strictly; the short way for certificates answers as the long one does."""

from __future__ import annotations

import base64
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.crypto import pem


def block(content: bytes, label: str = "CERTIFICATE", end: str = "\n") -> bytes:
    lines = textwrap.wrap(base64.b64encode(content).decode(), 64)
    return end.join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


GOOD = block(b"first") + block(bytes(100))


@pytest.mark.parametrize(
    "text",
    [
        GOOD[:-10],
        GOOD.replace(b"-----END CERTIFICATE-----\n", b"", 1),
        GOOD.replace(b"Zmlyc3Q=", b"Zmlyc3R="),  # stray bits
        GOOD.replace(b"Zmlyc3Q=", b"Zmlyc3Q"),
        GOOD.replace(b"Zmlyc3Q=", b"Zmly,c3Q="),
        GOOD.replace(b"Zmlyc3Q=", b"Zmlyc3Q=Zmlyc3Q="),
        GOOD.replace(b"Zmlyc3Q=", "Zmlyc3Q\u00e9".encode()),
        GOOD.replace(b"END CERTIFICATE", b"END X509 CRL", 1),
        GOOD.replace(b"BEGIN CERTIFICATE", b"BEGIN X509 CRL", 1),
        GOOD.replace(b"CERTIFICATE", b"certificate"),
        GOOD.replace(b"CERTIFICATE-----\n", b"CERTIFICATE-----", 1),
        b"-----BEGIN ",
    ],
)
def test_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="PEM"):
        pem.blocks(text)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("label", ["CERTIFICATE", "X509 CRL", "PUBLIC KEY"])
def test_taken(label: str, end: str) -> None:
    text = block(b"first", label, end) + block(bytes(100), label, end)
    wanted = [(label.encode(), b"first"), (label.encode(), bytes(100))]
    assert pem.blocks(text) == wanted
    assert pem.blocks(b"a remark\n" + text + b"another") == wanted
    assert pem.blocks(text.replace(b"-----\n", b"----- \t\n", 1) if end == "\n" else text) == wanted
    assert pem.blocks(block(b"other") + text)[1:] == wanted


def test_an_empty_block_and_none() -> None:
    assert pem.blocks(b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n") == [(b"CERTIFICATE", b"")]
    assert pem.blocks(b"no block") == []


def test_other_white_space_in_a_block() -> None:
    assert pem.blocks(GOOD.replace(b"Zmlyc3Q=", b" Zm\tly c3Q=\v")) == pem.blocks(GOOD)


@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=3), st.integers(0, 3))
def test_the_short_way_and_the_long_one_say_the_same(at: int, new: bytes, gone: int) -> None:
    text = GOOD[:at] + new + GOOD[at + gone :]
    try:
        got = pem.blocks(text)
    except ValueError:
        got = None
    found = pem._BLOCK.findall(text)
    try:
        wanted = [(label, pem._decoded(body)) for label, body in found] if len(found) == text.count(pem.BEGIN) else None
    except ValueError:
        wanted = None
    assert got == wanted
