"""What the record tells about machines and receivers: read once, and from there on only what was added.

Of a long record the last ``MAX_ROWS`` rows count, and the answer says from which on. What is kept is a function of the
rows alone, so each worker finds the same. Of a row, which may be long, only what is told is kept: whoever asks for much
that it may not have makes neither this process nor an answer large.
"""

from __future__ import annotations

from _thread import LockType
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Generic, TypeAlias, TypeVar
from urllib.parse import parse_qsl

from adyton.broker.door import refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.api_bodies import answer, stamp
from adyton.broker.door.asked import Asked
from adyton.broker.record.checkpoints import Checkpoints
from adyton.protocol import audit_row
from adyton.protocol.audit_row import AuditEntry
from adyton.protocol.seen import Platforms, PlatformView, Receivers, ReceiverView
from adyton.stores.sqlite import Store

MAX_ROWS = 50_000
MAX_KEPT = 4_000
MAX_TENANTS = 16
MAX_REASONS = 4
MAX_REASON = 160
_PAGE = 200
_K = TypeVar("_K")
_V = TypeVar("_V")
_Id: TypeAlias = tuple[str, str, str]  # platform, TEE, fingerprint of the root
_Key: TypeAlias = tuple[str, str, str, str]  # resource, TEE, measurement, host data


@dataclass(slots=True)
class _Machine:
    root: str
    tcb: dict[str, object]
    status: str
    first: datetime
    since: datetime
    last: datetime
    count: int = 1


@dataclass(slots=True)
class _Receiver:
    root: str
    decision: str
    reasons: tuple[str, ...]
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

    after: int = 0
    upto: int = 2**63
    machines: _Latest[_Id, _Machine] = field(default_factory=_Latest)
    receivers: _Latest[_Key, _Receiver] = field(default_factory=_Latest)
    lock: LockType = field(default_factory=Lock)

    def begin(self, after: int) -> None:
        """Anew."""
        self.after = self.upto = after
        self.machines.clear()
        self.receivers.clear()

    def take(self, entry: AuditEntry) -> None:
        self.upto = entry.sequence
        row = entry.row
        if row.action == "attest" and row.platform:
            self._attested(entry, (row.platform, row.tee, row.root_fingerprint))
        elif row.action == "release":
            key = (row.resource, row.tee, row.measurement, row.host_data)
            known = self.receivers.get(key)
            reasons = tuple([reason[:MAX_REASON] for reason in row.reasons[:MAX_REASONS]])
            found = _Receiver(row.root, row.decision, reasons, entry.time, entry.sequence)
            if known is not None:
                found.released, found.refused = known.released, known.refused
            found.released += row.decision == "allowed"
            found.refused += row.decision == "refused"
            self.receivers.latest(key, found)

    def _attested(self, entry: AuditEntry, key: _Id) -> None:
        row, known = entry.row, self.machines.get(key)
        if known is None:
            known = _Machine(row.root, row.tcb, row.status, entry.time, entry.time, entry.time)
        else:
            if known.tcb != row.tcb:
                known.since = entry.time
            known.root, known.tcb, known.status = row.root, row.tcb, row.status
            known.last, known.count = entry.time, known.count + 1
        self.machines.latest(key, known)


class Chronicle:
    """``/api/v0/platforms`` and ``/api/v0/receivers[?resource=URI]``."""

    def __init__(self, store: Store, checkpoints: Checkpoints) -> None:
        self._log = store.audit
        self._checkpoints = checkpoints
        self._told: OrderedDict[str, _Told] = OrderedDict()
        self._lock = (
            Lock()
        )  # of the table; each tenant has one of its own, so that nobody waits for another's long record

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
        told = self._of(tenant)
        with told.lock:
            self._read_on(tenant, told)
            return Platforms(told.after, [_machine(key, one) for key, one in reversed(told.machines.items())])

    def receivers(self, tenant: str, resource: str = "") -> Receivers:
        """Who asked, of everything or of one resource."""
        told = self._of(tenant)
        with told.lock:
            self._read_on(tenant, told)
            asked = [it for it in reversed(told.receivers.items()) if not resource or it[0][0] == resource]
            return Receivers(told.after, [self._receiver(tenant, key, one) for key, one in asked])

    def _of(self, tenant: str) -> _Told:
        with self._lock:
            told = self._told.setdefault(tenant, _Told())
            self._told.move_to_end(tenant)
            if len(self._told) > MAX_TENANTS:
                self._told.popitem(last=False)
        return told

    def _read_on(self, tenant: str, told: _Told) -> None:
        size = self._log.size(tenant)
        if told.upto > size:  # the first time, or a store that was put back
            told.begin(max(0, size - MAX_ROWS))
        while told.upto < size and (bodies := self._log.bodies(tenant, told.upto, _PAGE)):
            for body in bodies:
                told.take(audit_row.decode(body))

    def _receiver(self, tenant: str, key: _Key, one: _Receiver) -> ReceiverView:
        resource, tee, measurement, host_data = key
        return ReceiverView(
            resource=resource,
            tee=tee,
            measurement=measurement,
            host_data=host_data,
            root=one.root,
            released=one.released,
            refused=one.refused,
            last=stamp(one.last),
            last_id=self._checkpoints.decision(tenant, one.sequence),
            last_decision=one.decision,
            reasons=one.reasons,
        )


def _machine(key: _Id, one: _Machine) -> PlatformView:
    platform, tee, _ = key
    return PlatformView(
        platform=platform,
        tee=tee,
        root=one.root,
        tcb=one.tcb,
        first_seen=stamp(one.first),
        tcb_since=stamp(one.since),
        last_seen=stamp(one.last),
        status=one.status,
        attestations=one.count,
    )
