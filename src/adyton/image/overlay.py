"""How overlayfs marks what a layer hides of those below it (Linux, ``filesystems/overlayfs``)."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from adyton.image import disk

OPAQUE = b"trusted.overlay.opaque"
NO_DEVICE = os.makedev(0, 0)


def is_whiteout(there: os.stat_result) -> bool:
    """Whether this hides what lower layers have under its name: a character device 0/0."""
    return stat.S_ISCHR(there.st_mode) and there.st_rdev == NO_DEVICE


def is_opaque(directory: Path) -> bool:
    """Whether the directory hides all that lower layers have in it. ``PlatformError``."""
    try:
        os.getxattr(directory, OPAQUE, follow_symlinks=False)
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.ENOTSUP}:
            return False
        raise disk.as_error(error, "looking at a layer") from error
    return True
