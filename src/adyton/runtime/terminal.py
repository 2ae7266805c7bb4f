"""The caller's terminal: raw while a workload has it, and its size."""

from __future__ import annotations

import contextlib
import os
import termios
import tty
from collections.abc import Iterator


@contextlib.contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Every key goes to the workload, Ctrl-C too; afterwards the terminal is as it was, whatever happened."""
    try:
        before = termios.tcgetattr(descriptor)
    except termios.error:  # not a terminal
        yield
        return
    tty.setraw(descriptor, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def size(descriptor: int) -> tuple[int, int]:
    """Rows and columns; (0, 0) when it is no terminal."""
    try:
        columns, rows = os.get_terminal_size(descriptor)
    except OSError:
        return (0, 0)
    return rows, columns
