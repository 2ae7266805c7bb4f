"""Resources: secrets with the binding that says who may ever have them. Value and binding are sealed as one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from adyton.errors import NotFound, TooLarge, Unavailable
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores import tenants
from adyton.stores.seal import Sealer
from adyton.stores.sql import Database, Transaction

MAX_VALUE = 2 * 1024 * 1024
_KIND = "resource"


class ResourceInfo(msgspec.Struct, frozen=True):
    """What may be shown of a resource: everything but its value. ``size`` in bytes."""

    path: ResourcePath
    binding: Binding
    version: int
    updated: datetime
    size: int


@dataclass(frozen=True, slots=True)
class StoredResource:
    """A resource with its value. The value is not in its ``repr``."""

    info: ResourceInfo
    value: bytes = field(repr=False)

    @property
    def path(self) -> ResourcePath:
        """Where it is."""
        return self.info.path

    @property
    def binding(self) -> Binding:
        """Who may have it."""
        return self.info.binding


class Resources:
    """The table of resources. Nothing here reads across tenants."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    def set(
        self, tenant: str, path: ResourcePath, value: bytes, binding: Binding | None, now: datetime
    ) -> ResourceInfo:
        """Register or replace, durable on return. ``binding`` ``None`` keeps the one that there is, or binds to nobody."""
        tenants.check(tenant)
        if len(value) > MAX_VALUE:
            raise TooLarge(f"a resource has at most {MAX_VALUE} bytes", code="resource_too_large", got=len(value))
        name = str(path)
        with self._database.write() as transaction:
            if binding is None:  # read here, so that a binding that changes meanwhile is not undone
                binding = self._binding(transaction, tenant, name)
            version = tenants.touch(transaction, tenant)  # never used twice for one name, not even after deletion
            sealed = self._sealer.seal(_pack(binding, value), tenant, _KIND, name, version)
            transaction.execute(
                "INSERT OR REPLACE INTO resources VALUES (?,?,?,?,?,?)",
                (tenant, name, version, now.timestamp(), len(value), sealed),
            )
        return ResourceInfo(path=path, binding=binding, version=version, updated=now, size=len(value))

    def _binding(self, transaction: Transaction, tenant: str, name: str) -> Binding:
        row = transaction.execute(
            "SELECT version, sealed FROM resources WHERE tenant=? AND path=?", (tenant, name)
        ).fetchone()
        return _unpack(self._sealer.open(row[1], tenant, _KIND, name, row[0]))[0] if row else Binding()

    def bind(self, tenant: str, path: ResourcePath, binding: Binding, now: datetime) -> ResourceInfo:
        """Replace the binding and keep the value; ``NotFound`` if there is none."""
        name = str(path)
        with self._database.write() as transaction:
            row = transaction.execute(
                "SELECT version, sealed FROM resources WHERE tenant=? AND path=?", (tenant, name)
            ).fetchone()
            if row is None:
                raise _absent(path)
            _, value = _unpack(self._sealer.open(row[1], tenant, _KIND, name, row[0]))
            version = tenants.touch(transaction, tenant)
            sealed = self._sealer.seal(_pack(binding, value), tenant, _KIND, name, version)
            transaction.execute(
                "UPDATE resources SET version=?, updated=?, sealed=? WHERE tenant=? AND path=?",
                (version, now.timestamp(), sealed, tenant, name),
            )
        return ResourceInfo(path=path, binding=binding, version=version, updated=now, size=len(value))

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
        binding, value = _unpack(self._sealer.open(sealed, tenant, _KIND, str(path), version))
        return StoredResource(
            ResourceInfo(
                path=path,
                binding=binding,
                version=version,
                updated=datetime.fromtimestamp(updated, UTC),
                size=len(value),
            ),
            value,
        )

    def version(self, tenant: str, path: ResourcePath) -> int | None:
        """The version that was last acknowledged, or ``None`` if there is no such resource. Never used twice."""
        rows = self._database.read("SELECT version FROM resources WHERE tenant=? AND path=?", (tenant, str(path)))
        return int(rows[0][0]) if rows else None

    def list(self, tenant: str) -> list[ResourceInfo]:
        """All of a tenant's resources by path, without their values; one value at a time is in memory."""
        paths = self._database.read("SELECT path FROM resources WHERE tenant=? ORDER BY path", (tenant,))
        found = (self.get(tenant, ResourcePath.parse(path)) for (path,) in paths)
        return [stored.info for stored in found if stored is not None]  # None: deleted meanwhile

    def delete(self, tenant: str, path: ResourcePath) -> None:
        """Forget it, durable on return; ``NotFound`` if there is none."""
        with self._database.write() as transaction:
            done = transaction.execute("DELETE FROM resources WHERE tenant=? AND path=?", (tenant, str(path)))
            if not done.rowcount:
                raise _absent(path)
            tenants.touch(transaction, tenant)


def _pack(binding: Binding, value: bytes) -> bytes:
    encoded = msgspec.json.encode(binding)
    return len(encoded).to_bytes(4, "big") + encoded + value


_BINDING = msgspec.json.Decoder(Binding)


def _unpack(opened: bytes) -> tuple[Binding, bytes]:
    end = 4 + int.from_bytes(opened[:4], "big")
    try:
        return _BINDING.decode(opened[4:end]), opened[end:]
    except msgspec.DecodeError as error:
        raise Unavailable(
            "a stored binding was written by another version of Adyton",
            code="stored_value_foreign",
            hint="run the version that wrote it, or set the resource again",
        ) from error


def _absent(path: ResourcePath) -> NotFound:
    return NotFound(f"there is no resource {path.uri}", code="resource_absent", field="resource", got=path.uri)
