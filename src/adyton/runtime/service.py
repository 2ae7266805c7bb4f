"""Starting the platform service when it is not there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adyton.errors import PlatformError, Unavailable
from adyton.runtime.control import Control

_PATIENCE = 60.0  # its first start may make a root (two RSA keys) and build the guest


@dataclass(frozen=True, slots=True)
class Service:
    """Where the service listens, how it is started, and where what it says goes."""

    socket: Path
    command: Sequence[str]
    log: Path


def connect(service: Service, say: Callable[[str], None]) -> Control:
    """A connection; the service is started first if nobody answers, and ``say`` gets the line that tells so."""
    try:
        return Control.connect(service.socket)
    except Unavailable:
        pass
    say("adyton: starting the development TEE's platform service (no hardware protection)")
    try:
        service.log.parent.mkdir(parents=True, exist_ok=True)
        with service.log.open("ab") as log:
            position = log.tell()
            process = subprocess.Popen(
                [sys.executable, *service.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                env=_environment(),
            )
    except OSError as error:
        raise PlatformError(
            "the platform service cannot be started", code="platform_start_failed", got=error.strerror
        ) from error
    return _await(service, process, position)


def _await(service: Service, process: subprocess.Popen[bytes], position: int) -> Control:
    end = time.monotonic() + _PATIENCE
    pause = 0.005
    while time.monotonic() < end:
        ended = process.poll() is not None
        try:
            control = Control.connect(service.socket)
        except Unavailable:
            if ended:
                break
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)
            continue
        # It outlives this process on purpose; nobody is left to wait for it, which is all that Popen would warn of.
        process.returncode = 0
        return control
    said = _tail(service.log, position)
    raise PlatformError(
        "the platform service did not start",
        code="platform_start_failed",
        got=said or "it said nothing",
        hint=f"its log is {service.log}; or start it where it can be seen: adyton devtee serve",
    )


def _environment() -> dict[str, str]:
    """What the service needs of the caller's environment, and no more: it outlives the caller."""
    kept = ("PATH", "HOME", "LANG", "ADYTON_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "PYTHONPATH", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ}


def _tail(log: Path, position: int) -> str:
    with log.open("rb") as stream:
        stream.seek(position)
        lines = stream.read(65536).decode("utf-8", "replace").strip().splitlines()
    return " / ".join(lines[-4:])[:600]
