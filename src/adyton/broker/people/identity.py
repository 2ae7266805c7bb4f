"""What identity providers say about people: OpenID discovery, their keys, and whom a token of theirs makes known.

Only an owner of the whole broker names providers, because the broker connects to what they name: https only, no
redirects, answers bounded in size and time. Keys are remembered; they are fetched anew when they are old, and when a
token names one that is not known, at most every 30 seconds, so a stranger cannot make the broker hammer a provider.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from adyton.crypto import jws
from adyton.crypto.jws import Parsed, TrustedKey
from adyton.errors import AdytonError, MalformedRequest, NotPermitted, Unavailable
from adyton.protocol.people import ROLES, Mapped, ProviderBody
from adyton.wire import strict_json

DISCOVERY = "/.well-known/openid-configuration"
FETCH_SECONDS = 5.0
MAX_BODY = 256 * 1024
FRESH_SECONDS = 3600.0
STALE_SECONDS = 24 * 3600.0
AGAIN_SECONDS = 30.0
_AGE = re.compile(r"max-age=(\d{1,9})")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """Whom a provider's token speaks of: its name here, the subject, and what the role claim means (or nothing)."""

    provider: str
    subject: str
    mapped: Mapped | None


@dataclass(slots=True)
class _Keys:
    keys: tuple[TrustedKey, ...] = ()
    fetched: float = float("-inf")
    fresh: float = 0.0
    tried: float = float("-inf")
    lock: threading.Lock = field(default_factory=threading.Lock)


class Identities:
    """The keys of providers, as one worker knows them. ``fetch`` gets a URL with the PEM of its roots."""

    def __init__(self, fetch: Callable[[str, str], tuple[bytes, str]] | None = None) -> None:
        self._fetch = fetch or fetch_https
        self._known: dict[str, _Keys] = {}

    def know(self, name: str, provider: ProviderBody, parsed: Parsed, now: float) -> Known:
        """Whom ``parsed``, a token that claims to be of ``provider``, makes known; ``NotPermitted``, ``Unavailable``."""
        if parsed.algorithm not in provider.algorithms:
            raise NotPermitted("the token's algorithm is not accepted", code="token_algorithm")
        keys = self._keys(provider, parsed, now)
        jws.verify(parsed, keys, provider.algorithms)
        claims = parsed.claims
        jws.check_times(claims, now)
        if claims.get("iss") != provider.issuer:
            raise NotPermitted("the token is of another issuer", code="token_issuer")
        audience = claims.get("aud")
        if provider.audience not in (audience if isinstance(audience, list) else [audience]):
            raise NotPermitted("the token is for another audience", code="token_audience")
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= 255 or not subject.isprintable():
            raise NotPermitted("the token names nobody", code="token_subject")
        return Known(name, subject, _mapped(provider, claims))

    def _keys(self, provider: ProviderBody, parsed: Parsed, now: float) -> tuple[TrustedKey, ...]:
        digest = hashlib.sha256(f"{provider.issuer}\0{provider.ca}".encode()).hexdigest()
        known = self._known.setdefault(digest, _Keys())
        usable = now < known.fresh and any(parsed.kid in {"", key.kid} for key in known.keys)
        if not usable and now >= known.tried + AGAIN_SECONDS and known.lock.acquire(blocking=not known.keys):
            try:
                if now >= known.tried + AGAIN_SECONDS:  # nobody was quicker
                    known.tried = now
                    known.keys, life = self._discover(provider)
                    known.fetched, known.fresh = now, now + life
            except AdytonError as error:
                _LOG.warning("identity provider %s: %s [%s]", provider.issuer, error.message, error.code)
            finally:
                known.lock.release()
        if not known.keys or now >= known.fetched + STALE_SECONDS:
            raise Unavailable("the identity provider's keys cannot be had", code="identity_provider_unreachable")
        return known.keys

    def _discover(self, provider: ProviderBody) -> tuple[tuple[TrustedKey, ...], float]:
        body, _ = self._fetch(provider.issuer.rstrip("/") + DISCOVERY, provider.ca)
        try:
            described = strict_json.parse(body, max_size=MAX_BODY)
            if not isinstance(described, dict) or described.get("issuer") != provider.issuer:
                raise ValueError("it describes another issuer")
            where = described.get("jwks_uri")
            if not isinstance(where, str):
                raise ValueError("it names no keys")  # noqa: TRY004 -- one refusal for all of it
            listed, caching = self._fetch(where, provider.ca)
            keys = jws.read_set(listed)
        except strict_json.UNREADABLE as error:
            raise Unavailable(
                f"the provider's answer cannot be used: {str(error)[:200]}", code="identity_provider_answer"
            ) from error
        age = _AGE.search(caching)
        return keys, min(FRESH_SECONDS, max(60.0, float(age.group(1)))) if age else FRESH_SECONDS


def _mapped(provider: ProviderBody, claims: Mapping[str, object]) -> Mapped | None:
    """What the role claim's values mean: of those that are mapped, the one that the mapping names first."""
    value: object = claims.get(provider.role_claim)
    if value is None:
        value = claims
        for part in provider.role_claim.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    values = value if isinstance(value, list) else [value]
    return next((mapped for name, mapped in provider.roles.items() if name in values), None)


def check_provider(name: str, body: ProviderBody) -> ProviderBody:
    """``body`` itself, or ``MalformedRequest`` naming what cannot be used."""
    _url(body.issuer, "issuer")
    if not name.replace("-", "").isalnum() or not name.isascii() or len(name) > 63:
        raise _invalid("name", "letters, digits and hyphens", name)
    if not 0 < len(body.audience) <= 255:
        raise _invalid("audience", "what the provider calls this broker", body.audience)
    if not body.algorithms or not set(body.algorithms) <= set(jws.ALGORITHMS):
        raise _invalid("algorithms", list(jws.ALGORITHMS), list(body.algorithms))
    for mapped in body.roles.values():
        if mapped.role not in ROLES or (mapped.role == "operator" and (body.organisation or mapped.tenants)):
            raise _invalid("roles", "owner or auditor; operator for the broker's own people", mapped.role)
    if not 0 < len(body.role_claim) <= 255:
        raise _invalid("role_claim", "a claim's name", body.role_claim)
    if body.ca:
        try:
            ssl.create_default_context(cadata=body.ca)
        except (ssl.SSLError, ValueError, TypeError) as error:  # TypeError: not ASCII
            raise _invalid("ca", "PEM certificates", "other") from error
    return body


def fetch_https(url: str, ca: str) -> tuple[bytes, str]:
    """The body and the ``cache-control`` of a 200 answer; ``Unavailable`` for everything else."""
    host, port, path = _url(url, "url")
    context = ssl.create_default_context(cadata=ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    connection = http.client.HTTPSConnection(host, port, timeout=FETCH_SECONDS, context=context)
    try:
        with _cut_in_time(socket.create_connection((host, port), FETCH_SECONDS)) as line:
            connection.sock = context.wrap_socket(line, server_hostname=host)
            return _answer(connection, url, path)
    except (OSError, http.client.HTTPException, UnicodeError) as error:  # the last: a host that is no name
        raise Unavailable(
            f"the identity provider cannot be reached: {type(error).__name__}",
            code="identity_provider_unreachable",
            field=url[:200],
        ) from error
    finally:
        connection.close()


@contextmanager
def _cut_in_time(line: socket.socket) -> Iterator[socket.socket]:
    """A connection that ends after ``FETCH_SECONDS``, however slowly the other side goes on sending."""
    with line, line.dup() as other:
        timer = threading.Timer(FETCH_SECONDS, lambda: _end(other))
        timer.daemon = True
        timer.start()
        try:
            yield line
        finally:
            timer.cancel()


def _end(line: socket.socket) -> None:
    with suppress(OSError):  # it has ended by itself
        line.shutdown(socket.SHUT_RDWR)


def _answer(connection: http.client.HTTPSConnection, url: str, path: str) -> tuple[bytes, str]:
    connection.request("GET", path, headers={"Accept": "application/json", "User-Agent": "adyton-broker"})
    answer = connection.getresponse()
    body = answer.read(MAX_BODY + 1)
    if answer.status != 200 or len(body) > MAX_BODY:
        raise Unavailable(
            "the identity provider does not answer as it should",
            code="identity_provider_answer",
            field=url[:200],
            got=answer.status,
        )
    return body, answer.getheader("cache-control", "")


def _url(url: str, name: str) -> tuple[str, int, str]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 443
    except ValueError as error:
        raise _invalid(name, "an https URL", url) from error
    plain = url.isascii() and url.isprintable() and " " not in url and not parts.fragment and "@" not in parts.netloc
    if parts.scheme != "https" or not host or not plain or (name == "issuer" and parts.query):
        raise _invalid(name, "an https URL", url)
    return host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _invalid(name: str, expected: object, got: object) -> MalformedRequest:
    shown = got if isinstance(got, list) else str(got)[:80]
    return MalformedRequest(
        "an identity provider cannot be used so",
        code="identity_provider_invalid",
        field=name,
        expected=expected,
        got=shown,
    )
