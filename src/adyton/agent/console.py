"""The workload's standard streams as a whole: pipes, or a pseudo-terminal whose master the OCI runtime hands over.

A document with ``logs = false`` keeps standard output and error inside the instance: they go to ``/dev/null``, and one
line tells the caller. The terminal is allowed apart (``terminal``), and only to a caller who is there.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from pathlib import Path

from adyton.agent.oci import Stdio
from adyton.agent.streams import Copier, closer
from adyton.errors import PlatformError
from adyton.protocol.devtee import Run
from adyton.protocol.workload import Workload

_CLOSED_NOTICE = (
    'adyton: this workload\'s document keeps what it writes inside the instance (logs is not "host"); '
    "only its exit status leaves\n"
)


def leaves_instance(workload: Workload, run: Run) -> bool:
    """Whether what the workload writes may go to the caller."""
    return workload.logs == "host" or (run.terminal and not run.detach and workload.terminal)


class Console:
    """The streams of one workload. ``prepare`` before it starts, ``connect`` after, ``drain`` when it has ended."""

    def __init__(self, run: Run, bundle: Path, *, visible: bool) -> None:
        self._run = run
        self._visible = visible
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._outputs: list[Copier] = []
        self._listener: socket.socket | None = None
        self._master: int | None = None
        self._ours: list[int] = []
        self._theirs: list[int] = []
        self.socket_path = bundle / "console.sock" if run.terminal else None

    def prepare(self) -> Stdio:
        """The descriptors for the OCI runtime to pass on."""
        if not self._visible:
            os.write(2, _CLOSED_NOTICE.encode())
        if self.socket_path is not None:
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.bind(str(self.socket_path))
            self._listener.listen(1)
            return Stdio(self._null, self._null, self._null)
        stdin = self._null
        if self._run.interactive:
            stdin, ours = os.pipe()
            self._theirs.append(stdin)
            self._ours.append(ours)
        if not self._visible:
            return Stdio(stdin, self._null, self._null)
        outputs = []
        for _ in range(2):
            ours, theirs = os.pipe()
            self._ours.append(ours)
            outputs.append(theirs)
        self._theirs += outputs
        return Stdio(stdin, *outputs)

    def connect(self) -> None:
        """Start copying; the workload runs now."""
        for descriptor in self._theirs:
            os.close(descriptor)
        self._theirs.clear()
        if self._listener is not None:
            self._connect_terminal(self._listener)
            return
        ours = iter(self._ours)
        if self._run.interactive:
            to_workload = next(ours)
            Copier("stdin", 0, to_workload, closer(to_workload))
        if self._visible:
            for name, destination in (("stdout", 1), ("stderr", 2)):
                from_workload = next(ours)
                # Closing our end when the caller's reader left gives the workload SIGPIPE, as a shell's pipe would.
                self._outputs.append(Copier(name, from_workload, destination, closer(from_workload)))

    def resize(self, rows: int, columns: int) -> None:
        """The caller's terminal changed; the kernel tells the workload (SIGWINCH)."""
        if self._master is not None and 0 < rows < 1 << 16 and 0 < columns < 1 << 16:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def drain(self) -> None:
        """Wait until everything that the workload wrote has been handed on. ``PlatformError`` if it could not be."""
        for copier in self._outputs:
            copier.join()
        for copier in self._outputs:
            if copier.lost is not None:
                raise PlatformError(
                    f"what the workload wrote did not all come out: {copier.lost.strerror}",
                    code="output_unwritable",
                    field=copier.name,
                    hint="it was stopped as by a closed pipe; what came out is not whole",
                )

    def _connect_terminal(self, listener: socket.socket) -> None:
        listener.settimeout(10)
        try:
            connection, _ = listener.accept()
            with connection:
                _, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
        except OSError as error:
            raise PlatformError(
                "the OCI runtime gave no terminal", code="terminal_missing", got=error.strerror
            ) from error
        finally:
            listener.close()
        if not descriptors:
            raise PlatformError("the OCI runtime gave no terminal", code="terminal_missing")
        self._master = descriptors[0]
        os.set_inheritable(self._master, False)
        self.resize(self._run.rows, self._run.columns)
        if self._run.interactive:
            Copier("stdin", 0, self._master)
        self._outputs.append(Copier("terminal", self._master, 1 if self._visible else self._null))
