"""A reference value of one tenant as another one takes it over: with its provider and proof, or as set by hand.

With them only if the target knows that provider by the same keys, and would have admitted the document itself: whose
names are whose, how long it holds, that it is not older than what the provider published there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from adyton import provenance
from adyton.broker.reference_api import admitted, held, known_provider, standing_of
from adyton.errors import Conflict
from adyton.provenance import Provider, State, Stated, Statement
from adyton.stores.references import StoredReference
from adyton.stores.sqlite import Store


@dataclass(frozen=True, slots=True)
class Tenants:
    """Both tenants' providers, and what stands in the target, by name."""

    store: Store
    target: str
    theirs: Mapping[str, Provider]
    ours: Mapping[str, Provider]
    standing: Mapping[str, Sequence[StoredReference]]

    @classmethod
    def read(cls, store: Store, source: str, target: str) -> Tenants:
        """As they are now."""
        standing: dict[str, list[StoredReference]] = {}
        for one in store.references.list(target):
            standing.setdefault(one.name, []).append(one)
        theirs, ours = (
            {entry.name: known_provider(entry) for entry in store.providers.list(name)} for name in (source, target)
        )
        return cls(store, target, theirs, ours, standing)

    def before(self, name: str) -> StoredReference | None:
        """What is in force in the target."""
        return next((one for one in self.standing.get(name, ()) if not one.candidate), None)

    def taken(self, one: StoredReference, now: datetime, *, by_hand: bool) -> StoredReference:
        """``one`` as the target takes it; ``Conflict`` or ``DocumentInvalid`` if it does not."""
        if not one.provider:
            return one
        if by_hand:
            return StoredReference(one.name, one.value, 0, now, one.expires, one.not_before, one.state)
        who, there = self.ours.get(one.provider), self.theirs.get(one.provider)
        if who is None or there is None or _keys(who) != _keys(there) or not held(who, one):
            raise Conflict(
                f"the target does not know the provider of {one.name[:80]!r} by the same keys",
                code="promotion_provider",
                field="references",
                expected=f"the provider {one.provider} with the source's keys, for this name and kind of document",
                got="none" if who is None else "another entry",
                hint="set the provider there too (adyton reference provider set), or promote with --as-set-by-hand",
            )
        before = self.before(one.name)
        if before is not None and (before.provider, before.proof, before.state) == (one.provider, one.proof, one.state):
            return (
                one
                if _same_validity(before, one)
                else replace(one, not_before=before.not_before, expires=before.expires)
            )
        statement = Statement(
            kind=one.kind,
            values={one.name: Stated(one.value, one.series, one.issue, exact=False)},
            proof=one.proof,
            signers=frozenset(one.signers),
            issued=one.issued,
            not_before=one.not_before,
            not_after=one.expires,
            state=State(one.state),
        )
        published = self.store.references.published(self.target, who.name, one.name)
        standing = standing_of({one.name: [*self.standing.get(one.name, ())]}, {one.name: published})
        (found,) = provenance.admit(statement, who, others=self.ours.values(), standing=standing, now=now)
        return admitted(found, now)


def _same_validity(one: StoredReference, other: StoredReference) -> bool:
    return (one.not_before, one.expires) == (other.not_before, other.expires)


def _keys(who: Provider) -> tuple[frozenset[str], int]:
    return frozenset(key.id for key in who.keys), who.threshold
