"""Reference values by tenant and name, with an expiry that is enforced; read as frozen snapshots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

import msgspec

from adyton.errors import DocumentInvalid, NotFound, TooLarge
from adyton.rats.types import JsonValue
from adyton.stores import tenants
from adyton.stores.database import Database
from adyton.stores.seal import Sealer

MAX_VALUE = 256 * 1024
MAX_NAME = 256
_KIND = "reference"


@dataclass(frozen=True, slots=True)
class StoredReference:
    """One reference value; ``expires`` ``None`` means that it does not."""

    name: str
    value: JsonValue
    version: int
    updated: datetime
    expires: datetime | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A tenant's unexpired reference values at one moment (``rats.ports.ReferenceValues``).

    ``expires_next`` is when the first of them expires: from then on the snapshot must be taken anew.
    """

    generation: int
    values: Mapping[str, JsonValue]
    expires_next: datetime | None

    def get(self, name: str) -> JsonValue:
        """The value, or ``None`` when there is none or it has expired."""
        return self.values.get(name)

    def names(self) -> Iterable[str]:
        """The names that have an unexpired value."""
        return self.values.keys()


class References:
    """The table of reference values."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    def set(self, tenant: str, name: str, value: JsonValue, expires: datetime | None, now: datetime) -> StoredReference:
        """Publish or replace, durable on return. ``null`` is refused: it would mean *missing*."""
        return self.set_all(tenant, {name: value}, expires, now)[0]

    def set_all(
        self, tenant: str, values: Mapping[str, JsonValue], expires: datetime | None, now: datetime
    ) -> list[StoredReference]:
        """As ``set``, all of them or, if one cannot be taken, none."""
        tenants.check(tenant)
        encoded = {name: _encode(name, value, expires, now) for name, value in values.items()}
        found = []
        with self._database.write() as transaction:
            for name, body in encoded.items():
                version = tenants.touch(transaction, tenant, references=True)
                # The expiry decides, so it is sealed with the value; the column beside it is for people and queries.
                sealed = self._sealer.seal(_expiry(expires) + body, tenant, _KIND, name, version)
                transaction.execute(
                    'INSERT OR REPLACE INTO "references" VALUES (?,?,?,?,?,?)',
                    (tenant, name, version, now.timestamp(), expires.timestamp() if expires else None, sealed),
                )
                found.append(StoredReference(name, values[name], version, now, expires))
        return found

    def list(self, tenant: str) -> list[StoredReference]:
        """All of a tenant's reference values by name, expired ones included."""
        found = []
        for name, version, updated, sealed in self._database.read(
            'SELECT name, version, updated, sealed FROM "references" WHERE tenant=? ORDER BY name', (tenant,)
        ):
            found.append(self._open(tenant, name, version, updated, sealed))
        return found

    def get(self, tenant: str, name: str) -> StoredReference | None:
        """One reference value, expired or not."""
        rows = self._database.read(
            'SELECT name, version, updated, sealed FROM "references" WHERE tenant=? AND name=?', (tenant, name)
        )
        return self._open(tenant, *rows[0]) if rows else None

    def snapshot(self, tenant: str, now: datetime) -> Snapshot:
        """What holds at ``now``: counter and values from one read, so that they belong together."""
        rows = self._database.read(
            "SELECT t.reference_generation, r.name, r.version, r.updated, r.sealed FROM tenants t"
            ' LEFT JOIN "references" r ON r.tenant = t.name WHERE t.name=? ORDER BY r.name',
            (tenant,),
        )
        found = [self._open(tenant, *row[1:]) for row in rows if row[1] is not None]
        valid = [item for item in found if item.expires is None or item.expires > now]
        return Snapshot(
            generation=int(rows[0][0]) if rows else 0,
            values={item.name: item.value for item in valid},
            expires_next=min((item.expires for item in valid if item.expires is not None), default=None),
        )

    def delete(self, tenant: str, name: str) -> None:
        """Withdraw it, durable on return; ``NotFound`` if there is none."""
        with self._database.write() as transaction:
            done = transaction.execute('DELETE FROM "references" WHERE tenant=? AND name=?', (tenant, name))
            if not done.rowcount:
                raise NotFound(f"there is no reference value {name!r}", code="reference_absent", field="name")
            tenants.touch(transaction, tenant, references=True)

    def _open(self, tenant: str, name: str, version: int, updated: float, sealed: bytes) -> StoredReference:
        opened = self._sealer.open(sealed, tenant, _KIND, name, version)
        micros = int.from_bytes(opened[:8], "big")
        return StoredReference(
            name=name,
            value=cast("JsonValue", msgspec.json.decode(opened[8:])),
            version=version,
            updated=datetime.fromtimestamp(updated, UTC),
            expires=datetime.fromtimestamp(micros / 1_000_000, UTC) if micros else None,
        )


def _encode(name: str, value: JsonValue, expires: datetime | None, now: datetime) -> bytes:
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise DocumentInvalid(
            f"a reference value's name has 1 to {MAX_NAME} printable characters",
            code="reference_name_invalid",
            field="name",
            got=name[:80],
        )
    if value is None:
        raise DocumentInvalid(
            "a reference value may not be null", code="reference_null", field=name, hint="delete it instead"
        )
    if expires is not None and expires <= now:
        raise DocumentInvalid(
            "the reference value has expired already", code="reference_expired", field=name, got=expires.isoformat()
        )
    encoded = msgspec.json.encode(value)
    if len(encoded) > MAX_VALUE:
        raise TooLarge(f"a reference value has at most {MAX_VALUE} bytes", code="reference_too_large")
    return encoded


def _expiry(expires: datetime | None) -> bytes:
    return (round(expires.timestamp() * 1_000_000) if expires else 0).to_bytes(8, "big")
