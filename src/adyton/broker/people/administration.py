"""A request of the administration on its way: who asks, may they, must others agree, then its handler.

This is the one place where the table of permissions and the rules of approval are consulted; handlers do neither.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from adyton.broker.door import refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.asked import Asked
from adyton.broker.door.refusals import Stage
from adyton.broker.people import permissions
from adyton.broker.people.approvals import Approvals
from adyton.broker.people.gate import Gate
from adyton.broker.people.people import Principal
from adyton.broker.people.permissions import Line
from adyton.broker.record.recorded import Recorded
from adyton.broker.running.replicas import Deadline
from adyton.errors import AdytonError, NotPermitted
from adyton.stores.sqlite import Store
from adyton.stores.tenant_settings import BROKER, StoredTenant, absent

_LOG = logging.getLogger(__name__)
Handle = Callable[[Asked, tuple[str, ...]], Answer]


@dataclass(frozen=True, slots=True)
class Administered:
    """An answer, what it says recorded already; whose log, who, and an attempt that the role did not allow, to be recorded."""

    answer: Answer
    log: str = ""
    who: str = ""
    refused: tuple[str, str, AdytonError] | None = None


class Administration:
    """The administration of one worker. Called in a thread, since it may read much or ask an identity provider."""

    def __init__(self, store: Store, gate: Gate, approvals: Approvals, *, api: Handle, coco: Handle) -> None:
        self._store = store
        self._gate = gate
        self._approvals = approvals
        self._handlers = {"api": api, "kbs": coco}
        approvals.carry_out = self._carry_out

    def answer(self, area: str, parts: tuple[str, ...], asked: Asked, authorization: bytes | None) -> Administered:
        """The answer to a stranger's request (``asked.principal`` is not believed). Errors become answers here."""
        line = permissions.line(area, asked.method, parts)
        stage = Stage.OWN_API if area == "api" else Stage.ADMIN
        if line is None and area != "api":
            return Administered(refusals.NO_PLUGIN)
        log, who, deadline = asked.tenant, "", Deadline(self._store)
        try:
            tenant = self._store.registry.find(asked.tenant)
            organisation = tenant.settings.organisation if tenant is not None else ""
            principal = self._gate.check(authorization, organisation, asked.now)
            who = principal.name
            if line is None:
                return Administered(refusals.NO_METHOD if permissions.known(area, parts) else refusals.NO_PATH)
            log = BROKER if line.of_the_broker else asked.tenant
            self._permit(line, principal, asked.tenant, tenant)
            with Recorded(self._store, log, asked.now, actor=who, peer=asked.peer) as deed:
                asked = replace(asked, principal=principal, deed=deed)
                waits = self._approvals.ask(line, asked, parts, tenant)
                deadline.check()  # before anything is done: who was taken a role may not change or use a thing
                answer = waits if waits is not None else self._handlers[area](asked, parts)
                deed.settle(*answer.changes)
            return Administered(answer, log, who)
        except NotPermitted as error:
            answer = refusals.answer(error, stage)
            if error.code == "role_not_permitted" and line is not None and line.action:
                return Administered(answer, log, who, (line.action, "/".join(parts)[:300], error))
            return Administered(answer)
        except AdytonError as error:
            return Administered(refusals.answer(error, stage))

    def knows(self, tenant: str, authorization: bytes, now: datetime) -> bool:
        """Whether the header makes somebody known to a tenant, whatever they may do there."""
        try:
            found = self._store.registry.find(tenant)
            self._gate.check(authorization, found.settings.organisation if found is not None else "", now)
        except AdytonError:
            return False
        return True

    def of_the_broker(self, authorization: bytes | None, now: datetime) -> bool:
        """Whether the header makes somebody known who may know how the broker itself is."""
        try:
            return self._gate.check(authorization, "", now).of_the_broker
        except AdytonError:
            return False

    def _permit(self, line: Line, who: Principal, name: str, tenant: StoredTenant | None) -> None:
        permissions.check(line, who, name, tenant.settings.organisation if tenant is not None else "")
        if tenant is not None or line.of_the_broker or line.action == "tenant.create":
            return
        if line.path[0] != "audit":  # the log of a tenant that was deleted is kept, and read by the broker's own people
            raise absent()  # told to them only: a tenant that does not exist is of no organisation

    def _carry_out(self, area: str, parts: tuple[str, ...], asked: Asked) -> Answer:
        """What others have agreed to, as if it were asked now: the proposer must still be allowed to."""
        line = permissions.line(area, asked.method, parts)
        tenant = self._store.registry.find(asked.tenant)
        if line is None:
            raise NotPermitted("this is not served any more", code="role_not_permitted")
        self._permit(line, asked.principal, asked.tenant, tenant)
        return self._handlers[area](asked, parts)
