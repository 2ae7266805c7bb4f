"""What ``adyton audit verify`` does: rows of a broker or of an export recomputed, proofs checked, against checkpoints.

Nothing here believes the broker: rows are hashed on this machine, and only checkpoints under a known key count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adyton.cli import log_keys
from adyton.errors import ConfigError, DocumentInvalid, LogBroken

if TYPE_CHECKING:
    from adyton.client.admin import Admin
    from adyton.protocol.audit_row import AuditEntry
    from adyton.protocol.checkpoint import Checkpoint
    from adyton.rats.types import JsonValue

PAGE = 500


@dataclass(frozen=True, slots=True)
class Verified:
    """Rows ``first`` to ``last`` of a log are those over which ``checkpoints`` (their sizes) were signed."""

    origin: str
    first: int
    last: int
    root: bytes
    checkpoints: tuple[int, ...]

    def as_json(self) -> dict[str, JsonValue]:
        """As ``--json`` has it."""
        return {
            "verified": True,
            "origin": self.origin,
            "first": self.first,
            "last": self.last,
            "root": self.root.hex(),
            "checkpoints": list(self.checkpoints),
        }


def read_file(path: Path, most: int) -> bytes:
    """A file's bytes; ``ConfigError`` if it cannot be read, ``DocumentInvalid`` if it is larger than ``most``."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise ConfigError(f"cannot read: {error.strerror}", code="file_unreadable", field=str(path)) from error
    if len(data) > most:
        raise DocumentInvalid("the file is too large", code="file_too_large", field=str(path), expected=most)
    return data


def read_checkpoint(path: Path, keys: Sequence[str], *, origin: str | None = None) -> Checkpoint:
    """A signed checkpoint under a known key; see ``log_keys.for_origin``."""
    from adyton.protocol.checkpoint import MAX_NOTE

    return check_note(read_file(path, MAX_NOTE).decode("utf-8", "replace"), keys, origin=origin)


def check_note(note: str, keys: Sequence[str], *, origin: str | None = None) -> Checkpoint:
    """As ``read_checkpoint``, of its text."""
    from adyton.protocol import checkpoint

    said = checkpoint.parse(note)
    return checkpoint.verify(note, log_keys.for_origin(said.origin, keys), origin=origin)


def live(admin: Admin, tenant: str, files: Sequence[Path], start: Path | None, end: Path | None) -> Verified:
    """The rows of a broker, from ``start``'s size (or the first) to ``end``'s (or now), recomputed here.

    Each checkpoint of ``files`` must be met on the way. ``LogBroken`` names the first row that differs.
    """
    from adyton.crypto.merkle import Frontier
    from adyton.protocol import checkpoint
    from adyton.protocol.audit_check import Reading
    from adyton.wire import b64

    key = log_keys.of_broker(admin)
    given = [read_checkpoint(file, [key.text()], origin=key.name) for file in files]
    first = read_checkpoint(start, [key.text()], origin=key.name) if start else None
    if end is not None:
        last = read_checkpoint(end, [key.text()], origin=key.name)
    else:
        last = checkpoint.verify(admin.audit_checkpoint(), [key], origin=key.name)
    begin = first.size if first else 0
    outside = [one.size for one in (last, *given) if not begin <= one.size or one.size > max(last.size, begin)]
    if outside and end is not None:
        raise ConfigError(
            "the checkpoints are not in order",
            code="checkpoints_unordered",
            field="checkpoint",
            expected=f"{begin} to {last.size} rows",
            got=outside,
        )
    edge = None
    if first is not None and begin:
        said = admin.audit_frontier(begin)
        try:
            edge = Frontier(begin, [b64.decode(peak) for peak in said.peaks])
        except ValueError as error:
            raise DocumentInvalid("the broker's frontier cannot be read", code="frontier_malformed") from error
    checkpoints = [one for one in (first, *given, last) if one is not None]
    reading = Reading(tenant, checkpoints, edge)  # a frontier that is not the first checkpoint's ends here
    until = max(one.size for one in checkpoints)
    for body in rows(admin, begin, until):
        reading.row(body)
    reading.finish()
    sizes = tuple(sorted({one.size for one in checkpoints}))
    return Verified(key.name, begin + 1, reading.size, reading.root(), sizes)


def by_broker(admin: Admin) -> None:
    """Let the broker recompute its log with its stored hashes, which tell more exactly which row it is."""
    report = admin.audit_verify()
    if report.broken is not None:
        facts = {name: report.broken.get(name) for name in ("code", "field", "expected", "got", "hint")}
        known = {name: str(value) for name, value in facts.items() if value is not None}
        raise LogBroken(str(report.broken.get("message", "the log is broken")), **known)


def rows(admin: Admin, after: int, until: int) -> Iterator[bytes]:
    """The rows from ``after`` to ``until``, as far as the broker has them."""
    while after < until:
        page = admin.audit_rows(after, min(PAGE, until - after))
        if not page:
            return
        yield from page
        after += len(page)


def export(path: Path, files: Sequence[Path], keys: Sequence[str]) -> Verified:
    """The rows of an export, from the first, against its own checkpoint (``<path>.checkpoint``) or ``files``."""
    from adyton.protocol.audit_check import Reading

    beside = Path(f"{path}.checkpoint")
    named = list(files) or [beside]
    checkpoints = [read_checkpoint(file, keys) for file in named]
    origin = checkpoints[0].origin
    if any(one.origin != origin for one in checkpoints):
        raise ConfigError("the checkpoints are of several logs", code="checkpoints_unordered", field="checkpoint")
    reading = Reading(origin.rpartition("/")[2], checkpoints)
    for line in _lines(path):
        reading.row(line)
    reading.finish()
    sizes = tuple(sorted({one.size for one in checkpoints}))
    if reading.size > sizes[-1]:
        raise ConfigError(
            f"the export has rows after those of the checkpoint: {sizes[-1]} are proved, the others are not",
            code="rows_unproved",
            field=f"row {sizes[-1] + 1}",
            expected=f"{sizes[-1]} rows",
            got=f"{reading.size} rows",
            hint="give a later checkpoint of the log: adyton audit checkpoint -o FILE",
        )
    return Verified(origin, 1, reading.size, reading.root(), sizes)


def _lines(path: Path) -> Iterable[bytes]:
    from adyton.protocol.audit_row import MAX_ROW

    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_ROW + 2):
                yield line.removesuffix(b"\n")
    except OSError as error:
        raise ConfigError(f"cannot read: {error.strerror}", code="file_unreadable", field=str(path)) from error


def proof(
    path: Path, files: Sequence[Path], start: Path | None, keys: Sequence[str]
) -> tuple[Checkpoint, AuditEntry | Checkpoint]:
    """A proof file against the checkpoint given, or its own: that, and the row or the older checkpoint it proves."""
    from adyton.protocol import audit_proof
    from adyton.protocol.audit_proof import InclusionProof

    said = audit_proof.parse(read_file(path, audit_proof.MAX_PROOF))
    if len(files) > 1:
        raise ConfigError("a proof is for one checkpoint", code="usage", field="checkpoint")
    if files:
        newest = read_checkpoint(files[0], keys)
    elif said.checkpoint:
        newest = check_note(said.checkpoint, keys)
    else:
        raise ConfigError("the proof has no checkpoint in it", code="checkpoint_missing", hint="give --checkpoint FILE")
    if isinstance(said, InclusionProof):
        return newest, audit_proof.verify_inclusion(said, newest.origin.rpartition("/")[2], newest)
    if start is None:
        raise ConfigError(
            "this proves that a log continues an older one", code="checkpoint_missing", hint="give --from OLDER"
        )
    old = read_checkpoint(start, keys, origin=newest.origin)
    audit_proof.verify_consistency(said, old, newest)
    return newest, old
