"""JSON from strangers: size, depth and duplicate members are checked before anything is believed.

``parse`` gives Python values; typed decoding is msgspec's business once ``parse`` or ``check`` has passed the bytes.
Every refusal is ``ValueError`` with a short reason; callers turn it into their own error.
"""

from __future__ import annotations

import json
import re

MAX_DEPTH = 64
# What a decoder raises on a stranger's bytes: msgspec's errors and bad UTF-8 are ``ValueError``, brackets without end are
# ``RecursionError``. Whoever decodes such bytes catches both.
UNREADABLE = (ValueError, RecursionError)
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKETS = bytes.maketrans(b"[{]}", b"(())")
_OTHERS = bytes(set(range(256)) - set(b"[{]}"))
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def deeper(data: bytes, limit: int) -> bool:
    """Whether brackets outside strings are nested deeper than ``limit``, or do not belong together.

    In C throughout, at most ``limit`` times over what brackets there are: a stranger's megabytes must not hold up a loop.
    """
    rest = _STRING.sub(b"", data).translate(_BRACKETS, _OTHERS)
    for _ in range(limit):
        if not rest:
            return False
        inner = rest
        rest = inner.replace(b"()", b"")
        if len(rest) == len(inner):
            return True  # no pair is left: an end is missing, or a beginning
    return bool(rest)


def parse(data: bytes | str, *, max_size: int, max_depth: int = MAX_DEPTH) -> object:
    """Parse UTF-8 JSON of at most ``max_size`` bytes; duplicate members, NaN and infinities are refused."""
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if len(raw) > max_size:
        raise ValueError(f"larger than {max_size} bytes")
    if raw.count(b"[") + raw.count(b"{") > max_depth and deeper(raw, max_depth):
        raise ValueError(f"nested deeper than {max_depth}")
    try:
        value: object = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError("not JSON") from error
    if _SURROGATE.search(raw):
        try:  # pairs are characters; a lone half is no text (RFC 7493 2.1), and encoders trip over it later
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError("a string holds half of a surrogate pair") from error
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object has two members of the same name")
    return result


def _finite(text: str) -> float:
    number = float(text)
    if abs(number) == float("inf"):  # 1e999: no constant, and read as one all the same
        raise ValueError("a number is out of range")
    return number


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
