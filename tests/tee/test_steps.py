from __future__ import annotations

import pytest

from adyton.errors import EvidenceError
from adyton.rats.types import Check
from adyton.tee import steps

_A = Check("a", ok=True, spec="evidence 1", group="report")
_B = Check("b", ok=True, spec="evidence 2")
_C = Check("c", ok=True, spec="evidence 3")


def _refuse(run: list[str]) -> None:
    raise EvidenceError("no", code="b", expected=b"\1", got=[1, "x"])


def test_the_first_failure_ends_it_and_stands_last_in_the_trail() -> None:
    ran: list[str] = []
    trail: list[Check] = []
    listed: tuple[steps.Step[list[str]], ...] = (
        steps.Step(_A, lambda run: run.append("a"), tell=lambda run: (1, len(run))),
        steps.Step(_B, _refuse),
        steps.Step(_C, lambda run: run.append("c")),
    )
    with pytest.raises(EvidenceError):
        steps.walk(listed, ran, trail)
    assert ran == ["a"]
    assert trail == [
        Check("a", ok=True, spec="evidence 1", group="report", expected=1, got=1),
        Check("b", ok=False, spec="evidence 2", expected="01", got=[1, "x"]),
    ]
    with pytest.raises(EvidenceError):
        steps.walk(listed, ran, None)


def test_what_does_not_apply_leaves_no_trace_but_is_run() -> None:
    ran: list[str] = []
    trail: list[Check] = []
    listed: tuple[steps.Step[list[str]], ...] = (
        steps.Step(_A, lambda run: run.append("a"), applies=lambda run: not run),
        steps.Step(_C, lambda run: run.append("c"), applies=lambda run: run == ["a", "c"]),
    )
    steps.walk(listed, ran, trail)
    assert ran == ["a", "c"]
    assert trail == [_C]
    assert steps.done(listed, ran) == (_C,)
