"""JSON Canonicalization Scheme, RFC 8785, for values without floating-point numbers.

What Adyton hashes holds strings, integers, booleans, null, arrays and objects. A float raises ``ValueError`` rather
than trusting to number formatting. Integers beyond 2^53 - 1 are refused, as RFC 8785 section 3.1 (I-JSON) asks.
"""

from __future__ import annotations

import json

_SAFE = 2**53 - 1


def canonical(value: object) -> bytes:
    """The canonical UTF-8 bytes: members sorted by UTF-16 code units, no white space. ``ValueError`` if not I-JSON."""
    try:
        return json.dumps(_sorted(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")
    except (UnicodeEncodeError, RecursionError) as error:
        raise ValueError("not canonicalisable JSON") from error


def _sorted(value: object) -> object:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        if abs(value) > _SAFE:
            raise ValueError("integer outside the I-JSON range")
        return value
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("object member name is not a string")
        return {
            key: _sorted(value[key]) for key in sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))
        }
    raise ValueError(f"{type(value).__name__} has no canonical JSON here")
