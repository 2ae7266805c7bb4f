"""The host's content-addressed store: blobs as they were pulled, and plain layers unpacked once for everybody.

::

    blobs/<algorithm>/<hex>                   as in the registry; ciphertext stays ciphertext
    unpacked/<algorithm>/<hex of diff id>/    layer/ (overlay's form), boot (the boot it was unpacked under)
    refs/<SHA-256 of the name>                JSON: name, digest
    tmp/<random>/                             work in progress
    lock                                      shared by whoever works in tmp, exclusive for whoever sweeps it

Everything appears by a rename when it is complete and right, so any number of processes may read and write, and one that
is killed leaves rubbish only in ``tmp``, which the next one sweeps as soon as nobody works there.

What is trusted: a blob is hashed whenever it is read, so whoever can write here can withhold it and no more. A layer
in ``unpacked`` is **not** verified again: a host that writes there changes what *plain* images run. The development TEE
accepts that, since a plain image has no secret, and an encrypted image never uses ``unpacked`` (``pull``). It is
valid for one boot only: it is not flushed to disk, and a crash may have left files of zeros behind a finished rename.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from adyton.errors import DigestMismatch, NotFound, PlatformError
from adyton.image import disk
from adyton.image.blob_file import SliceReader, open_blob_file
from adyton.image.source import CHUNK, BlobStream, RawManifest
from adyton.rats.types import Digest

PATIENCE = 600.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LAYER, _BOOT = "layer", "boot"


class Store:
    """The store at ``path``, made when it is missing. Cheap to make; holds nothing open. ``PlatformError`` on I/O."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tmp = path / "tmp"
        with disk.reported("opening the image store"):
            if not self._tmp.is_dir():
                for name in ("blobs/sha256", "unpacked", "refs", "tmp"):
                    (path / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(self._tmp.iterdir()):
                self._sweep()

    # blobs

    def blob(self, digest: Digest) -> Path | None:
        """Where a blob lies, or ``None``. Its content is unchecked: hash what you read."""
        path = self._blob_path(digest)
        return path if path.is_file() else None

    def open_blob(self, digest: Digest, offset: int = 0) -> SliceReader:
        """The blob from byte ``offset``, unchecked; ``NotFound``."""
        return open_blob_file(self._blob_path(digest), offset)

    def read(self, digest: Digest, limit: int) -> bytes | None:
        """A small blob as a whole, checked. One that is damaged or over ``limit`` bytes is as good as absent."""
        try:
            with contextlib.closing(self.open_blob(digest)) as blob:
                data = _read_all(blob, limit + 1)
        except NotFound:
            return None
        return data if len(data) <= limit and digest.matches(data) else None

    def add_blob(self, stream: BlobStream, digest: Digest, size: int | None = None) -> Path:
        """Read ``stream`` to its end and keep it; ``DigestMismatch`` unless it is ``digest`` (and ``size`` bytes long)."""
        found = hashlib.new(digest.algorithm)
        buffer = memoryview(bytearray(CHUNK))
        done = 0
        with self.incoming() as blob:
            while (count := stream.readinto(buffer)) and (size is None or done <= size):
                done += count
                found.update(buffer[:count])
                blob.write(buffer[:count])
            if found.digest() != digest.value or size not in {None, done}:
                raise DigestMismatch(
                    "a blob is not what its digest says",
                    code="blob_mismatch",
                    field="digest",
                    expected=str(digest) if size is None else f"{digest} ({size} bytes)",
                    got=f"{found.name}:{found.hexdigest()} ({done} bytes)",
                    hint="the registry or the network altered it; pull again, or from another place",
                )
            return blob.commit(digest)

    @contextlib.contextmanager
    def incoming(self) -> Iterator[IncomingBlob]:
        """A blob to be written; what was not committed at the end is gone."""
        with self.staging() as place:
            blob = IncomingBlob(place / "blob", self._blob_path)
            try:
                yield blob
            finally:
                blob.close()

    def discard_blob(self, digest: Digest) -> None:
        """Forget a blob that turned out to be damaged."""
        with disk.reported("removing a damaged blob"):
            self._blob_path(digest).unlink(missing_ok=True)

    # names

    def ref(self, name: str) -> Digest | None:
        """The manifest digest that ``name`` was given last."""
        entry = _ref(self._ref_path(name))
        return entry[1] if entry is not None and entry[0] == name else None

    def set_ref(self, name: str, digest: Digest) -> None:
        """Let ``name`` stand for ``digest``."""
        with self.staging() as place, disk.reported("naming an image"):
            written = place / "ref"
            written.write_text(json.dumps({"name": name, "digest": str(digest)}), "utf-8")
            written.rename(self._ref_path(name))

    def refs(self) -> dict[str, Digest]:
        """All names."""
        with disk.reported("listing the image store"):
            found = [_ref(path) for path in (self.path / "refs").iterdir()]
        return dict(sorted(entry for entry in found if entry is not None))

    # unpacked plain layers

    def unpacked(self, diff_id: Digest) -> Path | None:
        """The directory of a plain layer that was unpacked completely since the machine started, or ``None``."""
        place = self._unpacked_path(diff_id)
        try:
            known = (place / _BOOT).read_text("ascii")
        except (OSError, ValueError):
            return None
        return place / _LAYER if known == _boot() and (place / _LAYER).is_dir() else None

    def publish_unpacked(self, layer: Path, diff_id: Digest) -> Path:
        """Take over the directory ``layer``, complete and checked, from a ``staging`` place. Where it lies now."""
        place = self._unpacked_path(diff_id)
        new = layer.with_name(f"publish-{secrets.token_hex(4)}")
        with disk.reported("keeping an unpacked layer"):
            new.mkdir(mode=0o700)
            layer.rename(new / _LAYER)
            (new / _BOOT).write_text(_boot(), "ascii")
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for _ in range(8):
                try:
                    new.rename(place)
                    return place / _LAYER
                except OSError as error:
                    if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                        raise
                if (there := self.unpacked(diff_id)) is not None:
                    return there
                with contextlib.suppress(FileNotFoundError):  # of an earlier boot: nobody uses it
                    place.rename(layer.with_name(f"old-{secrets.token_hex(4)}"))
        raise PlatformError("an unpacked layer cannot be put in its place", code="store_busy", got=str(place))

    # work in progress

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """A directory of one's own on the store's file system; what is left in it is removed at the end."""
        with contextlib.ExitStack() as held:
            with disk.reported("writing to the image store"):
                lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                held.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_SH)
                place = self._tmp / secrets.token_hex(8)
                place.mkdir(mode=0o700)
            held.callback(disk.remove_tree, place)
            yield place

    @contextlib.contextmanager
    def one_at_a_time(self, diff_id: Digest) -> Iterator[None]:
        """Let one process unpack a layer and the others wait for it. To be used inside ``staging``.

        This saves work and is not needed for being right: after ``PATIENCE`` seconds one goes on without.
        """
        path = self._tmp / f"lock-{diff_id.hex}"
        with disk.reported("waiting for another pull"):
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.02)
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(lock)

    def _sweep(self) -> None:
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # somebody works there; whoever comes when nobody does will sweep
        else:
            for entry in list(self._tmp.iterdir()):
                disk.remove_tree(entry)
        finally:
            os.close(lock)

    def _blob_path(self, digest: Digest) -> Path:
        return self.path / "blobs" / digest.algorithm / digest.hex

    def _unpacked_path(self, diff_id: Digest) -> Path:
        return self.path / "unpacked" / diff_id.algorithm / diff_id.hex

    def _ref_path(self, name: str) -> Path:
        return self.path / "refs" / hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


class IncomingBlob:
    """A blob being written in ``tmp``. Nothing is visible before ``commit``."""

    def __init__(self, path: Path, place: Callable[[Digest], Path]) -> None:
        self._path = path
        self._place = place
        with disk.reported("writing to the image store"):
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._open = True

    def write(self, data: bytes | memoryview) -> None:
        """Append all of ``data``."""
        view = memoryview(data)
        with disk.reported("writing to the image store"):
            while view:
                view = view[os.write(self._descriptor, view) :]

    def commit(self, digest: Digest) -> Path:
        """Make it visible as ``digest``, which the caller computed over what it wrote."""
        target = self._place(digest)
        with disk.reported("writing to the image store"):
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.rename(target)
        return target

    def close(self) -> None:
        """Let go of the file; more than once is allowed."""
        if self._open:
            self._open = False
            os.close(self._descriptor)


class StoreSource:
    """An ``ImageSource`` over what the store holds. ``named``: the manifest that the source as a whole stands for."""

    def __init__(self, store: Store, named: Digest) -> None:
        self._store = store
        self._named = named

    def manifest(self, digest: Digest | None = None) -> RawManifest:
        """As ``ImageSource``."""
        from adyton.image.manifest import MAX_MANIFEST

        wanted = digest or self._named
        raw = self._store.read(wanted, MAX_MANIFEST)
        if raw is None:
            raise NotFound("the store does not hold this image", code="image_unknown", got=str(wanted))
        return RawManifest(wanted, None, raw)

    def open_blob(self, digest: Digest, offset: int = 0) -> SliceReader:
        """As ``ImageSource``."""
        return self._store.open_blob(digest, offset)

    def close(self) -> None:
        """Nothing is held."""


def _ref(path: Path) -> tuple[str, Digest] | None:
    try:
        entry = json.loads(path.read_text("utf-8"))
        return str(entry["name"]), Digest.parse(str(entry["digest"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read_all(stream: BlobStream, limit: int) -> bytes:
    data = bytearray(limit)
    filled = 0
    with memoryview(data) as view:
        while filled < limit and (count := stream.readinto(view[filled:])):
            filled += count
    return bytes(data[:filled])


def _boot() -> str:
    """What names the present boot; without it nothing unpacked counts as valid."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return f"unknown-{secrets.token_hex(8)}"
