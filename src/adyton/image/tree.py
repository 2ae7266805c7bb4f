"""A directory tree that is being written, reached only by descriptors.

``Tree`` opens directories component by component with ``O_NOFOLLOW``, makes those that are missing, and keeps the ones
used last open. A path is normalised bytes: components joined by ``/``, no leading slash, ``b""`` is the root. Nobody
else writes below the root, so what was opened once stays what it was until ``replace`` removes it.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Callable

from adyton.image import disk
from adyton.image.overlay import OPAQUE, is_whiteout
from adyton.image.tar_header import malformed

KEPT = 96


class Tree:
    """Directories below ``root``, a descriptor that stays the caller's. ``made`` hears of every implied directory."""

    def __init__(self, root: int, made: Callable[[bytes], None]) -> None:
        self._root = root
        self._made = made
        self._open: OrderedDict[bytes, int] = OrderedDict()

    def directory(self, path: bytes, *, make: bool = True) -> int:
        """A descriptor of the directory ``path``, valid until the next call; missing ones are made with ``make``.

        A component that is a symbolic link or not a directory is ``MalformedImage``; a missing one without ``make``
        is ``FileNotFoundError``. With ``make`` a whiteout becomes an opaque directory: hidden below, and made anew.
        """
        if not path:
            return self._root
        found = self._open.get(path)
        if found is not None:
            self._open.move_to_end(path)
            return found
        known = path
        while True:
            known = known.rpartition(b"/")[0]
            current = self._open.get(known) if known else self._root
            if current is not None:
                break
        for component in path[len(known) + 1 if known else 0 :].split(b"/"):
            known = known + b"/" + component if known else component
            current = self._step(current, component, known, make=make)
            self._open[known] = current
        while len(self._open) > KEPT and next(iter(self._open)) != path:
            os.close(self._open.popitem(last=False)[1])
        return current

    def replace(self, parent: int, name: bytes, path: bytes) -> None:
        """Remove what is at ``path``, which is ``name`` in ``parent``, with everything below it."""
        below = path + b"/"
        for known in [known for known in self._open if known == path or known.startswith(below)]:
            os.close(self._open.pop(known))
        disk.remove_at(parent, name)

    def close(self) -> None:
        """Close every descriptor but the root."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _step(self, parent: int, name: bytes, path: bytes, *, make: bool) -> int:
        try:
            return disk.open_directory(name, parent)
        except FileNotFoundError:
            if not make:
                raise
        except OSError as error:
            if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                raise
            if not make or not is_whiteout(os.stat(name, dir_fd=parent, follow_symlinks=False)):
                raise malformed(
                    "an entry lies below something that is not a directory; links are never followed",
                    name=path,
                    code="tar_through_link",
                ) from error
            os.unlink(name, dir_fd=parent)
            made = self._new(parent, name, path)
            os.setxattr(made, OPAQUE, b"y")
            return made
        return self._new(parent, name, path)

    def _new(self, parent: int, name: bytes, path: bytes) -> int:
        self._made(path)
        os.mkdir(name, 0o755, dir_fd=parent)
        made = disk.open_directory(name, parent)
        os.fchmod(made, 0o755)  # whatever the mask says
        return made
