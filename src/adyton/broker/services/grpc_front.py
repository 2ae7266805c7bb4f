"""The same services over gRPC: Confidential Containers' attestation and reference value services, and health checks.

An application like that of REST: a request whose target is the method and whose body is the message, on the event loop
that owns the verifier. What carries it is ``grpc_port``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError

from adyton.broker.door.answer import Answer
from adyton.broker.door.connection import HttpRequest
from adyton.broker.door.paths import Route
from adyton.broker.running.readiness import Readiness
from adyton.broker.services import faults
from adyton.broker.services.changes import Caller, Changes
from adyton.broker.services.evaluation import Evaluator
from adyton.broker.services.faults import Refused
from adyton.broker.services.passage import CALL_SECONDS, Passage, Routes
from adyton.errors import AdytonError, MalformedRequest, NotFound
from adyton.protocol import attestation_service as wire
from adyton.protocol.grpc import attestation_pb2, health_pb2, reference_pb2

ATTESTATION = "attestation.AttestationService"
REFERENCE = "reference.ReferenceValueProviderService"
HEALTH = "grpc.health.v1.Health"
_Handler: TypeAlias = Callable[["GrpcRequest", Any], Awaitable[Any]]


class GrpcRequest(HttpRequest):
    """A call. ``seconds``: how long its caller waits; ``certified``: the caller showed a certificate."""

    seconds: float = CALL_SECONDS
    certified: bool = False


class GrpcFront:
    """Answers calls; ``evaluator`` is ``None`` for the reference values alone. ``clock`` gives Unix seconds."""

    def __init__(
        self,
        evaluator: Evaluator | None,
        changes: Changes,
        readiness: Readiness,
        passage: Passage,
        routes: Routes,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._evaluator = evaluator
        self._changes = changes
        self._readiness = readiness
        self._passage = passage
        self._clock = clock
        self._calls: dict[bytes, tuple[Route, _Handler, Any, Callable[[AdytonError], Refused]]] = {
            _target(HEALTH, "Check"): (
                *(routes.readiness, self._health, health_pb2.HealthCheckRequest),
                faults.answer,
            ),
            _target(REFERENCE, "QueryReferenceValue"): (
                *(routes.references, self._query, reference_pb2.ReferenceValueQueryRequest),
                faults.answer,
            ),
            _target(REFERENCE, "RegisterReferenceValue"): (
                *(routes.references, self._register, reference_pb2.ReferenceValueRegisterRequest),
                faults.registering,
            ),
        }
        if evaluator is not None:
            self._calls |= {
                _target(ATTESTATION, "AttestationEvaluate"): (
                    *(routes.evaluation, partial(self._evaluate, evaluator), attestation_pb2.AttestationRequest),
                    faults.answer,
                ),
                _target(ATTESTATION, "GetAttestationChallenge"): (
                    *(routes.challenge, partial(self._challenge, evaluator), attestation_pb2.ChallengeRequest),
                    faults.answer,
                ),
                _target(ATTESTATION, "SetAttestationPolicy"): (
                    *(routes.policies, self._set_policy, attestation_pb2.SetPolicyRequest),
                    faults.answer,
                ),
            }

    @property
    def methods(self) -> dict[str, list[str]]:
        """Service -> its methods."""
        found: dict[str, list[str]] = {}
        for target in self._calls:
            service, _, method = target.decode()[1:].partition("/")
            found.setdefault(service, []).append(method)
        return found

    def __call__(self, request: HttpRequest) -> Awaitable[Answer]:
        """The answer to a call of one of ``methods``; its body is a message."""
        assert isinstance(request, GrpcRequest)  # noqa: S101 -- what the port makes
        where, handler, kind, refusal = self._calls[request.target]
        work = partial(_answered, handler, kind, request)
        if handler == self._health:
            return self._unlimited(request, where, work)
        return self._passage(request, where, work, refusal, seconds=request.seconds)

    async def _unlimited(self, request: HttpRequest, where: Route, work: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            answer = await work()
        except AdytonError as error:
            answer = faults.answer(error)
        return self._passage.note(request, where, answer)

    async def _evaluate(self, evaluator: Evaluator, request: GrpcRequest, asked: Any) -> Any:
        evaluation = wire.read([_individual(one) for one in asked.verification_requests], list(asked.policy_ids))
        token = await evaluator.evaluate(evaluation, self._clock(), peer=request.peer)
        return attestation_pb2.AttestationResponse(attestation_token=token)

    async def _challenge(self, evaluator: Evaluator, request: GrpcRequest, asked: Any) -> Any:
        inner = dict(asked.inner)
        if "tee" not in inner or "tee_params" not in inner:
            raise MalformedRequest("tee and tee_params are needed", code="body_malformed", field="inner")
        challenge = evaluator.challenge(inner["tee"], self._clock())
        return attestation_pb2.ChallengeResponse(attestation_challenge=challenge)

    async def _set_policy(self, request: GrpcRequest, asked: Any) -> Any:
        await self._changed(request, partial(self._changes.set_policy, asked.policy_id, asked.policy))
        return attestation_pb2.SetPolicyResponse()

    async def _register(self, request: GrpcRequest, asked: Any) -> Any:
        await self._changed(request, partial(self._changes.register, asked.message))
        return reference_pb2.ReferenceValueRegisterResponse()

    async def _changed(self, request: GrpcRequest, change: Callable[[Caller, datetime], None]) -> None:
        caller, now = Caller(request.peer, request.headers.get(b"authorization"), request.certified), self._now()
        await asyncio.to_thread(change, caller, now)  # which goes on to its end, whoever still waits

    async def _query(self, request: GrpcRequest, asked: Any) -> Any:
        found = await asyncio.to_thread(self._changes.query, asked.reference_value_id, self._now())
        if found is None:
            return reference_pb2.ReferenceValueQueryResponse()
        return reference_pb2.ReferenceValueQueryResponse(reference_value_results=found)

    async def _health(self, request: GrpcRequest, asked: Any) -> Any:
        if asked.service and asked.service not in self.methods:
            raise NotFound("there is no such service here", code="health_service_unknown", field="service")
        ready = all(part.ready for part in await self._readiness.parts())
        status = health_pb2.HealthCheckResponse.ServingStatus
        return health_pb2.HealthCheckResponse(status=status.SERVING if ready else status.NOT_SERVING)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def _target(service: str, method: str) -> bytes:
    return f"/{service}/{method}".encode()


async def _answered(handler: _Handler, kind: Any, request: GrpcRequest) -> Answer:
    try:
        asked = kind.FromString(request.body)
    except DecodeError as error:
        raise MalformedRequest("the message cannot be read", code="body_malformed", field="message") from error
    return Answer(200, (await handler(request, asked)).SerializeToString())


def _individual(one: Any) -> wire.Individual:
    runtime, given = None, None
    match one.WhichOneof("runtime_data"):
        case "raw_runtime_data":
            runtime = wire.RuntimeData(raw=one.raw_runtime_data)
        case "structured_runtime_data":
            runtime = wire.RuntimeData(structured=wire.structured(one.structured_runtime_data))
    match one.WhichOneof("init_data"):
        case "init_data_digest":
            given = wire.InitDataGiven(init_data_digest=one.init_data_digest)
        case "init_data_toml":
            given = wire.InitDataGiven(init_data_toml=one.init_data_toml)
    return wire.Individual(one.tee, one.evidence, runtime, given, one.runtime_data_hash_algorithm or None)
