"""Manifests written anew with other layers: what encryption and decryption have in common.

Everything that a manifest says stays, members unknown to us included, except what must change: layer descriptors, and
the media types of a Docker schema 2 manifest, which becomes an OCI one (OCI alone knows encrypted layers). ``data`` and
``urls`` of a layer are dropped: they would show, or lead to, the layer as it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from adyton.image import media_types
from adyton.image.manifest import Descriptor, Manifest
from adyton.image.source import CHUNK, ImageSink, ImageSource, checked
from adyton.rats.ports import Progress
from adyton.rats.types import Digest

Transform = Callable[[memoryview], bytes | memoryview]


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
    finish: Callable[[], Digest] | None = None,
) -> None:
    """Stream a blob, checked, through ``transform`` into ``sink``; nothing becomes visible there if anything is wrong.

    ``finish`` is asked for the digest of what was written after the last byte was read and checked, and may refuse;
    without it the blob's own digest stays.
    """
    if finish is None and sink.has_blob(descriptor.digest):
        report(progress, label, descriptor.size, descriptor.size)
        return
    writer = sink.start_blob()
    try:
        with checked(source, descriptor) as blob:
            buffer = bytearray(CHUNK)
            view = memoryview(buffer)
            done = 0
            while count := blob.readinto(view):
                piece = view[:count]
                writer.write(piece if transform is None else transform(piece))
                done += count
                report(progress, label, done, descriptor.size)
        writer.commit(descriptor.digest if finish is None else finish())
    finally:
        writer.abort()


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
