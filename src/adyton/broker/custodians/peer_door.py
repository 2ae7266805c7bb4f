"""The port on which peers ask for the root key: a thread of the broker's first process, apart from everything else."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from adyton.broker.custodians.peers import Giver
from adyton.broker.door import refusals
from adyton.broker.door.entrance import Entrance
from adyton.broker.door.worker import Limits, Worker
from adyton.protocol.peers import MAX_BODY

LIMITS = Limits(max_body=MAX_BODY, head_seconds=10.0, body_seconds=10.0, idle_seconds=20.0, max_connections=32)
_STOP_SECONDS = 10.0


@contextmanager
def opened(
    giver: Giver, listener: socket.socket, tls: ssl.SSLContext | None, ciphers: frozenset[str] | None = None
) -> Iterator[None]:
    """Answer on ``listener`` for as long as the block runs, over these ciphers if not any."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    thread = threading.Thread(
        target=_serve, args=(loop, giver, listener, tls, ready, ciphers), name="peers", daemon=True
    )
    thread.start()
    ready.wait(_STOP_SECONDS)
    try:
        yield
    finally:
        with suppress(RuntimeError):  # it has ended already
            loop.call_soon_threadsafe(loop.stop)
        thread.join(_STOP_SECONDS)


def _serve(  # noqa: PLR0917 -- one value each
    loop: asyncio.AbstractEventLoop,
    giver: Giver,
    listener: socket.socket,
    tls: ssl.SSLContext | None,
    ready: threading.Event,
    ciphers: frozenset[str] | None,
) -> None:
    asyncio.set_event_loop(loop)
    worker = Worker(giver, LIMITS, refusals.OVERLOADED, refusals.UNREADABLE)
    worker.ciphers = ciphers

    async def open_() -> Entrance:
        return Entrance(worker, listener, tls)

    entrance = loop.run_until_complete(open_())
    sweep = loop.create_task(worker.sweep())
    ready.set()
    try:
        loop.run_forever()
    finally:
        sweep.cancel()
        entrance.close()
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(sweep)
        for connection in [*worker.arriving, *worker.connections]:
            connection.abort()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
