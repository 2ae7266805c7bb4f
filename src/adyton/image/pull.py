"""From a manifest digest to directories that overlay can stack.

Plain images: each layer is fetched into the store and unpacked there in the same pass, once for everybody. Encrypted
images: ciphertext goes to the store, plaintext only below ``private``; *no* layer of such an image is taken from the
store's unpacked ones, not even a plain one, since whoever writes there could put code under the decrypted data. All keys
are obtained before the first layer is fetched. Everything is checked (manifest, configuration, blob, MAC, diff id) before it
can be seen; a blob that the store holds damaged is fetched again.

A pull that fails leaves nothing half done. Layers that were complete by then stay: they are right, and save the next
pull their way.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from adyton.errors import DigestMismatch, NotFound
from adyton.image import disk, media_types
from adyton.image import limits as bounds
from adyton.image import manifest as manifests
from adyton.image.limits import Limits
from adyton.image.manifest import Descriptor, ImageConfig, Manifest
from adyton.image.overlay import is_opaque
from adyton.image.source import ImageSource, read_blob
from adyton.image.store import Store
from adyton.rats.ports import Progress
from adyton.rats.types import Digest

if TYPE_CHECKING:  # the libraries behind them are loaded when a layer has to be unpacked
    from adyton.image.layers import Layer
    from adyton.image.ocicrypt import ImageKeys
    from adyton.image.source import BlobStream

WORKERS = 3
_ENCRYPTION = "org.opencontainers.image.enc."


@dataclass(frozen=True, slots=True)
class PulledImage:
    """An image that is ready to run. ``lower_dirs``: overlay's lower directories, top first, read-only by contract."""

    config: ImageConfig
    manifest: Manifest
    lower_dirs: tuple[Path, ...]
    encrypted: bool


def pull(  # noqa: PLR0917 - the agent's one call, in the order of a sentence
    source: ImageSource | None,
    digest: Digest,
    store: Store,
    private: Path,
    keys: ImageKeys,
    progress: Progress | None = None,
    *,
    limits: Limits = bounds.DEFAULT,
    workers: int = WORKERS,
) -> PulledImage:
    """Make the image with manifest ``digest`` ready. ``source``: where to get what the store lacks, if anywhere.

    ``NotFound``, ``Unavailable``; any ``ImageError``; whatever the key source says; ``PlatformError`` for the disk.
    """
    manifest, config = _documents(source, digest, store)
    encrypted = any(_is_encrypted(layer) for layer in manifest.layers)
    there = [None if encrypted else store.unpacked(diff_id) for diff_id in config.diff_ids]
    if None in there:
        work = _Work(source, store, limits, progress)
        jobs = _jobs(work, manifest, config, keys, private if encrypted else None)
        ready = work.run([job for job, path in zip(jobs, there, strict=True) if path is None], workers)
        there = [path or next(ready) for path in there]
    return PulledImage(config, manifest, _stacked(path for path in reversed(there) if path is not None), encrypted)


def _stacked(top_first: Iterable[Path]) -> tuple[Path, ...]:
    """What overlay is to be given: it refuses one directory twice, and does not heed an opaque mark on a layer's root.

    A layer that comes twice counts where it lies highest; below a layer that hides all that is below it, nothing does.
    """
    layers: dict[Path, None] = {}
    for layer in top_first:
        layers[layer] = None
        if is_opaque(layer):
            break
    return tuple(layers)


def fetch(source: ImageSource, digest: Digest, store: Store, progress: Progress | None = None) -> Manifest:
    """Copy an image into the store as it is, without unpacking: manifest, configuration, and the layers it lacks."""
    manifest, _ = _documents(source, digest, store)
    for number, layer in enumerate(manifest.layers, 1):
        if store.blob(layer.digest) is None:
            with contextlib.closing(source.open_blob(layer.digest)) as stream:
                store.add_blob(stream, layer.digest, layer.size)
        if progress is not None:
            progress.advance("layers", number, len(manifest.layers))
    return manifest


def _documents(source: ImageSource | None, digest: Digest, store: Store) -> tuple[Manifest, ImageConfig]:
    """Manifest and configuration, checked; from the store, or from the source and then in the store."""
    raw = store.read(digest, manifests.MAX_MANIFEST)
    media_type = None
    if raw is None:
        fetched = _needed(source, digest).manifest(digest)
        raw, media_type = fetched.raw, fetched.media_type
        if not digest.matches(raw):
            raise DigestMismatch(
                "a manifest is not what its digest says", code="manifest_mismatch", expected=str(digest)
            )
        store.add_blob(io.BytesIO(raw), digest)
    manifest = manifests.parse_manifest(raw, media_type)
    config = store.read(manifest.config.digest, manifests.MAX_CONFIG)
    if config is None:
        config = read_blob(_needed(source, manifest.config.digest), manifest.config, manifests.MAX_CONFIG)
        store.add_blob(io.BytesIO(config), manifest.config.digest)
    return manifest, manifests.parse_config(config, manifest)


def _is_encrypted(layer: Descriptor) -> bool:
    """Whether a layer is encrypted, judged by ``ocicrypt`` as soon as anything hints at it."""
    hinted = any(name.startswith(_ENCRYPTION) for name in layer.annotations)
    if not hinted and not media_types.layer_format(layer.media_type).encrypted:
        return False
    from adyton.image.ocicrypt import is_encrypted

    return is_encrypted(layer)


def _jobs(
    work: _Work, manifest: Manifest, config: ImageConfig, keys: ImageKeys, private: Path | None
) -> list[Callable[[], Path]]:
    """What makes each layer ready, lowest first. ``private`` exactly for encrypted images, whose keys are got here."""
    from adyton.image.layers import Layer

    layers = list(zip(manifest.layers, config.diff_ids, strict=True))
    if private is None:
        return [partial(work.shared, Layer.of(descriptor, diff_id)) for descriptor, diff_id in layers]
    from adyton.image.ocicrypt import unwrap

    with disk.reported("making the private directory for layers"):
        private.mkdir(mode=0o700, parents=True, exist_ok=True)
    opened = [
        Layer.of(descriptor, diff_id, unwrap(descriptor, keys) if _is_encrypted(descriptor) else None)
        for descriptor, diff_id in layers
    ]
    return [partial(work.private, layer, private / f"{layer.blob.hex}-{layer.diff_id.hex[:16]}") for layer in opened]


class _Work:
    """One pull: fetching and unpacking layers side by side, all stopped by the first failure."""

    def __init__(self, source: ImageSource | None, store: Store, limits: Limits, progress: Progress | None) -> None:
        self._source = source
        self._store = store
        self._limits = limits
        self._progress = progress
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._begun: set[Path] = set()
        self._read = 0
        self._total = 0

    def run(self, jobs: list[Callable[[], Path]], workers: int) -> Iterator[Path]:
        """Their results in order; the first failure otherwise, after all have ended."""
        from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

        pool = ThreadPoolExecutor(max_workers=max(1, min(workers, len(jobs))), thread_name_prefix="pull")
        try:
            futures = [pool.submit(job) for job in jobs]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            self._stop.set()  # nothing runs any more, unless one has failed
            failed = next((error for future in done if (error := future.exception()) is not None), None)
            if failed is not None:
                raise failed
            return iter([future.result() for future in futures])
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)

    def shared(self, layer: Layer) -> Path:
        """A plain layer in the store."""
        with self._store.staging() as place, self._store.one_at_a_time(layer.diff_id):
            there = self._store.unpacked(layer.diff_id)
            if there is not None:
                return there
            self._obtain(layer, place / "layer")
            return self._store.publish_unpacked(place / "layer", layer.diff_id)

    def private(self, layer: Layer, target: Path) -> Path:
        """A layer of an encrypted image in the instance's private directory; one that is there is from this instance."""
        with self._lock:
            if target.is_dir() or target in self._begun:
                return target
            self._begun.add(target)
        self._obtain(layer, target)
        return target

    def _obtain(self, layer: Layer, target: Path) -> None:
        """Unpack a layer to ``target`` from the store's blob or, if it is missing or damaged, from the source."""
        try:
            with contextlib.closing(self._store.open_blob(layer.blob)) as stream:
                self._unpack(stream, layer, target, None)
            return
        except NotFound:
            pass
        except DigestMismatch as error:
            if error.code != "blob_mismatch" or self._source is None:
                raise
            self._store.discard_blob(layer.blob)
        source = _needed(self._source, layer.blob)
        with self._store.incoming() as blob, contextlib.closing(source.open_blob(layer.blob)) as stream:
            self._unpack(stream, layer, target, blob.write)
            blob.commit(layer.blob)

    def _unpack(
        self, stream: BlobStream, layer: Layer, target: Path, kept: Callable[[memoryview], None] | None
    ) -> None:
        from adyton.image.layers import Watch, place_layer

        with self._lock:
            self._total += layer.size
        watch = Watch(read=self._note, kept=kept, stop=self._stop)
        place_layer(stream, layer, target, limits=self._limits, watch=watch)

    def _note(self, count: int) -> None:
        with self._lock:
            self._read += count
            read, total = self._read, self._total
        if self._progress is not None:
            self._progress.advance("layers", read, total)


def _needed(source: ImageSource | None, digest: Digest) -> ImageSource:
    if source is None:
        raise NotFound(
            "the store does not hold all of this image, and there is nowhere to get it from",
            code="image_incomplete",
            got=str(digest),
            hint="name the registry that it comes from, or import it again",
        )
    return source
