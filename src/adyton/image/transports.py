"""From a name to the place it means: opening any image as a source, and any destination as a sink."""

from __future__ import annotations

from pathlib import Path

from adyton.errors import ConfigError
from adyton.image.archive import ArchiveSink, ArchiveSource
from adyton.image.dir_layout import DirectorySink, DirectorySource
from adyton.image.oci_layout import LayoutSink, LayoutSource
from adyton.image.reference import ImageReference, Transport
from adyton.image.registry import Registry
from adyton.image.registry_image import RegistrySink, RegistrySource
from adyton.image.registry_options import RegistryOptions
from adyton.image.source import ImageSink, ImageSource


def open_source(reference: ImageReference, options: RegistryOptions | None = None) -> ImageSource:
    """The image behind a name. Nothing is fetched from a registry yet."""
    if reference.transport is Transport.REGISTRY:
        return RegistrySource(Registry(options), reference)
    path = Path(reference.path)
    if reference.transport is Transport.LAYOUT:
        return LayoutSource(path, reference.tag)
    if reference.transport is Transport.ARCHIVE:
        return ArchiveSource(path, reference.tag)
    return DirectorySource(path)


def open_sink(
    reference: ImageReference, options: RegistryOptions | None = None, source: ImageReference | None = None
) -> ImageSink:
    """A destination. ``source``: where the image comes from, so that blobs of the same registry need not travel."""
    if reference.transport is Transport.REGISTRY:
        near = source is not None and source.transport is Transport.REGISTRY and source.registry == reference.registry
        return RegistrySink(Registry(options), reference, source.repository if near and source is not None else None)
    path = Path(reference.path)
    if reference.transport is Transport.LAYOUT:
        return LayoutSink(path, reference.tag)
    if reference.transport is Transport.ARCHIVE:
        return ArchiveSink(path, reference.tag)
    if source is not None and source.transport is reference.transport and Path(source.path).resolve() == path.resolve():
        raise ConfigError(
            "an image cannot be written into the directory that it is read from",
            code="destination_is_source",
            field="DST",
            got=str(path),
            hint="name another directory",
        )
    return DirectorySink(path)
