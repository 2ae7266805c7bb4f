"""One worker: the parts of a broker put together over one store, on one event loop, behind its doors."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import cast

from adyton import tee
from adyton.broker import issuers, keys, revoked_api, secure_execution
from adyton.broker.admin import Admin
from adyton.broker.appraiser import Appraiser
from adyton.broker.audit import Auditor
from adyton.broker.coco_admin import CocoAdmin
from adyton.broker.custodians.attestation_desk import Desk
from adyton.broker.custodians.attesting import OneAtATime, attester_of
from adyton.broker.delivery import Delivery
from adyton.broker.door import certificate
from adyton.broker.door.asked import Room
from adyton.broker.door.connection import Application
from adyton.broker.door.rates import Rates
from adyton.broker.door.share import Share
from adyton.broker.door.tls import Watched
from adyton.broker.handshake import Handshake, Verifying
from adyton.broker.http import Current, Front, Handlers
from adyton.broker.key_service import rooms as key_rooms
from adyton.broker.key_service.authority import Authority
from adyton.broker.key_service.key_delivery import KeyDelivery
from adyton.broker.key_service.key_use import KeyUse
from adyton.broker.outside import fetching
from adyton.broker.outside.backends_api import BackendsApi
from adyton.broker.outside.elsewhere import ElsewhereValues
from adyton.broker.outside.endorsements import Endorsements
from adyton.broker.outside.plugins import Plugins
from adyton.broker.page import Page
from adyton.broker.people import interrupted
from adyton.broker.people.administration import Administration
from adyton.broker.people.approvals import Approvals
from adyton.broker.people.gate import Gate
from adyton.broker.people.identity import Identities
from adyton.broker.people.people_api import PeopleApi
from adyton.broker.people.promotion import Promotion
from adyton.broker.people.tenant_api import TenantApi
from adyton.broker.policy.afterwards import Afterwards
from adyton.broker.policy.policies import PolicyBook
from adyton.broker.policy.rego import RegoEngine
from adyton.broker.policy.rehearsal import Rehearsal
from adyton.broker.policy.trial_api import TrialApi
from adyton.broker.record.checkpoints import Checkpoints
from adyton.broker.record.chronicle import Chronicle
from adyton.broker.release import Releaser
from adyton.broker.revoked_api import RevokedApi
from adyton.broker.running import exposition, fips, replicas, upkeep
from adyton.broker.running.journal import Journal
from adyton.broker.running.logs import Format
from adyton.broker.running.metrics import Metrics, Snapshot, together
from adyton.broker.running.numbers import counted
from adyton.broker.running.opening import read_token
from adyton.broker.running.process import settle
from adyton.broker.running.readiness import Readiness
from adyton.broker.running.reports import Report, read
from adyton.broker.running.serving import METRICS, Doors, Ending, Listeners
from adyton.broker.running.tracing import Tracing
from adyton.broker.running.upkeep import Upkeep
from adyton.broker.settings import Settings
from adyton.config import Environment
from adyton.crypto import profile
from adyton.protocol import broker_attestation
from adyton.protocol.broker_attestation import Facts
from adyton.rats.types import TrustAnchors
from adyton.stores.backends.configured import Backends
from adyton.stores.sqlite import Store
from adyton.stores.tenants import DEFAULT

CHECKPOINT_SECONDS = 60.0
REPORT_SECONDS = 1.0
TCB_ROUNDS = 720  # of maintenance, an hour: "lately"


class Program:
    """A worker's parts. Made before the first connection is taken, so that a wrong setting stops the start."""

    def __init__(self, settings: Settings, store: Store, *, number: int = 0) -> None:
        self.settings = settings
        self.reports: Path | None = None  # where workers tell what they counted, if there are several
        self.share: Share | None = None  # of the connections, likewise
        self._store = store
        self._number = number
        self._endorsements = Endorsements(settings.endorsements)
        self._current = Current(keys.load(store.secrets, store.time(time.time())))
        self._clocks = replicas.Clocks()
        environment = Environment(settings.environment)
        roots = settings.trusted_fingerprints
        anchors = TrustAnchors(custom=frozenset(bytes.fromhex(root) for root in roots))
        self._engine = RegoEngine()
        others = settings.workers > 1 or store.shared
        book = PolicyBook(store, self._engine, others=others)
        self._rehearsal = Rehearsal(store, book) if others else None
        auditor = Auditor(store)
        self._checkpoints = Checkpoints(store)
        releaser = Releaser(book, self._engine, environment=environment, development_roots=roots)
        self._fetching = fetching.asked(settings, _now)
        remembered = tee.Remembered()
        secure = secure_execution.load(
            settings.se_host_key_documents, settings.se_image_header, settings.se_roots, anchors.custom, remembered
        )
        self._issuers = issuers.load(settings.trusted_token_issuers, time.time())
        restricted = profile.of(fips=settings.fips)
        verifying = Verifying(
            anchors,
            self._endorsements,
            remembered,
            self._fetching,
            secure,
            rsa1_5=settings.allow_rsa1_5,
            profile=restricted,
        )
        appraiser = Appraiser(book, self._engine)
        self._handshake = handshake = Handshake(
            store,
            appraiser,
            auditor,
            verifying,
            session_seconds=settings.session_seconds,
            token_seconds=settings.token_seconds,
            secure=settings.tls,
        )
        gate = Gate(read_token(settings), store, Identities(), frozenset(settings.admin_audiences))
        approvals = Approvals(store, gate)
        tenants = TenantApi(store, approvals, settings.environment)
        people = PeopleApi(store, gate, approvals)
        chronicle = Chronicle(store, self._checkpoints)
        rooms: dict[str, Room] = {"platforms": chronicle, "receivers": chronicle}
        fetches = self._fetching is not None and (settings.fetch_endorsements or bool(settings.fetch_from))
        self._readiness = Readiness(store, book, self._engine, self._endorsements, _now, fetches=fetches)
        rooms[revoked_api.OWN] = rooms[revoked_api.BROKER] = RevokedApi(store)
        rooms["recordings"] = rooms["policy-tests"] = TrialApi(store, book)
        devices = self._backends = Backends.read(settings.backends_file)
        key_use = KeyUse(store.keys, devices)
        values = self._values = ElsewhereValues(store, self._backends)
        authority = Authority(store.authorities, settings.public_url)
        rooms.update(key_rooms.opened(store, book, key_use, devices, values, restricted, authority))
        rooms["approvals"] = approvals
        rooms["promotions"] = Promotion(store, book, settings.environment)
        rooms.update(dict.fromkeys(("tenant", "tenants", "organisations"), tenants))
        rooms.update(dict.fromkeys(("people", "whoami", "own-tokens", "identity-providers", "admin-token"), people))
        rooms["backends"] = BackendsApi(values)
        named, told = settings.development_roots, fips.state(fips=settings.fips).text
        admin = Admin(
            store, book, settings.environment, named, self._checkpoints, rooms=rooms, values=values, cryptography=told
        )
        delivery = Delivery(store, releaser, auditor, handshake, self._issuers, values)
        plugins = Plugins(self._backends.configured.plugins, store, releaser, auditor, delivery)
        self._plugins = values.plugins = plugins
        self._afterwards = delivery.afterwards = Afterwards(store, book)
        handshake.afterwards = self._afterwards.attested
        handlers = Handlers(
            store=store,
            handshake=handshake,
            delivery=delivery,
            plugins=plugins,
            keys=KeyDelivery(store, key_use, releaser, auditor, delivery),
            administration=Administration(
                store, gate, approvals, api=admin.handle, coco=plugins.administered(CocoAdmin(admin).handle)
            ),
            auditor=auditor,
            checkpoints=self._checkpoints,
            readiness=self._readiness,
            authority=authority,
        )
        self._watched = Watched(settings)
        self._desk: Desk | None = None
        if settings.attester:
            self._desk = Desk(OneAtATime(attester_of(settings.attester), settings.directory), self._facts)
        self._metrics = Metrics(tenants=settings.metrics_tenants)
        store.audit.observe = partial(self._metrics.time, "audit_append")
        self._journal = Journal(form=cast("Format", settings.log_format), metrics=self._metrics)
        self._own_rates = book.rates
        self._rates = Rates.of(settings.rate_limits, settings.peer_rate_limits, book.rates)
        self._front = Front(
            handlers,
            self._current,
            clock=time.time,
            reload=self._reload_keys,
            tenant_hosts=settings.tenant_hosts,
            max_in_flight=settings.max_in_flight,
            rates=self._rates,
            journal=self._journal,
            page=Page() if settings.page else None,
            desk=self._desk,
        )
        self._upkeep = Upkeep(self._endorsements, self._watched, self._readiness, self._metrics)
        self._rounds = 0
        self._started = time.time()
        self._report: Report | None = None
        self._tidied = datetime.fromtimestamp(0, UTC)
        self._tracing = Tracing(settings.otlp, settings.environment) if settings.otlp else None
        if self._tracing is not None:
            self._tracing.around(handshake, "_verified", "verify")
            self._tracing.around(appraiser, "appraise", "appraise")
            self._tracing.around(releaser, "decide", "decide")
            for method in ("attested", "attest_refused", "released", "release_refused"):
                self._tracing.around(auditor, method, "audit")

    def _facts(self) -> tuple[Facts, bytes]:
        """What this broker says about itself under its evidence."""
        identity, jwks = self._watched.current, self._current.keys.jwks
        pin = certificate.pin_of(identity.certificate) if identity is not None else ""
        log = self._checkpoints.key(DEFAULT).text()
        return Facts(pin, broker_attestation.digest(jwks), log, self.settings.environment), jwks

    def _reload_keys(self) -> None:
        self._current.keys = keys.load(self._store.secrets, self._store.time(time.time()), self._current.keys)

    def _keep_store(self) -> None:
        """What lasts is kept in order, by one worker of each broker; in a thread, since it waits for the store."""
        now = self._store.time(own := time.time())
        self._clocks.compare(own, now, time.monotonic())
        steady, at = self._clocks.steady(now, time.monotonic()), datetime.fromtimestamp(now, UTC)
        keys.rotate(self._store.secrets, now, drop=steady)
        self._store.claims.forget_expired(at)
        self._store.registry.finish_erasure()
        interrupted.decide(self._store, at)
        self._tidy(at, steady=steady)

    async def serve(self, listeners: Listeners, ending: Ending, ready: Callable[[], None]) -> None:
        """Serve until ``ending`` is wished for, then answer what is under way."""
        front: Application = self._front
        application = self._tracing.application(front) if self._tracing is not None else front
        names = frozenset(name for name in listeners if name != METRICS or self._number == 0)
        self._doors = Doors(self.settings, application, self.render, names, self.share)
        self._doors.open(listeners, self._watched.current)
        chores = [asyncio.ensure_future(worker.sweep()) for worker in self._doors.workers.values()]
        self._upkeep.doors, every = self._doors, self._upkeep.every
        chores.append(asyncio.ensure_future(every(upkeep.SECONDS, "maintenance failed", self._maintain)))
        if self._rehearsal is not None:
            chores.append(asyncio.ensure_future(self._rehearsal.keep_up(shared=self._store.shared)))
        self._afterwards.start(asyncio.get_running_loop())
        if self._number == 0:
            signing = every(CHECKPOINT_SECONDS, "checkpoints cannot be signed", self._sign_checkpoints)
            sweeping = every(upkeep.SECONDS, "what back ends are to remove was not gone over", self._sweep)
            chores += [asyncio.ensure_future(signing), asyncio.ensure_future(sweeping)]
        if self.reports is not None:
            self._report = Report(self.reports, os.getpid())
            chores.append(asyncio.ensure_future(self._tell()))
        if METRICS in names:
            exposition.render(Snapshot(), environment="")  # so that nobody waits for the library's import later
        settle()
        ready()
        try:
            await ending.event.wait()
            self._readiness.leaving = True
            self._doors.leave()
            await ending.grace(self.settings.drain_seconds)
        finally:
            self._store.audit.ending.set()
            await self._doors.close(last=ending.last)
            for chore in chores:
                chore.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*chores)
            await asyncio.to_thread(self._afterwards.stop)
            if self._desk is not None:
                self._desk.close()
            self._engine.close()
            self._backends.close()
            self._plugins.close()
            if self._fetching is not None:
                await asyncio.to_thread(self._fetching.close)
            if self._tracing is not None:
                await asyncio.to_thread(self._tracing.close)
            await asyncio.to_thread(self._journal.close)
            if self._report is not None:
                self._report.write(self._snapshot())
                self._report.close()

    def apply(self, settings: Settings) -> None:
        """Go on with ``settings``, which differ only in what can change live; of what cannot be used the old stays."""
        self._upkeep.apply(settings)
        limited = (settings.rate_limits, settings.peer_rate_limits)
        if limited != (self.settings.rate_limits, self.settings.peer_rate_limits):
            self._rates = Rates.of(*limited, self._own_rates)  # else what was counted goes on
        self._front.apply(max_in_flight=settings.max_in_flight, tenant_hosts=settings.tenant_hosts, rates=self._rates)
        self.settings = settings
        self._handshake.apply(session_seconds=settings.session_seconds, token_seconds=settings.token_seconds)
        self._upkeep.renew(settings)

    async def _maintain(self) -> None:
        self._rounds += 1
        self._upkeep.look(self.settings)
        if self._issuers.trusted:
            await asyncio.to_thread(self._issuers.refresh, time.time())
        if self._number == 0:
            await asyncio.to_thread(self._keep_store)
        await asyncio.to_thread(self._store.sealer.forget_deleted)
        if self.settings.metrics_tenants:
            self._metrics.know(self._store.tenants())
        if not self._rounds % TCB_ROUNDS:
            self._handshake.tcb_dates.clear()
        self._reload_keys()
        self._readiness.keys_loaded = True

    async def _sweep(self) -> None:
        """Apart from what else is kept in order: a back end may take its time."""
        await asyncio.to_thread(self._values.sweeper.sweep)

    async def _sign_checkpoints(self) -> None:
        await asyncio.to_thread(self._checkpoints.sign_due, _now())

    async def _tell(self) -> None:
        while True:
            if self._report is not None:
                self._report.write(self._snapshot())
            await asyncio.sleep(REPORT_SECONDS)

    def _snapshot(self) -> Snapshot:
        self._journal.flush()
        moments = {"started": self._started}
        for name, date in list(self._handshake.tcb_dates.items()):
            with suppress(ValueError):
                moments[f"tcb|{name}"] = datetime.fromisoformat(date).timestamp()
        return counted(
            self._metrics,
            engine=self._engine,
            doors=self._doors,
            endorsements=self._endorsements.current,
            identity=self._watched.current,
            in_flight=self._front.in_flight,
            counters=self._store.keys.uses.counters,
            moments=moments,
        )

    async def render(self) -> bytes:
        """The text of ``/metrics``, for all workers."""
        return await asyncio.to_thread(self._rendered, self._snapshot())

    def _rendered(self, own: Snapshot) -> bytes:
        others = read(self.reports, but=os.getpid()) if self.reports is not None else []
        return exposition.render(together([own, *others]), environment=self.settings.environment)

    def _tidy(self, now: datetime, *, steady: bool) -> None:
        """Once an hour: tokens that have ended, proposals that were decided long ago; certificates by a steady clock."""
        if now < self._tidied + timedelta(hours=1):
            return
        self._tidied = now
        self._store.people.forget_expired(now)
        self._store.proposals.forget(now - timedelta(days=90))
        self._store.authorities.forget_expired(now.timestamp(), steady=steady)


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)
