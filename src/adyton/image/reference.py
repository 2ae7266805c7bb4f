"""Names of images, in skopeo's syntax: ``docker://``, ``oci:``, ``oci-archive:``, ``dir:``; a bare name is ``docker://``.

The grammar of registry names is distribution's (``reference/regexp``): lower-case path parts, an optional host with a
port, a tag of at most 128 characters, a digest. ``busybox`` means ``docker.io/library/busybox``. Where a name has a tag
and a digest, the digest decides and the tag is decoration, as with Docker. For ``oci:`` and ``oci-archive:`` everything
after the first colon of the path is the tag. Nothing is opened here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from posixpath import normpath

from adyton.errors import ConfigError
from adyton.rats.types import Digest

MAX_LENGTH = 4096
DEFAULT_REGISTRY = "docker.io"
_HUB_HOST = "registry-1.docker.io"

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:.]+\])(?::(?P<port>[0-9]{{1,5}}))?\Z")
_PATH = re.compile(rf"{_PART}(?:/{_PART})*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_DIGEST = re.compile(r"[a-z0-9]+:\w*\Z")
# Other tools' places. Each would also be a name on Docker Hub, and what is meant for this machine would go there.
_FOREIGN = frozenset(
    {"docker-archive", "docker-daemon", "containers-storage", "ostree", "sif", "tarball", "atomic", "oci-dir"}
)
_LAYOUT_TAG = re.compile(r"[A-Za-z0-9]+(?:(?:[-._:@+]|--|/)[A-Za-z0-9]+)*\Z")


class Transport(Enum):
    """Where an image lies."""

    REGISTRY = "docker"
    LAYOUT = "oci"
    ARCHIVE = "oci-archive"
    DIRECTORY = "dir"


@dataclass(frozen=True, slots=True)
class ImageReference:
    """A parsed name. ``registry`` and ``repository`` are for ``docker://``, ``path`` for the three on disk.

    ``tag`` is ``None`` where none was written, except that a registry name with neither tag nor digest gets ``latest``.
    """

    transport: Transport
    registry: str = ""
    repository: str = ""
    path: str = ""
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Read a name; ``ConfigError`` says what is wrong with it."""
        if not text or len(text) > MAX_LENGTH or any(ord(c) < 0x20 or ord(c) == 0x7F for c in text):
            raise _invalid(text, "a name without white space or control characters")
        if text.startswith("docker://"):
            return _registry_name(text, text.removeprefix("docker://"))
        for transport in (Transport.LAYOUT, Transport.ARCHIVE, Transport.DIRECTORY):
            if text.startswith(f"{transport.value}:"):
                return _path_name(text, transport, text.removeprefix(f"{transport.value}:"))
        if "://" in text or text.partition(":")[0] in _FOREIGN:
            raise _invalid(text, "docker://, oci:, oci-archive: or dir:")
        return _registry_name(text, text)

    @property
    def host(self) -> str:
        """``host[:port]`` to connect to; Docker Hub's API is not at its name."""
        return _HUB_HOST if self.registry == DEFAULT_REGISTRY else self.registry

    @property
    def locator(self) -> str:
        """What stands after ``/manifests/`` in a registry's URL: the digest if there is one, else the tag."""
        return str(self.digest) if self.digest is not None else self.tag or "latest"

    @property
    def name(self) -> str:
        """``registry/repository``, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    def shares_blobs(self, other: ImageReference) -> bool:
        """Whether both names lie in one repository, or in what is written as one layout."""
        if self.transport is not other.transport:
            return False
        if self.transport is Transport.REGISTRY:
            return self.name == other.name
        return self.transport is Transport.LAYOUT and normpath(self.path) == normpath(other.path)

    def with_digest(self, digest: Digest) -> ImageReference:
        """The same repository, pinned; only for registry names."""
        if self.transport is not Transport.REGISTRY:
            raise ValueError("only names in a registry can be pinned")
        return ImageReference(self.transport, registry=self.registry, repository=self.repository, digest=digest)

    def __str__(self) -> str:
        if self.transport is not Transport.REGISTRY:
            return f"{self.transport.value}:{self.path}" + (f":{self.tag}" if self.tag else "")
        tag = f":{self.tag}" if self.tag else ""
        return f"docker://{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")


def _registry_name(text: str, name: str) -> ImageReference:
    if " " in text:
        raise _invalid(text, "a name without white space or control characters")
    rest, at, digest_text = name.partition("@")
    digest = None
    if at:
        try:
            digest = Digest.parse(digest_text)
        except ValueError as error:
            raise _invalid(text, "a digest sha256:<64 lower-case hex digits> after '@'") from error
    tag: str | None = None
    colon = rest.rfind(":")
    if colon > rest.rfind("/"):
        rest, tag = rest[:colon], rest[colon + 1 :]
        if not _TAG.match(tag):
            raise _invalid(text, "a tag of at most 128 letters, digits, '_', '.', '-'")
    first, slash, remainder = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first.startswith("[")):
        registry, repository = first, remainder
    else:
        registry, repository = DEFAULT_REGISTRY, rest
    match = _HOST.match(registry)
    if match is None or (match["port"] is not None and not 0 < int(match["port"]) < 65536):
        raise _invalid(text, "a registry host[:port]")
    if registry in {"index.docker.io", _HUB_HOST}:
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = f"library/{repository}"
    if len(registry) + 1 + len(repository) > 255 or not _PATH.match(repository):
        raise _invalid(text, "a repository of lower-case parts, at most 255 characters in all")
    if tag is None and digest is None:
        tag = "latest"
    return ImageReference(Transport.REGISTRY, registry=registry, repository=repository, tag=tag, digest=digest)


def _path_name(text: str, transport: Transport, rest: str) -> ImageReference:
    if transport is Transport.DIRECTORY:  # skopeo: the whole rest is the path, colons included
        path, tag = rest, ""
    else:
        path, colon, tag = rest.partition(":")
        if colon and not _LAYOUT_TAG.match(tag):
            raise _invalid(text, "a tag of letters and digits with single separators after the path's colon")
    if not path:
        raise _invalid(text, f"a path after {transport.value}:")
    return ImageReference(transport, path=path, tag=tag or None)


def _invalid(text: str, expected: str) -> ConfigError:
    shown = _without_credentials(text)
    if shown != text:
        expected += "; credentials are in no name, but in --authfile"
    return ConfigError(
        f"not an image name: it needs {expected}",
        code="image_reference_invalid",
        field="image",
        expected=expected,
        got=shown[:200],
        hint="examples: registry.example/team/app:1.0, docker://localhost:5000/app@sha256:…, oci:./layout:tag, dir:./image",
    )


def _without_credentials(text: str) -> str:
    """``user:password`` before the last ``@`` that begins no digest is not repeated. In one pass: it may be long."""
    end = text.rfind("@")
    if end >= 0 and _DIGEST.match(text, end + 1):
        end = text.rfind("@", 0, end)
    if end < 0:
        return text
    slashes = text.find("//", 0, end)
    begin = slashes + 2 if slashes >= 0 else 0
    return f"{text[:begin]}…{text[end:]}" if ":" in text[begin:end] else text
