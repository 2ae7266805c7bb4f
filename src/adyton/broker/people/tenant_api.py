"""What is asked about tenants and organisations: ``tenant`` (the one of the URL), ``tenants``, ``organisations``."""

from __future__ import annotations

import msgspec

from adyton.broker.door import api_bodies, refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.asked import Asked
from adyton.broker.door.rates import parse_all
from adyton.broker.people.approvals import Approvals
from adyton.config import Environment
from adyton.errors import ConfigError, Conflict, MalformedRequest
from adyton.protocol.people import (
    QUOTAS,
    ApprovalRules,
    DeleteTenantBody,
    EnvironmentBody,
    OrganisationBody,
    OrganisationView,
    QuotaBody,
    RatesBody,
    TenantBody,
    TenantView,
)
from adyton.stores.sql import Transaction
from adyton.stores.sqlite import Store
from adyton.stores.tenant_settings import BROKER, StoredTenant, TenantSettings, absent

_LOOSER = [Environment.PRODUCTION, Environment.PRE_PRODUCTION]
MAX_QUOTA = 2**40


class TenantApi:
    """The requests of one worker. ``environment`` is the broker's, which implicit tenants have."""

    def __init__(self, store: Store, approvals: Approvals, environment: str) -> None:
        self._store = store
        self._approvals = approvals
        self._environment = environment

    def handle(self, asked: Asked, parts: tuple[str, ...]) -> Answer:
        """The answer; ``parts`` begin with the noun."""
        match (asked.method, *parts):
            case ("GET", "tenants"):
                found = self._store.registry.tenants()
                mine = [one for one in found if asked.principal.covers(one.name, one.settings.organisation)]
                return api_bodies.answer([self._view(one) for one in mine])
            case (_, "organisations", *rest):
                return self._organisations(asked, rest)
            case (_, "tenant", *rest):
                return self._tenant(asked, rest)
        return refusals.NO_PATH

    def _tenant(self, asked: Asked, rest: list[str]) -> Answer:
        name = asked.tenant
        match (asked.method, *rest):
            case ("GET",):
                return api_bodies.answer(self._view(self._found(name)))
            case ("PUT",):
                made = api_bodies.read(asked.body, TenantBody)
                settings = TenantSettings(made.organisation, _environment(made.environment).value)
                stored = self._store.registry.make(name, settings)
                told = f"{name} of {made.organisation or 'nobody'}, {settings.environment}"
                asked.deed.settle(("tenant.create", told))
                return api_bodies.answer(self._view(stored))
            case ("DELETE",):
                if api_bodies.read(asked.body, DeleteTenantBody).name != name or name == BROKER:
                    raise MalformedRequest("name the tenant that is to go", code="tenant_not_named", field="name")
                gone = self._store.registry.delete(name)
                asked.deed.settle(("tenant.delete", f"{name}, {gone} rows"))
                erased = self._store.registry.finish_erasure()
                late = () if erased else (("tenant.erasure", f"{name}: its bytes are not overwritten yet"),)
                return api_bodies.answer({"deleted": name, "rows": gone, "erased": erased}, *late)
            case ("PUT", "environment"):
                return self._set_environment(asked)
            case ("PUT", "organisation"):
                return self._set_organisation(asked)
            case ("PUT", "quotas"):
                return self._set_quotas(asked)
            case ("PUT", "rates"):
                return self._set_rates(asked)
            case ("PUT", "approvals"):
                rules = api_bodies.read(asked.body, ApprovalRules)
                self._approvals.check_rules(rules, name, self._found(name).settings.organisation)
                return self._change(
                    asked,
                    "tenant.approvals",
                    f"{rules.needed} for {', '.join(rules.actions) or 'nothing'}",
                    approvals=rules,
                )
        return refusals.NO_METHOD

    def _set_environment(self, asked: Asked) -> Answer:
        wanted = _environment(api_bodies.read(asked.body, EnvironmentBody).environment)
        name = asked.tenant
        before = Environment(self._found(name).settings.environment or self._environment)
        if wanted.may_trust_development_roots and before in _LOOSER and self._store.resources.list(name, limit=1):
            raise Conflict(
                f"the secrets of {before.value} are not for {wanted.value}",
                code="environment_holds_secrets",
                field="environment",
                expected="a tenant without resources",
                got=before.value,
                hint="make another tenant, and promote what it needs",
            )
        return self._change(asked, "tenant.environment", f"{before.value} to {wanted.value}", environment=wanted.value)

    def _set_organisation(self, asked: Asked) -> Answer:
        if asked.tenant == BROKER:
            raise MalformedRequest("this one stays the broker's", code="name_reserved", field="tenant")
        to = api_bodies.read(asked.body, OrganisationBody).organisation
        before = self._found(asked.tenant).settings.organisation
        return self._change(asked, "tenant.organisation", f"{before or 'nobody'} to {to or 'nobody'}", organisation=to)

    def _set_quotas(self, asked: Asked) -> Answer:
        quotas = api_bodies.read(asked.body, QuotaBody).quotas
        for name, value in quotas.items():
            if name not in QUOTAS or not 0 <= value <= MAX_QUOTA:
                raise MalformedRequest(
                    "no such quota", code="quota_invalid", field=name[:40], expected=[*QUOTAS], got=value
                )
        told = ", ".join(f"{name} {value}" for name, value in sorted(quotas.items())) or "none"
        return self._change(asked, "tenant.quotas", told, quotas=quotas)

    def _set_rates(self, asked: Asked) -> Answer:
        wanted = api_bodies.read(asked.body, RatesBody).rates
        try:
            parse_all(wanted)
        except ConfigError as error:
            raise MalformedRequest(
                "no such rate", code="rate_invalid", field="rates", expected="CLASS=PER_SECOND[:BURST], each class once"
            ) from error
        return self._change(asked, "tenant.rates", ", ".join(wanted) or "the broker's", rates=wanted)

    def _change(self, asked: Asked, action: str, told: str, **fields: object) -> Answer:
        def edit(_: Transaction, before: TenantSettings) -> TenantSettings:
            return msgspec.structs.replace(before, **fields)

        stored = self._store.registry.change(asked.tenant, edit)
        asked.deed.settle((action, told))  # what is counted for the view may be much: nobody waits for that
        return api_bodies.answer(self._view(stored))

    def _organisations(self, asked: Asked, rest: list[str]) -> Answer:
        registry = self._store.registry
        match (asked.method, *rest):
            case ("GET",):
                tenants = registry.tenants()
                views = [
                    OrganisationView(
                        one.name,
                        api_bodies.stamp(one.created),
                        [tenant.name for tenant in tenants if tenant.settings.organisation == one.name],
                    )
                    for one in registry.organisations()
                ]
                return api_bodies.answer(views)
            case ("PUT", name):
                made = registry.make_organisation(name, asked.now)
                view = OrganisationView(made.name, api_bodies.stamp(made.created), [])
                return api_bodies.answer(view, ("organisation.create", name))
            case ("DELETE", name):
                registry.delete_organisation(name)
                return Answer(204, changes=(("organisation.delete", name),))
        return refusals.NO_METHOD

    def _found(self, name: str) -> StoredTenant:
        found = self._store.registry.find(name)
        if found is None:
            raise absent()
        return found

    def _view(self, one: StoredTenant) -> TenantView:
        return TenantView(
            name=one.name,
            organisation=one.settings.organisation,
            environment=one.settings.environment or self._environment,
            implicit=not one.made,
            approvals=one.settings.approvals,
            quotas=dict(one.settings.quotas),
            rates=list(one.settings.rates),
            used=self._store.registry.used(one.name),
        )


def _environment(name: str) -> Environment:
    try:
        return Environment(name)
    except ValueError as error:
        raise MalformedRequest(
            "no such environment",
            code="environment_invalid",
            field="environment",
            expected=[item.value for item in Environment],
            got=name[:40],
        ) from error
