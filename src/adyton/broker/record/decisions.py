"""A decision, explained to its owner: what was wrong, who says so, how to cure it, and how it stands today.

Everything that was found at the time is in the row. What has changed since is compared here and never decided upon.
"""

from __future__ import annotations

from datetime import datetime
from typing import cast

from adyton.appraisal import cures, explain
from adyton.appraisal.cures import Context
from adyton.appraisal.policies import DEFAULT_ID, DEFAULTS
from adyton.broker.policy.policies import PolicyBook, TenantView
from adyton.broker.record.checkpoints import Checkpoints
from adyton.errors import AdytonError, NotFound
from adyton.protocol import audit_row
from adyton.protocol.admin import Decision, Explained, Explanation
from adyton.protocol.audit_row import AuditEntry, Finding
from adyton.rats.types import JsonValue
from adyton.stores.sqlite import Store

NEARBY = 2000
MAX_OTHERS = 20
_COMPARED = frozenset({"reference_missing", "reference_differs", "measurement_unknown"})


class Decisions:
    """Looks decisions up by number or by the name that strangers have."""

    def __init__(self, store: Store, book: PolicyBook, checkpoints: Checkpoints) -> None:
        self._store = store
        self._book = book
        self._checkpoints = checkpoints

    def named(self, entry: AuditEntry) -> Decision:
        """With its name."""
        return Decision(
            tenant=entry.tenant,
            sequence=entry.sequence,
            time=entry.time,
            previous=entry.previous,
            row=entry.row,
            version=entry.version,
            id=self._checkpoints.decision(entry.tenant, entry.sequence),
        )

    def sequence(self, tenant: str, name: str) -> int:
        """The number of the decision with this name, or with this number as text; ``NotFound``."""
        if name.isascii() and name.isdigit() and len(name) <= 15:
            return int(name)
        found = self._checkpoints.sequence(tenant, name)
        if found is None:
            raise NotFound(
                "there is no such decision of this tenant",
                code="decision_absent",
                field="id",
                got=name[:40],
                hint="an id has 26 characters and belongs to one tenant of one broker; adyton audit list has them all",
            )
        return found

    def explain(self, tenant: str, name: str, now: datetime) -> Explanation:
        """The decision and all that bore on it; ``NotFound``."""
        entry = audit_row.decode(self._store.audit.body(tenant, self.sequence(tenant, name)))
        row = entry.row
        context = Context(row.tee, row.measurement, row.host_data, row.resource)
        view = self._view(tenant, now)
        changed: bool | None = None
        if row.reference_generation is not None and view is not None:
            changed = view.references.generation != row.reference_generation
        return Explanation(
            decision=self.named(entry),
            findings=tuple([self._explained(tenant, finding, context, view, now) for finding in _all(entry)]),
            policy_changed=self._policy_changed(entry, view),
            references_changed=changed,
            others=self._others(entry),
        )

    def _view(self, tenant: str, now: datetime) -> TenantView | None:
        try:
            return self._book.view(tenant, now)
        except AdytonError:  # what is set now cannot be read: the decision can be explained all the same
            return None

    def _explained(
        self, tenant: str, finding: Finding, context: Context, view: TenantView | None, now: datetime
    ) -> Explained:
        code, name = finding.code, finding.reference
        expected, got = cast("JsonValue", finding.expected), cast("JsonValue", finding.got)
        if code == "measurement_unknown" and context.tee in explain.MEASUREMENT_REFERENCE:
            name, got = explain.MEASUREMENT_REFERENCE[context.tee], context.measurement
        holds = None
        if name and view is not None and code in _COMPARED:
            # A cure adds to what is accepted today: what was accepted then may have been withdrawn for good reason.
            expected = view.references.get(name)
            holds = explain.contains(expected, got) if isinstance(expected, list) else explain.same(expected, got)
            code = "reference_differs"
        advice = cures.advise(code, finding.claim, name, expected, got, context, finding.hint)
        provider = (self._provider(tenant, name, now) if name else "") or advice.provider
        return Explained(finding, provider, advice.actor, advice.cure, holds)

    def _provider(self, tenant: str, name: str, now: datetime) -> str:
        """Who stands behind a reference value today, and whether it counts."""
        stored = self._store.references.get(tenant, name)
        if stored is None:
            return ""
        since = f"version {stored.version} of {stored.updated.date().isoformat()}"
        state = "" if stored.counts(now) else f", which does not count ({stored.state}, or not valid now)"
        return f"reference value {name}, {since}, {_by(stored.provider)}{state}"

    def _policy_changed(self, entry: AuditEntry, view: TenantView | None) -> bool | None:
        """Whether no attestation policy of now is the one that appraised; ``None`` where none did."""
        row = entry.row
        if not row.policy_digest or view is None:
            return None
        named = [one.id for one in row.policies if one.kind == "attestation" and one.digest == row.policy_digest]
        ids = named or [f"{DEFAULT_ID}_{name}" for name in DEFAULTS]  # rows from before they named their policies
        found = [self._book.policy(view, "attestation", one) for one in ids]
        return row.policy_digest not in {one.digest for one in found if one is not None}

    def _others(self, entry: AuditEntry) -> tuple[Decision, ...]:
        """Rows near it of the same attester's session: what it had attested before it was refused."""
        mark = entry.row.request_id.encode()
        if not mark:
            return ()
        after = max(entry.sequence - NEARBY, 0)
        near = [body for body in self._store.audit.bodies(entry.tenant, after, 2 * NEARBY) if mark in body]
        found = [other for other in map(audit_row.decode, near) if other.row.request_id == entry.row.request_id]
        found = [other for other in found if other.sequence != entry.sequence]
        found.sort(key=lambda other: abs(other.sequence - entry.sequence))
        return tuple(sorted([self.named(other) for other in found[:MAX_OTHERS]], key=lambda other: other.sequence))


def _by(provider: str) -> str:
    return f"published by {provider}" if provider else "set by hand"


def _all(entry: AuditEntry) -> tuple[Finding, ...]:
    """The findings of a row; of a refusal or complaint from before rows had them, what its reasons say."""
    row = entry.row
    if row.findings or (row.decision == "allowed" and row.action != "attest"):
        return row.findings
    pairs = [reason.partition(": ") for reason in row.reasons]
    return tuple([Finding(code=code, text=text) for code, _, text in pairs])
