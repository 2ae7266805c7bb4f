"""Media types of manifests, configurations and layers, and what each layer type says about its bytes.

OCI image-spec 1.1 (media-types.md), Docker image manifest v2 schema 2, and ocicrypt's suffix ``+encrypted``
(``coco-guest`` 5.1). An unknown layer type is refused: guessing how to read a layer is how type confusion starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from adyton.errors import UnsupportedImage

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})

ENCRYPTED = "+encrypted"
Compression: TypeAlias = Literal["none", "gzip", "zstd"]

_OCI = "application/vnd.oci.image.layer.v1.tar"
_OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_DOCKER = "application/vnd.docker.image.rootfs.diff.tar"
_DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"

# media type -> (compression, the OCI type of the same bytes)
_LAYERS: dict[str, tuple[Compression, str]] = {
    _OCI: ("none", _OCI),
    f"{_OCI}+gzip": ("gzip", f"{_OCI}+gzip"),
    f"{_OCI}+zstd": ("zstd", f"{_OCI}+zstd"),
    _OCI_FOREIGN: ("none", _OCI_FOREIGN),
    f"{_OCI_FOREIGN}+gzip": ("gzip", f"{_OCI_FOREIGN}+gzip"),
    f"{_OCI_FOREIGN}+zstd": ("zstd", f"{_OCI_FOREIGN}+zstd"),
    _DOCKER: ("none", _OCI),
    f"{_DOCKER}.gzip": ("gzip", f"{_OCI}+gzip"),
    f"{_DOCKER}.zstd": ("zstd", f"{_OCI}+zstd"),
    f"{_DOCKER_FOREIGN}.gzip": ("gzip", f"{_OCI_FOREIGN}+gzip"),
}


@dataclass(frozen=True, slots=True)
class LayerFormat:
    """What a layer's media type says. ``oci`` is the OCI type of the plain layer, without ``+encrypted``."""

    compression: Compression
    encrypted: bool
    oci: str

    @property
    def media_type(self) -> str:
        """The OCI media type, with ``+encrypted`` where it is."""
        return self.oci + ENCRYPTED if self.encrypted else self.oci


def layer_format(media_type: str) -> LayerFormat:
    """Read a layer's media type; ``UnsupportedImage`` for one that is not a layer's."""
    plain = media_type.removesuffix(ENCRYPTED)
    known = _LAYERS.get(plain)
    if known is None:
        raise UnsupportedImage(
            "not a layer media type that can be read",
            code="layer_media_type",
            field="layers.mediaType",
            got=media_type[:200],
            spec="OCI image-spec, media-types.md",
            hint="images hold tar layers: plain, gzip or zstd; artifacts of other kinds cannot be run",
        )
    return LayerFormat(compression=known[0], encrypted=plain != media_type, oci=known[1])
