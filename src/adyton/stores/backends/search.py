"""Looking for a key among all of a device's, where the device cannot look for a label: in pieces, going on where it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from adyton.errors import Unavailable
from adyton.stores.backends import deadline

_ENOUGH = 0.5
"""Seconds of the call that are left for what is under way."""
MOST_SOUGHT = 100


class Search:
    """What was looked at already, by label. One call takes as long as it may; the next ones look at the rest."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, bool]] = {}

    def among(self, label: str, names: Iterable[str], matches: Callable[[str], bool]) -> list[str]:
        """Those of ``names`` that match; ``Unavailable`` ``backend_search_unfinished`` if there was no time for all."""
        while len(self._seen) >= MOST_SOUGHT and label not in self._seen:
            del self._seen[next(iter(self._seen))]
        seen = self._seen.setdefault(label, {})
        for name in names:
            if name in seen:
                continue
            if deadline.left(2 * _ENOUGH) < _ENOUGH:
                raise Unavailable(
                    "the device has many keys; not all of them could be looked at in one call",
                    code="backend_search_unfinished",
                    got=len(seen),
                    hint="it goes on by itself",
                )
            seen[name] = matches(name)
        del self._seen[label]
        return [name for name, matched in seen.items() if matched]
