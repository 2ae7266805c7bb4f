"""The table of instances: what is kept of each, in memory and on disk, and who is told when something happens.

A row outlives its instance until it is removed, and the service: ``ps``, ``logs`` and ``rm`` work on it later. The
operator's offer (keys, credentials) is never kept.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from adyton.errors import Conflict, NotFound, PlatformError
from adyton.platform import cgroups, logbook
from adyton.platform.connection import Connection
from adyton.protocol import devtee
from adyton.protocol.devtee import Exited, Failed, Phase, Running

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
ENDED = ("exited", "failed")
KILLED = 137
Event = Phase | Running | Exited | Failed
_QUEUE = 1000


class Row(msgspec.Struct, frozen=True):
    """What lies on disk."""

    instance: devtee.Instance
    logs: bool = False
    error: dict[str, object] | None = None


@dataclass(slots=True)
class Live:
    """An instance while its first process runs."""

    pid: int
    channel: Connection
    watchers: list[asyncio.Queue[Event | None]] = field(default_factory=list)
    book: logbook.Logbook | None = None
    last: Exited | Failed | None = None
    gone: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def tell(self, event: Event | None) -> None:
        """Give an event to everybody who watches; who does not keep up misses phases, and nothing else."""
        for queue in self.watchers:
            if not (isinstance(event, Phase) and queue.qsize() > _QUEUE):
                queue.put_nowait(event)

    def kill(self) -> None:
        """End every process of the instance: the kernel does it when the first one is gone."""
        if not self.gone:  # the number may be another process's by now
            os.kill(self.pid, 9)


class Table:
    """Instances by id. One service has it at a time."""

    def __init__(self, directory: Path) -> None:
        """Read the rows; those that ran when the last service was killed died with it, and are cleared up after."""
        self._directory = directory
        self.live: dict[str, Live] = {}
        self._rows: dict[str, Row] = {}
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in sorted(directory.glob("*.json")):
                row = _read(path)
                if row is not None and row.instance.id == path.stem:
                    self._rows[path.stem] = row
        except OSError as error:
            raise _disk(error) from error
        for row in list(self._rows.values()):
            if row.instance.state not in ENDED:
                cgroups.remove(row.instance.id)
                self.change(row.instance.id, state="exited", status=KILLED)

    def add(self, row: Row) -> None:
        """A new instance; ``Conflict`` if its name is taken."""
        taken = next((other for other in self._rows.values() if other.instance.name == row.instance.name), None)
        if taken is not None:
            raise Conflict(
                f"the name {row.instance.name} is in use",
                code="name_in_use",
                field="name",
                got=taken.instance.id,
                hint=f"adyton rm {row.instance.name}, or another name",
            )
        self._write(row)
        self._rows[row.instance.id] = row

    def change(self, identity: str, *, error: dict[str, object] | None = None, **members: object) -> None:
        """Replace members of a row."""
        row = self._rows[identity]
        changed = msgspec.structs.replace(row, instance=msgspec.structs.replace(row.instance, **members), error=error)
        self._rows[identity] = changed
        self._write(changed)

    def find(self, word: str) -> Row:
        """By name, id, or an unambiguous beginning of an id of at least four characters; ``NotFound``."""
        for row in self._rows.values():
            if word in {row.instance.name, row.instance.id}:
                return row
        matching = [row for row in self._rows.values() if len(word) >= 4 and row.instance.id.startswith(word)]
        if len(matching) == 1:
            return matching[0]
        raise NotFound(f"there is no instance {word[:80]}", code="instance_unknown", hint="adyton ps -a")

    def rows(self) -> Iterator[Row]:
        """All of them, oldest first."""
        yield from sorted(self._rows.values(), key=lambda row: row.instance.created)

    def forget(self, identity: str) -> None:
        """Remove an ended instance with what it wrote; ``Conflict`` while it runs."""
        if identity in self.live:
            raise Conflict(
                "the instance is running",
                code="instance_running",
                got=identity,
                hint="adyton stop it first, or --force",
            )
        self._rows.pop(identity, None)
        logbook.remove(self.log_path(identity))
        (self._directory / f"{identity}.json").unlink(missing_ok=True)

    def log_path(self, identity: str) -> Path:
        """Where the logbook of an instance is."""
        return self._directory / f"{identity}.log"

    def _write(self, row: Row) -> None:
        path = self._directory / f"{row.instance.id}.json"
        temporary = path.with_suffix(".new")
        try:
            temporary.write_bytes(msgspec.json.encode(row))
            temporary.rename(path)
        except OSError as error:
            raise _disk(error) from error


def _read(path: Path) -> Row | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Row)
    except (msgspec.DecodeError, UnicodeDecodeError, OSError):
        return None  # cut short by a crash of the machine: there is nothing to know about it


def _disk(error: OSError) -> PlatformError:
    return PlatformError(
        f"the table of instances cannot be kept: {error.strerror}", code="table_failed", field=str(error.filename)
    )
