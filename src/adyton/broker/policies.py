"""A tenant's policies and reference values as one view per generation: read once, compiled once.

A policy is judged when it is set (``appraisal.rego_check``, then the engine itself) and again when it is first used, so
one that reached the store in another way is not believed. A view is never used beyond its generation, nor beyond the
first expiry of a reference value in it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from adyton.appraisal import policies as defaults
from adyton.appraisal import requirements
from adyton.appraisal.rego_check import ATTESTATION_DATA, RESOURCE_DATA, AcceptedPolicy, check
from adyton.appraisal.requirements import SnpRequirements
from adyton.broker.rego import Memory, RegoEngine
from adyton.errors import MalformedRequest, NotPermitted, PolicyInvalid
from adyton.protocol.resource import ResourcePath
from adyton.protocol.revoked import NOTHING, Revoked
from adyton.rats.types import JsonValue
from adyton.stores.policy_types import PolicyKind, StoredPolicy
from adyton.stores.references import Snapshot
from adyton.stores.resources import StoredResource
from adyton.stores.sqlite import Store

RESOURCE_POLICY = "resource-policy"
SNP_REQUIREMENTS = "snp"
ATTESTATION_RULES = ("trust_claims", "extensions")
RESOURCE_RULES = ("allow",)
MAX_ACCEPTED = 256
MAX_VIEWS = 1024
_SORTED = msgspec.json.Encoder(order="sorted")
_KINDS: tuple[PolicyKind, ...] = ("attestation", "resource", "requirements")
_USED = frozenset({*(f"{defaults.DEFAULT_ID}_{name}" for name in defaults.DEFAULTS), RESOURCE_POLICY, SNP_REQUIREMENTS})
_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}\Z")


@dataclass(frozen=True, slots=True)
class TenantView:
    """What decides for one tenant at one generation.

    Policies are texts by id; they are accepted when used. ``data_key`` stands for the content of ``data``: it is the digest of the reference values that hold, which changes
    with their generation and with each that expires. ``environment`` is the tenant's, empty for the broker's; ``made`` is
    false for a tenant that exists by use alone.
    """

    generation: int
    references: Snapshot
    attestation: Mapping[str, str]
    resource: str | None
    snp: SnpRequirements
    data: Mapping[str, JsonValue]
    data_key: str
    revoked: Revoked = NOTHING
    environment: str = ""
    made: bool = True

    def holds(self, generation: int, now: datetime) -> bool:
        """Whether it may still be used: nothing changed, nothing expired."""
        expires = self.references.expires_next
        return self.generation == generation and (expires is None or now < expires)


class PolicyBook:
    """Sets policies after judging them, and gives the view that holds now."""

    def __init__(self, store: Store, engine: RegoEngine) -> None:
        self._store = store
        self._engine = engine
        self._views = Memory[TenantView](MAX_VIEWS)
        self._accepted = Memory[AcceptedPolicy](MAX_ACCEPTED)  # of this thread and the administration's

    def set(self, tenant: str, kind: PolicyKind, policy_id: str, text: str, now: datetime) -> StoredPolicy:
        """Set a policy if it may be evaluated and compiles; else ``PolicyInvalid``, and the old one stays.

        Of kind ``attestation``, ``default_<class>`` (``default_cpu``) is the one that appraises; others are kept only.
        Of kind ``resource``, ``resource-policy`` is asked for every release. Of kind ``requirements``, ``snp`` is what
        SEV-SNP evidence must satisfy before any policy is asked.
        """
        if not _ID.match(policy_id):
            raise MalformedRequest(
                "a policy's id has letters, digits, '_', '-' and inner '.'", code="policy_id_invalid", field="policy_id"
            )
        if kind == "requirements" and policy_id != SNP_REQUIREMENTS:
            raise MalformedRequest(
                "requirements exist for SEV-SNP only",
                code="policy_id_invalid",
                field="policy_id",
                expected=SNP_REQUIREMENTS,
                got=policy_id,
            )
        self._judge(kind, text)
        return self._store.policies.set(tenant, kind, policy_id, text, now)

    def _judge(self, kind: PolicyKind, text: str) -> None:
        if kind == "requirements":
            requirements.parse(text)
        elif kind == "resource":
            self._engine.compile(self.accept(text, RESOURCE_DATA), RESOURCE_RULES)
        else:
            self._engine.compile(self.accept(text, ATTESTATION_DATA), ATTESTATION_RULES)

    def broken(self) -> list[PolicyInvalid]:
        """Which tenants' policies no longer compile, each named: another version of Adyton or its engine took them.

        Compiles the built-in ones too; that those or the engine itself fail is raised.
        """
        for text in defaults.DEFAULTS.values():
            self._judge("attestation", text)
        found = []
        for tenant in self._store.tenants():
            policies = (policy for kind in _KINDS for policy in self._store.policies.list(tenant, kind))
            for policy in policies:
                if policy.id not in _USED:
                    continue
                try:
                    self._judge(policy.kind, policy.text)
                except PolicyInvalid as error:
                    found.append(_broken(tenant, policy, error))
        return found

    def check_binding_policy(self, text: str) -> None:
        """``PolicyInvalid`` unless ``text`` may be a binding's policy."""
        self._engine.compile(self.accept(text, RESOURCE_DATA), RESOURCE_RULES)

    def accept(self, text: str, data: frozenset[str]) -> AcceptedPolicy:
        """``check``, remembered by text."""
        known = self._accepted.get((text, data))
        if known is None:
            known = check(text, data)
            self._accepted.put((text, data), known)
        return known

    def view(self, tenant: str, now: datetime, generation: int | None = None) -> TenantView:
        """What holds now. Reads the tenant's generation, and the rest only if that or an expiry says so.

        ``generation``: as it was read for this very decision, together with what is decided about.
        """
        if generation is None:
            generation = self._store.generation(tenant)
        known = self._views.get(tenant)
        # A tenant that nothing was set for has no generation that grows: it may have been revoked or deleted since.
        same = generation or (known is not None and known.revoked == self._store.revoked.current(tenant))
        if known is not None and same and known.holds(generation, now) and (known.made or generation):
            return known
        found = self._store.registry.find(tenant)
        if found is None:
            raise NotPermitted("there is no such tenant", code="tenant_absent", field="tenant")
        if known is not None and same and known.holds(generation, now):
            return known
        # Read after the generation: what is newer than it is read again at the next decision, never the other way round.
        references = self._store.references.snapshot(tenant, now)
        texts = {f"{defaults.DEFAULT_ID}_{name}": text for name, text in defaults.DEFAULTS.items()}
        texts.update((policy.id, policy.text) for policy in self._store.policies.list(tenant, "attestation"))
        resource = self._store.policies.get(tenant, "resource", RESOURCE_POLICY)
        snp = self._store.policies.get(tenant, "requirements", SNP_REQUIREMENTS)
        view = TenantView(
            generation=generation,
            references=references,
            attestation=texts,
            resource=resource.text if resource else None,
            snp=requirements.parse(snp.text) if snp else requirements.DEFAULT,
            data={"reference": dict(references.values)},
            data_key=hashlib.sha256(_SORTED.encode(references.values)).hexdigest(),
            revoked=self._store.revoked.current(tenant),
            environment=found.settings.environment,
            made=found.made,
        )
        self._views.put(tenant, view)
        return view

    def changed(self, tenant: str, path: ResourcePath, resource: StoredResource | None) -> bool:
        """Whether the resource is no longer the one that was read: set, bound or deleted since."""
        known = resource.info.version if resource is not None else None
        return self._store.resources.version(tenant, path) != known

    def attestation(self, view: TenantView, tee_class: str) -> AcceptedPolicy:
        """The policy for evidence of this class; ``PolicyInvalid`` where neither tenant nor Adyton has one."""
        text = view.attestation.get(f"{defaults.DEFAULT_ID}_{tee_class}")
        if text is None:
            raise PolicyInvalid(
                f"there is no attestation policy for evidence of class {tee_class}",
                code="policy_absent",
                field=f"{defaults.DEFAULT_ID}_{tee_class}",
                hint=f"set one: adyton policy set attestation FILE --id {defaults.DEFAULT_ID}_{tee_class}",
            )
        return self.accept(text, ATTESTATION_DATA)


def _broken(tenant: str, policy: StoredPolicy, error: PolicyInvalid) -> PolicyInvalid:
    return PolicyInvalid(
        f"a stored policy can no longer be used: {error.message}",
        code="policy_stored_invalid",
        field=f"{policy.kind} policy {policy.id} of tenant {tenant}",
        got=error.code,
        hint="start with --keep-broken-policies (that tenant gets nothing) and set or delete it, or run the version of "
        "Adyton that took it",
    )
