"""Credentials for registries: ``auth.json``, Basic, and Bearer tokens (distribution-spec, token authentication).

``auth.json`` is containers-auth.json(5): the entry with the longest prefix of ``host/repository`` wins; Docker Hub's
old names are one. A token's realm must be as safe as the registry: https for a registry over https. Credential helpers
are programs; none is started. No credential or token appears in an error.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

import msgspec

from adyton.errors import ConfigError, NotPermitted, Unavailable
from adyton.image.registry_http import Http, Origin, Reply, safe_url, shown
from adyton.wire import b64, strict_json

MAX_AUTH_JSON = 1024 * 1024
MAX_TOKEN_ANSWER = 256 * 1024
_SPEC = "distribution-spec, token authentication"
_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_SCHEME = re.compile(r"[\s,]*([A-Za-z][A-Za-z0-9-]*)(?:\s+|\Z)")
_PARAMETER = re.compile(r'\s*([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))\s*(?:,|\Z)')


@dataclass(frozen=True, slots=True)
class Credential:
    """A user's name and secret, or an identity token in place of the secret."""

    user: str
    secret: str = field(repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of a Basic ``Authorization`` header."""
        return "Basic " + b64.encode(f"{self.user}:{self.secret}".encode())


class _Entry(msgspec.Struct, rename="lower"):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class _File(msgspec.Struct, rename="camel"):
    auths: dict[str, _Entry] = {}
    cred_helpers: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Credentials:
    """The parsed ``auth.json``. ``helpers``: hosts whose credentials only a program knows."""

    entries: Mapping[str, Credential] = field(default_factory=dict, repr=False)
    helpers: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Credentials:
        """Read the text of ``auth.json``; an empty text holds nothing. ``ConfigError``."""
        if not text.strip():
            return cls()
        try:
            parsed = msgspec.convert(strict_json.parse(text, max_size=MAX_AUTH_JSON), _File)
            found = {_normal(name): _credential(entry) for name, entry in parsed.auths.items()}
        except (ValueError, msgspec.ValidationError) as error:
            raise ConfigError(
                "the registry credentials cannot be read",
                code="auth_json",
                field="auth.json",
                hint='it looks like {"auths": {"host/path": {"auth": "<base64 of user:password>"}}}',
            ) from (error if isinstance(error, msgspec.ValidationError) else None)
        # Where a program keeps the secrets, Docker leaves empty entries: they are no credential, and none is sent.
        entries = {name: held for name, held in found.items() if held.user or held.secret or held.identity_token}
        return cls(entries, frozenset(_normal(name) for name in parsed.cred_helpers))

    def find(self, registry: str, repository: str) -> Credential | None:
        """The entry whose key is the longest prefix, in whole parts, of ``registry/repository``."""
        name = _normal(f"{registry}/{repository}")
        while True:
            if name in self.entries:
                return self.entries[name]
            if "/" not in name:
                break
            name = name.rpartition("/")[0]
        if name in self.helpers:
            raise ConfigError(
                f"credentials for {name} are in a credential helper, which is not started",
                code="auth_helper",
                field="auth.json",
                hint=f"log in without it: skopeo login --authfile FILE {name}, then --authfile FILE",
            )
        return None


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of ``WWW-Authenticate``: the scheme in lower case and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


def challenges(headers: list[str]) -> list[Challenge]:
    """What the header lines ask for; lines that cannot be read ask for nothing."""
    found: list[Challenge] = []
    for line in headers[:8]:
        text, position = line[:8192], 0
        while len(found) < 8 and (scheme := _SCHEME.match(text, position)):
            position = scheme.end()
            parameters: dict[str, str] = {}
            while position < len(text) and (match := _PARAMETER.match(text, position)):
                value = match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])
                parameters.setdefault(match[1].lower(), value)
                position = match.end()
            found.append(Challenge(scheme[1].lower(), parameters))
    return found


class _TokenAnswer(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: int = 60


@dataclass(slots=True)
class Authorizer:
    """Answers challenges and remembers the answers, per registry and scope. Safe from several threads."""

    http: Http
    credentials: Credentials
    _known: dict[tuple[Origin, str], tuple[str, float]] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def header(self, url: str, scope: str) -> dict[str, str]:
        """The ``Authorization`` header that is known to work here, if any."""
        key = (Origin.of(safe_url(url)), scope)
        with self._lock:
            value, expires = self._known.get(key, ("", 0.0))
        return {"Authorization": value} if value and time.monotonic() < expires else {}

    def answer(self, reply: Reply, scope: str, registry: str, repository: str) -> None:
        """Take a 401's challenges and get what they ask for; ``NotPermitted`` where that is not to be had."""
        offered = {challenge.scheme: challenge for challenge in reversed(challenges(reply.headers("WWW-Authenticate")))}
        credential = self.credentials.find(registry, repository)
        lifetime = 3600.0
        if "bearer" in offered:
            value, lifetime = self._token(reply.url, offered["bearer"], scope, credential)
        elif "basic" in offered and credential is not None and credential.secret:
            value = credential.basic
        else:
            raise refused(registry, had_credential=credential is not None)
        with self._lock:
            self._known[Origin.of(safe_url(reply.url)), scope] = (value, time.monotonic() + lifetime)

    def forget(self, url: str, scope: str) -> None:
        """What was known did not work."""
        with self._lock:
            self._known.pop((Origin.of(safe_url(url)), scope), None)

    def _token(self, url: str, challenge: Challenge, scope: str, credential: Credential | None) -> tuple[str, float]:
        realm = challenge.parameters.get("realm", "")
        self._check_realm(url, realm)
        query = [("scope", part) for part in scope.split(" ")]
        if service := challenge.parameters.get("service"):
            query.insert(0, ("service", service))
        headers = {"Accept": "application/json"}
        if credential is not None and credential.identity_token:
            form = [("grant_type", "refresh_token"), ("client_id", "adyton"), *query]
            body = urlencode([*form, ("refresh_token", credential.identity_token)]).encode("ascii")
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            reply = self.http.request("POST", realm, headers, body)
        else:
            if credential is not None:
                headers["Authorization"] = credential.basic
            joint = "&" if "?" in realm else "?"
            reply = self.http.request("GET", f"{realm}{joint}{urlencode(query)}", headers)
        answer = reply.small(MAX_TOKEN_ANSWER)
        if reply.status in {400, 401, 403, 404}:
            raise refused(urlsplit(url).netloc, had_credential=credential is not None)
        if reply.status != 200:
            raise Unavailable(
                "the registry's token service did not answer as it must",
                code="registry_token",
                got=reply.status,
                spec=_SPEC,
            )
        try:
            parsed = msgspec.convert(strict_json.parse(answer, max_size=MAX_TOKEN_ANSWER), _TokenAnswer)
        except (ValueError, msgspec.ValidationError):
            parsed = _TokenAnswer()
        token = parsed.token or parsed.access_token
        if not token or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise Unavailable("the registry's token service gave no token", code="registry_token", spec=_SPEC)
        # Ten seconds early, so that a token does not expire on its way; at least one use, at most an hour.
        return f"Bearer {token}", min(max(parsed.expires_in - 10, 1), 3600)

    def _check_realm(self, url: str, realm: str) -> None:
        parts = safe_url(realm)
        secure = urlsplit(url).scheme == "https"
        if parts.scheme == "http" and (secure or not self.http.may_be_plain(Origin.of(parts))):
            raise Unavailable(
                "the registry sends credentials to an address without TLS; nothing was sent",
                code="registry_realm",
                field="realm",
                expected="https",
                got=shown(realm),
                spec=_SPEC,
            )


def refused(registry: str, *, had_credential: bool) -> NotPermitted:
    """The registry will not have it. Says whether credentials were sent, never which."""
    return NotPermitted(
        f"{registry} does not permit this",
        code="registry_denied",
        field="registry",
        got="the credentials that were sent" if had_credential else "no credentials",
        hint="log in (skopeo login, podman login), or name the file with --authfile",
    )


def _credential(entry: _Entry) -> Credential:
    user, secret = entry.username, entry.password
    if entry.auth:
        user, colon, secret = b64.decode(entry.auth).decode("utf-8").partition(":")
        if not colon:
            raise ValueError("auth has no colon")
        secret = secret.rstrip("\0")
    return Credential(user, secret, entry.identitytoken)


def _normal(name: str) -> str:
    """A key of ``auths`` without scheme, API version and trailing slash; Docker Hub under one name."""
    for scheme in ("https://", "http://"):
        name = name.removeprefix(scheme)
    name = re.sub(r"/v[12]/?\Z", "", name).rstrip("/")
    host, slash, rest = name.partition("/")
    return ("docker.io" if host in _HUB else host) + slash + rest
