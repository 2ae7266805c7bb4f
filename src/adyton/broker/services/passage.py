"""What every call passes, whichever port it came by: how many at once, how often, how long, the log line and the numbers.

Over REST and over gRPC a call is an ``HttpRequest`` with a route, so the broker's rates, log lines, numbers and traces
count both. The areas are the broker's: challenges are ``auth``, evaluations ``attest``, policies and reference values
``kbs`` (which rates call ``admin``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from adyton.broker.door.answer import Answer
from adyton.broker.door.connection import HttpRequest
from adyton.broker.door.paths import Route
from adyton.broker.door.rates import Rates
from adyton.broker.running.journal import Journal
from adyton.broker.services import faults
from adyton.broker.services.faults import Refused
from adyton.errors import AdytonError, TooMany, Unavailable

CALL_SECONDS = 30.0
_LOG = logging.getLogger(__name__)


class Routes:
    """Where calls lead, for one tenant."""

    def __init__(self, tenant: str) -> None:
        self.evaluation = Route(tenant, "kbs", ("attest",), "")
        self.challenge = Route(tenant, "kbs", ("auth",), "")
        self.policies = Route(tenant, "kbs", ("attestation-policy",), "")
        self.references = Route(tenant, "kbs", ("reference-value",), "")
        self.health = Route(tenant, "top", ("healthz",), "")
        self.readiness = Route(tenant, "top", ("readyz",), "")
        self.keys = Route(tenant, "top", (".well-known",), "")


class Passage:
    """Of both ports of a service. ``rates`` and ``max_in_flight`` may be replaced."""

    def __init__(self, journal: Journal, rates: Rates | None, max_in_flight: int) -> None:
        self._journal = journal
        self.rates = rates
        self.max_in_flight = max_in_flight
        self.in_flight = 0

    async def __call__(
        self,
        request: HttpRequest,
        where: Route,
        work: Callable[[], Awaitable[Answer]],
        refusal: Callable[[AdytonError], Refused] = faults.answer,
        *,
        seconds: float = CALL_SECONDS,
    ) -> Answer:
        """The answer of ``work``, or what became of its error. ``seconds``: what the caller gives it, at most ours."""
        began = time.perf_counter()
        request.where = where
        answer: Answer | None = self._turned_away(where, request.peer, began)
        if answer is None:
            self.in_flight += 1
            try:
                async with asyncio.timeout(min(seconds, CALL_SECONDS)):
                    answer = await work()
            except TimeoutError:
                answer = faults.answer(Unavailable("this took too long", code="deadline"))
            except AdytonError as error:
                if isinstance(error, faults.OURS):
                    _LOG.warning("cannot answer: %s [%s]", error.message, error.code)
                answer = refusal(error)
            except Exception:  # noqa: BLE001 -- the caller must get an answer, and no traceback
                _LOG.exception("a handler failed")
                answer = faults.answer(Unavailable("the service failed; its log has the cause", code="failed"))
            finally:
                self.in_flight -= 1
        self._journal.request(request, answer, began)
        return answer

    def note(self, request: HttpRequest, where: Route, answer: Answer) -> Answer:
        """``answer``, which cost nothing, noted."""
        request.where = where
        self._journal.request(request, answer, time.perf_counter())
        return answer

    def _turned_away(self, where: Route, peer: str, now: float) -> Refused | None:
        if self.in_flight >= self.max_in_flight:
            return faults.answer(TooMany("too many requests; try again", code="overloaded"))
        if self.rates is not None and (wait := self.rates.wait(where, peer, now)):
            return faults.answer(TooMany("too often; ask again later", code="rate", retry_after=wait))
        return None
