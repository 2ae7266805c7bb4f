"""Bodies of our own API: strict JSON in, JSON out, times in RFC 3339."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec

from adyton.broker.door.answer import Answer
from adyton.errors import MalformedRequest
from adyton.protocol.resource import ResourcePath
from adyton.wire import strict_json

MAX_PAGE = 10_000
_COUNT = re.compile(r"[1-9][0-9]{0,8}\Z")
MAX_BODY = 8 * 1024 * 1024
_T = TypeVar("_T")
_ENCODER = msgspec.json.Encoder()


def read(body: bytes, kind: type[_T]) -> _T:
    """A request's body; ``MalformedRequest`` if it is not JSON of this kind."""
    try:
        strict_json.parse(body, max_size=MAX_BODY)
        return msgspec.json.decode(body, type=kind)
    except strict_json.UNREADABLE as error:
        raise MalformedRequest(f"the body cannot be read: {str(error)[:200]}", code="body_malformed") from error


def answer(value: object, *changes: tuple[str, str]) -> Answer:
    """200 with ``value``, and what was changed for the audit log."""
    return Answer(200, _ENCODER.encode(value), changes=changes)


def page(query: str, default: int) -> tuple[str, int]:
    """``after`` (a path ``repository/type/tag``, or nothing) and ``limit`` of a listing; ``MalformedRequest``."""
    given = dict(parse_qsl(query))
    after, limit = given.get("after", ""), given.get("limit", "")
    if limit and not (_COUNT.match(limit) and int(limit) <= MAX_PAGE):
        raise MalformedRequest(
            "not such a page", code="page_malformed", field="limit", expected=f"1 to {MAX_PAGE}", got=limit[:20]
        )
    return str(ResourcePath.parse(after)) if after else "", int(limit) if limit else default


def stamp(moment: datetime) -> str:
    """As views show times: UTC, whole seconds."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
