"""Where images come from and go to: the two ports that every transport implements, and reading what they give safely.

A source gives manifests whose digest has been checked, and blobs that have **not** been checked: whoever reads a blob
checks it, with ``CheckedBlob``, ``read_blob`` or a pipeline of its own, before anything depends on it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from adyton.errors import DigestMismatch, MalformedImage
from adyton.image import manifest as manifests
from adyton.image.manifest import Descriptor, Index, Manifest, Platform
from adyton.rats.types import Digest

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class RawManifest:
    """Bytes of a manifest or index; ``digest`` is over exactly them. ``media_type`` as the place called it."""

    digest: Digest
    media_type: str | None
    raw: bytes

    def parse(self) -> Manifest | Index:
        """Read it, whichever it is."""
        return manifests.parse(self.raw, self.media_type)


class BlobStream(Protocol):
    """A readable blob. Laws: ``readinto`` gives 0 only at the end; a broken transport raises ``Unavailable``."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill ``buffer`` from the start; the number of bytes."""
        ...

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes, all of them when negative."""
        ...

    def close(self) -> None:
        """Let go of it; more than once is allowed."""
        ...


class ImageSource(Protocol):
    """One named image at its place, and everything that its repository holds. Law: thread-safe for ``open_blob``."""

    def manifest(self, digest: Digest | None = None) -> RawManifest:
        """The named manifest, or the one with ``digest``; bytes are checked. ``NotFound``, ``Unavailable``."""
        ...

    def open_blob(self, digest: Digest, offset: int = 0) -> BlobStream:
        """The blob from byte ``offset``. Unchecked. ``NotFound``, ``Unavailable``."""
        ...

    def close(self) -> None:
        """Let go of connections and files."""
        ...


class BlobWriter(Protocol):
    """A blob being written. Law: nothing is visible under any digest before ``commit`` returns."""

    def write(self, data: bytes | memoryview) -> None:
        """Append; the data may be reused by the caller afterwards."""
        ...

    def commit(self, digest: Digest) -> None:
        """Make it visible as ``digest``, which the caller computed over what it wrote."""
        ...

    def abort(self) -> None:
        """Forget it; after ``commit`` or a second time it does nothing."""
        ...


@runtime_checkable
class ImageSink(Protocol):
    """Where an image is written. Law: blobs first; the image exists for others only after ``put_manifest``."""

    def has_blob(self, digest: Digest) -> bool:
        """Whether it need not be written again."""
        ...

    def start_blob(self) -> BlobWriter:
        """A new blob whose digest is not known yet."""
        ...

    def put_manifest(self, raw: bytes, media_type: str) -> Digest:
        """Publish ``raw`` under the sink's name; all blobs are there. Its digest."""
        ...

    def close(self) -> None:
        """Let go; what was not published leaves nothing behind but blobs."""
        ...


class CheckedBlob:
    """Reads a blob while hashing it: the end is reached only by content of the stated size and digest.

    Until ``readinto`` has returned 0 the bytes are unchecked; a consumer must not act on them for good before.
    """

    def __init__(self, stream: BlobStream, digest: Digest, size: int) -> None:
        self._stream = stream
        self._digest = digest
        self._size = size
        self._hash = hashlib.new(digest.algorithm)
        self._done = 0

    def readinto(self, buffer: memoryview, /) -> int:
        """As ``BlobStream``; ``DigestMismatch`` for content that is too long, too short or other."""
        count = self._stream.readinto(buffer)
        self._done += count
        if self._done > self._size:
            raise self._mismatch("longer than its descriptor says")
        if count:
            self._hash.update(buffer[:count])
            return count
        if self._done != self._size:
            raise self._mismatch("shorter than its descriptor says")
        if self._hash.digest() != self._digest.value:
            raise self._mismatch("not what its digest says")
        return 0

    def read(self, size: int = -1, /) -> bytes:
        """As ``BlobStream``."""
        limit = self._size - self._done + 1 if size < 0 else size
        parts = bytearray(limit)
        view = memoryview(parts)
        filled = 0
        while filled < limit:
            count = self.readinto(view[filled:])
            if count == 0:
                break
            filled += count
        view.release()
        return bytes(parts[:filled])

    def close(self) -> None:
        """Close the stream below."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _mismatch(self, how: str) -> DigestMismatch:
        return DigestMismatch(
            f"a blob is {how}",
            code="blob_mismatch",
            field="digest",
            expected=f"{self._digest} ({self._size} bytes)",
            got=f"{self._hash.name}:{self._hash.hexdigest()} ({self._done} bytes)",
            hint="the registry or the network altered it; pull again, or from another place",
        )


@contextlib.contextmanager
def checked(source: ImageSource, descriptor: Descriptor) -> Iterator[CheckedBlob]:
    """The blob of ``descriptor``, hashed while it is read, closed afterwards."""
    blob = CheckedBlob(source.open_blob(descriptor.digest), descriptor.digest, descriptor.size)
    try:
        yield blob
    finally:
        blob.close()


def read_blob(source: ImageSource, descriptor: Descriptor, limit: int) -> bytes:
    """A small blob as a whole, checked; over ``limit`` bytes it is ``MalformedImage`` before anything is fetched."""
    if descriptor.size > limit:
        raise MalformedImage(
            "a blob is too large to be read as a whole", code="blob_too_large", expected=limit, got=descriptor.size
        )
    with checked(source, descriptor) as blob:
        return blob.read()


def image_manifest(source: ImageSource, platform: Platform, digest: Digest | None = None) -> Manifest:
    """The manifest for ``platform``: the named one, or the one that the named index lists for it."""
    fetched = source.manifest(digest).parse()
    if isinstance(fetched, Manifest):
        return fetched
    entry = manifests.choose_platform(fetched, platform.os, platform.architecture, platform.variant)
    return manifests.parse_manifest(source.manifest(entry.digest).raw, entry.media_type)
