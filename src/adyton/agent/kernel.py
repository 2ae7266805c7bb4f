"""System calls that Python 3.11 has no name for: mounts, namespaces, process attributes, lookups within a root.

Thin: every failure is the kernel's ``OSError`` with the call's name; callers know what it means for their step.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 0x1, 0x2, 0x4, 0x8, 0x20, 0x1000
CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_READ, _PR_SET_CHILD_SUBREAPER = 1, 4, 23, 36
_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10
_OPEN_HOW = struct.Struct("=QQQ")  # flags, mode, resolve

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """The system call of that name."""
    _check("mount", _libc.mount(os.fsencode(source), os.fsencode(target), kind.encode(), flags, data.encode()))


def setns(descriptor: int, kind: int) -> None:
    """Move the calling **thread** into the namespace behind ``descriptor``."""
    _check("setns", _libc.setns(descriptor, kind))


def open_in_root(root: int, path: str, flags: int = os.O_RDONLY) -> int:
    """Open ``path`` as a process chrooted to the directory ``root`` would: no link and no ``..`` leads out of it."""
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    return _check("openat2", _libc.syscall(_SYS_OPENAT2, root, os.fsencode(path), how, len(how)))


def become_subreaper() -> None:
    """Orphans below this process become its children, as they do for the first process of a PID namespace."""
    _check("prctl", _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def make_undumpable() -> None:
    """No core file of this process, and its memory not for others of the same user."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    _check("prctl", _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def may_give(capability: int) -> bool:
    """Whether this process could hand the capability on (it is in its bounding set)."""
    return bool(_libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) == 1)


def open_namespace(pid: int, name: str) -> int:
    """A descriptor of one of a process's namespaces."""
    return os.open(Path("/proc") / str(pid) / "ns" / name, os.O_RDONLY | os.O_CLOEXEC)


def _check(name: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result
