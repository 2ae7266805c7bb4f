"""The life of an instance, from its document to its exit status (design, section 5, steps 3 to 6)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adyton.agent import document, kernel, limits, mounts, rootfs, seccomp, spec, users, volumes
from adyton.agent.channel import Channel
from adyton.agent.console import Console, leaves_instance
from adyton.agent.oci import OciRuntime
from adyton.agent.ports import Forwarder
from adyton.agent.supervisor import Supervisor
from adyton.errors import AdytonError, MalformedRequest, PlatformError, Unavailable
from adyton.protocol.devtee import Exited, Failed, Phase, Publish, Running, Start
from adyton.protocol.workload import WorkloadDocument, allowed_env
from adyton.rats.ports import Progress

FAILED = 125
NOTICE = "notice"  # a phase's name: nothing begins, something is said
_INSTANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_PROGRESS_INTERVAL = 0.1


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things lie inside the instance. ``guest`` is measured and read-only; ``private`` dies with the instance."""

    guest: Path = Path("/guest")
    store: Path = Path("/store")
    private: Path = Path("/private")
    volumes: Path = Path("/volumes")
    state: Path = Path("/run/oci")

    @property
    def runtimes(self) -> tuple[Path, ...]:
        """OCI runtimes of the guest stack, the preferred one first."""
        return (self.guest / "bin" / "runc", self.guest / "bin" / "crun")

    @property
    def filter(self) -> Path:
        """The system-call filter of the guest stack."""
        return self.guest / "share" / "containers" / "seccomp.json"


class Phases(Progress):
    """Tells the platform what the instance is doing; often enough to be watched, seldom enough to cost nothing."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._began = self._last = time.monotonic()
        self._name = "start"

    def enter(self, name: str) -> None:
        """The next step begins."""
        self._name = name
        self._channel.send(Phase(name, seconds=round(time.monotonic() - self._began, 4)))

    def notice(self, text: str) -> None:
        """Something that the operator may want to know, and need not."""
        self._channel.send(Phase(NOTICE, round(time.monotonic() - self._began, 4), text))

    def advance(self, label: str, done: int, total: int | None) -> None:
        """Progress of the present step."""
        now = time.monotonic()
        if now - self._last < _PROGRESS_INTERVAL and done != total:
            return
        self._last = now
        with contextlib.suppress(Unavailable):  # the channel's reader ends the instance
            self._channel.send(Phase(self._name, round(now - self._began, 4), label, done, total))


# How an image becomes layers on disk: the document, the operator's offer, the channel for evidence, where to put it.
Obtain = Callable[[WorkloadDocument, Start, Channel, Layout, Phases], rootfs.Layers]


def live(connection: socket.socket, layout: Layout, obtain: Obtain) -> int:
    """Run what the platform asks for; the exit status, also sent. 125 when Adyton itself could not."""
    channel = Channel(connection)

    def leave(status: int) -> None:
        with contextlib.suppress(Unavailable):
            channel.send(Exited(status))
        os._exit(status)

    supervisor = Supervisor(leave)
    try:
        start = channel.start()
        channel.listen(supervisor.on_event)
        status = _serve(channel, start, layout, supervisor, obtain)
    except AdytonError as error:
        return _fail(channel, error)
    except OSError as error:
        failure = PlatformError("the instance could not be set up", code="instance_failed", got=str(error)[:200])
        return _fail(channel, failure)
    except Exception as error:  # noqa: BLE001 -- a defect: its class is said, its words may be the image's content
        kind = type(error).__name__
        return _fail(channel, PlatformError("the agent failed in a way nobody foresaw", code="agent_defect", got=kind))
    with contextlib.suppress(Unavailable):
        channel.send(Exited(status))
    return status


def _fail(channel: Channel, error: AdytonError) -> int:
    with contextlib.suppress(Unavailable):
        channel.send(Failed({**json.loads(json.dumps(error.as_dict(), default=str)), "kind": type(error).__name__}))
    return FAILED


def _serve(channel: Channel, start: Start, layout: Layout, supervisor: Supervisor, obtain: Obtain) -> int:
    if not _INSTANCE.match(start.instance):
        raise MalformedRequest("an instance has a name that cannot be one", code="frame_malformed", field="instance")
    phases = Phases(channel)
    phases.enter("document")
    checked = document.accept(start, channel, layout.volumes)
    workload, run = checked.workload, start.run
    env = allowed_env(workload, run.env)
    forwarder = Forwarder(run.publish if workload.network == "bridge" else [])
    phases.enter("image")
    layers = obtain(checked, start, channel, layout, phases)
    phases.enter("bundle")
    bundle = layout.private / "bundle"
    bundle.mkdir(mode=0o700)
    root = rootfs.compose(layers.directories, bundle)
    for mount in workload.mounts:
        if mount.kind == "volume" and (place := start.volumes.get(mount.path)) is not None and mount.mode == "rw":
            volumes.fill(root, mount.path, Path(place), content=not layers.encrypted)
    limited = limits.here()
    if limited.cut:
        phases.notice(f"this machine allows less than podman's defaults: {', '.join(limited.cut)}")
    host_network = workload.network == "host"
    process = spec.Process(
        user=_user(root, workload.user),
        env=env,
        hostname=os.uname().nodename if host_network else start.instance[:12],
        terminal=run.terminal,
        rows=run.rows,
        columns=run.columns,
    )
    mounted = [
        *mounts.kernel_mounts(),
        *mounts.own_files(bundle, process.hostname, host_network=host_network),
        *mounts.document_mounts(workload, start.volumes, layout.private),
    ]
    config = spec.build(
        workload,
        process,
        limited,
        mounted,
        root=root,
        cgroup=f"/adyton/{start.instance}",
        seccomp=seccomp.load(layout.filter, limited.capabilities),
    )
    (bundle / "config.json").write_text(json.dumps(config))
    phases.enter("runtime")
    console = Console(run, bundle, visible=leaves_instance(workload, run))
    stdio = console.prepare()
    layout.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    runtime = OciRuntime(layout.runtimes, layout.state)
    pid = runtime.start(start.instance, bundle, stdio, console.socket_path)
    for failure in runtime.failures:
        phases.notice(f"the next OCI runtime was taken: {failure}")
    try:
        supervisor.attach(pid, console.resize, layers.stop_signal)
        console.connect()
        published = _publish(forwarder, pid, start, host_network=host_network)
        channel.send(Running(published))
        phases.enter("running")
        status = supervisor.wait(pid)
        console.drain()
    finally:
        forwarder.close()
    # Nothing is deleted: state, mounts and namespaces end with the instance, its control groups with the platform's row.
    return status


def _user(root: Path, text: str) -> users.User:
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return users.resolve(descriptor, text)
    finally:
        os.close(descriptor)


def _publish(forwarder: Forwarder, pid: int, start: Start, *, host_network: bool) -> list[Publish]:
    if host_network:  # the workload's ports are the host's, as with podman
        return [Publish(item.container_port, item.container_port, item.host_address) for item in start.run.publish]
    if not forwarder.published:
        return []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended already
        forwarder.serve(pid)
    return forwarder.published


def prepare_process() -> None:
    """Before anything secret is in memory: no core, no dump, orphans come here, no group of the caller's terminal."""
    kernel.become_subreaper()
    kernel.make_undumpable()
