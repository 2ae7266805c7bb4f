"""People and what they show who they are with: keys, tokens, and what identity providers call them.

Everything is looked up by organisation first, so one organisation's names, keys and tokens are nothing to another.
Of a token the SHA-256 of its secret is kept (256 random bits, so a plain hash does), sealed with its expiry.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias, TypeVar

import msgspec

from adyton.errors import Conflict, NotFound, TooMany
from adyton.protocol.people import ProviderBody
from adyton.stores import tenants
from adyton.stores.seal import Sealer
from adyton.stores.sql import Database, Transaction
from adyton.stores.tenant_settings import BROKER

MAX_PEOPLE = 10_000
MAX_CREDENTIALS = 50
MAX_PROVIDERS = 20
CredentialKind: TypeAlias = Literal["key", "token", "subject"]
_T = TypeVar("_T")


class Person(msgspec.Struct, frozen=True):
    """As stored. ``tenants`` ``None``: all of the organisation."""

    role: str
    tenants: tuple[str, ...] | None = None


class Credential(msgspec.Struct, frozen=True, omit_defaults=True):
    """As stored. ``secret`` is a key's 32 public bytes or the digest of a token's secret; Unix seconds, 0 for no end.

    ``made_by``: the id of the token by which its owner made it; it counts while that one does.
    """

    person: str
    secret: bytes = b""
    created: float = 0.0
    expires: float = 0.0
    made_by: str = ""


@dataclass(frozen=True, slots=True)
class StoredCredential:
    """A credential with its kind and id."""

    kind: CredentialKind
    id: str
    value: Credential


class People:
    """The tables of people, credentials and identity providers. ``organisation`` empty: people of the broker."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    def get(self, organisation: str, name: str) -> Person | None:
        """Somebody, or ``None``."""
        rows = self._database.read(
            "SELECT version, sealed FROM people WHERE organisation=? AND name=?", (organisation, name)
        )
        return self._open("person", organisation, name, rows[0], Person) if rows else None

    def members(self, organisation: str) -> list[tuple[str, Person]]:
        """All of an organisation's people, by name."""
        rows = self._database.read(
            "SELECT name, version, sealed FROM people WHERE organisation=? ORDER BY name", (organisation,)
        )
        return [(row[0], self._open("person", organisation, row[0], row[1:], Person)) for row in rows]

    def set(self, organisation: str, name: str, person: Person, subjects: tuple[str, ...], now: datetime) -> None:
        """Set or replace somebody, and what identity providers call them; ``Conflict`` for a subject of another's."""
        with self._database.write() as transaction:
            (count,) = transaction.execute(
                "SELECT count(*) FROM people WHERE organisation=? AND name<>?", (organisation, name)
            ).fetchone()
            if count >= MAX_PEOPLE:
                raise TooMany(f"an organisation has at most {MAX_PEOPLE} people", code="too_many_people")
            version = tenants.touch(transaction, BROKER)
            sealed = self._seal("person", organisation, name, version, person)
            transaction.execute(
                "INSERT INTO people VALUES (?,?,?,?) ON CONFLICT (organisation, name) DO UPDATE SET"
                " version=excluded.version, sealed=excluded.sealed",
                (organisation, name, version, sealed),
            )
            transaction.execute(
                "DELETE FROM credentials WHERE organisation=? AND kind='subject' AND person=?", (organisation, name)
            )
            for subject in subjects:
                self._add(transaction, organisation, "subject", subject, Credential(name, b"", now.timestamp()))

    def delete(self, organisation: str, name: str) -> None:
        """Forget somebody and all credentials; ``NotFound``."""
        with self._database.write() as transaction:
            done = transaction.execute("DELETE FROM people WHERE organisation=? AND name=?", (organisation, name))
            if not done.rowcount:
                raise absent(name)
            transaction.execute("DELETE FROM credentials WHERE organisation=? AND person=?", (organisation, name))

    def add(self, organisation: str, kind: CredentialKind, number: str, value: Credential) -> None:
        """Give somebody a credential; ``NotFound``, ``Conflict`` if it is in use, ``TooMany``."""
        with self._database.write() as transaction:
            if not transaction.execute(
                "SELECT 1 FROM people WHERE organisation=? AND name=?", (organisation, value.person)
            ).fetchone():
                raise absent(value.person)
            self._add(transaction, organisation, kind, number, value)

    def _add(
        self, transaction: Transaction, organisation: str, kind: CredentialKind, number: str, value: Credential
    ) -> None:
        (count,) = transaction.execute(
            "SELECT count(*) FROM credentials WHERE organisation=? AND person=?", (organisation, value.person)
        ).fetchone()
        if count >= MAX_CREDENTIALS:
            raise TooMany(f"somebody has at most {MAX_CREDENTIALS} credentials", code="too_many_credentials")
        version = tenants.touch(transaction, BROKER)
        sealed = self._seal(kind, organisation, number, version, value)
        done = transaction.execute(
            "INSERT INTO credentials VALUES (?,?,?,?,?,?) ON CONFLICT DO NOTHING",
            (organisation, kind, number, value.person, version, sealed),
        )
        if not done.rowcount:
            raise Conflict("this is somebody's already", code="credential_in_use", field=kind, got=number[:80])

    def credential(self, organisation: str, kind: CredentialKind, number: str) -> Credential | None:
        """A credential by what names it, or ``None``."""
        rows = self._database.read(
            "SELECT version, sealed FROM credentials WHERE organisation=? AND kind=? AND id=?",
            (organisation, kind, number),
        )
        return self._open(kind, organisation, number, rows[0], Credential) if rows else None

    def credentials(
        self, organisation: str, person: str | None = None, kind: CredentialKind | None = None
    ) -> list[StoredCredential]:
        """Those of an organisation, or of one of its people, or of a kind."""
        asked = {"organisation": organisation, "person": person, "kind": kind}
        named = {name: value for name, value in asked.items() if value is not None}
        rows = self._database.read(
            "SELECT kind, id, version, sealed FROM credentials WHERE "  # noqa: S608 -- ours
            + " AND ".join(f"{name}=?" for name in named)
            + " ORDER BY kind, id",
            tuple(named.values()),
        )
        return [
            StoredCredential(row[0], row[1], self._open(row[0], organisation, row[1], row[2:], Credential))
            for row in rows
        ]

    def remove(self, organisation: str, person: str, kind: CredentialKind, number: str) -> None:
        """Take a credential away; ``NotFound``."""
        with self._database.write() as transaction:
            done = transaction.execute(
                "DELETE FROM credentials WHERE organisation=? AND kind=? AND id=? AND person=?",
                (organisation, kind, number, person),
            )
            if not done.rowcount:
                raise NotFound(f"there is no such {kind}", code="credential_absent", field=kind, got=number[:80])

    def forget_expired(self, now: datetime) -> None:
        """Drop tokens that have ended."""
        rows = self._database.read("SELECT organisation, id FROM credentials WHERE kind='token'")
        ended = []
        for organisation, number in rows:
            found = self.credential(organisation, "token", number)
            if found is not None and 0 < found.expires <= now.timestamp():
                ended.append((organisation, number))
        if ended:
            with self._database.write() as transaction:
                transaction.executemany("DELETE FROM credentials WHERE organisation=? AND kind='token' AND id=?", ended)

    def providers(self, organisation: str) -> list[tuple[str, ProviderBody]]:
        """The identity providers that know an organisation's people, by name."""
        rows = self._database.read(
            "SELECT name, version, sealed FROM identity_providers WHERE organisation=? ORDER BY name", (organisation,)
        )
        return [(row[0], self._open("identity provider", organisation, row[0], row[1:], ProviderBody)) for row in rows]

    def set_provider(self, name: str, body: ProviderBody) -> None:
        """Set or replace an identity provider."""
        with self._database.write() as transaction:
            (count,) = transaction.execute(
                "SELECT count(*) FROM identity_providers WHERE organisation=? AND name<>?", (body.organisation, name)
            ).fetchone()
            if count >= MAX_PROVIDERS:
                raise TooMany(f"at most {MAX_PROVIDERS} identity providers", code="too_many_providers")
            version = tenants.touch(transaction, BROKER)
            sealed = self._seal("identity provider", body.organisation, name, version, body)
            transaction.execute(
                "INSERT INTO identity_providers VALUES (?,?,?,?) ON CONFLICT (organisation, name) DO UPDATE SET"
                " version=excluded.version, sealed=excluded.sealed",
                (body.organisation, name, version, sealed),
            )

    def delete_provider(self, organisation: str, name: str) -> None:
        """Forget an identity provider; whom it knows is nobody here from then on. ``NotFound``."""
        with self._database.write() as transaction:
            done = transaction.execute(
                "DELETE FROM identity_providers WHERE organisation=? AND name=?", (organisation, name)
            )
            if not done.rowcount:
                raise NotFound(
                    f"there is no identity provider {name[:80]!r}", code="identity_provider_absent", field="name"
                )

    def _seal(self, kind: str, organisation: str, name: str, version: int, value: msgspec.Struct) -> bytes:
        return self._sealer.seal(msgspec.json.encode(value), organisation, kind, name, version)

    def _open(self, kind: str, organisation: str, name: str, row: tuple[int, bytes], form: type[_T]) -> _T:
        return msgspec.json.decode(self._sealer.open(row[1], organisation, kind, name, row[0]), type=form)


def absent(name: str) -> NotFound:
    """Nobody of that name."""
    return NotFound(f"there is nobody called {name[:80]!r}", code="person_absent", field="name")
