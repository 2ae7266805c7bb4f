"""Whether anything was changed since: told by all processes of one broker to each other, in memory that they share.

After each commit of another process a SQLite connection forgets every page that it knew, so where several workers write
their rows, reading a generation of a few bytes costs each of them a walk through the file. Here each process has a
word in a page, for the changes that it makes: even while nothing is under way, odd from before a change begins until
after it is committed or undone. Rows that are appended to a log are no change.

A reader keeps what it read together with all words as they were before it read, and only if all were even; it uses
that again only while all words are the same. So what was acknowledged is what is decided by (contracts, 4):

* a change is acknowledged after its word went on, so whoever asks later sees other words, and reads the store;
* a process that is killed anywhere in between leaves an odd word: everybody reads the store, until its parent, which has
  waited for its end, moves the word on to a value that it never had;
* nobody else writes the store: its lock admits the processes of one broker (``stores.lock``), and each has a word.
"""

from __future__ import annotations


class Changes:
    """One process's view. ``words`` are 64 bits each, one for each process; ``place`` is this one's."""

    __slots__ = ("_place", "_words")

    def __init__(self, words: memoryview, place: int) -> None:
        self._words = words
        self._place = place

    def begin(self) -> None:
        """From now on something may be changed. One change of a process at a time."""
        self._words[self._place] |= 1

    def end(self) -> None:
        """It is committed, or undone."""
        settle(self._words, self._place)

    def seen(self) -> bytes:
        """All words now. Equal ones, with nothing ``under_way``: nothing was changed in between."""
        return self._words.tobytes()


def under_way(seen: bytes) -> bool:
    """Whether a change was under way then, or one that nobody ended."""
    return any(word & 1 for word in memoryview(seen).cast("Q"))


def settle(words: memoryview, place: int) -> None:
    """The next even value. For the process itself, or for whoever has waited for its end."""
    words[place] = ((words[place] | 1) + 1) & (1 << 64) - 1
