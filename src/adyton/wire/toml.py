"""TOML from strangers: bounded before the parser sees it.

``tomllib`` copies a dotted key once for each of its parts, so one key of a few hundred kilobytes holds its caller up for
minutes. Keys here have at most ``MAX_PARTS`` parts. Every refusal is ``ValueError`` with a short reason.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

MAX_PARTS = 64
_PART = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\[^\n])*+"|'[^'\n]*+')"""
_DOT = r"[ \t]*+\.[ \t]*+"
# The text's tokens one after the other, so that what stands in a string or comment is never taken for a key. Nothing is
# tried twice but a key that is not too long; after a string that does not end the parser goes no further, nor does this.
_TOKEN = re.compile(
    rf"""
      \"\"\"(?:[^"\\]|\\.|"(?!""))*+\"{{3,5}}  |  '''(?:[^']|'(?!''))*+'{{3,5}}
    | (?!\"\"\"|''')(?:({_PART}(?:{_DOT}{_PART}){{{MAX_PARTS}}}) | {_PART}(?:{_DOT}{_PART})*+)
    | \#[^\n]*+  |  [^"'#A-Za-z0-9_-]++  |  ["'].*+
    """.replace("[ \\t]", "[\\x20\\t]"),
    re.VERBOSE | re.DOTALL,
)


def parse(text: str) -> dict[str, Any]:
    """The document."""
    if text.count(".") >= MAX_PARTS and any(found.lastindex for found in _TOKEN.finditer(text)):
        raise ValueError(f"a key has more than {MAX_PARTS} parts")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
