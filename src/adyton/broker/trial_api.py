"""What an owner asks about recorded decisions, below ``/api/v0/recordings``, and trying policies on them (``policy-tests``)."""

from __future__ import annotations

from datetime import datetime, timedelta
from urllib.parse import parse_qsl

from adyton.broker import refusals
from adyton.broker.answer import Answer
from adyton.broker.asked import Asked
from adyton.broker.policies import PolicyBook
from adyton.errors import MalformedRequest
from adyton.stores.sqlite import Store

MAX_PAGE = 1000
MAX_ANSWER = 6 * 1024 * 1024
_LINES = b"application/x-ndjson"


class TrialApi:
    """The requests of one worker, after the gate."""

    def __init__(self, store: Store, book: PolicyBook) -> None:
        self._store = store
        self._book = book

    def handle(self, asked: Asked, parts: tuple[str, ...]) -> Answer:
        """The answer; errors of the tree leave as they are."""
        match (asked.method, *parts):
            case ("GET", "recordings"):
                return self._page(asked)
            case ("DELETE", "recordings"):
                count = self._store.recordings.forget(asked.tenant)
                return Answer(204, changes=(("recordings.delete", f"{count} recordings"),))
        return refusals.NO_METHOD

    def _page(self, asked: Asked) -> Answer:
        query = dict(parse_qsl(asked.query))
        after, limit = _number(query.get("after", "0")), min(_number(query.get("limit", "500")), MAX_PAGE)
        lines: list[bytes] = []
        size = 0
        for _, body in self._store.recordings.list(asked.tenant, after=after, limit=limit, since=self._since(asked)):
            size += len(body)
            if lines and size > MAX_ANSWER:
                break
            lines.append(body + b"\n")
        return Answer(200, b"".join(lines), content_type=_LINES)

    def _since(self, asked: Asked) -> datetime:
        return asked.now - timedelta(days=self._book.view(asked.tenant, asked.now).record.days)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise MalformedRequest("not a number", code="body_malformed", field="query", got=text[:20])
    return int(text)
