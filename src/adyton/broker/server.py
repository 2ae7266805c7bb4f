"""Starting a broker: data directory, certificate, token, socket; then one worker in this process, or several beside it.

The first process holds the directory's lock, so a second broker on the same data is refused. Several workers are
processes of their own (elliptic curves hold the interpreter's lock) that share the listening socket; one that dies is
replaced, unless they die as fast as they are started.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import msgspec

from adyton.broker import certificate
from adyton.broker.custody import RootKeyFinder
from adyton.broker.policies import PolicyBook
from adyton.broker.process import harden
from adyton.broker.rego import RegoEngine
from adyton.broker.settings import Settings, check
from adyton.broker.worker import DRAIN_SECONDS, Program, Start, open_store, run
from adyton.crypto.aead import random_bytes
from adyton.errors import ConfigError, PlatformError, Unavailable
from adyton.stores.sqlite import Store
from adyton.wire import b64

DESCRIPTION = "broker.json"
_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 -- what an operator may write
QUICK_DEATHS = 5
QUICK_SECONDS = 10.0
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listening:
    """What a broker says when it serves. ``pin`` is ``None`` without TLS; ``root_key_by``: who gave the root key."""

    url: str
    pin: str | None
    settings: Settings
    description: Path
    root_key_by: str


def prepare(settings: Settings, *, tls: bool) -> Settings:
    """The directory, the admin token and, if ``tls`` asks for one and none is given, a certificate, made if absent."""
    check(settings)
    harden(settings.max_connections)
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
    settings: Settings, announce: Callable[[Listening], None], find_root_key: RootKeyFinder | None = None
) -> None:
    """Run until SIGTERM or SIGINT. ``announce`` is called once connections are answered."""
    harden(settings.max_connections)
    finder = find_root_key or RootKeyFinder(settings)
    store = open_store(settings, root_key=finder)
    try:
        _check_policies(settings, store)
        listener = _listen(settings)
        with listener:
            listening = _describe(settings, listener, finder.by)
            if settings.workers == 1:
                program = Program(settings, store)
                run(program, listener, lambda _: announce(listening))
            else:
                _supervise(settings, store, listener, finder.root_key, lambda: announce(listening))
    finally:
        (settings.directory / DESCRIPTION).unlink(missing_ok=True)
        store.close()


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


def _listen(settings: Settings) -> socket.socket:
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        raise PlatformError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}",
            code="listen_failed",
            field="listen",
            got=f"{settings.host}:{settings.port}",
            hint="another program may have the port: --listen ADDR:PORT (port 0 takes a free one)",
        ) from error
    return listener


def _describe(settings: Settings, listener: socket.socket, root_key_by: str) -> Listening:
    """Write ``broker.json``: how administrators on this machine reach the broker. No secret in it."""
    host, port = settings.host, listener.getsockname()[1]
    if host in _EVERYWHERE:  # that includes loopback, which is how to reach it from here
        host = "127.0.0.1" if host != "::" else "::1"
    shown = f"[{host}]" if ":" in host else host
    url = f"{'https' if settings.tls else 'http'}://{shown}:{port}"
    pin = certificate.pin(Path(settings.certificate)) if settings.tls else None
    description = settings.directory / DESCRIPTION
    content = {
        "url": url,
        "pin": pin,
        "admin_token_file": str(settings.admin_token),
        "certificate": settings.certificate or None,
        "environment": settings.environment,
        "pid": os.getpid(),
    }
    certificate.write_private(description, (json.dumps(content, indent=1) + "\n").encode())
    return Listening(url, pin, settings, description, root_key_by)


def _supervise(
    settings: Settings, store: Store, listener: socket.socket, root_key: bytes, ready: Callable[[], None]
) -> None:
    stopping = Event()
    workers: dict[int, subprocess.Popen[bytes]] = {}
    deaths: list[float] = []
    listener.set_inheritable(True)

    def pass_on(number: int, _: object) -> None:
        for worker in workers.values():
            worker.send_signal(number)

    handlers = {number: signal.signal(number, lambda *_: stopping.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    handlers[signal.SIGHUP] = signal.signal(signal.SIGHUP, pass_on)
    try:
        for number in range(settings.workers):
            workers[number] = _start(settings, store, listener, root_key, number)
        for worker in workers.values():
            _wait_ready(worker)
        ready()
        while not stopping.wait(0.2):
            for number, worker in list(workers.items()):
                if worker.poll() is None:
                    continue
                _LOG.error("worker %d ended with status %d; starting another", number, worker.returncode)
                now = time.monotonic()
                deaths = [*(death for death in deaths if now - death < QUICK_SECONDS), now]
                if len(deaths) >= QUICK_DEATHS:
                    raise Unavailable(
                        "the broker's workers end as fast as they are started",
                        code="workers_failing",
                        got=worker.returncode,
                        hint="the log above has their errors",
                    )
                workers[number] = _start(settings, store, listener, root_key, number)
                with suppress(PlatformError):  # then it has ended, and counts as dead above
                    _wait_ready(workers[number])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _end(workers)


def _start(
    settings: Settings, store: Store, listener: socket.socket, root_key: bytes, number: int
) -> subprocess.Popen[bytes]:
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "adyton.broker.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(listener.fileno(),),
        start_new_session=True,  # the terminal's Ctrl-C is for the first process, which tells the others
    )
    assert worker.stdin is not None  # noqa: S101 -- asked for above
    start = Start(settings, store.instance, listener.fileno(), number, root_key)
    worker.stdin.write(msgspec.json.encode(start) + b"\n")
    worker.stdin.flush()
    return worker


def _wait_ready(worker: subprocess.Popen[bytes]) -> None:
    assert worker.stdout is not None  # noqa: S101 -- asked for above
    if worker.stdout.readline() != b"ready\n":
        raise PlatformError(
            "a worker of the broker did not start", code="worker_failed", hint="its error is in the log above"
        )


def _end(workers: dict[int, subprocess.Popen[bytes]]) -> None:
    for worker in workers.values():
        if worker.stdin is not None:
            worker.stdin.close()
    end = time.monotonic() + DRAIN_SECONDS + 5
    for worker in workers.values():
        try:
            worker.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        if worker.stdout is not None:
            worker.stdout.close()


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)
