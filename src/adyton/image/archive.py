"""``oci-archive:PATH[:TAG]``: an OCI image layout in one uncompressed tar file, read in place and written whole.

Reading needs one pass over the headers and then goes straight to each blob. Writing collects the layout beside the
destination and makes the file in the end, under its name only when it is complete.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

from adyton.errors import ConfigError, MalformedImage, NotFound, UnsupportedImage
from adyton.image.blob_file import FileBlobWriter, SliceReader, file_errors, open_blob_file
from adyton.image.manifest import MAX_MANIFEST
from adyton.image.oci_layout import LayoutSink, check_layout, checked_manifest, choose, parse_index
from adyton.image.source import RawManifest
from adyton.rats.types import Digest

MAX_MEMBERS = 65536
MAX_HEADER = 1 << 20


class ArchiveSource:
    """An ``ImageSource`` over an archive."""

    def __init__(self, path: Path, tag: str | None) -> None:
        self._path = path
        self._tag = tag
        self._members = _members(path)

    def manifest(self, digest: Digest | None = None) -> RawManifest:
        """As ``ImageSource``."""
        media_type = None
        if digest is None:
            check_layout(self._small("oci-layout"))
            entry = choose(parse_index(self._small("index.json")), self._tag, str(self._path))
            digest, media_type = entry.digest, entry.media_type
        return checked_manifest(self._small(_name(digest)), digest, media_type)

    def open_blob(self, digest: Digest, offset: int = 0) -> SliceReader:
        """As ``ImageSource``."""
        return self._open(_name(digest), offset)

    def close(self) -> None:
        """Nothing is held."""

    def _open(self, name: str, offset: int = 0) -> SliceReader:
        place = self._members.get(name)
        if place is None:
            raise NotFound(f"{self._path} has no {name}", code="file_not_found", field="path", got=name)
        start, size = place
        open_blob_file(self._path).close()  # the same refusals as for any file
        with file_errors(self._path):
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return SliceReader(descriptor, start + min(offset, size), max(0, size - offset), self._path)

    def _small(self, name: str) -> bytes:
        if self._members.get(name, (0, 0))[1] > MAX_MANIFEST:
            raise MalformedImage(f"{name} in the archive is too large", code="manifest_malformed")
        with contextlib.closing(self._open(name)) as blob:
            return blob.read() or b""


class ArchiveSink:
    """An ``ImageSink`` that leaves one archive, or nothing."""

    def __init__(self, path: Path, tag: str | None) -> None:
        self._path = path
        if os.path.lexists(path) and not path.is_file():
            raise ConfigError("not a regular file", code="not_a_file", field="path", got=str(path))
        with file_errors(path):
            self._staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.absolute().parent))
        self._layout = LayoutSink(self._staging, tag)

    def has_blob(self, digest: Digest) -> bool:
        """As ``ImageSink``."""
        return False

    def start_blob(self) -> FileBlobWriter:
        """As ``ImageSink``."""
        return self._layout.start_blob()

    def put_manifest(self, raw: bytes, media_type: str) -> Digest:
        """As ``ImageSink``."""
        digest = self._layout.put_manifest(raw, media_type)
        whole = self._staging / "archive.tar"
        with file_errors(self._path):
            names = sorted(path for path in self._staging.rglob("*") if path.is_file() and path.name[0] != ".")
            with tarfile.open(whole, "w", format=tarfile.PAX_FORMAT) as tar:
                for path in names:
                    member = tarfile.TarInfo(str(path.relative_to(self._staging)))
                    member.size, member.mode = path.stat().st_size, 0o644
                    with path.open("rb") as content:
                        tar.addfile(member, content)
                    path.unlink()  # so that the space is needed only about once
            whole.rename(self._path)
        return digest

    def close(self) -> None:
        """Remove what was collected."""
        self._layout.close()
        shutil.rmtree(self._staging, ignore_errors=True)


class _Headers(io.FileIO):
    """The archive's file for ``tarfile``, which would make room for as much as a header says that it is long."""

    def read(self, size: int | None = -1, /) -> bytes:
        """As a file's; ``tarfile.ReadError`` for all of it and for more than ``MAX_HEADER`` bytes."""
        if size is None or not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError("a header of no sensible length")
        return super().read(size)


def _name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _members(path: Path) -> dict[str, tuple[int, int]]:
    """Where each regular file of the archive begins, and its size."""
    members: dict[str, tuple[int, int]] = {}
    with contextlib.closing(open_blob_file(path)), file_errors(path):
        try:
            with _Headers(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
                for count, member in enumerate(tar):
                    name = member.name.removeprefix("./")
                    if (
                        count >= MAX_MEMBERS
                        or (name in members and member.isreg())
                        or member.issparse()
                        or member.size < 0
                    ):
                        raise MalformedImage(
                            "the archive has too many members, one twice, a sparse one, or one of no possible size",
                            code="archive_malformed",
                            got=name[:200],
                        )
                    if member.isreg():
                        members[name] = (member.offset_data, member.size)
        except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as error:
            raise UnsupportedImage(
                f"{path} is not an uncompressed tar file",
                code="archive_unreadable",
                field="path",
                got=str(path),
                hint="a compressed archive must be decompressed first",
            ) from error
    return members
