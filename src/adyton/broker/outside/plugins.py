"""Requests for external plug-ins: ``/kbs/v0/<name>/…``, or as CoCo has it ``/kbs/v0/external/<name>/…``.

The plug-in says who may ask: an administrator, by the table of permissions like every change; or a workload, whose
attestation is accepted and whom the tenant's resource policy allows the plug-in's path. Without such a policy no workload
is let through, unless the plug-in was configured with ``any_workload_i_accept``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from adyton.broker.audit import Auditor
from adyton.broker.delivery import Asking, Delivery
from adyton.broker.door.answer import JSON, Answer
from adyton.broker.door.asked import Asked
from adyton.broker.holders import Holder
from adyton.broker.release import Releaser
from adyton.broker.running.replicas import Deadline
from adyton.crypto import jwe
from adyton.errors import AdytonError, NotFound, Unavailable
from adyton.protocol.backends import BackendView
from adyton.protocol.resource import PluginPath
from adyton.stores.backends.configured import allowed
from adyton.stores.backends.guard import Guard
from adyton.stores.backends.options import PluginOptions
from adyton.stores.sqlite import Store

PREFIX = "external"
OCTETS = b"application/octet-stream"
_T = TypeVar("_T")
Handle = Callable[[Asked, tuple[str, ...]], Answer]


class PluginDoor:
    """One plug-in behind its guard; its library is imported with its first request."""

    def __init__(self, name: str, options: PluginOptions) -> None:
        self.name = name
        self.options = options
        self.guard = Guard(name, options.seconds, options.calls)
        self._lock = threading.Lock()
        self._client: Any = None

    def client(self) -> Any:
        """Its client."""
        with self._lock:
            if self._client is None:
                from adyton.stores.backends.grpc_plugin import PluginClient

                self._client = PluginClient(self.options)
            return self._client

    async def ask(self, call: Callable[[Any], _T]) -> _T:
        """``call`` with the client, within the deadline."""
        return await self.guard.run_async(lambda: call(self.client()))

    def check(self) -> BackendView:
        """Whether it can be reached."""
        try:
            says = self.guard.run(lambda: self.client().check())
        except AdytonError as error:
            return BackendView(
                self.name, "plugin", False, "", error.code, error.message, error.hint or "", self.guard.state
            )
        return BackendView(self.name, "plugin", True, str(says))

    def close(self) -> None:
        """Let it go."""
        self.guard.close()
        if self._client is not None:
            self._client.close()


class Plugins:
    """All plug-ins of one worker."""

    def __init__(
        self, options: dict[str, PluginOptions], store: Store, releaser: Releaser, auditor: Auditor, delivery: Delivery
    ) -> None:
        self._doors = {name: PluginDoor(name, given) for name, given in options.items()}
        self._store = store
        self._releaser = releaser
        self._auditor = auditor
        self._delivery = delivery

    def named(self, tenant: str, parts: tuple[str, ...]) -> tuple[str, tuple[str, ...]] | None:
        """The plug-in and its path that a request names, or ``None``."""
        rest = parts[1:] if parts[:1] == (PREFIX,) else parts
        door = self._doors.get(rest[0]) if rest else None
        return (rest[0], rest[1:]) if door is not None and allowed(door.options.tenants, tenant) else None

    async def for_admin(self, name: str, method: str, path: tuple[str, ...], query: str, body: bytes) -> bool:
        """Whether the plug-in wants an administrator for this."""
        asked = _request(method, path, query, body)
        return await self._doors[name].ask(lambda client: bool(client.needs_admin(asked)))

    async def deliver(  # noqa: PLR0917 -- whose, which, what, by whom, when
        self,
        tenant: str,
        name: str,
        path: PluginPath,
        method: str,
        body: bytes,
        query: str,
        holder: Holder,
        asked: Asking,
    ) -> Answer:
        """A workload's answer, once its audit row is on the disk; or the refusal, as an error."""
        door = self._doors[name]
        generation = self._delivery.generation(tenant, holder)
        permit = await self._releaser.decide_plugin(
            tenant,
            holder.claims,
            path,
            asked.at,
            asked.query,
            generation,
            accept_any=door.options.any_workload_i_accept,
        )
        asked.deadline.check()
        sent = _request(method, path.parts, query, body)
        encrypted = await door.ask(lambda client: bool(client.needs_encryption(sent)))
        reply = await door.ask(lambda client: client.handle(sent))
        deadline = Deadline(self._store)
        if self._delivery.generation(tenant, holder) != generation:
            raise Unavailable("policies changed while the plug-in answered", code="changed_meanwhile", hint="ask again")
        body_out = _successful(name, reply.status, reply.body)
        answer = Answer(200, jwe.encrypt(holder.key, body_out), JSON) if encrypted else Answer(200, body_out, OCTETS)
        await self._auditor.released(
            tenant,
            path,
            holder.claims,
            permit.by,
            asked.at,
            request_id=holder.handle,
            peer=asked.peer,
            action="plugin",
            policies=permit.policies,
        )
        deadline.check()
        return answer

    def administered(self, others: Handle) -> Handle:
        """What answers administrators: for plug-ins this, for all else ``others``. Called in a thread, after the gate."""

        def handle(asked: Asked, parts: tuple[str, ...]) -> Answer:
            found = self.named(asked.tenant, parts) if parts[:1] == (PREFIX,) else None
            if parts[:1] != (PREFIX,):
                return others(asked, parts)
            if found is None:
                raise NotFound("this plug-in was not given to the broker", code="plugin_absent", field="plugin")
            name, path = found
            sent = _request(asked.method, path, asked.query, asked.body)
            door = self._doors[name]
            if not door.guard.run(lambda: door.client().needs_admin(sent)):
                raise NotFound("this is for workloads", code="plugin_absent", field=name)
            # What it changes is its own: so the row is there first, whatever becomes of the call.
            asked.deed.settle(("plugin.use", f"{asked.method} {PluginPath(name, path).uri}"))
            reply = door.guard.run(lambda: door.client().handle(sent))
            return Answer(200, _successful(name, reply.status, reply.body), OCTETS)

        return handle

    def check(self, tenant: str) -> list[BackendView]:
        """How each is that the tenant may use."""
        return [door.check() for door in self._doors.values() if allowed(door.options.tenants, tenant)]

    def close(self) -> None:
        """Let all of them go."""
        for door in self._doors.values():
            door.close()


def _request(method: str, path: tuple[str, ...], query: str, body: bytes) -> Any:
    from adyton.stores.backends.grpc_plugin import PluginRequest

    return PluginRequest(method, path, dict(parse_qsl(query)) if query else {}, body)


def _successful(name: str, status: int, body: bytes) -> bytes:
    if status == 0 or 200 <= status < 300:
        return body
    if status == 404:
        raise NotFound("the plug-in has nothing there", code="plugin_nothing_there", field=name)
    raise Unavailable("the plug-in refused the request or failed", code="plugin_failed", field=name, got=status)
