"""The OCI runtime as a part: starts the container, or says why it could not.

``run --detach`` leaves the workload's first process as this process's child (the agent is the first process of its PID
namespace, or a subreaper), so its exit status is had without anything in between. ``runc`` is taken; ``crun`` where
``runc`` does not work on this machine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adyton.errors import ImageError, PlatformError

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
NOT_FOUND = "command_not_found"  # podman's exit status 127
NOT_INVOCABLE = "command_not_invocable"  # podman's exit status 126


@dataclass(frozen=True, slots=True)
class Stdio:
    """The descriptors that become the workload's standard input, output and error."""

    stdin: int
    stdout: int
    stderr: int


class OciRuntime:
    """The first of ``candidates`` that works on this machine; ``failures`` says why the ones before it do not."""

    def __init__(self, candidates: Sequence[Path], state: Path) -> None:
        self._candidates = [path for path in candidates if os.access(path, os.X_OK)]
        self._state = state
        self.failures: list[str] = []

    def start(self, name: str, bundle: Path, stdio: Stdio, console: Path | None) -> int:
        """Start the bundle; the process id of the workload's first process.

        ``ImageError`` with ``NOT_FOUND`` or ``NOT_INVOCABLE`` blames the command; ``PlatformError`` carries what the runtime said.
        """
        for candidate in self._candidates:
            pid_file = bundle / "pid"
            arguments = ["run", "--detach", "--bundle", str(bundle), "--pid-file", str(pid_file)]
            if console is not None:
                arguments += ["--console-socket", str(console)]
            log = bundle / "runtime.log"
            if self._call(candidate, log, [*arguments, name], stdio) == 0:
                return int(pid_file.read_text())
            reason = _last_error(log)
            self._call(candidate, log, ["delete", "--force", name], None)
            _blame_command(reason)
            self.failures.append(f"{candidate.name}: {reason}")
        raise PlatformError(
            "the container could not be started",
            code="runtime_failed",
            got=self.failures or "no OCI runtime",
            expected="runc or crun in the guest stack",
            hint="is this machine's cgroup or namespace set-up restricted?",
        )

    def _call(self, runtime: Path, log: Path, arguments: list[str], stdio: Stdio | None) -> int:
        argv = [str(runtime), "--root", str(self._state), "--log", str(log), "--log-format", "json", *arguments]
        with open(os.devnull, "r+b", buffering=0) as null:  # noqa: PTH123 -- a device, not a file
            standard = stdio or Stdio(null.fileno(), null.fileno(), null.fileno())
            pid = os.posix_spawn(
                runtime,
                argv,
                _ENVIRONMENT,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, standard.stdin, 0),
                    (os.POSIX_SPAWN_DUP2, standard.stdout, 1),
                    (os.POSIX_SPAWN_DUP2, standard.stderr, 2),
                ],
                setsigdef=[],
                setsigmask=[],
            )
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _last_error(log: Path) -> str:
    """The message of the last line at level error; runtimes write one JSON object a line."""
    found = "it gave no reason"
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") in {"error", "fatal"}:
            found = str(entry.get("msg", found))[:400]
    return found


def _blame_command(reason: str) -> None:
    """Raise if the runtime's words say that the command itself is the trouble, by podman's rules for 126 and 127."""
    text = reason.lower()
    if "exec" not in text:
        return
    if "file not found" in text or "no such file or directory" in text:
        raise ImageError(
            "the command is not in the image", code=NOT_FOUND, got=reason, hint="look at its path and spelling"
        )
    if "permission denied" in text or "is a directory" in text or "exec format error" in text:
        raise ImageError("the command cannot be run", code=NOT_INVOCABLE, got=reason, hint="is it an executable file?")
