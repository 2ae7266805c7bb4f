"""Decrypting an image for its holder: SRC to DST, in constant memory; the result is an ordinary image.

A layer becomes visible at the destination only after its ciphertext's digest, its MAC and its diff id were right. The
road of an encrypted image into a TEE is another one: ``pull`` never writes plain layers to a store.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from adyton.errors import DigestMismatch, MalformedImage, UnsupportedImage
from adyton.image import ocicrypt
from adyton.image.compression import decompressed
from adyton.image.layer_cipher import LayerDecryptor
from adyton.image.manifest import MAX_CONFIG, Descriptor, Platform, parse_config
from adyton.image.media_types import layer_format
from adyton.image.ocicrypt import ImageKeys, LayerKey
from adyton.image.rewrite import copy_blob, read, report, with_layers, without
from adyton.image.source import (
    BlobWriter,
    ImageSink,
    ImageSource,
    checked,
    image_manifest,
    read_blob,
)
from adyton.image.stages import Background
from adyton.rats.ports import Progress
from adyton.rats.types import Digest


@dataclass(frozen=True, slots=True)
class DecryptedImage:
    """What was published."""

    digest: Digest
    layers: tuple[Descriptor, ...]
    converted: bool


def decrypt(
    source: ImageSource,
    sink: ImageSink,
    keys: ImageKeys,
    *,
    platform: Platform,
    progress: Progress | None = None,
) -> DecryptedImage:
    """Decrypt every encrypted layer of ``source`` into ``sink``; layers that are plain stay as they are."""
    manifest = image_manifest(source, platform)
    config = parse_config(read_blob(source, manifest.config, MAX_CONFIG), manifest)
    if not any([ocicrypt.is_encrypted(layer) for layer in manifest.layers]):  # noqa: C419 -- every layer is to be judged
        raise UnsupportedImage(
            "no layer of the image is encrypted", code="not_encrypted", hint="copy it: skopeo copy SRC DST"
        )
    # Every key before any blob: a key that is missing shows at once, and nothing has been written.
    found = [ocicrypt.unwrap(layer, keys) if ocicrypt.is_encrypted(layer) else None for layer in manifest.layers]
    copy_blob(source, sink, manifest.config, label="configuration", progress=progress)
    layers = []
    for number, (layer, key) in enumerate(zip(manifest.layers, found, strict=True), 1):
        label = f"layer {number}"
        if key is None:
            copy_blob(source, sink, layer, label=label, progress=progress)
            layers.append(layer)
            continue
        digest = _decrypt_layer(_Job(source, sink, layer, key, config.diff_ids[number - 1], label, progress))
        annotations = without(layer.annotations, ocicrypt.PREFIX)
        layers.append(Descriptor(layer_format(layer.media_type).oci, digest, layer.size, annotations))
    rewritten = with_layers(manifest, layers)
    sink.put_manifest(rewritten.raw, rewritten.media_type)
    return DecryptedImage(rewritten.digest, tuple(layers), rewritten.converted)


@dataclass(frozen=True, slots=True)
class _Job:
    """One layer on its way."""

    source: ImageSource
    sink: ImageSink
    layer: Descriptor
    key: LayerKey
    diff_id: Digest
    label: str
    progress: Progress | None


def _decrypt_layer(job: _Job) -> Digest:
    """Write one plain layer; its digest. Nothing is visible unless everything about it was right."""
    decryptor = LayerDecryptor(job.key)
    uncompressed = hashlib.new(job.diff_id.algorithm)
    writer = job.sink.start_blob()
    try:
        with contextlib.ExitStack() as stages:
            blob = stages.enter_context(checked(job.source, job.layer))
            ciphertext = stages.enter_context(Background(read(blob), "read"))
            plain = stages.enter_context(Background((decryptor.update(piece) for piece in ciphertext), "decrypt"))
            pieces = _written(plain, writer, job)
            try:
                for piece in decompressed(pieces, layer_format(job.layer.media_type).compression):
                    uncompressed.update(piece)
            except MalformedImage:
                # Altered ciphertext decrypts to noise: read on, so that the error says "altered", not "bad gzip".
                collections.deque(plain, maxlen=0)
                decryptor.finish()
                raise
        digest = decryptor.finish()
        if uncompressed.digest() != job.diff_id.value:
            raise DigestMismatch(
                "a decrypted layer is not the one that the image's configuration names",
                code="diff_id_mismatch",
                field="rootfs.diff_ids",
                expected=str(job.diff_id),
                got=f"{uncompressed.name}:{uncompressed.hexdigest()}",
            )
        writer.commit(digest)
        return digest
    finally:
        writer.abort()


def _written(plain: Iterator[bytes], writer: BlobWriter, job: _Job) -> Iterator[bytes]:
    done = 0
    for piece in plain:
        writer.write(piece)
        done += len(piece)
        report(job.progress, job.label, done, job.layer.size)
        yield piece
