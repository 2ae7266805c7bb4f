"""Which claims two policies judge differently: those with which, were they otherwise, both would say the same.

Pure: whoever calls asks the policies. One claim is changed at a time, to each value that it might have instead: what other
evidence has there, what reference values list, the other truth value, and nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from adyton.appraisal.explain import same
from adyton.rats.types import JsonValue

Path = tuple[str | int, ...]
MAX_PATHS = 60
MAX_VALUES = 12
MAX_ASKED = 400
_ABSENT = object()


def causes(
    document: Mapping[str, JsonValue],
    paths: Iterable[Path],
    others: Sequence[Mapping[str, JsonValue]],
    references: Mapping[str, JsonValue],
    agree: Callable[[Mapping[str, JsonValue]], bool],
) -> list[tuple[Path, JsonValue]]:
    """The claims, with what ``document`` has there, of which another value makes ``agree`` true. Bounded work.

    ``agree`` says of a changed document whether one policy says of it what the other says of the real one.
    """
    found: list[tuple[Path, JsonValue]] = []
    asked = 0
    for path in list(dict.fromkeys(paths))[:MAX_PATHS]:
        got = at(document, path)
        for value in _values(path, got, others, references):
            if asked >= MAX_ASKED:
                return found
            changed = replaced(document, path, value)
            if changed is None:
                continue
            asked += 1
            if agree(changed):
                found.append((path, None if got is _ABSENT else got))
                break
    return found


def _values(
    path: Path, got: Any, others: Sequence[Mapping[str, JsonValue]], references: Mapping[str, JsonValue]
) -> Iterator[Any]:
    seen: list[Any] = [got]
    candidates: list[Any] = [at(other, path) for other in others]
    if isinstance(got, bool):
        candidates.append(not got)
    for value in references.values():
        candidates += value[:MAX_VALUES] if isinstance(value, list) else [value]
    candidates.append(_ABSENT)
    given = 0
    for value in candidates:
        alike = value is _ABSENT or got is _ABSENT or type(value) is type(got)
        if not alike or any(
            value is one or (value is not _ABSENT and one is not _ABSENT and same(value, one)) for one in seen
        ):
            continue
        seen.append(value)
        given += 1
        if given > MAX_VALUES:
            return
        yield value


def at(document: Mapping[str, JsonValue], path: Path) -> Any:
    """The value there, or a mark of its own where there is none."""
    value: Any = document
    part: Any
    for part in path:
        if (isinstance(value, dict | Mapping) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and 0 <= part < len(value)
        ):
            value = value[part]
        else:
            return _ABSENT
    return value


def replaced(document: Mapping[str, JsonValue], path: Path, value: Any) -> dict[str, JsonValue] | None:
    """A copy with another value at ``path``; ``None`` where there is no such place."""
    if not path:
        return None
    head, rest = path[0], path[1:]
    if not isinstance(head, str):
        return None
    copy = dict(document)
    if not rest:
        if value is _ABSENT:
            copy.pop(head, None)
        else:
            copy[head] = value
        return copy
    inner = copy.get(head)
    if not isinstance(inner, dict):
        return None
    changed = replaced(inner, rest, value)
    if changed is None:
        return None
    copy[head] = changed
    return copy


def written(path: Path) -> str:
    """A path as policies write it."""
    text = "input"
    for part in path:
        plain = isinstance(part, str) and part.replace("_", "a").isalnum()
        text += f".{part}" if plain else f'["{part}"]' if isinstance(part, str) else f"[{part}]"
    return text
