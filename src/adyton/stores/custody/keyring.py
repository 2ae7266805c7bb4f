"""The root key of a store: opened by whichever custodian is at hand, given to others, replaced.

Replacing it is one transaction: every data key is wrapped anew, every slot gets the new root key, and new data keys
seal what comes. The only thing beside the database is the plain file, where that is still in use: the new key is laid beside it
first and takes its place afterwards. Killed at any point, either the old root key opens the store or the new one does, and
``unlock`` finds out which.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from adyton.crypto.aead import random_bytes
from adyton.crypto.profile import USUAL, Profile
from adyton.crypto.shamir import Share
from adyton.errors import AdytonError, ConfigError, Conflict
from adyton.stores import rootkey, seal, whole_file
from adyton.stores.backends.port import KeyHolder
from adyton.stores.custody import device, passphrase, private_file, shared, slots, tpm
from adyton.stores.custody.port import Custodian
from adyton.stores.custody.slots import Slot
from adyton.stores.sql import Database, Transaction

Told: TypeAlias = Callable[[Transaction], None]
"""Writes down what was changed, as the last part of the transaction that changes it."""


def _untold(_: Transaction) -> None:
    pass


_ORDER = (tpm.KIND, device.KIND, shared.KIND, passphrase.KIND)
"""A person is asked last."""


@dataclass(slots=True)
class Openers:
    """The custodians at hand. What is not given cannot be opened."""

    passphrase: Callable[[], bytes] | None = field(default=None, repr=False)
    tcti: str = tpm.DEFAULT_TCTI
    holders: Callable[[str], KeyHolder] | None = None
    shares: Sequence[Share] = field(default=(), repr=False)
    profile: Profile = USUAL

    def custodian(self, slot: Slot) -> Custodian | None:
        """Who may open this slot, or ``None``."""
        match slot.kind:
            case tpm.KIND:
                return tpm.TpmCustodian(self.tcti)
            case device.KIND if self.holders is not None:
                named = slot.kept.details.get("holder")
                handle = slot.kept.details.get("handle")
                if isinstance(named, str) and isinstance(handle, str):
                    return device.DeviceCustodian(self.holders(named), handle, named)
            case passphrase.KIND if self.passphrase is not None:
                return passphrase.PassphraseCustodian(self.passphrase(), profile=self.profile)
            case shared.KIND if self.shares:
                return shared.SharesCustodian(self.shares)
        return None


@dataclass(frozen=True, slots=True)
class Opened:
    """The root key, and who gave it: ``plain``, or the slot's name."""

    root_key: bytes = field(repr=False)
    by: str


def identity(database: Database) -> tuple[bytes, bytes | None]:
    """The store's id (empty if it has none yet) and its root key's (``None`` if it has none yet)."""
    found = {name: bytes(value) for name, value in database.read("SELECT name, value FROM meta")}
    return found.get("store", b""), found.get("root")


def is_new(database: Database) -> bool:
    """Whether no root key was ever used here."""
    return identity(database)[1] is None and not database.read("SELECT 1 FROM data_keys LIMIT 1")


def unlock(database: Database, plain: Path, openers: Openers) -> Opened | None:
    """The root key of this store; ``None`` if it is new and nobody keeps one for it.

    ``ConfigError``: ``root_key_missing`` where there is neither file nor slot, ``root_key_wrong`` where the file holds
    another store's and there is no slot, ``root_key_locked`` with what each custodian said.
    """
    if (found := _plain(database, plain)) is not None:
        return Opened(found, "plain")
    store, _ = identity(database)
    held = slots.read(database)
    said: list[str] = []
    for slot in sorted(held, key=lambda slot: (_ORDER.index(slot.kind) if slot.kind in _ORDER else 9, slot.name)):
        try:
            custodian = openers.custodian(slot)
            if custodian is None:
                said.append(f"{slot.name}: {_needs(slot)}")
                continue
            root_key = slots.open_(slot, custodian, store)
            if _fits(database, root_key):
                return Opened(root_key, slot.name)
            said.append(f"{slot.name}: holds another store's root key [slot_changed]")
        except AdytonError as error:
            said.append(f"{slot.name}: {error.message} [{error.code}]" + (f" ({error.field})" if error.field else ""))
            if not isinstance(error, ConfigError) and len(held) == 1:
                raise
    if held:
        raise ConfigError(
            "no custodian at hand opens the root key",
            code="root_key_locked",
            field=database.where,
            got="; ".join(said)[:1500],
            hint="adyton broker root-key show lists the slots; the owners' shares open it when nothing else does",
        )
    if plain.exists() or next_to(plain).exists():
        raise seal.wrong_root(database.where)
    if is_new(database):
        return None
    raise ConfigError(
        "the root key of this store is not there",
        code="root_key_missing",
        field=str(plain),
        hint="restore the file from a backup, or name it: --root-key-file; without it the values cannot be had back",
    )


def _needs(slot: Slot) -> str:
    return {
        passphrase.KIND: "needs its passphrase (--passphrase-file)",
        device.KIND: f"needs the device {slot.kept.details.get('holder')}",
        shared.KIND: "needs its owners' shares (adyton broker root-key recover)",
    }.get(slot.kind, f"is of a kind that is not known here ({slot.kind})")


def _plain(database: Database, plain: Path) -> bytes | None:
    """What the file holds if it is this store's key; the one beside it, if a rotation was cut off after it counted."""
    beside = next_to(plain)
    if plain.exists():
        found = rootkey.load(plain)
        if is_new(database) or _fits(database, found):
            return found
    if beside.exists() and not is_new(database):
        found = rootkey.load(beside)
        if _fits(database, found):
            beside.replace(plain)
            whole_file.sync(plain.parent)
            return found
    return None


def _fits(database: Database, root_key: bytes) -> bool:
    store, known = identity(database)
    if known is not None:
        return hmac.compare_digest(slots.root_id(root_key), known)
    try:  # a store of before root keys had names
        cipher = AESGCM(root_key)
        for number, wrapped in database.read("SELECT id, wrapped FROM data_keys"):
            seal.unwrap(cipher, store, number, wrapped)
    except (InvalidTag, ValueError):
        return False
    return True


def next_to(plain: Path) -> Path:
    """Where the coming root key lies while it does not count yet."""
    return plain.with_name(plain.name + ".next")


def begin(database: Database, make: Callable[[bytes, bytes], Slot], told: Told = _untold) -> bytes:
    """A new store's root key, made in its first slot and nowhere else; ``Conflict`` if the store has one."""
    root_key = random_bytes(32)
    with database.write() as transaction:
        store = seal.store_id(transaction)
        if (
            transaction.execute("SELECT 1 FROM data_keys LIMIT 1").fetchone()
            or transaction.execute("SELECT 1 FROM meta WHERE name='root'").fetchone()
        ):
            raise Conflict(
                "this store has a root key already",
                code="root_key_exists",
                field=database.where,
                hint="adyton broker root-key change puts it into other hands",
            )
        slots.add(transaction, make(root_key, store))
        transaction.execute("INSERT INTO meta VALUES ('root', ?)", (slots.root_id(root_key),))
        told(transaction)
    return root_key


def add(
    database: Database,
    opened: Opened,
    make: Callable[[bytes, bytes], Slot],
    *,
    replace: bool = False,
    told: Told = _untold,
) -> Slot:
    """Another slot for the root key that is there; ``replace``: in the place of one of that name."""
    store, _ = identity(database)
    made = make(opened.root_key, store)
    with database.write() as transaction:
        _still(transaction, opened.root_key, database.where)
        if replace:
            slots.remove(transaction, made.name)
        slots.add(transaction, made)
        told(transaction)
    return made


def remove(database: Database, opened: Opened, name: str, plain: Path, told: Told = _untold) -> None:
    """Take a slot away; ``Conflict`` ``last_slot`` if nothing else would open the store."""
    slots.one(database, name)
    others = [slot for slot in slots.read(database) if slot.name != name]
    if not others and _plain(database, plain) is None:
        raise Conflict(
            "nothing else would open the store",
            code="last_slot",
            field=f"slot {name}",
            hint="add another one first: adyton broker root-key add",
        )
    with database.write() as transaction:
        _still(transaction, opened.root_key, database.where)
        slots.remove(transaction, name)
        told(transaction)
    database.purge(keys=True)


def rotate(
    database: Database,
    opened: Opened,
    plain: Path,
    now: datetime,
    *,
    keep_plain: bool,
    keep: Callable[[Slot], bool] = lambda _: True,
    make: Callable[[bytes, bytes], Slot] | None = None,
    told: Told = _untold,
) -> Opened:
    """A new root key for the slots that are kept, for a new one, and for the plain file if it is kept.

    No broker may run on the store. ``ConfigError`` ``slot_changed`` if a slot is not one that the old root key made.
    """
    store, _ = identity(database)
    root_key = random_bytes(32)
    held = slots.read(database)
    for slot in held:
        slots.check(slot, opened.root_key, store)
    after = [slots.given(slot, root_key, store) for slot in held if keep(slot)]
    if make is not None:
        made = make(root_key, store)
        if made.name in {slot.name for slot in after}:
            raise Conflict(f"there is a slot {made.name!r} already", code="slot_exists", field="slot", got=made.name)
        after.append(made)
    if not after and not keep_plain:
        raise Conflict("nothing would open the store", code="last_slot", field="slot")
    if keep_plain:
        private_file.write(next_to(plain), root_key, replace=True)
    with database.write() as transaction:
        _still(transaction, opened.root_key, database.where)
        _rewrap(transaction, opened.root_key, root_key, store, now)
        slots.replace_all(transaction, after)
        told(transaction)
    if keep_plain:
        next_to(plain).replace(plain)
    else:
        plain.unlink(missing_ok=True)
        next_to(plain).unlink(missing_ok=True)
    whole_file.sync(plain.parent)
    database.purge(keys=True)  # what the old root key opened is no longer in the file
    return Opened(root_key, "plain" if keep_plain else after[-1].name)


def _rewrap(transaction: Transaction, old: bytes, new: bytes, store: bytes, now: datetime) -> None:
    from_, to = AESGCM(old), AESGCM(new)
    last = 0
    for number, wrapped in transaction.execute("SELECT id, wrapped FROM data_keys ORDER BY id").fetchall():
        key = seal.unwrap(from_, store, number, wrapped)
        transaction.execute("UPDATE data_keys SET wrapped=? WHERE id=?", (seal.wrap(to, store, number, key), number))
        last = number
    if last < seal.MAX_KEYS:
        fresh = seal.wrap(to, store, last + 1, AESGCM.generate_key(256))
        transaction.execute("INSERT INTO data_keys VALUES (?,?,?)", (last + 1, fresh, now.timestamp()))
    newest: dict[str, int] = {}
    rows = transaction.execute("SELECT tenant, id, wrapped FROM tenant_keys ORDER BY tenant, id").fetchall()
    for tenant, number, wrapped in rows:
        again = seal.wrap(to, store, number, seal.unwrap(from_, store, number, wrapped, tenant), tenant)
        transaction.execute("UPDATE tenant_keys SET wrapped=? WHERE tenant=? AND id=?", (again, tenant, number))
        newest[tenant] = number
    for tenant, number in newest.items():
        if number < seal.MAX_KEYS:
            fresh = seal.wrap(to, store, number + 1, AESGCM.generate_key(256), tenant)
            transaction.execute("INSERT INTO tenant_keys VALUES (?,?,?)", (tenant, number + 1, fresh))
    transaction.execute(
        "INSERT INTO meta VALUES ('root', ?) ON CONFLICT (name) DO UPDATE SET value=excluded.value",
        (slots.root_id(new),),
    )


def _still(transaction: Transaction, root_key: bytes, where: str) -> None:
    """The root key that was opened is still the store's: nobody has replaced it meanwhile."""
    found = transaction.execute("SELECT value FROM meta WHERE name='root'").fetchone()
    if found is not None and not hmac.compare_digest(bytes(found[0]), slots.root_id(root_key)):
        raise seal.wrong_root(where)
