"""A layer's archive becomes a directory in overlay's form, and nothing outside that directory is ever touched.

OCI image-spec 1.1, layer.md. Every name is normalised (leading ``/`` and ``.`` dropped, ``..`` refused) and reached by
descriptors with ``O_NOFOLLOW``; symbolic links are content and never followed, hard links lead to what the same layer
holds. ``.wh.NAME`` becomes a character device 0/0, ``.wh..wh..opq`` the xattr ``trusted.overlay.opaque=y``, other
``.wh..wh.*`` names (AUFS's own) are skipped. A later entry replaces an earlier one of its name; directories merge.
Modes with setuid, owners, times, ``user.*`` and ``security.capability`` are kept; ``trusted.*`` and ``user.overlay.*``
are refused, since overlay would obey them; other xattrs (labels of the machine that built the image) are left out.
Device nodes are refused unless asked for: the runtime gives a container its devices.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from enum import Enum

from adyton.errors import MalformedImage
from adyton.image import disk
from adyton.image import limits as bounds
from adyton.image.blob_file import withheld
from adyton.image.limits import Limits
from adyton.image.overlay import NO_DEVICE, OPAQUE, is_whiteout
from adyton.image.tar_header import MAX_SIZE, Kind, TarEntry, malformed, printable
from adyton.image.tar_stream import TarReader
from adyton.image.tree import Tree

_WHITEOUT = b".wh."
_AUFS = b".wh..wh."
_OPAQUE_MARK = b".wh..wh..opq"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OVERLAYS_OWN = (b"trusted.", b"user.overlay.")
_NOT_NAMES = frozenset({b"", b".", b".."})
_COMPONENT = 255


class Devices(Enum):
    """What to do with device nodes in a layer (a character device 0/0, a whiteout, is always allowed)."""

    REFUSED = "refused"
    CREATED_AS_ASKED = "created"


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What was written: entries with implied directories, apparent bytes of files, xattrs the file system cannot hold."""

    entries: int
    file_bytes: int
    xattrs_dropped: int


def unpack(
    reader: TarReader, root: int, *, limits: Limits = bounds.DEFAULT, devices: Devices = Devices.REFUSED
) -> Unpacked:
    """Unpack ``reader`` to its end into ``root``, a descriptor of an empty directory that nobody else writes to.

    ``MalformedImage`` for a layer that breaks the rules or a limit, ``PlatformError`` for a disk that is full or
    refuses. After an error the directory holds rubbish, and the caller removes it.
    """
    unpacker = _Unpacker(root, limits, devices)
    try:
        with disk.reported("unpacking a layer"):
            while (entry := reader.next()) is not None:
                unpacker.add(entry, reader)
            reader.drain()
            unpacker.finish()
    finally:
        unpacker.tree.close()
    return Unpacked(unpacker.entries, unpacker.file_bytes, unpacker.xattrs_dropped)


class _Unpacker:
    def __init__(self, root: int, limits: Limits, devices: Devices) -> None:
        self.tree = Tree(root, self._implied)
        self.entries = 0
        self.file_bytes = 0
        self.xattrs_dropped = 0
        self._limits = limits
        self._devices = devices
        self._directories: dict[bytes, TarEntry] = {}
        self._raw_parent = b""
        self._parent = b""
        self._below_whiteout = False
        self._owner = (os.geteuid(), os.getegid())
        self._unmasked = withheld()
        if os.fstat(root).st_mode & stat.S_ISGID or _has_default_acl(root):
            self._owner = (-1, -1)  # files would inherit group or mode: set both on every one
            self._unmasked = 0o7777

    def add(self, entry: TarEntry, reader: TarReader) -> None:
        """Apply one entry."""
        self.entries += 1
        if self.entries > self._limits.entries:
            raise self._limits.exceeded("entries", self._limits.entries)
        raw_parent, _, base = entry.name.rpartition(b"/")
        if base in _NOT_NAMES or len(base) > _COMPONENT:
            parent, _, base = self._normalised(entry.name).rpartition(b"/")
            below_whiteout = _hidden(parent)
        else:
            if raw_parent != self._raw_parent:
                self._parent = self._normalised(entry.name).rpartition(b"/")[0]
                self._raw_parent = raw_parent
                self._below_whiteout = _hidden(self._parent)
            parent, below_whiteout = self._parent, self._below_whiteout
        if entry.xattrs:
            self._check_xattrs(entry)
        if below_whiteout or base.startswith(_WHITEOUT):
            self._whiteout(entry, parent, base)
        elif entry.kind is Kind.FILE:
            self._file(entry, parent, base, reader)
        elif entry.kind is Kind.DIRECTORY:
            self._directory(entry, parent, base)
        else:
            self._other(entry, parent, base)

    def finish(self) -> None:
        """Give directories their attributes: last, since writing into them changes times and needs permission."""
        for path in sorted(self._directories, reverse=True):
            entry = self._directories[path]
            try:
                directory = self.tree.directory(path, make=False)
            except (FileNotFoundError, MalformedImage):
                continue  # a later entry put something else there
            if (entry.uid, entry.gid) != self._owner or not path:
                os.fchown(directory, entry.uid, entry.gid)
            if entry.mode != 0o755 & ~self._unmasked or not path:
                os.fchmod(directory, entry.mode)
            self._set_xattrs(directory, entry)
            os.utime(directory, ns=(entry.mtime, entry.mtime))

    def _file(self, entry: TarEntry, parent: bytes, base: bytes, reader: TarReader) -> None:
        if not base:
            raise malformed("the layer's root is not a directory", name=entry.name)
        directory = self.tree.directory(parent)
        mode = entry.mode
        try:
            descriptor = os.open(base, _CREATE, mode & 0o777, dir_fd=directory)
        except FileExistsError:
            self.tree.replace(directory, base, _joined(parent, base))
            descriptor = os.open(base, _CREATE, mode & 0o777, dir_fd=directory)
        try:
            if entry.sparse is not None:
                self._write_sparse(descriptor, entry, reader)
            else:
                self._count(entry.size)
                data = reader.whole()
                if data is None:
                    for piece in reader.body():
                        _write(descriptor, piece)
                elif data:
                    _write(descriptor, data)
            # Owner before mode, mode before capabilities: each clears what would come before it.
            if (entry.uid, entry.gid) != self._owner:
                os.fchown(descriptor, entry.uid, entry.gid)
            if mode & self._unmasked:
                os.fchmod(descriptor, mode)
            if entry.xattrs:
                self._set_xattrs(descriptor, entry)
            os.utime(descriptor, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(descriptor)

    def _write_sparse(self, descriptor: int, entry: TarEntry, reader: TarReader) -> None:
        if entry.sparse is None:
            raise ValueError("not a sparse entry")
        self._count(entry.sparse.size)
        extents = iter(entry.sparse.extents)
        offset = left = 0
        for piece in reader.body():
            while piece:
                while not left:
                    offset, left = next(extents)
                    os.lseek(descriptor, offset, os.SEEK_SET)
                part = piece[:left]
                _write(descriptor, part)
                left -= len(part)
                piece = piece[len(part) :]  # noqa: PLW2901 - the rest belongs to the next extent
        os.ftruncate(descriptor, entry.sparse.size)

    def _directory(self, entry: TarEntry, parent: bytes, base: bytes) -> None:
        path = _joined(parent, base)
        if base:
            directory = self.tree.directory(parent)
            try:
                os.mkdir(base, 0o755, dir_fd=directory)
            except FileExistsError:
                there = os.stat(base, dir_fd=directory, follow_symlinks=False)
                if not stat.S_ISDIR(there.st_mode):
                    self.tree.replace(directory, base, path)
                    os.mkdir(base, 0o755, dir_fd=directory)
                    if is_whiteout(there):  # hidden below and made anew: nothing of the lower one shows through
                        self._opaque(path)
        self._directories[path] = entry

    def _other(self, entry: TarEntry, parent: bytes, base: bytes) -> None:
        if not base:
            raise malformed("the layer's root is not a directory", name=entry.name)
        if entry.kind is Kind.HARDLINK:
            self._hard_link(entry, parent, base)
            return
        directory = self.tree.directory(parent)
        if entry.kind is Kind.SYMLINK:
            if not entry.link or len(entry.link) >= self._limits.path_bytes:
                raise malformed("a symbolic link without or with too long a target", name=entry.name)
            try:
                os.symlink(entry.link, base, dir_fd=directory)
            except FileExistsError:
                self.tree.replace(directory, base, _joined(parent, base))
                os.symlink(entry.link, base, dir_fd=directory)
        else:
            self.tree.replace(directory, base, _joined(parent, base))
            self._special(entry, directory, base)
            os.chmod(base, entry.mode, dir_fd=directory)  # made a line ago, and not a link
        if (entry.uid, entry.gid) != self._owner:
            os.chown(base, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
        os.utime(base, ns=(entry.mtime, entry.mtime), dir_fd=directory, follow_symlinks=False)

    def _special(self, entry: TarEntry, directory: int, base: bytes) -> None:
        if entry.kind is Kind.FIFO:
            os.mkfifo(base, 0o600, dir_fd=directory)
            return
        major, minor = entry.device
        whiteout = entry.kind is Kind.CHARACTER and (major, minor) == (0, 0)
        if not whiteout and self._devices is Devices.REFUSED:
            raise malformed(
                "a device node, which layers may not bring", name=entry.name, code="tar_device", got=f"{major}:{minor}"
            )
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise malformed("a device node with numbers out of range", name=entry.name, got=f"{major}:{minor}")
        form = stat.S_IFCHR if entry.kind is Kind.CHARACTER else stat.S_IFBLK
        os.mknod(base, form | 0o600, os.makedev(major, minor), dir_fd=directory)

    def _hard_link(self, entry: TarEntry, parent: bytes, base: bytes) -> None:
        target = self._normalised(entry.link)
        if target in {b"", _joined(parent, base)}:
            raise malformed("a hard link to itself or to the root", name=entry.name, code="tar_hardlink")
        target_parent, _, target_base = target.rpartition(b"/")
        source = -1
        try:
            source = os.dup(self.tree.directory(target_parent, make=False))
            os.stat(target_base, dir_fd=source, follow_symlinks=False)
            directory = self.tree.directory(parent)
            self.tree.replace(directory, base, _joined(parent, base))
            os.link(target_base, base, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
        except (FileNotFoundError, PermissionError) as error:
            raise malformed(
                "a hard link to something that the layer does not hold as a file",
                name=entry.name,
                code="tar_hardlink",
                got=printable(entry.link),
            ) from error
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            raise malformed("more hard links to one file than the file system takes", name=entry.name) from error
        finally:
            if source >= 0:
                os.close(source)

    def _whiteout(self, entry: TarEntry, parent: bytes, base: bytes) -> None:
        if any(part.startswith(_AUFS) for part in parent.split(b"/")):
            return
        if _hidden(parent):
            raise malformed("an entry below a whiteout", name=entry.name, code="tar_whiteout")
        if base == _OPAQUE_MARK:
            self.tree.directory(parent)
            self._opaque(parent)
            return
        if base.startswith(_AUFS):
            return
        hidden = base[len(_WHITEOUT) :]
        if hidden in _NOT_NAMES:
            raise malformed("a whiteout of nothing, of the directory itself or of its parent", name=entry.name)
        directory = self.tree.directory(parent)
        try:
            os.mknod(hidden, stat.S_IFCHR, NO_DEVICE, dir_fd=directory)
        except FileExistsError:
            # What the same layer brings stays (layer.md); of a directory, only what the lower layers had is hidden.
            if stat.S_ISDIR(os.stat(hidden, dir_fd=directory, follow_symlinks=False).st_mode):
                self._opaque(_joined(parent, hidden))

    def _opaque(self, path: bytes) -> None:
        os.setxattr(self.tree.directory(path), OPAQUE, b"y")

    def _check_xattrs(self, entry: TarEntry) -> None:
        for key, _ in entry.xattrs:
            if key.startswith(_OVERLAYS_OWN) or b"\0" in key:
                raise malformed(
                    "an extended attribute that a layer may not set",
                    name=entry.name,
                    code="tar_xattr",
                    got=printable(key),
                )

    def _set_xattrs(self, descriptor: int, entry: TarEntry) -> None:
        for key, value in entry.xattrs:
            if key != b"security.capability" and not key.startswith(b"user."):
                continue
            try:
                os.setxattr(descriptor, key, value)
            except OSError as error:
                if key.startswith(b"user.") and error.errno in {errno.ENOTSUP, errno.EPERM}:
                    self.xattrs_dropped += 1  # tmpfs knows user.* only since Linux 6.6; nothing depends on them
                    continue
                if error.errno in {errno.EINVAL, errno.ERANGE, errno.E2BIG}:
                    raise malformed("an extended attribute that is not valid", name=entry.name) from error
                raise

    def _implied(self, path: bytes) -> None:
        """A directory that no entry named so far: it counts, and forgets what an earlier one of its name was given."""
        self.entries += 1
        if self.entries > self._limits.entries:
            raise self._limits.exceeded("entries", self._limits.entries)
        self._directories.pop(path, None)

    def _count(self, size: int) -> None:
        self.file_bytes += size
        if self.file_bytes > min(self._limits.unpacked_bytes, MAX_SIZE):
            raise self._limits.exceeded("unpacked_bytes", self._limits.unpacked_bytes, self.file_bytes)

    def _normalised(self, name: bytes) -> bytes:
        if not name or len(name) > self._limits.path_bytes:
            raise malformed("an empty name or one that is too long", name=name[:200], got=len(name))
        parts = [part for part in name.split(b"/") if part not in {b"", b"."}]
        if b".." in parts:
            raise malformed("a name that leads upwards", name=name, code="tar_escape")
        if len(parts) > self._limits.depth:
            raise self._limits.exceeded("depth", self._limits.depth, len(parts))
        if any(len(part) > _COMPONENT for part in parts):
            raise malformed("a name with a component over 255 bytes", name=name)
        return b"/".join(parts)


def _write(descriptor: int, data: memoryview) -> None:
    while (written := os.write(descriptor, data)) < len(data):
        data = data[written:]


def _joined(parent: bytes, base: bytes) -> bytes:
    return parent + b"/" + base if parent else base


def _hidden(parent: bytes) -> bool:
    """Whether a directory's path has a whiteout's name in it."""
    return parent.startswith(_WHITEOUT) or b"/.wh." in parent


def _has_default_acl(directory: int) -> bool:
    try:
        return bool(os.getxattr(directory, "system.posix_acl_default"))
    except OSError:
        return False
