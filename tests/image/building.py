"""Small OCI images made on the spot, and an image source in memory: for every test that needs an image.

``layer({"etc/motd": b"hi", "bin/sh": Link("busybox")})`` makes a layer, ``image([...])`` an image of them,
``Built.write_layout`` puts it where ``oci:`` finds it, ``MemorySource`` serves it without any place at all.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from adyton.errors import NotFound
from adyton.image import media_types
from adyton.image.manifest import Descriptor, ImageConfig, Manifest, parse_config, parse_manifest
from adyton.image.source import RawManifest
from adyton.rats.types import Digest

BUSYBOX = Path("/bin/busybox")
APPLETS = ("sh", "cat", "echo", "env", "id", "ls", "sleep", "true", "false", "httpd", "wc", "head", "mount", "pwd")


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class HardLink:
    """A hard link to another member."""

    target: str


@dataclass(frozen=True)
class File:
    """A file with more than content."""

    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class Directory:
    """A directory with a mode."""

    mode: int = 0o755


Entry = bytes | Link | HardLink | File | Directory


@dataclass(frozen=True)
class Layer:
    """A layer: its blob, its type, and the uncompressed tar's digest."""

    blob: bytes
    media_type: str
    diff_id: Digest
    tar: bytes = field(repr=False)


def tar_of(entries: Mapping[str, Entry]) -> bytes:
    """An uncompressed tar of ``entries``, in their order; parents are not added by themselves."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, entry in entries.items():
            member = tarfile.TarInfo(name)
            member.mtime = 1_700_000_000
            content = b""
            if isinstance(entry, Link):
                member.type, member.linkname = tarfile.SYMTYPE, entry.target
            elif isinstance(entry, HardLink):
                member.type, member.linkname = tarfile.LNKTYPE, entry.target
            elif isinstance(entry, Directory):
                member.type, member.mode = tarfile.DIRTYPE, entry.mode
            elif isinstance(entry, File):
                content, member.mode, member.uid, member.gid = entry.content, entry.mode, entry.uid, entry.gid
            else:
                content = entry
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def layer(entries: Mapping[str, Entry] | bytes, compression: str = "gzip", *, docker: bool = False) -> Layer:
    """A layer of ``entries`` (or of the tar given), ``none``, ``gzip`` or ``zstd``."""
    tar = entries if isinstance(entries, bytes) else tar_of(entries)
    if compression == "gzip":
        blob = gzip.compress(tar, 6, mtime=0)
    elif compression == "zstd":
        blob = zstd.compress(tar)
    else:
        blob = tar
    if docker:
        suffix = {"none": "", "gzip": ".gzip", "zstd": ".zstd"}[compression]
        media_type = f"application/vnd.docker.image.rootfs.diff.tar{suffix}"
    else:
        suffix = {"none": "", "gzip": "+gzip", "zstd": "+zstd"}[compression]
        media_type = f"application/vnd.oci.image.layer.v1.tar{suffix}"
    return Layer(blob, media_type, Digest.of(tar), tar)


def busybox_layer(compression: str = "gzip") -> Layer:
    """Debian's static busybox with its usual names in ``/bin``, ``/etc/passwd`` and an empty ``/tmp``."""
    entries: dict[str, Entry] = {
        "bin": Directory(),
        "bin/busybox": File(BUSYBOX.read_bytes(), 0o755),
        **{f"bin/{name}": Link("busybox") for name in APPLETS},
        "etc": Directory(),
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
        "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
        "root": Directory(0o700),
        "tmp": Directory(0o1777),
    }
    return layer(entries, compression)


@dataclass
class Built:
    """An image: manifest and every blob by digest."""

    raw: bytes
    blobs: dict[Digest, bytes]
    media_type: str = media_types.OCI_MANIFEST

    @property
    def digest(self) -> Digest:
        """The manifest's."""
        return Digest.of(self.raw)

    @property
    def manifest(self) -> Manifest:
        """Parsed."""
        return parse_manifest(self.raw)

    @property
    def config(self) -> ImageConfig:
        """Parsed."""
        return parse_config(self.blobs[self.manifest.config.digest], self.manifest)

    @property
    def source(self) -> MemorySource:
        """The image, served from memory."""
        return MemorySource(self)

    def write_layout(self, path: Path, tag: str | None = None) -> Path:
        """As an OCI layout directory; the path again."""
        blobs = path / "blobs" / "sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        for digest, blob in {**self.blobs, self.digest: self.raw}.items():
            (blobs / digest.hex).write_bytes(blob)
        entry: dict[str, object] = {"mediaType": self.media_type, "digest": str(self.digest), "size": len(self.raw)}
        if tag is not None:
            entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        return path


def image(
    layers: Sequence[Layer],
    *,
    docker: bool = False,
    os: str = "linux",
    architecture: str = "amd64",
    **run: object,
) -> Built:
    """An image of ``layers``; ``run`` are members of its configuration (``Cmd``, ``Env``, ``User``, …)."""
    config = json.dumps(
        {
            "architecture": architecture,
            "os": os,
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": [str(one.diff_id) for one in layers]},
            "history": [{"created_by": "tests"} for _ in layers],
        }
    ).encode()
    kind = media_types.DOCKER_MANIFEST if docker else media_types.OCI_MANIFEST

    def descriptor(media_type: str, blob: bytes) -> dict[str, object]:
        return {"mediaType": media_type, "digest": str(Digest.of(blob)), "size": len(blob)}

    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": descriptor(media_types.DOCKER_CONFIG if docker else media_types.OCI_CONFIG, config),
            "layers": [descriptor(one.media_type, one.blob) for one in layers],
        }
    ).encode()
    blobs = {Digest.of(blob): blob for blob in (config, *(one.blob for one in layers))}
    return Built(raw, blobs, kind)


def index_of(images: Mapping[str, Built]) -> bytes:
    """An index over images by platform, such as ``{"linux/amd64": …, "linux/arm/v7": …}``."""
    entries = []
    for platform, built in images.items():
        os, architecture, *variant = platform.split("/")
        entries.append(
            {
                "mediaType": built.media_type,
                "digest": str(built.digest),
                "size": len(built.raw),
                "platform": {"os": os, "architecture": architecture, **({"variant": variant[0]} if variant else {})},
            }
        )
    return json.dumps({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}).encode()


class MemorySource:
    """An ``ImageSource`` over images in memory. ``opened`` lists the blobs that were asked for."""

    def __init__(self, *images: Built, top: bytes | None = None) -> None:
        self.blobs = {digest: blob for built in images for digest, blob in built.blobs.items()}
        self.manifests = {built.digest: built.raw for built in images}
        self.top = top if top is not None else images[0].raw
        self.opened: list[Digest] = []

    def manifest(self, digest: Digest | None = None) -> RawManifest:
        """The first image's manifest (or ``top``), or the one with ``digest``."""
        raw = self.top if digest is None else self.manifests.get(digest, self.top)
        if digest is not None and not digest.matches(raw):
            raise NotFound("no such manifest")
        return RawManifest(Digest.of(raw), None, raw)

    def open_blob(self, digest: Digest, offset: int = 0) -> io.BytesIO:
        """The blob's bytes, whatever they are."""
        self.opened.append(digest)
        if digest not in self.blobs:
            raise NotFound("no such blob")
        stream = io.BytesIO(self.blobs[digest])
        stream.seek(offset)
        return stream

    def close(self) -> None:
        """Nothing is held."""


class MemorySink:
    """An ``ImageSink`` into memory. ``log`` is the order in which things became visible."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.published: bytes | None = None
        self.media_type = ""
        self.log: list[str] = []
        self.aborted = 0

    def has_blob(self, digest: Digest) -> bool:
        """Whether it was committed."""
        return digest in self.blobs

    def start_blob(self) -> MemoryWriter:
        """A writer."""
        return MemoryWriter(self)

    def put_manifest(self, raw: bytes, media_type: str) -> Digest:
        """Publish."""
        self.published, self.media_type = raw, media_type
        self.log.append("manifest")
        return Digest.of(raw)

    def close(self) -> None:
        """Nothing is held."""

    @property
    def built(self) -> Built:
        """What was published, as an image."""
        assert self.published is not None
        return Built(self.published, dict(self.blobs), self.media_type)


class MemoryWriter:
    """A ``BlobWriter`` into a ``MemorySink``."""

    def __init__(self, sink: MemorySink) -> None:
        self._sink = sink
        self._data = bytearray()
        self._open = True

    def write(self, data: bytes | memoryview) -> None:
        """Append."""
        self._data += data

    def commit(self, digest: Digest) -> None:
        """Visible from here on."""
        assert digest == Digest("sha256", hashlib.sha256(self._data).digest())
        self._sink.blobs[digest] = bytes(self._data)
        self._sink.log.append("blob")
        self._open = False

    def abort(self) -> None:
        """Forget."""
        if self._open:
            self._open = False
            self._sink.aborted += 1


def descriptor_of(blob: bytes, media_type: str = "application/octet-stream") -> Descriptor:
    """A descriptor of ``blob``."""
    return Descriptor(media_type, Digest.of(blob), len(blob))
