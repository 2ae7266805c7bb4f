"""Bringing tenants into the state that a document declares: what differs, said before anything is done, and doing it.

Only the administration's API is asked, with the caller's own rights. Applying twice changes nothing the second time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import msgspec

from adyton.client.admin import Admin
from adyton.client.people import People
from adyton.errors import DocumentInvalid, NotFound
from adyton.protocol.declared import (
    Declared,
    DeclaredPolicy,
    DeclaredReference,
    DeclaredResource,
    DeclaredTenant,
)
from adyton.protocol.people import TenantBody, TenantView
from adyton.protocol.resource import ResourcePath
from adyton.rats.types import JsonValue

Read = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. ``verb`` is ``create``, ``change`` or ``delete``; ``before`` and ``after`` hold no secret."""

    tenant: str
    kind: str
    name: str
    verb: str
    before: object
    after: object
    do: Callable[[], object]

    def shown(self) -> dict[str, object]:
        """As JSON."""
        return {
            "tenant": self.tenant, "kind": self.kind, "name": self.name, "verb": self.verb,
            "before": msgspec.to_builtins(self.before), "after": msgspec.to_builtins(self.after),
        }  # fmt: skip


class Planner:
    """Compares tenants with a document. ``read`` gives the content of a file that the document names."""

    def __init__(self, open_tenant: Callable[[str], Admin], read: Read, *, prune: bool = False, values: bool = False):
        self._open = open_tenant
        self._read = read
        self._prune = prune
        self._values = values

    def plan(self, declared: Declared) -> list[Change]:
        """Every difference, in the order in which to do away with them."""
        return [
            change
            for name, tenant in declared.tenants.items()
            for change in _Tenant(name, self._open(name), self._read, prune=self._prune, values=self._values).plan(
                tenant
            )
        ]


class _Tenant:
    def __init__(self, name: str, admin: Admin, read: Read, *, prune: bool, values: bool) -> None:
        self._name = name
        self._admin = admin
        self._people = People(admin)
        self._read = read
        self._prune = prune
        self._values = values
        self._found: list[Change] = []

    def plan(self, tenant: DeclaredTenant) -> list[Change]:
        there = self._settings(tenant)
        self._policies(tenant, there=there)
        self._providers(tenant, there=there)
        self._references(tenant, there=there)
        self._resources(tenant, there=there)
        return self._found

    def _note(self, kind: str, name: str, before: object, after: object, do: Callable[[], object]) -> None:
        if before == after:
            return
        verb = "create" if before is None else "delete" if after is None else "change"
        self._found.append(Change(self._name, kind, name, verb, before, after, do))

    def _settings(self, tenant: DeclaredTenant) -> bool:
        people, now = self._people, None
        try:
            now = people.show_tenant()
        except NotFound:
            now = None
        if now is None:
            body = TenantBody(tenant.organisation or "", tenant.environment or "production")
            self._note("tenant", self._name, None, body, lambda: people.make_tenant(body))
        elif tenant.organisation not in {None, now.organisation}:
            wanted = tenant.organisation or ""
            self._note("organisation", "", now.organisation, wanted, lambda: people.set_organisation(wanted))
        if now is not None and tenant.environment not in {None, now.environment}:
            environment = tenant.environment or ""
            self._note("environment", "", now.environment, environment, lambda: people.set_environment(environment))
        if tenant.quotas is not None:
            quotas = tenant.quotas
            self._note("quotas", "", now.quotas if now else {}, quotas, lambda: people.set_quotas(quotas))
        if tenant.approvals is not None:
            rules = tenant.approvals
            self._note("approvals", "", now.approvals if now else None, rules, lambda: people.set_approvals(rules))
        return now is not None

    def _policies(self, tenant: DeclaredTenant, *, there: bool) -> None:
        admin = self._admin
        now = {f"{one.kind}/{one.id}": one for one in admin.list_policies()} if there else {}
        for name, declared in tenant.policies.items():
            kind, _, policy_id = name.partition("/")
            text = declared.text or self._text(name, declared.file)
            known = admin.show_policy(kind, policy_id).text if name in now else None
            self._note("policy", name, known, text, partial(admin.set_policy, kind, policy_id, text))
        if self._prune:
            for name in now.keys() - tenant.policies.keys():
                kind, _, policy_id = name.partition("/")
                self._note("policy", name, now[name].digest, None, partial(admin.delete_policy, kind, policy_id))

    def _text(self, name: str, file: str) -> str:
        try:
            return self._read(file).decode("utf-8")
        except UnicodeDecodeError as error:
            raise DocumentInvalid(
                "a policy's file is not UTF-8", code="declared_invalid", field=f"tenants.{self._name}.policies.{name}"
            ) from error

    def _providers(self, tenant: DeclaredTenant, *, there: bool) -> None:
        admin = self._admin
        now = {one.name: one.settings for one in admin.list_providers()} if there else {}
        for name, settings in tenant.providers.items():
            self._note("provider", name, now.get(name), settings, partial(admin.set_provider, name, settings))
        if self._prune:
            for name in now.keys() - tenant.providers.keys():
                self._note("provider", name, now[name], None, partial(admin.delete_provider, name))

    def _references(self, tenant: DeclaredTenant, *, there: bool) -> None:
        admin = self._admin
        now = {one.name: one for one in admin.list_references()} if there else {}
        for name, declared in tenant.references.items():
            known = now.get(name)
            same = known is not None and not known.provider and known.counts and known.value == declared.value
            if same and known is not None and _moment(known.expires) == _moment(declared.expires):
                continue
            before = DeclaredReference(known.value, known.expires) if known is not None else None
            value: JsonValue = declared.value  # type: ignore[assignment]
            do = partial(admin.set_reference, name, value, declared.expires)
            verb = "create" if known is None else "change"
            self._found.append(Change(self._name, "reference", name, verb, before, declared, do))
        if self._prune:
            for name in now.keys() - tenant.references.keys():
                if not now[name].provider:
                    self._note("reference", name, now[name].value, None, partial(admin.delete_reference, name))

    def _resources(self, tenant: DeclaredTenant, *, there: bool) -> None:
        admin = self._admin
        now = {one.uri.removeprefix("kbs:///"): one for one in admin.list_resources()} if there else {}
        for name, declared in tenant.resources.items():
            path, known = ResourcePath(*name.split("/")), now.get(name)
            value = self._read(declared.file) if declared.file else None
            if known is None and value is None:
                raise DocumentInvalid(
                    "a resource that does not exist has no value in the document either",
                    code="declared_value_missing",
                    field=f"tenants.{self._name}.resources.{name}",
                    hint="name a file, or set it first: adyton resource set",
                )
            if value is not None and (known is None or known.size != len(value) or self._values):
                before = {"binding": known.binding, "size": known.size} if known is not None else None
                after = {"binding": declared.binding, "size": len(value), "value": f"from {declared.file}"}
                self._note(
                    "resource", name, before, after,
                    partial(admin.set_resource, path, value, declared.binding),
                )  # fmt: skip
            elif known is not None:
                self._note(
                    "binding", name, known.binding, declared.binding,
                    partial(admin.bind_resource, path, declared.binding),
                )  # fmt: skip
        if self._prune:
            for name in now.keys() - tenant.resources.keys():
                path = ResourcePath(*name.split("/"))
                self._note("resource", name, now[name].binding, None, partial(admin.delete_resource, path))


def export(admins: dict[str, Admin]) -> Declared:
    """What tenants are like now, as a document. Never values, and nothing that a provider published."""
    return Declared({name: _exported(admin) for name, admin in admins.items()})


def _exported(admin: Admin) -> DeclaredTenant:
    view: TenantView = People(admin).show_tenant()
    references = [one for one in admin.list_references() if not one.provider and one.state != "revoked"]
    return DeclaredTenant(
        organisation=view.organisation,
        environment=view.environment,
        quotas=view.quotas,
        approvals=view.approvals,
        resources={one.uri.removeprefix("kbs:///"): DeclaredResource(one.binding) for one in admin.list_resources()},
        policies={
            f"{one.kind}/{one.id}": DeclaredPolicy(text=admin.show_policy(one.kind, one.id).text)
            for one in admin.list_policies()
        },
        references={one.name: DeclaredReference(one.value, one.expires) for one in references},
        providers={one.name: one.settings for one in admin.list_providers()},
    )


def _moment(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
