"""Starting the platform service: protect the process, take the lock, make or load what it needs, open its socket.

One service at a time has a directory and its socket; a lock says so. Who comes second waits until the first one can be
reached, or has gone, so that two callers who start a service at once both find one.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import stat
import time
from collections.abc import Callable
from datetime import datetime

from adyton.devtee.root import DevelopmentRoot
from adyton.errors import Conflict, PlatformError
from adyton.platform import machine
from adyton.platform.guest import LoadedGuest
from adyton.platform.service import Service
from adyton.platform.settings import Settings
from adyton.protocol import devtee
from adyton.rats.ports import Progress

_BACKLOG = 128
_PATIENCE = 60.0  # seconds for another service to come up: it may be making its root


def serve(
    settings: Settings,
    clock: Callable[[], datetime],
    announce: Callable[[devtee.Platform], None],
    progress: Progress | None = None,
) -> None:
    """Run the service in this process until it ends. ``announce`` is called once it can be reached.

    ``PlatformError`` or ``ConfigError`` say what this machine lacks; ``Conflict`` that there is a service already.
    """
    machine.protect_process()
    with contextlib.ExitStack() as held:
        held.callback(os.close, _take_lock(settings))
        root = DevelopmentRoot.create(settings.devtee, clock(), progress)
        guest = LoadedGuest.load(settings.guest)
        held.callback(guest.device.close)
        listener = _listen_on(settings)
        held.callback(settings.socket.unlink, missing_ok=True)
        try:
            for directory in (settings.mount_point, settings.store, settings.volumes):
                directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _directory(error) from error

        async def main() -> None:
            service = Service(settings, root, guest, clock)
            announce(service.about)
            await service.serve(listener)

        asyncio.run(main())


def _take_lock(settings: Settings) -> int:
    try:
        settings.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = settings.run.stat()
        if status.st_uid != os.geteuid():
            raise PlatformError(
                "the directory for the control socket belongs to somebody else",
                code="run_directory_foreign",
                field=str(settings.run),
                expected=os.geteuid(),
                got=status.st_uid,
            )
        if stat.S_IMODE(status.st_mode) & 0o077:
            settings.run.chmod(0o700)
        lock = os.open(settings.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _directory(error) from error
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if not _answers(settings) and time.monotonic() < end:
                time.sleep(0.05)
                continue
            os.close(lock)
            raise Conflict(
                "a platform service is running here already",
                code="service_running",
                field=str(settings.socket),
                hint="adyton devtee show; adyton devtee stop",
            ) from error
        return lock


def _answers(settings: Settings) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.connect(str(settings.socket))
        return True
    return False


def _listen_on(settings: Settings) -> socket.socket:
    """The control socket, for this user only. The lock is held: a socket that is there is a dead service's."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    mask = os.umask(0o177)
    try:
        settings.socket.unlink(missing_ok=True)
        listener.bind(str(settings.socket))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise PlatformError(
            f"the control socket cannot be made: {error.strerror or error}",
            code="socket_failed",
            field=str(settings.socket),
            hint="a socket's path has at most 107 bytes: choose a shorter ADYTON_HOME",
        ) from error
    finally:
        os.umask(mask)
    return listener


def _directory(error: OSError) -> PlatformError:
    return PlatformError(
        f"a directory of the development TEE cannot be used: {error.strerror}",
        code="directory_failed",
        field=str(error.filename),
        hint="ADYTON_HOME=DIR puts everything elsewhere",
    )
