"""Resources: secrets with the binding that says who may ever have them. Value and binding are sealed as one.

A key is a resource too: its row holds, instead of a value, what is known of it (``protocol.key_record``); the material of
its versions lies in a table of its own (``stores.keys``). So is a value that lies in a back end: its row holds where
(``Elsewhere``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from adyton.errors import Conflict, NotFound, TooLarge
from adyton.protocol.key_record import KeyRecord, State
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores import key_uses, quotas, resource_rows, tenants
from adyton.stores.erasures import Erasures
from adyton.stores.intents import Intent, Intents
from adyton.stores.removals import Removal, Removals, Waiting
from adyton.stores.resource_rows import Elsewhere, Kept, ResourceInfo
from adyton.stores.seal import Sealer
from adyton.stores.sql import Database, Transaction

MAX_VALUE = 2 * 1024 * 1024
ALL = 1 << 31
KIND, HEAD = "resource", "resource head"
STATEMENTS = (
    # What is told of a resource, sealed once more without its value, so that listing opens no value. It counts only for
    # the version that it is of; what was set before there were any is opened whole. kind is "key", or nothing.
    """CREATE TABLE resource_heads (
    tenant TEXT NOT NULL,
    path TEXT NOT NULL,
    version INTEGER NOT NULL,
    kind TEXT NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (tenant, path)
) STRICT""",
)


@dataclass(frozen=True, slots=True)
class StoredResource:
    """A resource with its value, which is not in its ``repr``, and is empty for a key: that has versions."""

    info: ResourceInfo
    kept: Kept = field(repr=False)

    @property
    def value(self) -> bytes:
        """The value; ``Conflict`` if it lies elsewhere, so that nobody takes nothing for it."""
        if isinstance(self.kept, Elsewhere):
            raise Conflict(
                "the value lies in a back end, not in the store",
                code="value_elsewhere",
                field=self.info.path.uri,
                got=self.kept.backend,
                hint="set it where it is wanted",
            )
        return self.kept if isinstance(self.kept, bytes) else b""

    @property
    def path(self) -> ResourcePath:
        """Where it is."""
        return self.info.path

    @property
    def binding(self) -> Binding:
        """Who may have it."""
        return self.info.binding

    @property
    def key(self) -> KeyRecord | None:
        """What it is if it is a key."""
        return self.info.key


_LISTED = (
    "SELECT r.path, r.version, r.updated, h.sealed FROM resources r LEFT JOIN resource_heads h"
    " ON h.tenant = r.tenant AND h.path = r.path AND h.version = r.version"
    " WHERE r.tenant=? AND r.path>?{only} ORDER BY r.path LIMIT ?"
)
_ONLY_KEYS = " AND (h.kind='key' OR h.kind IS NULL)"


class Resources:
    """The table of resources. Nothing here reads across tenants."""

    def __init__(
        self, database: Database, sealer: Sealer, removals: Removals, intents: Intents, erasures: Erasures
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._removals = removals
        self._intents = intents
        self._erasures = erasures

    def set(
        self, tenant: str, path: ResourcePath, value: bytes | Elsewhere, binding: Binding | None, now: datetime
    ) -> ResourceInfo:
        """Register or replace, durable on return. ``binding`` ``None`` keeps the one that there is, or binds to nobody.

        ``Conflict`` ``resource_is_key`` where a key is: its versions would be lost.
        """
        return self.exchange(tenant, path, value, binding, now)[0]

    def exchange(  # noqa: PLR0917 -- one value each
        self,
        tenant: str,
        path: ResourcePath,
        value: bytes | Elsewhere,
        binding: Binding | None,
        now: datetime,
        intent: Intent | None = None,
    ) -> tuple[ResourceInfo, Waiting | None]:
        """As ``set``; also what is to be removed from where the value lay that was replaced, if that was elsewhere.

        ``intent``: by which the value was put elsewhere; it ends here, or nothing is changed.
        """
        tenants.check(tenant)
        if isinstance(value, bytes) and len(value) > MAX_VALUE:
            raise TooLarge(f"a resource has at most {MAX_VALUE} bytes", code="resource_too_large", got=len(value))
        with self._database.write() as transaction:
            if intent is not None:
                self._intents.finish(transaction, intent)
            return self.put(transaction, tenant, path, value, binding, now)

    def put(  # noqa: PLR0917 -- one value each
        self,
        transaction: Transaction,
        tenant: str,
        path: ResourcePath,
        value: bytes | Elsewhere,
        binding: Binding | None,
        now: datetime,
    ) -> tuple[ResourceInfo, Waiting | None]:
        """As ``exchange``, inside a transaction."""
        version = tenants.touch(transaction, tenant)  # never used twice for one name, not even after deletion
        kept = self.read(transaction, tenant, path)  # here, so that a binding that changes meanwhile is not undone
        if kept is not None and kept.key is not None:
            raise _is_key(path)
        if binding is None:
            binding = kept.binding if kept is not None else Binding()
        self.write(transaction, tenant, str(path), version, now, binding, value)
        quotas.check(transaction, self._sealer, tenant, "resources", "bytes")
        left = self._leave(transaction, tenant, kept)
        return resource_rows.info(path, binding, version, now, value), left

    def seal_elsewhere(  # noqa: PLR0917 -- one value each
        self, tenant: str, path: ResourcePath, value: bytes, kind: str, backend: str, now: datetime
    ) -> tuple[int, bytes, Intent]:
        """A version that nothing else of the tenant has, ``value`` sealed with it before there is a row, and the intent."""
        tenants.check(tenant)
        with self._database.write(apart=True) as transaction:  # nothing of the tenant's is changed by a number
            version = tenants.touch(transaction, tenant)
            sealed = self._sealer.seal_for(transaction, value, tenant, kind, elsewhere_name(backend, path), version)
            removal = Removal("put", str(path), hashlib.sha256(sealed).hexdigest())
            return version, sealed, self._intents.add(transaction, tenant, version, backend, removal, now)

    def read(self, transaction: Transaction, tenant: str, path: ResourcePath) -> StoredResource | None:
        """As ``get``, inside a transaction."""
        row = transaction.execute(
            "SELECT version, updated, sealed FROM resources WHERE tenant=? AND path=?", (tenant, str(path))
        ).fetchone()
        return self._open(tenant, path, *row) if row else None

    def write(  # noqa: PLR0917 -- one value each
        self,
        transaction: Transaction,
        tenant: str,
        name: str,
        version: int,
        now: datetime,
        binding: Binding,
        value: Kept,
    ) -> None:
        """Put a row, inside a transaction; ``version`` is ``tenants.touch``'s."""
        if isinstance(value, KeyRecord):  # what a key takes, for the tenant's quota
            taken = "SELECT coalesce(sum(length(sealed)), 0) FROM key_versions WHERE tenant=? AND path=?"
            size = int(transaction.execute(taken, (tenant, name)).fetchone()[0])
        else:
            size = resource_rows.size(value)
        sealed = self._sealer.seal_for(transaction, resource_rows.pack(binding, value), tenant, KIND, name, version)
        transaction.execute(
            "INSERT INTO resources VALUES (?,?,?,?,?,?) ON CONFLICT (tenant, path) DO UPDATE SET version=excluded.version,"
            " updated=excluded.updated, size=excluded.size, sealed=excluded.sealed",
            (tenant, name, version, now.timestamp(), size, sealed),
        )
        head = resource_rows.size(value).to_bytes(8, "big") + resource_rows.pack(
            binding, b"" if isinstance(value, bytes) else value
        )
        transaction.execute(
            "INSERT INTO resource_heads VALUES (?,?,?,?,?) ON CONFLICT (tenant, path) DO UPDATE SET"
            " version=excluded.version, kind=excluded.kind, sealed=excluded.sealed",
            (
                tenant,
                name,
                version,
                "key" if isinstance(value, KeyRecord) else "",
                self._sealer.seal_for(transaction, head, tenant, HEAD, name, version),
            ),
        )

    def bind(self, tenant: str, path: ResourcePath, binding: Binding, now: datetime) -> ResourceInfo:
        """Replace the binding and keep the value; ``NotFound`` if there is none."""
        name = str(path)
        with self._database.write() as transaction:
            version = tenants.touch(transaction, tenant)
            kept = self.read(transaction, tenant, path)
            if kept is None:
                raise absent(path)
            self.write(transaction, tenant, name, version, now, binding, kept.kept)
        return resource_rows.info(path, binding, version, now, kept.kept)

    def get(self, tenant: str, path: ResourcePath) -> StoredResource | None:
        """The resource as it was last acknowledged, or ``None``."""
        rows = self._database.read(
            "SELECT version, updated, sealed FROM resources WHERE tenant=? AND path=?", (tenant, str(path))
        )
        return self._open(tenant, path, *rows[0]) if rows else None

    def with_generation(self, tenant: str, path: ResourcePath) -> tuple[int, StoredResource | None]:
        """As ``get``, and the tenant's generation at that same moment (see ``Store.generation``)."""
        rows = self._database.read(
            "SELECT t.generation, r.version, r.updated, r.sealed FROM tenants t"
            " LEFT JOIN resources r ON r.tenant = t.name AND r.path = ? WHERE t.name = ?",
            (str(path), tenant),
        )
        if not rows:
            return 0, None
        generation, version, updated, sealed = rows[0]
        return int(generation), None if version is None else self._open(tenant, path, version, updated, sealed)

    def _open(self, tenant: str, path: ResourcePath, version: int, updated: float, sealed: bytes) -> StoredResource:
        binding, kept = resource_rows.unpack(self._sealer.open(sealed, tenant, KIND, str(path), version))
        return StoredResource(
            resource_rows.info(path, binding, version, datetime.fromtimestamp(updated, UTC), kept), kept
        )

    def version(self, tenant: str, path: ResourcePath) -> int | None:
        """The version that was last acknowledged, or ``None`` if there is no such resource. Never used twice."""
        rows = self._database.read("SELECT version FROM resources WHERE tenant=? AND path=?", (tenant, str(path)))
        return int(rows[0][0]) if rows else None

    def list(self, tenant: str, *, after: str = "", limit: int = ALL, keys: bool = False) -> list[ResourceInfo]:
        """A tenant's resources by path, without their values: those after the path ``after``, at most ``limit``.

        ``keys``: those that are keys. Of an older store one value at a time is opened.
        """
        rows = self._database.read(_LISTED.format(only=_ONLY_KEYS if keys else ""), (tenant, after, limit))
        found: list[ResourceInfo] = []
        for name, version, updated, sealed in rows:
            path = ResourcePath.parse(name)
            if sealed is not None:
                head = self._sealer.open(sealed, tenant, HEAD, name, version)
                binding, kept = resource_rows.unpack(head[8:])
                info = resource_rows.info(path, binding, version, datetime.fromtimestamp(updated, UTC), kept)
                found.append(
                    info if kept != b"" else msgspec.structs.replace(info, size=int.from_bytes(head[:8], "big"))
                )
            elif (stored := self.get(tenant, path)) is not None:  # None: deleted meanwhile
                found.append(stored.info)
        return found

    def delete(self, tenant: str, path: ResourcePath) -> Waiting | None:
        """Forget it, durable on return; ``NotFound`` if there is none. Of a key every version is erased.

        ``Unavailable`` ``erasure_pending``: it is gone, and its bytes are not; doing it again goes on with those.
        Returns what is to be removed from where its value lies, if that is elsewhere: it lies there still.
        """
        with self._database.write() as transaction:
            kept = self.read(transaction, tenant, path)
            record = kept.key if kept is not None else None
            if (
                record is not None
                and record.backend
                and any(one.state is not State.DESTROYED for one in record.versions)
            ):
                raise _held(path, record.backend)
            done = transaction.execute("DELETE FROM resources WHERE tenant=? AND path=?", (tenant, str(path)))
            gone_before = not done.rowcount
            if gone_before and not self._erasures.waits(transaction, tenant, path):
                raise absent(path)
            transaction.execute("DELETE FROM resource_heads WHERE tenant=? AND path=?", (tenant, str(path)))
            material = transaction.execute("DELETE FROM key_versions WHERE tenant=? AND path=?", (tenant, str(path)))
            key_uses.forget(transaction, tenant, path)
            if material.rowcount:
                self._erasures.begin(transaction, tenant, path)
            left = self._leave(transaction, tenant, kept)
            tenants.touch(transaction, tenant)
        if gone_before or material.rowcount:  # of a plain value nothing more is promised
            self._erasures.finish()
        return left

    def leave_all(self, transaction: Transaction, tenant: str) -> None:
        """Queue what a tenant that goes has in back ends: values, and every version of its keys."""
        rows = transaction.execute("SELECT path FROM resources WHERE tenant=? ORDER BY path", (tenant,)).fetchall()
        for (path,) in rows:
            kept = self.read(transaction, tenant, ResourcePath.parse(path))
            self._leave(transaction, tenant, kept)
            if kept is not None and kept.key is not None and kept.key.backend:
                for handle in dict.fromkeys(version.handle for version in kept.key.versions if version.handle):
                    self._removals.add(transaction, tenant, kept.key.backend, Removal("key", path, handle))

    def _leave(self, transaction: Transaction, tenant: str, kept: StoredResource | None) -> Waiting | None:
        """Queue where the value lies, if that is elsewhere and it was put there by us."""
        where = kept.info.elsewhere if kept is not None else None
        if kept is None or where is None or where.foreign:
            return None
        return self._removals.add(transaction, tenant, where.backend, Removal("value", str(kept.path), where.pointer))


def elsewhere_name(backend: str, path: ResourcePath) -> str:
    """What a value that lies in a back end is sealed as."""
    return f"{backend} {path}"


def _held(path: ResourcePath, backend: str) -> Conflict:
    return Conflict(
        "a back end holds this key: it is destroyed there first",
        code="key_in_backend",
        field="resource",
        got=backend,
        hint=f"adyton key delete {path.uri}",
    )


def absent(path: ResourcePath) -> NotFound:
    """The error for a path where nothing is."""
    return NotFound(f"there is no resource {path.uri}", code="resource_absent", field="resource", got=path.uri)


def _is_key(path: ResourcePath) -> Conflict:
    return Conflict(
        f"{path.uri} is a key with versions; a value would take its place",
        code="resource_is_key",
        field="resource",
        got=path.uri,
        hint="rotate it (adyton key rotate), or delete it first",
    )
