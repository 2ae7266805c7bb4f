"""What the disk says, in our words, and removing trees that a hostile archive has grown.

Everything works on directory descriptors: no path longer than one component reaches the kernel, so nothing in a tree
can lead outside it and no depth makes a path too long.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from adyton.errors import AdytonError, MalformedImage, PlatformError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EPERM, errno.EACCES}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def as_error(error: OSError, doing: str) -> AdytonError:
    """The error of the tree for what the system said while ``doing`` something."""
    said = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _FULL:
        return PlatformError(
            f"no space is left while {doing}",
            code="disk_full",
            got=said,
            hint="free some space, or point the store or the instance's size elsewhere; nothing was left behind",
        )
    if error.errno == errno.ENAMETOOLONG:
        return MalformedImage(f"a name is too long for the file system while {doing}", code="name_too_long", got=said)
    hint = None
    if error.errno in _DENIED:
        hint = "owners, whiteouts and file capabilities of container layers need root"
    return PlatformError(f"the file system refuses while {doing}", code="disk_refuses", got=said, hint=hint)


@contextlib.contextmanager
def reported(doing: str) -> Iterator[None]:
    """``OSError`` inside becomes an error of the tree."""
    try:
        yield
    except OSError as error:
        raise as_error(error, doing) from error


def open_directory(name: bytes | str | Path, parent: int | None = None) -> int:
    """A descriptor of the directory ``name``, which is not a symbolic link."""
    return os.open(name, _DIRECTORY, dir_fd=parent)


def remove_at(parent: int, name: bytes) -> None:
    """Remove ``name`` in ``parent``, with everything below it; what does not exist is fine. ``OSError``."""
    try:
        os.unlink(name, dir_fd=parent)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in {errno.EISDIR, errno.EPERM}:
            raise
    _remove_directory(parent, name)


def remove_tree(path: Path) -> None:
    """Remove the tree at ``path`` as far as it can be; what remains is swept by the next one who looks."""
    with contextlib.suppress(OSError):
        parent = open_directory(path.parent)
        try:
            remove_at(parent, os.fsencode(path.name))
        finally:
            os.close(parent)


def _remove_directory(parent: int, name: bytes) -> None:
    """Depth first without recursion; descriptors are held for one path only, whose depth the unpacker bounds."""
    held: list[tuple[int, list[bytes], bytes]] = []  # open directory, directories in it still to go, its own name
    try:
        held.append(_emptied(parent, name))
        while held:
            current, children, own = held[-1]
            if children:
                held.append(_emptied(current, children.pop()))
                continue
            held.pop()
            os.close(current)
            os.rmdir(own, dir_fd=held[-1][0] if held else parent)
    finally:
        for descriptor, _, _ in held:
            os.close(descriptor)


def _emptied(parent: int, name: bytes) -> tuple[int, list[bytes], bytes]:
    """Open a directory and unlink all in it that is not a directory."""
    try:
        descriptor = open_directory(name, parent)
    except PermissionError:  # our own tree: a directory that its archive made unreadable
        os.chmod(name, stat.S_IRWXU, dir_fd=parent)
        descriptor = open_directory(name, parent)
    directories = []
    try:
        with os.scandir(descriptor) as found:
            entries = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in found]
        if entries:
            os.fchmod(descriptor, stat.S_IRWXU)
        for entry_name, is_directory in entries:
            if is_directory:
                directories.append(entry_name)
            else:
                os.unlink(entry_name, dir_fd=descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, directories, name
