"""Answers owners who ask what this broker is (``protocol.broker_attestation``), so that asking cannot exhaust the TEE.

One piece of evidence answers everybody who came while the one before was being made, and at most one begins every
``GAP_SECONDS`` in each worker. Who would have to wait for more than the next one is told to come again, and one address
asks a few times a minute.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec

from adyton.broker.door import refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.connection import HttpRequest
from adyton.broker.door.paths import Route
from adyton.broker.door.rates import Rates
from adyton.errors import AdytonError, MalformedRequest
from adyton.protocol import broker_attestation as wire
from adyton.protocol.broker_attestation import Facts, Proof
from adyton.protocol.kbs_errors import Variant
from adyton.rats import binding
from adyton.rats.ports import Attester

GAP_SECONDS = 1.0
ANSWER_SECONDS = 40.0
PER_ADDRESS = "attest=0.2:10"
_AS_ATTEST = Route("default", "kbs", ("attest",), "")
_BUSY = refusals.plain(429, Variant.HTTP_FAILED, "too many ask what this broker is", "attest_too_many", retry_after=3)
NOT_ATTESTED = refusals.plain(
    404,
    Variant.PLUGIN_NOT_FOUND,
    "this broker has no attester: nothing proves what it is [broker_not_attested]",
    "broker_not_attested",
)
_LOG = logging.getLogger(__name__)


class Desk:
    """Of one worker, on its event loop. ``facts`` gives what is true now, and the JWK set's bytes."""

    def __init__(
        self,
        attester: Attester,
        facts: Callable[[], tuple[Facts, bytes]],
        *,
        clock: Callable[[], float] = time.monotonic,
        gap: float = GAP_SECONDS,
    ) -> None:
        self._attester = attester
        self._facts = facts
        self._clock = clock
        self._gap = gap
        self._rates = Rates((), (PER_ADDRESS,))
        self._waiting: list[tuple[bytes, asyncio.Future[bytes]]] = []
        self._round: asyncio.Task[None] | None = None
        self._next = 0.0

    async def answer(self, request: HttpRequest) -> Answer:
        """A proof over the challenge in ``request``; never raises but for cancellation."""
        try:
            nonce = wire.parse_challenge(request.body).nonce
            if wait := self._rates.wait(_AS_ATTEST, request.peer, self._clock()):
                return refusals.plain(429, Variant.HTTP_FAILED, "too often", "attest_too_many", retry_after=wait)
            if len(self._waiting) >= wire.MAX_NONCES:
                return _BUSY
            waiting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            self._waiting.append((nonce, waiting))
            if self._round is None:
                self._round = asyncio.ensure_future(self._rounds())
            return Answer(200, await asyncio.wait_for(waiting, ANSWER_SECONDS))
        except MalformedRequest as error:
            return refusals.plain(400, Variant.SERDE_ERROR, f"{error.message} [{error.code}]", error.code)
        except AdytonError as error:
            _LOG.error("this broker cannot prove itself: %s [%s]", error.message, error.code)
            return _failed(error.code)
        except TimeoutError:
            return _failed("attester_busy")

    def close(self) -> None:
        """Begin no more."""
        if self._round is not None:
            self._round.cancel()

    async def _rounds(self) -> None:
        """Evidence after evidence, for as long as somebody waits."""
        try:
            while self._waiting:
                await asyncio.sleep(max(0.0, self._next - self._clock()))
                self._next = self._clock() + self._gap
                asked, self._waiting = self._waiting, []
                asked = [(nonce, one) for nonce, one in asked if not one.done()]  # who went away needs no evidence
                if asked:
                    await self._one(asked)
        finally:
            self._round = None

    async def _one(self, asked: list[tuple[bytes, asyncio.Future[bytes]]]) -> None:
        try:
            body = await asyncio.to_thread(self._prove, [nonce for nonce, _ in asked])
        except asyncio.CancelledError:
            for _, one in asked:
                one.cancel()
            raise
        except Exception as error:  # noqa: BLE001 -- each who waits is told
            if not isinstance(error, AdytonError):
                _LOG.exception("this broker cannot prove itself")
            told = error if isinstance(error, AdytonError) else AdytonError("failed", code="attester_failed")
            for _, one in asked:
                if not one.done():
                    one.set_exception(told)
            return
        for _, one in asked:
            if not one.done():
                one.set_result(body)

    def _prove(self, nonces: list[bytes]) -> bytes:
        facts, jwks = self._facts()
        evidence = self._attester.collect(binding.report_data(wire.bound(facts, nonces)))
        raw = msgspec.Raw(msgspec.json.encode(evidence.primary))
        return wire.write(Proof(wire.VERSION, facts, nonces, jwks, evidence.tee, raw))


def _failed(code: str) -> Answer:
    return refusals.plain(
        503, Variant.PLUGIN_INTERNAL_ERROR, f"no evidence could be made [{code}]", code, retry_after=3
    )
