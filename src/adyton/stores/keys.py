"""Keys: a record of their versions beside their binding (``stores.resources``), and the material of each version.

Each version's material is sealed under a data key of its own, and that key under the tenant's data keys, which the root
key wraps. Destroying a version deletes its row and makes the database overwrite it: from then on the root key, the tenant's
data keys and the database together no longer give the material. Backups that were made before still do.

Every change takes the tenant's row first (``tenants.touch``), so of two that change one key at once, one waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from adyton.errors import Conflict, Unavailable
from adyton.protocol import key_record
from adyton.protocol.key_record import KeyRecord, KeyVersion, State
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores import authorities, key_uses, quotas, tenants
from adyton.stores.authorities import Issued
from adyton.stores.erasures import Erasures
from adyton.stores.intents import Intent, Intents
from adyton.stores.key_uses import KeyUses
from adyton.stores.removals import Removal, Removals
from adyton.stores.resource_rows import ResourceInfo
from adyton.stores.resources import ALL, Resources, absent
from adyton.stores.seal import Sealer
from adyton.stores.sql import Database, Transaction

_KIND = "key version"
_NONCE = 12


class Material(msgspec.Struct, frozen=True, array_like=True):
    """A version's content: the key as it is kept (``crypto.key_kinds``), the public half (DER), the chain (DER)."""

    secret: bytes
    public: bytes = b""
    chain: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return "Material(…)"


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Material)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key without its material."""

    info: ResourceInfo
    record: KeyRecord = field(repr=False)


class Keys:
    """The keys of all tenants. Nothing here reads across them. Every change is durable on return."""

    def __init__(  # noqa: PLR0917 -- the tables beside it
        self,
        database: Database,
        sealer: Sealer,
        resources: Resources,
        intents: Intents,
        erasures: Erasures,
        removals: Removals,
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._resources = resources
        self._intents = intents
        self._erasures = erasures
        self._removals = removals
        self.uses = KeyUses(database)

    def create(  # noqa: PLR0917 -- one value each
        self,
        tenant: str,
        path: ResourcePath,
        record: KeyRecord,
        material: Material,
        binding: Binding,
        now: datetime,
        intent: Intent | None = None,
        issued: Issued | None = None,
    ) -> StoredKey:
        """A new key with its first version. ``Conflict`` ``resource_exists`` if anything is at ``path``.

        ``intent``: by which a back end made it; it ends here, or nothing is written. ``issued``: its certificate.
        """
        tenants.check(tenant)
        with self._database.write() as transaction:
            if intent is not None:
                self._intents.finish(transaction, intent)
            serial = tenants.touch(transaction, tenant)
            if self._resources.read(transaction, tenant, path) is not None:
                raise Conflict(
                    f"there is something at {path.uri} already",
                    code="resource_exists",
                    field="resource",
                    got=path.uri,
                    hint="rotate it (adyton key rotate), or delete it first",
                )
            first = msgspec.structs.replace(record.newest, serial=serial)
            record = msgspec.structs.replace(record, versions=(first,))
            self._seal(transaction, tenant, path, serial, material)
            key_uses.begin(transaction, tenant, path, serial, record.kind)
            if issued is not None:
                authorities.note(transaction, tenant, issued)
            self._resources.write(transaction, tenant, str(path), serial, now, binding, record)
            quotas.check(transaction, self._sealer, tenant, "resources", "bytes", "keys")
        return StoredKey(_info(path, binding, serial, now, record), record)

    def rotate(  # noqa: PLR0917 -- one value each
        self,
        tenant: str,
        path: ResourcePath,
        material: Material,
        version: KeyVersion,
        expected: KeyRecord,
        now: datetime,
        intent: Intent | None = None,
        issued: Issued | None = None,
    ) -> StoredKey:
        """One more version, made for ``expected``: ``Conflict`` ``key_changed`` if that is no longer what there is."""

        def turned(record: KeyRecord, serial: int) -> KeyRecord:
            if record != expected:
                raise Conflict("the key changed meanwhile", code="key_changed", field="resource", hint="try again")
            return key_record.rotate(record, msgspec.structs.replace(version, serial=serial))

        return self._change(tenant, path, turned, now, material, intent, issued)

    def disable(self, tenant: str, path: ResourcePath, number: int, now: datetime) -> StoredKey:
        """Nobody uses or gets this version from then on, until it is enabled."""
        return self._change(
            tenant, path, lambda record, _: key_record.disable(record, number, int(now.timestamp())), now
        )

    def enable(self, tenant: str, path: ResourcePath, number: int, now: datetime) -> StoredKey:
        """It can be used again; ``Conflict`` if it is destroyed."""
        return self._change(
            tenant, path, lambda record, _: key_record.enable(record, number, int(now.timestamp())), now
        )

    def destroy(self, tenant: str, path: ResourcePath, number: int | None, now: datetime) -> StoredKey:
        """Erase a version, or all of them. Doing it again erases what a failure may have left.

        What a back end holds of them is queued to be removed there (``removals``), in the same transaction.
        """

        def turned(record: KeyRecord, _: int) -> KeyRecord:
            wanted = record.versions if number is None else (key_record.version(record, number),)
            for one in wanted:
                if one.state is not State.DESTROYED:
                    record = key_record.destroy(record, one.number, int(now.timestamp()))
            return record

        stored = self._change(tenant, path, turned, now)
        self._erasures.finish()
        return stored

    def get(self, tenant: str, path: ResourcePath) -> StoredKey | None:
        """The key as it was last acknowledged; ``None`` if there is none, or what is there is no key."""
        found = self._resources.get(tenant, path)
        return StoredKey(found.info, found.key) if found is not None and found.key is not None else None

    def list(self, tenant: str, *, after: str = "", limit: int = ALL) -> list[StoredKey]:
        """A tenant's keys by path: those after the path ``after``, at most ``limit``."""
        found: list[StoredKey] = []
        while len(found) < limit:
            wanted = limit - len(found)
            page = self._resources.list(tenant, after=after, limit=wanted, keys=True)
            found += [StoredKey(info, info.key) for info in page if info.key is not None]
            if len(page) < wanted:
                break
            after = str(page[-1].path)  # of an older store some of them were no keys
        return found

    def material(self, tenant: str, path: ResourcePath, version: KeyVersion) -> Material:
        """What a version consists of. ``Conflict`` ``key_version_destroyed`` if it was erased meanwhile."""
        rows = self._database.read(
            "SELECT data_key, sealed FROM key_versions WHERE tenant=? AND path=? AND serial=?",
            (tenant, str(path), version.serial),
        )
        if not rows or version.state is State.DESTROYED:
            raise Conflict(
                f"version {version.number} of the key is destroyed",
                code="key_version_destroyed",
                field="version",
                got=version.number,
            )
        data_key, sealed = rows[0]
        own = self._sealer.open(data_key, tenant, _KIND, str(path), version.serial)
        try:
            opened = AESGCM(own).decrypt(sealed[:_NONCE], sealed[_NONCE:], _context(tenant, path, version.serial))
            return _DECODER.decode(opened)
        except (InvalidTag, ValueError) as error:
            raise Unavailable(
                "a stored key does not open as what its row says it is",
                code="sealed_value_broken",
                field=path.uri,
                hint="the store was damaged or changed behind the broker's back: restore the last backup",
            ) from error

    def _change(  # noqa: PLR0917 -- one value each
        self,
        tenant: str,
        path: ResourcePath,
        turn: Callable[[KeyRecord, int], KeyRecord],
        now: datetime,
        material: Material | None = None,
        intent: Intent | None = None,
        issued: Issued | None = None,
    ) -> StoredKey:
        with self._database.write() as transaction:
            if intent is not None:
                self._intents.finish(transaction, intent)
            serial = tenants.touch(transaction, tenant)
            kept = self._resources.read(transaction, tenant, path)
            if kept is None or kept.key is None:
                raise absent(path)
            record = turn(kept.key, serial)
            for before, after in zip(kept.key.versions, record.versions, strict=False):
                if after.state is State.DESTROYED and before.state is not State.DESTROYED:
                    transaction.execute(
                        "DELETE FROM key_versions WHERE tenant=? AND path=? AND serial=?",
                        (tenant, str(path), before.serial),
                    )
                    key_uses.forget(transaction, tenant, path, before.serial)
                    self._erasures.begin(transaction, tenant, path)
                    if kept.key.backend and before.handle:
                        self._removals.add(
                            transaction, tenant, kept.key.backend, Removal("key", str(path), before.handle)
                        )
            if material is not None:
                self._seal(transaction, tenant, path, serial, material)
                key_uses.begin(transaction, tenant, path, serial, record.kind)
            if issued is not None:
                authorities.note(transaction, tenant, issued)
            self._resources.write(transaction, tenant, str(path), serial, now, kept.binding, record)
            if material is not None:
                quotas.check(transaction, self._sealer, tenant, "bytes")
        return StoredKey(_info(path, kept.binding, serial, now, record), record)

    def _seal(self, transaction: Transaction, tenant: str, path: ResourcePath, serial: int, material: Material) -> None:
        own, nonce = AESGCM.generate_key(256), AESGCM.generate_key(128)[:_NONCE]
        sealed = nonce + AESGCM(own).encrypt(nonce, _ENCODER.encode(material), _context(tenant, path, serial))
        transaction.execute(
            "INSERT INTO key_versions VALUES (?,?,?,?,?)",
            (
                tenant,
                str(path),
                serial,
                self._sealer.seal_for(transaction, own, tenant, _KIND, str(path), serial),
                sealed,
            ),
        )


def _context(tenant: str, path: ResourcePath, serial: int) -> bytes:
    parts = (b"adyton key version 1", tenant.encode(), str(path).encode(), b"%d" % serial)
    return b"".join([len(part).to_bytes(4, "big") + part for part in parts])


def _info(path: ResourcePath, binding: Binding, version: int, now: datetime, record: KeyRecord) -> ResourceInfo:
    return ResourceInfo(path=path, binding=binding, version=version, updated=now, size=0, key=record)
