"""The first process of an instance once its launcher is done; the report channel is descriptor 3."""

from __future__ import annotations

import os
import socket
import sys

from adyton.agent.images import obtain
from adyton.agent.life import Layout, live, prepare_process

CHANNEL = 3


def main() -> None:
    """Live, then leave at once: threads that wait for the caller's input must not hold the exit up."""
    prepare_process()
    status = live(socket.socket(fileno=CHANNEL), Layout(), obtain)
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
