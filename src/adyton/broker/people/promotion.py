"""Promotion: what one tenant's policies and reference values are, another's become; an explicit, recorded step.

Shown first, then done only if nothing changed since (``expected`` is the digest of what was shown), and then in one
transaction: all of it or nothing. Policies and
reference values of the target that the source lacks stay: a promotion adds and replaces, it never takes away. Secrets
go only if each is named, with no binding: to whom they are released there is decided there. So they do not go where less
is asked for: from production to development, or out of a tenant where several must agree to a binding.
"""

from __future__ import annotations

import difflib
import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import msgspec

from adyton.broker.door import api_bodies, refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.asked import Asked
from adyton.broker.people import approvals
from adyton.broker.people.people import Principal, Role
from adyton.broker.people.promoted_reference import Tenants
from adyton.broker.policy.policies import PolicyBook
from adyton.config import Environment
from adyton.errors import Conflict, MalformedRequest, NotFound, NotPermitted
from adyton.protocol.people import PromotionBody, PromotionView, Step
from adyton.protocol.policies import KINDS as POLICY_KINDS
from adyton.protocol.resource import ResourcePath
from adyton.stores.policy_types import PolicyKind, StoredPolicy
from adyton.stores.promotions import Promoted, PromotedValue, changed
from adyton.stores.references import StoredReference
from adyton.stores.sqlite import Store
from adyton.stores.tenant_settings import absent

_ENCODER = msgspec.json.Encoder(order="sorted")


@dataclass(frozen=True, slots=True)
class _Planned:
    """A step and what it sets."""

    step: Step
    what: Promoted
    digest: str


class Promotion:
    """``promotions`` of one worker; the URL's tenant is the target. ``environment`` is the broker's."""

    def __init__(self, store: Store, book: PolicyBook, environment: str) -> None:
        self._store = store
        self._book = book
        self._environment = environment

    def handle(self, asked: Asked, parts: tuple[str, ...]) -> Answer:
        """``GET`` would show nothing that ``POST promotions/plan`` does not: a body says what is wanted."""
        match (asked.method, *parts[1:]):
            case ("POST", "plan"):
                body = self._read(asked)
                planned = self._plan(body, asked.tenant, asked.now)
                return api_bodies.answer(_view(body, asked.tenant, planned, done=False))
            case ("POST",):
                return self._promote(asked)
        return refusals.NO_METHOD

    def _read(self, asked: Asked) -> PromotionBody:
        body = api_bodies.read(asked.body, PromotionBody)
        source = self._store.registry.find(body.source)
        organisation = source.settings.organisation if source is not None else ""
        if source is None or not _owns(asked.principal, body.source, organisation):
            raise NotPermitted("the source is not there, or not yours", code="tenant_not_permitted", field="source")
        if body.source == asked.tenant:
            raise MalformedRequest("source and target are one", code="promotion_invalid", field="source")
        if not (body.policies or body.references or body.resources):
            raise MalformedRequest("say what to promote", code="promotion_invalid", field="policies")
        return body

    def _promote(self, asked: Asked) -> Answer:
        body, target, now = self._read(asked), asked.tenant, asked.now
        seen = self._store.promotions.look(body.source, target)
        planned = self._plan(body, target, now)
        view = _view(body, target, planned, done=True)
        if not body.expected or not hmac.compare_digest(body.expected, view.digest):
            raise changed()
        changes = [("promotion", f"{body.source} to {target} sha256:{view.digest}")]
        carried = [one for one in planned if one.step.change != "same"]
        for one in carried:
            if isinstance(one.what, StoredPolicy):
                self._book.check(one.what.kind, one.what.id, one.what.text)
            changes.append((f"promotion.{one.step.kind}", f"{one.step.name[:200]} sha256:{one.digest}"))
        # Other workers compile a policy when they first ask it, a few milliseconds: nothing is announced beforehand.
        self._store.promotions.carry(seen, [one.what for one in carried], now, actor=asked.principal.name)
        return api_bodies.answer(view, *changes)

    def _plan(self, body: PromotionBody, target: str, now: datetime) -> list[_Planned]:
        found = [*(self._policies(body.source, target) if body.policies else ())]
        found += self._references(body, target, now) if body.references else ()
        found += self._resources(body, target)
        return found

    def _policies(self, source: str, target: str) -> Iterator[_Planned]:
        for kind in POLICY_KINDS:
            which: PolicyKind = kind  # type: ignore[assignment]  # the same names
            for policy in self._store.policies.list(source, which):
                before = self._store.policies.get(target, which, policy.id)
                yield _planned("policy", f"{kind}/{policy.id}", before.text if before else None, policy.text, policy)

    def _references(self, body: PromotionBody, target: str, now: datetime) -> Iterator[_Planned]:
        both = Tenants.read(self._store, body.source, target)
        for one in self._store.references.list(body.source):
            if one.state not in {"stable", "deprecated"} or (one.expires is not None and one.expires <= now):
                continue
            taken, before = both.taken(one, now, by_hand=body.as_set_by_hand), both.before(one.name)
            yield _planned("reference", one.name, _text(before) if before else None, _text(taken), taken)

    def _check_secrets(self, body: PromotionBody, target: str) -> None:
        """``Conflict`` if secrets may not go there: there, others decide to whom they are released."""
        source, to = self._store.registry.find(body.source), self._store.registry.find(target)
        if source is None or to is None:
            raise absent()
        first, second = (Environment(one.settings.environment or self._environment) for one in (source, to))
        if second.may_trust_development_roots and not first.may_trust_development_roots:
            raise Conflict(
                f"the secrets of {first.value} are not for {second.value}",
                code="environment_holds_secrets",
                field="resources",
                expected="policies and reference values",
                got=first.value,
                hint="set other secrets there",
            )
        if approvals.falls_under("resource.bind", source.settings.approvals):
            raise Conflict(
                "in the source several must agree to whom a secret is released, so it is not carried out of there",
                code="promotion_of_approved",
                field="resources",
                got=body.source,
                hint="set it in the target itself",
            )

    def _resources(self, body: PromotionBody, target: str) -> Iterator[_Planned]:
        if body.resources:
            self._check_secrets(body, target)
        for uri in body.resources:
            path = ResourcePath.parse(uri.removeprefix("kbs:///"))
            found = self._store.resources.get(body.source, path)
            if found is None:
                raise NotFound(f"there is no resource {path.uri}", code="resource_absent", field="resources")
            before = self._store.resources.get(target, path)
            if found.key is not None or (before is not None and before.key is not None):
                raise Conflict(
                    "keys are not carried from one tenant to another: each has its own",
                    code="promotion_of_key",
                    field="resources",
                    got=path.uri,
                    hint="make one there: adyton key generate",
                )
            same = before is not None and hmac.compare_digest(before.value, found.value)
            step = Step("resource", path.uri, "same" if same else "changed" if before else "new")
            version = found.info.version, before.info.version if before else 0  # no digest of a secret leaves
            yield _Planned(
                step, PromotedValue(path, found.value), hashlib.sha256(_ENCODER.encode([path.uri, version])).hexdigest()
            )


def _planned(kind: str, name: str, before: str | None, after: str, what: StoredPolicy | StoredReference) -> _Planned:
    change = "new" if before is None else "same" if before == after else "changed"
    lines = difflib.unified_diff((before or "").splitlines(), after.splitlines(), "target", "source", lineterm="")
    step = Step(kind, name, change, "" if change == "same" else "\n".join(lines))
    return _Planned(step, what, hashlib.sha256(after.encode()).hexdigest())


def _text(one: StoredReference) -> str:
    said = {"value": one.value, "expires": one.expires, "not_before": one.not_before, "state": one.state}
    if one.provider:
        said |= {"provider": one.provider, "proof": one.proof.hex()}
    return _ENCODER.encode(said).decode()


def _owns(who: Principal, tenant: str, organisation: str) -> bool:
    return who.role is Role.OWNER and who.covers(tenant, organisation)


def _view(body: PromotionBody, target: str, planned: list[_Planned], *, done: bool) -> PromotionView:
    said = [[one.step.kind, one.step.name, one.step.change, one.step.diff, one.digest] for one in planned]
    digest = hashlib.sha256(_ENCODER.encode([body.source, target, said])).hexdigest()
    return PromotionView(body.source, target, digest, [one.step for one in planned], done)
