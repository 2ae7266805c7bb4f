"""The attestation service over REST, as Confidential Containers' ``restful-as`` (kbs-protocol 2.2).

``POST /attestation``, ``POST|GET /policy``, ``GET|DELETE /policy/<id>`` (ours), ``POST /challenge``,
``GET /.well-known/jwks.json``, ``GET /healthz``, ``GET /readyz``. Answers are texts; a failure is 500 with its reasons, as
there. The reference value service has no port for it, and answers here only how it is, to collectors of metrics.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from urllib.parse import unquote

import msgspec

from adyton.broker.door.answer import Answer
from adyton.broker.door.connection import HttpRequest
from adyton.broker.running.readiness import Readiness
from adyton.broker.services import faults
from adyton.broker.services.changes import Caller, Changes
from adyton.broker.services.evaluation import Evaluator
from adyton.broker.services.passage import Passage, Routes
from adyton.protocol import attestation_service as wire

_TEXT = b"text/plain; charset=utf-8"
NO_PATH = faults.plain(404, "", "no_path")
NO_METHOD = faults.plain(405, "", "no_method")


class RestFront:
    """The application that connections call. ``clock`` gives Unix seconds; ``certified``: clients showed certificates."""

    def __init__(
        self,
        evaluator: Evaluator | None,
        changes: Changes,
        readiness: Readiness,
        passage: Passage,
        routes: Routes,
        *,
        clock: Callable[[], float],
        certified: bool,
    ) -> None:
        self._evaluator = evaluator
        self._changes = changes
        self._readiness = readiness
        self._passage = passage
        self._routes = routes
        self._clock = clock
        self._certified = certified

    def __call__(self, request: HttpRequest) -> Answer | Awaitable[Answer]:
        """The answer, at once where nothing must be waited for."""
        parts = request.target.partition(b"?")[0].decode("latin-1").split("/")[1:]
        routes = self._routes
        match (request.method, *parts):
            case ("GET" | "HEAD", "healthz"):
                return self._passage.note(request, routes.health, Answer(200, b"", _TEXT))
            case ("GET" | "HEAD", "readyz"):
                return self._ready(request)
        if self._evaluator is None:
            return NO_PATH
        match (request.method, *parts):
            case ("GET" | "HEAD", ".well-known", "jwks.json"):
                return self._passage.note(request, routes.keys, Answer(200, self._evaluator.jwks))
            case ("POST", "attestation"):
                return self._passage(request, routes.evaluation, partial(self._evaluate, self._evaluator, request))
            case ("POST", "challenge"):
                return self._passage(request, routes.challenge, partial(self._challenge, self._evaluator, request))
            case ("GET" | "POST", "policy") | ("GET" | "DELETE", "policy", _):
                return self._passage(request, routes.policies, partial(self._policy, request, parts))
            case (_, "attestation" | "challenge" | "policy" | "healthz" | "readyz") | (_, "policy", _):
                return NO_METHOD
        return NO_PATH

    async def _ready(self, request: HttpRequest) -> Answer:
        answer = await self._readiness.answer(request, partial(self._may_know, self._caller(request)))
        return self._passage.note(request, self._routes.readiness, answer)

    async def _may_know(self, caller: Caller) -> bool:
        return await asyncio.to_thread(self._changes.known, caller, datetime.fromtimestamp(self._clock(), UTC))

    async def _evaluate(self, evaluator: Evaluator, request: HttpRequest) -> Answer:
        token = await evaluator.evaluate(wire.parse(request.body), self._clock(), peer=request.peer)
        return Answer(200, token.encode(), _TEXT)

    async def _challenge(self, evaluator: Evaluator, request: HttpRequest) -> Answer:
        asked = wire.unambiguous(request.body, wire.ChallengeBody)
        return Answer(200, evaluator.challenge(asked.tee, self._clock()).encode(), _TEXT)

    async def _policy(self, request: HttpRequest, parts: list[str]) -> Answer:
        caller, at = self._caller(request), datetime.fromtimestamp(self._clock(), UTC)
        changes = self._changes
        change: Callable[[], None]
        match (request.method, *parts[1:]):
            case ("GET",):
                return Answer(200, msgspec.json.encode(await asyncio.to_thread(changes.policies)))
            case ("GET", name):
                text = await asyncio.to_thread(changes.policy, unquote(name), caller, at)
                return Answer(200, text.encode(), _TEXT)
            case ("DELETE", name):
                change = partial(changes.delete_policy, unquote(name), caller, at)
            case _:
                body = wire.unambiguous(request.body, wire.PolicyBody)
                change = partial(changes.set_policy, body.policy_id, body.policy, caller, at)
        await asyncio.to_thread(change)  # which goes on to its end, whoever still waits
        return Answer(200, b"", _TEXT)

    def _caller(self, request: HttpRequest) -> Caller:
        return Caller(request.peer, request.headers.get(b"authorization"), self._certified)
