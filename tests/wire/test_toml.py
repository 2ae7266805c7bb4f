"""TOML that would keep its reader busy."""

from __future__ import annotations

import time
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.wire import toml

SIZE = 256 * 1024
LONG = ".".join(["a"] * 20_000)


@pytest.mark.parametrize(
    "text",
    [
        ".".join(["a"] * (SIZE // 2)) + "=1",
        "[" + ".".join(["a"] * (SIZE // 2)) + "]",
        "[[" + " . ".join(["a"] * (SIZE // 4)) + "]]",
        ".".join(['"a"'] * (SIZE // 4)) + "=1",
        "x={" + "\t.\t".join(["'a'"] * (SIZE // 8)) + "=1}",
        ".".join(['"\\""'] * (SIZE // 8)) + "=1",
        ".".join(["a"] * (toml.MAX_PARTS + 1)) + "=1",
        'x = """\n"""\n' + LONG + "=1",
        'x={p="""\n\'""",' + ".".join(["'a'", "a"] * 9000) + '=1,q="\'"}',
        'x = "\'" # "\n' + LONG + "=1",
        "x = '''\"''''\n" + LONG + "=1 # '''",
        'x = """\\""""""\n' + LONG + '=1 # """',
        "a=" + "[" * (SIZE // 2),
    ],
)
def test_refused_at_once(text: str) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=r"parts|deep"):
        toml.parse(text)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "piece",
    ["a", "a.", '"', '"a', "'a'.", '"\\', '"""\\', "'''a", '"""a', ". ", "a \t", "-." * 63 + "-\n", '"".' * 63 + "\n"],
)
def test_any_text_is_looked_at_once(piece: str) -> None:
    text = "." * toml.MAX_PARTS + piece * (SIZE // len(piece))
    began = time.process_time()
    with pytest.raises(ValueError, match=r"."):
        toml.parse(text)
    assert time.process_time() - began < 5


def test_what_people_write_is_read() -> None:
    text = (
        ".".join(["a"] * toml.MAX_PARTS)
        + ' = "1.2.3.4"\nhosts = ['
        + '"10.0.0.1", ' * 200
        + f"]\nb = '''\n{LONG}'''\nc = \"\"\"\n{LONG}\"\"\" # {LONG}\n"
    )
    assert toml.parse(text) == tomllib.loads(text)


@given(st.one_of(st.text(), st.text("a.\"'\\\n\t #=[]{}1,")))
def test_any_text_is_read_as_the_standard_library_does(text: str) -> None:
    try:
        expected = tomllib.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            toml.parse(text)
    else:
        assert toml.parse(text) == expected
