"""What the service asks of the kernel beyond Python's library: sealed memory, loop devices, PID namespaces.

Every failure is a ``PlatformError`` that says what this machine lacks and how to get it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import stat
import struct
import sys
from pathlib import Path

from adyton.errors import PlatformError

_CLONE_NEWPID = 0x20000000
_PR_SET_DUMPABLE = 4
_F_ADD_SEALS, _F_GET_SEALS = 1033, 1034
_ALL_SEALS = 1 | 2 | 4 | 8  # no more seals, no shrinking, no growing, no writing
_LOOP_CONFIGURE, _LOOP_GET_FREE = 0x4C0A, 0x4C82
_LOOP_CONFIG_SIZE, _LOOP_FLAGS_AT = 4 + 4 + 232 + 64, 8 + 40 + 12
_LOOP_READ_ONLY, _LOOP_AUTOCLEAR = 1, 4
_LOOP_MAJOR = 7
_SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 430, 431, 432  # the same numbers on every architecture
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CREATE, _MOUNT_ATTR_RDONLY = 0, 1, 6, 1
_PRIVILEGED = "run as root on a machine or in a container that may mount: docker run --privileged"

_DEFAULTS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}

_libc = ctypes.CDLL(None, use_errno=True)


def protect_process() -> None:
    """No core file of this process, no look into its memory by others of the same user: it holds signing keys."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise _unfit("this process cannot be made undumpable", "undumpable_refused", ctypes.get_errno())


def seal(descriptor: int) -> None:
    """From now on nobody, root included, changes the content of this memory file."""
    try:
        fcntl.fcntl(descriptor, _F_ADD_SEALS, _ALL_SEALS)
        sealed = fcntl.fcntl(descriptor, _F_GET_SEALS) == _ALL_SEALS
    except OSError as error:
        raise _unfit("the kernel does not seal memory files", "memfd_seal_refused", error.errno) from error
    if not sealed:
        raise _unfit("the kernel does not seal memory files", "memfd_seal_refused", None)


class LoopDevice:
    """A read-only block device over a sealed memory file.

    It ends by itself when this object is closed or the process is gone, and nothing has it mounted any more.
    """

    def __init__(self, memory: int) -> None:
        """``memory`` is a sealed memfd; it may be closed afterwards."""
        backing = os.open(f"/proc/self/fd/{memory}", os.O_RDONLY | os.O_CLOEXEC)  # a writable one cannot be attached
        try:
            self.path, self._descriptor = _attach(backing)
        finally:
            os.close(backing)
        self._held: list[int] = []

    def keep_mounted(self, kind: str) -> None:
        """Hold a mount of it that nobody can see, so that what one instance reads is in memory for the next.

        Every mount of one device shares the kernel's cache of its files, which goes with the last. A kernel that does
        not know such mounts is only slower.
        """
        context = _libc.syscall(_SYS_FSOPEN, kind.encode(), 1)
        if context < 0:
            return
        try:
            for command, key, value in (
                (_FSCONFIG_SET_STRING, b"source", os.fsencode(self.path)),
                (_FSCONFIG_SET_FLAG, b"ro", None),
                (_FSCONFIG_CREATE, None, None),
            ):
                if _libc.syscall(_SYS_FSCONFIG, context, command, key, value, 0) < 0:
                    return
            mounted = _libc.syscall(_SYS_FSMOUNT, context, 1, _MOUNT_ATTR_RDONLY)
            if mounted >= 0:
                self._held.append(mounted)
        finally:
            os.close(context)

    def close(self) -> None:
        """Let go of it."""
        while self._held:
            os.close(self._held.pop())
        os.close(self._descriptor)


def _attach(backing: int) -> tuple[Path, int]:
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise _unfit(
            "this machine has no loop devices", "loop_missing", error.errno, hint=f"modprobe loop; {_PRIVILEGED}"
        ) from error
    try:
        for _ in range(64):  # another process may take the free one first
            number = fcntl.ioctl(control, _LOOP_GET_FREE)
            path = Path(f"/dev/loop{number}")
            if not path.exists():  # a static /dev
                os.mknod(path, 0o660 | stat.S_IFBLK, os.makedev(_LOOP_MAJOR, number))
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            configuration = bytearray(_LOOP_CONFIG_SIZE)
            struct.pack_into("<II", configuration, 0, backing, 4096)
            struct.pack_into("<I", configuration, _LOOP_FLAGS_AT, _LOOP_READ_ONLY | _LOOP_AUTOCLEAR)
            try:
                fcntl.ioctl(descriptor, _LOOP_CONFIGURE, bytes(configuration))
            except OSError as error:
                os.close(descriptor)
                if error.errno != errno.EBUSY:
                    raise
            else:
                return path, descriptor
    except OSError as error:
        raise _unfit("a loop device cannot be set up", "loop_refused", error.errno, hint=_PRIVILEGED) from error
    finally:
        os.close(control)
    raise _unfit("no loop device stays free for long enough", "loop_refused", None)


class Nursery:
    """Starts launchers as the first process of a new PID namespace each.

    ``launcher`` is kept in a sealed memory file, so that the bytes that run are the bytes that were measured. Use it
    from one thread that outlives the instances: they are tied to it.
    """

    def __init__(self, launcher: bytes) -> None:
        self._own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._launcher = os.memfd_create("adyton-launcher", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.write(self._launcher, launcher)
        seal(self._launcher)
        self._interpreter = str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())

    def start(self, streams: tuple[int, int, int], channel: int) -> int:
        """The new process's id: it has these three streams, ``channel`` as descriptor 3 and an empty environment."""
        wanted = (*streams, channel, self._launcher)
        # Away from 0 to 4 first: descriptors that came in may themselves be among them.
        high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10) for descriptor in wanted]
        actions = [(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(high)]
        command = [self._interpreter, "-I", "-S", "-B", f"/proc/self/fd/{len(high) - 1}"]
        try:
            if _libc.unshare(_CLONE_NEWPID) != 0:
                raise _unfit(
                    "a PID namespace cannot be made", "namespace_refused", ctypes.get_errno(), hint=_PRIVILEGED
                )
            try:
                return os.posix_spawn(
                    command[0],
                    command,
                    {},
                    file_actions=actions,
                    setsid=True,
                    setsigdef=_DEFAULTS,
                    setsigmask=(),
                )
            except OSError as error:
                raise _unfit("the launcher cannot be started", "launch_failed", error.errno) from error
            finally:
                if _libc.setns(self._own, _CLONE_NEWPID) != 0:  # pragma: no cover -- the kernel allows one's own
                    os._exit(70)  # every later child would land in an instance: better no service at all
        finally:
            for descriptor in high:
                os.close(descriptor)


def _unfit(message: str, code: str, number: int | None, *, hint: str | None = None) -> PlatformError:
    return PlatformError(message, code=code, got=os.strerror(number) if number else None, hint=hint)
