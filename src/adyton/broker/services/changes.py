"""Policies and reference values of a service: who may change them, and the change itself, recorded.

Confidential Containers' services let everybody who reaches the port change both. Here a change needs the admin token
(``Authorization: Bearer``), or, where the operator says so, a client certificate of the service's own CA. Reading a reference
value, or which policies there are, needs nothing, as there; a policy's text is for who may read policies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import quote

import msgspec

from adyton.broker.admin import Admin
from adyton.broker.coco_admin import CocoAdmin
from adyton.broker.door.answer import Answer
from adyton.broker.door.asked import Asked
from adyton.broker.people import permissions
from adyton.broker.people.approvals import falls_under
from adyton.broker.people.people import Principal, Role
from adyton.broker.people.permissions import Line
from adyton.broker.record.recorded import Recorded
from adyton.errors import Conflict, NotFound, NotPermitted
from adyton.protocol.attestation_service import PolicyBody, PolicyId

PEER = Principal("client certificate", Role.OWNER, by="client certificate")
Check = Callable[[bytes | None, str, datetime], Principal]
Handle = Callable[[Asked, tuple[str, ...]], Answer]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who called: where from, the ``Authorization`` header, and whether a client certificate was verified."""

    peer: str
    authorization: bytes | None = None
    certified: bool = False


class Changes:
    """For one tenant. ``check`` is the gate's; ``peers`` whether a verified client certificate is enough."""

    def __init__(self, admin: Admin, check: Check, *, tenant: str, peers: bool) -> None:
        self._admin = admin
        self._coco = CocoAdmin(admin)
        self._check = check
        self._tenant = tenant
        self._peers = peers

    def set_policy(self, policy_id: str, policy: str, caller: Caller, now: datetime) -> None:
        """Set a policy; ``policy`` is base64url of Rego."""
        body = msgspec.json.encode(PolicyBody(policy_id, policy))
        self._changed("POST", ("attestation-policy",), body, caller, now)

    def delete_policy(self, policy_id: str, caller: Caller, now: datetime) -> None:
        """Delete one; that of the same id that Adyton brings along holds again."""
        parts = ("policies", "attestation", quote(policy_id, safe=""))
        who = self._who("api", "DELETE", parts, caller, now)
        self._recorded(self._admin.handle, Asked("DELETE", self._tenant, b"", now, "", who, caller.peer), parts)

    def policies(self) -> list[PolicyId]:
        """The ids of what is stored."""
        found = self._admin.store.policies.ids(self._tenant, "attestation")  # no text is opened: anybody may ask
        return [PolicyId(name) for name, _, active in found if active]

    def policy(self, policy_id: str, caller: Caller, now: datetime) -> str:
        """The text of one that is stored, for who may read policies; ``NotFound``."""
        self._who("api", "GET", ("policies", "attestation", quote(policy_id, safe="")), caller, now)
        found = self._admin.store.policies.get(self._tenant, "attestation", policy_id)
        if found is None:
            raise NotFound("there is no such policy", code="policy_absent", field="policy_id")
        return found.text

    def register(self, message: str, caller: Caller, now: datetime) -> None:
        """Register the values of a message (kbs-protocol 3.2)."""
        self._changed("POST", ("reference-value",), message.encode(), caller, now)

    def query(self, name: str, now: datetime) -> str | None:
        """The value as JSON, ``None`` if there is none that holds now."""
        found = self._admin.store.references.get(self._tenant, name)
        if found is None or not found.counts(now):
            return None
        return msgspec.json.encode(found.value).decode()

    def known(self, caller: Caller, now: datetime) -> bool:
        """Whether the caller is one of the service's people, or a certified peer that counts as one."""
        try:
            self._who("api", "GET", ("about",), caller, now)
        except NotPermitted:
            return False
        return True

    def _changed(self, method: str, parts: tuple[str, ...], body: bytes, caller: Caller, now: datetime) -> None:
        who = self._who("kbs", method, parts, caller, now)
        self._recorded(self._coco.handle, Asked(method, self._tenant, body, now, "", who, caller.peer), parts)

    def _recorded(self, handle: Handle, asked: Asked, parts: tuple[str, ...]) -> None:
        """The change and its rows are durable on return, or neither is there."""
        with Recorded(self._admin.store, self._tenant, asked.now, actor=asked.who, peer=asked.peer) as deed:
            answer = handle(replace(asked, deed=deed), parts)
            if answer.status not in {200, 204}:
                raise Conflict("this cannot be done now", code="change_not_done", got=answer.status)
            deed.settle(*answer.changes)

    def _who(self, area: str, method: str, parts: tuple[str, ...], caller: Caller, now: datetime) -> Principal:
        line = permissions.line(area, method, parts)
        if line is None:
            raise NotPermitted("nobody may do this", code="permission_absent")
        who = self._known(line, caller, now)
        found = self._admin.store.registry.find(self._tenant)
        if found is not None and falls_under(line.action, found.settings.approvals):
            raise NotPermitted(
                "several must agree to this, and a service has no votes",
                code="approval_needed",
                field=line.action,
                hint="ask for it at a broker of this store",
            )
        return who

    def _known(self, line: Line, caller: Caller, now: datetime) -> Principal:
        if self._peers and caller.certified and caller.authorization is None:
            return PEER
        if caller.authorization is None:
            raise NotPermitted(
                "changes need the admin token here",
                code="admin_token_missing",
                field="authorization",
                expected="Bearer TOKEN",
                hint="or start the service with --client-ca FILE --changes-by peers",
            )
        who = self._check(caller.authorization, "", now)  # the service's own people: its tenant is in no organisation
        permissions.check(line, who, self._tenant, "")
        return who
