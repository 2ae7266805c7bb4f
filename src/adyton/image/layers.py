"""From a layer's blob to a directory, in one pass and constant memory, with every digest checked before it counts.

::

    blob ─► size, SHA-256 ─► HMAC, AES-CTR ─► decompress ─┬─► unpack
                                                          └─► SHA-256 (diff id)

A ``Crew`` of as many threads as cores works all of this, the caller, who unpacks, among them. A blob that comes from a
network is read, checked and decrypted in a thread of its own, which may wait.

``unpack_layer`` fills a directory that only its caller knows; ``place_layer`` makes one beside the target and renames it
when all is right, so that nothing is visible before. After any error what was written is removed. A layer that is both
damaged and malformed is reported as damaged: the rest of the blob is read to know.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import secrets
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

from adyton.errors import AdytonError, DigestMismatch, MalformedImage, Unavailable
from adyton.image import disk, media_types
from adyton.image import limits as bounds
from adyton.image.blob_file import SliceReader
from adyton.image.compression import PIECE, decompressed
from adyton.image.crew import Crew
from adyton.image.layer_cipher import LayerMac, LayerStream
from adyton.image.limits import Limits
from adyton.image.manifest import Descriptor
from adyton.image.media_types import Compression
from adyton.image.ocicrypt import LayerKey
from adyton.image.source import BlobStream
from adyton.image.stages import Background
from adyton.image.tar_stream import TarReader
from adyton.image.unpack import Devices, Unpacked, unpack
from adyton.rats.types import Digest

HIDDEN = ".unpacking-"
BLOB_DEPTH = 8  # pieces of the blob, each of which becomes several


@dataclass(frozen=True, slots=True)
class Layer:
    """What a layer must be: its blob's digest and size, the digest of its uncompressed tar, and how to read it."""

    blob: Digest
    size: int
    diff_id: Digest
    compression: Compression = "none"
    key: LayerKey | None = field(default=None, repr=False)

    @classmethod
    def of(cls, descriptor: Descriptor, diff_id: Digest, key: LayerKey | None = None) -> Layer:
        """From a manifest's descriptor and the configuration's diff id; ``key`` exactly if it is encrypted."""
        form = media_types.layer_format(descriptor.media_type)
        if form.encrypted != (key is not None):
            raise ValueError("a key belongs to an encrypted layer, and only to one")
        return cls(descriptor.digest, descriptor.size, diff_id, form.compression, key)


class Watch:
    """What goes on around a layer: ``read`` hears of bytes as they are read, ``kept`` of every piece of the blob.

    ``stop`` set from any thread ends the work with ``Unavailable``.
    """

    def __init__(
        self,
        read: Callable[[int], None] | None = None,
        kept: Callable[[memoryview], None] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.read = read
        self.kept = kept
        self.stop = stop


def unpack_layer(
    stream: BlobStream,
    layer: Layer,
    directory: Path,
    *,
    limits: Limits = bounds.DEFAULT,
    devices: Devices = Devices.REFUSED,
    watch: Watch | None = None,
) -> Unpacked:
    """Unpack ``stream`` into ``directory``, empty and known to nobody else, and check all that ``layer`` says.

    ``DigestMismatch``, ``DecryptionFailed``, ``MalformedImage``, ``PlatformError``, or the stream's ``Unavailable``.
    Only after it returned may anything in ``directory`` be used; after an error the caller removes it.
    """
    intake = _Intake(stream, layer, watch or Watch())
    digest = hashlib.new(layer.diff_id.algorithm)
    try:
        with disk.reported("unpacking a layer"):
            root = disk.open_directory(directory)
        try:
            with contextlib.ExitStack() as stages:
                crew = Crew()
                blob = (
                    crew.stage(intake.pieces(), BLOB_DEPTH)
                    if isinstance(stream, SliceReader | io.FileIO)
                    else stages.enter_context(Background(intake.pieces(), "blob", nice=3))
                )
                plain = crew.stage(decompressed(blob, layer.compression, limits))
                hashed = crew.aside(plain, digest.update)
                stages.enter_context(crew).begin()
                done = unpack(TarReader(plain, limits), root, limits=limits, devices=devices)
                hashed.finish()
        finally:
            os.close(root)
    except MalformedImage as error:
        if error.code != "layer_over_limit":
            _say_if_damaged(intake)
        raise
    if digest.digest() != layer.diff_id.value:
        raise DigestMismatch(
            "a layer's content is not what the image's configuration says",
            code="diff_id_mismatch",
            field="rootfs.diff_ids",
            expected=str(layer.diff_id),
            got=f"{layer.diff_id.algorithm}:{digest.hexdigest()}",
            spec="OCI image-spec, config.md",
            hint="manifest and configuration of this image do not belong together",
        )
    return done


def place_layer(
    stream: BlobStream,
    layer: Layer,
    target: Path,
    *,
    limits: Limits = bounds.DEFAULT,
    devices: Devices = Devices.REFUSED,
    watch: Watch | None = None,
) -> Unpacked:
    """As ``unpack_layer``, and the directory ``target`` appears by a rename when everything is right."""
    hidden = target.with_name(HIDDEN + secrets.token_hex(8))
    try:
        with disk.reported("unpacking a layer"):
            hidden.mkdir(mode=0o755)
        done = unpack_layer(stream, layer, hidden, limits=limits, devices=devices, watch=watch)
        with disk.reported("unpacking a layer"):
            hidden.rename(target)
    except BaseException:
        disk.remove_tree(hidden)
        raise
    return done


class _Intake:
    """The blob: read, counted, hashed, decrypted. ``pieces`` ends only if size, digest and MAC are right.

    The digest of the plain blob, which the owner wrapped with the key, is not computed: the MAC says that the ciphertext
    is the owner's, key and nonce come from the same wrapping, and the diff id says it again of what is in the blob.
    """

    def __init__(self, stream: BlobStream, layer: Layer, watch: Watch) -> None:
        self._stream = stream
        self._layer = layer
        self._watch = watch
        key = layer.key
        self._cipher = (LayerMac(key.symkey), LayerStream(key.symkey, key.nonce)) if key is not None else None
        self._digest = hashlib.new(layer.blob.algorithm)
        self._done = 0
        self._checked = False
        self._buffer = memoryview(bytearray(PIECE))

    def pieces(self) -> Generator[bytes, None, None]:
        """The layer blob as it was before encryption; unauthenticated until the end was reached."""
        while (count := self._fill()) > 0:
            yield self._opened(count)
        self._check()

    def finish(self) -> None:
        """Read what is left, and check."""
        if not self._checked:
            while (count := self._fill()) > 0:
                self._opened(count)
            self._check()

    def _fill(self) -> int:
        """Fill the buffer as far as the stream goes; the number of bytes."""
        filled = 0
        while filled < PIECE:
            if self._watch.stop is not None and self._watch.stop.is_set():
                raise Unavailable("unpacking was stopped", code="stopped")
            count = self._stream.readinto(self._buffer[filled:])
            if not count:
                break
            filled += count
            if self._done + filled > self._layer.size:
                raise self._wrong("longer than its descriptor says", self._done + filled)
            if self._watch.read is not None:
                self._watch.read(count)
        return filled

    def _opened(self, count: int) -> bytes:
        data = self._buffer[:count]
        self._done += count
        self._digest.update(data)
        if self._watch.kept is not None:
            self._watch.kept(data)
        if self._cipher is None:
            return bytes(data)
        mac, stream = self._cipher
        mac.update(data)
        return stream.update(data)

    def _check(self) -> None:
        if self._done != self._layer.size:
            raise self._wrong("shorter than its descriptor says", self._done)
        if self._digest.digest() != self._layer.blob.value:
            raise self._wrong("not what its digest says", self._done)
        if self._cipher is not None and self._layer.key is not None:
            self._cipher[0].check(self._layer.key)
        self._checked = True

    def _wrong(self, how: str, length: int) -> DigestMismatch:
        return DigestMismatch(
            f"a layer's blob is {how}",
            code="blob_mismatch",
            field="layers.digest",
            expected=f"{self._layer.blob} ({self._layer.size} bytes)",
            got=f"{self._digest.name}:{self._digest.hexdigest()} ({length} bytes)",
            spec="OCI image-spec, descriptor.md",
            hint="it was altered in the registry, the network or the store; pull it again",
        )


def _say_if_damaged(intake: _Intake) -> None:
    """Raise what is wrong with the blob itself, if anything: it is the cause of whatever came out of it."""
    try:
        intake.finish()
    except Unavailable:
        return
    except AdytonError as error:
        raise error from None
