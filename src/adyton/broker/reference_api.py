"""The owner's requests about reference values: set by hand, published by providers, revoked (``protocol.providers``).

A publication is verified first and admitted inside the transaction that stores it, against the providers and values that
stand at that moment. It is all or nothing, and in force for every worker when it is acknowledged, as a revocation is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import cast
from urllib.parse import unquote

import msgspec

from adyton import provenance
from adyton.broker.door import api_bodies, refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.asked import Asked, parse_time
from adyton.broker.policy.rego_values import prepare
from adyton.errors import Conflict, DocumentInvalid, MalformedRequest, NotFound, TooLarge
from adyton.protocol.admin import ReferenceBody, ReferenceView
from adyton.protocol.providers import (
    STATES,
    UNSIGNED,
    ProviderSettings,
    ProviderView,
    PublicationView,
    PublishBody,
    RevocationBody,
)
from adyton.provenance import Provider, State
from adyton.rats.types import JsonValue
from adyton.stores.providers import StoredProvider
from adyton.stores.references import Published, StoredReference
from adyton.stores.sql import Transaction
from adyton.stores.sqlite import Store

MAX_REASON = 300
AREAS = frozenset({"references", "providers", "publications", "revocations"})


class ReferenceApi:
    """Our API's part below ``AREAS``, for one worker."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def handle(self, asked: Asked, parts: tuple[str, ...]) -> Answer:
        """The answer; errors of the tree leave as they are."""
        tenant, now = asked.tenant, asked.now
        match (asked.method, *parts):
            case ("GET", "references"):
                return api_bodies.answer([_view(one, now) for one in self._store.references.list(tenant)])
            case (_, "references", name):
                return self._one(asked, unquote(name))
            case ("GET", "providers"):
                return api_bodies.answer([_provider_view(one) for one in self._store.providers.list(tenant)])
            case (_, "providers", name):
                return self._provider(asked, unquote(name))
            case ("POST", "publications"):
                return self.publish(tenant, api_bodies.read(asked.body, PublishBody), now)
            case ("POST", "revocations"):
                return self._revoke(tenant, api_bodies.read(asked.body, RevocationBody), now)
        return refusals.NO_METHOD if parts[0] in AREAS and len(parts) == 1 else refusals.NO_PATH

    def _one(self, asked: Asked, name: str) -> Answer:
        match asked.method:
            case "GET":
                found = self._store.references.get(asked.tenant, name)
                if found is None:
                    raise NotFound(f"there is no reference value {name[:80]!r}", code="reference_absent", field="name")
                return api_bodies.answer(_view(found, asked.now))
            case "PUT":
                given = api_bodies.read(asked.body, ReferenceBody)
                value = cast("JsonValue", given.value)
                (stored,) = self._set(asked.tenant, {name: value}, parse_time(given.expires), asked.now)
                return api_bodies.answer(_view(stored, asked.now), ("reference.set", name))
            case "DELETE":
                self._store.references.delete(asked.tenant, name)
                return Answer(204, changes=(("reference.delete", name),))
        return refusals.NO_METHOD

    def set_all(self, tenant: str, values: Mapping[str, JsonValue], expires: datetime | None, now: datetime) -> Answer:
        """Set all or none of them by hand, if policies can be asked about them."""
        stored = self._set(tenant, values, expires, now)
        return Answer(200, changes=tuple(("reference.set", one.name) for one in stored))

    def _set(
        self, tenant: str, values: Mapping[str, JsonValue], expires: datetime | None, now: datetime
    ) -> list[StoredReference]:
        _comparable(values)
        return self._store.references.set_all(tenant, values, expires, now)

    def _provider(self, asked: Asked, name: str) -> Answer:
        match asked.method:
            case "GET":
                for one in self._store.providers.list(asked.tenant):
                    if one.name == name:
                        return api_bodies.answer(_provider_view(one))
                raise _absent(name)
            case "PUT":
                settings = api_bodies.read(asked.body, ProviderSettings)
                who = provenance.provider(name, settings)
                stored, gone = self._store.providers.set(
                    asked.tenant, name, msgspec.json.encode(settings), lambda one: held(who, one), asked.now
                )
                return api_bodies.answer(_provider_view(stored, gone), ("provider.set", name), *_revoked(gone))
            case "DELETE":
                gone = self._store.providers.delete(asked.tenant, name, asked.now)
                view = {"deleted": name, "revoked": [one.name for one in gone]}
                return api_bodies.answer(view, ("provider.delete", name), *_revoked(gone))
        return refusals.NO_METHOD

    def publish(self, tenant: str, body: PublishBody, now: datetime, kind: str = "") -> Answer:
        """Publish what a document states; with ``kind`` it must be of that one."""
        if body.state not in STATES:
            raise MalformedRequest(
                "no state to publish in", code="state_invalid", field="state", expected=STATES, got=body.state[:40]
            )
        entries = self._store.providers.list(tenant)
        providers = {one.name: known_provider(one) for one in entries}
        who = providers.get(body.provider)
        if who is None:
            raise _absent(body.provider)
        read = [one for one in provenance.EXTRACTORS if kind in {"", one.kind}]
        statement = provenance.read(body.document, who, now=now, extractors=read)
        _comparable({name: stated.value for name, stated in statement.values.items()})

        def unchanged(transaction: Transaction) -> None:
            if self._store.providers.list(tenant, transaction) != entries:
                raise Conflict("the providers changed meanwhile", code="providers_changed", hint="publish it again")

        def decide(
            standing: Mapping[str, list[StoredReference]], published: Mapping[str, list[Published]]
        ) -> list[StoredReference]:
            found = provenance.admit(
                statement,
                who,
                others=providers.values(),
                standing=standing_of(standing, published),
                state=State(body.state),
                now=now,
            )
            return [admitted(one, now) for one in found]

        stored = self._store.references.publish(tenant, who.name, statement.values, decide, now, unchanged=unchanged)
        proof = statement.proof.hex()
        view = PublicationView(
            provider=who.name,
            kind=statement.kind,
            proof=proof,
            values=[_view(one, now) for one in stored],
            warnings=list(statement.warnings),
        )
        changes = [("reference.publish", f"{one.name[:120]} {one.state} by {who.name} {proof}") for one in stored]
        return api_bodies.answer(view, *changes)

    def _revoke(self, tenant: str, body: RevocationBody, now: datetime) -> Answer:
        if sum(map(bool, (body.names, body.proof, body.provider))) != 1:
            raise MalformedRequest(
                "say what to revoke: names, a proof, or a provider", code="revocation_malformed", field="names"
            )
        names = frozenset(body.names)

        def chosen(one: StoredReference) -> bool:
            if names:
                return one.name in names
            return one.proof.hex() == body.proof if body.proof else one.provider == body.provider

        missing = sorted(names.difference(one.name for one in self._store.references.list(tenant)))
        if missing:
            raise NotFound(
                f"there is no reference value {missing[0][:80]!r}; nothing was revoked",
                code="reference_absent",
                field="name",
                got=missing[:10],
            )
        gone = self._store.references.revoke(tenant, chosen, body.reason[:MAX_REASON], now)
        return api_bodies.answer([_view(one, now) for one in gone], *_revoked(gone))


def _comparable(values: Mapping[str, JsonValue]) -> None:
    """Refuse a value that would make every appraisal of its tenant fail: too deep, or a number that is not comparable."""
    for name, value in values.items():
        try:
            prepare({"reference": {name: value}})
        except (MalformedRequest, TooLarge) as error:
            raise DocumentInvalid(
                f"a reference value that policies cannot compare: {error.message}",
                code="reference_not_comparable",
                field=name[:80],
                hint="integers of 64 bits, decimals of at most six places, nested at most 62 deep",
            ) from error


def known_provider(stored: StoredProvider) -> Provider:
    """A provider's entry, checked."""
    return provenance.provider(stored.name, msgspec.json.decode(stored.body, type=ProviderSettings))


def held(who: Provider, one: StoredReference) -> bool:
    """Whether the provider could still have published it."""
    signed = who.signers(one.signers) or (not one.signers and UNSIGNED in who.accept)
    return signed and who.owns(one.name) and one.kind in who.kinds


def standing_of(
    standing: Mapping[str, list[StoredReference]], published: Mapping[str, list[Published]]
) -> provenance.Standing:
    """What the store knows about names, as admission asks for it."""
    current = {
        name: tuple(provenance.Current(one.provider, one.proof, State(one.state), one.issued) for one in found)
        for name, found in standing.items()
    }
    seen = {
        name: tuple(provenance.Seen(one.series, one.issue, one.proof, one.first) for one in found)
        for name, found in published.items()
    }
    return provenance.Standing(current, seen)


def admitted(one: provenance.Provided, now: datetime) -> StoredReference:
    """What was admitted, as it is stored."""
    return StoredReference(
        name=one.name,
        value=one.value,
        version=0,  # the store's word
        updated=now,
        expires=one.not_after,
        not_before=one.not_before,
        state=one.state.value,
        provider=one.provider,
        kind=one.kind,
        proof=one.proof,
        signers=tuple(sorted(one.signers)),
        series=one.series,
        issue=one.issue,
        issued=one.issued,
    )


def _view(one: StoredReference, now: datetime) -> ReferenceView:
    return ReferenceView(
        name=one.name,
        value=one.value,
        version=one.version,
        updated=api_bodies.stamp(one.updated),
        expires=api_bodies.stamp(one.expires) if one.expires else None,
        expired=one.expires is not None and one.expires <= now,
        not_before=api_bodies.stamp(one.not_before) if one.not_before else None,
        state=one.state,
        counts=one.counts(now),
        provider=one.provider,
        kind=one.kind,
        proof=one.proof.hex(),
        signers=list(one.signers),
        series=one.series,
        issue=one.issue,
        issued=api_bodies.stamp(one.issued) if one.issued else None,
        reason=one.reason,
    )


def _provider_view(stored: StoredProvider, gone: list[StoredReference] | None = None) -> ProviderView:
    settings = msgspec.json.decode(stored.body, type=ProviderSettings)
    return ProviderView(
        name=stored.name,
        settings=settings,
        key_ids=[key.id for key in known_provider(stored).keys],
        version=stored.version,
        updated=api_bodies.stamp(stored.updated),
        revoked=[one.name for one in gone or ()],
    )


def _revoked(gone: list[StoredReference]) -> list[tuple[str, str]]:
    return [("reference.revoke", f"{one.name[:120]} of {one.provider or 'the owner'}: {one.reason}") for one in gone]


def _absent(name: str) -> NotFound:
    return NotFound(
        f"there is no reference value provider {name[:80]!r}",
        code="provider_absent",
        field="provider",
        hint="nobody is a provider by default: adyton reference provider set",
    )
