"""Calling an external gRPC plug-in of CoCo's kind (kbs-protocol 1.13), and serving one that is written in Python.

The plug-in says of each request whether an administrator must ask (``ValidateAuth``) and whether its answer must be
encrypted to the workload's key (``NeedsEncryption``), then answers it (``Handle``). Whoever asks has been let through by
the broker before ``Handle`` is called; the plug-in learns nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from adyton.errors import ConfigError, TooLarge, Unavailable
from adyton.protocol.loopback import is_loopback
from adyton.stores.backends.options import PluginOptions
from adyton.stores.backends.private import read_private

try:
    import grpc

    from adyton.protocol.grpc import kbs_plugin_pb2 as pb
except ImportError as _error:  # pragma: no cover -- the environment of the tests has it
    raise ConfigError(
        "gRPC plug-ins need a library that is not installed",
        code="backend_extra_missing",
        field="grpc",
        hint="pip install 'adyton[grpc]'",
    ) from _error

_SERVICE = "kbs.plugin.v1.KbsPlugin"
_Code = grpc.StatusCode


@dataclass(frozen=True, slots=True)
class PluginRequest:
    """What a plug-in is asked: ``path`` is what follows its name."""

    method: str
    path: Sequence[str]
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class PluginReply:
    """What it answers: ``status`` 0 or 2xx is success, 404 is told on, all else is an error of the plug-in."""

    body: bytes = field(default=b"", repr=False)
    status: int = 200
    content_type: str = ""


class PluginClient:
    """A plug-in that runs elsewhere. Blocks; every call has the deadline of its options."""

    def __init__(self, options: PluginOptions) -> None:
        self._options = options
        scheme, _, target = options.endpoint.partition("://")
        limits = [
            ("grpc.max_receive_message_length", options.max_answer),
            ("grpc.max_send_message_length", 16 * 1024 * 1024),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
        ]
        if scheme == "https" and target:
            self._channel = grpc.secure_channel(target, self._credentials(), limits)
        elif scheme == "http" and target:
            if not options.insecure_http and not is_loopback(target.rpartition(":")[0].strip("[]")):
                raise ConfigError(
                    "requests would be sent to the plug-in in the clear",
                    code="backend_plain_http",
                    field="endpoint",
                    got=options.endpoint[:200],
                    hint="use https:// and ca_file, or say insecure_http = true",
                )
            self._channel = grpc.insecure_channel(target, limits)
        else:
            raise ConfigError(
                "not a plug-in's address", code="backend_option_invalid", field="endpoint", expected="https://HOST:PORT"
            )

    def _credentials(self) -> grpc.ChannelCredentials:
        options = self._options
        if not options.ca_file:
            raise ConfigError(
                "say whom to believe", code="backend_option_invalid", field="ca_file", expected="a PEM file"
            )
        try:
            authority = Path(options.ca_file).read_bytes()
            chain = Path(options.certificate).read_bytes() if options.certificate else None
        except OSError as error:
            raise ConfigError(
                "a file of the plug-in's cannot be read", code="backend_file_unreadable", field=options.endpoint
            ) from error
        key = read_private(options.private_key, "private_key") if options.private_key else None
        return grpc.ssl_channel_credentials(authority, key, chain)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def needs_admin(self, asked: PluginRequest) -> bool:
        """Whether only an administrator may ask this."""
        sent = pb.ValidateAuthRequest(**_fields(asked))
        answer = self._call("ValidateAuth", sent, pb.ValidateAuthResponse)
        return bool(answer.requires_admin_auth)

    def needs_encryption(self, asked: PluginRequest) -> bool:
        """Whether the answer must be encrypted to the workload's key."""
        sent = pb.NeedsEncryptionRequest(**_fields(asked))
        answer = self._call("NeedsEncryption", sent, pb.NeedsEncryptionResponse)
        return bool(answer.requires_payload_encryption)

    def handle(self, asked: PluginRequest) -> PluginReply:
        """The plug-in's answer."""
        answer = self._call("Handle", pb.PluginRequest(**_fields(asked)), pb.PluginResponse)
        return PluginReply(bytes(answer.body), int(answer.status_code), str(answer.content_type))

    def check(self) -> str:
        """That it can be reached."""
        try:
            grpc.channel_ready_future(self._channel).result(self._options.seconds)
        except grpc.FutureTimeoutError as error:
            raise Unavailable(
                "the plug-in cannot be reached, or is not who it should be",
                code="backend_unreachable",
                field=self._options.endpoint,
            ) from error
        return f"{_SERVICE} at {self._options.endpoint}"

    def _call(self, method: str, sent: Any, kind: Any) -> Any:
        call = self._channel.unary_unary(
            f"/{_SERVICE}/{method}", request_serializer=_serialized, response_deserializer=kind.FromString
        )
        try:
            return call(sent, timeout=self._options.seconds)
        except grpc.RpcError as error:
            raise self._failed(method, error) from error

    def _failed(self, method: str, error: grpc.RpcError) -> Exception:
        asked = getattr(error, "code", None)  # of a call that was made: its error is a ``grpc.Call`` too
        code = asked() if callable(asked) else _Code.UNKNOWN
        where, got = self._options.endpoint, f"{method}: {code.name}"
        if code in {_Code.UNAUTHENTICATED, _Code.PERMISSION_DENIED, _Code.UNIMPLEMENTED}:
            return ConfigError("the plug-in does not serve this broker", code="backend_forbidden", field=where, got=got)
        if code is _Code.RESOURCE_EXHAUSTED:
            return TooLarge("the plug-in's answer is too large", code="plugin_answer_too_large", field=where, got=got)
        slow, gone = code is _Code.DEADLINE_EXCEEDED, code is _Code.UNAVAILABLE
        return Unavailable(
            "the plug-in does not answer in time" if slow else "the plug-in cannot be reached" if gone else "it failed",
            code="backend_slow" if slow else "backend_unreachable" if gone else "plugin_failed",
            field=where,
            got=got,
        )


class Plugin(Protocol):
    """What somebody writes who writes a plug-in. Called from several threads; an exception refuses the request."""

    def needs_admin(self, asked: PluginRequest) -> bool:
        """Whether only an administrator may ask this; else any workload that the broker lets through."""
        ...

    def needs_encryption(self, asked: PluginRequest) -> bool:
        """Whether the answer is a secret: then only the workload can read it."""
        ...

    def handle(self, asked: PluginRequest) -> PluginReply:
        """The answer."""
        ...


def serve(  # noqa: PLR0917 -- who, where, by what
    plugin: Plugin, address: str, certificate: str = "", private_key: str = "", client_ca: str = "", threads: int = 8
) -> tuple[grpc.Server, int]:
    """Start serving ``plugin`` on ``address`` (``HOST:PORT``, port 0 takes a free one); the server and its port.

    With ``certificate`` and ``private_key`` (PEM files, the key 0600) by TLS, with ``client_ca`` to brokers that have a
    certificate of it. Without, on this machine only.
    """
    server = grpc.server(ThreadPoolExecutor(threads))
    handlers = {
        "Handle": _served(pb.PluginRequest, lambda asked: _answer(plugin.handle(asked))),
        "ValidateAuth": _served(
            pb.ValidateAuthRequest, lambda asked: pb.ValidateAuthResponse(requires_admin_auth=plugin.needs_admin(asked))
        ),
        "NeedsEncryption": _served(
            pb.NeedsEncryptionRequest,
            lambda asked: pb.NeedsEncryptionResponse(requires_payload_encryption=plugin.needs_encryption(asked)),
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    if certificate:
        pair = (read_private(private_key, "private_key"), Path(certificate).read_bytes())
        authority = Path(client_ca).read_bytes() if client_ca else None
        credentials = grpc.ssl_server_credentials([pair], authority, require_client_auth=bool(client_ca))
        port = server.add_secure_port(address, credentials)
    elif is_loopback(address.rpartition(":")[0].strip("[]")):
        port = server.add_insecure_port(address)
    else:
        raise ConfigError("a plug-in without TLS serves this machine only", code="backend_plain_http", field="address")
    server.start()
    return server, port


def _served(kind: Any, run: Callable[[PluginRequest], Any]) -> grpc.RpcMethodHandler[Any, Any]:
    def answer(sent: Any, _: grpc.ServicerContext) -> Any:
        return run(PluginRequest(sent.method, tuple(sent.path), dict(sent.query), bytes(sent.body)))

    return grpc.unary_unary_rpc_method_handler(
        answer, request_deserializer=kind.FromString, response_serializer=_serialized
    )


def _answer(reply: PluginReply) -> pb.PluginResponse:
    return pb.PluginResponse(body=reply.body, status_code=reply.status, content_type=reply.content_type)


def _serialized(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def _fields(asked: PluginRequest) -> dict[str, Any]:
    return {"body": asked.body, "query": dict(asked.query), "path": list(asked.path), "method": asked.method}
