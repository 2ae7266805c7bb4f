"""What a tenant's certification authority shows to everybody: its roots and their lists, mostly from memory.

Anybody may ask, so an answer costs one small read on the loop, by which a list in memory is the newest there is; only what
must be signed or read whole waits for a thread, few at a time. How often an address may ask is for ``Front``.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from datetime import UTC, datetime

from adyton.broker.door import refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.refusals import Stage
from adyton.broker.key_service.authority import CERTIFICATE, CRL, Authority
from adyton.crypto import crl
from adyton.errors import AdytonError, NotFound
from adyton.stores.authorities import Authorities, absent

MAX_BYTES = 16 * 1024 * 1024
"""Of lists and certificates in the memory of one worker."""
THREADS = 2
"""For what strangers may ask: others need some too."""
MAX_WAITING = 64


class Published:
    """Those of all tenants, for one worker. On its loop."""

    def __init__(self, authority: Authority, kept: Authorities) -> None:
        self._authority = authority
        self._kept = kept
        self._known: OrderedDict[tuple[str, int, str], tuple[int, bytes]] = OrderedDict()
        self._bytes = 0
        self._places = asyncio.Semaphore(THREADS)
        self._waiting = 0

    def at_once(self, tenant: str, name: str, now: float) -> Answer | None:
        """``<number>.crl`` or ``<number>.crt`` where it is known, or known not to be; ``None``: ask ``made``."""
        try:
            number, form = _parsed(name)
            state = self._kept.list_state(tenant, number, now)
            if state is None:
                raise absent()
        except AdytonError as error:
            return refusals.answer(error, Stage.ADMIN)
        found = self._known.get((tenant, number, form))
        if found is None or (form == "crl" and found[0] != state):
            return None
        self._known.move_to_end((tenant, number, form))
        return _answer(form, found[1])

    async def made(self, tenant: str, name: str, now: float) -> Answer:
        """The same, from the store, and signed if that is due."""
        if self._waiting >= MAX_WAITING:
            return refusals.OVERLOADED
        self._waiting += 1
        try:
            async with self._places:
                if (answer := self.at_once(tenant, name, now)) is not None:  # whoever was before made it
                    return answer
                number, form = _parsed(name)
                body = await asyncio.to_thread(self._read, tenant, number, form, now)
                self._keep((tenant, number, form), crl.facts(body)[0] if form == "crl" else 0, body)
        except AdytonError as error:
            return refusals.answer(error, Stage.ADMIN)
        finally:
            self._waiting -= 1
        return _answer(form, body)

    def _read(self, tenant: str, number: int, form: str, now: float) -> bytes:
        if form == "crl":
            return self._authority.crl(tenant, number, datetime.fromtimestamp(now, UTC))
        for one in self._kept.all(tenant):
            if one.number == number:
                return one.certificate
        raise absent()

    def _keep(self, which: tuple[str, int, str], mark: int, body: bytes) -> None:
        if which in self._known:
            self._bytes -= len(self._known.pop(which)[1])
        if len(body) <= MAX_BYTES:
            self._known[which] = (mark, body)
            self._bytes += len(body)
        while self._bytes > MAX_BYTES:
            _, (_, old) = self._known.popitem(last=False)
            self._bytes -= len(old)


def _parsed(name: str) -> tuple[int, str]:
    number, _, form = name.partition(".")
    if not number.isdigit() or len(number) > 4 or number.startswith("0") or form not in {"crl", "crt"}:
        raise NotFound("there is no such file", code="authority_absent", field="path", got=name[:40])
    return int(number), form


def _answer(form: str, body: bytes) -> Answer:
    return Answer(200, body, content_type=CRL if form == "crl" else CERTIFICATE)
