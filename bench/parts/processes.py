"""What a program and all its processes burn and hold, by the kernel's account."""

from __future__ import annotations

import os
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def tree(root: int) -> list[int]:
    """``root`` and every process below it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parents[int(entry.name)] = int(fields[1])
    found = [root]
    for number in found:
        found += [child for child, parent in parents.items() if parent == number]
    return found


def cpu(root: int) -> float:
    """CPU seconds of all its processes that live, and of those that they have waited for. In steps of 10 ms."""
    return sum(sum(int(field) for field in fields[11:15]) for pid in tree(root) if (fields := _stat(pid))) / _TICK


def resident(root: int) -> dict[int, float]:
    """MiB of memory that is resident, by process."""
    found = {}
    for pid in tree(root):
        try:
            found[pid] = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 2**20
        except OSError:
            continue
    return found


def owners(root: int, port: int) -> dict[int, int]:
    """Which of its processes has taken the connection to ``port`` that comes from which port."""
    inodes = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "01" and int(fields[1].partition(":")[2], 16) == port:
            inodes[f"socket:[{fields[9]}]"] = int(fields[2].partition(":")[2], 16)
    found: dict[int, int] = {}
    for pid in tree(root):
        try:
            held = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        found |= {inodes[name]: pid for name in held if name in inodes}
    return found


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` from the state on (proc(5), field 3)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
