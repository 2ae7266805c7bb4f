"""Claims that are written down when somebody reads them.

A verifier states some fifty facts, of which a broker's decision reads two. ``Deferred`` is a mapping like any other; the
facts that are asked for each time are at hand, the first question about another one makes them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from adyton.rats.types import JsonValue


class Deferred(Mapping[str, JsonValue]):
    """``ready`` is a part of what ``make`` gives; ``make`` is called once at most, and must depend on nothing else."""

    __slots__ = ("_all", "_make", "_ready")

    def __init__(self, make: Callable[[], dict[str, JsonValue]], ready: Mapping[str, JsonValue] | None = None) -> None:
        self._make = make
        self._ready = ready or {}
        self._all: dict[str, JsonValue] | None = None

    def _made(self) -> dict[str, JsonValue]:
        if self._all is None:
            self._all = self._make()
        return self._all

    @property
    def ready(self) -> Mapping[str, JsonValue]:
        """What is at hand."""
        return self._ready

    def __getitem__(self, name: str) -> JsonValue:
        return self._ready[name] if name in self._ready else self._made()[name]

    def get(self, name: str, default: Any = None) -> Any:  # one call instead of the mixin's three
        """As every mapping's."""
        return self._ready[name] if name in self._ready else self._made().get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._ready or name in self._made()

    def __iter__(self) -> Iterator[str]:
        return iter(self._made())

    def __len__(self) -> int:
        return len(self._made())

    def __repr__(self) -> str:
        return repr(self._made())
