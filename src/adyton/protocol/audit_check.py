"""Reading a log of decisions from its rows, and naming the first that is not what it was.

Row by row: is it readable, of this tenant, in its place, and is the one before it what it says; does its hash equal the
one stored beside it, where there is one; and at the size of each checkpoint: is the root the one that was signed. The
last is proof. The others say where, and find what was changed even by somebody without a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable

from adyton.crypto.merkle import Frontier
from adyton.errors import LogBroken
from adyton.protocol import audit_row
from adyton.protocol.audit_row import AuditEntry
from adyton.protocol.checkpoint import Checkpoint
from adyton.rats.types import JsonValue


class Reading:
    """A walk over the rows of one tenant's log, from its beginning or from a frontier that the caller has checked.

    ``checkpoints`` must have been verified; each is compared when its size is reached, and none may be left over.
    """

    def __init__(self, tenant: str, checkpoints: Iterable[Checkpoint] = (), edge: Frontier | None = None) -> None:
        self._tenant = tenant
        self._edge = edge or Frontier()
        self._waiting = sorted(checkpoints, key=lambda checkpoint: -checkpoint.size)
        self._before: tuple[bytes, bytes] | None = None
        self._good = self._edge.size  # all rows up to here are proved, by a checkpoint
        self._compare()

    @property
    def size(self) -> int:
        """How many rows have been read, with those before the frontier."""
        return self._edge.size

    def root(self) -> bytes:
        """The root over them."""
        return self._edge.root()

    def row(self, body: bytes, stored: bytes | None = None) -> AuditEntry:
        """Read the next row; ``stored`` is the leaf hash kept beside it. ``LogBroken`` names what does not fit."""
        number = self._edge.size + 1
        try:
            entry = audit_row.decode(body)
        except LogBroken as error:
            raise broken(number, "row_malformed", "cannot be read") from error
        if entry.tenant != self._tenant:
            raise broken(number, "row_foreign", "belongs to another tenant", self._tenant, entry.tenant[:80])
        if entry.sequence != number:
            code = "row_missing" if entry.sequence > number else "row_repeated"
            what = "is missing" if entry.sequence > number else "is not in its place"
            raise broken(number, code, what, number, entry.sequence)
        hashed = audit_row.leaf(body)
        if stored is not None and hashed != stored:
            raise broken(number, "row_changed", "was changed: it has another hash", stored, hashed)
        if self._before is not None or number == 1:
            expected = audit_row.START if self._before is None else audit_row.link(entry, *self._before)
            if entry.previous != expected:
                raise self._unlinked(number, entry.previous, expected)
        self._before = (body, hashed)
        self._edge.push(hashed)
        self._compare()
        return entry

    def finish(self) -> None:
        """There are no more rows; ``LogBroken`` ``rows_cut`` if a checkpoint has more."""
        if self._waiting:
            size = self._waiting[0].size
            raise LogBroken(
                f"the log was cut: row {self.size + 1} is missing, and all after it",
                code="rows_cut",
                field=f"row {self.size + 1}",
                expected=f"{size} rows",
                got=f"{self.size} rows",
                hint=_HINT,
            )

    def _unlinked(self, number: int, got: str, expected: str) -> LogBroken:
        if number == 1:
            return broken(1, "row_changed", "was changed: it is not the first row of a log", expected, got[:64])
        return broken(
            number - 1, "row_changed", f"was changed, or row {number} was: they do not fit together", got[:64], expected
        )

    def _compare(self) -> None:
        while self._waiting and self._waiting[-1].size <= self._edge.size:
            checkpoint = self._waiting.pop()
            if checkpoint.size < self._edge.size:
                raise ValueError("a checkpoint from before the frontier")
            if checkpoint.root != self._edge.root():
                first, last = self._good + 1, checkpoint.size
                raise LogBroken(
                    f"one of the rows {first} to {last} was changed: they fit together, but are not those of the checkpoint",
                    code="rows_changed",
                    field=f"row {first}",
                    expected=checkpoint.root,
                    got=self._edge.root(),
                    hint=_HINT,
                )
            self._good = checkpoint.size


_HINT = "keep the file as evidence; all rows before the one named are intact"


def broken(
    number: int, code: str, what: str, expected: JsonValue | bytes = None, got: JsonValue | bytes = None
) -> LogBroken:
    """Row ``number`` is the first that is not as it was."""
    return LogBroken(f"row {number} {what}", code=code, field=f"row {number}", expected=expected, got=got, hint=_HINT)
