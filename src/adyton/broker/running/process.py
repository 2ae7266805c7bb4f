"""What a process that holds an owner's secrets does to itself first."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

_PR_SET_DUMPABLE = 4
_SPARE_FILES = 512
SWITCH_SECONDS = 0.0001
_SO_ATTACH_FILTER = 26
_FLAGS, _SYN = 13, 0x02  # of a TCP header: which byte has the flags, and that of who begins
_NO_BEGINNING = b"".join(  # BPF over a packet from its TCP header on
    (
        struct.pack("HBBI", 0x30, 0, 0, _FLAGS),  # load that byte
        struct.pack("HBBI", 0x45, 0, 1, _SYN),  # is the bit set?
        struct.pack("HBBI", 0x06, 0, 0, 0),  # then none of it
        struct.pack("HBBI", 0x06, 0, 0, 0xFFFFFFFF),  # else all
    )
)
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4


def settle() -> None:
    """What is in memory stays: later collections need not look at it, and a young one is a pause of 1 ms, not of 5."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 200, 50)


def harden(connections: int) -> None:
    """No core file, memory closed to others of the same user, new files for this user only, room for its connections.

    Whatever umask it was started under: what it makes is readable and writable by its owner, and by nobody else.
    """
    # A policy that is read in another thread must not hold up the loop, which lets the interpreter go and has to win it
    # back some ten times in each appraisal (every read of the store): so often it may wait for this long.
    sys.setswitchinterval(SWITCH_SECONDS)
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    _keep_out_of_swap()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _SPARE_FILES  # turning a client away takes a descriptor too
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )


def turn_away(listener: socket.socket) -> None:
    """Let no new connection begin; those in the listener's queue, and those that have begun, come to stand and are taken.

    Closing a listener resets what is in its queue: clients whose connection stands and who have asked already. The last
    step of TCP's three must get through: for the client the connection stands before it, for this side after it. And a
    connection inherits its listener's filter, so one that dropped everything could keep it deaf.
    """
    code = ctypes.create_string_buffer(_NO_BEGINNING, len(_NO_BEGINNING))
    program = struct.pack("HxxxxxxP", len(_NO_BEGINNING) // 8, ctypes.addressof(code))
    with suppress(OSError):  # not on this system: then the queue's last ones are lost
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _keep_out_of_swap() -> None:
    """Where there is swap and this process may: no page of it is ever written there. Best effort; ``doctor`` tells.

    Only without a limit: under one, the first allocation beyond it would fail.
    """
    try:
        swapping = len(Path("/proc/swaps").read_text().splitlines()) > 1
    except OSError:
        swapping = False
    if swapping and resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        ctypes.CDLL(None).mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT)
