"""What the broker answers to whom: the one place where a request meets its handler, and an error its status.

A decision's answer exists only once its audit row is on the disk. If the row cannot be written, nothing is released.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from urllib.parse import parse_qsl

from adyton.broker import session
from adyton.broker.audit import Auditor
from adyton.broker.custodians import attestation_desk
from adyton.broker.custodians.attestation_desk import Desk
from adyton.broker.delivery import Asking, Delivery
from adyton.broker.door import refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.asked import Asked
from adyton.broker.door.connection import HttpRequest
from adyton.broker.door.paths import Route, route
from adyton.broker.door.rates import Fetches, Rates
from adyton.broker.door.refusals import Stage
from adyton.broker.door.turns import Turns
from adyton.broker.handshake import Handshake
from adyton.broker.holders import Holder
from adyton.broker.key_service import key_delivery, key_use
from adyton.broker.key_service.authority import PLACE, Authority
from adyton.broker.key_service.key_delivery import KeyDelivery
from adyton.broker.key_service.published import Published
from adyton.broker.keys import BrokerKeys
from adyton.broker.outside.plugins import PREFIX, Plugins
from adyton.broker.page import Page
from adyton.broker.people.administration import Administration
from adyton.broker.people.people import NOBODY
from adyton.broker.record.checkpoints import Checkpoints
from adyton.broker.revoked_api import PublishedLists
from adyton.broker.running.journal import Journal
from adyton.broker.running.readiness import Readiness
from adyton.broker.running.replicas import Deadline
from adyton.errors import AdytonError, MalformedRequest, SessionInvalid, Unavailable
from adyton.protocol.kbs_errors import Variant
from adyton.protocol.resource import PluginPath, ResourcePath
from adyton.stores.sqlite import Store

_LOG = logging.getLogger(__name__)
_STALE_KEYS = frozenset({"seal_key_unknown", "signing_key_revoked"})
_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD"})


@dataclass(slots=True)
class Current:
    """What maintenance replaces while the broker runs."""

    keys: BrokerKeys


@dataclass(frozen=True, slots=True)
class Handlers:
    """The parts of one worker."""

    store: Store
    handshake: Handshake
    delivery: Delivery
    keys: KeyDelivery
    plugins: Plugins
    administration: Administration
    auditor: Auditor
    checkpoints: Checkpoints
    readiness: Readiness
    authority: Authority


async def _nothing_here() -> Answer:
    return refusals.NO_PATH


class Front:
    """The application that connections call. ``clock`` gives Unix seconds; ``reload`` fetches the keys anew."""

    def __init__(
        self,
        handlers: Handlers,
        current: Current,
        *,
        clock: Callable[[], float],
        reload: Callable[[], None],
        tenant_hosts: Mapping[str, str],
        max_in_flight: int,
        journal: Journal,
        rates: Rates | None = None,
        page: Page | None = None,
        desk: Desk | None = None,
    ) -> None:
        self._handlers = handlers
        self._current = current
        self._clock = clock
        self._reload = reload
        self._tenant_hosts = tenant_hosts
        self._max_in_flight = max_in_flight
        self._journal = journal
        self._page = page
        self._desk = desk
        self._lists = PublishedLists(handlers.store)
        self._rates = rates
        self._turns = Turns()
        self._fetches = Fetches()
        self._authority = Published(handlers.authority, handlers.store.authorities)
        self._in_flight = 0

    @property
    def in_flight(self) -> int:
        """Requests that wait for their answer."""
        return self._in_flight

    def apply(self, *, max_in_flight: int, tenant_hosts: Mapping[str, str], rates: Rates | None) -> None:
        """Go on with these."""
        self._max_in_flight, self._tenant_hosts, self._rates = max_in_flight, tenant_hosts, rates

    def __call__(self, request: HttpRequest) -> Answer | Awaitable[Answer]:
        """The answer, at once where nothing must be waited for."""
        began = time.perf_counter()
        answer = self._answer(request, began)
        if isinstance(answer, Answer):
            self._journal.request(request, answer, began)
        return answer

    def _answer(self, request: HttpRequest, began: float) -> Answer | Awaitable[Answer]:
        if request.method not in _METHODS:
            return refusals.NO_METHOD
        try:
            where = route(request.target, request.headers.get(b"host", b""), self._tenant_hosts)
        except MalformedRequest as error:
            return refusals.plain(404, Variant.INVALID_REQUEST_PATH, error.message, error.code)
        request.where = where
        if where.area == "top":
            return self._top(request, where, began)
        if self._in_flight >= self._max_in_flight:
            return refusals.OVERLOADED
        if self._rates is not None and (wait := self._rates.wait(where, request.peer, began)):
            return _too_often(wait)
        if where.area == "kbs" and where.parts == ("auth",) and request.method == "POST":
            return self._auth(where.tenant, request)
        return self._counted(where, request, began)

    async def _counted(self, where: Route, request: HttpRequest, began: float) -> Answer:
        self._in_flight += 1
        try:
            answer = await self._slow(where, request)
        except AdytonError as error:  # the audit row could not be written: then there is no answer
            _LOG.error("no answer without its audit row: %s [%s]", error.message, error.code)
            answer = refusals.answer(Unavailable(error.message, code=error.code), Stage.RESOURCE)
        except Exception:  # noqa: BLE001 -- the connection must get an answer, and the stranger no traceback
            _LOG.exception("a handler failed")
            answer = refusals.plain(
                500, Variant.PLUGIN_INTERNAL_ERROR, "the broker failed; its log has the cause", "failed"
            )
        finally:
            self._in_flight -= 1
        self._journal.request(request, answer, began)
        return answer

    def _slow(self, where: Route, request: HttpRequest) -> Awaitable[Answer]:
        if where.area == "kbs":
            if where.parts == ("attest",) and request.method == "POST":
                return self._attest(where.tenant, request)
            match (request.method, *where.parts):
                case ("GET", "resource", *path):
                    return self._resource(where, path, request)
                case ("POST" | "GET", "key", operation, *path):
                    return self._key(where, operation, path, request)
            found = self._handlers.plugins.named(where.tenant, where.parts)
            if found is not None:
                return self._plugin(where, *found, request)
        if request.outside:
            return _nothing_here()
        return self._administer(where, request)

    def _top(self, request: HttpRequest, where: Route, began: float) -> Answer | Awaitable[Answer]:
        method = request.method
        if where.parts[:1] == ("ui",) and self._page is not None and not request.outside:
            if method not in {"GET", "HEAD"}:
                return refusals.NO_METHOD
            return self._page.answer(where.parts[1:]) or refusals.NO_PATH
        if where.parts == ("healthz",):
            return Answer(200) if method in {"GET", "HEAD"} else refusals.NO_METHOD
        if where.parts == ("readyz",):
            return self._ready(request, began) if method in {"GET", "HEAD"} else refusals.NO_METHOD
        if where.parts == (".well-known", "jwks.json") and method in {"GET", "HEAD"}:
            return Answer(200, self._current.keys.jwks)
        if where.parts == (".well-known", "revocations.jwt") and method in {"GET", "HEAD"}:
            if wait := self._fetches.wait(self._rates, where, request.peer, began):
                return _too_often(wait)
            try:
                return self._lists.answer(where.tenant, self._current.keys, self._clock())
            except AdytonError as error:
                return refusals.answer(error, Stage.RESOURCE)
        if where.parts[:2] == PLACE and len(where.parts) == 3 and method in {"GET", "HEAD"}:
            return self._published(where, request, began)
        if where.parts == (".well-known", "broker-attestation"):
            return self._attested(request, began) if method == "POST" else refusals.NO_METHOD
        return refusals.NO_PATH

    def _published(self, where: Route, request: HttpRequest, began: float) -> Answer | Awaitable[Answer]:
        """What a tenant's certification authority shows to everybody."""
        if wait := self._fetches.wait(self._rates, where, request.peer, began):
            return _too_often(wait)
        known = self._authority.at_once(where.tenant, where.parts[2], self._clock())
        return known or self._signed(where, request, began)

    async def _signed(self, where: Route, request: HttpRequest, began: float) -> Answer:
        if self._in_flight >= self._max_in_flight:
            return refusals.OVERLOADED
        self._in_flight += 1
        try:
            answer = await self._authority.made(where.tenant, where.parts[2], self._clock())
        finally:
            self._in_flight -= 1
        self._journal.request(request, answer, began)
        return answer

    async def _attested(self, request: HttpRequest, began: float) -> Answer:
        """What proves to an owner which broker this is."""
        answer = await self._desk.answer(request) if self._desk is not None else attestation_desk.NOT_ATTESTED
        self._journal.request(request, answer, began)
        return answer

    async def _ready(self, request: HttpRequest, began: float) -> Answer:
        """Whether the broker can decide; which part cannot, only to who may know."""
        answer = await self._handlers.readiness.answer(request, partial(self._may_know, request))
        self._journal.request(request, answer, began)
        return answer

    async def _may_know(self, request: HttpRequest) -> bool:
        authorization = request.headers.get(b"authorization")
        now = datetime.fromtimestamp(self._clock(), UTC)
        known = self._handlers.administration.of_the_broker
        return authorization is not None and await asyncio.to_thread(known, authorization, now)

    def _auth(self, tenant: str, request: HttpRequest) -> Answer:
        try:
            return self._handlers.handshake.begin(self._current.keys, tenant, request.body, self._clock())
        except AdytonError as error:
            return refusals.answer(error, Stage.HANDSHAKE)
        except Exception:  # noqa: BLE001 -- as in _counted
            _LOG.exception("a handler failed")
            return refusals.plain(
                500, Variant.PLUGIN_INTERNAL_ERROR, "the broker failed; its log has the cause", "failed"
            )

    async def _attest(self, tenant: str, request: HttpRequest) -> Answer:
        now, peer = self._clock(), request.peer
        handshake = self._handlers.handshake
        cookie = session.value_of(request.headers.get(b"cookie", b""))
        try:
            try:
                return await handshake.attest(self._current.keys, tenant, cookie, request.body, now, peer=peer)
            except SessionInvalid as error:
                self._know(error)
                return await handshake.attest(self._current.keys, tenant, cookie, request.body, now, peer=peer)
        except (MalformedRequest, SessionInvalid) as error:  # noise of strangers, not a decision
            return refusals.answer(error, Stage.HANDSHAKE)
        except AdytonError as error:
            if error.code == "tenant_absent":  # a log for every name that somebody makes up would fill the disk
                return refusals.answer(error, Stage.HANDSHAKE)
            at = datetime.fromtimestamp(now, UTC)
            number = await self._handlers.auditor.attest_refused(tenant, error.tee or "", error, at, peer=peer)
            return refusals.answer(error, Stage.HANDSHAKE, self._handlers.checkpoints.decision(tenant, number))

    async def _resource(self, where: Route, parts: list[str], request: HttpRequest) -> Answer:
        delivery, tenant = self._handlers.delivery, where.tenant
        try:
            if len(parts) == 2 and self._handlers.handshake.serves_oldest:
                parts = ["default", *parts]  # protocol 0.1.0 may leave the repository out
            path = _path(tuple(parts))
            holder, asked = self._holder(where, request)
        except AdytonError as error:
            return refusals.answer(error, Stage.RESOURCE)
        try:
            return await delivery.deliver(tenant, path, holder, asked)
        except SessionInvalid as error:
            return refusals.answer(error, Stage.RESOURCE)
        except AdytonError as error:
            if error.code == "tenant_absent":
                return refusals.answer(error, Stage.RESOURCE)
            number = await delivery.refused(tenant, path, holder, error, asked)
            return refusals.answer(error, Stage.RESOURCE, self._handlers.checkpoints.decision(tenant, number))

    async def _key(self, where: Route, operation: str, parts: list[str], request: HttpRequest) -> Answer:
        used, tenant = self._handlers.keys, where.tenant
        if (request.method == "GET") is not (operation == key_delivery.PUBLIC):
            return refusals.NO_METHOD
        try:
            path = _path(tuple(parts))
        except MalformedRequest as error:
            return refusals.answer(error, Stage.RESOURCE)
        try:
            holder, asked = self._holder(where, request)
            given = None if request.method == "GET" else key_use.parse(operation, request.body)
        except AdytonError as error:  # noise, as in _resource: nothing was decided
            return refusals.answer(error, Stage.KEY)
        try:
            if given is None:
                return await used.public(tenant, path, holder, asked)
            return await used.use(tenant, path, holder, *given, asked)
        except SessionInvalid as error:
            return refusals.answer(error, Stage.KEY)
        except AdytonError as error:
            told = key_delivery.refusal(error)
            number = await used.refused(tenant, path, holder, operation, told, asked)
            return refusals.answer(told, Stage.KEY, self._handlers.checkpoints.decision(tenant, number))

    async def _plugin(self, where: Route, name: str, parts: tuple[str, ...], request: HttpRequest) -> Answer:
        """For whom this is, the plug-in says; it is asked nothing for strangers."""
        plugins, tenant, body = self._handlers.plugins, where.tenant, request.body
        found: tuple[Holder, Asking] | SessionInvalid
        try:
            try:
                found = self._holder(where, request)
            except SessionInvalid as error:
                if not await self._is_owner(where, request):
                    raise
                found = error
            if await plugins.for_admin(name, request.method, parts, where.query, body):
                if request.outside:
                    return refusals.NO_PATH
                return await self._administer(replace(where, parts=(PREFIX, name, *parts)), request)
            if isinstance(found, SessionInvalid):
                raise found
        except AdytonError as error:
            return refusals.answer(error, Stage.RESOURCE)
        holder, asked = found
        path = PluginPath(name, parts)
        try:
            return await plugins.deliver(tenant, name, path, request.method, body, where.query, holder, asked)
        except SessionInvalid as error:
            return refusals.answer(error, Stage.RESOURCE)
        except AdytonError as error:
            number = await self._handlers.delivery.refused(tenant, path, holder, error, asked, "plugin")
            return refusals.answer(error, Stage.RESOURCE, self._handlers.checkpoints.decision(tenant, number))

    async def _is_owner(self, where: Route, request: HttpRequest) -> bool:
        authorization = request.headers.get(b"authorization")
        if authorization is None or request.outside:
            return False
        now = datetime.fromtimestamp(self._clock(), UTC)
        return await asyncio.to_thread(self._handlers.administration.knows, where.tenant, authorization, now)

    def _holder(self, where: Route, request: HttpRequest) -> tuple[Holder, Asking]:
        """Who asks, when and how; ``SessionInvalid`` if nobody can be made out."""
        now, headers = self._clock(), request.headers
        cookie, authorization = session.value_of(headers.get(b"cookie", b"")), headers.get(b"authorization")
        holder, deadline = self._handlers.delivery.holder, Deadline(self._handlers.store)
        try:
            found = holder(self._current.keys, where.tenant, cookie, authorization, now)
        except SessionInvalid as error:
            self._know(error)
            found = holder(self._current.keys, where.tenant, cookie, authorization, now)
        query = dict(parse_qsl(where.query)) if where.query else {}
        return found, Asking(datetime.fromtimestamp(now, UTC), request.peer, query, deadline)

    def _know(self, error: SessionInvalid) -> None:
        """Another worker may have turned the keys: look again once, else the error stands."""
        if error.code not in _STALE_KEYS:
            raise error
        known = self._current.keys
        self._reload()
        if self._current.keys is known:
            raise error

    async def _administer(self, where: Route, request: HttpRequest) -> Answer:
        now = datetime.fromtimestamp(self._clock(), UTC)
        asked = Asked(request.method, where.tenant, request.body, now, where.query, NOBODY, request.peer)
        authorization, answer = request.headers.get(b"authorization"), self._handlers.administration.answer
        # In a thread: checking a long audit log or compiling a policy must not hold up everybody else.
        done = await self._turns.take(where.tenant, lambda: answer(where.area, where.parts, asked, authorization))
        if done is None:
            return refusals.OVERLOADED
        auditor = self._handlers.auditor
        if done.refused is not None:
            action, name, error = done.refused
            await auditor.administered(done.log, action, name, now, actor=done.who, error=error, peer=request.peer)
        return done.answer


def _too_often(wait: int) -> Answer:
    return refusals.plain(429, Variant.HTTP_FAILED, "too often; ask again later", "rate", retry_after=wait)


@lru_cache(maxsize=1024)
def _path(parts: tuple[str, ...]) -> ResourcePath:
    if len(parts) != 3:
        raise MalformedRequest("a resource path has exactly three parts", code="resource_path_invalid")
    return ResourcePath(*parts)
