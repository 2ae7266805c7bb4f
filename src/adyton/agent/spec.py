"""config.json (OCI runtime-spec 1.0) from the workload document. The image's own configuration plays no part here.

Command, working directory, user and environment are exactly the document's; what podman adds by default (PATH, HOME,
HOSTNAME, TERM, masked paths, capabilities) is added, since images expect it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adyton.agent import mounts
from adyton.agent.limits import Limits
from adyton.agent.users import User
from adyton.protocol.workload import Workload
from adyton.rats.types import JsonValue

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MASKED = [
    *("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats"),
    *("/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/fs/selinux", "/sys/dev/block"),
]
_READ_ONLY = ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_MAX_PROCESSES = 2048  # podman's default pids limit


@dataclass(frozen=True, slots=True)
class Process:
    """What the agent found out about this start: who, where, with which environment and terminal."""

    user: User
    env: dict[str, str]
    hostname: str
    terminal: bool
    rows: int = 0
    columns: int = 0


def build(
    workload: Workload,
    process: Process,
    limits: Limits,
    mounted: list[mounts.Mount],
    *,
    root: Path,
    cgroup: str,
    seccomp: JsonValue = None,
) -> dict[str, JsonValue]:
    """The whole of config.json. ``cgroup`` is the path below each controller, ``root`` the composed root."""
    namespaces: list[JsonValue] = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")]
    if workload.network != "host":
        namespaces.append({"type": "network"})  # a new one: the runtime brings its loopback up
    capabilities: list[JsonValue] = list(limits.capabilities)
    effective = capabilities if process.user.uid == 0 else []
    linux: dict[str, JsonValue] = {
        "namespaces": namespaces,
        "cgroupsPath": cgroup,
        "resources": {"devices": [{"allow": False, "access": "rwm"}], "pids": {"limit": _MAX_PROCESSES}},
        "maskedPaths": list(_MASKED),
        "readonlyPaths": list(_READ_ONLY),
    }
    if seccomp is not None:
        linux["seccomp"] = seccomp
    described: dict[str, JsonValue] = {
        "terminal": process.terminal,
        "user": {
            "uid": process.user.uid,
            "gid": process.user.gid,
            "umask": 0o022,
            "additionalGids": list(process.user.groups),
        },
        "args": list(workload.command),
        "env": [f"{name}={value}" for name, value in environment(process).items()],
        "cwd": workload.cwd,
        "capabilities": {
            "bounding": capabilities,
            "effective": effective,
            "permitted": effective,
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": [{"type": name, "soft": value, "hard": value} for name, value in limits.rlimits],
        "noNewPrivileges": False,  # podman's default: set-uid programs of the image work
    }
    if process.terminal and process.rows and process.columns:
        described["consoleSize"] = {"height": process.rows, "width": process.columns}
    return {
        "ociVersion": "1.0.2",
        "process": described,
        "root": {"path": str(root), "readonly": False},
        "hostname": process.hostname,
        "mounts": list[JsonValue](mounted),
        "linux": linux,
    }


def environment(process: Process) -> dict[str, str]:
    """The document's variables over podman's defaults."""
    defaults = {"PATH": _PATH, "HOME": process.user.home, "HOSTNAME": process.hostname, "container": "oci"}
    if process.terminal:
        defaults["TERM"] = "xterm"
    return {**defaults, **process.env}
