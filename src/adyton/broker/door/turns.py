"""Threads for what may take long, and no tenant has all of them.

Whoever recomputes a log of a million rows waits for that alone: the administration of other tenants goes on beside it,
and so does what the broker itself does in threads, which are others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 12
EACH = 4
WAITING = 64
_T = TypeVar("_T")


class Turns:
    """``EACH`` threads at once for a tenant, and ``WAITING`` requests that wait for one of them. For one event loop."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="administration")
        self._tenants: dict[str, tuple[asyncio.Semaphore, list[None]]] = {}

    async def take(self, tenant: str, call: Callable[[], _T]) -> _T | None:
        """What ``call`` gives, from a thread; ``None`` if too many of this tenant wait already."""
        turn, asking = self._tenants.setdefault(tenant, (asyncio.Semaphore(EACH), []))
        if len(asking) >= EACH + WAITING:
            return None
        asking.append(None)
        try:
            async with turn:
                return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        finally:
            asking.pop()
            if not asking:
                del self._tenants[tenant]

    def close(self) -> None:
        """No more; what runs ends by itself."""
        self._pool.shutdown(wait=False)
