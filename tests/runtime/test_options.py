"""Podman's spellings, read strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.errors import ConfigError
from adyton.protocol.devtee import Publish
from adyton.runtime import options
from adyton.runtime.options import Volume


@pytest.mark.parametrize(
    ("read", "text"),
    [
        *(
            (options.volume, text)
            for text in ("", "a:b", "/a:b", "/a:/b:rx", "/a:/b:ro:z", ":/b", "/a:/../b", "a b:/c", "relative")
        ),
        *(
            (options.publish, text)
            for text in ("", "0", "65536", "80/udp", "a:80", "1.2.3:80:80", "::80", "80-90:80-90", "-1:80")
        ),
        *((options.publish, text) for text in ("[::1:80:80", "1:2:3:4", "٣:80", "80:", " 80")),
        *((options.name, text) for text in ("", "-a", ".a", "a/b", "a b", "a" * 64, "ä")),
        *((options.tmpfs, text) for text in ("", "run", "/a/../b")),
        *((options.entrypoint, text) for text in ("[", "[1]", '["a", null]', "[{}]")),
    ],
)
def test_refused(read: Any, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert caught.value.code == "option_invalid"


@pytest.mark.parametrize("item", ["", "=x", "1A=x", "A B=x", "A"[:0] + "=", "ä=x"])
def test_refused_variables(item: str) -> None:
    with pytest.raises(ConfigError):
        options.env([item], {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a:/b", Volume("/a", "/b")),
        ("/a:/b:ro", Volume("/a", "/b", "ro")),
        ("/a:/b:rw", Volume("/a", "/b")),
        ("/a:/b/", Volume("/a", "/b")),
        ("name:/b:ro", Volume("name", "/b", "ro")),
        ("/b", Volume("", "/b")),
        ("./a:/b", Volume(str(Path("a").absolute()), "/b")),
        ("x/y:/b", Volume(str(Path("x/y").absolute()), "/b")),
    ],
)
def test_volumes(text: str, expected: Volume) -> None:
    assert options.volume(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", Publish(80, 0)),
        ("8080:80", Publish(80, 8080)),
        ("8080:80/tcp", Publish(80, 8080)),
        (":80", Publish(80, 0)),
        ("0:80", Publish(80, 0)),
        ("0.0.0.0:8080:80", Publish(80, 8080, "0.0.0.0")),
        ("127.0.0.1::80", Publish(80, 0)),
        ("[::1]:8080:80", Publish(80, 8080, "::1")),
    ],
)
def test_ports(text: str, expected: Publish) -> None:
    assert options.publish(text) == expected


def test_variables() -> None:
    assert options.env(["A=1", "B", "C", "A=2", "D="], {"B": "from here"}) == {"A": "2", "B": "from here", "D": ""}
    text = "# comment\n\nA=1\n  B\nC=x=y # kept\n"
    assert options.env_file(text, {"B": "2"}) == {"A": "1", "B": "2", "C": "x=y # kept"}


def test_entrypoints() -> None:
    assert options.entrypoint("/bin/sh") == ("/bin/sh",)
    assert options.entrypoint('["/bin/sh", "-c"]') == ("/bin/sh", "-c")
    assert options.entrypoint("") == ()


@given(st.text(max_size=30))
def test_any_text_is_read_or_gives_one_error(text: str) -> None:
    for read in (options.volume, options.publish, options.name, options.tmpfs, options.entrypoint):
        try:
            read(text)
        except ConfigError as error:
            assert error.code == "option_invalid"
