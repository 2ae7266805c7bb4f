"""A resource on its way out: who asks, may they, and the value encrypted to their TEE's key.

Who asks is known by the session cookie, or by a token of this broker (``Authorization: Bearer``, the passport). Both
end when the tenant's policies or reference values change after the appraisal: no decision follows the old state.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import cast

import msgspec

from adyton.appraisal import explain
from adyton.broker import session
from adyton.broker.audit import Auditor
from adyton.broker.door.answer import Answer
from adyton.broker.handshake import Handshake
from adyton.broker.holders import FOREIGN, Holder
from adyton.broker.issuers import Issuers
from adyton.broker.keys import BrokerKeys
from adyton.broker.outside.elsewhere import ElsewhereValues
from adyton.broker.policy.afterwards import Afterwards, Event
from adyton.broker.release import Releaser
from adyton.broker.running.replicas import Deadline
from adyton.broker.session import Attested
from adyton.crypto import jwe, jwk, jwt, key_kinds
from adyton.errors import AdytonError, Conflict, MalformedRequest, NotFound, ReleaseRefused, SessionInvalid, Unavailable
from adyton.protocol import ear, key_record
from adyton.protocol.audit_row import PolicyUsed
from adyton.protocol.ear import TokenClaims
from adyton.protocol.key_record import KeyRecord, KeyVersion
from adyton.protocol.resource import PluginPath, ResourcePath
from adyton.protocol.revoked import names_of_token
from adyton.rats.result import Mismatch
from adyton.stores.backends.configured import Backends
from adyton.stores.resources import StoredResource
from adyton.stores.sqlite import Store

TRIES = 3


class Asking(msgspec.Struct, frozen=True):
    """When, from where, and with which query a resource was asked for; ``deadline`` from before who asks was read.

    ``began`` is ``at`` by ``time.monotonic``.
    """

    at: datetime
    peer: str
    query: dict[str, str]
    deadline: Deadline
    began: float = msgspec.field(default_factory=time.monotonic)

    def now(self) -> datetime:
        """What time it is by then, however the clock was set meanwhile."""
        return self.at + timedelta(seconds=time.monotonic() - self.began)


class Delivery:
    """``GET resource`` of one worker."""

    def __init__(  # noqa: PLR0917 -- the parts of a worker
        self,
        store: Store,
        releaser: Releaser,
        auditor: Auditor,
        handshake: Handshake,
        issuers: Issuers | None = None,
        values: ElsewhereValues | None = None,
    ) -> None:
        self._store = store
        self._releaser = releaser
        self._auditor = auditor
        self._handshake = handshake
        self.afterwards: Afterwards | None = None
        self._issuers = issuers or Issuers()
        self._elsewhere = values or ElsewhereValues(store, Backends())

    def holder(
        self, keys: BrokerKeys, tenant: str, cookie: bytes | None, authorization: bytes | None, now: float
    ) -> Holder:
        """Who asks; ``SessionInvalid`` if nobody can be made out. A usable cookie goes before a token."""
        if cookie is not None:
            try:
                opened = session.open_(keys.cookies, tenant, cookie, now)
            except SessionInvalid:
                if authorization is None:
                    raise
            else:
                if isinstance(opened, Attested):
                    return self._attested(tenant, opened, now)
        if authorization is None:
            raise SessionInvalid("there is no attested session and no token", code="session_missing")
        return self._bearer(keys, tenant, authorization, now)

    def _attested(self, tenant: str, opened: Attested, now: float) -> Holder:
        """Read the claims behind a cookie; those that this worker has read lately are known by their digest."""
        holders = self._handshake.holders
        known = holders.get(opened.digest)
        if known is None:
            body = session.claims(opened, self._handshake.shelved(tenant, opened, now))
            known = Holder.of(self._handshake.tee_key(opened.key, opened.version), ear.parse(body), opened.generation)
            holders.put(opened.digest, known, len(body))
        return known

    def _bearer(self, keys: BrokerKeys, tenant: str, authorization: bytes, now: float) -> Holder:
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            raise SessionInvalid("the Authorization header is not a bearer token", code="token_invalid")
        text = token.strip().decode("latin-1")
        if self._issuers.trusted and jwt.unverified_kid(text) not in keys.verifiers:
            return self._foreign(tenant, text, now)
        claims = ear.read(jwt.verify(text, keys.verifiers, now=now))
        own = claims.raw.get("adyton")
        if not isinstance(own, dict) or own.get("tenant") != tenant or not isinstance(own.get("generation"), int):
            raise SessionInvalid("the token is of another tenant", code="token_invalid")
        try:
            key = jwk.parse(claims.tee_public_key, self._handshake.token_algorithms, oldest=True)
            return Holder.of(key, claims, cast("int", own["generation"]))
        except MalformedRequest as error:
            raise SessionInvalid("the token's key cannot be used", code="token_invalid") from error

    def _foreign(self, tenant: str, token: str, now: float) -> Holder:
        """Who holds a token of another's (passport): appraised over there, so nothing here was when it was made."""
        claims = self._issuers.verify(tenant, token, now)
        try:
            key = jwk.parse(claims.tee_public_key)
        except MalformedRequest as error:
            raise SessionInvalid("the token's key cannot be used", code="token_invalid") from error
        holder = Holder.of(key, claims, FOREIGN)
        # No generation of ours ends such a token, so what was revoked is asked each time.
        names = names_of_token(claims, jwt.payload_of(token), holder.handle, jwt.unverified_kid(token))
        if self._store.revoked.current(tenant).first(names) is not None:
            raise SessionInvalid("what this token speaks of was revoked", code="token_revoked")
        return holder

    async def deliver(self, tenant: str, path: ResourcePath, holder: Holder, asked: Asking) -> Answer:
        """The encrypted value, once its audit row is on the disk; or the refusal, as an error.

        A value from a back end takes its time. What changed meanwhile, or ended, is decided anew, a few times.
        """
        for _ in range(TRIES):
            answer = await self._deliver(tenant, path, holder, asked)
            if answer is not None:
                return answer
            asked = Asking(asked.now(), asked.peer, asked.query, asked.deadline)
        raise Unavailable(
            "the resource changes faster than its back end answers", code="changed_meanwhile", hint="ask again"
        )

    async def _deliver(self, tenant: str, path: ResourcePath, holder: Holder, asked: Asking) -> Answer | None:
        """``None`` if the decision was overtaken while the value was on its way."""
        deadline = asked.deadline
        generation, stored = self.current(tenant, path, holder)
        version, against = None, []
        if stored is not None and stored.key is not None:
            try:
                version = key_record.usable(stored.key, key_record.RELEASE, asked_version(asked.query))
            except (Conflict, NotFound) as error:
                against.append(f"{error.code}: {error.message}")
        permit = await self._releaser.decide(
            tenant,
            holder,
            path,
            stored,
            asked.at,
            asked.query,
            generation=generation,
            against=against,
        )
        if stored is None:  # a permit for nothing: the decision and this disagree, so nothing leaves
            raise NotFound("there is no such resource", code="resource_absent")
        if stored.info.elsewhere is not None:
            deadline.check()
            found = await self._elsewhere.fetch(tenant, path, stored.info.elsewhere)
            deadline = Deadline(self._store)  # what was decided is as good as new if nothing changed until now
            now_generation, now_stored = self.current(tenant, path, holder)
            if now_generation != generation or now_stored is None or now_stored.info != stored.info:
                return None
            if stored.binding.has_ended(asked.now()):
                return None
            if found is None:
                raise Unavailable(
                    "the back end has lost the value", code="backend_value_lost", field=stored.info.elsewhere.backend
                )
            value, number = found, stored.info.version
        else:
            value, number = stored.value, stored.info.version
        if stored.key is not None:
            if version is None:
                raise NotFound("there is no such version", code="resource_absent")
            value, number = self._key(tenant, path, stored.key, version), version.number
        deadline.check()
        body = jwe.encrypt(holder.key, value)
        row = await self._auditor.released(
            tenant,
            path,
            holder,
            permit.by,
            asked.at,
            request_id=holder.handle,
            peer=asked.peer,
            version=number,
            policies=permit.policies,
        )
        self._note(tenant, path, permit.claims, asked, row, permit.policies, holder, released=True)
        deadline.check()  # the record says more than was done, never less
        return Answer(200, body, session=holder.handle)

    def current(self, tenant: str, path: ResourcePath, holder: Holder) -> tuple[int, StoredResource | None]:
        """The tenant's generation and what is at ``path``; ``SessionInvalid`` if ``holder`` attested under another one."""
        generation, stored = self._store.resources.with_generation(tenant, path)
        if holder.generation not in {generation, FOREIGN}:
            raise SessionInvalid(
                "policies, reference values or requirements changed since this attestation",
                code="session_outdated",
                hint="attest again",
            )
        return generation, stored

    def generation(self, tenant: str, holder: Holder) -> int:
        """The tenant's generation now; ``SessionInvalid`` if ``holder`` attested under another one."""
        generation = self._store.generation(tenant)
        if holder.generation not in {generation, FOREIGN}:
            raise SessionInvalid(
                "policies, reference values or requirements changed since this attestation",
                code="session_outdated",
                hint="attest again",
            )
        return generation

    def _key(self, tenant: str, path: ResourcePath, record: KeyRecord, version: KeyVersion) -> bytes:
        """A version of a key as it leaves."""
        material = self._store.keys.material(tenant, path, version)
        return key_kinds.released(key_kinds.kind(record.kind), material.secret, material.chain)

    async def refused(  # noqa: PLR0917 -- one value each
        self,
        tenant: str,
        path: ResourcePath | PluginPath,
        holder: Holder,
        error: AdytonError,
        asked: Asking,
        action: str = "release",
    ) -> int:
        """Write down a refusal, with what about the evidence is not as the reference values say; the row's number."""
        found: tuple[Mismatch, ...] = ()
        if isinstance(error, ReleaseRefused):
            references = self._store.references.snapshot(tenant, asked.at)
            for submodule in holder.claims.submodules:
                found += explain.mismatches(submodule.tee, submodule.evidence, references)
        row = await self._auditor.release_refused(
            tenant,
            path,
            holder.claims,
            error,
            asked.at,
            request_id=holder.handle,
            peer=asked.peer,
            mismatches=found,
            action=action,
        )
        noted = isinstance(path, ResourcePath) and action == key_record.RELEASE
        if noted and isinstance(error, ReleaseRefused) and error.claims is not None:
            policies = cast("tuple[PolicyUsed, ...]", error.policies)
            self._note(
                tenant,
                cast("ResourcePath", path),
                cast("TokenClaims", error.claims),
                asked,
                row,
                policies,
                holder,
                released=False,
            )
        return row

    def _note(  # noqa: PLR0917 -- one value each
        self,
        tenant: str,
        path: ResourcePath,
        claims: TokenClaims | None,
        asked: Asking,
        row: int,
        policies: tuple[PolicyUsed, ...],
        holder: Holder,
        *,
        released: bool,
    ) -> None:
        """For what follows a decision; costs it nothing where nothing follows."""
        if self.afterwards is not None and self.afterwards.wanted(tenant, holder.generation):
            self.afterwards.note(
                Event(
                    tenant,
                    asked.at,
                    row,
                    None,
                    claims or holder.claims,
                    path,
                    asked.query,
                    released,
                    policies,
                    holder.generation,
                )
            )


def asked_version(query: Mapping[str, str]) -> int | None:
    """The version of a key that a query names, or ``None``; ``NotFound`` for what is no number."""
    text = query.get("version")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise NotFound("the key has no such version", code="key_version_absent", field="version", got=text[:20])
    return int(text)
