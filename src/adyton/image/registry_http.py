"""HTTP as a registry client needs it, on ``http.client``: pooled connections, TLS, redirects, limits; no foreign errors.

Plain HTTP is used for hosts that somebody named, and for loopback where nothing speaks TLS. Credentials go to the
origin that they were given for and to no other, and no redirect leads from https to http. Bodies are streamed with
``readinto``: this is the path of every image layer.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urljoin, urlsplit

from adyton import __version__
from adyton.errors import ConfigError, MalformedImage, Unavailable
from adyton.protocol.loopback import is_loopback

CONNECT_TIMEOUT = 10.0
TIMEOUT = 30.0
SMALL_DEADLINE = 60.0
MAX_REDIRECTS = 5
_IDLE_PER_ORIGIN = 4
_READ = 1 << 20
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: what a connection and a credential belong to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: SplitResult) -> Origin:
        """The origin of a URL that ``safe_url`` let through."""
        return cls(url.scheme, url.hostname or "", url.port or (443 if url.scheme == "https" else 80))

    @classmethod
    def named(cls, scheme: str, host: str) -> Origin:
        """The origin that ``host[:port]``, as written in references, has with ``scheme``; in one spelling."""
        return cls.of(safe_url(f"{scheme}://{host}"))

    @property
    def netloc(self) -> str:
        """``host[:port]`` as in a reference; the scheme's own port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """How to reach hosts. ``plain_http``, ``unverified_tls``: ``host[:port]`` as written in references.

    ``unverified_tls`` accepts any certificate, and plain HTTP where there is none: digests still protect content that is
    named by digest, nothing protects names and credentials. ``ca_pem`` is trusted beside the system's authorities.
    """

    plain_http: frozenset[str] = frozenset()
    unverified_tls: frozenset[str] = frozenset()
    ca_pem: str = ""


class Reply:
    """One answer; its body is read with ``readinto`` or ``small``, then ``close`` gives the connection back."""

    def __init__(self, http: Http, origin: Origin, connection: http.client.HTTPConnection, url: str) -> None:
        self._http = http
        self._origin = origin
        self._connection = connection
        self._response = connection.getresponse()
        self.url = url
        self.status = self._response.status

    def header(self, name: str) -> str | None:
        """The header's value, several joined with a comma; ``None`` when it is not there."""
        return self._response.getheader(name)

    def headers(self, name: str) -> list[str]:
        """Every value of the header on its own."""
        return self._response.headers.get_all(name) or []

    @property
    def length(self) -> int | None:
        """What the body's length is said to be."""
        text = self.header("Content-Length")
        return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else None

    def readinto(self, buffer: memoryview) -> int:
        """What has come of the body, after one read at most; 0 at its end **or** where the connection broke."""
        try:
            piece = self._response.read1(min(len(buffer), _READ))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise broken(self.url, error) from error
        buffer[: len(piece)] = piece
        return len(piece)

    def small(self, limit: int) -> bytes:
        """The whole body, at most ``limit`` bytes, within a minute; then the connection is given back."""
        body = bytearray()
        deadline = time.monotonic() + SMALL_DEADLINE
        try:
            while piece := self._response.read1(65536):
                body += piece
                if len(body) > limit:
                    raise MalformedImage(
                        f"the registry's answer is larger than {limit} bytes",
                        code="answer_too_large",
                        expected=limit,
                        got=shown(self.url),
                    )
                if time.monotonic() > deadline:
                    raise Unavailable("the registry's answer took too long", code="registry_slow", got=shown(self.url))
            if self.length is not None and len(body) < self.length:
                raise Unavailable(
                    "the connection broke in the middle of an answer", code="registry_broken", got=shown(self.url)
                )
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise broken(self.url, error) from error
        finally:
            self.close()
        return bytes(body)

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else close it."""
        if self._response.length == 0:  # nothing to come (HEAD, 204); reading it tells http.client so
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._response.read()
        reusable = self._response.isclosed() and not self._response.will_close
        self._response.close()
        self._http.give_back(self._origin, self._connection, reusable=reusable)


@dataclass(slots=True)
class Http:
    """Connections to any number of origins. Safe to use from several threads."""

    options: TransportOptions
    _idle: dict[Origin, list[http.client.HTTPConnection]] = field(default_factory=dict)
    _schemes: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def base(self, host: str) -> str:
        """``https://host`` or ``http://host``, whichever this host is to be spoken to with."""
        with self._lock:
            scheme = self._schemes.get(host)
        if scheme is None:
            scheme = self._choose_scheme(host)
            with self._lock:
                self._schemes[host] = scheme
        return f"{scheme}://{host}"

    def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | memoryview | None = None
    ) -> Reply:
        """One request, no redirects. ``Unavailable`` for whatever the network does."""
        parts = safe_url(url)
        origin = Origin.of(parts)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        merged = {"User-Agent": f"adyton/{__version__}", "Accept-Encoding": "identity", **headers}
        while True:
            connection, reused = self._connection(origin)
            try:
                if not reused:
                    connection.connect()
                    connection.sock.settimeout(TIMEOUT)
                connection.request(method, target, body=body, headers=merged)
                reply = Reply(self, origin, connection, url)
            except (OSError, http.client.HTTPException, ValueError) as error:
                connection.close()
                # A server may close an idle connection at any time; that says nothing about the request.
                if reused and isinstance(error, http.client.RemoteDisconnected | ConnectionError):
                    continue
                raise broken(url, error) from error
            if reply.header("Content-Encoding") not in {None, "identity"}:
                reply.close()
                raise Unavailable(
                    "the registry encodes its answer although it was asked not to",
                    code="registry_encoding",
                    got=shown(url),
                )
            return reply

    def follow(self, method: str, url: str, headers: Mapping[str, str], secret: Mapping[str, str]) -> Reply:
        """GET or HEAD along redirects; ``secret`` headers are sent to the first origin only."""
        first = Origin.of(safe_url(url))
        for _ in range(MAX_REDIRECTS + 1):
            here = Origin.of(safe_url(url))
            reply = self.request(method, url, {**headers, **secret} if here == first else headers)
            location = reply.header("Location")
            if reply.status not in _REDIRECTS or location is None:
                return reply
            reply.close()
            url = self.next_url(url, location)
        raise Unavailable("the registry redirects without end", code="registry_redirects", got=shown(url))

    def next_url(self, url: str, location: str) -> str:
        """Where ``location`` leads from ``url``; https never leads to http, and http only where it may be used."""
        try:
            target = urljoin(url, location)
        except ValueError:
            target = ""
        parts = safe_url(target)
        if parts.scheme == "http" and (urlsplit(url).scheme == "https" or not self.may_be_plain(Origin.of(parts))):
            raise Unavailable(
                "the registry leads to an address without TLS", code="registry_downgrade", got=shown(target),
                hint="if that is meant, allow plain HTTP for its host with --plain-http",
            )  # fmt: skip
        return target

    def may_be_plain(self, origin: Origin) -> bool:
        """Whether plain HTTP to this origin is allowed: named, or loopback."""
        named = self.options.plain_http | self.options.unverified_tls
        return origin in {Origin.named("http", host) for host in named} or is_loopback(origin.host)

    def give_back(self, origin: Origin, connection: http.client.HTTPConnection, *, reusable: bool) -> None:
        """Keep an idle connection for the next request, or close it."""
        with self._lock:
            idle = self._idle.setdefault(origin, [])
            if reusable and connection not in idle and len(idle) < _IDLE_PER_ORIGIN:
                idle.append(connection)
                return
            if connection in idle:
                return
        connection.close()

    def close(self) -> None:
        """Close every idle connection."""
        with self._lock:
            connections = [connection for idle in self._idle.values() for connection in idle]
            self._idle.clear()
        for connection in connections:
            connection.close()

    def _connection(self, origin: Origin) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            idle = self._idle.get(origin)
            if idle:
                return idle.pop(), True
        if origin.scheme == "http":
            return http.client.HTTPConnection(origin.host, origin.port, timeout=CONNECT_TIMEOUT), False
        context = self._context(origin)
        return http.client.HTTPSConnection(origin.host, origin.port, timeout=CONNECT_TIMEOUT, context=context), False

    def _context(self, origin: Origin) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.options.ca_pem:
            try:
                context.load_verify_locations(cadata=self.options.ca_pem)
            except (ssl.SSLError, ValueError) as error:
                raise ConfigError(
                    "the registry's CA file holds no certificate", code="ca_invalid", field="ca"
                ) from error
        if origin in {Origin.named("https", host) for host in self.options.unverified_tls}:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _choose_scheme(self, host: str) -> str:
        if host in self.options.plain_http:
            return "http"
        if host not in self.options.unverified_tls and not is_loopback(Origin.named("https", host).host):
            return "https"
        try:
            connection, _ = self._connection(Origin.named("https", host))
            with contextlib.closing(connection):
                connection.connect()
        except ssl.SSLCertVerificationError as error:
            raise broken(f"https://{host}", error) from error
        except ConnectionRefusedError as error:
            raise broken(f"https://{host}", error) from error
        except (ssl.SSLError, ConnectionError):
            return "http"  # something is there and does not speak TLS
        except OSError as error:
            raise broken(f"https://{host}", error) from error
        return "https"


def safe_url(url: str) -> SplitResult:
    """Split a URL that may be used: http or https, a host, no user, no control characters; ``Unavailable`` else."""
    try:
        parts = urlsplit(url)
        good = (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and "@" not in parts.netloc
            and url.isascii()
            and url.isprintable()
            and " " not in url
            and len(url) <= 16384
            and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        good = False
    if not good:
        raise Unavailable("the registry names an address that cannot be used", code="registry_url", got=shown(url))
    return parts


def shown(url: str) -> str:
    """A URL as an error may show it: without user, query and fragment, where signatures and tokens are."""
    scheme, colon, rest = url.partition("://")
    authority, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}{colon}{authority.rpartition('@')[2]}{slash}{path}"[:200] if colon else url.partition("?")[0][:200]


def broken(url: str, error: Exception) -> Unavailable | ConfigError:
    """An error of ours for one of the network's."""
    where = urlsplit(url).netloc[:200]
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigError(
            f"the certificate of {where} is not trusted: {error.verify_message}",
            code="registry_certificate",
            field="registry",
            got=where,
            hint="give its certificate authority with --registry-ca, or --tls-verify=false for a test",
        )
    reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return Unavailable(
        f"{where} cannot be reached or broke off: {reason}",
        code="registry_unreachable",
        field="registry",
        got=where,
        hint="is it running, and is this its address?",
    )
