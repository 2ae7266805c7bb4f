"""A service put together and run: store, policies, verifier, and the ports that were asked for; until it is told to stop.

One process. TLS outside loopback by default, with a certificate of its own if none is given; with ``client_ca`` only clients
that it certifies are talked to.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from adyton import tee
from adyton.broker import keys, secure_execution
from adyton.broker.admin import Admin
from adyton.broker.appraiser import Appraiser
from adyton.broker.audit import Auditor
from adyton.broker.door import certificate, refusals, tls
from adyton.broker.door.connection import Limits, Worker
from adyton.broker.door.entrance import Entrance
from adyton.broker.handshake import Verifying
from adyton.broker.outside.endorsements import Endorsements
from adyton.broker.outside.fetching import Fetching, sources
from adyton.broker.people.gate import Gate
from adyton.broker.people.identity import Identities
from adyton.broker.policy.policies import PolicyBook
from adyton.broker.policy.rego import RegoEngine
from adyton.broker.record.checkpoints import Checkpoints
from adyton.broker.running import server
from adyton.broker.running.journal import Journal
from adyton.broker.running.opening import open_store, read_token
from adyton.broker.running.replicas import Deadline
from adyton.broker.services.changes import Changes
from adyton.broker.services.evaluation import Evaluator
from adyton.broker.services.rest import OVERLOADED, RestFront
from adyton.broker.settings import Settings
from adyton.errors import AdytonError, ConfigError, PlatformError
from adyton.rats.types import TrustAnchors
from adyton.stores.sqlite import Store

DRAIN_SECONDS = 10.0
MAINTENANCE_SECONDS = 5.0
CHECKPOINT_EVERY = 12  # times of maintenance
_LOG = logging.getLogger(__name__)


class ServiceSettings(msgspec.Struct, frozen=True):
    """``rest`` and ``grpc`` are ``(host, port)`` or ``None``; ``evaluates`` is false for the reference values alone.

    ``client_ca``: PEM file of the CA that clients must be certified by; ``peers_may_change``: such a client needs no token.
    """

    settings: Settings
    rest: tuple[str, int] | None
    grpc: tuple[str, int] | None
    evaluates: bool = True
    tenant: str = "default"
    issuer: str = "Adyton"
    client_ca: str = ""
    peers_may_change: bool = False
    accept_unbound: bool = False


@dataclass(frozen=True, slots=True)
class Serving:
    """What a service says when it answers. Addresses are empty where a port was not asked for."""

    settings: Settings
    rest: str
    grpc: str
    pin: str | None


class ServiceProgram:
    """The parts of one service over an opened store."""

    def __init__(self, asked: ServiceSettings, store: Store) -> None:
        settings = asked.settings
        if asked.peers_may_change and not asked.client_ca:
            raise ConfigError(
                "only certified peers can be told from others", code="setting_invalid", field="changes-by"
            )
        self._asked = asked
        self._store = store
        self._endorsements = Endorsements(settings.endorsements)
        self._keys = keys.load(store.secrets, time.time())
        self._engine = RegoEngine()
        book = PolicyBook(store, self._engine)
        auditor = Auditor(store)
        self._checkpoints = Checkpoints(store)
        anchors = TrustAnchors(custom=frozenset(bytes.fromhex(root) for root in settings.trusted_fingerprints))
        remembered = tee.Remembered()
        self._fetching = _fetching(settings)
        secure = secure_execution.load(
            settings.se_host_key_documents, settings.se_image_header, settings.se_roots, anchors.custom, remembered
        )
        self.evaluator = Evaluator(
            Appraiser(book, self._engine),
            auditor,
            Verifying(anchors, self._endorsements, remembered, self._fetching, secure),
            lambda: self._keys,
            tenant=asked.tenant,
            issuer=asked.issuer,
            token_seconds=settings.token_seconds,
            accept_unbound=asked.accept_unbound,
            deadline=lambda: Deadline(store),
        )
        admin = Admin(store, book, settings.environment, settings.development_roots, self._checkpoints)
        self.changes = Changes(
            admin,
            auditor,
            Gate(read_token(settings), store, Identities()).check,
            tenant=asked.tenant,
            peers=asked.peers_may_change,
        )
        self._journal = Journal()

    async def serve(self, stop: asyncio.Event, ready: Callable[[Serving], None]) -> None:
        """Serve until ``stop`` is set, then answer what is under way."""
        loop = asyncio.get_running_loop()
        worker = Worker(self._rest(), self._limits(), OVERLOADED, refusals.UNREADABLE)
        entrance = self._listen_rest(worker)
        grpc_server, grpc_port = self._listen_grpc(loop)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._endorsements.refresh(force=True))
        chores = [asyncio.ensure_future(worker.sweep()), asyncio.ensure_future(self._maintain())]
        ready(self._serving(entrance, grpc_port))
        try:
            await stop.wait()
        finally:
            if grpc_server is not None:
                await asyncio.to_thread(lambda: grpc_server.stop(DRAIN_SECONDS).wait())
            if entrance is not None:
                entrance.close()
                await worker.drain(DRAIN_SECONDS)
            for chore in chores:
                chore.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*chores)
            self._engine.close()
            if self._fetching is not None:
                await asyncio.to_thread(self._fetching.close)
            self._journal.flush()

    def _rest(self) -> RestFront:
        return RestFront(
            self.evaluator,
            self.changes,
            clock=time.time,
            journal=self._journal,
            certified=bool(self._asked.client_ca),
            max_in_flight=self._asked.settings.max_in_flight,
        )

    def _limits(self) -> Limits:
        settings = self._asked.settings
        return Limits(
            max_body=settings.max_body,
            head_seconds=settings.head_seconds,
            body_seconds=settings.body_seconds,
            idle_seconds=settings.idle_seconds,
            max_connections=settings.max_connections,
        )

    def _listen_rest(self, worker: Worker) -> Entrance | None:
        if self._asked.rest is None:
            return None
        host, port = self._asked.rest
        identity = tls.read(self._asked.settings)
        context = None
        if identity is not None:
            context = tls.context(identity, self._asked.settings, clients=bool(identity.client_ca))
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = socket.create_server((host, port), family=family, backlog=1024)
        except OSError as error:
            raise PlatformError(
                f"cannot listen there: {error.strerror}", code="listen_failed", field="rest", got=f"{host}:{port}"
            ) from error
        return Entrance(worker, listener, context)

    def _listen_grpc(self, loop: asyncio.AbstractEventLoop) -> tuple[Any, int]:
        if self._asked.grpc is None:
            return None, 0
        from adyton.broker.services import grpc_front

        asked, settings = self._asked, self._asked.settings
        host, port = asked.grpc or ("", 0)
        shown = f"[{host}]" if ":" in host else host
        secret = None
        identity = tls.read(settings)
        if identity is not None:
            secret = grpc_front.credentials(identity.certificate, identity.private_key, identity.client_ca or None)
        front = grpc_front.GrpcFront(loop, self.evaluator if asked.evaluates else None, self.changes, clock=time.time)
        made, taken = grpc_front.server(front, f"{shown}:{port}", secret, settings.max_body)
        made.start()
        return made, taken

    def _serving(self, entrance: Entrance | None, grpc_port: int) -> Serving:
        settings, asked = self._asked.settings, self._asked
        rest = grpc = ""
        if entrance is not None and asked.rest is not None:
            port = entrance.port
            rest = f"{'https' if settings.tls else 'http'}://{_shown(asked.rest[0])}:{port}"
        if asked.grpc is not None:
            grpc = f"{_shown(asked.grpc[0])}:{grpc_port}"
        return Serving(settings, rest, grpc, certificate.pin(Path(settings.certificate)) if settings.tls else None)

    async def _maintain(self) -> None:
        count = 0
        while True:
            await asyncio.sleep(MAINTENANCE_SECONDS)
            count += 1
            try:
                self._endorsements.refresh()
                keys.rotate(self._store.secrets, time.time())
                self._keys = keys.load(self._store.secrets, time.time(), self._keys)
                if count % CHECKPOINT_EVERY == 0:
                    await asyncio.to_thread(self._checkpoints.sign_due, datetime.fromtimestamp(time.time(), UTC))
            except AdytonError as error:
                _LOG.error("maintenance failed: %s [%s]", error.message, error.code)
            except Exception:  # noqa: BLE001 -- a chore that ended would never turn a key or read a CRL again
                _LOG.exception("maintenance failed")


def _fetching(settings: Settings) -> Fetching | None:
    if not settings.collateral_cache:
        return None
    asked = sources(settings.fetch_from, _now, vendors=settings.fetch_endorsements)
    return Fetching(Path(settings.collateral_cache), asked, _now)


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def serve(asked: ServiceSettings, *, with_tls: bool, ready: Callable[[Serving], None]) -> None:
    """Run until SIGTERM or SIGINT. ``ready`` is called once calls are answered."""
    if asked.rest is None and asked.grpc is None:
        raise ConfigError("no port to serve on", code="setting_invalid", field="grpc", hint="--grpc ADDR:PORT")
    if asked.client_ca and not with_tls:
        raise ConfigError("client certificates need TLS", code="setting_invalid", field="client-ca", hint="--tls")
    settings = server.prepare(asked.settings, tls=with_tls)
    settings = msgspec.structs.replace(settings, client_ca=asked.client_ca)
    asked = msgspec.structs.replace(asked, settings=settings)
    store = open_store(settings)

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await ServiceProgram(asked, store).serve(stop, ready)

    try:
        uvloop.run(main())
    finally:
        store.close()


def _shown(host: str) -> str:
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 -- that includes loopback, which is how to reach it from here
        host = "127.0.0.1" if host != "::" else "::1"
    return f"[{host}]" if ":" in host else host
