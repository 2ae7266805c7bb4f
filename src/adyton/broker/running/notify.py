"""Telling systemd how it goes: one datagram each, to the socket that ``NOTIFY_SOCKET`` names. Without one, nothing."""

from __future__ import annotations

import os
import socket
import time

_NAME = "NOTIFY_SOCKET"


def ready(status: str = "") -> None:
    """Requests are answered."""
    _tell("READY=1", f"STATUS={status}" if status else "")


def reloading() -> None:
    """Settings are read again; ``ready`` follows."""
    _tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> None:
    """The end has begun."""
    _tell("STOPPING=1")


def _tell(*lines: str) -> None:
    name = os.environ.get(_NAME, "")
    if not name.startswith(("/", "@")):
        return
    address = "\0" + name[1:] if name.startswith("@") else name
    text = "\n".join(line.replace("\n", " ") for line in lines if line)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as there:
        there.settimeout(1.0)
        try:
            there.sendto(text.encode(), address)
        except OSError:  # nobody listens any more: no reason to end
            return
