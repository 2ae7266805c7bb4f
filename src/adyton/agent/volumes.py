"""A new volume gets what the image has in its place, as with podman: owner and mode, and of a plain image the content.

A volume lies on the host. The content of an encrypted image is never copied there: what its workload writes into a
volume is its own decision, what the image holds is not (contracts, 6).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from adyton.agent import kernel

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def fill(root: Path, path: str, volume: Path, *, content: bool) -> None:
    """Make the empty directory ``volume`` like the image's ``path``; one that has something in it is left alone.

    Links in the image lead nowhere outside it. Devices, sockets and pipes are not copied.
    """
    if not volume.is_dir() or any(volume.iterdir()):
        return
    top = os.open(root, _DIRECTORY)
    try:
        source = kernel.open_in_root(top, path, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return  # the image has nothing there; the OCI runtime makes the mount point
    finally:
        os.close(top)
    target = os.open(volume, _DIRECTORY)
    try:
        if content:
            _copy_directory(source, target)
        status = os.fstat(source)
        os.fchown(target, status.st_uid, status.st_gid)
        os.fchmod(target, stat.S_IMODE(status.st_mode))
    finally:
        os.close(source)
        os.close(target)


def _copy_directory(source: int, target: int) -> None:
    for name in os.listdir(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            below, copy = os.open(name, _DIRECTORY, dir_fd=source), os.open(name, _DIRECTORY, dir_fd=target)
            try:
                _copy_directory(below, copy)
            finally:
                os.close(below)
                os.close(copy)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif stat.S_ISREG(status.st_mode):
            _copy_file(name, source, target)
        else:
            continue
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)  # after chown, which clears set-uid bits
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _copy_file(name: str, source: int, target: int) -> None:
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        writing = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            while os.sendfile(writing, reading, None, 1 << 30):
                pass
        finally:
            os.close(writing)
    finally:
        os.close(reading)
