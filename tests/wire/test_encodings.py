from __future__ import annotations

import binascii
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.wire import b64, jcs, strict_json

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


@pytest.mark.parametrize("text", ["AA", "AAA=\n", "AA==AA==", " AA==", "AB==", "AA=", "é===", "-_8="])
def test_standard_base64_refuses_what_is_not_canonical(text: str) -> None:
    with pytest.raises(ValueError, match="base64"):
        b64.decode(text)


@pytest.mark.parametrize("text", ["AA==", "A", "AB", "A A", "+/8", "AAAA\n", "é"])
def test_base64url_refuses_what_is_not_canonical(text: str) -> None:
    with pytest.raises(ValueError, match="base64url"):
        b64.decode_url(text)


@given(st.text(alphabet="AQgw09az-_+/= \n\u00e9", max_size=9))
def test_no_two_texts_for_one_value(text: str) -> None:
    for decode, encode in ((b64.decode, b64.encode), (b64.decode_url, b64.encode_url)):
        try:
            assert encode(decode(text)) == text
        except ValueError:
            continue


@given(st.binary())
def test_base64_round_trips(data: bytes) -> None:
    assert b64.decode(b64.encode(data)) == data
    assert b64.decode_url(b64.encode_url(data)) == data


@pytest.mark.parametrize("value", [1.0, float("nan"), 2**53, {1: "a"}, {"a": {1, 2}}, "\ud800", b"x"])
def test_canonical_json_refuses_what_it_cannot_write_unambiguously(value: object) -> None:
    with pytest.raises(ValueError):
        jcs.canonical(value)


def test_canonical_json_sorts_by_utf16_code_units() -> None:
    # RFC 8785 section 3.2.3: the emoji (a surrogate pair, D83D...) sorts before U+FB33.
    assert jcs.canonical({"\ufb33": 1, "\U0001f600": 2, "b": 1, "a": "test", "c": {"d": "e"}}) == (
        '{"a":"test","b":1,"c":{"d":"e"},"\U0001f600":2,"\ufb33":1}'.encode()
    )


@given(JSON)
def test_canonical_json_parses_back_and_is_stable(value: object) -> None:
    first = jcs.canonical(value)
    assert strict_json.parse(first, max_size=10**7, max_depth=10**4) == value
    assert jcs.canonical(strict_json.parse(first, max_size=10**7, max_depth=10**4)) == first


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a":1,"a":2}', "same name"),
        ('{"b":{"a":1,"a":2}}', "same name"),
        ("[" * 65 + "]" * 65, "deeper"),
        ("NaN", "NaN"),
        ("1e999", "range"),
        ("-1e999", "range"),
        ('["\\ud800"]', "surrogate"),
        ('{"\\uDFFF":1}', "surrogate"),
        ("[1,]", "not JSON"),
        ('"' + "a" * 200 + '"', "larger"),
        ("9" * 190, None),
    ],
)
def test_json_from_strangers_is_refused(text: str, reason: str | None) -> None:
    if reason is None:
        assert strict_json.parse(text, max_size=200) == int(text)
        return
    with pytest.raises(ValueError, match=reason):
        strict_json.parse(text, max_size=200)


def test_brackets_in_strings_are_not_depth() -> None:
    assert strict_json.parse('"' + "[" * 150 + '\\"["', max_size=200) == "[" * 150 + '"['


@given(st.binary(max_size=300))
def test_any_bytes_parse_or_raise_one_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        strict_json.parse(data, max_size=300)


@given(
    st.binary(max_size=40).map(lambda data: binascii.b2a_base64(data, newline=False).decode()),
    st.integers(0, 60),
    st.text(st.sampled_from('AQz09+/-_=" \\\n\t\0u\x7f\u00e9'), max_size=3),
    st.integers(0, 3),
)
def test_base64_is_as_strict_as_the_standard_librarys(text: str, at: int, new: str, gone: int) -> None:
    for changed in (text, text[:at] + new + text[at + gone :], text + new):
        try:
            wanted = binascii.a2b_base64(changed.encode("ascii"), strict_mode=True)
        except ValueError:
            wanted = None
        if wanted is not None and b64.encode(wanted) != changed:  # stray bits
            wanted = None
        try:
            got = b64.decode(changed)
        except ValueError:
            got = None
        assert got == wanted
        url = changed.rstrip("=").replace("+", "-").replace("/", "_")
        if wanted is not None:
            assert b64.decode_url(url) == wanted
