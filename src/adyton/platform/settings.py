"""What the service is told: where its things are and how much an instance may take. Read in ``cli/devtee.py``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """``private_size``: bytes of an instance's private root. ``idle_exit``: seconds without anything to do, or never."""

    devtee: Path
    run: Path
    socket: Path
    store: Path
    volumes: Path
    guest: Path
    private_size: int
    idle_exit: float | None = None

    @property
    def instances(self) -> Path:
        """The table of instances: one file each, and what those wrote whose document lets it leave."""
        return self.devtee / "instances"

    @property
    def mount_point(self) -> Path:
        """An empty directory; each instance mounts its private root there, in its own namespace."""
        return self.run / "instance"

    @property
    def lock(self) -> Path:
        """Held while a service runs."""
        return self.run / "devtee.lock"


def default_private_size() -> int:
    """Half of this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
