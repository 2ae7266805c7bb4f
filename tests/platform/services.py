"""Callers of the platform service, for its tests."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.waiting import LONG

from adyton.protocol import devtee, workload

IMAGE = "sha256:" + "ab" * 32


@dataclass
class Caller:
    """One connection to the service."""

    connection: socket.socket

    def send(self, message: devtee.ControlRequest, descriptors: tuple[int, ...] = ()) -> None:
        self.send_raw(devtee.frame(message), descriptors)

    def send_raw(self, data: bytes, descriptors: tuple[int, ...] = ()) -> None:
        if descriptors:
            socket.send_fds(self.connection, [data], list(descriptors))
        else:
            self.connection.sendall(data)

    def receive(self) -> devtee.ControlReply | None:
        header = self._exactly(4)
        if not header:
            return None
        reply: devtee.ControlReply = devtee.decode(devtee.CONTROL_REPLY, self._exactly(devtee.body_length(header)))
        return reply

    def everything(self) -> list[devtee.ControlReply]:
        """Until the end of a run: its last event, or the end of the connection."""
        replies: list[devtee.ControlReply] = []
        while (reply := self.receive()) is not None:
            replies.append(reply)
            if isinstance(reply, devtee.Exited | devtee.Failed | devtee.Done):
                break
        return replies

    def ask(self, message: devtee.ControlRequest) -> devtee.ControlReply | None:
        self.send(message)
        return self.receive()

    def close(self) -> None:
        self.connection.close()

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            piece = self.connection.recv(length - len(data))
            if not piece:
                assert not data
                return b""
            data += piece
        return data


@dataclass
class Running:
    """A service that runs, as its own process."""

    home: Path
    process: subprocess.Popen[bytes]
    callers: list[Caller] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        return self.home / "run" / "devtee.sock"

    def connect(self) -> Caller:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(LONG)
        connection.connect(str(self.socket))
        caller = Caller(connection)
        self.callers.append(caller)
        return caller

    def start(self, probe: str, *, document: str | None = None, **members: object) -> Caller:
        """Run a probe; the caller brings /dev/null as its streams."""
        caller = self.connect()
        null = os.open(os.devnull, os.O_RDWR)
        run = devtee.Run(document=document or make_document(), env={"PROBE": probe}, **members)  # type: ignore[arg-type]
        caller.send(run, (null, null, null))
        os.close(null)
        return caller

    def probe(self, probe: str, **members: object) -> list[object]:
        """What a probe said."""
        replies = self.start(probe, **members).everything()  # type: ignore[arg-type]
        assert isinstance(replies[-1], devtee.Exited), replies[-1]
        return [json.loads(reply.label) for reply in replies if isinstance(reply, devtee.Phase)]

    def instances(self) -> list[devtee.Instance]:
        reply = self.connect().ask(devtee.List(all=True))
        assert isinstance(reply, devtee.Instances)
        return reply.instances

    def connect_and_read_logs(self, name: str) -> list[devtee.Output]:
        """What is in its logbook now."""
        caller = self.connect()
        caller.send(devtee.Logs(name))
        return [reply for reply in caller.everything() if isinstance(reply, devtee.Output)]

    def children(self) -> list[int]:
        """Processes whose parent is the service."""
        return children_of(self.process.pid)


def children_of(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text().rpartition(") ")[2].split()
                if int(stat[1]) == parent and stat[0] != "Z":
                    found.append(int(entry.name))
    return found


def make_document(**members: object) -> str:
    described = workload.Workload(image=IMAGE, command=["/bin/true"], **members)  # type: ignore[arg-type]
    return workload.write(described).raw.decode()


def backing_of(device: str) -> int | None:
    """The inode behind a loop device, ``None`` if nothing is; devices are handed out anew, inodes are not."""
    status = bytearray(232)
    try:
        with Path(f"/dev/{device}").open("rb") as file:
            fcntl.ioctl(file, 0x4C05, status)  # LOOP_GET_STATUS64
    except OSError:
        return None
    return int.from_bytes(status[8:16], "little")


def loop_of(process: int) -> str:
    """The loop device that a process holds."""
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = descriptor.readlink()
            if target.name.startswith("loop") and target.parent == Path("/dev"):
                return target.name
    raise AssertionError("it holds none")
