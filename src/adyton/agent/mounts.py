"""What is mounted into the workload: the kernel's file systems, the document's mounts, three files of ``/etc``.

A ``tmpfs`` and a volume that nobody gave a place lie in the instance's private memory. Operator's directories appear
where the document lists them, with the document's mode, and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from adyton.errors import PlatformError
from adyton.protocol.workload import Workload
from adyton.rats.types import JsonValue

Mount = dict[str, JsonValue]


def kernel_mounts() -> list[Mount]:
    """``/proc``, ``/dev`` and ``/sys`` as podman lays them out."""
    return [
        _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount(
            "/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"
        ),
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        _mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),  # noqa: S108
        _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro"),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"),
    ]


def document_mounts(workload: Workload, places: Mapping[str, str], private: Path) -> list[Mount]:
    """The document's mounts; ``places`` says where the operator's directories are in the instance."""
    mounts: list[Mount] = []
    for number, mount in enumerate(workload.mounts):
        place = places.get(mount.path)
        if mount.kind == "tmpfs":
            options = [*_tmpfs_limits(private), "mode=1777", "tmpcopyup", mount.mode]
            mounts.append(_mount(mount.path, "tmpfs", "tmpfs", "noexec", "nosuid", "nodev", *options))
        elif place is not None:
            mounts.append(_mount(mount.path, "bind", place, "rbind", "rprivate", "nosuid", "nodev", mount.mode))
        elif mount.mode == "ro":
            empty = private / f"volume-{number}"
            empty.mkdir(mode=0o755)
            mounts.append(_mount(mount.path, "bind", str(empty), "bind", "nosuid", "nodev", "ro"))
        # A volume that nobody gave a place, to be written: the workload's own root is private memory already, and
        # has the image's content there, as podman's anonymous volumes do.
    return mounts


def own_files(
    bundle: Path, hostname: str, *, host_network: bool, resolver: Path = Path("/etc/resolv.conf")
) -> list[Mount]:
    """``/etc/hostname`` and ``/etc/hosts``, and with the host's network its resolver."""
    files = {
        "hostname": f"{hostname}\n",
        "hosts": f"127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    }
    try:
        if host_network and resolver.exists():
            files["resolv.conf"] = resolver.read_text()
        mounts = []
        for name, text in files.items():
            (bundle / name).write_text(text)
            (bundle / name).chmod(0o644)
            mounts.append(
                _mount(f"/etc/{name}", "bind", str(bundle / name), "bind", "rprivate", "nosuid", "nodev", "rw")
            )
    except OSError as error:
        raise PlatformError(
            "cannot write the workload's /etc files", code="private_full", got=error.strerror
        ) from error
    return mounts


def _tmpfs_limits(private: Path) -> list[str]:
    """As large as the private root, and out of swap if that is: plaintext lies in both (contracts, 6)."""
    status = os.statvfs(private)
    options = [f"size={status.f_blocks * status.f_frsize // 1024}k"]
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.startswith("tmpfs ") and "noswap" in rest.split()[-1].split(",") and fields:
            return [*options, "noswap"]
    return options


def _mount(destination: str, kind: str, source: str, *options: str) -> Mount:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}
