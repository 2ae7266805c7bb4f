"""One image in a registry as a source and as a sink."""

from __future__ import annotations

from adyton.errors import ConfigError
from adyton.image.reference import ImageReference
from adyton.image.registry import Registry
from adyton.image.source import BlobStream, BlobWriter, RawManifest
from adyton.rats.types import Digest


class RegistrySource:
    """An ``ImageSource`` over a repository. ``close`` closes the registry's idle connections."""

    def __init__(self, registry: Registry, reference: ImageReference) -> None:
        self._registry = registry
        self._reference = reference

    def manifest(self, digest: Digest | None = None) -> RawManifest:
        """As ``ImageSource``."""
        return self._registry.resolve(self._reference if digest is None else self._reference.with_digest(digest))

    def open_blob(self, digest: Digest, offset: int = 0) -> BlobStream:
        """As ``ImageSource``."""
        return self._registry.open_blob(self._reference, digest, offset)

    def close(self) -> None:
        """As ``ImageSource``."""
        self._registry.close()


class RegistrySink:
    """An ``ImageSink`` into a repository. ``mount_from``: a repository of the same registry that may hold blobs."""

    def __init__(self, registry: Registry, reference: ImageReference, mount_from: str | None = None) -> None:
        if reference.tag is None:
            raise ConfigError(
                "a destination needs a tag, not a digest",
                code="destination_digest",
                field="DST",
                got=str(reference),
                hint="the digest is not known before the image is made",
            )
        self._registry = registry
        self._reference = ImageReference(
            reference.transport, registry=reference.registry, repository=reference.repository, tag=reference.tag
        )
        self._mount_from = mount_from if mount_from != reference.repository else None

    def has_blob(self, digest: Digest) -> bool:
        """As ``ImageSink``; a blob that can be mounted from the source's repository is one that is there."""
        if self._registry.has_blob(self._reference, digest):
            return True
        return self._mount_from is not None and self._registry.mount(self._reference, digest, self._mount_from)

    def start_blob(self) -> BlobWriter:
        """As ``ImageSink``."""
        return self._registry.start_upload(self._reference)

    def put_manifest(self, raw: bytes, media_type: str) -> Digest:
        """As ``ImageSink``."""
        return self._registry.put_manifest(self._reference, raw, media_type)

    def close(self) -> None:
        """As ``ImageSink``."""
        self._registry.close()
