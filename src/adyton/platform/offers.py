"""What the operator offers an instance, checked on the host's side: descriptors, volumes, a name.

Whether the document allows it is the agent's business. Here it is only about what exists.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from adyton.errors import ConfigError, MalformedRequest
from adyton.platform.instances import NAME
from adyton.protocol.devtee import Run
from adyton.protocol.workload import Workload

_VOLUME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")


@dataclass(frozen=True, slots=True)
class Volume:
    """A place of the host's, for the mount ``path`` of the document."""

    path: str
    source: Path
    read_only: bool


def check_name(name: str) -> None:
    """``MalformedRequest`` unless it can be an instance's name; an empty one is left to the service."""
    if name and not NAME.match(name):
        raise MalformedRequest(
            "an instance's name has letters, digits, '_', '-' and '.', at most 63",
            code="name_invalid",
            field="name",
            got=name[:80],
        )


def volumes(run: Run, workload: Workload, named: Path) -> list[Volume]:
    """The host's side of ``run.volumes``; a name stands for a directory below ``named``, made when it is new.

    ``ConfigError`` for a place that is not there.
    """
    read_only = {mount.path for mount in workload.mounts if mount.mode == "ro"}
    found = []
    for path, source in run.volumes.items():
        if "\0" in source or "\0" in path:
            raise MalformedRequest("a path with a NUL", code="volume_invalid", field="volumes")
        if source.startswith("/"):
            place = Path(source)
            if not place.exists():
                raise ConfigError(
                    "there is no such file or directory to mount", code="volume_missing", field=source, expected=path
                )
        elif _VOLUME_NAME.match(source):
            place = named / source
            place.mkdir(mode=0o755, parents=True, exist_ok=True)
        else:
            raise MalformedRequest(
                "a volume is an absolute path or a name",
                code="volume_invalid",
                field="volumes",
                got=source[:80],
                hint="-v /DIRECTORY:/PATH or -v NAME:/PATH",
            )
        found.append(Volume(path, place, path in read_only))
    return found
