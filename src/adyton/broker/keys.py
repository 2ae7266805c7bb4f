"""The broker's own keys: those that seal cookies, and those that sign tokens. They last over a restart and rotate.

They lie in the store, sealed, as one secret. A new key is written ``HEAD_START`` seconds before it is used, so that
every worker of every broker knows it by then, and exactly one of them writes it; an old one opens and verifies until
nothing made with it can still be valid. Times are the store's (``Store.time``), so that brokers that share one agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from adyton.crypto.aead import ID_SIZE, KeyRing, random_bytes
from adyton.crypto.jwt import Signer, jwks
from adyton.errors import NotFound, Unavailable
from adyton.stores.keepsakes import Secrets

NAME = "broker keys"
HEAD_START = 180.0
COOKIE_SECONDS = 12 * 3600.0
TOKEN_SECONDS = 30 * 24 * 3600.0
KEEP_SECONDS = 24 * 3600.0
MAX_KEYS = 64


class _Key(msgspec.Struct, frozen=True):
    begins: float
    id: bytes
    key: bytes


class _Stored(msgspec.Struct, frozen=True):
    cookies: list[_Key]
    tokens: list[_Key]


@dataclass(frozen=True, slots=True)
class BrokerKeys:
    """The keys as they are at one moment. ``verifiers`` are the public keys by ``kid``, ``jwks`` the published set.

    ``source`` tells two readings apart: the stored bytes' hash and which keys are current.
    """

    cookies: KeyRing
    signer: Signer
    verifiers: Mapping[str, ec.EllipticCurvePublicKey]
    jwks: bytes
    source: tuple[bytes, bytes, bytes]


_DECODER = msgspec.json.Decoder(_Stored)


def load(secrets: Secrets, now: float, known: BrokerKeys | None = None) -> BrokerKeys:
    """The keys at ``now`` (Unix seconds), ``known`` itself if they are those. The first call on a store makes them."""
    raw = secrets.get_or_create(NAME, lambda: msgspec.json.encode(_first(now)))
    stored = _read(raw)
    cookie, token = _current(stored.cookies, now), _current(stored.tokens, now)
    source = (hashlib.sha256(raw).digest(), cookie.id, token.id)
    if known is not None and known.source == source:
        return known
    signers = tuple(Signer.load(key.key) for key in stored.tokens)
    return BrokerKeys(
        cookies=KeyRing({key.id: key.key for key in stored.cookies}, cookie.id),
        signer=Signer.load(token.key),
        verifiers={signer.kid: signer.private.public_key() for signer in signers},
        jwks=jwks(signers),
        source=source,
    )


def rotate(secrets: Secrets, now: float, *, drop: bool = True) -> bool:
    """Write new keys where the newest are old enough, drop what is too old. Of several that try, one does it; tells if.

    ``drop``: whether the clock can be trusted so far that an old key may be thrown away.
    """

    def turn(raw: bytes | None) -> bytes | None:
        if raw is None:
            return None
        stored = _read(raw)
        turned = _Stored(
            cookies=_turn(stored.cookies, now, COOKIE_SECONDS, _cookie_key, drop=drop),
            tokens=_turn(stored.tokens, now, TOKEN_SECONDS, _token_key, drop=drop),
        )
        return None if turned == stored else msgspec.json.encode(turned)

    # Looked at before it is locked: there is seldom anything to do.
    return turn(secrets.get(NAME)) is not None and secrets.change(NAME, turn)


def revoke(secrets: Secrets, kid: str, now: float) -> None:
    """Forget a signing key now, with a new one in its place if it was the last; ``NotFound``. Whoever signed with it is not believed."""

    def turn(raw: bytes | None) -> bytes:
        stored = _read(raw) if raw is not None else _Stored([], [])
        kept = [key for key in stored.tokens if key.id != kid.encode()]
        if len(kept) == len(stored.tokens):
            raise NotFound("no signing key of this broker has this id", code="kid_unknown", field="value", got=kid[:80])
        if all(key.begins > now for key in kept):
            kept.append(_token_key(now))
        return msgspec.json.encode(_Stored(stored.cookies, kept))

    secrets.change(NAME, turn)


def _turn(keys: list[_Key], now: float, seconds: float, make: _Make, *, drop: bool) -> list[_Key]:
    if all(key.begins > now for key in keys):
        return keys  # the clock was set back behind all of them: nothing can be said of their age
    # A key of a time to come was made under a clock that was ahead. It would hold up the next one, so it begins soon.
    soon = now + HEAD_START
    turned = [key if key.begins <= soon else _Key(soon, key.id, key.key) for key in keys]
    if max(key.begins for key in turned) + seconds <= now:
        turned.append(make(soon))
    if not drop:
        return sorted(turned, key=lambda key: key.begins)[-MAX_KEYS:] if len(turned) > MAX_KEYS else turned
    # In use until its successor began: whatever was made with it has ended KEEP_SECONDS later.
    begins = sorted(key.begins for key in turned)
    ended = [min((other for other in begins if other > key.begins), default=now) for key in turned]
    return [key for key, end in zip(turned, ended, strict=True) if end + KEEP_SECONDS > now]


class _Make(Protocol):
    def __call__(self, begins: float) -> _Key: ...


def _first(now: float) -> _Stored:
    return _Stored(cookies=[_cookie_key(now)], tokens=[_token_key(now)])


def _cookie_key(begins: float) -> _Key:
    return _Key(begins, random_bytes(ID_SIZE), random_bytes(32))


def _token_key(begins: float) -> _Key:
    signer = Signer.generate()
    return _Key(begins, signer.kid.encode(), signer.dump())


def _current(keys: list[_Key], now: float) -> _Key:
    if begun := [key for key in keys if key.begins <= now]:
        return max(begun, key=lambda key: key.begins)
    # A clock that was set back must not leave the broker without keys. The newest may still be in its head start, and
    # the oldest go first: so it is the one before the newest.
    ordered = sorted(keys, key=lambda key: key.begins)
    return ordered[-2] if len(ordered) > 1 else ordered[0]


def _read(raw: bytes) -> _Stored:
    try:
        stored = _DECODER.decode(raw)
    except msgspec.DecodeError as error:
        raise Unavailable("the broker's stored keys cannot be read", code="keys_unreadable") from error
    if not stored.cookies or not stored.tokens:
        raise Unavailable("the broker's stored keys are empty", code="keys_unreadable")
    return stored
