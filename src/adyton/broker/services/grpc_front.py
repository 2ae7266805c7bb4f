"""The same services over gRPC: Confidential Containers' attestation and reference value services, and health checks.

A pool of threads takes calls and hands them to the event loop that owns the store's verifier; messages, metadata, calls at
once, the wait for a message and the work on it are bounded. A call that is over its deadline gets ``DEADLINE_EXCEEDED``, one
that finds the pool full ``RESOURCE_EXHAUSTED``, whatever cannot be read ``ABORTED`` as there (``faults``).

On the wire every method has one message each way. They are served as streams of requests all the same, since the library
waits for the message of a plain method in a thread and without end.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

from adyton.broker.services import faults
from adyton.broker.services.changes import Caller, Change, Changes
from adyton.broker.services.evaluation import Evaluator
from adyton.errors import AdytonError, ConfigError, MalformedRequest
from adyton.protocol import attestation_service as wire

try:
    import grpc
    from google.protobuf.message import DecodeError

    from adyton.protocol.grpc import attestation_pb2, health_pb2, reference_pb2
except ImportError as error:  # an extra: whoever speaks gRPC installs it
    raise ConfigError(
        "gRPC needs packages that are not installed",
        code="extra_missing",
        field="grpc",
        hint='pip install "adyton[grpc]"',
    ) from error

ATTESTATION = "attestation.AttestationService"
REFERENCE = "reference.ReferenceValueProviderService"
HEALTH = "grpc.health.v1.Health"
MAX_CALLS = 64  # each has a thread, so that those who are slow to send keep nobody else waiting
MAX_CALLS_OF_A_CONNECTION = 32
MAX_METADATA = 16 * 1024
MESSAGE_SECONDS = 10.0
CALL_SECONDS = 30.0
HANDSHAKE_SECONDS = 10.0
IDLE_SECONDS = 300.0
_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_Handler = Callable[[Any, "grpc.ServicerContext"], Any]


class GrpcFront:
    """Handlers of the calls. ``loop`` runs what must be awaited; ``evaluator`` is ``None`` for the reference values alone."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        evaluator: Evaluator | None,
        changes: Changes,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._loop = loop
        self._evaluator = evaluator
        self._changes = changes
        self._clock = clock

    def services(self) -> dict[str, dict[str, tuple[_Handler, Any, Any]]]:
        """Service -> method -> handler, message in, message out."""
        found: dict[str, dict[str, tuple[_Handler, Any, Any]]] = {
            HEALTH: {"Check": (self._health, health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse)},
            REFERENCE: {
                "QueryReferenceValue": (
                    self._query,
                    reference_pb2.ReferenceValueQueryRequest,
                    reference_pb2.ReferenceValueQueryResponse,
                ),
                "RegisterReferenceValue": (
                    self._register,
                    reference_pb2.ReferenceValueRegisterRequest,
                    reference_pb2.ReferenceValueRegisterResponse,
                ),
            },
        }
        if self._evaluator is not None:
            found[ATTESTATION] = {
                "AttestationEvaluate": (
                    self._evaluate,
                    attestation_pb2.AttestationRequest,
                    attestation_pb2.AttestationResponse,
                ),
                "SetAttestationPolicy": (
                    self._set_policy,
                    attestation_pb2.SetPolicyRequest,
                    attestation_pb2.SetPolicyResponse,
                ),
                "GetAttestationChallenge": (
                    self._challenge,
                    attestation_pb2.ChallengeRequest,
                    attestation_pb2.ChallengeResponse,
                ),
            }
        return found

    def _evaluate(self, asked: Any, context: grpc.ServicerContext) -> Any:
        assert self._evaluator is not None  # noqa: S101 -- else the service is not there
        evaluation = wire.read([_individual(one) for one in asked.verification_requests], list(asked.policy_ids))
        token = self._awaited(self._evaluator.evaluate(evaluation, self._clock(), peer=context.peer()), context)
        return attestation_pb2.AttestationResponse(attestation_token=token)

    def _challenge(self, asked: Any, context: grpc.ServicerContext) -> Any:
        assert self._evaluator is not None  # noqa: S101 -- as above
        inner = dict(asked.inner)
        if "tee" not in inner or "tee_params" not in inner:
            raise MalformedRequest("tee and tee_params are needed", code="body_malformed", field="inner")
        evaluator = self._evaluator

        async def made() -> str:
            return evaluator.challenge(inner["tee"], self._clock())

        return attestation_pb2.ChallengeResponse(attestation_challenge=self._awaited(made(), context))

    def _set_policy(self, asked: Any, context: grpc.ServicerContext) -> Any:
        caller, now = _caller(context), self._now()
        change = self._changes.set_policy(asked.policy_id, asked.policy, caller, now)
        self._recorded(change, caller, now)
        return attestation_pb2.SetPolicyResponse()

    def _register(self, asked: Any, context: grpc.ServicerContext) -> Any:
        caller, now = _caller(context), self._now()
        change = self._changes.register(asked.message, caller, now)
        self._recorded(change, caller, now)
        return reference_pb2.ReferenceValueRegisterResponse()

    def _query(self, asked: Any, context: grpc.ServicerContext) -> Any:
        found = self._changes.query(asked.reference_value_id, self._now())
        if found is None:
            return reference_pb2.ReferenceValueQueryResponse()
        return reference_pb2.ReferenceValueQueryResponse(reference_value_results=found)

    def _health(self, asked: Any, context: grpc.ServicerContext) -> Any:
        status = health_pb2.HealthCheckResponse.ServingStatus
        known = asked.service == "" or asked.service in self.services()
        return health_pb2.HealthCheckResponse(status=status.SERVING if known else status.SERVICE_UNKNOWN)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def first(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """The message of a call; one that does not come in time ends the call, as ``grpc.RpcError``."""
        waiting = [context]

        def late() -> None:
            for one in waiting:
                one.cancel()  # type: ignore[no-untyped-call]  # the stubs'

        self._loop.call_soon_threadsafe(self._loop.call_later, MESSAGE_SECONDS, late)
        try:
            return next(messages)
        except StopIteration:
            raise MalformedRequest("the call has no message", code="body_malformed", field="message") from None
        finally:
            waiting.clear()

    def _recorded(self, change: Change, caller: Caller, now: datetime) -> None:
        """Write down what was changed, whatever deadline the caller set: it was done."""
        work = self._changes.record(change, caller, now)
        asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    def _awaited(self, work: Coroutine[Any, Any, _T], context: grpc.ServicerContext) -> _T:
        # None where the client set no deadline, whatever the stubs say
        remaining: float | None = context.time_remaining()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(CALL_SECONDS if remaining is None else min(CALL_SECONDS, remaining))
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise


def server(
    front: GrpcFront, address: str, credentials: grpc.ServerCredentials | None, max_message: int
) -> tuple[Any, int]:
    """A server that listens on ``address`` (started by the caller), and its port; ``ConfigError`` if it cannot."""
    pool = concurrent.futures.ThreadPoolExecutor(MAX_CALLS, thread_name_prefix="grpc")
    made = grpc.server(
        pool,
        options=[
            ("grpc.max_receive_message_length", max_message),
            ("grpc.max_send_message_length", max_message),
            ("grpc.max_metadata_size", MAX_METADATA),
            ("grpc.max_concurrent_streams", MAX_CALLS_OF_A_CONNECTION),
            ("grpc.server_handshake_timeout_ms", int(1000 * HANDSHAKE_SECONDS)),
            ("grpc.max_connection_idle_ms", int(1000 * IDLE_SECONDS)),
            ("grpc.so_reuseport", 0),
        ],
        maximum_concurrent_rpcs=MAX_CALLS,
    )
    for name, methods in front.services().items():
        handlers = {
            method: grpc.stream_unary_rpc_method_handler(
                _guarded(front, handler, given),
                response_serializer=answer.SerializeToString,
            )
            for method, (handler, given, answer) in methods.items()
        }
        made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    try:
        port = made.add_insecure_port(address) if credentials is None else made.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise _unlistened(address) from error
    if not port:
        raise _unlistened(address)
    return made, port


def credentials(certificate: bytes, private_key: bytes, client_ca: bytes | None) -> grpc.ServerCredentials:
    """TLS; with ``client_ca`` only for clients that it certifies."""
    return grpc.ssl_server_credentials(
        [(private_key, certificate)], root_certificates=client_ca, require_client_auth=client_ca is not None
    )


def _guarded(front: GrpcFront, handler: _Handler, given: Any) -> _Handler:
    def call(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        began = time.perf_counter()
        try:
            return handler(_read(given, front.first(messages, context)), context)
        except grpc.RpcError as error:  # who went away, or sent nothing
            # The library keeps it with the call: its frames would keep the call, and so the connection's place for it.
            error.__traceback__ = None
            status, said = grpc.StatusCode.CANCELLED, "there was no message"
        except AdytonError as error:
            if isinstance(error, faults.OURS):
                _LOG.warning("cannot answer: %s [%s]", error.message, error.code)
            name = faults.statuses(error)[0]
            _LOG.info("%s refused [%s] after %.1f ms", name, error.code, (time.perf_counter() - began) * 1000)
            context.set_trailing_metadata(((faults.METADATA, error.code),))
            status, said = grpc.StatusCode[name], faults.text(error)
        except concurrent.futures.TimeoutError:
            status, said = grpc.StatusCode.DEADLINE_EXCEEDED, "this took too long [deadline]"
        except Exception:  # noqa: BLE001 -- the caller must get an answer, and no traceback
            _LOG.exception("a handler failed")
            status, said = grpc.StatusCode.INTERNAL, "the service failed; its log has the cause [failed]"
        # An answer of nothing would do, and cost a traceback in the log for each that is refused.
        return context.abort(status, said)

    return call


def _read(given: Any, message: bytes) -> Any:
    try:
        return given.FromString(message)
    except DecodeError as error:
        raise MalformedRequest("the message cannot be read", code="body_malformed", field="message") from error


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


def _caller(context: grpc.ServicerContext) -> Caller:
    values = [value for name, value in context.invocation_metadata() if name == "authorization"]
    authorization = values[-1] if values else None
    raw = authorization.encode("latin-1", "replace") if isinstance(authorization, str) else authorization
    return Caller(context.peer()[:80], raw, bool(context.peer_identities()))


def _unlistened(address: str) -> ConfigError:
    return ConfigError(
        "cannot listen there", code="listen_failed", field="grpc", got=address, hint="port 0 takes a free one"
    )
