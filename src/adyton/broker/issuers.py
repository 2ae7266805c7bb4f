"""Tokens of others: which attestation services a tenant believes, and what a token of theirs must be (the passport).

Nobody is believed unless a file says so: whose token (``iss``), signed by which keys (a JWK set in a file, or at an address
whose certificate is pinned or leads to a CA), for which audience, and, where the issuer serves several tenants as Adyton does,
for which of them: another tenant's policy over there is not this tenant's word. A key in a token's own header is never believed.
"""

from __future__ import annotations

import logging
import threading
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from adyton.client.address import BrokerAddress
from adyton.client.transport import Transport
from adyton.crypto import jwt
from adyton.crypto.jwt import VerifyingKeys
from adyton.errors import AdytonError, ConfigError, SessionInvalid, Unavailable
from adyton.protocol import ear
from adyton.protocol.ear import TokenClaims

REFRESH_SECONDS = 300.0
_LOG = logging.getLogger(__name__)
_PATH = "/.well-known/jwks.json"


class IssuerFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One issuer as its TOML file names it.

    ``tenant``: who believes it, here. ``issuer``: its ``iss``. Keys: ``jwks``, a file (relative to this one) or, with ``url``,
    what ``/.well-known/jwks.json`` there gives; ``pin`` (``sha256:`` of the SPKI) or the machine's CAs say who answers.
    ``issuer_tenant``: what Adyton's own tokens must name. ``audience``: what ``aud`` must contain; without it a token that
    has an audience is somebody else's. ``max_token_seconds``: how far ahead its end may lie; ``keys_seconds``: how long keys
    are believed that cannot be asked for again.
    """

    issuer: str
    tenant: str = "default"
    jwks: str = ""
    url: str = ""
    pin: str | None = None
    issuer_tenant: str = ""
    audience: str = ""
    max_token_seconds: int = 3600
    keys_seconds: int = 86_400


@dataclass(slots=True)
class TrustedIssuer:
    """One issuer with its keys of now. Unix seconds: ``refreshed`` is when they were last asked for, ``had`` when they came."""

    said: IssuerFile
    keys: VerifyingKeys
    refreshed: float
    directory: Path
    had: float


@dataclass(slots=True)
class Issuers:
    """All of them, by the tenant that believes them."""

    trusted: tuple[TrustedIssuer, ...] = ()
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def verify(self, tenant: str, token: str, now: float) -> TokenClaims:
        """The claims of a token that one of ``tenant``'s issuers signed; ``SessionInvalid`` otherwise."""
        name = jwt.unverified_issuer(token)
        for one in self.trusted:
            if one.said.tenant == tenant and one.said.issuer == name:
                if now - one.had > one.said.keys_seconds:
                    raise SessionInvalid("the issuer's keys are too old to be believed", code="token_issuer_stale")
                return _judged(one.said, jwt.verify_any(token, one.keys, now=now), now)
        raise SessionInvalid("the token's issuer is not believed here", code="token_issuer_unknown")

    def refresh(self, now: float) -> None:
        """Read keys again that are old; those that cannot be had stay as they are, and the log says so."""
        with self._turn:
            for one in self.trusted:
                if now - one.refreshed < REFRESH_SECONDS:
                    continue
                one.refreshed = now
                try:
                    one.keys, one.had = _keys(one.said, one.directory), now
                except AdytonError as error:
                    _LOG.warning("keys of issuer %s not refreshed: %s [%s]", one.said.issuer, error.message, error.code)


def load(files: Iterable[str], now: float) -> Issuers:
    """Read the files and their keys; ``ConfigError`` for one that cannot be used: it never becomes "nobody is asked"."""
    found: list[TrustedIssuer] = []
    for name in files:
        path = Path(name)
        try:
            said = msgspec.convert(tomllib.loads(path.read_text("utf-8")), IssuerFile)
        except (OSError, ValueError, RecursionError) as error:
            raise _unusable(name, str(error)[:200]) from error
        if not said.issuer or bool(said.jwks) == bool(said.url):
            raise _unusable(name, "an issuer, and either jwks or url")
        if said.max_token_seconds <= 0 or said.keys_seconds <= 0:
            raise _unusable(name, "seconds that are none")
        if any((one.said.tenant, one.said.issuer) == (said.tenant, said.issuer) for one in found):
            raise _unusable(name, "this tenant has this issuer already")
        try:
            found.append(TrustedIssuer(said, _keys(said, path.parent), now, path.parent, now))
        except Unavailable as error:  # two brokers that believe each other must be able to start
            _LOG.warning("no keys of issuer %s yet: %s [%s]", said.issuer, error.message, error.code)
            found.append(TrustedIssuer(said, VerifyingKeys({}, ()), now - REFRESH_SECONDS, path.parent, now))
    return Issuers(tuple(found))


def _keys(said: IssuerFile, directory: Path) -> VerifyingKeys:
    if said.url:
        with Transport(BrokerAddress(said.url, pin=said.pin)) as transport:
            reply = transport.request("GET", _PATH)
        if reply.status != 200:
            raise ConfigError(
                "the issuer does not give its keys", code="token_issuer_file", field=said.url, got=reply.status
            )
        return jwt.verifying_keys(reply.body)
    try:
        raw = (directory / said.jwks).read_bytes()
    except OSError as error:
        raise _unusable(said.jwks, error.strerror or "unreadable") from error
    try:
        return jwt.verifying_keys(raw)
    except SessionInvalid as error:
        raise _unusable(said.jwks, error.message) from error


def _judged(said: IssuerFile, claims: dict[str, object], now: float) -> TokenClaims:
    audience = claims.get("aud", [])
    named = [audience] if isinstance(audience, str) else audience if isinstance(audience, list) else [None]
    if (said.audience not in named) if said.audience else named:
        raise SessionInvalid("the token is for another audience", code="token_audience")
    own = claims.get("adyton")
    tenant = own.get("tenant") if isinstance(own, dict) else ""
    if tenant != said.issuer_tenant:
        raise SessionInvalid("the token is of another tenant of its issuer", code="token_issuer_tenant")
    read = ear.read(claims)
    if read.expires - now > said.max_token_seconds:
        raise SessionInvalid("the token is valid for longer than any of its issuer's may be", code="token_too_long")
    # What an issuer says of its own bookkeeping is not this broker's: no generation of ours is meant.
    raw = {name: value for name, value in read.raw.items() if name != "adyton"}
    return msgspec.structs.replace(read, raw=raw)


def _unusable(name: str, why: str) -> ConfigError:
    return ConfigError(
        "this does not say whose tokens to believe",
        code="token_issuer_file",
        field=name,
        expected="TOML with issuer, tenant, jwks or url",
        got=why,
        hint="see docs/broker/services.md",
    )
