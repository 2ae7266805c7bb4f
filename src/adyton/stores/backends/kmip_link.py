"""One KMIP server: the connection by mutual TLS, messages with an end, and what its answers mean.

PyKMIP's own TLS is not used: it offers versions and ciphers of long ago and does not look at the server's name. Nor is its
reading: it takes an answer of any length and pace. What is read here has an end, and a form (``ttlv``), before it parses.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from adyton.errors import AdytonError, ConfigError, Unavailable
from adyton.stores.backends import deadline, ttlv
from adyton.stores.backends.options import KmipOptions as Options

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyKMIP is older than what it imports
        from kmip.core import enums
        from kmip.core.exceptions import KmipError
        from kmip.core.utils import BytearrayStream
        from kmip.pie.client import ProxyKmipClient
        from kmip.pie.exceptions import KmipOperationFailure
        from kmip.services.kmip_client import KMIPProxy
        from kmip.services.kmip_protocol import KMIPProtocol
except ImportError as _error:  # pragma: no cover -- the environment of the tests has it
    raise ConfigError(
        "KMIP needs a library that is not installed",
        code="backend_extra_missing",
        field="kmip",
        hint="pip install 'adyton[kmip]'",
    ) from _error

_T = TypeVar("_T")


class Absent(Exception):
    """The server has no such object."""


class KmipLink:
    """One connection; calls take turns, each for at most ``seconds``."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._client: Any = None

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()

    def ask(self, call: Callable[[Any], _T]) -> _T:
        """On the connection that there is; a server closes one that is idle, so once more on a new one."""
        try:
            free = self._lock.acquire(timeout=deadline.left(self._options.seconds))
        except TimeoutError as error:
            raise self._failed(error) from error
        if not free:
            raise Unavailable("others wait for the KMIP server", code="backend_busy", field=self._options.host)
        try:
            kept = self._client is not None
            try:
                return self._once(call)
            except (_Broken, ssl.SSLError, OSError, KmipError) as error:
                if not kept:
                    raise self._failed(error) from error
            try:
                return self._once(call)
            except (_Broken, ssl.SSLError, OSError, KmipError) as error:
                raise self._failed(error) from error
        finally:
            self._lock.release()

    def _once(self, call: Callable[[Any], _T]) -> _T:
        try:
            if self._client is None:
                self._client = self._connected()
            return call(self._client)
        except KmipOperationFailure as error:
            raise self._told(error) from error
        except (AdytonError, Absent):
            raise
        except Exception as error:
            self._drop()  # what is left of an answer must not be taken for the next one
            if isinstance(error, ssl.SSLError | OSError | KmipError):
                raise
            raise _Broken(type(error).__name__) from error  # PyKMIP meets a broken answer with whatever comes

    def _connected(self) -> Any:
        options = self._options
        try:
            context = ssl.create_default_context(cafile=options.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(options.certificate, options.private_key, password=b"")
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                "the certificate for the KMIP server cannot be used",
                code="backend_file_unreadable",
                field=f"{options.certificate}, {options.private_key}, {options.ca_file}",
            ) from error
        client = ProxyKmipClient(options.host, options.port, config_file=os.devnull)
        client.proxy = _Proxy(context, options)
        client.open()
        return client

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            connection = client.proxy.socket
            client.close()
            if connection is not None:
                connection.close()  # which PyKMIP leaves open where the other side has hung up already

    def _told(self, error: KmipOperationFailure) -> AdytonError | Absent:
        reason = error.reason
        if reason is enums.ResultReason.ITEM_NOT_FOUND:
            return Absent()
        if reason in {enums.ResultReason.PERMISSION_DENIED, enums.ResultReason.AUTHENTICATION_NOT_SUCCESSFUL}:
            return ConfigError("the KMIP server forbids it", code="backend_forbidden", field=self._options.host)
        got = getattr(reason, "name", "")
        return Unavailable("the KMIP server refuses it", code="backend_refused", field=self._options.host, got=got)

    def _failed(self, error: Exception) -> AdytonError:
        where = f"{self._options.host}:{self._options.port}"
        if isinstance(error, ssl.SSLCertVerificationError):
            return ConfigError(
                "the server's certificate is not the KMIP server's",
                code="backend_certificate_refused",
                field=where,
                hint="name the authority that signs it: ca_file",
            )
        if isinstance(error, TimeoutError):
            return Unavailable("the KMIP server does not answer in time", code="backend_slow", field=where)
        broken = isinstance(error, _Broken | KmipError)
        return Unavailable(
            "the KMIP server's answer cannot be read" if broken else "the KMIP server cannot be reached, or refuses us",
            code="backend_answer_malformed" if broken else "backend_unreachable",
            field=where,
            got=str(error)[:40] if broken else type(error).__name__,
        )


class _Proxy(KMIPProxy):  # type: ignore[misc]
    """PyKMIP's client over a socket of ours."""

    def __init__(self, context: ssl.SSLContext, options: Options) -> None:
        super().__init__(options.host, options.port, config_file=os.devnull)
        self.timeout = options.seconds
        self._context = context

    def open(self) -> None:
        super().open()
        self.protocol = _Protocol(self.socket, self.timeout)

    def _create_socket(self, sock: Any) -> None:
        sock.settimeout(deadline.left(self.timeout))
        self.socket = self._context.wrap_socket(sock, server_hostname=self.host)


class _Protocol(KMIPProtocol):  # type: ignore[misc]
    """Messages with an end: in bytes, and in seconds for the whole of one."""

    def __init__(self, connection: ssl.SSLSocket, seconds: float) -> None:
        super().__init__(connection)
        self._seconds = seconds

    def write(self, data: Any) -> None:
        self.socket.settimeout(deadline.left(self._seconds))
        self.socket.sendall(bytes(data))

    def read(self) -> Any:
        until = time.monotonic() + deadline.left(self._seconds)
        header = self._read(ttlv.HEADER, until)
        value = self._read(ttlv.length(header), until)
        ttlv.check(value)
        return BytearrayStream(header + value)

    def _read(self, size: int, until: float) -> bytes:
        read = bytearray()
        while len(read) < size:
            remaining = until - time.monotonic()
            if remaining <= 0:
                raise TimeoutError("the answer takes too long")
            self.socket.settimeout(remaining)
            more = self.socket.recv(min(size - len(read), 64 * 1024))
            if not more:
                raise EOFError("the answer ends early")
            read += more
        return bytes(read)


class _Broken(Exception):
    """An answer that could not be read."""
