"""What an owner asks about recorded decisions, below ``/api/v0/recordings``, and trying policies on them (``policy-tests``)."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import cast
from urllib.parse import parse_qsl

import msgspec

from adyton.broker import refusals
from adyton.broker.answer import Answer
from adyton.broker.api_bodies import answer, read
from adyton.broker.asked import Asked
from adyton.broker.policies import PolicyBook
from adyton.broker.rego import RegoEngine
from adyton.broker.trial import Bench, Named
from adyton.errors import MalformedRequest
from adyton.protocol import recording
from adyton.protocol.audit_row import PolicyUsed
from adyton.protocol.policies import TestBody
from adyton.stores.policy_types import PolicyKind, digest
from adyton.stores.sqlite import Store

MAX_PAGE = 1000
MAX_TRIED = 5000
MAX_ANSWER = 6 * 1024 * 1024
_LINES = b"application/x-ndjson"


class TrialApi:
    """The requests of one worker, after the gate."""

    def __init__(self, store: Store, book: PolicyBook) -> None:
        self._store = store
        self._book = book
        self._busy = threading.Lock()

    def handle(self, asked: Asked, parts: tuple[str, ...]) -> Answer:
        """The answer; errors of the tree leave as they are."""
        match (asked.method, *parts):
            case ("GET", "recordings"):
                return self._page(asked)
            case ("POST", "policy-tests"):
                return self._test(asked)
            case ("DELETE", "recordings"):
                count = self._store.recordings.forget(asked.tenant)
                return Answer(204, changes=(("recordings.delete", f"{count} recordings"),))
        return refusals.NO_METHOD

    def _test(self, asked: Asked) -> Answer:
        body, tenant = read(asked.body, TestBody), asked.tenant
        if body.kind not in {"attestation", "resource"} or not 1 <= body.limit <= MAX_TRIED:
            raise MalformedRequest(
                "a test is of an attestation or resource policy, on 1 to 5000 decisions",
                code="body_malformed",
                field="kind",
            )
        kind = cast("PolicyKind", body.kind)
        view = self._book.view(tenant, asked.now)
        active = self._book.policy(view, kind, body.id)
        now = Named(
            PolicyUsed(kind, body.id, active.version if active else 0, active.digest if active else ""),
            active.text if active else None,
        )
        text = body.text
        if body.version:
            text = self._store.policies.version(tenant, kind, body.id, body.version).text
        candidate = Named(PolicyUsed(kind, body.id, body.version, digest(text)), text)
        newest = self._store.recordings.newest(tenant)
        kept = self._store.recordings.list(
            tenant, after=max(newest - body.limit, 0), limit=body.limit, since=self._since(asked)
        )
        recordings = [msgspec.structs.replace(recording.decode(one), number=number) for number, one in kept]
        with self._busy:  # one at a time: it asks much, and of an engine of its own
            engine = RegoEngine()
            try:
                report = Bench(engine, kind, body.id, now, candidate, view.references.values).run(recordings[::-1])
            finally:
                engine.close()
        return answer(report, ("policy.test", f"{kind}/{body.id} sha256:{candidate.used.digest}"))

    def _page(self, asked: Asked) -> Answer:
        query = dict(parse_qsl(asked.query))
        after, limit = _number(query.get("after", "0")), min(_number(query.get("limit", "500")), MAX_PAGE)
        lines: list[bytes] = []
        size = 0
        for number, body in self._store.recordings.list(
            asked.tenant, after=after, limit=limit, since=self._since(asked)
        ):
            size += len(body)
            if lines and size > MAX_ANSWER:
                break
            lines.append(recording.encode(msgspec.structs.replace(recording.decode(body), number=number)) + b"\n")
        return Answer(200, b"".join(lines), content_type=_LINES)

    def _since(self, asked: Asked) -> datetime:
        return asked.now - timedelta(days=self._book.view(asked.tenant, asked.now).record.days)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise MalformedRequest("not a number", code="body_malformed", field="query", got=text[:20])
    return int(text)
