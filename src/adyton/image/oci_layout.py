"""``oci:PATH[:TAG]``: an OCI image layout directory (image-spec 1.1, image-layout.md), read and written."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from adyton.errors import MalformedImage, NotFound
from adyton.image import manifest as manifests
from adyton.image import media_types
from adyton.image.blob_file import (
    FileBlobWriter,
    SliceReader,
    Unpublished,
    file_errors,
    open_blob_file,
    read_file,
    write_file,
)
from adyton.image.manifest import MAX_MANIFEST, Descriptor, Index
from adyton.image.source import RawManifest
from adyton.rats.types import Digest
from adyton.wire import strict_json

REF_NAME = "org.opencontainers.image.ref.name"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_SPEC = "OCI image-spec, image-layout.md"


def choose(index: Index, tag: str | None, where: str) -> Descriptor:
    """The entry of a layout's index that ``tag`` names; without a tag the only entry there is."""
    entries = [entry for entry in index.manifests if tag is None or entry.annotations.get(REF_NAME) == tag]
    if len({entry.digest for entry in entries}) == 1:
        return entries[0]
    names = [entry.annotations.get(REF_NAME, "(no name)")[:100] for entry in index.manifests][:32]
    if not entries:
        raise NotFound(f"{where} holds no image" + (f" named {tag}" if tag else ""), code="image_not_found", got=names)
    raise MalformedImage(
        f"{where} holds several images" + (f" named {tag}" if tag else ""),
        code="layout_ambiguous",
        got=names,
        spec=_SPEC,
        hint="name one: oci:PATH:TAG",
    )


def check_layout(raw: bytes) -> None:
    """The content of the file ``oci-layout``; ``MalformedImage`` unless its version is 1.0.0."""
    try:
        value = strict_json.parse(raw, max_size=4096)
    except ValueError:
        value = None
    version = value.get("imageLayoutVersion") if isinstance(value, dict) else None
    if version != "1.0.0":
        raise MalformedImage(
            "not an OCI image layout", code="layout_version", expected="1.0.0", got=str(version)[:40], spec=_SPEC
        )


def parse_index(raw: bytes) -> Index:
    """A layout's ``index.json``."""
    index = manifests.parse(raw)
    if not isinstance(index, Index):
        raise MalformedImage("a layout's index.json is not an index", code="layout_index", spec=_SPEC)
    return index


def checked_manifest(raw: bytes, digest: Digest, media_type: str | None) -> RawManifest:
    """``raw`` as the manifest with ``digest``; ``MalformedImage`` when it is another."""
    if not digest.matches(raw):
        raise MalformedImage("a manifest is not what its digest says", code="manifest_mismatch", expected=str(digest))
    return RawManifest(digest, media_type, raw)


class LayoutSource:
    """An ``ImageSource`` over a layout directory."""

    def __init__(self, path: Path, tag: str | None) -> None:
        self._path = path
        self._tag = tag

    def manifest(self, digest: Digest | None = None) -> RawManifest:
        """As ``ImageSource``."""
        media_type = None
        if digest is None:
            check_layout(read_file(self._path / "oci-layout", 4096))
            entry = choose(parse_index(read_file(self._path / "index.json", MAX_MANIFEST)), self._tag, str(self._path))
            digest, media_type = entry.digest, entry.media_type
        return checked_manifest(read_file(blob_path(self._path, digest), MAX_MANIFEST), digest, media_type)

    def open_blob(self, digest: Digest, offset: int = 0) -> SliceReader:
        """As ``ImageSource``."""
        return open_blob_file(blob_path(self._path, digest), offset)

    def close(self) -> None:
        """Nothing is held."""


class LayoutSink:
    """An ``ImageSink`` into a layout directory, made when it is not there; images of other names in it stay."""

    def __init__(self, path: Path, tag: str | None) -> None:
        self._path = path
        self._tag = tag
        self._blobs = path / "blobs" / "sha256"
        with contextlib.suppress(NotFound):
            check_layout(read_file(path / "oci-layout", 4096))
        self._unpublished = Unpublished(shared=True)
        with file_errors(path):
            self._unpublished.directory(self._blobs)

    def has_blob(self, digest: Digest) -> bool:
        """As ``ImageSink``; what lies there is not trusted to be whole, so it is written again."""
        return False

    def start_blob(self) -> FileBlobWriter:
        """As ``ImageSink``."""
        return FileBlobWriter(self._blobs, lambda digest: blob_path(self._path, digest), self._unpublished.put)

    def put_manifest(self, raw: bytes, media_type: str) -> Digest:
        """As ``ImageSink``: the manifest's blob, then the index, replaced in one step under a lock."""
        digest = Digest.of(raw)
        write_file(blob_path(self._path, digest), raw, self._unpublished.put)
        entry: dict[str, object] = {"mediaType": media_type, "digest": str(digest), "size": len(raw)}
        if self._tag is not None:
            entry["annotations"] = {REF_NAME: self._tag}
        with _locked(self._path):
            kept = self._others()
            index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [*kept, entry]}
            write_file(self._path / "oci-layout", LAYOUT)
            write_file(self._path / "index.json", json.dumps(index, separators=(",", ":")).encode())
        self._unpublished.published()
        return digest

    def close(self) -> None:
        """Remove what was not published."""
        self._unpublished.close()

    def _others(self) -> list[object]:
        """The entries of other names in the index that is there, as they are."""
        path = self._path / "index.json"
        if not path.exists():
            return []
        raw = read_file(path, MAX_MANIFEST)
        parse_index(raw)
        entries: list[dict[str, object]] = json.loads(raw)["manifests"]
        return [entry for entry in entries if _name(entry) != self._tag]


def blob_path(layout: Path, digest: Digest) -> Path:
    """Where a layout keeps a blob."""
    return layout / "blobs" / digest.algorithm / digest.hex


def _name(entry: dict[str, object]) -> object:
    annotations = entry.get("annotations")
    return annotations.get(REF_NAME) if isinstance(annotations, dict) else None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with file_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
