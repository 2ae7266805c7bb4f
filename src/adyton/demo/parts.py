"""The programs of the demo: started, waited for, and always ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from adyton.errors import PlatformError, Unavailable

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE, _MS_NOSUID, _MS_NODEV, _MNT_DETACH = 0x4000, 1 << 18, 2, 4, 2


class Program:
    """A child process with its output in a file. Leaving the context ends it: TERM, and KILL after ten seconds."""

    def __init__(self, name: str, command: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self._command = list(command)
        self._log = log
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,  # the terminal's interrupt is ours to pass on, in order
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it, if it still runs."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def wait_until(self, ready: Callable[[], bool], seconds: float = 120) -> None:
        """Until ``ready()``; ``Unavailable`` with the end of its output if it dies or takes too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            process = self._process
            if process is None or process.poll() is not None or time.monotonic() > deadline:
                raise Unavailable(
                    f"{self.name} did not start",
                    code="part_not_started",
                    hint=f"it said: {self.output()[-2000:].strip()}",
                )
            time.sleep(0.02)

    def output(self) -> str:
        """Everything that it has said."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""


def adyton_command(*arguments: str) -> list[str]:
    """``adyton …`` as a child process of this interpreter."""
    return [sys.executable, "-m", "adyton", *arguments]


def answers(port: int) -> bool:
    """Whether something listens on this loopback port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def own_port() -> Iterator[int]:
    """A loopback port that the system gives to nobody else meanwhile.

    It is bound, and nobody listens: a server that sets SO_REUSEADDR, as servers do, can.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


def registry(directory: Path, port: int, log: Path) -> Program:
    """Debian's ``docker-registry`` on a loopback port, storing under ``directory``."""
    program = shutil.which("docker-registry") or shutil.which("registry")
    if program is None:
        raise PlatformError(
            "docker-registry is missing", code="package_missing", hint="apt-get install docker-registry"
        )
    directory.mkdir(parents=True, exist_ok=True)
    configuration = directory.parent / "registry.yml"
    configuration.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {directory}}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    return Program(
        "the registry",
        [program, "serve", str(configuration)],
        log=log,
        environment={"PATH": os.environ.get("PATH", "")},
    )


def private_mounts() -> None:
    """Give this process, and those it starts, a mount namespace: what is mounted here vanishes with the last of them."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) or libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        raise _os_error("a private mount namespace")


@contextlib.contextmanager
def tmpfs(directory: Path, size: str = "64m") -> Iterator[None]:
    """A tmpfs for the owner's plaintext: never on disk, and not in swap where the kernel knows ``noswap``."""
    libc = ctypes.CDLL(None, use_errno=True)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for options in (f"mode=0700,size={size},noswap", f"mode=0700,size={size}"):
        if not libc.mount(b"tmpfs", os.fsencode(directory), b"tmpfs", _MS_NOSUID | _MS_NODEV, options.encode()):
            break
    else:
        raise _os_error("a tmpfs")
    try:
        yield
    finally:
        libc.umount2(os.fsencode(directory), _MNT_DETACH)


def _os_error(what: str) -> PlatformError:
    number = ctypes.get_errno()
    return PlatformError(
        f"the demo needs {what}: {os.strerror(number)}",
        code="not_permitted_here",
        hint="run it as root: sudo make demo",
    )
