"""Running a TEE's checks in their order, and leaving a trail of them for whoever wants to read it.

A room lists its checks as ``Step``s. The first that fails ends the verification; it stands last in the trail, with what
its error says was expected and what came. Checks that do not apply (not asked for, nothing to compare) are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from adyton.errors import AdytonError
from adyton.rats.types import Check, JsonValue

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Step(Generic[_T]):
    """One check: ``do`` is silent or raises. ``applies`` says whether there is anything to do, once ``do`` was called.

    ``tell`` gives what was expected and what came, for a reader; it is called only for a trail, after ``do``.
    """

    check: Check
    do: Callable[[_T], None]
    applies: Callable[[_T], bool] | None = None
    tell: Callable[[_T], tuple[JsonValue, JsonValue]] | None = None


def walk(steps: Sequence[Step[_T]], run: _T, trail: list[Check] | None) -> None:
    """Run every step over ``run``; the first error leaves. ``trail`` receives each check as it is done."""
    if trail is None:
        for step in steps:
            step.do(run)
        return
    for step in steps:
        try:
            step.do(run)
        except AdytonError as error:
            trail.append(failed(step.check, error))
            raise
        if step.applies is None or step.applies(run):
            expected, got = step.tell(run) if step.tell is not None else (None, None)
            trail.append(replace(step.check, expected=expected, got=got))


def failed(check: Check, error: AdytonError) -> Check:
    """The check as it failed, with what its error says."""
    told = error.as_dict()
    return replace(check, ok=False, expected=_short(told["expected"]), got=_short(told["got"]))


def done(steps: Sequence[Step[_T]], run: _T) -> tuple[Check, ...]:
    """The checks that applied, for ``VerifiedEvidence.checks``. Call it after ``walk``."""
    return tuple([step.check for step in steps if step.applies is None or step.applies(run)])


def _short(value: object) -> JsonValue:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list):
        return [_short(item) for item in value]
    return str(value)
