"""CBOR from strangers, strict: definite lengths, no duplicate keys, no tags inside, nothing after the end (RFC 8949).

Values are integers of 64 bits, byte strings, text, booleans, ``None``, arrays (lists) and maps (dicts) whose keys are
integers or text; the integer 1 and the text "1" are different keys. Everything else is refused: floats, other simple
values, chunked strings, and tags, except one in front, which ``split_tag`` takes off, and those inside that a caller names,
which become ``Tagged``. Every refusal is ``ValueError``.

``cbor2`` decodes. It allocates what is there, not what a length promises, and its own reading of tags (dates, numbers
without bounds, regular expressions, shared references) is switched off.

>>> decode(encode({2: b"x", "a": [1, None]}))
{2: b'x', 'a': [1, None]}
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache, partial
from typing import Any, NamedTuple, NoReturn

import cbor2

MAX_SIZE = 64 * 1024  # bytes
MAX_DEPTH = 16
_MAX_INT = 2**64 - 1
_MIN_INT = -(2**64)

_TAG = 6
_BYTES = 2
_MAP = 5
_LEAVES = frozenset({int, bytes, str, bool, type(None)})
_KEYS = frozenset({int, str})


class Tagged(NamedTuple):
    """A tag inside a document and what stands behind it, which is not interpreted."""

    tag: int
    value: Any


def _refuse_tag(*_: object) -> NoReturn:
    raise ValueError("a tag inside")


# Every tag that cbor2 gives a meaning to; the others come to the tag hook. A test walks through all of them.
_BUILT_IN = (
    *(0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 43, 52, 54, 100),
    *(256, 258, 260, 261, 1004, 43000, 55799),
)
_NO_TAGS: dict[int, Any] = dict.fromkeys(_BUILT_IN, _refuse_tag)


@lru_cache(maxsize=16)
def _decoders(tags: frozenset[int]) -> dict[int, Any]:
    return {**_NO_TAGS, **{tag: partial(_keep, tag) for tag in tags}}


def _keep(tag: int, value: Any, *_: object) -> Tagged:
    return Tagged(tag, value)


def decode(
    data: bytes,
    *,
    max_size: int = MAX_SIZE,
    max_depth: int = MAX_DEPTH,
    open_map: bool = False,
    tags: frozenset[int] = frozenset(),
) -> Any:
    """The one value that ``data`` holds, or ``ValueError``. ``tags`` may stand inside, each becomes a ``Tagged``.

    ``open_map``: the outermost map may be of indefinite length, as AWS's attester writes it; then everything inside must
    be in its shortest form.
    """
    if len(data) > max_size:
        raise ValueError(f"larger than {max_size} bytes")
    if open_map and data[:1] == b"\xbf":
        return _decode_open(data, max_depth)
    value = _load(data, max_depth, tags=tags)
    # No well-formed item begins with another one: what still reads without its last byte had something after its end.
    try:
        _load(data[:-1], max_depth, tags=tags)
    except ValueError:
        pass
    else:
        raise ValueError("bytes after the end")
    _check(value)
    return value


def _decode_open(data: bytes, max_depth: int) -> Any:
    value = _load(data, max_depth, indefinite=True)
    _check(value)
    definite = cbor2.dumps(value)
    if data != b"\xbf" + definite[len(head(_MAP, len(value))) :] + b"\xff":
        raise ValueError("an open map with something after its end, or not in its shortest form inside")
    return value


def split_tag(data: bytes) -> tuple[int | None, bytes]:
    """The tag in front of an item, ``None`` if there is none, and the item, which is not looked at."""
    first = data[0] if data else 0
    if first >> 5 != _TAG:
        return None, data
    short = first & 0x1F
    if short < 24:
        return short, data[1:]
    size = {24: 1, 25: 2, 26: 4, 27: 8}.get(short)
    if size is None or len(data) <= 1 + size:
        raise ValueError("a tag that is cut off or malformed")
    number = int.from_bytes(data[1 : 1 + size], "big")
    if head(_TAG, number) != data[: 1 + size]:
        raise ValueError("a tag that is longer than it need be")
    return number, data[1 + size :]


def encode(value: object, *, tag: int | None = None) -> bytes:
    """The one deterministic encoding (RFC 8949 4.2.1) of a value as ``decode`` gives it, behind ``tag``.

    Shortest lengths, keys sorted by their encoding. Anything that ``decode`` would refuse is ``ValueError``.
    """
    try:
        body = cbor2.dumps(_sorted(value))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return body if tag is None else head(_TAG, tag) + body


def head(major: int, number: int) -> bytes:
    """The first bytes of an item: its major type (0 to 7), and its value, length or tag in as few bytes as will do."""
    kind = major << 5
    if number < 24:
        return bytes((kind | number,))
    if number < 0x100:
        return bytes((kind | 24, number))
    if number < 0x10000:
        return bytes((kind | 25,)) + number.to_bytes(2, "big")
    if number < 0x1_0000_0000:
        return bytes((kind | 26,)) + number.to_bytes(4, "big")
    return bytes((kind | 27,)) + number.to_bytes(8, "big")


def byte_string(data: bytes) -> bytes:
    """``data`` as a byte string."""
    return head(_BYTES, len(data)) + data


def _load(data: bytes, max_depth: int, *, indefinite: bool = False, tags: frozenset[int] = frozenset()) -> Any:
    try:
        return cbor2.loads(
            data,
            tag_hook=_refuse_tag,
            semantic_decoders=_decoders(tags) if tags else _NO_TAGS,
            max_depth=max_depth,
            allow_indefinite=indefinite,
            allow_duplicate_keys=False,
        )
    except (cbor2.CBORError, ValueError, EOFError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise ValueError("not well-formed CBOR of the strict kind") from error


def _check(value: Any) -> None:
    """Only the types that are ours; recursion is bounded by the depth that was decoded."""
    kind = type(value)
    if kind is dict:
        if not _KEYS.issuperset(map(type, value)):
            raise ValueError("a map's key is neither an integer nor text")
        inner: Iterable[Any] = value.values()
    elif kind is list:
        inner = value
    elif kind in _LEAVES:
        return
    elif kind is Tagged:
        inner = (value.value,)
    else:
        raise ValueError("a value of a kind that is not used here")
    for item in inner:
        if type(item) not in _LEAVES:
            _check(item)


def _sorted(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        if not _KEYS.issuperset(map(type, value)):
            raise ValueError("a map's key is neither an integer nor text")
        return {key: _sorted(value[key]) for key in sorted(value, key=_encoded_key)}
    if kind in {list, tuple}:
        return [_sorted(item) for item in value]
    if kind is int and not _MIN_INT <= value <= _MAX_INT:
        raise ValueError("an integer of more than 64 bits")
    if kind not in _LEAVES:
        raise ValueError(f"{kind.__name__} has no CBOR here")
    if kind is str:
        _utf8(value)
    return value


def _encoded_key(key: int | str) -> bytes:
    if type(key) is int and not _MIN_INT <= key <= _MAX_INT:
        raise ValueError("an integer of more than 64 bits")
    if type(key) is str:
        _utf8(key)
    return cbor2.dumps(key)


def _utf8(text: str) -> None:
    text.encode("utf-8")  # half of a surrogate pair is ``UnicodeEncodeError``, a ``ValueError``
