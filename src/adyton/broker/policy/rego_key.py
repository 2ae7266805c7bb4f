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
MAX_PLANS = 64
_ABSENT = (KeyError, IndexError, TypeError)
_Group = tuple[Path, Sequence[Any], Callable[[Any], Sequence[Any]], int]
_Plan = tuple[int, list[_Group], list[Path]]
_encode = msgspec.json.Encoder().encode  # tells what Python's ``==`` does not: true from 1


class Reader:
    """Reads the places of one policy: ``paths`` in full, ``tests`` only for what a condition sees of them."""

    def __init__(self, paths: Sequence[Path], tests: Sequence[Path]) -> None:
        self._tests = tests
        # Neighbours with the same parent are fetched together, in one step where all of them are there.
        self._groups: list[_Group] = []
        self._plans: dict[tuple[str, ...], _Plan] = {}
        number = 0
        for parent, group in groupby(paths, key=lambda path: path[:-1]):
            names = [path[-1] for path in group]
            self._groups.append((parent, names, itemgetter(*names) if len(names) > 1 else _only(names[0]), number))
            number += len(names)

    def _plan(self, members: tuple[str, ...]) -> _Plan:
        """For documents with these members: what is surely missing, and where to look, always in the same order.

        A policy knows many TEEs, a document is of one.
        """
        missing, groups = 0, []
        for group in self._groups:
            parent, names, _, number = group
            if parent and parent[0] not in members:
                missing |= ((1 << len(names)) - 1) << number
            else:
                groups.append(group)
        tests = [path for path in self._tests if path[0] in members]
        plan = missing, groups, tests
        if len(self._plans) < MAX_PLANS:
            self._plans[members] = plan
        return plan

    def key(self, document: Mapping[str, JsonValue]) -> Hashable:
        """The same for two documents only if no policy that reads these places can tell them apart; ``None``: too long."""
        members = tuple(document)
        missing, groups, tests = self._plans.get(members) or self._plan(members)
        values: list[object] = []
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
        return missing, encoded, tuple([(path, _kind(document, path)) for path in tests])


def _only(name: Any) -> Callable[[Any], Sequence[Any]]:
    return lambda parent: (parent[name],)


def _each(parent: Any, names: Sequence[Any], values: list[object]) -> int:
    """Append those that are there; a bit map of the others."""
    missing = 0
    for number, name in enumerate(names):
        if name in parent if isinstance(parent, dict) else isinstance(name, int) and name < len(parent):
            values.append(parent[name])
        else:
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
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return None
    return value if isinstance(value, dict | list) else None
