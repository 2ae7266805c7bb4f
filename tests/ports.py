"""Loopback ports for programs that must be told one: each stays this process's own, whatever else takes ports meanwhile.

A socket that is bound, does not listen and has SO_REUSEADDR keeps the kernel from giving its port to anybody who asks
for some port, and does not keep a server from listening there that sets SO_REUSEADDR, as servers do.
"""

from __future__ import annotations

import atexit
import socket

from tests.waiting import until

_held: dict[int, socket.socket] = {}


def reserve() -> int:
    """A port that nobody has."""
    while True:
        if (port := _hold(0)) is not None:
            return port


def reserve_two() -> int:
    """The first of two neighbours that nobody has."""
    for _ in range(1000):
        port = reserve()
        if port < 65535 and _hold(port + 1) is not None:
            return port
    raise RuntimeError("no two neighbouring ports are free")


def keep(port: int) -> None:
    """Keep ``port`` for who listens there next; its last listener has ended, or is about to."""
    until(lambda: port in _held or _hold(port) is not None)


def _hold(port: int) -> int | None:
    holder = socket.socket()
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
    except OSError:
        holder.close()
        return None
    got = int(holder.getsockname()[1])
    _held[got] = holder
    return got


@atexit.register
def _close() -> None:
    for holder in _held.values():
        holder.close()
