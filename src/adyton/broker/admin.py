"""The owner's requests: ours under ``/api/v0``, and CoCo's under ``/kbs/v0`` (kbs-protocol 1.2). By bearer token.

Every change is one audit row, durable before the answer leaves, as every decision is. What is listed and shown is never
a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from msgspec import structs

from adyton import __version__
from adyton.broker.door import openapi, refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.api_bodies import answer as _json
from adyton.broker.door.api_bodies import page
from adyton.broker.door.api_bodies import read as _read
from adyton.broker.door.api_bodies import stamp as _stamp
from adyton.broker.door.asked import Asked, Room
from adyton.broker.outside import elsewhere
from adyton.broker.outside.elsewhere import ElsewhereValues
from adyton.broker.policy.policies import PolicyBook
from adyton.broker.policy.policy_api import PolicyApi
from adyton.broker.record.audit_api import AuditApi
from adyton.broker.record.checkpoints import Checkpoints
from adyton.broker.reference_api import ReferenceApi
from adyton.errors import NotFound
from adyton.protocol import release
from adyton.protocol.admin import (
    About,
    ResourceBody,
    ResourceView,
)
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores.backends.configured import Backends
from adyton.stores.resource_rows import ResourceInfo
from adyton.stores.resources import ALL
from adyton.stores.sqlite import Store


class Admin:
    """Our API for one worker, called after the gate. ``rooms`` answer for further nouns."""

    def __init__(
        self,
        store: Store,
        book: PolicyBook,
        environment: str,
        development_roots: list[str],
        checkpoints: Checkpoints,
        *,
        rooms: Mapping[str, Room] = MappingProxyType({}),
        values: ElsewhereValues | None = None,
        cryptography: str = "",
    ) -> None:
        self.store = store
        self._book = book
        self._audit = AuditApi(store, book, checkpoints)
        self.references = ReferenceApi(store)
        self.policies = PolicyApi(store, book)
        self._environment = environment
        self._development_roots = development_roots
        self._rooms = rooms
        self._cryptography = cryptography
        self._elsewhere = values or ElsewhereValues(store, Backends())

    def handle(self, asked: Asked, parts: tuple[str, ...]) -> Answer:
        """The answer to ``/api/v0/<parts>``; errors of the tree leave as they are."""
        tenant = asked.tenant
        match (asked.method, *parts):
            case ("GET", "about"):
                generation = self.store.generation(tenant)
                found = self.store.registry.find(tenant)
                environment = (found.settings.environment if found else "") or self._environment
                return _json(
                    About(__version__, environment, tenant, generation, self._development_roots, self._cryptography)
                )
            case ("GET", "openapi.json"):
                return Answer(200, openapi.document())
            case ("GET", "resources"):
                after, limit = page(asked.query, ALL)
                return _json([_resource(info) for info in self.store.resources.list(tenant, after=after, limit=limit)])
            case (_, "resources", *path) if len(path) in {3, 4}:
                return self._one_resource(asked, ResourcePath(*path[:3]), path[3:])
            case (_, "policies", *_):
                return self.policies.handle(asked, parts)
            case (_, "references" | "providers" | "publications" | "revocations", *_):
                return self.references.handle(asked, parts)
            case (_, "audit", *rest):
                return self._audit.handle(asked, tuple(rest))
            case (_, noun, *_) if noun in self._rooms:
                return self._rooms[noun].handle(asked, parts)
        return refusals.NO_PATH

    def _one_resource(self, asked: Asked, path: ResourcePath, rest: list[str]) -> Answer:
        tenant = asked.tenant
        match (asked.method, *rest):
            case ("GET",):
                found = self.store.resources.get(tenant, path)
                if found is None:
                    raise NotFound(f"there is no resource {path.uri}", code="resource_absent")
                return _json(_resource(found.info))
            case ("PUT",):
                given = _read(asked.body, ResourceBody)
                if given.backend or given.foreign_plain_value:
                    return self._set_elsewhere(asked, path, given)
                return self.set_resource(tenant, path, given.value, given.binding, asked.now)
            case ("PUT", "binding"):
                info = self.store.resources.bind(
                    tenant, path, self._checked(tenant, _read(asked.body, Binding)), asked.now
                )
                return _json(_resource(info), ("resource.bind", path.uri))
            case ("DELETE",):
                self._elsewhere.forget(self.store.resources.delete(tenant, path))
                return Answer(204, changes=(("resource.delete", path.uri),))
        return refusals.NO_METHOD

    def set_resource(
        self, tenant: str, path: ResourcePath, value: bytes, binding: Binding | None, now: datetime
    ) -> Answer:
        """Register or replace, after the binding has been looked at; ``None`` keeps the one that there is."""
        checked = self._checked(tenant, binding) if binding is not None else None
        info, old = self.store.resources.exchange(tenant, path, value, checked, now)
        self._elsewhere.forget(old)
        return _json(_resource(info), ("resource.set", path.uri))

    def _set_elsewhere(self, asked: Asked, path: ResourcePath, given: ResourceBody) -> Answer:
        elsewhere.check_body(given.value, backend=given.backend, foreign=given.foreign_plain_value)
        tenant, binding, now = asked.tenant, self._checked(asked.tenant, given.binding), asked.now
        if given.foreign_plain_value:
            info = self._elsewhere.set_foreign(tenant, path, binding, given.backend, now)
        else:
            info = self._elsewhere.set(tenant, path, given.value, binding, given.backend, now)
        return _json(_resource(info), ("resource.set", path.uri))

    def _checked(self, tenant: str, binding: Binding) -> Binding:
        release.check(binding)
        self._book.check_binding(tenant, binding)
        return binding


def _resource(info: ResourceInfo) -> ResourceView:
    kind = info.key.kind if info.key is not None else ""
    view = ResourceView(info.path.uri, info.size, info.version, _stamp(info.updated), info.binding, kind)
    if info.elsewhere is None:
        return view
    return structs.replace(view, backend=info.elsewhere.backend, foreign_plain_value=info.elsewhere.foreign)
