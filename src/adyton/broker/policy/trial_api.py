"""What an owner asks about recorded decisions, below ``/api/v0/recordings``, and trying policies on them (``policy-tests``)."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import cast
from urllib.parse import parse_qsl

import msgspec

from adyton.broker.door import refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.api_bodies import answer, read
from adyton.broker.door.asked import Asked
from adyton.broker.policy.policies import PolicyBook
from adyton.broker.policy.rego import RegoEngine
from adyton.broker.policy.trial import Bench, Named
from adyton.errors import MalformedRequest, TooMany
from adyton.protocol import recording
from adyton.protocol.audit_row import PolicyUsed
from adyton.protocol.policies import TestBody, TestReport
from adyton.rats.types import JsonValue
from adyton.stores.policy_types import PolicyKind, digest
from adyton.stores.sqlite import Store

MAX_PAGE = 1000
MAX_TRIED = 5000
TEST_SECONDS = 20.0
MAX_ANSWER = 6 * 1024 * 1024
_LINES = b"application/x-ndjson"


class TrialApi:
    """The requests of one worker, after the gate. One policy is tried at a time, for ``TEST_SECONDS`` at most."""

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
        if not self._busy.acquire(blocking=False):  # it asks much, and whoever waited would hold up a thread
            raise TooMany("another policy is being tried", code="policy_test_busy", retry_after=5)
        try:
            report = self._tried(asked, body, kind, now, candidate, view.references.values)
        finally:
            self._busy.release()
        return answer(report, ("policy.test", f"{kind}/{body.id} sha256:{candidate.used.digest}"))

    def _tried(  # noqa: PLR0917 -- one value each
        self,
        asked: Asked,
        body: TestBody,
        kind: PolicyKind,
        now: Named,
        candidate: Named,
        references: Mapping[str, JsonValue],
    ) -> TestReport:
        newest = self._store.recordings.newest(asked.tenant)
        kept = self._store.recordings.list(
            asked.tenant, after=max(newest - body.limit, 0), limit=body.limit, since=self._since(asked)
        )
        recordings = [msgspec.structs.replace(recording.decode(one), number=number) for number, one in kept]
        engine = RegoEngine()  # of its own, so that no decision waits for it
        try:
            return Bench(engine, kind, body.id, now, candidate, references, seconds=TEST_SECONDS).run(recordings[::-1])
        finally:
            engine.close()

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
