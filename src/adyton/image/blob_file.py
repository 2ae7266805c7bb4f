"""Blobs as files: opened only when they are files, written under a temporary name and renamed when complete."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from adyton.errors import AdytonError, ConfigError, NotFound, PlatformError, Unavailable
from adyton.rats.types import Digest

Put: TypeAlias = Callable[[Path, Path], object]
"""Gives a file that is whole its name, in place of what has it. ``OSError``."""


class SliceReader(io.RawIOBase):
    """A part of an open file as a blob of its own. Owns the descriptor."""

    def __init__(self, descriptor: int, start: int, size: int, path: Path) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._position = start
        self._end = start + size
        self._path = path

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # narrower than io's Buffer
        """As ``BlobStream``."""
        view = memoryview(buffer)[: max(0, self._end - self._position)]
        if not view:
            return 0
        try:
            count = os.preadv(self._descriptor, [view], self._position)
        except OSError as error:
            raise file_error(error, self._path) from error
        if count == 0:
            raise Unavailable("a file became shorter while it was read", code="file_changed", got=str(self._path))
        self._position += count
        return count

    def close(self) -> None:
        """Close the descriptor; more than once is allowed."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()


def open_blob_file(path: Path, offset: int = 0) -> SliceReader:
    """A regular file from byte ``offset``; ``NotFound`` when it is not there, ``ConfigError`` when it is no file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise file_error(error, path) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ConfigError("not a regular file", code="not_a_file", field="path", got=str(path))
    return SliceReader(descriptor, offset, max(0, status.st_size - offset), path)


def read_file(path: Path, limit: int) -> bytes:
    """A small regular file; over ``limit`` bytes is ``ConfigError``."""
    with contextlib.closing(open_blob_file(path)) as blob:
        data = bytearray(limit + 1)
        filled = 0
        with memoryview(data) as view:
            while count := blob.readinto(view[filled:]):
                filled += count
        if filled > limit:
            raise ConfigError(f"the file is larger than {limit} bytes", code="file_too_large", got=str(path))
        return bytes(data[:filled])


def write_file(path: Path, data: bytes, put: Put = Path.rename) -> None:
    """Write or replace a small file, all or nothing."""
    writer = FileBlobWriter(path.parent, lambda _: path, put)
    try:
        writer.write(data)
        writer.finish_as(path)
    finally:
        writer.abort()


class FileBlobWriter:
    """A ``BlobWriter`` into a directory; ``place`` says under which name a digest belongs."""

    def __init__(self, directory: Path, place: Callable[[Digest], Path], put: Put = Path.rename) -> None:
        self._place = place
        self._put = put
        try:
            self._descriptor, name = tempfile.mkstemp(prefix=".incoming-", dir=directory)
        except OSError as error:
            raise file_error(error, directory) from error
        self._path = Path(name)
        self._open = True

    def write(self, data: bytes | memoryview) -> None:
        """As ``BlobWriter``."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise file_error(error, self._path) from error

    def commit(self, digest: Digest) -> None:
        """As ``BlobWriter``."""
        self.finish_as(self._place(digest))

    def finish_as(self, path: Path) -> None:
        """Close and rename to ``path``."""
        try:
            os.fchmod(self._descriptor, 0o600 | (0o644 & ~withheld()))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._put(self._path, path)
        except OSError as error:
            raise file_error(error, path) from error
        os.close(self._descriptor)
        self._open = False

    def abort(self) -> None:
        """As ``BlobWriter``."""
        if self._open:
            self._open = False
            os.close(self._descriptor)
            self._path.unlink(missing_ok=True)


def withheld() -> int:
    """Mode bits that a new file does not get from ``open``: setuid and the like, and the mask. Reading changes nothing."""
    try:
        for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
            if line.startswith("Umask:"):
                return 0o7000 | int(line.split()[1], 8)
    except (OSError, ValueError):
        pass
    return 0o7777


class Unpublished:
    """What a sink made of an image that nobody can name yet: removed again unless it is published.

    A blob that was there before is somebody's and stays, and so does one that somebody put in the place of ours: what
    they published needs it. ``shared``: others may write into the same place meanwhile, and then everything stays.
    """

    def __init__(self, *, shared: bool) -> None:
        self._shared = shared
        self._files: dict[Path, tuple[int, int]] = {}
        self._directories: list[Path] = []
        self._place: int | None = None

    def directory(self, path: Path) -> None:
        """Make a directory and those above it. ``OSError``."""
        absent = []
        above = path
        while not above.exists() and above != above.parent:
            absent.append(above)
            above = above.parent
        path.mkdir(parents=True, exist_ok=True)
        self._directories += reversed(absent)
        if self._shared:
            self._place = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._place, fcntl.LOCK_SH)

    def put(self, whole: Path, path: Path) -> None:
        """As ``Put``."""
        if self._is_ours(path):  # it has the same digest
            whole.unlink()
            return
        self._files[path] = _identity(whole)
        try:
            os.link(whole, path)  # tells for certain whether anything was there
        except FileExistsError:
            del self._files[path]
            whole.rename(path)
        except OSError:  # no links on this file system
            if os.path.lexists(path):
                del self._files[path]
            whole.rename(path)
        else:
            whole.unlink()

    def _is_ours(self, path: Path) -> bool:
        try:
            return self._files.get(path) == _identity(path)
        except FileNotFoundError:
            return False

    def published(self) -> None:
        """Everything stays."""
        self._files.clear()
        self._directories.clear()

    def close(self) -> None:
        """Remove what was not published."""
        with contextlib.suppress(OSError):
            if self._place is not None:
                fcntl.flock(self._place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in self._files:
                if self._is_ours(path):
                    path.unlink(missing_ok=True)
            for path in reversed(self._directories):
                path.rmdir()
        self.published()
        if self._place is not None:
            os.close(self._place)
            self._place = None


def _identity(path: Path) -> tuple[int, int]:
    """What tells a file from one that takes its place: a number may be given again, but hardly with the same time."""
    status = path.lstat()
    return status.st_ino, status.st_mtime_ns


@contextlib.contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """``OSError`` inside becomes an error of ours that names ``path``."""
    try:
        yield
    except OSError as error:
        raise file_error(error, path) from error


def file_error(error: OSError, path: Path) -> AdytonError:
    """An error of ours for one of the file system's."""
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return NotFound(f"there is no {path}", code="file_not_found", field="path", got=str(path))
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return PlatformError(f"no space left for {path}", code="disk_full", field="path", got=str(path))
    return ConfigError(
        f"{path}: {error.strerror or type(error).__name__}", code="file_unusable", field="path", got=str(path)
    )
