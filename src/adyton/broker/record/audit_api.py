"""What an owner or auditor asks about the record of decisions, below ``/api/v0/audit``.

Rows as they were written, byte for byte; signed checkpoints; proofs; and any decision explained. Everything is read
only: there is no request that changes the record, other than by being recorded in it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qsl

import msgspec

from adyton.broker.door import refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.asked import Asked, parse_time
from adyton.broker.policy.policies import PolicyBook
from adyton.broker.record.checkpoints import Checkpoints
from adyton.broker.record.decisions import Decisions
from adyton.errors import LogBroken, MalformedRequest
from adyton.protocol import audit_proof, checkpoint
from adyton.protocol.admin import KeptCheckpoint, LogEdge, LogHead, LogKeyView, LogReport
from adyton.protocol.audit_proof import ConsistencyProof, InclusionProof
from adyton.stores.sqlite import Store

MAX_ROWS = 1000
MAX_ANSWER = 6 * 1024 * 1024
_TEXT = b"text/plain; charset=utf-8"
_LINES = b"application/x-ndjson"
_ENCODER = msgspec.json.Encoder()


class AuditApi:
    """The requests of one worker, after the gate."""

    def __init__(self, store: Store, book: PolicyBook, checkpoints: Checkpoints) -> None:
        self._log = store.audit
        self._checkpoints = checkpoints
        self._decisions = Decisions(store, book, checkpoints)

    def handle(self, asked: Asked, parts: tuple[str, ...]) -> Answer:
        """The answer to ``/api/v0/audit/<parts>``; errors of the tree leave as they are."""
        if asked.method != "GET":
            return refusals.NO_METHOD
        tenant, query = asked.tenant, dict(parse_qsl(asked.query, keep_blank_values=True))
        match parts:
            case ():
                since = parse_time(query.get("since"))
                limit, after = min(_number(query, "limit", 100), MAX_ROWS), query.get("after")
                start = None if after is None else _number(query, "after", 0)
                found = [
                    _ENCODER.encode(self._decisions.named(one)) for one in self._log.list(tenant, since, limit, start)
                ]
                kept = _first(found) if after is not None else _first(found[::-1])[::-1]
                return Answer(200, b"[" + b",".join(kept) + b"]")
            case ("head",):
                size = self._log.size(tenant)
                return _json(LogHead(size, self._log.root(tenant, size).hex()))
            case ("rows",):
                bodies = self._log.bodies(
                    tenant, _number(query, "after", 0), min(_number(query, "limit", 500), MAX_ROWS)
                )
                return Answer(200, b"".join([body + b"\n" for body in _first(bodies)]), content_type=_LINES)
            case ("key",):
                key = self._checkpoints.key(tenant)
                return _json(LogKeyView(key.name, key.text()))
            case ("checkpoint",):
                return Answer(200, self._checkpoints.sign(tenant, asked.now).encode(), content_type=_TEXT)
            case ("checkpoints",):
                notes = self._log.checkpoints(tenant, after=_number(query, "after", -1))
                return _json([KeptCheckpoint(one.size, _stamp(one.time), one.note) for one in notes])
            case ("verify",):
                return _json(self._verify(tenant))
            case ("frontier",):
                size = _number(query, "size", self._log.size(tenant))
                return _json(LogEdge(size, audit_proof.text_of(list(self._log.frontier(tenant, size).peaks))))
            case ("inclusion", row):
                return _json(self._inclusion(asked, row, query))
            case ("consistency",):
                return _json(self._consistency(asked, query))
            case ("decisions", name):
                return _json(self._decisions.explain(tenant, name, asked.now))
        return refusals.NO_PATH

    def _verify(self, tenant: str) -> LogReport:
        try:
            kept = self._checkpoints.all(tenant)
            head = self._log.verify(tenant, kept)
        except LogBroken as error:
            return LogReport(self._log.size(tenant), "", 0, error.as_dict())
        return LogReport(head.sequence, head.root, len(kept))

    def _inclusion(self, asked: Asked, row: str, query: dict[str, str]) -> InclusionProof:
        number = self._decisions.sequence(asked.tenant, row)
        size, note = self._signed(asked, query)
        path = audit_proof.text_of(self._log.inclusion(asked.tenant, number, size))
        return InclusionProof(number, size, self._log.body(asked.tenant, number).decode(), path, note)

    def _consistency(self, asked: Asked, query: dict[str, str]) -> ConsistencyProof:
        old = _number(query, "old", 0)
        size, note = self._signed(asked, query)
        return ConsistencyProof(old, size, audit_proof.text_of(self._log.consistency(asked.tenant, old, size)), note)

    def _signed(self, asked: Asked, query: dict[str, str]) -> tuple[int, str]:
        """The size that is asked for, with its checkpoint if there is one; without a size a checkpoint of now."""
        if "size" not in query:
            note = self._checkpoints.sign(asked.tenant, asked.now)
            return checkpoint.parse(note).size, note
        size = _number(query, "size", 0)
        kept = self._log.checkpoints(asked.tenant, after=size - 1, limit=1)
        return size, kept[0].note if kept and kept[0].size == size else ""


def _first(parts: list[bytes]) -> list[bytes]:
    """Those that fit into one answer, and one at least: whoever wants the others asks from there on."""
    kept, size = parts[:1], sum(map(len, parts[:1]))
    for part in parts[1:]:
        size += len(part)
        if size > MAX_ANSWER:
            break
        kept.append(part)
    return kept


def _number(query: dict[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 15:
        raise MalformedRequest(f"{name} is a number", code="query_malformed", field=name, got=text[:40])
    return int(text)


def _json(value: object) -> Answer:
    return Answer(200, _ENCODER.encode(value))


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
