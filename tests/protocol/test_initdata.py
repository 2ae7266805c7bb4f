"""Init data 0.1.0: exactly that, digest over the bytes."""

from __future__ import annotations

import hashlib
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.errors import DocumentInvalid
from adyton.protocol import initdata

HEAD = 'version = "0.1.0"\nalgorithm = "sha256"\n'


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b'algorithm = "sha256"\n[data]\n',
        b'version = "0.1.0"\n[data]\n',
        HEAD.encode(),
        b'version = "0.2.0"\nalgorithm = "sha256"\n[data]\n',
        b'version = 1\nalgorithm = "sha256"\n[data]\n',
        b'version = "0.1.0"\nalgorithm = "md5"\n[data]\n',
        b'version = "0.1.0"\nalgorithm = "SHA256"\n[data]\n',
        b'version = "0.1.0"\nalgorithm = ["sha256"]\n[data]\n',
        (HEAD + 'extra = "x"\n[data]\n').encode(),
        (HEAD + "[data]\na = 1\n").encode(),
        (HEAD + "[data.b]\nc = 'd'\n").encode(),
        (HEAD + "data = 'x'\n").encode(),
        (HEAD + HEAD + "[data]\n").encode(),
        (HEAD + "[data]\n" + "#" * initdata.MAX_SIZE).encode(),
        (HEAD + "[data]\na = " + "[" * 10_000).encode(),
    ],
)
def test_anything_else_is_refused(raw: bytes) -> None:
    with pytest.raises(DocumentInvalid):
        initdata.parse(raw)


@pytest.mark.parametrize(
    ("name", "hashed"),
    [("sha256", "sha256"), ("sha-256", "sha256"), ("sha384", "sha384"), ("sha-384", "sha384"), ("sha-512", "sha512")],
)
def test_algorithms_and_their_other_spelling(name: str, hashed: str) -> None:
    raw = f'version = "0.1.0"\nalgorithm = "{name}"\n[data]\n"a.toml" = "x"\n'.encode()
    parsed = initdata.parse(raw)
    assert parsed.digest == hashlib.new(hashed, raw).digest()
    assert parsed.data == {"a.toml": "x"}
    assert parsed.raw == raw


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
awkward = st.lists(st.sampled_from(["'", '"', "\\", "\n", "\r", "\t", "\0", "\x7f", "x", "'''", "é"]), max_size=8).map(
    "".join
)


@given(st.dictionaries(texts, texts | awkward, max_size=5), st.sampled_from(sorted(initdata.ALGORITHMS)))
def test_what_is_written_is_read(data: dict[str, str], algorithm: str) -> None:
    parsed = initdata.parse(initdata.write(data, algorithm))
    assert parsed.data == data
    assert parsed.algorithm == initdata.ALGORITHMS[algorithm]


@given(texts | awkward)
def test_strings_are_toml(value: str) -> None:
    assert tomllib.loads(f"a = {initdata.toml_string(value)}")["a"] == value


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_garbage_gives_one_error(raw: bytes) -> None:
    with pytest.raises(DocumentInvalid):
        initdata.parse(raw)
