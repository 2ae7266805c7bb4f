"""Resource URIs: three checked parts, nothing normalised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.errors import MalformedRequest
from adyton.protocol.resource import ResourcePath


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "a/b", "a/b/c/d", "/a/b/c", "a/b/c/", "a//c", "//", "///"),
        *(
            "../b/c",
            "a/../c",
            "a/b/..",
            "./b/c",
            ".a/b/c",
            "a/.b/c",
            "a/b/.",
            "%2e%2e/b/c",
            "a/b/c%00",
            "a/b/c\n",
            "a/b/c\0",
        ),
        *("ä/b/c", "a/b/ｃ", "a/b/c d", "a\\b/c/d", "a/b/" + "c" * 129, "a/b/c?x=1", "a/b/c#f"),
        *(
            "kbs:/a/b/c",
            "kbs://a/b/c",
            "kbs:////a/b/c",
            "kbs:///a/b",
            "kbs:///a/b/c/d",
            "kbs:///a/b/c?q",
            "kbs:///a/b/c#f",
        ),
        *(
            "http:///a/b/c",
            "KBS:///a/b/c",
            "kbs+other:///a/b/c",
            "kbs+:///a/b/c",
            "kbs://user@host/a/b/c",
            "kbs://ho st/a/b/c",
        ),
        *("kbs:///../b/c", "kbs:///a/%2e%2e/c", " kbs:///a/b/c", "kbs:///a/b/c\n"),
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(MalformedRequest):
        ResourcePath.parse(text)


@pytest.mark.parametrize(
    "text",
    ["a/b/c", "kbs:///a/b/c", "kbs://broker.example:8080/a/b/c", "kbs://[::1]:8080/a/b/c", "kbs+resource:///a/b/c"],
)
def test_spellings_of_one_path(text: str) -> None:
    path = ResourcePath.parse(text)
    assert (path.repository, path.type, path.tag) == ("a", "b", "c")
    assert str(path) == "a/b/c"
    assert path.uri == "kbs:///a/b/c"


parts = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}", fullmatch=True)


@given(parts, parts, parts)
def test_round_trip(repository: str, kind: str, tag: str) -> None:
    path = ResourcePath(repository, kind, tag)
    assert ResourcePath.parse(str(path)) == ResourcePath.parse(path.uri) == path


@given(st.text(max_size=40))
def test_any_text_gives_a_path_that_is_written_back_or_one_error(text: str) -> None:
    try:
        path = ResourcePath.parse(text)
    except MalformedRequest:
        return
    assert text == str(path) or text.endswith("/" + str(path))
