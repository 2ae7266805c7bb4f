"""From the name that a person types to one platform's manifest in the store.

A name in a registry is known to the store under itself once it has been resolved, and asked for again only as ``Pull``
says. What lies on disk (``oci:``, ``oci-archive:``, ``dir:``) is copied into the store each time: what is there already
is not copied again. Layers of a registry's image are left to the agent, who needs no trust in what happens here.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from adyton.errors import DigestMismatch, NotFound
from adyton.image import manifest as manifests
from adyton.image.manifest import Descriptor, ImageConfig, Manifest
from adyton.image.reference import ImageReference, Transport
from adyton.image.registry_options import RegistryOptions
from adyton.image.source import ImageSource, RawManifest, read_blob
from adyton.image.store import Store
from adyton.rats.types import Digest


class Pull(Enum):
    """When to ask the registry: as podman's ``--pull``."""

    MISSING = "missing"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Named:
    """What a name stands for here: manifest and configuration are in the store. ``source``: where layers come from."""

    digest: Digest
    manifest: Manifest
    config: ImageConfig
    source: str = ""


def find(
    name: str, store: Store, access: RegistryOptions, pull: Pull = Pull.MISSING, digest: Digest | None = None
) -> Named:
    """The image ``name``, for this machine's platform; with ``digest`` (from a document) exactly that manifest.

    ``NotFound``, ``Unavailable``, or ``DigestMismatch`` when the name says another digest than the document.
    """
    reference = ImageReference.parse(name)
    if digest is not None and reference.digest is not None and reference.digest != digest:
        raise _other_image(digest, reference.digest)
    source = reference.name if reference.transport is Transport.REGISTRY else ""
    if reference.transport is Transport.REGISTRY and (pull is not Pull.ALWAYS or digest is not None):
        known = digest or store.ref(str(reference))
        if known is not None and (stored := _stored(store, known)) is not None:
            return Named(known, *stored, source)
        if pull is Pull.NEVER:
            raise NotFound("the image is not in the store", code="image_unknown", got=name, hint="--pull missing")
    place = _open(reference, access)
    try:
        return _bring(place, reference, store, digest, source)
    finally:
        place.close()


def name_of(digest: Digest, store: Store) -> str:
    """A name that has been resolved to ``digest`` on this machine, one in a registry if there is one; or ``NotFound``."""
    names = sorted(
        (name for name, known in store.refs().items() if known == digest),
        key=lambda name: ImageReference.parse(name).transport is not Transport.REGISTRY,
    )
    if not names:
        raise NotFound(
            "this machine has no name for the workload document's image",
            code="image_unknown",
            got=str(digest),
            hint="say where it is: adyton run --workload FILE IMAGE",
        )
    return names[0]


def _open(reference: ImageReference, access: RegistryOptions) -> ImageSource:
    if reference.transport is Transport.LAYOUT:  # without what speaks to registries
        from adyton.image.oci_layout import LayoutSource

        return LayoutSource(Path(reference.path), reference.tag)
    from adyton.image.transports import open_source

    return open_source(reference, access)


def _stored(store: Store, digest: Digest) -> tuple[Manifest, ImageConfig] | None:
    """Manifest and configuration, if the store has both."""
    raw = store.read(digest, manifests.MAX_MANIFEST)
    if raw is None:
        return None
    manifest = manifests.parse_manifest(raw)
    config = store.read(manifest.config.digest, manifests.MAX_CONFIG)
    return None if config is None else (manifest, manifests.parse_config(config, manifest))


def _bring(place: ImageSource, reference: ImageReference, store: Store, digest: Digest | None, source: str) -> Named:
    chosen = _choose(place, reference, digest)
    manifest = manifests.parse_manifest(chosen.raw, chosen.media_type)
    config = read_blob(place, manifest.config, manifests.MAX_CONFIG)
    parsed = manifests.parse_config(config, manifest)
    if reference.transport is not Transport.REGISTRY:
        for layer in manifest.layers:
            if store.blob(layer.digest) is None:
                _copy(store, place, layer)
    for data, its_digest in ((config, manifest.config.digest), (chosen.raw, chosen.digest)):
        if store.read(its_digest, len(data)) is None:
            store.add_blob(io.BytesIO(data), its_digest)
    if digest is None and store.ref(str(reference)) != chosen.digest:
        store.set_ref(str(reference), chosen.digest)
    return Named(chosen.digest, manifest, parsed, source)


def _copy(store: Store, place: ImageSource, layer: Descriptor) -> None:
    stream = place.open_blob(layer.digest)
    try:
        store.add_blob(stream, layer.digest, layer.size)
    finally:
        stream.close()


def _choose(place: ImageSource, reference: ImageReference, digest: Digest | None) -> RawManifest:
    """This machine's manifest. A name on disk says one image, which must be the document's if there is one."""
    named = place.manifest(digest if reference.transport is Transport.REGISTRY else None)
    found = named.parse()
    if isinstance(found, manifests.Index):
        machine = os.uname().machine
        entry = manifests.choose_platform(found, "linux", manifests.go_architecture(machine))
        named = place.manifest(entry.digest)
    if digest is not None and named.digest != digest:
        raise _other_image(digest, named.digest)
    return named


def _other_image(expected: Digest, got: Digest) -> DigestMismatch:
    return DigestMismatch(
        "the name stands for another image than the workload document",
        code="image_not_in_document",
        field="image",
        expected=str(expected),
        got=str(got),
        hint="the image was changed since the document was written; write another if you trust it",
    )
