"""The owner's requests: ours under ``/api/v0``, and CoCo's under ``/kbs/v0`` (kbs-protocol 1.2). By bearer token.

Every change is one audit row, durable before the answer leaves, as every decision is. What is listed and shown is never
a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import cast
from urllib.parse import unquote

from adyton import __version__
from adyton.broker import openapi, refusals
from adyton.broker.answer import Answer
from adyton.broker.api_bodies import answer as _json
from adyton.broker.api_bodies import read as _read
from adyton.broker.api_bodies import stamp as _stamp
from adyton.broker.asked import Asked, Room
from adyton.broker.audit_api import AuditApi
from adyton.broker.checkpoints import Checkpoints
from adyton.broker.policies import PolicyBook
from adyton.broker.reference_api import ReferenceApi
from adyton.errors import MalformedRequest, NotFound
from adyton.protocol import release
from adyton.protocol.admin import (
    POLICY_KINDS,
    About,
    PolicyBody,
    PolicyView,
    ResourceBody,
    ResourceView,
)
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores.policy_types import PolicyKind, StoredPolicy
from adyton.stores.resources import ResourceInfo
from adyton.stores.sqlite import Store

MAX_POLICY_ID = 128


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
    ) -> None:
        self.store = store
        self._book = book
        self._audit = AuditApi(store, book, checkpoints)
        self.references = ReferenceApi(store)
        self._environment = environment
        self._development_roots = development_roots
        self._rooms = rooms

    def handle(self, asked: Asked, parts: tuple[str, ...]) -> Answer:
        """The answer to ``/api/v0/<parts>``; errors of the tree leave as they are."""
        tenant = asked.tenant
        match (asked.method, *parts):
            case ("GET", "about"):
                generation = self.store.generation(tenant)
                found = self.store.registry.find(tenant)
                environment = (found.settings.environment if found else "") or self._environment
                return _json(About(__version__, environment, tenant, generation, self._development_roots))
            case ("GET", "openapi.json"):
                return Answer(200, openapi.document())
            case ("GET", "resources"):
                return _json([_resource(info) for info in self.store.resources.list(tenant)])
            case (_, "resources", *path) if len(path) in {3, 4}:
                return self._one_resource(asked, ResourcePath(*path[:3]), path[3:])
            case ("GET", "policies"):
                kinds = cast("tuple[PolicyKind, ...]", POLICY_KINDS)
                policies = [policy for kind in kinds for policy in self.store.policies.list(tenant, kind)]
                return _json([_policy(policy, text=False) for policy in policies])
            case (_, "policies", kind, name):
                return self._one_policy(asked, kind, unquote(name))
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
                return self.set_resource(tenant, path, given.value, given.binding, asked.now)
            case ("PUT", "binding"):
                info = self.store.resources.bind(tenant, path, self._checked(_read(asked.body, Binding)), asked.now)
                return _json(_resource(info), ("resource.bind", path.uri))
            case ("DELETE",):
                self.store.resources.delete(tenant, path)
                return Answer(204, changes=(("resource.delete", path.uri),))
        return refusals.NO_METHOD

    def set_resource(
        self, tenant: str, path: ResourcePath, value: bytes, binding: Binding | None, now: datetime
    ) -> Answer:
        """Register or replace, after the binding has been looked at; ``None`` keeps the one that there is."""
        checked = self._checked(binding) if binding is not None else None
        info = self.store.resources.set(tenant, path, value, checked, now)
        return _json(_resource(info), ("resource.set", path.uri))

    def _checked(self, binding: Binding) -> Binding:
        release.check(binding)
        if binding.policy is not None:
            self._book.check_binding_policy(binding.policy)
        return binding

    def _one_policy(self, asked: Asked, kind: str, name: str) -> Answer:
        if (
            kind not in POLICY_KINDS
            or not 0 < len(name) <= MAX_POLICY_ID
            or not (name.isprintable() and name.isascii())
        ):
            raise MalformedRequest(
                "a policy has a kind and an id", code="policy_name_invalid", expected=list(POLICY_KINDS), got=kind[:40]
            )
        which = cast("PolicyKind", kind)
        match asked.method:
            case "GET":
                found = self.store.policies.get(asked.tenant, which, name)
                if found is None:
                    raise NotFound(f"no {kind} policy {name!r} is set", code="policy_absent", field="policy_id")
                return _json(_policy(found, text=True))
            case "PUT":
                return self.set_policy(asked.tenant, which, name, _read(asked.body, PolicyBody).text, asked.now)
            case "DELETE":
                self.store.policies.delete(asked.tenant, which, name)
                return Answer(204, changes=(("policy.delete", f"{kind}/{name}"),))
        return refusals.NO_METHOD

    def set_policy(self, tenant: str, kind: PolicyKind, name: str, text: str, now: datetime) -> Answer:
        """Set it if it is acceptable Rego (contracts, 5)."""
        policy = self._book.set(tenant, kind, name, text, now)
        return _json(_policy(policy, text=False), ("policy.set", f"{kind}/{name}"))


def _resource(info: ResourceInfo) -> ResourceView:
    kind = info.key.kind if info.key is not None else ""
    return ResourceView(info.path.uri, info.size, info.version, _stamp(info.updated), info.binding, kind)


def _policy(policy: StoredPolicy, *, text: bool) -> PolicyView:
    shown = policy.text if text else ""
    return PolicyView(policy.kind, policy.id, policy.digest, policy.version, _stamp(policy.updated), shown)
