"""Rego text to tokens: enough to judge a policy without running it. Anything that is not understood is refused.

Not a parser. It knows names, numbers, both kinds of string, comments and punctuation, as Rego v1 and v0 write them.
Template strings (``$"…"``) call functions from inside a string, so they are refused, as is every character outside
strings and comments that is not printable ASCII or white space.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from adyton.errors import PolicyInvalid

MAX_TOKENS = 50_000
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<comment>\#[^\n]*)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![A-Za-z0-9_]))
      | (?P<string>"(?:[^"\\\x00-\x1f]|\\.)*")
      | (?P<raw>`[^`]*`)
      | (?P<sign>:=|==|!=|<=|>=|[-+*/%&|=<>,;:.()\[\]{}])
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Token:
    """``kind``: name, number, string (both kinds) or sign. ``text`` is the name, number or sign, or a string's value.

    ``line`` counts from 1. ``space`` is the white space before it; comments are gone.
    """

    kind: str
    text: str
    line: int
    space: str


def scan(text: str) -> list[Token]:
    """The tokens of ``text``; ``PolicyInvalid`` names the line of what cannot be understood."""
    tokens: list[Token] = []
    position, line, space = 0, 1, ""
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise refused("a character that Rego policies may not have here", line, got=ascii(text[position])[1:-1])
        kind, matched = str(match.lastgroup), match.group()
        position = match.end()
        if kind in {"space", "comment"}:
            space += matched if kind == "space" else ""
            line += matched.count("\n")
            continue
        value = matched
        if kind == "string":
            value = _string(matched, line)
        elif kind == "raw":
            kind, value = "string", _plain(matched[1:-1], line)
        tokens.append(Token(kind, value, line, space))
        if len(tokens) > MAX_TOKENS:
            raise refused(f"more than {MAX_TOKENS} words and signs", line, code="policy_too_large")
        line += matched.count("\n")
        space = ""
    return tokens


def _string(matched: str, line: int) -> str:
    try:
        value = json.loads(matched)
    except ValueError as error:
        raise refused("a string with an escape that is not JSON's", line) from error
    return _plain(str(value), line)


def _plain(value: str, line: int) -> str:
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise refused("a string with a NUL or half a character", line)
    return value


def refused(why: str, line: int | None, *, code: str = "policy_refused", got: str | None = None) -> PolicyInvalid:
    """The error for a policy that is not accepted; ``why`` completes *the policy has …*."""
    where = f" (line {line})" if line is not None else ""
    return PolicyInvalid(
        f"the policy has {why}{where}",
        code=code,
        field=f"line {line}" if line is not None else None,
        got=got,
        spec="contracts 5",
        hint="docs/policies.md lists what policies may use",
    )
