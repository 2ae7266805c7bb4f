"""``dir:PATH``: skopeo's plain directory. ``manifest.json``, ``version``, and each blob under its digest's hex.

It holds one image. Writing another one removes what belonged to the one before: whoever encrypts into a directory that
held the plain image would hand the plain layers on beside the encrypted ones.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from pathlib import Path

from adyton.errors import ConfigError, Conflict, NotFound
from adyton.image import manifest as manifests
from adyton.image.blob_file import (
    FileBlobWriter,
    SliceReader,
    Unpublished,
    file_errors,
    open_blob_file,
    read_file,
    write_file,
)
from adyton.image.manifest import MAX_MANIFEST, Index
from adyton.image.oci_layout import checked_manifest
from adyton.image.source import RawManifest
from adyton.rats.types import Digest

_OF_AN_IMAGE = re.compile(
    r"(?:[0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128})(?:\.manifest\.json)?\Z|signature-[0-9]+\Z|\.incoming-"
)
VERSION = b"Directory Transport Version: 1.1\n"


class DirectorySource:
    """An ``ImageSource`` over such a directory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def manifest(self, digest: Digest | None = None) -> RawManifest:
        """As ``ImageSource``; manifests below an index are in ``<hex>.manifest.json``."""
        top = read_file(self._path / "manifest.json", MAX_MANIFEST)
        if digest is None or digest.matches(top):
            return RawManifest(digest or Digest.of(top), None, top)
        try:
            raw = read_file(self._path / f"{digest.hex}.manifest.json", MAX_MANIFEST)
        except NotFound:
            raw = read_file(_place(self._path, digest), MAX_MANIFEST)
        return checked_manifest(raw, digest, None)

    def open_blob(self, digest: Digest, offset: int = 0) -> SliceReader:
        """As ``ImageSource``."""
        return open_blob_file(_place(self._path, digest), offset)

    def close(self) -> None:
        """Nothing is held."""


class DirectorySink:
    """An ``ImageSink`` into such a directory, one at a time; a directory that holds something else is refused."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with contextlib.ExitStack() as held, file_errors(path):
            self._unpublished = Unpublished(shared=False)
            self._unpublished.directory(path)
            held.callback(os.close, lock := os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Conflict(
                    "another image is being written into the destination directory",
                    code="destination_busy",
                    field="DST",
                    got=str(path),
                ) from error
            held.callback(self._unpublished.close)
            if any(path.iterdir()) and not (path / "version").is_file():
                raise ConfigError(
                    "the destination directory holds something that is not an image",
                    code="destination_not_empty",
                    field="DST",
                    got=str(path),
                    hint="name a new or an empty directory",
                )
            write_file(path / "version", VERSION, self._unpublished.put)
            self._held = held.pop_all()

    def has_blob(self, digest: Digest) -> bool:
        """As ``ImageSink``; what lies there is not trusted to be whole."""
        return False

    def start_blob(self) -> FileBlobWriter:
        """As ``ImageSink``."""
        return FileBlobWriter(self._path, lambda digest: _place(self._path, digest), self._unpublished.put)

    def put_manifest(self, raw: bytes, media_type: str) -> Digest:
        """As ``ImageSink``."""
        write_file(self._path / "manifest.json", raw)
        self._unpublished.published()
        self._remove_others(raw)
        return Digest.of(raw)

    def close(self) -> None:
        """Let others write there."""
        self._held.close()

    def _remove_others(self, raw: bytes) -> None:
        """Remove blobs, manifests and signatures that the image just written does not need, and what others left undone."""
        image = manifests.parse(raw)
        entries = image.manifests if isinstance(image, Index) else (image.config, *image.layers)
        needed = {entry.digest.hex for entry in entries}
        with file_errors(self._path):
            for path in list(self._path.iterdir()):
                if _OF_AN_IMAGE.match(path.name) and path.name.partition(".")[0] not in needed:
                    path.unlink()


def _place(path: Path, digest: Digest) -> Path:
    return path / digest.hex
