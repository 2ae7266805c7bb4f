"""The workload's root: the image's layers below, a private upper directory above, joined by overlayfs.

What the workload writes lies in the instance's private root and goes away with it. Layer paths are handed to the kernel
by short names, since a mount's options are one page and an image may have hundreds of layers.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adyton.agent import kernel
from adyton.errors import PlatformError


@dataclass(frozen=True, slots=True)
class Layers:
    """An image's layers as directories, top first, whether any of them was encrypted, and the signal that stops it."""

    directories: tuple[Path, ...]
    encrypted: bool
    stop_signal: int = signal.SIGTERM


def compose(lower_dirs: Sequence[Path], bundle: Path) -> Path:
    """Mount the layers (top first) at ``bundle/rootfs``; its path. ``PlatformError`` if the kernel will not."""
    root, upper, work, names = (bundle / name for name in ("rootfs", "upper", "work", "l"))
    for directory in (root, upper, work, names):
        directory.mkdir(mode=0o755)
    layers = list(lower_dirs)
    if not layers:
        (bundle / "empty").mkdir(mode=0o755)
        layers = [bundle / "empty"]
    _copy_root_attributes(layers[0], upper)
    for number, layer in enumerate(layers):
        (names / str(number)).symlink_to(layer)
    options = f"lowerdir={':'.join(f'l/{number}' for number in range(len(layers)))},upperdir=upper,workdir=work"
    before = Path.cwd()
    try:
        os.chdir(bundle)  # the names are relative: mount(2) takes one page of options
        kernel.mount("overlay", "rootfs", "overlay", kernel.MS_NODEV, options)
    except OSError as error:
        raise PlatformError(
            "the kernel does not join the image's layers",
            code="overlay_failed",
            expected="overlayfs over at most 500 layers",
            got=f"{error.strerror} ({len(layers)} layers)",
        ) from error
    finally:
        os.chdir(before)
    return root


def _copy_root_attributes(layer: Path, upper: Path) -> None:
    """The root directory's own owner and mode come from the top layer: overlayfs shows the upper's."""
    status = layer.stat()
    os.chown(upper, status.st_uid, status.st_gid)
    upper.chmod(status.st_mode & 0o7777)
