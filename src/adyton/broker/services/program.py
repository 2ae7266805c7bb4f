"""A service put together and run: store, policies, verifier, and the ports that were asked for; until it is told to stop.

One process, run as a broker's only worker is: the same doors, numbers, log lines, traces and signals. TLS outside loopback
by default, with a certificate of its own if none is given; with ``client_ca`` only clients that it certifies are talked to.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from adyton import tee
from adyton.broker import keys, secure_execution
from adyton.broker.admin import Admin
from adyton.broker.appraiser import Appraiser
from adyton.broker.audit import Auditor
from adyton.broker.door import certificate
from adyton.broker.door.connection import Application
from adyton.broker.door.rates import Rates
from adyton.broker.door.tls import Watched
from adyton.broker.handshake import Verifying
from adyton.broker.outside import fetching
from adyton.broker.outside.endorsements import Endorsements
from adyton.broker.people.gate import Gate
from adyton.broker.people.identity import Identities
from adyton.broker.policy.policies import PolicyBook
from adyton.broker.policy.rego import RegoEngine
from adyton.broker.record.checkpoints import Checkpoints
from adyton.broker.running import exposition, notify, server, upkeep
from adyton.broker.running.journal import Journal
from adyton.broker.running.logs import Format
from adyton.broker.running.metrics import Metrics, Snapshot
from adyton.broker.running.numbers import counted
from adyton.broker.running.opening import open_store, read_token
from adyton.broker.running.readiness import Readiness
from adyton.broker.running.replicas import Deadline
from adyton.broker.running.serving import DRAIN_SECONDS, METRICS, PUBLIC, Doors, Ending, Listeners
from adyton.broker.running.tracing import Tracing
from adyton.broker.running.upkeep import Upkeep
from adyton.broker.running.worker_process import run
from adyton.broker.services import providers
from adyton.broker.services.changes import Changes
from adyton.broker.services.evaluation import Evaluator
from adyton.broker.services.passage import Passage, Routes
from adyton.broker.services.rest import RestFront
from adyton.broker.services.settings import ServiceSettings, fitting
from adyton.broker.settings import address
from adyton.errors import AdytonError
from adyton.protocol.providers import ProviderSettings
from adyton.rats.types import TrustAnchors
from adyton.stores.sqlite import Store

if TYPE_CHECKING:
    from adyton.broker.services.grpc_port import GrpcPort

CHECKPOINT_SECONDS = 60.0
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Serving:
    """What a service says when it answers. Addresses are empty where a port was not asked for."""

    settings: ServiceSettings
    rest: str
    grpc: str
    metrics: str
    pin: str | None


class ServiceProgram:
    """The parts of one service over an opened store."""

    def __init__(self, settings: ServiceSettings, store: Store) -> None:
        self.settings = settings
        self.grpc_port = 0
        self._store = store
        self._endorsements = Endorsements(settings.endorsements)
        self._keys = keys.load(store.secrets, time.time())
        self._engine = RegoEngine()
        book = PolicyBook(store, self._engine)
        auditor = Auditor(store)
        self._checkpoints = Checkpoints(store)
        anchors = TrustAnchors(custom=frozenset(bytes.fromhex(root) for root in settings.trusted_fingerprints))
        remembered = tee.Remembered()
        self._fetching = fetching.asked(settings, _now)
        secure = secure_execution.load(
            settings.se_host_key_documents, settings.se_image_header, settings.se_roots, anchors.custom, remembered
        )
        appraiser = Appraiser(book, self._engine)
        self._evaluator = Evaluator(
            appraiser,
            auditor,
            Verifying(anchors, self._endorsements, remembered, self._fetching, secure),
            lambda: self._keys,
            tenant=settings.tenant,
            issuer=settings.issuer,
            token_seconds=settings.token_seconds,
            accept_unbound=settings.accept_unbound,
            deadline=lambda: Deadline(store),
        )
        self._admin = Admin(store, book, settings.environment, settings.development_roots, self._checkpoints)
        self._providers = self._read_providers()
        self._following = asyncio.Lock()
        self._changes = Changes(
            self._admin,
            Gate(read_token(settings), store, Identities(), frozenset(settings.admin_audiences)).check,
            tenant=settings.tenant,
            peers=settings.peers_may_change,
        )
        self._watched = Watched(settings)
        fetches = self._fetching is not None and (settings.fetch_endorsements or bool(settings.fetch_from))
        self._readiness = Readiness(store, book, self._engine, self._endorsements, _now, fetches=fetches)
        self._metrics = Metrics()
        self._upkeep = Upkeep(self._endorsements, self._watched, self._readiness, self._metrics)
        store.audit.observe = partial(self._metrics.time, "audit_append")
        self._journal = Journal(form=cast("Format", settings.log_format), metrics=self._metrics)
        self._own_rates = book.rates
        self._passage = Passage(self._journal, self._rates(), settings.max_in_flight)
        self._routes = Routes(settings.tenant)
        self._started = time.time()
        service = "adyton-attestation-service" if settings.evaluates else "adyton-reference-service"
        self._tracing = Tracing(settings.otlp, settings.environment, service) if settings.otlp else None
        if self._tracing is not None:
            self._tracing.around(self._evaluator, "_verified", "verify")
            self._tracing.around(appraiser, "appraise", "appraise")
            for method in ("attested", "attest_refused"):
                self._tracing.around(auditor, method, "audit")

    async def serve(self, listeners: Listeners, ending: Ending, ready: Callable[[], None]) -> None:
        """Serve until ``ending`` is wished for, then answer what is under way."""
        loop = asyncio.get_running_loop()
        await self._follow_providers()
        rest = RestFront(
            self._evaluator if self.settings.evaluates else None,
            self._changes,
            self._readiness,
            self._passage,
            self._routes,
            clock=time.time,
            certified=bool(self.settings.client_ca),
        )
        self._doors = Doors(self.settings, self._traced(rest), self._render, frozenset(listeners))
        self._doors.open(listeners, self._watched.current)
        port = self._open_grpc(loop)
        chores = [asyncio.ensure_future(worker.sweep()) for worker in self._doors.workers.values()]
        self._upkeep.doors, every = self._doors, self._upkeep.every
        maintenance = every(upkeep.SECONDS, "maintenance failed", self._maintain)
        signing = every(CHECKPOINT_SECONDS, "checkpoints cannot be signed", self._sign_checkpoints)
        chores += [asyncio.ensure_future(maintenance), asyncio.ensure_future(signing)]
        if port is not None:
            chores.append(asyncio.ensure_future(port.waiting.sweep()))
        if METRICS in listeners:
            exposition.render(Snapshot(), environment="")  # so that nobody waits for the library's import later
        ready()
        try:
            await ending.event.wait()
            self._readiness.leaving = True
            self._doors.leave()
            await ending.grace(self.settings.drain_seconds)
        finally:
            if port is not None:
                await asyncio.to_thread(port.close, DRAIN_SECONDS)
            await self._doors.close(last=ending.last)
            for chore in chores:
                chore.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*chores)
            self._engine.close()
            if self._fetching is not None:
                await asyncio.to_thread(self._fetching.close)
            if self._tracing is not None:
                await asyncio.to_thread(self._tracing.close)
            await asyncio.to_thread(self._journal.close)

    def apply(self, settings: ServiceSettings) -> None:
        """Go on with ``settings``, which differ only in what can change live; of what cannot be used the old stays."""
        self._upkeep.apply(settings)
        limited = (self.settings.rate_limits, self.settings.peer_rate_limits)
        self.settings = settings
        if limited != (settings.rate_limits, settings.peer_rate_limits):
            self._passage.rates = self._rates()  # else what was counted goes on
        self._passage.max_in_flight = settings.max_in_flight
        self._evaluator.token_seconds = settings.token_seconds
        try:
            self._providers = self._read_providers()
        except AdytonError as error:
            _LOG.error("providers are not read again, the old ones stay: %s [%s]", error.message, error.code)
        self._applying = asyncio.ensure_future(self._applied())

    async def _applied(self) -> None:
        self._upkeep.renew(self.settings)
        try:
            await self._follow_providers()
        except AdytonError as error:
            _LOG.error("not all providers are as their file says: %s [%s]", error.message, error.code)

    def _rates(self) -> Rates | None:
        return Rates.of(self.settings.rate_limits, self.settings.peer_rate_limits, self._own_rates)

    def _traced(self, application: Application) -> Application:
        return self._tracing.application(application) if self._tracing is not None else application

    def _open_grpc(self, loop: asyncio.AbstractEventLoop) -> GrpcPort | None:
        settings = self.settings
        if not settings.grpc:
            return None
        from adyton.broker.services.grpc_front import GrpcFront
        from adyton.broker.services.grpc_port import GrpcPort

        front = GrpcFront(
            self._evaluator if settings.evaluates else None,
            self._changes,
            self._readiness,
            self._passage,
            self._routes,
            clock=time.time,
        )
        port = GrpcPort(
            front,
            self._traced(front),
            loop,
            lambda: self._watched.current,
            max_message=settings.max_body,
            max_connections=settings.max_connections,
        )
        self.grpc_port = port.open(*address("grpc", settings.grpc))
        return port

    def _read_providers(self) -> dict[str, ProviderSettings] | None:
        settings = self.settings
        return providers.read(Path(settings.providers), settings.tenant) if settings.providers else None

    async def _follow_providers(self) -> None:
        if self._providers is None:
            return
        async with self._following:  # else what an older file names could be set after a newer one took it away
            tenant, now = self.settings.tenant, _now()
            await asyncio.to_thread(providers.follow, self._admin, tenant, self._providers, now)

    async def _maintain(self) -> None:
        self._upkeep.look(self.settings)
        await asyncio.to_thread(keys.rotate, self._store.secrets, time.time())
        self._keys = keys.load(self._store.secrets, time.time(), self._keys)
        self._readiness.keys_loaded = True

    async def _sign_checkpoints(self) -> None:
        await asyncio.to_thread(self._checkpoints.sign_due, _now())

    async def _render(self) -> bytes:
        """The text of ``/metrics``."""
        self._journal.flush()
        whole = counted(
            self._metrics,
            engine=self._engine,
            doors=self._doors,
            endorsements=self._endorsements.current,
            identity=self._watched.current,
            in_flight=self._passage.in_flight,
            counters={},
            moments={"started": self._started},
        )
        return await asyncio.to_thread(exposition.render, whole, environment=self.settings.environment)


def serve(
    settings: ServiceSettings,
    announce: Callable[[Serving], None],
    *,
    again: Callable[[], ServiceSettings] | None = None,
) -> None:
    """Run until SIGTERM or SIGINT. ``announce`` is called once calls are answered; ``again`` as for a broker."""
    server.until_it_serves()
    store = open_store(settings)
    listeners: dict[str, socket.socket] = {}
    try:
        for name, field, text in ((PUBLIC, "rest", settings.rest), (METRICS, "metrics", settings.metrics_listen)):
            if text:
                listeners[name] = server.listen(*address(field, text))
        program = ServiceProgram(settings, store)

        def ready() -> None:
            announce(_serving(program, listeners))
            notify.ready("serving")

        def reread(old: ServiceSettings) -> ServiceSettings | None:
            return server.reread((lambda: fitting(old, again())) if again is not None else None, old)

        run(program, listeners, lambda ending: server.alone(program, ending, reread, ready))
    finally:
        server.after_it_served()
        for listener in listeners.values():
            listener.close()
        store.close()


def _serving(program: ServiceProgram, listeners: Listeners) -> Serving:
    settings = program.settings
    scheme = "https" if settings.tls else "http"
    rest = metrics = grpc = ""
    if PUBLIC in listeners:
        rest = server.url_of(scheme, address("rest", settings.rest)[0], listeners[PUBLIC])
    if METRICS in listeners:
        metrics = server.url_of("http", address("metrics", settings.metrics_listen)[0], listeners[METRICS])
    if settings.grpc:
        grpc = server.reached(address("grpc", settings.grpc)[0], program.grpc_port)
    pin = certificate.pin(Path(settings.certificate)) if settings.tls else None
    return Serving(settings, rest, grpc, metrics, pin)


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)
