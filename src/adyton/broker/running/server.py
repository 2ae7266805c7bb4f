"""Starting a broker: data directory, certificate, token, socket; then one worker in this process, or several beside it.

The first process holds the directory's lock, so a second broker on the same data is refused. SIGHUP reads the settings
again, SIGUSR2 relieves the workers (``supervisor.py``), SIGTERM and SIGINT end it all after what is under way.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Protocol, TypeVar

import msgspec

from adyton.broker.custodians import attesting
from adyton.broker.custodians.custody import RootKeyFinder
from adyton.broker.door import certificate, tls
from adyton.broker.policy.policies import PolicyBook
from adyton.broker.policy.rego import RegoEngine
from adyton.broker.running import fips, notify, replicas
from adyton.broker.running.opening import open_store
from adyton.broker.running.process import harden
from adyton.broker.running.serving import ADMIN, METRICS, PUBLIC, Ending, Listeners
from adyton.broker.running.supervisor import Supervisor
from adyton.broker.running.worker import Program
from adyton.broker.running.worker_process import run
from adyton.broker.settings import LIVE, Settings, address, check, merged
from adyton.crypto import profile
from adyton.crypto.aead import random_bytes
from adyton.errors import ConfigError, PlatformError
from adyton.stores.backends import options
from adyton.stores.sqlite import Store
from adyton.wire import b64

DESCRIPTION = "broker.json"
_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 -- what an operator may write
_LOG = logging.getLogger(__name__)
_S = TypeVar("_S", bound=Settings)


class Live(Protocol[_S]):
    """What goes on with other settings while it serves."""

    settings: _S

    def apply(self, settings: _S) -> None:
        """Go on with these."""
        ...


@dataclass(frozen=True, slots=True)
class Listening:
    """What a broker says when it serves. ``pin`` is ``None`` without TLS; ``root_key_by``: who gave the root key."""

    url: str
    pin: str | None
    settings: Settings
    description: Path
    root_key_by: str
    admin_url: str
    metrics_url: str | None
    peers_url: str = ""


def prepare(settings: _S, *, tls: bool) -> _S:
    """The directory, the admin token and, if ``tls`` asks for one and none is given, a certificate, made if absent."""
    check(settings if not tls else msgspec.structs.replace(settings, client_ca=""))  # its TLS is made below
    fips.check_start(fips=settings.fips, accept_unvalidated=settings.unvalidated_module)
    if settings.backends_file:
        options.read(Path(settings.backends_file))  # said here, not by a worker that does not start
    harden(settings.connections)
    directory = settings.directory
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_directory(directory)
        if not settings.admin_token.exists():
            made = (b64.encode_url(random_bytes(32)) + "\n").encode()
            certificate.write_private(settings.admin_token, made, replace=False)
        if tls and not settings.certificate:
            made_certificate, key = certificate.make(directory / "tls", _names(settings), _now())
            settings = msgspec.structs.replace(settings, certificate=str(made_certificate), private_key=str(key))
    except OSError as error:
        raise ConfigError(
            f"the broker's data directory cannot be written: {error.strerror}",
            code="data_unwritable",
            field=str(directory),
            hint="give one that is yours: --data DIR",
        ) from error
    return settings


def _check_directory(directory: Path) -> None:
    status = directory.stat()
    if status.st_mode & 0o022 or status.st_uid not in {0, os.geteuid()}:
        raise ConfigError(
            "others may write in the broker's data directory: they could put their own token, key or store there",
            code="data_exposed",
            field=str(directory),
            expected="a directory of this user that nobody else may write in",
            got=f"mode {stat.S_IMODE(status.st_mode):04o}, user {status.st_uid}",
            hint="give the broker a directory of its own: --data DIR",
        )


def _names(settings: Settings) -> list[str]:
    """What clients may call this broker, for its own certificate."""
    host = socket.gethostname()
    names = ["localhost", "127.0.0.1", "::1", *settings.names]
    if host.isascii() and host.replace("-", "").replace(".", "").isalnum():
        names.append(host)
    return names if settings.host in _EVERYWHERE else [*names, settings.host]


def serve(
    settings: Settings,
    announce: Callable[[Listening], None],
    find_root_key: RootKeyFinder | None = None,
    *,
    again: Callable[[], Settings] | None = None,
) -> None:
    """Run until SIGTERM or SIGINT. ``announce`` is called once connections are answered.

    ``again`` gives the settings as they are written now, or raises ``ConfigError``: for SIGHUP.
    """
    harden(settings.connections)
    until_it_serves()
    finder = find_root_key or RootKeyFinder(settings)
    if settings.attester:
        attesting.attester_of(settings.attester)  # what cannot be used stops the start
    store = open_store(settings, root_key=finder)
    listeners: dict[str, socket.socket] = {}
    try:
        finder.note(store)
        _check_policies(settings, store)
        listeners[PUBLIC] = listen(settings.host, settings.port)
        for name, field, text in (
            (ADMIN, "admin-listen", settings.admin_listen),
            (METRICS, "metrics", settings.metrics_listen),
        ):
            if text:
                listeners[name] = listen(*address(field, text))
        with _peers(settings, store, finder.root_key) as peers_url:
            listening = _describe(settings, listeners, finder.by, peers_url)

            def ready() -> None:
                announce(listening)
                notify.ready(f"serving {listening.url}")

            read_again = partial(reread, again)
            if settings.workers == 1:
                program = Program(settings, store)
                run(program, listeners, lambda ending: alone(program, ending, read_again, ready))
            else:
                Supervisor(settings, store, listeners, finder.root_key, read_again).run(ready)
    finally:
        after_it_served()
        (settings.directory / DESCRIPTION).unlink(missing_ok=True)
        for listener in listeners.values():
            listener.close()
        store.close()


def after_it_served() -> None:
    """Signals mean nothing any more: what is left takes a moment, and must be done."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def until_it_serves() -> None:
    """What signals mean before there is anything to reload or to drain."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)  # and not at once: what was begun is put away

    signal.signal(signal.SIGTERM, leave)
    for number in (signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the settings were read just now


def alone(program: Live[_S], ending: Ending, read_again: Callable[[_S], _S | None], ready: Callable[[], None]) -> None:
    """One worker, in this very process: it hears signals itself."""
    loop = asyncio.get_running_loop()

    def hang_up() -> None:
        notify.reloading()
        try:
            settings = read_again(program.settings)
            if settings is not None:
                program.apply(settings)
        finally:
            notify.ready()

    def end() -> None:
        notify.stopping()
        ending.wish()

    loop.add_signal_handler(signal.SIGHUP, hang_up)
    loop.add_signal_handler(signal.SIGUSR2, _LOG.error, "one worker cannot relieve itself: --workers 2, or a new start")
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    ready()


def reread(again: Callable[[], _S] | None, old: _S) -> _S | None:
    """The settings to go on with, or ``None`` if they cannot be read: then the old ones stay. Says what cannot change."""
    if again is None:
        return old
    try:
        settings, stuck = merged(old, check(again()))
    except ConfigError as error:
        facts = error.as_dict()
        told = "; ".join(f"{name} {facts[name]}" for name in ("field", "expected", "got") if facts[name] is not None)
        _LOG.error("settings are not read again, the old ones stay: %s (%s) [%s]", error.message, told, error.code)
        return None
    if stuck:
        _LOG.warning("these settings change only when the broker starts anew: %s", ", ".join(stuck))
    changed = [name for name in LIVE if getattr(old, name) != getattr(settings, name)]
    _LOG.info("settings were read again; changed: %s", ", ".join(sorted(changed)) or "none")
    return settings


def _check_policies(settings: Settings, store: Store) -> None:
    """See at start, not at the first request, that the policy engine works and takes every policy that is set."""
    engine = RegoEngine()
    try:
        for error in PolicyBook(store, engine).broken():
            if not settings.keep_broken_policies:
                raise error
            _LOG.warning("%s: %s [%s]", error.field, error.message, error.code)
    finally:
        engine.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; ``PlatformError`` ``listen_failed``."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(1024)
    except OSError as error:
        raise PlatformError(
            f"cannot listen on {host} port {port}: {error.strerror}",
            code="listen_failed",
            field="listen",
            got=f"{host}:{port}",
            hint="another program may have the port: --listen ADDR:PORT (port 0 takes a free one)",
        ) from error
    return listener


def _describe(settings: Settings, listeners: Listeners, root_key_by: str, peers_url: str) -> Listening:
    """Write ``broker.json``: how administrators on this machine reach the broker. No secret in it."""
    scheme = "https" if settings.tls else "http"
    url = url_of(scheme, settings.host, listeners[PUBLIC])
    admin = (
        url_of(scheme, address("admin-listen", settings.admin_listen)[0], listeners[ADMIN])
        if ADMIN in listeners
        else url
    )
    metrics = (
        url_of("http", address("metrics", settings.metrics_listen)[0], listeners[METRICS])
        if METRICS in listeners
        else None
    )
    pin = certificate.pin(Path(settings.certificate)) if settings.tls else None
    description = settings.directory / DESCRIPTION
    content = {
        "url": admin,
        "public_url": url,
        "metrics_url": metrics,
        "pin": pin,
        "admin_token_file": str(settings.admin_token),
        "certificate": settings.certificate or None,
        "environment": settings.environment,
        "endorsements": settings.endorsements,
        "peers": peers_url or None,
        "database": replicas.where(settings),
        "fips": msgspec.to_builtins(fips.state(fips=settings.fips)),
        "attester": settings.attester.partition(":")[0] or None,
        "workers": settings.workers,
        "pid": os.getpid(),
    }
    certificate.write_private(description, (json.dumps(content, indent=1) + "\n").encode())
    return Listening(url, pin, settings, description, root_key_by, admin, metrics, peers_url)


@contextmanager
def _peers(settings: Settings, store: Store, root_key: bytes) -> Iterator[str]:
    """The port for peers, if there is to be one; its URL, or an empty text."""
    if not settings.accept_peers:
        yield ""
        return
    from adyton.broker.custodians import peer_door
    from adyton.broker.custodians.peers import Giver, Instance

    host, port = address("accept-peers", settings.accept_peers)
    identity = tls.read(settings)
    context = tls.context(identity, settings, clients=False) if identity is not None else None
    ciphers = profile.of(fips=settings.fips).ciphers
    giver = Giver(Instance.of(settings, _now()), store, root_key)
    with listen(host, port) as listener, peer_door.opened(giver, listener, context, ciphers):
        yield url_of("https" if settings.tls else "http", host, listener)


def url_of(scheme: str, host: str, listener: socket.socket) -> str:
    """How the listener is reached from this machine."""
    return f"{scheme}://{reached(host, listener.getsockname()[1])}"


def reached(host: str, port: int) -> str:
    """``ADDR:PORT`` of a listener, for who is on this machine."""
    if host in _EVERYWHERE:  # that includes loopback, which is how to reach it from here
        host = "127.0.0.1" if host != "::" else "::1"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)
