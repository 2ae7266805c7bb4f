"""HTTP to endorsers: TLS except on this machine, and a bound on everything that a stranger's server decides.

Sizes, headers, redirects (to the same origin only) and the whole time are bounded. Proxies of the environment are not
used. What comes is bytes; reading it is for others.
"""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from socket import SHUT_RDWR
from socket import socket as Socket  # noqa: N812 -- a type, beside variables of that name
from urllib.parse import SplitResult, urljoin, urlsplit

from adyton import __version__
from adyton.collateral.source import Request, Response
from adyton.crypto.x509 import MAX_SIZE
from adyton.errors import AdytonError, ConfigError, NotFound, TooMany, Unavailable
from adyton.protocol.loopback import is_loopback

MAX_BODY = 2 * MAX_SIZE  # hex of the largest
MAX_REDIRECTS = 3
CONNECT_SECONDS = 10.0
MAX_RETRY_AFTER = 24 * 3600
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LINK_LOCAL = "169.254.169.254"
_PIECE = 64 * 1024


def base(url: str) -> str:
    """A base URL as configured, without its last slash; ``ConfigError`` if it cannot be used."""
    try:
        parts = urlsplit(url)
        good = (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and "@" not in parts.netloc
            and not parts.query
            and not parts.fragment
            and url.isascii()
            and url.isprintable()
            and " " not in url
            and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        good = False
    if not good:
        raise ConfigError("not the address of a service", code="source_url", field="url", got=url[:200], expected="https://host[:port][/path]")  # fmt: skip
    host = parts.hostname or ""
    if parts.scheme == "http" and not (is_loopback(host) or host == _LINK_LOCAL):
        raise ConfigError(
            "endorsements are fetched without TLS from this machine only",
            code="source_without_tls",
            field="url",
            got=url[:200],
            hint="use https://; what is fetched is checked anyway, but who asks for what is nobody's business",
        )
    return url.rstrip("/")


class Transport:
    """One origin's client. ``clock`` reads HTTP dates; ``ca_pem``: trust this authority instead of the system's.

    Safe from several threads.
    """

    def __init__(self, url: str, *, clock: Callable[[], datetime], ca_pem: str | None = None) -> None:
        self.base = base(url)
        self._clock = clock
        self._parts = urlsplit(self.base)
        self._ca_pem = ca_pem
        self._tls: ssl.SSLContext | None = None

    def send(self, request: Request, *, seconds: float) -> Response:
        """Ask and read the whole answer, which has status 200.

        ``NotFound`` for 404 and 410, ``TooMany`` for 429 and for 503 with ``Retry-After``, else ``Unavailable`` or ``ConfigError``.
        """
        deadline = time.monotonic() + seconds
        url = self.base + request.target
        for _ in range(MAX_REDIRECTS + 1):
            response, location = self._once(url, request, deadline)
            if response.status not in _REDIRECTS or location is None:
                return self._judged(response)
            url = self._next(url, location)
        raise self._failed("it redirects without end", code="endorser_redirects")

    def _once(self, url: str, request: Request, deadline: float) -> tuple[Response, str | None]:
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {
            "User-Agent": f"adyton/{__version__}",
            "Accept-Encoding": "identity",
            "Connection": "close",
            **request.headers,
        }
        connection = self._connection(parts, self._left(deadline))
        answer = watchdog = None
        try:
            connection.connect()
            socket = connection.sock  # which the connection lets go of once the head was read
            # A timeout is for one read; a head that comes byte by byte has thousands of them.
            watchdog = threading.Timer(self._left(deadline), _hang_up, [socket])
            watchdog.daemon = True
            watchdog.start()
            socket.settimeout(self._left(deadline))
            connection.request("GET" if request.body is None else "POST", target, body=request.body, headers=headers)
            socket.settimeout(self._left(deadline))
            answer = connection.getresponse()
            body = self._read(socket, answer, deadline)
            named: dict[str, str] = {}
            for name, value in answer.getheaders():
                named.setdefault(name.lower(), value)
            return Response(answer.status, named, body, url), named.get("location")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._broken(error) from error
        finally:
            if watchdog is not None:
                watchdog.cancel()
            if answer is not None:
                answer.close()
            connection.close()

    def _read(self, socket: Socket, answer: http.client.HTTPResponse, deadline: float) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            socket.settimeout(self._left(deadline))
            piece = answer.read1(_PIECE)
            if not piece:
                break
            size += len(piece)
            if size > MAX_BODY:
                raise self._failed(f"its answer is larger than {MAX_BODY} bytes", code="endorser_answer_too_large")
            pieces.append(piece)
        if answer.length:  # announced and not sent
            raise http.client.IncompleteRead(b"", answer.length)
        return b"".join(pieces)

    def _judged(self, response: Response) -> Response:
        if response.status == 200:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise self._failed("it encodes its answer although it was asked not to", code="endorser_encoding")
            return response
        wait = retry_after(response.headers.get("retry-after"), self._clock())
        if response.status in {404, 410}:
            raise NotFound(
                f"{self.base} has no such endorsement (HTTP {response.status})",
                code="endorsement_absent",
                field=response.url[:300],
            )
        if response.status == 429 or (response.status == 503 and wait is not None):
            raise TooMany(
                f"{self.base} wants to be asked later (HTTP {response.status})",
                code="endorser_busy",
                retry_after=wait if wait is not None else 60,
                hint="what is in the cache is used meanwhile; import an offline bundle to need no network at all",
            )
        raise self._failed(f"it answers with HTTP status {response.status}", code="endorser_status")

    def _next(self, url: str, location: str) -> str:
        try:
            target = urljoin(url, location)
            there, here = urlsplit(target), urlsplit(url)
            same = (there.scheme, there.hostname, there.port) == (here.scheme, here.hostname, here.port)
        except ValueError:
            same = False
        if not same or not target.isascii() or not target.isprintable() or " " in target:
            raise self._failed("it redirects to another host", code="endorser_redirects")
        return target

    def _connection(self, parts: SplitResult, seconds: float) -> http.client.HTTPConnection:
        host, timeout = parts.hostname or "", min(seconds, CONNECT_SECONDS)
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, parts.port, timeout=timeout)
        if self._tls is None:
            try:
                context = ssl.create_default_context(cadata=self._ca_pem)
            except (ssl.SSLError, ValueError) as error:
                raise ConfigError("the CA file holds no certificate", code="ca_invalid", field="ca") from error
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._tls = context
        return http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=self._tls)

    def _left(self, deadline: float) -> float:
        left = deadline - time.monotonic()
        if left <= 0:
            raise self._failed("it does not answer in time", code="endorser_unreachable")
        return left

    def _broken(self, error: Exception) -> AdytonError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return ConfigError(
                f"the certificate of {self._parts.netloc} is not trusted: {error.verify_message}",
                code="endorser_certificate",
                field="url",
                got=self.base,
                hint="give its certificate authority with --ca FILE",
            )
        if isinstance(error, TimeoutError):
            return self._failed("it does not answer in time", code="endorser_unreachable")
        if isinstance(error, http.client.IncompleteRead):
            return self._failed("its answer was cut off", code="endorser_unreachable")
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        return self._failed(f"it cannot be reached or broke off: {reason}", code="endorser_unreachable")

    def _failed(self, why: str, *, code: str) -> Unavailable:
        return Unavailable(
            f"{self._parts.netloc}: {why}"[:300],
            code=code,
            field="url",
            got=self.base,
            hint="give another source with --from, or import an offline bundle: adyton collateral import FILE",
        )


def _hang_up(socket: Socket) -> None:
    with suppress(OSError):
        socket.shutdown(SHUT_RDWR)


def retry_after(text: str | None, now: datetime) -> int | None:
    """Seconds to wait, 1 to a day: from a number or an HTTP date (RFC 9110 10.2.3); ``None`` if nothing readable is said."""
    if text is None:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        seconds = int(text.strip()[:9])
    else:
        try:
            when = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        seconds = int((when.replace(tzinfo=when.tzinfo or UTC) - now).total_seconds()) + 1
    return min(max(seconds, 1), MAX_RETRY_AFTER)


def max_age(headers: dict[str, str]) -> int | None:
    """``max-age`` of Cache-Control in seconds; 0 for ``no-store`` and ``no-cache``; ``None`` if it is not said."""
    for part in headers.get("cache-control", "").lower().split(","):
        name, _, value = part.strip().partition("=")
        if name in {"no-store", "no-cache"}:
            return 0
        value = value.strip('"')
        if name == "max-age" and value.isascii() and value.isdigit():
            return min(int(value[:9]), 10**8)
    return None
