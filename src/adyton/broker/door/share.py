"""How many connections each worker holds, for all to see: who holds more leaves a newcomer, for a moment, to who holds fewer.

Workers share a listening socket, and a worker that is first takes a connection; so of a few kept connections one could
hold all while another sleeps. The numbers lie in a page of memory that the workers share and nobody else. They are
hints: whatever is wrong with them costs a newcomer at most ``PATIENCE_SECONDS``, and it is always taken:

* a worker that leaves a newcomer to another one waits no longer than that, and then takes it;
* the other one, which did not (it is stopped, busy, or was killed), is no longer waited for until its number changes;
* who is about to end, finds no descriptors or has ended, has no number, and nobody waits for it. Who is about to end
  leaves newcomers to those who have one.

Differences of ``SLACK`` and an eighth are nobody's reason to wait, so that a burst is taken in parts and not one by one.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Self

from adyton.stores import changes

PATIENCE_SECONDS, STEP_SECONDS = 0.01, 0.001
SLACK, PART = 1, 8
_LINE = 64  # bytes: of one line of a processor's cache, so that who writes disturbs nobody else
_WORD = 8
_HELD = (1 << 32) - 1


class Board:
    """The page, by its descriptor: two words for each process. Whoever makes it clears those of processes that have ended.

    One of ``words`` is 0, or: how often it was written, in the upper half; connections held and one more, in the lower
    half. ``changes`` are those of ``stores.changes``.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._page = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        self.places = len(self._page) // (_LINE + _WORD)
        whole = memoryview(self._page).cast("Q")
        ends = self.places * _LINE // _WORD
        self.words = whole[: ends : _LINE // _WORD]
        self.changes = whole[ends:]

    @classmethod
    def make(cls, places: int) -> Self:
        """One for so many processes, of a size that nobody can change."""
        descriptor = os.memfd_create("adyton-workers", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.truncate(descriptor, places * (_LINE + _WORD))
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return cls(descriptor)

    def clear(self, place: int) -> None:
        """Whoever had it has ended, and this was waited for."""
        self.words[place] = 0
        changes.settle(self.changes, place)

    def close(self) -> None:
        """Look no more."""
        self.words.release()
        os.close(self.descriptor)


class Share:
    """One worker's part in it."""

    def __init__(self, board: Board, place: int) -> None:
        self._words = board.words
        self._place = place
        self._open = False
        self._told = 0
        self._since: float | None = None
        self._absent: dict[int, int] = {}  # words of those who did not take what was left to them

    def open(self, held: int) -> None:
        """Newcomers are taken here; ``held`` connections there are."""
        self._open = True
        self.tell(held)

    def shut(self) -> None:
        """No newcomer should be left to this worker, and it leaves all to others: it ends, or can take none for now."""
        self._open = False
        self._words[self._place] = 0

    def tell(self, held: int) -> None:
        """So many connections there are now."""
        if self._open:
            self._told = (self._told + 1) & _HELD
            self._words[self._place] = self._told << 32 | min(held + 1, _HELD)

    def leaves(self, held: int, now: float) -> bool:
        """Whether to leave a newcomer to others at the moment ``now``, in seconds: asked again after ``STEP_SECONDS``."""
        behind = self._behind(held if self._open else _HELD)
        if not behind:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        if now < self._since + PATIENCE_SECONDS:
            return True
        self._absent.update(behind)
        self._since = None
        return False

    def taken(self) -> None:
        """Nobody waits any more: others took what was left to them."""
        self._since = None

    def _behind(self, held: int) -> dict[int, int]:
        """Places and words of those that hold fewer and would take a newcomer."""
        found = {}
        for place, word in enumerate(self._words):
            if word and place != self._place and self._absent.get(place) != word:
                theirs = (word & _HELD) - 1
                if held > theirs + SLACK + theirs // PART:
                    found[place] = word
        return found
