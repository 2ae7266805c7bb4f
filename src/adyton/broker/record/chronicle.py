"""What the record tells about machines and receivers: read once, and from there on only what was added.

Of a long record the last ``MAX_ROWS`` rows count, and the answer says from which on. What is kept is a function of the
rows alone, so each worker finds the same.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Generic, TypeVar
from urllib.parse import parse_qsl

from adyton.broker.door import refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.api_bodies import answer, stamp
from adyton.broker.door.asked import Asked
from adyton.broker.record.checkpoints import Checkpoints
from adyton.protocol import audit_row
from adyton.protocol.audit_row import AuditEntry, AuditRow
from adyton.protocol.seen import Platforms, PlatformView, Receivers, ReceiverView
from adyton.stores.sqlite import Store

MAX_ROWS = 50_000
MAX_KEPT = 5_000
MAX_TENANTS = 64
_PAGE = 1000
_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(slots=True)
class _Machine:
    row: AuditRow
    first: datetime
    since: datetime
    last: datetime
    count: int = 1


@dataclass(slots=True)
class _Receiver:
    row: AuditRow
    last: datetime
    sequence: int
    released: int = 0
    refused: int = 0


class _Latest(OrderedDict[_K, _V], Generic[_K, _V]):
    """The most recent ``MAX_KEPT``."""

    def latest(self, key: _K, value: _V) -> None:
        self[key] = value
        self.move_to_end(key)
        if len(self) > MAX_KEPT:
            self.popitem(last=False)


@dataclass(slots=True)
class _Told:
    """Of one tenant. ``after``: where reading began; ``upto``: the last row that was read."""

    after: int
    upto: int
    machines: _Latest[tuple[str, str, str], _Machine] = field(default_factory=_Latest)
    receivers: _Latest[tuple[str, str, str, str], _Receiver] = field(default_factory=_Latest)

    def take(self, entry: AuditEntry) -> None:
        self.upto = entry.sequence
        row = entry.row
        if row.action == "attest" and row.platform:
            self._attested(entry, (row.platform, row.tee, row.root_fingerprint))
        elif row.action == "release":
            key = (row.resource, row.tee, row.measurement, row.host_data)
            found = self.receivers.get(key) or _Receiver(row, entry.time, entry.sequence)
            found.row, found.last, found.sequence = row, entry.time, entry.sequence
            found.released += row.decision == "allowed"
            found.refused += row.decision == "refused"
            self.receivers.latest(key, found)

    def _attested(self, entry: AuditEntry, key: tuple[str, str, str]) -> None:
        row, known = entry.row, self.machines.get(key)
        if known is None:
            known = _Machine(row, entry.time, entry.time, entry.time)
        else:
            if known.row.tcb != row.tcb:
                known.since = entry.time
            known.row, known.last, known.count = row, entry.time, known.count + 1
        self.machines.latest(key, known)


class Chronicle:
    """``/api/v0/platforms`` and ``/api/v0/receivers[?resource=URI]``."""

    def __init__(self, store: Store, checkpoints: Checkpoints) -> None:
        self._log = store.audit
        self._checkpoints = checkpoints
        self._told: OrderedDict[str, _Told] = OrderedDict()
        self._lock = Lock()

    def handle(self, asked: Asked, parts: tuple[str, ...]) -> Answer:
        """The answer; nothing is changed here."""
        if asked.method != "GET":
            return refusals.NO_METHOD
        match parts:
            case ("platforms",):
                return answer(self.platforms(asked.tenant))
            case ("receivers",):
                return answer(self.receivers(asked.tenant, dict(parse_qsl(asked.query)).get("resource", "")))
        return refusals.NO_PATH

    def platforms(self, tenant: str) -> Platforms:
        """The machines."""
        with self._lock:
            told = self._read(tenant)
            views = [_machine(one) for one in reversed(told.machines.values())]
            return Platforms(told.after, views)

    def receivers(self, tenant: str, resource: str = "") -> Receivers:
        """Who asked, of everything or of one resource."""
        with self._lock:
            told = self._read(tenant)
            asked = [one for one in reversed(told.receivers.values()) if not resource or one.row.resource == resource]
            return Receivers(told.after, [self._receiver(tenant, one) for one in asked])

    def _read(self, tenant: str) -> _Told:
        told = self._told.get(tenant)
        size = self._log.size(tenant)
        if told is None or told.upto > size:  # a store that was put back
            start = max(0, size - MAX_ROWS)
            told = self._told[tenant] = _Told(start, start)
            if len(self._told) > MAX_TENANTS:
                self._told.popitem(last=False)
        self._told.move_to_end(tenant)
        while told.upto < size and (bodies := self._log.bodies(tenant, told.upto, _PAGE)):
            for body in bodies:
                told.take(audit_row.decode(body))
        return told

    def _receiver(self, tenant: str, one: _Receiver) -> ReceiverView:
        row = one.row
        return ReceiverView(
            resource=row.resource,
            tee=row.tee,
            measurement=row.measurement,
            host_data=row.host_data,
            root=row.root,
            released=one.released,
            refused=one.refused,
            last=stamp(one.last),
            last_id=self._checkpoints.decision(tenant, one.sequence),
            last_decision=row.decision,
            reasons=row.reasons,
        )


def _machine(one: _Machine) -> PlatformView:
    row = one.row
    return PlatformView(
        platform=row.platform,
        tee=row.tee,
        root=row.root,
        tcb=row.tcb,
        first_seen=stamp(one.first),
        tcb_since=stamp(one.since),
        last_seen=stamp(one.last),
        status=row.status,
        attestations=one.count,
    )
