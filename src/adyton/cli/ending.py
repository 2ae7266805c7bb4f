"""What a command that is ended by a signal still does."""

from __future__ import annotations

import signal
from types import FrameType


def put_away_when_ended() -> None:
    """What ends a timer's or a terminal's command leaves half a copy behind no more than Ctrl-C does."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # else nohup, or whoever runs this within another program
            signal.signal(number, leave)
