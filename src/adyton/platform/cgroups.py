"""Clears away the control groups of an instance, which outlive its processes when the agent was killed.

The agent names its workload's group ``/adyton/<instance>`` below each hierarchy.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

PARENT = "adyton"


def remove(instance: str, mounts: Path = Path("/proc/self/mountinfo")) -> None:
    """Remove every group of ``instance``; one that is still in use stays, and is tried again by whoever comes next."""
    for hierarchy in hierarchies(mounts):
        group = hierarchy / PARENT / instance
        if not group.is_dir():
            continue
        for directory, _, _ in os.walk(group, topdown=False):
            _rmdir(Path(directory))
        _rmdir(group.parent)  # refused while another instance is there


def hierarchies(mounts: Path) -> list[Path]:
    """Where cgroup file systems, of either version, are mounted."""
    found = []
    for line in mounts.read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ", 1)[0] in {"cgroup", "cgroup2"}:
            found.append(Path(before.split(" ")[4].encode().decode("unicode_escape")))
    return found


def _rmdir(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rmdir()
