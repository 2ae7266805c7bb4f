"""HTTP to a broker: one kept connection, the certificate checked before a byte is sent, answers bounded.

The standard library's client does: a guest imports this, and start-up time is a feature. Proxies of the environment are
not used; redirects are not followed. Whoever answers, however slowly, holds nobody for longer than ``pace`` allows.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import select
import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from adyton.client.address import BrokerAddress
from adyton.client.pace import RATE, Pace, Plain, Secured, TooMuch, TooSlow
from adyton.errors import AdytonError, ConfigError, TooLarge, Unavailable
from adyton.protocol import kbs_errors
from adyton.protocol.kbs_errors import ErrorFacts

MAX_ANSWER = 8 * 1024 * 1024
TIMEOUT = 60.0
"""Seconds for a whole exchange; one more for each ``pace.RATE`` bytes of it."""
_MAX_RAW = 2 * MAX_ANSWER
_USER_AGENT = "adyton-client"
_UNREACHABLE = "broker_unreachable"
_SLOW = "broker_too_slow"


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, headers in lower case, body; ``cookies``: every ``Set-Cookie``, since what stands in front may add its own."""

    status: int
    headers: dict[str, str]
    body: bytes
    cookies: tuple[str, ...] = ()

    @property
    def detail(self) -> str:
        """What the broker said about an error; a short text whatever the body is."""
        error = kbs_errors.decode(self.body)
        return error.detail if error else f"HTTP status {self.status} without an explanation"

    @property
    def facts(self) -> ErrorFacts | None:
        """The whole error, where the broker tells it: to an administrator."""
        error = kbs_errors.decode(self.body)
        return error.error if error else None

    @property
    def variant(self) -> str:
        """The kind of error by CoCo's name, or an empty text."""
        error = kbs_errors.decode(self.body)
        return error.variant if error else ""

    @property
    def retry_after(self) -> int:
        """Seconds to wait, 1 to 10."""
        text = self.headers.get("retry-after", "1")
        return min(max(int(text), 1), 10) if text.isascii() and text.isdigit() and len(text) < 6 else 1


class Transport:
    """A connection to the broker at ``address``, opened when first used. Not for several threads at once.

    ``timeout``: seconds until an answer is there, as a whole; what is long gets more as it comes (``pace``).
    """

    def __init__(self, address: BrokerAddress, *, timeout: float = TIMEOUT) -> None:
        self.address = address
        self._timeout = timeout
        self._connection: Plain | None = None
        self._turn = 0
        self._sent = False

    @property
    def url(self) -> str:
        """The address that is asked at present."""
        return self.address.urls[self._turn]

    def elsewhere(self) -> bool:
        """Ask the next replica from now on; tells if there is another one."""
        self.close()
        self._turn = (self._turn + 1) % len(self.address.urls)
        return len(self.address.urls) > 1

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Reply:
        """Ask for ``path`` (below the tenant's base, starting with a slash); of several replicas, the first that answers.

        ``Unavailable`` if nobody answers, or not in time (``broker_too_slow``: something came), ``TooLarge`` for an
        endless answer, ``ConfigError`` if it is not our broker.
        A kept connection that the broker has closed meanwhile is opened anew once. What an administrator changes is not
        sent a second time, to this replica or another, once one may have had it: to rotate a key twice is not the same.
        """
        for _ in self.address.others:
            try:
                return self._request(method, path, body, headers)
            except Unavailable as error:
                if error.code not in {_UNREACHABLE, _SLOW} or (self._sent and not _may_be_repeated(method, path)):
                    raise
                self.elsewhere()
        return self._request(method, path, body, headers)

    def _request(self, method: str, path: str, body: bytes | None, headers: dict[str, str] | None) -> Reply:
        self._sent = False
        sent = {"User-Agent": _USER_AGENT, "Accept": "application/json", **(headers or {})}
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        again = _may_be_repeated(method, path)
        if not again and self._connection is not None and _is_over(self._connection):
            self.close()
        kept = self._connection is not None
        try:
            return self._once(method, path, body, sent)
        except (http.client.RemoteDisconnected, ConnectionError) as error:
            self.close()
            if not kept or not again:
                raise self._unreachable(error, unsure=self._sent and not again) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unreachable(error, unsure=self._sent and not again) from error
        except BaseException:
            self.close()
            raise
        try:
            return self._once(method, path, body, sent)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unreachable(error) from error
        except BaseException:
            self.close()
            raise

    def _once(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Reply:
        pace = Pace(self._timeout, _MAX_RAW)
        connection = self._connection or self._connect(pace)
        self._connection = connection
        connection.pace = pace
        self._sent = True
        connection.request(method, self.address.base + path, body=body, headers=headers)
        answer = connection.getresponse()
        try:
            read = answer.read(MAX_ANSWER + 1)
            if len(read) > MAX_ANSWER:
                raise _too_large()
            if answer.length:  # announced and not sent: ``read`` with a limit does not say so itself
                raise http.client.IncompleteRead(read, answer.length)
        finally:
            answer.close()
        if answer.will_close:
            self.close()
        headers_in = answer.getheaders()
        cookies = tuple([value for name, value in headers_in if name.lower() == "set-cookie"])
        return Reply(answer.status, {name.lower(): value for name, value in headers_in}, read, cookies)

    def _connect(self, pace: Pace) -> Plain:
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        if parts.scheme == "http":
            plain = Plain(host, parts.port, timeout=pace.left())
            plain.connect()
            return plain
        connection = Secured(host, parts.port, timeout=pace.left(), context=self._context())
        connection.connect()
        if self.address.pin is not None:
            try:
                self._check_pin(connection)
            except BaseException:
                connection.close()
                raise
        return connection

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cadata=self.address.ca_pem)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(
                "the CA certificate for the broker cannot be read", code="broker_ca", field="ca_pem"
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.address.pin is not None:  # the pin names the key; names and chains add nothing to that
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _check_pin(self, connection: Secured) -> None:
        certificate = connection.sock.getpeercert(binary_form=True)
        got = spki_pin(certificate) if certificate else "no certificate"
        if self.address.pin is None or not hmac.compare_digest(got, self.address.pin):
            raise ConfigError(
                "who answers is not the broker that is pinned",
                code="broker_pin_mismatch",
                field="pin",
                expected=self.address.pin,
                got=got,
                hint="if the broker has a new certificate, take its new pin from its owner, not from the network",
            )

    def _unreachable(self, error: Exception, *, unsure: bool = False) -> AdytonError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return ConfigError(
                f"the broker's certificate is not trusted: {error.verify_message}",
                code="broker_certificate",
                field="url",
                got=self.url,
                hint="give the broker's pin (adyton broker serve prints it) or its CA",
            )
        if isinstance(error, ssl.SSLError) and error.reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST"}:
            return Unavailable(
                "whoever answers there does not speak TLS",
                code="broker_not_tls",
                field="url",
                got=self.url,
                hint="a broker on loopback speaks plain http unless it was started with --tls: http://…",
            )
        if isinstance(error, TooMuch):
            return _too_large()
        if isinstance(error, TooSlow):
            return Unavailable(
                "the broker's answer does not come to an end in time",
                code=_SLOW,
                field="url",
                expected=f"all of it within {self._timeout:g} s, longer only at {RATE // 1024} KiB a second",
                got=self.url,
                hint="it or what stands in front of it stalls: its operator must look"
                + ("; it may have been done all the same: look before you ask again" if unsure else ""),
            )
        reason = "it does not answer in time" if isinstance(error, TimeoutError) else _said(error)
        return Unavailable(
            f"the broker cannot be reached: {reason}"[:300],
            code=_UNREACHABLE,
            field="url",
            got=self.url,
            hint="it may have been done all the same: look before you ask again"
            if unsure
            else "is it running? adyton broker serve",
        )

    def close(self) -> None:
        """Let the connection go; the next request opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _too_large() -> TooLarge:
    return TooLarge(f"the broker's answer is larger than {MAX_ANSWER} bytes", code="answer_too_large")


def _may_be_repeated(method: str, path: str) -> bool:
    """Whether it does no harm to be asked for twice: what is only read, and what an attester asks."""
    return method == "GET" or path.startswith("/kbs/")


def _is_over(connection: Plain) -> bool:
    """Whether the other side has closed it: nothing else comes from there before it is asked something."""
    if connection.sock is None:
        return True
    waiting = select.poll()
    waiting.register(connection.sock, select.POLLIN)
    return bool(waiting.poll(0))


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def spki_pin(certificate: bytes) -> str:
    """``sha256:<hex>`` of the SPKI of a DER certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except ValueError as error:
        raise ConfigError("the broker's certificate cannot be read", code="broker_certificate") from error
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(spki).hexdigest()
