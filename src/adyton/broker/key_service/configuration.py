"""Configuration values: JSON or TOML in, one JSON text out, so that whoever reads it finds the types that were written."""

from __future__ import annotations

import datetime as dt
import math

import msgspec

from adyton.errors import DocumentInvalid, TooLarge
from adyton.protocol.keys import ValueBody
from adyton.wire import strict_json, toml

MAX_VALUE = 256 * 1024


def kept(value: ValueBody) -> bytes:
    """The JSON text of a JSON or TOML document. Dates and times become RFC 3339 text, as JSON has none.

    ``DocumentInvalid`` ``configuration_malformed``: neither, a number JSON cannot hold, a member twice, too deep.
    """
    if len(value.data) > MAX_VALUE:
        raise TooLarge(f"a configuration value has at most {MAX_VALUE} bytes", code="configuration_too_large")
    try:
        if value.format == "toml":
            read: object = _json(toml.parse(value.data.decode("utf-8")))
            text = msgspec.json.encode(read)
            strict_json.parse(text, max_size=2 * MAX_VALUE)
            return text
        if value.format == "json":
            return msgspec.json.encode(strict_json.parse(value.data, max_size=MAX_VALUE))
    except (*strict_json.UNREADABLE, OverflowError) as error:
        raise _malformed(value.format, str(error)[:120]) from error
    raise _malformed("json or toml", value.format)


def _json(value: object) -> object:
    if isinstance(value, dict):
        return {name: _json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number that JSON cannot hold")
    return value


def _malformed(expected: str, got: str) -> DocumentInvalid:
    return DocumentInvalid(
        "the configuration value cannot be read",
        code="configuration_malformed",
        field="value",
        expected=expected,
        got=got,
    )
