"""Resource URIs, ``kbs:///<repository>/<type>/<tag>``, and the paths they stand for.

``kbs[+<plugin>]://[<host>]/<segments>``; the host is informational (``coco-guest`` 4). The ``resource`` plug-in takes
exactly three parts of ``[A-Za-z0-9_-][A-Za-z0-9_.-]*`` (``kbs-protocol`` 1.13), each at most 128 characters. ``.``,
``..``, empty parts, percent signs and anything that is not ASCII are refused; nothing is normalised.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from adyton.errors import MalformedRequest

_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}\Z")
_URI = re.compile(r"kbs(?:\+(?P<plugin>[a-z0-9-]+))?://(?P<host>[A-Za-z0-9.:\[\]-]*)/(?P<path>[^?#]*)\Z")


@dataclass(frozen=True, slots=True)
class ResourcePath:
    """Three checked parts. ``str`` gives ``repository/type/tag``, ``uri`` the form that people write."""

    repository: str
    type: str
    tag: str

    def __post_init__(self) -> None:
        for part in (self.repository, self.type, self.tag):
            if not _PART.match(part):
                raise MalformedRequest(
                    "a resource path has three parts of letters, digits, '_', '-' and '.', not starting with '.'",
                    code="resource_path_invalid",
                    field="resource",
                    got=part[:80],
                    spec="kbs-protocol 1.13",
                    hint="write it as kbs:///repository/type/tag",
                )

    @classmethod
    def parse(cls, text: str) -> ResourcePath:
        """From ``kbs:///a/b/c`` or ``a/b/c``; ``MalformedRequest`` for anything else."""
        path = text
        if "://" in text:
            match = _URI.match(text)
            if match is None or match["plugin"] not in {None, "resource"}:
                raise MalformedRequest(
                    "not a resource URI",
                    code="resource_uri_invalid",
                    field="resource",
                    got=text[:80],
                    spec="coco-guest 4",
                    hint="write it as kbs:///repository/type/tag",
                )
            path = match["path"]
        parts = path.split("/")
        if len(parts) != 3:
            raise MalformedRequest(
                "a resource path has exactly three parts",
                code="resource_path_invalid",
                field="resource",
                got=text[:80],
                spec="kbs-protocol 1.13",
                hint="write it as kbs:///repository/type/tag",
            )
        return cls(*parts)

    @property
    def uri(self) -> str:
        """``kbs:///repository/type/tag``."""
        return f"kbs:///{self}"

    def __str__(self) -> str:
        return f"{self.repository}/{self.type}/{self.tag}"


@dataclass(frozen=True, slots=True)
class PluginPath:
    """What a request asks of a plug-in: ``parts`` follow its name. ``uri`` is how the record calls it."""

    plugin: str
    parts: tuple[str, ...]

    @property
    def uri(self) -> str:
        """``kbs+<plugin>:///<parts>``."""
        return f"kbs+{self.plugin}:///{'/'.join(self.parts)}"
