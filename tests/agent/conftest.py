"""An instance for the agent's tests: a real agent, real runc, real namespaces; the test itself plays the platform."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.waiting import LONG

from adyton.protocol import devtee, workload
from adyton.tee.snp.abi import SnpReport

SCRIPT = Path(__file__).with_name("run_instance.py")
APPLETS = (
    "sh",
    "cat",
    "echo",
    "id",
    "pwd",
    "env",
    "sleep",
    "ls",
    "stat",
    "touch",
    "head",
    "tr",
    "nc",
    "hostname",
    "stty",
)
RUNC = Path(shutil.which("runc", path="/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin") or "/usr/sbin/runc")
IMAGE = "sha256:" + "11" * 32


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One unpacked layer: busybox and the usual files."""
    root = tmp_path_factory.mktemp("layer")
    for name in ("bin", "etc", "tmp", "data", "run"):
        (root / name).mkdir()
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "bin" / "plain").write_text("not a program")
    (root / "data" / "kept").write_text("from the image")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\nstaff:x:50:app\napp:x:1001:\n")
    root.chmod(0o755)
    return root


@dataclass
class Instance:
    """A running agent. ``wait`` gives what it wrote and what it said."""

    process: subprocess.Popen[bytes]
    channel: socket.socket
    host_data: bytes
    name: str
    events: list[Any] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    platform: threading.Thread | None = None

    def play_platform(self) -> None:
        with contextlib.suppress(OSError), self.channel.makefile("rb") as stream:
            while header := stream.read(4):
                self._answer(devtee.decode(devtee.FROM_AGENT, stream.read(devtee.body_length(header))))

    def _answer(self, message: Any) -> None:
        if isinstance(message, devtee.ReportRequest):
            report = SnpReport(report_data=message.report_data, host_data=self.host_data)
            self.send(devtee.Report(report.encode(), []))
        with self.changed:
            self.events.append(message)
            self.changed.notify_all()

    def send(self, message: msgspec.Struct) -> None:
        self.channel.sendall(devtee.frame(message))

    def event(self, kind: type[Any], timeout: float = LONG) -> Any:
        with self.changed:
            assert self.changed.wait_for(lambda: any(isinstance(event, kind) for event in self.events), timeout), (
                self.events
            )
            return next(event for event in self.events if isinstance(event, kind))

    def wait(self, timeout: float = LONG) -> tuple[bytes, bytes]:
        out, err = self.process.communicate(timeout=timeout)
        return out, err

    def status(self) -> int:
        return int(self.event(devtee.Exited).status)

    def failure(self) -> dict[str, Any]:
        return dict(self.event(devtee.Failed).error)


Launch = Callable[..., Instance]


@pytest.fixture
def launch(tmp_path: Path, layer: Path) -> Iterator[Launch]:
    """Start an agent; keyword arguments of the document and of ``Run`` are told apart by name."""
    running: list[Instance] = []
    short = Path(tempfile.mkdtemp(prefix="ady"))  # a socket's path has at most 107 bytes

    def start(
        *command: str,
        run: Mapping[str, Any] | None = None,
        volumes: Mapping[str, str] | None = None,
        host_data: bytes | None = None,
        stdio: tuple[int, int, int] | None = None,
        layers: tuple[Path, ...] = (),
        slow: Path | None = None,
        encrypted: bool = False,
        stop_signal: str = "",
        runtimes: Mapping[str, Path] | None = None,
        **members: Any,
    ) -> Instance:
        members.setdefault("logs", "host")
        document = workload.write(workload.Workload(image=IMAGE, command=list(command), **members))
        base = short / str(len(running))
        for name in ("private", "store", "guest/bin", "guest/share/containers"):
            (base / name).mkdir(parents=True)
        for name, program in (runtimes or {"runc": RUNC}).items():
            (base / "guest/bin" / name).symlink_to(program)
        shutil.copy("/usr/share/containers/seccomp.json", base / "guest/share/containers/")
        ours, theirs = socket.socketpair()
        saved = os.dup(theirs.fileno())
        name = f"t{os.getpid()}-{os.urandom(4).hex()}"
        argv = ["unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc", sys.executable]
        argv += [str(SCRIPT), str(saved), str(base), *(str(path) for path in (*layers, layer))]
        standard = stdio or (subprocess.PIPE, subprocess.PIPE, subprocess.PIPE)
        process = subprocess.Popen(
            argv,
            stdin=standard[0],
            stdout=standard[1],
            stderr=standard[2],
            pass_fds=[saved],
            env={
                **os.environ,
                "SLOW": str(slow or ""),
                "ENCRYPTED": "1" if encrypted else "",
                "STOP_SIGNAL": stop_signal,
                "VOLUMES": str(tmp_path),
            },
        )
        os.close(saved)
        theirs.close()
        instance = Instance(process, ours, host_data or document.digest.value, name)
        running.append(instance)
        instance.platform = threading.Thread(target=instance.play_platform, daemon=True)
        instance.platform.start()
        options = devtee.Run(document=document.raw.decode(), **(run or {}))
        instance.send(devtee.Start(name, document.raw.decode(), options, dict(volumes or {})))
        return instance

    yield start
    for instance in running:
        instance.process.kill()
        instance.process.communicate()
        if instance.platform is not None:
            instance.platform.join(LONG)
        instance.channel.close()
        hierarchies = Path("/sys/fs/cgroup")  # one, or one for each controller; others make and remove groups meanwhile
        for hierarchy in (hierarchies, *hierarchies.iterdir()):
            with contextlib.suppress(OSError):
                (hierarchy / "adyton" / instance.name).rmdir()  # as the platform does
    shutil.rmtree(short)
