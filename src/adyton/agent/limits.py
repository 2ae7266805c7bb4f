"""What this process may hand on: capabilities and limits, cut to what the kernel lets it set here.

On odd hosts the agent lacks CAP_SYS_RESOURCE or has low hard limits. An OCI runtime told to set more than is possible
starts nothing at all, so the wish is cut here, and said.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass

from adyton.agent import kernel

# Numbers of linux/capability.h; the set that podman gives by default.
DEFAULT_CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_SYS_CHROOT": 18,
    "CAP_SETFCAP": 31,
}
# A core size of one byte, not 0: it is below any file that the kernel would write, and it is the one value that also
# stops a core that is piped to a handler on the host (core(5)), which ignores 0.
_WISHES = (
    ("RLIMIT_NOFILE", resource.RLIMIT_NOFILE, 1 << 20),
    ("RLIMIT_NPROC", resource.RLIMIT_NPROC, 1 << 22),
    ("RLIMIT_CORE", resource.RLIMIT_CORE, 1),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """``rlimits`` as config.json lists them; ``cut`` names what is less than wished, for a person to read."""

    capabilities: tuple[str, ...]
    rlimits: tuple[tuple[str, int], ...]
    cut: tuple[str, ...]


def here() -> Limits:
    """The limits that can be set from this process."""
    capabilities = tuple(name for name, number in DEFAULT_CAPABILITIES.items() if kernel.may_give(number))
    cut = [name for name in DEFAULT_CAPABILITIES if name not in capabilities]
    rlimits = []
    for name, kind, wish in _WISHES:
        hard = resource.getrlimit(kind)[1]
        value = wish if hard == resource.RLIM_INFINITY else min(wish, hard)
        rlimits.append((name, value))
        if value < wish and kind != resource.RLIMIT_CORE:
            cut.append(f"{name} {value} instead of {wish}")
    return Limits(capabilities, tuple(rlimits), tuple(cut))
