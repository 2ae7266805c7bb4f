r"""Canonical JSON of OLPC, which in-toto's older signatures are over (in-toto specification 0.9, 4.1).

Members sorted by code point, no white space, no floats; in strings only ``"`` and ``\`` are escaped, so that control
characters stand as they are and the result need not be JSON.

>>> canonical({"b": [1, None], "a": "x"})
b'{"a":"x","b":[1,null]}'
"""

from __future__ import annotations


def canonical(value: object) -> bytes:
    """The bytes that are signed; ``ValueError`` for what has no such form (floats, halves of surrogate pairs)."""
    parts: list[str] = []
    _write(value, parts)
    return "".join(parts).encode("utf-8")


def _write(value: object, parts: list[str]) -> None:
    if value is None or isinstance(value, bool):
        parts.append("null" if value is None else "true" if value else "false")
    elif isinstance(value, str):
        parts.append(_text(value))
    elif isinstance(value, int):
        parts.append(str(value))
    elif isinstance(value, list | tuple):
        parts.append("[")
        for at, item in enumerate(value):
            if at:
                parts.append(",")
            _write(item, parts)
        parts.append("]")
    elif isinstance(value, dict):
        parts.append("{")
        for at, name in enumerate(sorted(value)):
            if at:
                parts.append(",")
            parts.extend((_text(name), ":"))
            _write(value[name], parts)
        parts.append("}")
    else:
        raise ValueError(f"{type(value).__name__} has no canonical form")


def _text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
