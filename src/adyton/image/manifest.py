"""Manifests, indexes and image configurations: strict parsing of what registries send, within stated limits.

OCI image-spec 1.1 and Docker schema 2. What the specification allows to be unknown is ignored; types, digests, sizes
and numbers are checked. Refused besides: duplicate members, members that differ from a known one only in case (Go's
decoder takes them, so two readers would see two images), documents that are manifest and index at once
(CVE-2021-41190), media types that contradict the caller's, schema 1. Nothing here looks at a blob.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

import msgspec

from adyton.errors import ImageError, MalformedImage, UnsupportedImage
from adyton.image import media_types
from adyton.rats.types import Digest
from adyton.wire import strict_json

MAX_MANIFEST = 4 * 1024 * 1024
MAX_CONFIG = 8 * 1024 * 1024
MAX_LAYERS = 512
MAX_MANIFESTS = 1024
MAX_BLOB = 1 << 42
_NONE: Mapping[str, str] = MappingProxyType({})
_T = TypeVar("_T")


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an image was built for, in Go's names (``linux``, ``amd64``)."""

    architecture: str
    os: str
    variant: str | None = None

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A pointer to content: what it is, its digest, its size in bytes."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=lambda: _NONE)
    platform: Platform | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """One platform's image. ``raw`` are the bytes that its digest is over."""

    raw: bytes
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=lambda: _NONE)

    @property
    def digest(self) -> Digest:
        """SHA-256 of the bytes."""
        return Digest.of(self.raw)


@dataclass(frozen=True, slots=True)
class Index:
    """An image index (Docker: manifest list)."""

    raw: bytes
    media_type: str
    manifests: tuple[Descriptor, ...]

    @property
    def digest(self) -> Digest:
        """SHA-256 of the bytes."""
        return Digest.of(self.raw)


class RunConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """How a container is run by default (image-spec, config.md). ``None`` and absent mean the same."""

    user: str | None = None
    exposed_ports: dict[str, object] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, object] | None = None
    working_dir: str | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None


class RootFs(msgspec.Struct, frozen=True):
    """The layers, lowest first, by the digest of their uncompressed tar."""

    type: str
    diff_ids: list[str]


class ImageConfig(msgspec.Struct, frozen=True):
    """The image configuration."""

    architecture: str
    os: str
    rootfs: RootFs
    config: RunConfig | None = None
    variant: str | None = None

    @property
    def run(self) -> RunConfig:
        """``config``, or an empty one."""
        return self.config or RunConfig()

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        """The digests of the uncompressed layers, lowest first."""
        return tuple(Digest.parse(text) for text in self.rootfs.diff_ids)


class _WireDescriptor(msgspec.Struct, rename="camel"):
    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] | None = None
    platform: Platform | None = None


class _WireManifest(msgspec.Struct, rename="camel"):
    schema_version: int
    config: _WireDescriptor
    layers: list[_WireDescriptor]
    media_type: str | None = None
    annotations: dict[str, str] | None = None


class _WireIndex(msgspec.Struct, rename="camel"):
    schema_version: int
    manifests: list[_WireDescriptor]
    media_type: str | None = None


_KNOWN = {
    name.casefold(): name  # as Go folds: "ſ" is "s", the Kelvin sign is "k"
    for name in (
        *("schemaVersion", "mediaType", "config", "layers", "manifests", "annotations", "digest", "size", "platform"),
        *("subject", "artifactType", "urls", "data", "architecture", "os", "variant", "rootfs", "diff_ids"),
    )
}


def parse(raw: bytes, media_type: str | None = None) -> Manifest | Index:
    """A manifest or an index, whichever ``raw`` is. ``media_type``: what the registry or a descriptor called it."""
    document = _object(raw, MAX_MANIFEST, "manifest")
    if "layers" in document and "manifests" in document:
        raise MalformedImage("the document is a manifest and an index at once", code="manifest_ambiguous")
    if document.get("schemaVersion") == 1 and "fsLayers" in document:
        raise UnsupportedImage(
            "a Docker schema 1 manifest", code="manifest_schema1", hint="push the image again with a current tool"
        )
    is_index = "manifests" in document
    kinds = media_types.INDEXES if is_index else media_types.MANIFESTS
    stated = document.get("mediaType")
    if not isinstance(stated, str | None):
        raise _wrong("mediaType", "text", type(stated).__name__)
    if media_type is not None and media_type not in kinds:
        raise _wrong("mediaType", " or ".join(sorted(kinds)), media_type)
    if stated is not None and (stated not in kinds or media_type not in {None, stated}):
        raise _wrong("mediaType", media_type or " or ".join(sorted(kinds)), stated)
    kind = media_type or stated or (media_types.OCI_INDEX if is_index else media_types.OCI_MANIFEST)
    if is_index:
        index = _convert(document, _WireIndex, "index")
        _bound("manifests", len(index.manifests), MAX_MANIFESTS)
        _schema(index.schema_version)
        return Index(raw, kind, tuple(_descriptor(entry, "manifests") for entry in index.manifests))
    manifest = _convert(document, _WireManifest, "manifest")
    _bound("layers", len(manifest.layers), MAX_LAYERS)
    _schema(manifest.schema_version)
    return Manifest(
        raw=raw,
        media_type=kind,
        config=_descriptor(manifest.config, "config"),
        layers=tuple(_descriptor(entry, "layers") for entry in manifest.layers),
        annotations=MappingProxyType(manifest.annotations or {}),
    )


def parse_manifest(raw: bytes, media_type: str | None = None) -> Manifest:
    """A manifest of one platform; an index is ``UnsupportedImage``."""
    parsed = parse(raw, media_type)
    if isinstance(parsed, Index):
        raise UnsupportedImage(
            "an index of several platforms where one image is needed",
            code="image_is_index",
            hint="choose one with --platform os/architecture, or name its digest",
        )
    return parsed


def parse_config(raw: bytes, manifest: Manifest) -> ImageConfig:
    """The configuration that belongs to ``manifest``: as many diff ids as layers, each a digest."""
    if manifest.config.media_type not in media_types.CONFIGS:
        raise UnsupportedImage(
            "not a container image: its configuration is of another kind",
            code="config_media_type",
            field="config.mediaType",
            got=manifest.config.media_type[:200],
        )
    config = _convert(_object(raw, MAX_CONFIG, "configuration"), ImageConfig, "configuration")
    if len(config.rootfs.diff_ids) != len(manifest.layers):
        raise _wrong("rootfs.diff_ids", f"{len(manifest.layers)} entries", len(config.rootfs.diff_ids))
    if config.rootfs.type != "layers":
        raise _wrong("rootfs.type", "layers", config.rootfs.type[:40])
    for text in config.rootfs.diff_ids:
        _digest(text, "rootfs.diff_ids")
    return config


def choose_platform(index: Index, os: str, architecture: str, variant: str | None = None) -> Descriptor:
    """The first manifest for a platform; with ``variant`` only that one. ``UnsupportedImage`` lists what there is."""
    for entry in index.manifests:
        there = entry.platform
        if there is None or (there.os, there.architecture) != (os, architecture):
            continue
        if variant is None or there.variant == variant:
            return entry
    wanted = Platform(architecture, os, variant)
    raise UnsupportedImage(
        f"the image has no manifest for {wanted}",
        code="platform_missing",
        field="platform",
        expected=str(wanted),
        got=[str(entry.platform) for entry in index.manifests if entry.platform][:32],
        hint="choose one of these with --platform",
    )


def go_architecture(machine: str) -> str:
    """The name that images use for what ``uname -m`` prints."""
    return {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "i386": "386"}.get(machine, machine)


def _object(raw: bytes, limit: int, what: str) -> dict[str, object]:
    try:
        value = strict_json.parse(raw, max_size=limit)
    except ValueError as error:
        raise MalformedImage(f"the image's {what} cannot be read: {error}", code=f"{what}_malformed") from error
    if not isinstance(value, dict):
        raise MalformedImage(f"the image's {what} is not a JSON object", code=f"{what}_malformed")
    _no_lookalikes(value, what)
    return value


def _no_lookalikes(value: dict[str, object], what: str) -> None:
    for name, member in value.items():
        if _KNOWN.get(name.casefold(), name) != name:
            raise MalformedImage(
                f"the image's {what} has a member that is a known one in other letters",
                code=f"{what}_ambiguous",
                expected=_KNOWN[name.casefold()],
                got=name,
            )
        if name in {"config", "rootfs", "platform"} and isinstance(member, dict) and what != "configuration":
            _no_lookalikes(member, what)
        if name in {"layers", "manifests"} and isinstance(member, list):
            for entry in member:
                if isinstance(entry, dict):
                    _no_lookalikes(entry, what)


def _convert(document: dict[str, object], kind: type[_T], what: str) -> _T:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise MalformedImage(f"the image's {what}: {error}", code=f"{what}_malformed") from error


def _descriptor(entry: _WireDescriptor, where: str) -> Descriptor:
    if not 0 <= entry.size <= MAX_BLOB:
        raise _wrong(f"{where}.size", f"0 to {MAX_BLOB}", entry.size)
    return Descriptor(
        media_type=entry.media_type,
        digest=_digest(entry.digest, f"{where}.digest"),
        size=entry.size,
        annotations=MappingProxyType(entry.annotations or {}),
        platform=entry.platform,
    )


def _digest(text: str, where: str) -> Digest:
    try:
        return Digest.parse(text)
    except ValueError as error:
        raise _wrong(where, "sha256:<64 lower-case hex digits>", text[:200]) from error


def _bound(name: str, number: int, limit: int) -> None:
    if number > limit:
        raise _wrong(name, f"at most {limit} entries", number)


def _schema(version: int) -> None:
    if version != 2:
        raise _wrong("schemaVersion", 2, version)


def _wrong(name: str, expected: object, got: object) -> ImageError:
    return MalformedImage(
        f"the image's {name} is not what it must be",
        code="manifest_invalid",
        field=name,
        expected=expected,
        got=str(got)[:200],
        spec="OCI image-spec 1.1",
    )
