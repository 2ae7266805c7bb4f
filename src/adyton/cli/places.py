"""Where Adyton keeps its things on this machine, read from the environment once, here.

``ADYTON_HOME`` moves everything. Without it: root keeps state in ``/var/lib/adyton`` and sockets in ``/run/adyton``;
anybody else in ``$XDG_STATE_HOME/adyton`` (``~/.local/state/adyton``) and ``$XDG_RUNTIME_DIR/adyton``. What a user
decided is in ``$XDG_CONFIG_HOME/adyton`` (``~/.config/adyton``), root's too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Places:
    """``home`` lasts over a restart of the machine, ``run`` does not. ``config`` is what this user decided."""

    home: Path
    run: Path
    config: Path

    @property
    def known_brokers(self) -> Path:
        """The brokers that this user attested or pinned."""
        return self.config / "known-brokers"

    @property
    def broker(self) -> Path:
        """Data directory of the local broker."""
        return self.home / "broker"

    @property
    def devtee(self) -> Path:
        """The development root, its endorsements and the platform service's state."""
        return self.home / "devtee"

    @property
    def collateral(self) -> Path:
        """The cache of endorsements."""
        return self.home / "collateral"

    @property
    def store(self) -> Path:
        """Content-addressed store of pulled images."""
        return self.home / "store"

    @property
    def guest(self) -> Path:
        """The guest stack that instances start from."""
        return self.home / "guest" / "adyton-guest.erofs"

    @property
    def devtee_socket(self) -> Path:
        """Control socket of the platform service."""
        return self.run / "devtee.sock"


def places() -> Places:
    """The places for this process's user and environment."""
    if home := os.environ.get("ADYTON_HOME"):
        base = Path(home).absolute()
        return Places(home=base, run=base / "run", config=base / "config")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path(os.environ.get("HOME") or "/") / ".config") / "adyton"
    if os.geteuid() == 0:
        return Places(home=Path("/var/lib/adyton"), run=Path("/run/adyton"), config=config)
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    home_dir = state / "adyton"
    run = Path(runtime) / "adyton" if runtime else home_dir / "run"
    return Places(home=home_dir, run=run, config=config)
