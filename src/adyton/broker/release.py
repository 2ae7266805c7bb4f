"""The relying party's decision: whether this attester may have this resource now (contracts, 3).

Three conditions, all of them, and every reason why not is collected:

1. **Status.** Every submodule is *affirming*; or, in an environment that may trust development roots, its root is one
   that is configured, ``hardware`` is exactly 32, and everything else that the policy sets is below 32 with something
   affirmed among it. No policy can lift this.
2. **Binding.** The resource names the attester by document, image, signer or policy, or says that any accepted workload
   may have it. Document, image and signer count only if the tenant's reference values list what runs, the measurement and, where the
   TEE has them, the registers of what was booted: what says which document it runs must itself be known. No binding, no release.
   A binding may limit the operations: a key can be used without being released; and it may have an end.
3. **Resource policy**, where the tenant has set one (kbs-protocol 1.12). It narrows, it never widens.

A resource or its repository may demand that other attestation policies accept the evidence (``reappraisal``), and that
devices are there; then 1 to 3 are decided by those statuses.

Reasons are written ``code: text``; they go into the audit log, for the owner's eyes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache

import msgspec

from adyton.appraisal.explain import guest_accepted
from adyton.appraisal.rego_check import RESOURCE_DATA
from adyton.broker.holders import Holder
from adyton.broker.policy.concluding import Concluder
from adyton.broker.policy.policies import RESOURCE_RULES, PolicyBook, TenantView
from adyton.broker.policy.reappraisal import Reappraiser, appraised_by, used
from adyton.broker.policy.rego import Memory, RegoEngine
from adyton.config import Environment
from adyton.errors import AdytonError, Conflict, NotFound, OperatorError, ReleaseRefused, Unavailable
from adyton.protocol import key_record, keys, release, rules
from adyton.protocol.audit_row import PolicyUsed
from adyton.protocol.ear import Submodule, TokenClaims
from adyton.protocol.release import Binding, WorkloadIdentity
from adyton.protocol.release_rules import DEFAULT_ID
from adyton.protocol.resource import PluginPath, ResourcePath
from adyton.rats.result import DEVELOPMENT_HARDWARE, ELEMENTS, Tier
from adyton.rats.types import JsonValue, RootKind
from adyton.stores.policy_types import digest
from adyton.stores.resources import StoredResource
from adyton.tee.nvidia.verify import PROTECTED_PCIE

_HARDWARE = ELEMENTS.index("hardware")
_BUT_HARDWARE = (*ELEMENTS[:_HARDWARE], *ELEMENTS[_HARDWARE + 1 :])
_UNBOUND = "not_bound: no resource that anybody is bound to"
_CHANGED = "changed_meanwhile: policies, reference values or the resource changed during this decision; ask again"


_BY_LIKENESS = frozenset({"workload", "image", "any_workload_i_accept"})


class Permit(msgspec.Struct, frozen=True):
    """The decision to release, by which part of the binding, and the policies that had their say."""

    by: str
    policies: tuple[PolicyUsed, ...] = ()
    claims: TokenClaims | None = None


class _Asking(msgspec.Struct):
    """One decision under way."""

    view: TenantView
    claims: TokenClaims
    data: Mapping[str, JsonValue]
    policies: list[PolicyUsed]


class Releaser:
    """Decides for one environment. ``development_roots`` are fingerprints in hex, as the broker was started with."""

    def __init__(
        self,
        book: PolicyBook,
        engine: RegoEngine,
        *,
        environment: Environment,
        development_roots: frozenset[str] = frozenset(),
    ) -> None:
        if development_roots and not environment.may_trust_development_roots:
            raise ValueError("no development root may be trusted in this environment")
        self._book = book
        self._engine = engine
        self._reappraiser = Reappraiser(book, Concluder(engine))
        self._roots = development_roots
        # Of holders that are alike, no policy asked: functions of the view, of claims in common and a resource's version.
        self._granted = Memory[tuple[object, Permit]]()

    async def decide(  # noqa: PLR0917 -- who, what, which, when
        self,
        tenant: str,
        claims: TokenClaims | Holder,
        path: ResourcePath,
        resource: StoredResource | None,
        now: datetime,
        query: Mapping[str, str] | None = None,
        *,
        generation: int | None = None,
        operation: str = key_record.RELEASE,
        against: Sequence[str] = (),
    ) -> Permit:
        """The permit, or ``ReleaseRefused`` with every reason. ``resource`` ``None``: there is none at ``path``.

        ``generation`` is the tenant's if it was read together with the resource; else it is read here. ``operation`` is
        what is to be done with it, ``release`` or a key's operation; ``against`` are reasons that the caller has already. The
        claims of a holder are not read where others like it were permitted this.

        That it is absent (``NotFound``) is told to an attester whose status is accepted here and whom the tenant's
        resource policy, if there is one, allows the path. Anybody else is refused as for an unbound resource.
        """
        view = self._book.view(tenant, now, generation)
        key: tuple[object, ...] | None = None
        if isinstance(claims, Holder):
            plain = resource is not None and resource.info.key is None and resource.binding.until is None
            if claims.like is not None and resource is not None and plain and not against:
                key = (claims.like, path.repository, path.type, path.tag, resource.info.version, operation)
                known = self._granted.get(key)
                current = claims.generation == view.generation and claims.expires > now.timestamp()
                if current and known is not None and known[0] is view.mark:
                    return known[1]
            claims = claims.claims
        parts: list[JsonValue] = [path.repository, path.type, path.tag]
        plugin = "resource"
        if operation != key_record.RELEASE:  # as the path under /kbs/v0 has it (kbs-protocol 1.12)
            plugin, parts = keys.PLUGIN, [operation, *parts]
        data: dict[str, JsonValue] = {"plugin": plugin, "resource-path": parts, "query": dict(query or {})}
        asking = _Asking(view, claims, data, [])
        try:
            permit = await self._decide(asking, tenant, path, resource, now, operation, against)
        except ReleaseRefused as error:
            error.policies = (*appraised_by(asking.claims), *asking.policies)
            error.claims = asking.claims
            raise
        if permit.by in _BY_LIKENESS and not asking.policies and asking.claims is claims:
            self._granted.put(key, (view.mark, Permit(permit.by, permit.policies)))
        return permit

    async def decide_plugin(  # noqa: PLR0917 -- as ``decide``
        self,
        tenant: str,
        claims: TokenClaims,
        path: PluginPath,
        now: datetime,
        query: Mapping[str, str],
        generation: int,
        *,
        accept_any: bool,
    ) -> Permit:
        """The permit to use an external plug-in, or ``ReleaseRefused``: by the tenant's resource policy.

        ``accept_any``: where the tenant has none, every workload whose status is accepted may.
        """
        view = self._book.view(tenant, now, generation)
        data: dict[str, JsonValue] = {"plugin": path.plugin, "resource-path": [*path.parts], "query": dict(query)}
        asking = _Asking(view, claims, data, [])
        reasons = self.status_reasons(claims, view.environment)
        own = claims.raw.get("adyton")
        if isinstance(own, dict) and own.get("generation") != view.generation:
            reasons.append(_CHANGED)
        if claims.expires <= now.timestamp():
            reasons.append("token_expired: the attestation result has expired")
        if view.resource is not None:
            if not await self._allows(asking, view.resource.text, used(view.resource)):
                reasons.append("resource_policy: the tenant's resource policy does not allow it")
            if self._book.view(tenant, now) is not view:
                reasons.append(_CHANGED)
        elif not accept_any:
            reasons.append("plugin_not_allowed: no resource policy says who may use this plug-in")
        if reasons:
            refused = ReleaseRefused("the plug-in is not for this attester", reasons=tuple(reasons))
            refused.policies = (*appraised_by(claims), *asking.policies)
            refused.claims = claims
            raise refused
        by = "resource_policy" if view.resource is not None else "any_workload_i_accept"
        return Permit(by=by, policies=(*appraised_by(claims), *asking.policies), claims=claims)

    async def _decide(  # noqa: PLR0917 -- as ``decide``
        self,
        asking: _Asking,
        tenant: str,
        path: ResourcePath,
        resource: StoredResource | None,
        now: datetime,
        operation: str,
        against: Sequence[str],
    ) -> Permit:
        view, binding = asking.view, resource.binding if resource is not None else None
        own = asking.claims.raw.get("adyton")
        outdated = isinstance(own, dict) and own.get("generation") != view.generation  # changed since the caller looked
        reasons = [_CHANGED] if outdated else []
        demand = view.rules.demand(path.repository, *((binding.attestation, binding.devices) if binding else ()))
        if demand.attestation != DEFAULT_ID and not outdated:
            asking.claims = await self._again(view, asking.claims, demand.attestation)
        claims = asking.claims
        reasons = self.status_reasons(claims, view.environment) + _missing(claims, demand.devices) + reasons
        if claims.expires <= now.timestamp():
            reasons.append("token_expired: the attestation result has expired")
        reasons += against
        if resource is not None:
            reasons += _limits(resource, operation, now)
        asked = view.resource is not None or demand.attestation != DEFAULT_ID
        by = ""
        if binding is not None:
            asked = asked or binding.policy is not None or binding.policy_id is not None
            by, why_not = await self._bound(asking, binding)
            reasons += why_not
        if view.resource is not None and not await self._allows(asking, view.resource.text, used(view.resource)):
            reasons.append("resource_policy: the tenant's resource policy does not allow it")
        if asked and (self._book.view(tenant, now) is not view or self._book.changed(tenant, path, resource)):
            reasons.append(_CHANGED)
        if resource is None:
            if not reasons:
                raise NotFound("there is no such resource", code="resource_absent", field="resource", got=path.uri)
            reasons.append(_UNBOUND)
        if reasons or not by:
            raise ReleaseRefused(
                "the resource is not released to this attester",
                reasons=tuple(reasons),
                hint="the reasons are in the broker's audit log; what must match is in `adyton resource show`",
            )
        return Permit(by=by, policies=(*appraised_by(claims), *asking.policies), claims=claims)

    def status_reasons(self, claims: TokenClaims, environment: str = "") -> list[str]:
        """Why the attestation status is not accepted in a tenant's environment; empty if it is.

        An empty one is the broker's. None is looser than that: development roots are the broker's to trust.
        """
        roots = self._roots
        if roots and environment and not Environment(environment).may_trust_development_roots:
            roots = frozenset()
        return [reason for submodule in claims.submodules for reason in self._submodule_reasons(submodule, roots)]

    @staticmethod
    def _submodule_reasons(submodule: Submodule, roots: frozenset[str]) -> list[str]:
        if submodule.status is Tier.AFFIRMING and submodule.root is RootKind.VENDOR:
            return []
        reasons = []
        limit = DEVELOPMENT_HARDWARE
        names: tuple[str, ...] = ELEMENTS
        values = submodule.vector.values
        if submodule.root is RootKind.CUSTOM and submodule.root_fingerprint in roots:
            names, values = _BUT_HARDWARE, (*values[:_HARDWARE], *values[_HARDWARE + 1 :])
            if submodule.vector.values[_HARDWARE] != limit:
                reasons.append(_element(submodule, "hardware", f"exactly {limit} under a development root"))
        elif submodule.root is not RootKind.VENDOR:
            reasons.append(f"root_not_trusted: {submodule.name} leads to a root that is not trusted here")
        highest = max(values)
        if highest >= limit:
            bad = [name for name, value in zip(names, values, strict=True) if value >= limit]
            reasons += [_element(submodule, name, f"below {limit}") for name in bad]
        elif Tier.of(highest) is not Tier.AFFIRMING:  # the highest affirms, or none
            reasons.append(f"nothing_affirmed: the policy affirms nothing about {submodule.name}")
        return reasons

    async def _again(self, view: TenantView, claims: TokenClaims, policy_set: str) -> TokenClaims:
        try:
            return await self._reappraiser.appraise(view, claims, policy_set)
        except (OperatorError, Unavailable, ReleaseRefused):
            raise
        except AdytonError as error:
            raise _cannot(error, "the attestation policy that this resource demands cannot be asked") from error

    async def _bound(self, asking: _Asking, binding: Binding) -> tuple[str, list[str]]:
        """Which part of ``binding`` names the attester, or why none does."""
        if binding.any_workload_i_accept:
            return "any_workload_i_accept", []
        if binding.is_empty:
            return "", [_UNBOUND]
        view, primary = asking.view, asking.claims.primary
        reasons = []
        known = guest_accepted(primary.tee, primary.evidence, view.references)
        if binding.workloads or binding.images or binding.signers:
            if not known:
                reasons.append(
                    f"measurement_unknown: reference values do not list what runs, measured as {primary.measurement or 'nothing'}"
                )
            elif any(_names(entry, primary) for entry in binding.workloads):
                return "workload", []
            elif primary.image is not None and primary.image in binding.images:
                return "image", []
            elif binding.signers and not set(binding.signers).isdisjoint(primary.signers):
                return "signer", []
            elif binding.workloads:
                reasons.append(f"workload_not_bound: the resource is not bound to sha256:{primary.host_data.hex()}")
            if known and binding.images:
                reasons.append(f"image_not_bound: the resource is not bound to image {primary.image}")
            if known and binding.signers:
                reasons.append(_not_signed(primary))
        if binding.rules:
            matching = [rule for rule in binding.rules if rules.matches(rule, primary)]
            if any(known or not rule.believes_what_runs for rule in matching):
                return "rule", []
            reasons.append(
                "measurement_unknown: a rule matches, but reference values do not list what says so"
                if matching
                else "rule_not_matched: none of the resource's release rules matches"
            )
        if binding.policy is not None:
            own = PolicyUsed("binding", digest=digest(binding.policy))
            if await self._allows(asking, binding.policy, own):
                return "policy", []
            reasons.append("binding_policy: the resource's own policy does not allow it")
        if binding.policy_id is not None:
            named, version = release.policy_named(binding.policy_id)
            stored = self._book.policy(view, "resource", named, version or 0)
            if stored is None:
                reasons.append(f"binding_policy_absent: resource policy {binding.policy_id} is not in force")
            elif await self._allows(asking, stored.text, used(stored)):
                return "policy_id", []
            else:
                reasons.append(f"binding_policy: resource policy {binding.policy_id} does not allow it")
        return "", reasons

    async def _allows(self, asking: _Asking, text: str, by: PolicyUsed) -> bool:
        """``data.policy.allow`` is exactly ``true``; a policy that cannot be evaluated allows nothing."""
        view, data = asking.view, asking.data
        path, query = data["resource-path"], data["query"]
        key = (
            view.data_key,
            repr((data["plugin"], path)),
            repr(sorted(query.items())) if isinstance(query, dict) else "",
        )
        asking.policies.append(by)
        try:
            policy = self._book.accept(text, RESOURCE_DATA)
            read = asking.claims.raw
            results = await self._engine.evaluate_async(policy, RESOURCE_RULES, read, {**view.data, **data}, key)
        except (OperatorError, Unavailable):  # our trouble, not a verdict
            raise
        except AdytonError as error:
            raise _cannot(error, "the policy for this resource cannot be evaluated") from error
        return results["allow"] is True


def _not_signed(primary: Submodule) -> str:
    who = ", ".join(primary.signers)
    if not who:
        return "signer_absent: the attested document carries no signature"
    return f"signer_not_bound: the resource is not bound to who signed the document: {who}"


def _limits(resource: StoredResource, operation: str, now: datetime) -> list[str]:
    """Why this may not be done with it now, whoever asks: by its binding's limit or end, or by the key's own settings."""
    reasons = []
    if resource.binding.has_ended(now):
        reasons.append(f"binding_ended: what it is bound to ended at {resource.binding.until}")
    limit = resource.binding.operations
    if limit is not None and operation not in limit:
        reasons.append(f"operation_not_bound: the binding does not let anybody {operation}")
    if resource.key is not None:
        try:
            key_record.allowed(resource.key, operation)
        except Conflict as error:
            reasons.append(f"{error.code}: {error.message}")
    elif operation != key_record.RELEASE:
        reasons.append("not_a_key: what is there is no key that can be used")
    return reasons


def _cannot(error: AdytonError, why: str) -> ReleaseRefused:
    return ReleaseRefused(why, code=error.code, reasons=(f"{error.code}: {error.message}",), hint=error.hint)


def _missing(claims: TokenClaims, devices: Mapping[str, int]) -> list[str]:
    """Devices that are demanded and not there. Those that are there must be accepted as everything is.

    ``ppcie`` is there once if the devices are just the set that NVIDIA calls so (kbs-protocol 2.4, nvidia).
    """
    if not devices:
        return []
    there = Counter(submodule.tee_class for submodule in claims.submodules)
    if (there["gpu"], there["switch"]) == PROTECTED_PCIE and there.total() == sum(PROTECTED_PCIE) + there["cpu"]:
        there["ppcie"] = 1
    return [
        f"device_missing: {count} of class {name} are demanded, the evidence has {there[name]}"
        for name, count in sorted(devices.items())
        if there[name] < count
    ]


def _names(entry: str, primary: Submodule) -> bool:
    return _identity(entry).matches(primary.measurement, primary.host_data)


_identity = lru_cache(maxsize=1024)(WorkloadIdentity.parse)  # of an entry that parses, so of bounded length


def _element(submodule: Submodule, name: str, expected: str) -> str:
    value = submodule.vector[name]
    code = name.replace("-", "_")
    return f"{code}_not_accepted: {name} of {submodule.name} is {value} ({Tier.of(value).text}), must be {expected}"
