"""A port that speaks gRPC: what clients may cost, certificates that can be replaced, calls handed to an application.

A pool of threads takes calls and waits for the event loop that answers them. Bounded are messages, metadata, connections,
how long one of them lasts, calls of a connection and of all, the time until a message comes and until its answer is
taken, and how often a client pings. Of the calls that only wait for their clients (their message did not come, or their
answer is not taken) half of all may; of more, the oldest are ended. So however many hold their peace, others are served.

On the wire every method has one message each way. They are served as streams of requests all the same, since the library
waits for the message of a plain method in a thread and without end.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from typing import Any
from urllib.parse import unquote

from adyton.broker.door.answer import Answer
from adyton.broker.door.tls import Identity
from adyton.errors import AdytonError, ConfigError, MalformedRequest

try:
    import grpc

    from adyton.broker.services import faults
    from adyton.broker.services.grpc_front import GrpcFront, GrpcRequest
    from adyton.broker.services.passage import CALL_SECONDS
except ImportError as error:  # an extra: whoever speaks gRPC installs it
    raise ConfigError(
        "gRPC needs packages that are not installed",
        code="extra_missing",
        field="grpc",
        hint='pip install "adyton[grpc]"',
    ) from error

MAX_CALLS = 64  # each has a thread
MAX_CALLS_OF_A_CONNECTION = 100  # fewer would refuse honest ones, says RFC 9113, 5.1.2
MAX_WAITING = MAX_CALLS // 2
MAX_METADATA = 16 * 1024
CLIENT_SECONDS = 10.0
HANDSHAKE_SECONDS = 10.0
IDLE_SECONDS = 300.0
CONNECTION_SECONDS = 3600.0
PING_SECONDS = 60.0
JUST_SECONDS = 0.25  # longer than an honest client takes, whose message comes with its call
_LOG = logging.getLogger(__name__)


class Waiting:
    """The calls that wait for their clients, oldest first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._numbers = count()
        self._calls: dict[int, tuple[float, grpc.ServicerContext]] = {}

    def begin(self, context: grpc.ServicerContext) -> int:
        """Wait. What comes back is for ``end``."""
        with self._lock:
            number = next(self._numbers)
            self._calls[number] = self._clock(), context
            over = len(self._calls) > MAX_WAITING
        if over:
            self.clear()
        return number

    def end(self, number: int) -> None:
        """It came, or went."""
        with self._lock:
            self._calls.pop(number, None)

    def clear(self) -> None:
        """End those that waited too long, and of too many the oldest: but who has just begun."""
        now, gone = self._clock(), []
        with self._lock:
            for number, (since, context) in list(self._calls.items()):
                allowed = JUST_SECONDS if len(self._calls) > MAX_WAITING else CLIENT_SECONDS
                if now - since < allowed:
                    break
                del self._calls[number]
                gone.append(context)
        for context in gone:
            context.cancel()  # type: ignore[no-untyped-call]  # the stubs'

    async def sweep(self) -> None:
        """``clear`` every so often, until cancelled."""
        while True:
            await asyncio.sleep(JUST_SECONDS)
            self.clear()


class GrpcPort:
    """``application`` answers on ``loop``; ``identity`` is asked at each handshake, ``None`` for no TLS."""

    def __init__(
        self,
        front: GrpcFront,
        application: Callable[[GrpcRequest], Answer | Awaitable[Answer]],
        loop: asyncio.AbstractEventLoop,
        identity: Callable[[], Identity | None],
        *,
        max_message: int,
        max_connections: int,
    ) -> None:
        self._application = application
        self._loop = loop
        self._identity = identity
        self._known: Identity | None = None
        self.waiting = Waiting(loop.time)
        self._server = grpc.server(
            concurrent.futures.ThreadPoolExecutor(MAX_CALLS, thread_name_prefix="grpc"),
            options=_options(max_message, max_connections),
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        for service, methods in front.methods.items():
            handlers = {
                method: grpc.stream_unary_rpc_method_handler(self._handler(f"/{service}/{method}".encode()))
                for method in methods
            }
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    def open(self, host: str, port: int) -> int:
        """Answer on this address; the port is given back. ``ConfigError`` if that cannot be."""
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._known = identity = self._identity()
        try:
            if identity is None:
                taken = self._server.add_insecure_port(where)
            else:
                credentials = grpc.dynamic_ssl_server_credentials(
                    _configuration(identity), self._renewed, require_client_authentication=bool(identity.client_ca)
                )
                taken = self._server.add_secure_port(where, credentials)
        except RuntimeError as error:
            raise _unlistened(where) from error
        if not taken:
            raise _unlistened(where)
        self._server.start()
        return taken

    def close(self, seconds: float) -> None:
        """Take no more calls, answer those under way. For a thread: it waits."""
        self._server.stop(seconds).wait()

    def _renewed(self) -> Any:  # or None, whatever the stubs say
        """At each handshake: the certificate and the clients' authorities, if they are others than before."""
        current = self._identity()
        if current is None or current is self._known:
            return None
        self._known = current
        return _configuration(current)

    def _handler(self, target: bytes) -> Callable[[Iterator[bytes], grpc.ServicerContext], bytes]:
        def call(messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            try:
                answer = self._answered(target, messages, context)
            except grpc.RpcError as error:  # who went away, or sent nothing
                # The library keeps it with the call: its frames would keep the call, and so the connection's place for it.
                error.__traceback__ = None
                answer = faults.Refused(400, status_name="CANCELLED", said="there was no message")
            number = self.waiting.begin(context)
            if not context.add_callback(lambda: self.waiting.end(number)):
                self.waiting.end(number)
            if answer.status < 400:
                return answer.body
            # An answer of nothing would do, and cost a traceback in the log for each that is refused.
            return _abort(context, answer)

        return call

    def _answered(self, target: bytes, messages: Iterator[bytes], context: grpc.ServicerContext) -> Answer:
        try:
            message = self._first(messages, context)
        except MalformedRequest as error:
            return faults.answer(error)
        headers = {
            name.encode("latin-1"): value.encode("latin-1", "replace") if isinstance(value, str) else value
            for name, value in context.invocation_metadata()
        }
        # None where the client set no deadline, whatever the stubs say
        remaining: float | None = context.time_remaining()
        seconds = CALL_SECONDS if remaining is None else min(CALL_SECONDS, remaining)
        certified = bool(context.peer_identities())
        request = GrpcRequest(
            "POST", target, headers, message, True, _host(context.peer()), seconds=seconds, certified=certified
        )
        future = asyncio.run_coroutine_threadsafe(self._asked(request), self._loop)
        try:
            return future.result(CALL_SECONDS + 5)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            future.cancel()
            return faults.Refused(503, status_name="UNAVAILABLE", said="the service cannot do this now")

    async def _asked(self, request: GrpcRequest) -> Answer:
        answer = self._application(request)
        return answer if isinstance(answer, Answer) else await answer

    def _first(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """The message of a call; ``grpc.RpcError`` if it does not come in time."""
        number = self.waiting.begin(context)
        try:
            return next(messages)
        except StopIteration:
            raise MalformedRequest("the call has no message", code="body_malformed", field="message") from None
        finally:
            self.waiting.end(number)


def _abort(context: grpc.ServicerContext, answer: Answer) -> bytes:
    refused = answer if isinstance(answer, faults.Refused) else faults.Refused(answer.status, said=answer.reason)
    trailing = [(faults.METADATA, refused.reason)] if refused.reason else []
    if refused.retry_after:
        trailing.append((faults.PUSHBACK, str(1000 * refused.retry_after)))
    context.set_trailing_metadata(tuple(trailing))
    context.abort(grpc.StatusCode[refused.status_name], refused.said)
    raise AdytonError("unreachable")  # pragma: no cover -- abort raises


def _options(max_message: int, max_connections: int) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", max_message),
        ("grpc.max_send_message_length", max_message),
        ("grpc.max_metadata_size", MAX_METADATA),
        ("grpc.absolute_max_metadata_size", MAX_METADATA),
        ("grpc.max_concurrent_streams", MAX_CALLS_OF_A_CONNECTION),
        ("grpc.max_allowed_incoming_connections", max_connections),
        ("grpc.server_handshake_timeout_ms", int(1000 * HANDSHAKE_SECONDS)),
        ("grpc.max_connection_idle_ms", int(1000 * IDLE_SECONDS)),
        # By then whoever connected shows its certificate anew, and a client that never reads has been cut off.
        ("grpc.max_connection_age_ms", int(1000 * CONNECTION_SECONDS)),
        ("grpc.max_connection_age_grace_ms", int(1000 * CALL_SECONDS)),
        # Is it there at all, who asked? And more than two pings sooner than that end the connection of who sends them.
        ("grpc.keepalive_time_ms", int(1000 * PING_SECONDS)),
        ("grpc.keepalive_timeout_ms", int(1000 * CLIENT_SECONDS)),
        ("grpc.http2.min_ping_interval_without_data_ms", int(1000 * PING_SECONDS)),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.so_reuseport", 0),
    ]


def _configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(identity.private_key, identity.certificate)], root_certificates=identity.client_ca or None
    )


def _host(peer: str) -> str:
    """The address in ``ipv4:127.0.0.1:1234`` or ``ipv6:%5B::1%5D:1234``, as the other port has it."""
    kind, _, rest = unquote(peer).partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return peer[:80]
    return rest.rpartition(":")[0].strip("[]")[:80]


def _unlistened(address: str) -> ConfigError:
    return ConfigError(
        "cannot listen there", code="listen_failed", field="grpc", got=address, hint="port 0 takes a free one"
    )
