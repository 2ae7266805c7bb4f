"""One worker process: the parts of a broker put together over one store, on one event loop, serving one socket.

``python -m adyton.broker.worker`` is how a broker with several workers starts them: settings, the store's instance and
the listening socket's number come as one line of JSON on standard input, which then stays open for as long as the
parent lives. When it ends, the worker answers what it was asked and goes.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import ssl
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import uvloop

from adyton import tee
from adyton.broker import issuers, keys, refusals, replicas, revoked_api, secure_execution
from adyton.broker.admin import Admin
from adyton.broker.administration import Administration
from adyton.broker.appraiser import Appraiser
from adyton.broker.approvals import Approvals
from adyton.broker.asked import Room
from adyton.broker.audit import Auditor
from adyton.broker.checkpoints import Checkpoints
from adyton.broker.chronicle import Chronicle
from adyton.broker.coco_admin import CocoAdmin
from adyton.broker.connection import Limits, Worker
from adyton.broker.custody import RootKeyFinder
from adyton.broker.delivery import Delivery
from adyton.broker.endorsements import Endorsements
from adyton.broker.fetching import Fetching, sources
from adyton.broker.gate import Gate
from adyton.broker.handshake import Handshake, Verifying
from adyton.broker.http import Current, Front, Handlers
from adyton.broker.identity import Identities
from adyton.broker.journal import Journal
from adyton.broker.key_api import KeyApi
from adyton.broker.key_delivery import KeyDelivery
from adyton.broker.page import Page
from adyton.broker.people_api import PeopleApi
from adyton.broker.policies import PolicyBook
from adyton.broker.process import harden
from adyton.broker.promotion import Promotion
from adyton.broker.rego import RegoEngine
from adyton.broker.release import Releaser
from adyton.broker.revoked_api import RevokedApi
from adyton.broker.settings import Settings
from adyton.broker.tenant_api import TenantApi
from adyton.broker.trial_api import TrialApi
from adyton.config import Environment
from adyton.errors import AdytonError, ConfigError
from adyton.rats.types import TrustAnchors
from adyton.stores.sql import Database
from adyton.stores.sqlite import Store

DRAIN_SECONDS = 10.0
MAINTENANCE_SECONDS = 5.0
CHECKPOINT_SECONDS = 60.0
_LOG = logging.getLogger(__name__)


class Start(msgspec.Struct, frozen=True):
    """What a parent tells a worker, over a pipe that nobody else has. ``number`` 0 is the one that turns keys."""

    settings: Settings
    instance: str
    descriptor: int
    number: int
    root_key: bytes


class Program:
    """A worker's parts. Made before the first connection is taken, so that a wrong setting stops the start."""

    def __init__(self, settings: Settings, store: Store, *, number: int = 0) -> None:
        self._settings = settings
        self._store = store
        self._number = number
        self._endorsements = Endorsements(settings.endorsements)
        self._current = Current(keys.load(store.secrets, store.time(time.time())))
        self._clocks = replicas.Clocks()
        environment = Environment(settings.environment)
        roots = settings.trusted_fingerprints
        anchors = TrustAnchors(custom=frozenset(bytes.fromhex(root) for root in roots))
        self._engine = RegoEngine()
        book = PolicyBook(store, self._engine, others=settings.workers > 1)
        auditor = Auditor(store)
        self._checkpoints = Checkpoints(store)
        releaser = Releaser(book, self._engine, environment=environment, development_roots=roots)
        self._fetching = _fetching(settings)
        remembered = tee.Remembered()
        secure = secure_execution.load(
            settings.se_host_key_documents, settings.se_image_header, settings.se_roots, anchors.custom, remembered
        )
        self._issuers = issuers.load(settings.trusted_token_issuers, time.time())
        verifying = Verifying(
            anchors, self._endorsements, remembered, self._fetching, secure, rsa1_5=settings.allow_rsa1_5
        )
        handshake = Handshake(
            store,
            Appraiser(book, self._engine),
            auditor,
            verifying,
            session_seconds=settings.session_seconds,
            token_seconds=settings.token_seconds,
            secure=settings.tls,
        )
        gate = Gate(read_token(settings), store, Identities())
        approvals = Approvals(store, gate)
        tenants = TenantApi(store, approvals, settings.environment)
        people = PeopleApi(store, gate, approvals)
        chronicle = Chronicle(store, self._checkpoints)
        rooms: dict[str, Room] = {"platforms": chronicle, "receivers": chronicle}
        rooms[revoked_api.OWN] = rooms[revoked_api.BROKER] = RevokedApi(store)
        rooms["recordings"] = TrialApi(store, book)
        key_api = KeyApi(store, book)
        rooms.update(keys=key_api, authority=key_api)
        rooms["approvals"] = approvals
        rooms["promotions"] = Promotion(store, book)
        rooms.update(dict.fromkeys(("tenant", "tenants", "organisations"), tenants))
        rooms.update(dict.fromkeys(("people", "whoami", "own-tokens", "identity-providers", "admin-token"), people))
        admin = Admin(store, book, settings.environment, settings.development_roots, self._checkpoints, rooms=rooms)
        delivery = Delivery(store, releaser, auditor, handshake, self._issuers)
        handlers = Handlers(
            store=store,
            handshake=handshake,
            delivery=delivery,
            keys=KeyDelivery(store, releaser, auditor, delivery),
            administration=Administration(store, gate, approvals, api=admin.handle, coco=CocoAdmin(admin).handle),
            auditor=auditor,
            checkpoints=self._checkpoints,
        )
        self._journal = Journal()
        front = Front(
            handlers,
            self._current,
            clock=time.time,
            reload=self._reload_keys,
            tenant_hosts=settings.tenant_hosts,
            max_in_flight=settings.max_in_flight,
            journal=self._journal,
            page=Page() if settings.page else None,
        )
        limits = Limits(
            max_body=settings.max_body,
            head_seconds=settings.head_seconds,
            body_seconds=settings.body_seconds,
            idle_seconds=settings.idle_seconds,
            max_connections=settings.max_connections,
        )
        self._worker = Worker(front, limits, refusals.OVERLOADED, refusals.UNREADABLE)
        self._tls = tls_context(settings)
        self._head_seconds = settings.head_seconds
        self._tidied = datetime.fromtimestamp(0, UTC)

    def _reload_keys(self) -> None:
        now = self._store.time(time.time())
        self._current.keys = keys.load(self._store.secrets, now, self._current.keys)

    def _keep_store(self) -> None:
        """What lasts is kept in order, by one worker of each broker; in a thread, since it waits for the store."""
        own = time.time()
        now = self._store.time(own)
        self._clocks.compare(own, now, time.monotonic())
        keys.rotate(self._store.secrets, now, drop=self._clocks.steady(now, time.monotonic()))
        self._store.claims.forget_expired(datetime.fromtimestamp(now, UTC))
        self._tidy(datetime.fromtimestamp(now, UTC))

    async def serve(self, listener: socket.socket, stop: asyncio.Event, ready: Callable[[], None]) -> None:
        """Serve until ``stop`` is set, then answer what is under way."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            self._worker.protocol,
            sock=listener,
            ssl=self._tls,
            backlog=1024,
            # A connection is counted once its TLS stands, so until then it may not stay for long.
            ssl_handshake_timeout=self._head_seconds if self._tls else None,
        )
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        chores = [asyncio.ensure_future(self._worker.sweep()), asyncio.ensure_future(self._maintain())]
        if self._number == 0:
            chores.append(asyncio.ensure_future(self._sign_checkpoints()))
        gc.collect()
        gc.freeze()  # what is here now stays; later collections need not look at it
        gc.set_threshold(20_000, 50, 50)
        ready()
        try:
            await stop.wait()
        finally:
            server.close()
            await self._worker.drain(DRAIN_SECONDS)
            for chore in chores:
                chore.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*chores)
            await server.wait_closed()
            self._engine.close()
            if self._fetching is not None:
                await asyncio.to_thread(self._fetching.close)
            self._journal.flush()

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(MAINTENANCE_SECONDS)
            try:
                self._endorsements.refresh()
                if self._issuers.trusted:
                    await asyncio.to_thread(self._issuers.refresh, time.time())
                if self._number == 0:
                    await asyncio.to_thread(self._keep_store)
                self._reload_keys()
            except AdytonError as error:
                _LOG.error("maintenance failed: %s [%s]", error.message, error.code)
            except Exception:  # noqa: BLE001 -- a chore that ended would never turn a key or read a CRL again
                _LOG.exception("maintenance failed")

    def _tidy(self, now: datetime) -> None:
        """Once an hour: tokens that have ended, proposals that were decided long ago."""
        if now < self._tidied + timedelta(hours=1):
            return
        self._tidied = now
        self._store.people.forget_expired(now)
        self._store.proposals.forget(now - timedelta(days=90))

    async def _sign_checkpoints(self) -> None:
        while True:
            await asyncio.sleep(CHECKPOINT_SECONDS)
            try:
                await asyncio.to_thread(self._checkpoints.sign_due, datetime.fromtimestamp(time.time(), UTC))
            except AdytonError as error:
                _LOG.error("checkpoints cannot be signed: %s [%s]", error.message, error.code)
            except Exception:  # noqa: BLE001 -- as in _maintain
                _LOG.exception("checkpoints cannot be signed")

    def _hang_up(self) -> None:
        self._endorsements.refresh(force=True)


def _fetching(settings: Settings) -> Fetching | None:
    if not settings.collateral_cache:
        return None
    asked = sources(settings.fetch_from, _now, vendors=settings.fetch_endorsements)
    return Fetching(Path(settings.collateral_cache), asked, _now)


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def run(program: Program, listener: socket.socket, ready: Callable[[asyncio.Event], None]) -> None:
    """Serve on this thread until SIGTERM or SIGINT, or until the event given to ``ready`` is set."""

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await program.serve(listener, stop, lambda: ready(stop))

    uvloop.run(main())


def open_store(
    settings: Settings, instance: str | None = None, root_key: bytes | Callable[[Database], bytes] | None = None
) -> Store:
    """The store of the data directory; the first to open it becomes its broker.

    ``root_key``: as the first process found it, or how it finds it; by default in the plain file.
    """
    return Store.open(
        settings.directory,
        root_key=root_key or RootKeyFinder(settings),
        now=datetime.fromtimestamp(time.time(), UTC),
        instance=instance,
        database=replicas.opener(settings),
    )


def read_token(settings: Settings) -> str:
    """The admin's token; ``ConfigError`` if its file is missing or too short to be one."""
    try:
        mode = stat.S_IMODE(settings.admin_token.stat().st_mode)
        token = settings.admin_token.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the admin token cannot be read", code="admin_token_unreadable", field=str(settings.admin_token)
        ) from error
    if mode & 0o077:
        raise ConfigError(
            "the admin token's file can be read by others",
            code="admin_token_exposed",
            field=str(settings.admin_token),
            expected="mode 0600",
            got=f"mode {mode:04o}",
            hint="treat the token as known: delete the file, and the broker makes a new one at its next start",
        )
    if len(token) < 32:
        raise ConfigError(
            "the admin token is too short",
            code="admin_token_short",
            field=str(settings.admin_token),
            expected="at least 32 characters",
            got=len(token),
            hint="delete the file: the broker makes a new one at its next start",
        )
    return token


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """TLS 1.2 and 1.3 with forward secrecy and AEAD only; ``None`` for plain HTTP."""
    if not settings.tls:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(settings.certificate, settings.private_key, password=b"")  # never ask a terminal
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            "the TLS certificate and key cannot be used together",
            code="certificate_unusable",
            field=settings.certificate,
            hint="PEM files; the key must be the certificate's, and without a passphrase",
        ) from error
    return context


def main() -> None:
    """Be one of several workers, until the parent goes."""
    logging.basicConfig(format="%(levelname)s %(name)s %(message)s")
    start = msgspec.json.decode(sys.stdin.buffer.readline(), type=Start)
    harden(start.settings.max_connections)
    store = open_store(start.settings, start.instance, start.root_key)
    try:
        program = Program(start.settings, store, number=start.number)
        listener = socket.socket(fileno=start.descriptor)

        def ready(stop: asyncio.Event) -> None:
            asyncio.get_running_loop().add_reader(0, stop.set)  # the parent never writes again: this is its end
            sys.stdout.write("ready\n")
            sys.stdout.flush()

        run(program, listener, ready)
    finally:
        store.close()


if __name__ == "__main__":
    main()
