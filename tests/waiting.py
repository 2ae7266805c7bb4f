"""Waiting for what must come."""

from __future__ import annotations

import time
from collections.abc import Callable

LONG = 60.0
"""Seconds in which what must come has come, also on a machine that is slow and does much else."""


def until(condition: Callable[[], object], seconds: float = LONG, what: Callable[[], object] | str = "") -> None:
    """Return as soon as ``condition`` holds; it must within ``seconds``. ``what`` is said if it does not."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            raise AssertionError(f"it did not come within {seconds:g} s: {what() if callable(what) else what}")
        time.sleep(0.02)
