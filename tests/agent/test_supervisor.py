"""Names of signals as image configurations spell them."""

from __future__ import annotations

import signal

import pytest

from adyton.agent.supervisor import stop_signal


@pytest.mark.parametrize(
    "text", [None, "", "nonsense", "0", "65", "-1", "SIG", "RTMIN+99", "RTMAX-99", "RTMIN+", "²", "9" * 5000]
)
def test_what_is_no_signal_is_term(text: str | None) -> None:
    assert stop_signal(text) == signal.SIGTERM


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGQUIT", signal.SIGQUIT),
        ("quit", signal.SIGQUIT),
        ("3", signal.SIGQUIT),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("RTMAX-1", signal.SIGRTMAX - 1),
    ],
)
def test_names_and_numbers(text: str, number: int) -> None:
    assert stop_signal(text) == number
