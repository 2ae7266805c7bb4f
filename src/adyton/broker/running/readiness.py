"""Whether this worker can do its work: each part is asked, at most once in ``KEEP_SECONDS``, whoever asks how often.

``/healthz`` says that the process answers. ``/readyz`` says that it can decide: the store takes writes, the policy engine
works, endorsements have not expired, keys are loaded, and it is not about to end. Strangers learn yes or no; which part
is not ready is told on loopback and to administrators.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime

import msgspec

from adyton.appraisal import policies as defaults
from adyton.broker.door.answer import Answer
from adyton.broker.door.connection import HttpRequest
from adyton.broker.outside.endorsements import Endorsements
from adyton.broker.policy.policies import PolicyBook
from adyton.broker.policy.rego import RegoEngine
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import AdytonError
from adyton.protocol.loopback import is_loopback
from adyton.stores.sqlite import Store

KEEP_SECONDS = 1.0
ENGINE_SECONDS = 30.0
_FORWARDED = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip"})  # then loopback is a proxy, and not who asks
_LOG = logging.getLogger(__name__)


class Part(msgspec.Struct, frozen=True):
    """One of the things that must work. ``why`` is a code and a few words, never a secret."""

    name: str
    ready: bool
    why: str = ""


class Readiness:
    """Of one worker. ``clock`` gives the time. ``leaving`` is set when it is about to end."""

    def __init__(
        self,
        store: Store,
        book: PolicyBook,
        rego: RegoEngine,
        endorsements: Endorsements,
        clock: Callable[[], datetime],
        *,
        fetches: bool,
    ) -> None:
        self._store = store
        self._book = book
        self._rego = rego
        self._endorsements = endorsements
        self._clock = clock
        self._fetches = fetches
        self.leaving = False
        self.keys_loaded = True
        self._known: tuple[float, list[Part]] = (float("-inf"), [])
        self._engine: tuple[float, Part] = (float("-inf"), Part("policy engine", ready=False))
        self._looking: asyncio.Future[list[Part]] | None = None

    async def parts(self) -> list[Part]:
        """How each part is."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._known[0] >= KEEP_SECONDS:
            if self._looking is None:
                self._looking = asyncio.ensure_future(asyncio.to_thread(self._look, loop.time()))
            looking = self._looking
            try:
                found = await asyncio.shield(looking)
            finally:
                if looking.done() and self._looking is looking:  # else the next one waits for it, or for what it raised
                    self._looking = None
            self._known = loop.time(), found
        serving = Part("serving", not self.leaving, "leaving: the broker is about to end" if self.leaving else "")
        return [serving, *self._known[1]]

    async def answer(self, request: HttpRequest, may_know: Callable[[], Awaitable[bool]]) -> Answer:
        """Yes or no to everybody; which part cannot, only to who is on this machine, or ``may_know``."""
        parts = await self.parts()
        status = 200 if all(part.ready for part in parts) else 503
        answer = Answer(status, reason="" if status == 200 else "not_ready")
        near = is_loopback(request.peer) and not _FORWARDED & request.headers.keys()
        if near or await may_know():
            answer.body = msgspec.json.encode({"ready": status == 200, "parts": parts})
        return answer

    def _look(self, moment: float) -> list[Part]:
        if moment - self._engine[0] >= ENGINE_SECONDS or not self._engine[1].ready:
            self._engine = moment, _tried("policy engine", self._compile)
        return [
            _tried("store", self._store.check_writable),
            self._engine[1],
            _tried("endorsements", self._check_endorsements),
            Part("keys", self.keys_loaded, "" if self.keys_loaded else "keys_unreadable: the broker's keys"),
        ]

    def _compile(self) -> None:
        self._rego.compile(*self._book.question("attestation", next(iter(defaults.DEFAULTS.values()))))

    def _check_endorsements(self) -> None:
        if self._fetches:
            return  # what has expired is fetched anew
        for kind, moment in expiries(self._endorsements.current).items():
            if kind == "crl" and moment <= self._clock().timestamp():
                raise AdytonError("a CRL that was laid out has expired", code="endorsement_expired")


def expiries(endorsements: EndorsementSet) -> dict[str, float]:
    """When the first of each kind ends, Unix seconds; of several CRLs of one issuer the newest counts."""
    newest: dict[bytes, float] = {}
    for crl in endorsements.crls:
        newest[crl.issuer] = max(newest.get(crl.issuer, 0.0), crl.next_update.timestamp())
    found = {"crl": min(newest.values())} if newest else {}
    if endorsements.certificates:
        found["certificate"] = min(one.not_after.timestamp() for one in endorsements.certificates)
    return found


def _tried(name: str, check: Callable[[], None]) -> Part:
    try:
        check()
    except AdytonError as error:
        return Part(name, ready=False, why=f"{error.code}: {error.message}")
    except Exception:  # noqa: BLE001 -- what cannot even be asked is not ready, and that is the answer
        _LOG.exception("whether %s is ready cannot be found out", name)
        return Part(name, ready=False, why="failed: the broker's log has the cause")
    return Part(name, ready=True)
