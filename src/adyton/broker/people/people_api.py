"""What is asked about people and what they show who they are with.

``people``, ``whoami``, ``own-tokens``, ``identity-providers``, ``admin-token``. People are those of the organisation that
the URL's tenant belongs to; the broker's own, if it belongs to none.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import cast
from urllib.parse import unquote

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from adyton.broker.door import api_bodies, refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.asked import Asked
from adyton.broker.people.approvals import Approvals
from adyton.broker.people.gate import Gate, new_token
from adyton.broker.people.identity import check_provider
from adyton.broker.people.people import ROOT_NAME, Role, full_name
from adyton.crypto import jws
from adyton.errors import Conflict, MalformedRequest, NotPermitted
from adyton.protocol.people import (
    ROLES,
    CredentialView,
    KeyBody,
    NewToken,
    PersonBody,
    PersonView,
    ProviderBody,
    ProviderListed,
    RootTokenBody,
    TokenBody,
    Whoami,
)
from adyton.stores.people import Credential, CredentialKind, Person, absent
from adyton.stores.proposals import moment
from adyton.stores.sqlite import Store
from adyton.stores.tenant_settings import BROKER

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}\Z")
_SUBJECT = re.compile(r"[A-Za-z0-9-]{1,63}:[^\x00-\x1f\x7f]{1,255}\Z")
MAX_DAYS = 366


class PeopleApi:
    """The requests of one worker."""

    def __init__(self, store: Store, gate: Gate, approvals: Approvals) -> None:
        self._store = store
        self._gate = gate
        self._approvals = approvals

    def handle(self, asked: Asked, parts: tuple[str, ...]) -> Answer:
        """The answer; ``parts`` begin with the noun."""
        match (asked.method, *parts):
            case ("GET", "whoami"):
                who = asked.principal
                tenants = None if who.tenants is None else tuple(sorted(who.tenants))
                return api_bodies.answer(
                    Whoami(who.name, who.role.value, who.organisation, tenants, who.by, who.registered)
                )
            case (_, "people", *rest):
                return self._people(asked, self._organisation(asked.tenant), [unquote(part) for part in rest])
            case (_, "identity-providers", *rest):
                return self._providers(asked, rest)
            case (_, "own-tokens", *_):
                return self._own(asked, parts)
            case ("PUT", "admin-token"):
                return self._switch(asked, enabled=api_bodies.read(asked.body, RootTokenBody).enabled)
        return refusals.NO_METHOD

    def _organisation(self, tenant: str) -> str:
        found = self._store.registry.find(tenant)
        return found.settings.organisation if found is not None else ""

    def _people(self, asked: Asked, organisation: str, rest: list[str]) -> Answer:
        people = self._store.people
        match (asked.method, *rest):
            case ("GET",):
                members = people.members(organisation)
                found = [view for one in members if (view := self._seen(asked, organisation, *one)) is not None]
                return api_bodies.answer(found)
            case ("GET", name):
                seen = self._seen(asked, organisation, name, self._get(organisation, name))
                if seen is None:
                    raise absent(name)
                return api_bodies.answer(seen)
            case ("PUT", name):
                return self._set(asked, organisation, name, api_bodies.read(asked.body, PersonBody))
            case ("DELETE", name):
                self._get(organisation, name)
                self._check_approvers(organisation, name)
                people.delete(organisation, name)
                return Answer(204, changes=(("person.delete", full_name(organisation, name)),))
            case ("POST", name, "keys"):
                return self._add_key(asked, organisation, name, api_bodies.read(asked.body, KeyBody).pem)
            case ("DELETE", name, "keys" | "tokens" as kind, number):
                people.remove(organisation, name, cast("CredentialKind", kind.removesuffix("s")), number)
                told = f"{full_name(organisation, name)} {number}"
                return Answer(204, changes=((f"person.{kind.removesuffix('s')}.delete", told),))
            case ("POST", name, "tokens"):
                return self._add_token(asked, organisation, name)
        return refusals.NO_METHOD

    def _own(self, asked: Asked, parts: tuple[str, ...]) -> Answer:
        """What somebody does about tokens of their own, whatever their role."""
        who = asked.principal
        if not who.person:
            raise NotPermitted("only who is registered has tokens", code="voter_unregistered")
        match (asked.method, *parts[1:]):
            case ("POST",):
                return self._add_token(asked, who.organisation, who.person)
            case ("DELETE", number):
                self._store.people.remove(who.organisation, who.person, "token", number)
                return Answer(204, changes=(("token.own.delete", f"{who.name} {number}"),))
        return refusals.NO_METHOD

    def _set(self, asked: Asked, organisation: str, name: str, body: PersonBody) -> Answer:
        if not _NAME.match(name) or (not organisation and name == ROOT_NAME):
            raise _invalid("name", "letters, digits and . _ @ + - inside, at most 100", name)
        if body.role not in ROLES or (body.role == Role.OPERATOR.value and (organisation or body.tenants is not None)):
            raise _invalid("role", "owner or auditor; operator for the broker's own people", body.role)
        tenants = body.tenants
        for tenant in tenants or ():
            if self._store.registry.find(tenant) is None or self._organisation(tenant) != organisation:
                raise _invalid("tenants", "tenants of the organisation", tenant)
        for subject in body.subjects:
            known = {provider for provider, _ in self._store.people.providers(organisation)}
            if not _SUBJECT.match(subject) or subject.partition(":")[0] not in known:
                raise _invalid("subjects", "PROVIDER:SUBJECT of an identity provider that is set", subject)
        person = Person(body.role, tenants)
        if body.role != Role.OWNER.value or tenants is not None:
            self._check_approvers(organisation, name, person)
        self._store.people.set(organisation, name, person, body.subjects, asked.now)
        where = "everything" if tenants is None else ", ".join(tenants) or "nothing"
        told = f"{full_name(organisation, name)}: {body.role} of {where}"
        return api_bodies.answer(self._view(organisation, name, person), ("person.set", told))

    def _check_approvers(self, organisation: str, name: str, after: Person | None = None) -> None:
        """``Conflict`` if without this owner some tenant's approval rules could never be met again."""
        others = [one for one in self._store.people.members(organisation) if one[0] != name]
        for one in [*self._store.registry.tenants(), self._store.registry.find(BROKER)]:
            if one is None or not one.settings.approvals.actions or one.settings.organisation != organisation:
                continue
            if after is not None and after.role == Role.OWNER.value and one.name in (after.tenants or ()):
                continue
            self._approvals.check_owners(one.name, organisation, one.settings.approvals, others)

    def _add_key(self, asked: Asked, organisation: str, name: str, pem: str) -> Answer:
        try:
            key = serialization.load_pem_public_key(pem.encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise _invalid("pem", "an Ed25519 public key, PEM", "other") from error
        if not isinstance(key, ed25519.Ed25519PublicKey):
            raise _invalid("pem", "an Ed25519 public key, PEM", type(key).__name__)
        trusted = jws.trusted(key)
        raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        value = Credential(name, raw, asked.now.timestamp())
        self._store.people.add(organisation, "key", trusted.kid, value)
        view = CredentialView(trusted.kid, "key", api_bodies.stamp(asked.now))
        return api_bodies.answer(view, ("person.key", f"{full_name(organisation, name)} {trusted.kid}"))

    def _add_token(self, asked: Asked, organisation: str, name: str) -> Answer:
        days = api_bodies.read(asked.body, TokenBody).days
        if not 1 <= days <= MAX_DAYS:
            raise _invalid("days", f"1 to {MAX_DAYS}", days)
        number, token, digest = new_token()
        who, expires = asked.principal, asked.now + timedelta(days=days)
        if who.token:  # what a token makes ends with it, or whoever stole it would have one for ever
            expires = min(expires, datetime.fromtimestamp(who.until, UTC))
        made_by = who.token if (who.organisation, who.person) == (organisation, name) else ""
        value = Credential(name, digest, asked.now.timestamp(), expires.timestamp(), made_by)
        self._store.people.add(organisation, "token", number, value)
        action = "token.own" if asked.principal.person == name else "person.token"
        told = f"{full_name(organisation, name)} {number}"
        return api_bodies.answer(NewToken(number, token, api_bodies.stamp(expires)), (action, told))

    def _providers(self, asked: Asked, rest: list[str]) -> Answer:
        people, registry = self._store.people, self._store.registry
        everybody = ["", *(one.name for one in registry.organisations())]
        match (asked.method, *rest):
            case ("GET",):
                found = [
                    ProviderListed(**msgspec.structs.asdict(body), name=name)
                    for organisation in everybody
                    for name, body in people.providers(organisation)
                ]
                return api_bodies.answer(found)
            case ("PUT", name):
                body = check_provider(name, api_bodies.read(asked.body, ProviderBody))
                if body.organisation not in everybody:
                    raise _invalid("organisation", "one that exists", body.organisation)
                for other, known in people.providers(body.organisation):
                    if other != name and known.issuer == body.issuer:
                        raise Conflict("another entry has this issuer", code="identity_provider_twice", got=other)
                self._check_links(name, body)
                people.set_provider(name, body)
                view = ProviderListed(**msgspec.structs.asdict(body), name=name)
                return api_bodies.answer(view, ("identity.set", f"{full_name(body.organisation, name)} {body.issuer}"))
            case ("DELETE", name):
                organisation = unquote(asked.query.removeprefix("organisation=")) if asked.query else ""
                people.delete_provider(organisation, name)
                return Answer(204, changes=(("identity.delete", full_name(organisation, name)),))
        return refusals.NO_METHOD

    def _check_links(self, name: str, body: ProviderBody) -> None:
        """``Conflict`` if another provider took the place of one that says who somebody is, where several must agree."""
        before = dict(self._store.people.providers(body.organisation)).get(name)
        if before is not None and (before.issuer, before.ca) == (body.issuer, body.ca):
            return
        linked = self._store.people.credentials(body.organisation, kind="subject")
        if any(one.id.partition(":")[0] == name for one in linked) and self._approvals.guarded(body.organisation):
            raise Conflict(
                "people are who this provider says they are, and they agree to changes: it is not replaced by another",
                code="identity_provider_linked",
                field="issuer",
                expected="another name, or nobody with a subject of this provider",
                got=body.issuer,
                hint="set it under another name, then give people its subjects: adyton person set",
            )

    def _switch(self, asked: Asked, *, enabled: bool) -> Answer:
        if not enabled and not asked.principal.person:
            raise Conflict(
                "who switches the admin token off must have come without it",
                code="admin_token_needed",
                hint="register an owner of the whole broker, and ask with their key or token",
            )
        self._gate.switch_root(enabled=enabled)
        return Answer(204, changes=(("admin-token", "on" if enabled else "off"),))

    def _get(self, organisation: str, name: str) -> Person:
        found = self._store.people.get(organisation, name)
        if found is None:
            raise absent(name)
        return found

    def _seen(self, asked: Asked, organisation: str, name: str, person: Person) -> PersonView | None:
        """Somebody as ``asked`` may see them: who has some tenants sees who has to do with the one asked about."""
        mine = asked.principal.tenants
        if mine is None or person.tenants is None:
            return self._view(organisation, name, person)
        if asked.tenant not in person.tenants:
            return None
        shown = tuple(tenant for tenant in person.tenants if tenant in mine)
        return self._view(organisation, name, msgspec.structs.replace(person, tenants=shown))

    def _view(self, organisation: str, name: str, person: Person) -> PersonView:
        found = self._store.people.credentials(organisation, name)
        return PersonView(
            name=name,
            organisation=organisation,
            role=person.role,
            tenants=person.tenants,
            subjects=tuple(one.id for one in found if one.kind == "subject"),
            credentials=[
                CredentialView(
                    one.id,
                    one.kind,
                    api_bodies.stamp(moment(one.value.created)),
                    api_bodies.stamp(moment(one.value.expires)) if one.value.expires else None,
                )
                for one in found
                if one.kind != "subject"
            ],
        )


def _invalid(name: str, expected: object, got: object) -> MalformedRequest:
    return MalformedRequest(
        "this cannot be set for somebody",
        code="person_invalid",
        field=name,
        expected=expected,
        got=got if isinstance(got, int) else str(got)[:80],
    )
