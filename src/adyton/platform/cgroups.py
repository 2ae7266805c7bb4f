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
        for directory, _, _ in os.walk(hierarchy / PARENT / instance, topdown=False):
            _rmdir(Path(directory))


def remove_parents(mounts: Path = Path("/proc/self/mountinfo")) -> None:
    """Remove the groups above, where no instance has one. Between instances they stay: one may just be starting."""
    for hierarchy in hierarchies(mounts):
        _rmdir(hierarchy / PARENT)


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
