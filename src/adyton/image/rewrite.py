"""Manifests written anew with other layers: what encryption and decryption have in common.

Everything that a manifest says stays, members unknown to us included, except what must change: layer descriptors, and
the media types of a Docker schema 2 manifest, which becomes an OCI one (OCI alone knows encrypted layers). ``data`` and
``urls`` of a layer are dropped: they would show, or lead to, the layer as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

from adyton.image import media_types
from adyton.image.manifest import Descriptor, Manifest
from adyton.image.source import CHUNK, CheckedBlob, ImageSink, ImageSource, checked
from adyton.image.stages import Background
from adyton.rats.ports import Progress
from adyton.rats.types import Digest

Transform = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A manifest written anew; ``converted`` says that it was Docker schema 2."""

    raw: bytes
    media_type: str
    converted: bool

    @property
    def digest(self) -> Digest:
        """SHA-256 of the bytes."""
        return Digest.of(self.raw)


def with_layers(manifest: Manifest, layers: Sequence[Descriptor]) -> Rewritten:
    """``manifest`` as an OCI manifest with ``layers`` in place of its own."""
    converted = manifest.media_type != media_types.OCI_MANIFEST or manifest.config.media_type != media_types.OCI_CONFIG
    document: dict[str, object] = json.loads(manifest.raw)
    document["mediaType"] = media_types.OCI_MANIFEST
    document["config"] = _entry(
        Descriptor(media_types.OCI_CONFIG, manifest.config.digest, manifest.config.size, manifest.config.annotations)
    )
    document["layers"] = [_entry(layer) for layer in layers]
    raw = json.dumps(document, separators=(",", ":")).encode()
    return Rewritten(raw, media_types.OCI_MANIFEST, converted)


def copy_blob(
    source: ImageSource,
    sink: ImageSink,
    descriptor: Descriptor,
    *,
    label: str,
    progress: Progress | None,
    transform: Transform | None = None,
) -> Digest:
    """Stream a blob, checked, through ``transform`` into ``sink``; the digest of what was written.

    Nothing becomes visible there if anything was wrong with what was read. Reading and hashing, transforming, and
    hashing and writing are three threads.
    """
    if transform is None and sink.has_blob(descriptor.digest):
        report(progress, label, descriptor.size, descriptor.size)
        return descriptor.digest
    writer = sink.start_blob()
    try:
        with contextlib.ExitStack() as stages:
            blob = stages.enter_context(checked(source, descriptor))
            pieces: Iterator[bytes] = stages.enter_context(Background(read(blob), "read"))
            if transform is not None:
                pieces = stages.enter_context(Background((transform(piece) for piece in pieces), "transform"))
            written = hashlib.sha256()
            done = 0
            for piece in pieces:
                if transform is not None:
                    written.update(piece)
                writer.write(piece)
                done += len(piece)
                report(progress, label, done, descriptor.size)
        digest = descriptor.digest if transform is None else Digest("sha256", written.digest())
        writer.commit(digest)
    finally:
        writer.abort()
    return digest


def read(blob: CheckedBlob) -> Generator[bytes, None, None]:
    """A blob in pieces of ``CHUNK`` bytes; the end comes only if all of it was right."""
    buffer = memoryview(bytearray(CHUNK))
    while count := blob.readinto(buffer):
        yield bytes(buffer[:count])


def report(progress: Progress | None, label: str, done: int, total: int) -> None:
    """Tell ``progress``, if there is one."""
    if progress is not None:
        progress.advance(label, done, total)


def without(annotations: Mapping[str, str], prefix: str) -> dict[str, str]:
    """The annotations whose names do not begin with ``prefix``."""
    return {name: value for name, value in annotations.items() if not name.startswith(prefix)}


def _entry(descriptor: Descriptor) -> dict[str, object]:
    entry: dict[str, object] = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }
    if descriptor.annotations:
        entry["annotations"] = dict(descriptor.annotations)
    return entry
