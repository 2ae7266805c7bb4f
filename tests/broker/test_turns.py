"""No tenant has all threads of the administration."""

from __future__ import annotations

import asyncio
import threading

from tests.waiting import LONG

from adyton.broker.door import turns
from adyton.broker.door.turns import Turns


def test_who_takes_long_keeps_no_other_tenant_waiting() -> None:
    asked, go = threading.Semaphore(0), threading.Event()
    at_once: list[int] = []

    def slow() -> str:
        asked.release()
        at_once.append(1)
        go.wait(LONG)
        at_once.pop()
        return "done"

    async def main() -> None:
        shared = Turns()
        waiting = [asyncio.ensure_future(shared.take("slow", slow)) for _ in range(turns.EACH + turns.WAITING)]
        for _ in range(turns.EACH):
            await asyncio.to_thread(asked.acquire)
        assert await shared.take("slow", slow) is None, "as many as may wait"
        for _ in range(20):
            assert await asyncio.wait_for(shared.take("other", lambda: "quick"), LONG) == "quick"
        assert len(at_once) == turns.EACH
        waiting.pop().cancel()  # whoever goes away while it waits makes room
        await asyncio.sleep(0)
        waiting.append(asyncio.ensure_future(shared.take("slow", slow)))
        go.set()
        assert await asyncio.gather(*waiting) == ["done"] * len(waiting)
        assert not shared._tenants
        shared.close()

    asyncio.run(main())


def test_what_it_raises_is_raised_and_the_turn_is_given_back() -> None:
    def fails() -> None:
        raise KeyError("x")

    async def main() -> None:
        shared = Turns()
        for _ in range(3 * turns.EACH):
            found = await asyncio.gather(shared.take("a", fails), return_exceptions=True)
            assert isinstance(found[0], KeyError)
        assert not shared._tenants
        shared.close()

    asyncio.run(main())
