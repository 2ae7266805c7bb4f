"""Until when a call to a back end may go on. Whoever waits for it sets the moment, whoever reads from the network looks.

A socket's own time-out counts from byte to byte, so a server that sends one byte a second would never meet it. What is
here counts for the whole call, however many requests it is made of.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_UNTIL: ContextVar[float] = ContextVar("until", default=math.inf)


@contextmanager
def until(moment: float) -> Iterator[None]:
    """What is called meanwhile, in this thread, has to be done at ``moment`` (of ``time.monotonic``)."""
    token = _UNTIL.set(min(moment, _UNTIL.get()))
    try:
        yield
    finally:
        _UNTIL.reset(token)


def left(most: float) -> float:
    """Seconds that the next step may take: ``most``, or what is left of the call. ``TimeoutError`` if nothing is."""
    remaining = min(most, _UNTIL.get() - time.monotonic())
    if remaining <= 0:
        raise TimeoutError("the call has taken its time")
    return remaining
