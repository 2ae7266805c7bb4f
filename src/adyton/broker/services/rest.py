"""The attestation service over REST, as Confidential Containers' ``restful-as`` (kbs-protocol 2.2).

``POST /attestation``, ``POST|GET /policy``, ``GET|DELETE /policy/<id>`` (ours), ``POST /challenge``,
``GET /.well-known/jwks.json``, ``GET /healthz``. Answers are texts; a failure is 500 with its reasons, as there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from urllib.parse import unquote

import msgspec

from adyton.broker.door.answer import Answer
from adyton.broker.door.connection import HttpRequest
from adyton.broker.running.journal import Journal
from adyton.broker.services import faults
from adyton.broker.services.changes import Caller, Changes
from adyton.broker.services.evaluation import Evaluator
from adyton.errors import AdytonError
from adyton.protocol import attestation_service as wire

_LOG = logging.getLogger(__name__)
_TEXT = b"text/plain; charset=utf-8"
NO_PATH = faults.plain(404, "", "no_path")
NO_METHOD = faults.plain(405, "", "no_method")
OVERLOADED = faults.plain(429, "too many requests; try again", "overloaded")


class RestFront:
    """The application that connections call. ``clock`` gives Unix seconds; ``certified``: clients showed certificates."""

    def __init__(
        self,
        evaluator: Evaluator,
        changes: Changes,
        *,
        clock: Callable[[], float],
        journal: Journal,
        certified: bool,
        max_in_flight: int,
    ) -> None:
        self._evaluator = evaluator
        self._changes = changes
        self._clock = clock
        self._journal = journal
        self._certified = certified
        self._max_in_flight = max_in_flight
        self._in_flight = 0

    def __call__(self, request: HttpRequest) -> Answer | Awaitable[Answer]:
        """The answer, at once where nothing must be waited for."""
        began = time.perf_counter()
        parts = request.target.partition(b"?")[0].decode("latin-1").split("/")[1:]
        match (request.method, *parts):
            case ("GET" | "HEAD", "healthz"):
                return Answer(200, b"", _TEXT)
            case ("GET" | "HEAD", ".well-known", "jwks.json"):
                return Answer(200, self._evaluator.jwks)
            case ("POST", "attestation" | "challenge" | "policy") | ("GET", "policy") | ("GET" | "DELETE", "policy", _):
                if self._in_flight >= self._max_in_flight:
                    return OVERLOADED
                return self._counted(request, parts, began)
            case (_, "attestation" | "challenge" | "policy" | "healthz") | (_, "policy", _):
                return NO_METHOD
        return NO_PATH

    async def _counted(self, request: HttpRequest, parts: list[str], began: float) -> Answer:
        self._in_flight += 1
        try:
            answer = await self._answer(request, parts)
        except AdytonError as error:
            if isinstance(error, faults.OURS):
                _LOG.warning("cannot answer: %s [%s]", error.message, error.code)
            answer = faults.answer(error)
        except Exception:  # noqa: BLE001 -- the connection must get an answer, and the caller no traceback
            _LOG.exception("a handler failed")
            answer = faults.plain(500, "An internal error occured: \n0: its log has the cause [failed]", "failed")
        finally:
            self._in_flight -= 1
        self._journal.request(request, answer, began)
        return answer

    async def _answer(self, request: HttpRequest, parts: list[str]) -> Answer:
        now = self._clock()
        caller = Caller(request.peer, request.headers.get(b"authorization"), self._certified)
        at = datetime.fromtimestamp(now, UTC)
        match (request.method, *parts):
            case ("POST", "attestation"):
                token = await self._evaluator.evaluate(wire.parse(request.body), now, peer=request.peer)
                return Answer(200, token.encode(), _TEXT)
            case ("POST", "challenge"):
                asked = wire.unambiguous(request.body, wire.ChallengeBody)
                return Answer(200, self._evaluator.challenge(asked.tee, now).encode(), _TEXT)
            case ("GET", "policy"):
                found = await asyncio.to_thread(self._changes.policies)
                return Answer(200, msgspec.json.encode(found))
            case ("GET", "policy", name):
                text = await asyncio.to_thread(self._changes.policy, unquote(name), caller, at)
                return Answer(200, text.encode(), _TEXT)
            case ("DELETE", "policy", name):
                change = await asyncio.to_thread(self._changes.delete_policy, unquote(name), caller, at)
            case _:
                body = wire.unambiguous(request.body, wire.PolicyBody)
                change = await asyncio.to_thread(self._changes.set_policy, body.policy_id, body.policy, caller, at)
        await self._changes.record(change, caller, at)
        return Answer(200, b"", _TEXT)
