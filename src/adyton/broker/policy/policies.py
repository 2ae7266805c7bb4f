"""A tenant's policies and reference values as one view per generation: read once, compiled once.

A policy is judged when it is set (``appraisal.rego_check``, then the engine itself) and again when it is first used, so
one that reached the store in another way is not believed. A view is never used beyond its generation, nor beyond the
first expiry of a reference value in it. It reads a policy when it is first asked for, so ten thousand of them cost nothing.

Setting a policy makes a version; activating that makes it decide. The engine has compiled it before the activation is
acknowledged, in every worker: each looks for what is announced (``Rehearsal``).
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from adyton.appraisal import policies as defaults
from adyton.appraisal import requirements
from adyton.appraisal.rego_check import ATTESTATION_DATA, RESOURCE_DATA, AcceptedPolicy, check
from adyton.appraisal.requirements import SnpRequirements
from adyton.broker.door.rates import Rate, parse_all
from adyton.broker.policy.rego import Memory, RegoEngine
from adyton.errors import AdytonError, MalformedRequest, NotFound, NotPermitted, PolicyInvalid
from adyton.protocol import recording, release, release_rules
from adyton.protocol.recording import RecordRules
from adyton.protocol.release import Binding
from adyton.protocol.release_rules import ReleaseRules
from adyton.protocol.resource import ResourcePath
from adyton.protocol.revoked import NOTHING, Revoked
from adyton.rats.types import JsonValue
from adyton.stores.policy_types import PolicyKind, PolicyVersion, StoredPolicy, digest
from adyton.stores.references import Snapshot
from adyton.stores.resources import StoredResource
from adyton.stores.sqlite import Store

RESOURCE_POLICY = "resource-policy"
SNP_REQUIREMENTS, RELEASE_RULES, RECORD_RULES = "snp", "release", "record"
ATTESTATION_RULES = ("trust_claims", "extensions")
RESOURCE_RULES = ("allow",)
MAX_ACCEPTED = 4096
RATES_SECONDS = 1.0
MAX_VIEWS = 1024
MAX_VERSIONS_KNOWN = 64
STAGE_SECONDS = 0.3
_SORTED = msgspec.json.Encoder(order="sorted")
_KINDS: tuple[PolicyKind, ...] = ("attestation", "resource", "requirements")
_REQUIREMENTS = (SNP_REQUIREMENTS, RELEASE_RULES, RECORD_RULES)
_USED = frozenset({*(f"{defaults.DEFAULT_ID}_{name}" for name in defaults.DEFAULTS), RESOURCE_POLICY, *_REQUIREMENTS})
_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}\Z")
_BUILT_IN: Mapping[str, StoredPolicy] = {
    f"{defaults.DEFAULT_ID}_{name}": StoredPolicy(
        "attestation", f"{defaults.DEFAULT_ID}_{name}", text, digest(text), 0, datetime.fromtimestamp(0, UTC)
    )
    for name, text in defaults.DEFAULTS.items()
}
_Key = tuple[PolicyKind, str, int]


@dataclass(frozen=True, slots=True)
class TenantView:
    """What decides for one tenant at one generation.

    ``policies`` are those that were asked for so far, by kind, id and version (0: the one in force). ``data_key`` stands
    for the content of ``data``: it is the digest of the reference values that hold, which changes with their generation
    and with each that expires. ``environment`` is the tenant's, empty for the broker's; ``made`` is false for a tenant
    that exists by use alone. ``rates`` are its own limits of requests, by class. ``mark`` is this very view's: whoever
    remembers what was decided by a view keeps that, and not all reference values that there ever were.
    """

    tenant: str
    generation: int
    references: Snapshot
    snp: SnpRequirements
    rules: ReleaseRules
    record: RecordRules
    resource: StoredPolicy | None
    data: Mapping[str, JsonValue]
    data_key: str
    revoked: Revoked = NOTHING
    environment: str = ""
    made: bool = True
    rates: Mapping[str, Rate] = field(default_factory=dict)
    policies: dict[_Key, StoredPolicy | None] = field(default_factory=dict)
    mark: object = field(default_factory=object, compare=False)

    def holds(self, generation: int, now: datetime) -> bool:
        """Whether it may still be used: nothing changed, nothing expired."""
        expires = self.references.expires_next
        return self.generation == generation and (expires is None or now < expires)


class PolicyBook:
    """Sets and activates policies after judging them, and gives the view that holds now.

    ``others``: further workers decide by the same store, and are given time to compile what is about to be activated.
    """

    def __init__(self, store: Store, engine: RegoEngine, *, others: bool = False) -> None:
        self._store = store
        self._engine = engine
        self._others = others
        self._views = Memory[TenantView](MAX_VIEWS)
        self._rates = Memory[tuple[float, Mapping[str, Rate]]](MAX_VIEWS)
        self._versions = Memory[PolicyVersion](MAX_VERSIONS_KNOWN)
        self._accepted = Memory[AcceptedPolicy](MAX_ACCEPTED)  # of this thread and the administration's

    def set(
        self,
        tenant: str,
        kind: PolicyKind,
        policy_id: str,
        text: str,
        now: datetime,
        *,
        actor: str = "",
        note: str = "",
        activate: bool = True,
        kept: Callable[[StoredPolicy], None] = lambda _: None,
    ) -> StoredPolicy:
        """Keep a policy as a new version if it may be evaluated and compiles, else ``PolicyInvalid``; and activate it.

        Of kind ``attestation``, ``default_<class>`` (``default_cpu``) is the one that appraises, and others where a
        release demands them. Of kind ``resource``, ``resource-policy`` is asked for every release, others where a binding
        names them. Of kind ``requirements``, ``snp`` is what SEV-SNP evidence must satisfy before any policy is asked,
        ``release`` what releases demand, ``record`` what is kept for trying policies on it.

        Where it is announced first, it is kept before, as a candidate, and ``kept`` is told.
        """
        self._check_id(kind, policy_id)
        self._judge(kind, policy_id, text)
        if not activate or not self._others:
            return self._store.policies.set(
                tenant, kind, policy_id, text, now, actor=actor, note=note, activate=activate
            )
        stored = self._store.policies.set(tenant, kind, policy_id, text, now, actor=actor, note=note, activate=False)
        kept(stored)
        with self._announced(tenant, kind, policy_id, stored.version, now):
            return self._store.policies.activate(tenant, kind, policy_id, stored.version, now, actor=actor)

    def activate(
        self, tenant: str, kind: PolicyKind, policy_id: str, version: int, now: datetime, *, actor: str = ""
    ) -> StoredPolicy:
        """Let a version decide from now on; ``NotFound``, or ``PolicyInvalid`` if it can no longer be evaluated."""
        self._judge(kind, policy_id, self._store.policies.version(tenant, kind, policy_id, version).text)
        with self._announced(tenant, kind, policy_id, version, now):
            return self._store.policies.activate(tenant, kind, policy_id, version, now, actor=actor)

    def rollback(
        self, tenant: str, kind: PolicyKind, policy_id: str, now: datetime, *, actor: str = ""
    ) -> StoredPolicy:
        """Let the version decide that did before; ``NotFound`` if there is none."""
        version = self._store.policies.before(tenant, kind, policy_id)
        self._judge(kind, policy_id, self._store.policies.version(tenant, kind, policy_id, version).text)
        with self._announced(tenant, kind, policy_id, version, now):
            return self._store.policies.rollback(tenant, kind, policy_id, now, actor=actor, expected=version)

    @contextmanager
    def _announced(self, tenant: str, kind: PolicyKind, policy_id: str, version: int, now: datetime) -> Iterator[None]:
        if not self._others or kind == "requirements":
            yield
            return

        def withdraw() -> None:
            with suppress(AdytonError):  # it is found out of date and passed over
                self._store.staged.withdraw(tenant, kind, policy_id)

        self._store.staged.announce(tenant, kind, policy_id, version, now)
        try:
            time.sleep(STAGE_SECONDS)  # the administration's thread; nobody else waits
            yield
        finally:
            self._store.afterwards(withdraw, withdraw)

    def check(self, kind: PolicyKind, policy_id: str, text: str) -> None:
        """``PolicyInvalid`` or ``MalformedRequest`` unless ``set`` would take it."""
        self._check_id(kind, policy_id)
        self._judge(kind, policy_id, text)

    def _check_id(self, kind: PolicyKind, policy_id: str) -> None:
        if not _ID.match(policy_id):
            raise MalformedRequest(
                "a policy's id has letters, digits, '_', '-' and inner '.'", code="policy_id_invalid", field="policy_id"
            )
        if kind == "requirements" and policy_id not in _REQUIREMENTS:
            raise MalformedRequest(
                "there are no such requirements",
                code="policy_id_invalid",
                field="policy_id",
                expected=list(_REQUIREMENTS),
                got=policy_id,
            )

    def _judge(self, kind: PolicyKind, policy_id: str, text: str) -> None:
        if kind == "requirements":
            {SNP_REQUIREMENTS: requirements.parse, RELEASE_RULES: release_rules.parse, RECORD_RULES: recording.parse}[
                policy_id
            ](text)
        else:
            self._engine.compile(*self.question(kind, text))

    def question(self, kind: PolicyKind, text: str) -> tuple[AcceptedPolicy, tuple[str, ...]]:
        """A policy of this kind, accepted, and the rules that are asked of it; ``PolicyInvalid``."""
        if kind == "resource":
            return self.accept(text, RESOURCE_DATA), RESOURCE_RULES
        return self.accept(text, ATTESTATION_DATA), ATTESTATION_RULES

    def stored_version(self, tenant: str, kind: PolicyKind, policy_id: str, version: int) -> PolicyVersion:
        """A version that was set, in force or not; remembered, since a version never changes."""
        key = (tenant, kind, policy_id, version)
        known = self._versions.get(key)
        if known is None:
            known = self._store.policies.version(tenant, kind, policy_id, version)
            self._versions.put(key, known)
        return known

    def rehearse(self, tenant: str, kind: PolicyKind, policy_id: str, version: int) -> None:
        """Compile what another worker is about to activate."""
        self._judge(kind, policy_id, self._store.policies.version(tenant, kind, policy_id, version).text)

    def broken(self) -> list[PolicyInvalid]:
        """Which tenants' policies no longer compile, each named: another version of Adyton or its engine took them.

        Compiles the built-in ones too; that those or the engine itself fail is raised. What only single resources name is
        found out when they are asked for.
        """
        for name, built_in in _BUILT_IN.items():
            self._judge("attestation", name, built_in.text)
        found = []
        for tenant in self._store.tenants():
            used = [(kind, name) for kind in _KINDS for name in sorted(_USED)]
            rules = self._store.policies.get(tenant, "requirements", RELEASE_RULES)
            with suppress(PolicyInvalid):
                for named in sorted(release_rules.parse(rules.text).policy_sets) if rules else ():
                    used += [("attestation", f"{named}_{name}") for name in defaults.DEFAULTS]
            for kind, name in used:
                policy = self._store.policies.get(tenant, kind, name)
                if policy is None or (kind == "requirements" and name not in _REQUIREMENTS):
                    continue
                try:
                    self._judge(kind, name, policy.text)
                except PolicyInvalid as error:
                    found.append(_broken(tenant, policy, error))
        return found

    def check_binding(self, tenant: str, binding: Binding) -> None:
        """``PolicyInvalid`` or ``NotFound`` unless what a binding names can be asked. A version named is kept."""
        if binding.policy is not None:
            self._engine.compile(self.accept(binding.policy, RESOURCE_DATA), RESOURCE_RULES)
        if binding.policy_id is not None:
            name, version = release.policy_named(binding.policy_id)
            if self._store.policies.get(tenant, "resource", name) is None:
                raise _absent("resource", name)
            if version is not None:
                self._store.policies.pin(tenant, "resource", name, version)
        if binding.attestation not in {None, defaults.DEFAULT_ID}:
            name = f"{binding.attestation}_cpu"
            if self._store.policies.get(tenant, "attestation", name) is None:
                raise _absent("attestation", name)

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
        if known is not None and known.references.values == references.values:
            data, data_key = known.data, known.data_key
        else:
            data = {"reference": dict(references.values)}
            data_key = hashlib.sha256(_SORTED.encode(references.values)).hexdigest()
        snp, rules, record = (self._store.policies.get(tenant, "requirements", name) for name in _REQUIREMENTS)
        view = TenantView(
            tenant=tenant,
            generation=generation,
            references=references,
            snp=requirements.parse(snp.text) if snp else requirements.DEFAULT,
            rules=release_rules.parse(rules.text) if rules else release_rules.NONE,
            record=recording.parse(record.text) if record else recording.OFF,
            resource=self._store.policies.get(tenant, "resource", RESOURCE_POLICY),
            data=data,
            data_key=data_key,
            revoked=self._store.revoked.current(tenant),
            environment=found.settings.environment,
            made=found.made,
            rates=parse_all(found.settings.rates),
        )
        self._views.put(tenant, view)
        return view

    def rates(self, tenant: str, now: float) -> Mapping[str, Rate]:
        """The tenant's own rates as its view carries them, at most ``RATES_SECONDS`` old; ``now`` only ever grows."""
        known = self._rates.get(tenant)
        if known is not None and now < known[0] + RATES_SECONDS:
            return known[1]
        found: Mapping[str, Rate] = known[1] if known is not None else {}
        with suppress(AdytonError):  # then what was known holds; the request itself will be told
            if self._views.get(tenant) is not None or self._store.generation(tenant):
                found = self.view(tenant, datetime.fromtimestamp(time.time(), UTC)).rates
        self._rates.put(tenant, (now, found))
        return found

    def changed(self, tenant: str, path: ResourcePath, resource: StoredResource | None) -> bool:
        """Whether the resource is no longer the one that was read: set, bound or deleted since."""
        known = resource.info.version if resource is not None else None
        return self._store.resources.version(tenant, path) != known

    def policy(self, view: TenantView, kind: PolicyKind, policy_id: str, version: int = 0) -> StoredPolicy | None:
        """The policy in force under this id, or this version of it; ``None`` if none is in force, or no such version."""
        key = (kind, policy_id, version)
        if key in view.policies:
            return view.policies[key]
        found = self._store.policies.get(view.tenant, kind, policy_id)
        if found is None:
            found = _BUILT_IN.get(policy_id) if kind == "attestation" and not version else None
        elif version and found.version != version:
            try:
                older = self._store.policies.version(view.tenant, kind, policy_id, version)
                found = StoredPolicy(kind, policy_id, older.text, older.digest, version, older.created)
            except NotFound:
                found = None
        view.policies[key] = found
        return found

    def attestation(self, view: TenantView, tee_class: str, policy_set: str = defaults.DEFAULT_ID) -> StoredPolicy:
        """The policy for evidence of this class; ``PolicyInvalid`` where neither tenant nor Adyton has one."""
        found = self.policy(view, "attestation", f"{policy_set}_{tee_class}")
        if found is None:
            raise PolicyInvalid(
                f"there is no attestation policy for evidence of class {tee_class}",
                code="policy_absent",
                field=f"{policy_set}_{tee_class}",
                hint=f"set one: adyton policy set attestation FILE --id {policy_set}_{tee_class}",
            )
        return found


def _absent(kind: str, name: str) -> NotFound:
    return NotFound(
        f"no {kind} policy {name!r} is in force",
        code="policy_absent",
        field="policy_id",
        got=name,
        hint=f"set it first: adyton policy set {kind} FILE --id {name}",
    )


def _broken(tenant: str, policy: StoredPolicy, error: PolicyInvalid) -> PolicyInvalid:
    return PolicyInvalid(
        f"a stored policy can no longer be used: {error.message}",
        code="policy_stored_invalid",
        field=f"{policy.kind} policy {policy.id} of tenant {tenant}",
        got=error.code,
        hint="start with --keep-broken-policies (that tenant gets nothing) and set or delete it, or run the version of "
        "Adyton that took it",
    )
