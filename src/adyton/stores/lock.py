"""One broker per data directory: who holds the lock may decide and acknowledge.

Two files, both held by ``flock`` so that the kernel lets go when a process dies, however it dies:

* ``broker.lock`` is held exclusively by the broker's first process. It names that broker's *instance*.
* ``workers.lock`` is held shared by every process of that broker. A new broker must hold it exclusively for a moment,
  so workers that outlived a killed parent keep it out: two generations of workers never serve the same data.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path

from adyton.errors import ConfigError, PlatformError, Unavailable

_BROKER = "broker.lock"
_WORKERS = "workers.lock"


class BrokerLock:
    """A held lock. ``instance`` is what other worker processes of the same broker join with; it is not a secret."""

    __slots__ = ("_descriptors", "instance")

    def __init__(self, instance: str, descriptors: tuple[int, ...]) -> None:
        self.instance = instance
        self._descriptors = descriptors

    @classmethod
    def take(cls, directory: Path) -> BrokerLock:
        """Become the broker of ``directory``; ``ConfigError`` ``broker_running`` if there is one already."""
        broker = _open(directory / _BROKER)
        try:
            if not _lock(broker, fcntl.LOCK_EX):
                raise _running(directory, os.pread(broker, 200, 0).decode("ascii", "replace").strip())
            workers = _open(directory / _WORKERS)
        except BaseException:
            os.close(broker)
            raise
        try:
            if not _lock(workers, fcntl.LOCK_EX):
                raise _running(directory, "worker processes of an earlier broker")
            instance = uuid.uuid4().hex
            os.ftruncate(broker, 0)
            os.pwrite(broker, f"{instance} pid {os.getpid()}\n".encode("ascii"), 0)
            _lock(workers, fcntl.LOCK_SH)
        except BaseException:
            os.close(workers)
            os.close(broker)
            raise
        return cls(instance, (workers, broker))

    @classmethod
    def join(cls, directory: Path, instance: str) -> BrokerLock:
        """Work for the broker that took the lock as ``instance``; ``ConfigError`` if it is gone or another."""
        workers = _open(directory / _WORKERS)
        broker = _open(directory / _BROKER)
        try:
            # Shared first, then look: a successor cannot get in between, because it needs this lock exclusively.
            shared = _lock(workers, fcntl.LOCK_SH)
            named = os.pread(broker, 200, 0).decode("ascii", "replace").split(" ", 1)[0]
            if not shared or named != instance or _lock(broker, fcntl.LOCK_SH):
                raise ConfigError(
                    "the broker that this worker belongs to no longer runs",
                    code="broker_gone",
                    field=str(directory),
                    hint="start the broker again; it starts its own workers",
                )
        except BaseException:
            os.close(workers)
            raise
        finally:
            os.close(broker)
        return cls(instance, (workers,))

    def release(self) -> None:
        """Let go. Harmless when done twice."""
        descriptors, self._descriptors = self._descriptors, ()
        for descriptor in descriptors:
            os.close(descriptor)


def holder(directory: Path) -> int | None:
    """The process that is the broker of ``directory`` now, or ``None``: a number in a file may be anybody's by now."""
    try:
        descriptor = os.open(directory / _BROKER, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if _lock(descriptor, fcntl.LOCK_SH):
            return None
        number = os.pread(descriptor, 200, 0).decode("ascii", "replace").strip().rpartition(" pid ")[2]
    finally:
        os.close(descriptor)
    return int(number) if number.isdigit() else None


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise PlatformError(
            f"cannot open the broker's lock file: {error.strerror}",
            code="lock_unusable",
            field=str(path),
            hint="the data directory must be writable by the broker's user",
        ) from error


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise Unavailable(
            f"the file system cannot lock files: {error.strerror}",
            code="lock_unusable",
            hint="put the broker's data on a local file system",
        ) from error
    return True


def _running(directory: Path, holder: str) -> ConfigError:
    return ConfigError(
        "another broker uses this data directory",
        code="broker_running",
        field=str(directory),
        got=holder or None,
        hint="stop the other broker, or give this one a directory of its own",
    )
