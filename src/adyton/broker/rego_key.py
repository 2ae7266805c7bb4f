"""What a policy's answer depends on: the values at the places of its input that it reads, as a key to remember it by."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import msgspec

from adyton.appraisal.rego_check import Path
from adyton.rats.types import JsonValue

MAX_KEY = 8 * 1024
_ABSENT = (KeyError, IndexError, TypeError)
_Group = tuple[Path, Sequence[Any], Callable[[Any], Sequence[Any]], int]
_encode = msgspec.json.Encoder().encode  # tells what Python's ``==`` does not: true from 1


class Reader:
    """Reads the places of one policy: ``paths`` in full, ``tests`` only for what a condition sees of them."""

    def __init__(self, paths: Sequence[Path], tests: Sequence[Path]) -> None:
        self._tests = tests
        # Neighbours with the same parent are fetched together, in one step where all of them are there. What has the same
        # first name is passed over in one step where that is not there: a policy knows many TEEs, a document is of one.
        self._roots: list[tuple[str | int | None, int, list[_Group]]] = []
        number = 0
        for root, under in groupby(paths, key=lambda path: path[0] if len(path) > 1 else None):
            groups: list[_Group] = []
            first = number
            for parent, group in groupby(under, key=lambda path: path[:-1]):
                names = [path[-1] for path in group]
                together = itemgetter(*names) if len(names) > 1 else _only(names[0])
                groups.append((parent, names, together, number))
                number += len(names)
            self._roots.append((root, ((1 << (number - first)) - 1) << first, groups))

    def key(self, document: Mapping[str, JsonValue]) -> Hashable:
        """The same for two documents only if no policy that reads these places can tell them apart; ``None``: too long."""
        missing = 0
        values: list[object] = []
        for root, all_of_them, groups in self._roots:
            if root is not None and root not in document:
                missing |= all_of_them
                continue
            for parent, names, together, number in groups:
                found = _descend(document, parent)
                if found is None:
                    missing |= ((1 << len(names)) - 1) << number
                    continue
                try:
                    values += together(found)
                except _ABSENT:
                    missing |= _each(found, names, values) << number
        encoded = _encode(values)
        if len(encoded) > MAX_KEY:
            return None
        return missing, encoded, tuple([_kind(document, path) for path in self._tests])


def _only(name: Any) -> Callable[[Any], Sequence[Any]]:
    return lambda parent: (parent[name],)


def _each(parent: Any, names: Sequence[Any], values: list[object]) -> int:
    """Append those that are there; a bit map of the others."""
    missing = 0
    for number, name in enumerate(names):
        try:
            values.append(parent[name])
        except _ABSENT:
            missing |= 1 << number
    return missing


def _kind(document: Mapping[str, JsonValue], path: Path) -> str:
    """What a condition can see of the value at ``path``: nothing, or its type, and whether it is one of the empty ones."""
    parent = _descend(document, path[:-1])
    try:
        value = parent[path[-1]]
    except _ABSENT:
        return ""
    return f"{type(value).__name__} {bool(value)}"


def _descend(value: Any, path: Path) -> Any:
    """The object or array at ``path``; ``None`` if there is none, or another kind of value."""
    try:
        for part in path:
            if not isinstance(value, dict | list):
                return None
            inner: Any = value
            value = inner[part]
    except _ABSENT:
        return None
    return value if isinstance(value, dict | list) else None
