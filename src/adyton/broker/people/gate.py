"""Which principal asks: by the admin token, a personal token, a key of theirs, or what an identity provider says.

All of them come as ``Authorization: Bearer``. People are looked for in the tenant's organisation, then among the
broker's own; elsewhere their tokens and keys are as unknown as a stranger's. Secrets compare in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from datetime import datetime

from adyton.broker.people.identity import Identities
from adyton.broker.people.people import ROOT, Principal, Role, principal
from adyton.crypto import jws
from adyton.crypto.aead import random_bytes
from adyton.crypto.jws import Parsed, TrustedKey
from adyton.errors import NotPermitted
from adyton.stores.people import MAX_CREDENTIALS, Credential
from adyton.stores.sqlite import Store
from adyton.wire import b64

PREFIX = "adyton_"
AUDIENCE = "adyton"
LONGEST_KEY_TOKEN = 24 * 3600
MAX_KEYS_TRIED = 100
_SWITCH = "admin token"


class Gate:
    """Says who asks. Of the admin token only its digest is kept in memory."""

    def __init__(
        self, token: str, store: Store, identities: Identities, audiences: frozenset[str] = frozenset()
    ) -> None:
        """``audiences``: what a token that somebody signed must name, one of them; empty: ``adyton``, or nothing."""
        if len(token) < 32:
            raise ValueError("an admin token has at least 32 characters")
        self._digest = hashlib.sha256(token.encode()).digest()
        self._store = store
        self._identities = identities
        self._audiences = audiences

    def check(self, authorization: bytes | None, organisation: str, now: datetime) -> Principal:
        """Who the header makes known to a tenant of ``organisation``; ``NotPermitted``. May ask an identity provider."""
        scheme, _, given = (authorization or b"").partition(b" ")
        given = given.strip()
        if scheme.lower() != b"bearer" or not given or len(given) > jws.MAX_TOKEN:
            raise refused()
        if hmac.compare_digest(hashlib.sha256(given).digest(), self._digest):
            if not self.root_enabled():
                raise NotPermitted("the admin token is switched off", code="admin_token_off")
            return ROOT
        try:
            token = given.decode("ascii")
        except UnicodeDecodeError as error:
            raise refused() from error
        organisations = dict.fromkeys((organisation, ""))
        if token.startswith(PREFIX):
            return self._personal(token, organisations, now)
        if token.count(".") == 2:
            return self._signed(jws.parse(token), organisations, now)
        raise refused()

    def again(self, organisation: str, person: str, *, root: bool) -> Principal | None:
        """Somebody as they are now, or ``None`` if they are nobody any more."""
        if root:
            return ROOT if self.root_enabled() else None
        found = self._store.people.get(organisation, person)
        return None if found is None else principal(organisation, person, found, "registered")

    def root_enabled(self) -> bool:
        """Whether the admin token is accepted."""
        return self._store.secrets.get(_SWITCH) != b"off"

    def switch_root(self, *, enabled: bool) -> None:
        """Accept the admin token from now on, or refuse it."""
        self._store.secrets.set(_SWITCH, b"on" if enabled else b"off")

    def _personal(self, token: str, organisations: dict[str, None], now: datetime) -> Principal:
        number, _, secret = token.removeprefix(PREFIX).partition("_")
        digest = token_digest(secret)
        for organisation in organisations:
            found = self._store.people.credential(organisation, "token", number)
            if found is not None and hmac.compare_digest(found.secret, digest):
                if found.expires <= now.timestamp():
                    raise NotPermitted("the token has expired", code="token_expired")
                self._check_origin(organisation, found)
                person = self._person(organisation, found.person, f"token {number}")
                return replace(person, token=number, until=found.expires)
        raise refused()

    def _check_origin(self, organisation: str, token: Credential) -> None:
        """``NotPermitted`` unless the token that made this one, and the one that made that, are still there."""
        for _ in range(MAX_CREDENTIALS):
            if not token.made_by:
                return
            found = self._store.people.credential(organisation, "token", token.made_by)
            if found is None or found.person != token.person:
                break
            token = found
        raise refused()

    def _signed(self, parsed: Parsed, organisations: dict[str, None], now: datetime) -> Principal:
        issuer = parsed.claims.get("iss")
        for organisation in organisations:
            for name, provider in self._store.people.providers(organisation):
                if provider.issuer == issuer:
                    known = self._identities.know(name, provider, parsed, now.timestamp())
                    subject = f"{name}:{known.subject}"
                    linked = self._store.people.credential(organisation, "subject", subject)
                    if linked is not None:
                        return self._person(organisation, linked.person, f"identity provider {name}")
                    if known.mapped is None:
                        raise NotPermitted("the identity provider gives no role here", code="token_role")
                    mapped = known.mapped
                    return Principal(
                        name=f"{organisation}/oidc:{subject}" if organisation else f"oidc:{subject}",
                        role=Role(mapped.role),
                        organisation=organisation,
                        tenants=None if mapped.tenants is None else frozenset(mapped.tenants),
                        by=f"identity provider {name}",
                    )
        return self._by_key(parsed, organisations, now)

    def _by_key(self, parsed: Parsed, organisations: dict[str, None], now: datetime) -> Principal:
        """A token that somebody signed with a key of theirs; older CoCo tools name no key in it and no audience."""
        if parsed.algorithm not in {"EdDSA", "Ed25519"}:
            raise NotPermitted("the token is of no issuer that is known", code="token_issuer")
        for organisation in organisations:
            keys = self._keys(organisation, parsed.kid)
            try:
                key = jws.verify(parsed, [trusted for trusted, _ in keys], ("EdDSA", "Ed25519"))
            except NotPermitted:
                continue
            jws.check_times(parsed.claims, now.timestamp(), longest=LONGEST_KEY_TOKEN)
            self._check_audience(parsed.claims.get("aud"))
            person = next(value.person for trusted, value in keys if trusted.kid == key.kid)
            return self._person(organisation, person, f"key {key.kid}")
        raise refused()

    def _check_audience(self, audience: object) -> None:
        if audience is None and not self._audiences:  # of an older tool
            return
        named = audience if isinstance(audience, list) else [audience]
        if not any(one in named for one in self._audiences or (AUDIENCE,)):
            raise NotPermitted(
                "the token is for another audience" if audience is not None else "the token names no audience",
                code="token_audience",
                field="aud",
                hint="sign one for this broker, at the address that it is called by: adyton … --broker URL --admin-key FILE",
            )

    def _keys(self, organisation: str, kid: str) -> list[tuple[TrustedKey, Credential]]:
        if kid:
            found = self._store.people.credential(organisation, "key", kid)
            return [(jws.ed25519_key(found.secret), found)] if found is not None else []
        stored = self._store.people.credentials(organisation, kind="key")
        return [(jws.ed25519_key(one.value.secret), one.value) for one in stored[:MAX_KEYS_TRIED]]

    def _person(self, organisation: str, name: str, by: str) -> Principal:
        found = self._store.people.get(organisation, name)
        if found is None:
            raise refused()
        return principal(organisation, name, found, by)


def new_token() -> tuple[str, str, bytes]:
    """A personal token: its id, the whole of it (to be shown once), and what is kept of it."""
    number, secret = b64.encode_url(random_bytes(9)).replace("_", "-"), b64.encode_url(random_bytes(32))
    return number, f"{PREFIX}{number}_{secret}", token_digest(secret)


def token_digest(secret: str) -> bytes:
    """What is kept of a token's secret. 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode("ascii", "replace")).digest()


def refused() -> NotPermitted:
    """The one answer to everybody who is nobody here: it does not say what was wrong."""
    return NotPermitted("administration needs the admin token", code="admin_token_refused")
