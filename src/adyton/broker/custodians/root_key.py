"""Who administers the root key: on the broker's machine, as the broker's user, with a custodian at hand. Never over the API.

Slots may be added while the broker serves. What replaces the root key, or takes a way to it away, needs the store for
itself: a broker that runs would go on with what it has in memory. Every change is a row of the audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from adyton.broker.running import replicas
from adyton.broker.settings import Settings
from adyton.crypto.jwk import TeeKey
from adyton.crypto.shamir import Share
from adyton.errors import ConfigError, DocumentInvalid
from adyton.protocol.audit_row import AuditRow
from adyton.stores import audit, moved, rootkey
from adyton.stores.audit import AuditLog
from adyton.stores.backup import CopiedFile
from adyton.stores.custody import keyring, private_file, shared, slots
from adyton.stores.custody.keyring import Opened, Openers, Told
from adyton.stores.custody.port import Custodian
from adyton.stores.custody.slots import Slot
from adyton.stores.database import SqliteDatabase
from adyton.stores.lock import BrokerLock
from adyton.stores.sql import Database, Transaction
from adyton.stores.sqlite import FILE
from adyton.stores.tenants import DEFAULT

PLAIN = "file"
Make = Callable[[bytes, bytes], Slot]


@dataclass(frozen=True, slots=True)
class Shown:
    """What may be told of a root key: who holds it, by which name it goes, never what it is."""

    root: str
    store: str
    plain: str
    slots: tuple[Slot, ...]


@dataclass(slots=True)
class Custody:
    """The custody of one store, opened by ``of``."""

    database: Database
    plain: Path
    openers: Openers
    now: datetime

    def show(self) -> Shown:
        """Without opening anything. ``plain`` is the file's path, or empty if there is none."""
        store, root = keyring.identity(self.database)
        there = str(self.plain) if self.plain.exists() else ""
        return Shown((root or b"").hex(), store.hex(), there, tuple(slots.read(self.database)))

    def open(self) -> Opened:
        """The root key; ``ConfigError`` ``root_key_missing`` for a store that has none yet."""
        found = keyring.unlock(self.database, self.plain, self.openers)
        if found is None:
            raise ConfigError(
                "this store has no root key yet",
                code="root_key_missing",
                field=self.database.where,
                hint="adyton broker root-key init, or start the broker: adyton broker serve",
            )
        return found

    def begin(self, custodian: Custodian, name: str) -> None:
        """Give a new store its root key, with this one custodian."""
        if self.plain.exists():
            raise ConfigError(
                "there is a root key's file already",
                code="root_key_exists",
                field=str(self.plain),
                hint="adyton broker root-key change puts it into other hands",
            )
        keyring.begin(self.database, self._maker(custodian, name), self._told("root-key.init", name, custodian.kind))

    def add(self, custodian: Custodian, name: str, opened: Opened | None = None, *, replace: bool = False) -> Slot:
        """Another slot, in the place of one of that name if ``replace``."""
        opened = opened or self.open()
        told = self._told("root-key.add", name, custodian.kind, opened)
        return keyring.add(self.database, opened, self._maker(custodian, name), replace=replace, told=told)

    def remove(self, name: str) -> None:
        """Take a slot away. Who could open it may still know the root key: rotate it then."""
        opened = self.open()
        keyring.remove(self.database, opened, name, self.plain, self._told("root-key.remove", name, "", opened))

    def rotate(self) -> Opened:
        """A new root key for all who hold the present one."""
        opened = self.open()
        told = self._told("root-key.rotate", "", "", opened)
        return keyring.rotate(
            self.database, opened, self.plain, self.now, keep_plain=self._plain_counts(opened), told=told
        )

    def change(self, custodian: Custodian | None, name: str, *, keep: Callable[[Slot], bool]) -> Opened:
        """A new root key with this custodian (``None``: the plain file) and the slots that are kept, and with nobody else."""
        opened = self.open()
        make = None if custodian is None else self._maker(custodian, name)
        told = self._told("root-key.change", name, PLAIN if custodian is None else custodian.kind, opened)
        return keyring.rotate(
            self.database, opened, self.plain, self.now, keep_plain=custodian is None, keep=keep, make=make, told=told
        )

    def split(self, owners: Sequence[tuple[str, TeeKey]], threshold: int, name: str) -> list[bytes]:
        """A slot in shares, one for each owner; returns their files."""
        opened = self.open()
        store, _ = keyring.identity(self.database)
        dealer = shared.SharesDealer(owners, threshold, store, name)
        told = self._told("root-key.split", name, f"{threshold} of {len(owners)}", opened)
        keyring.add(self.database, opened, self._maker(dealer, name), told=told)
        return dealer.files

    def recover(self, given: Sequence[tuple[Share, str, str]]) -> Opened:
        """The root key by owners' shares (as ``protocol.shares.parse`` gives them), whatever else would open it.

        ``DocumentInvalid`` names a share that is forged, or of another store, slot or set.
        """
        store, _ = keyring.identity(self.database)
        name = given[0][2] if given else shared.KIND
        for share, of_store, of_slot in given:
            if of_store != store.hex() or of_slot != name:
                raise DocumentInvalid(
                    f"share {share.index} is of another store or slot",
                    code="share_foreign",
                    field=f"share {share.index}",
                    expected=f"{name} of {store.hex()}",
                    got=f"{of_slot[:40]} of {of_store[:40]}",
                    hint="leave it out, or give the data directory that it is of",
                )
        slot = slots.one(self.database, name)
        found = slots.open_(slot, shared.SharesCustodian([share for share, _, _ in given]), store)
        opened = Opened(found, f"{name} ({', '.join(str(share.index) for share, _, _ in given)})")
        with self.database.write(audit.lock(DEFAULT)) as transaction:
            self._told("root-key.recover", name, shared.KIND, opened)(transaction)
        return opened

    def keep_plain(self, opened: Opened | None = None) -> None:
        """Put the root key into its plain file. The row is there first: no transaction holds a file."""
        opened = opened or self.open()
        with self.database.write(audit.lock(DEFAULT)) as transaction:
            self._told("root-key.add", PLAIN, PLAIN, opened)(transaction)
        private_file.write(self.plain, opened.root_key)

    def _plain_counts(self, opened: Opened) -> bool:
        return self.plain.exists() and rootkey.load(self.plain) == opened.root_key

    def _maker(self, custodian: Custodian, name: str) -> Make:
        return lambda root_key, store: slots.make(name, custodian, root_key, store, self.now)

    def _told(self, action: str, name: str, kind: str, opened: Opened | None = None) -> Told:
        """Writes the row of a change inside its transaction. Without a name it is that of the root key that counts then."""
        reasons = tuple(
            text for text in (f"kind: {kind}" if kind else "", f"opened by: {opened.by}" if opened else "") if text
        )

        def told(transaction: Transaction) -> None:
            found = name or bytes(transaction.execute("SELECT value FROM meta WHERE name='root'").fetchone()[0]).hex()
            row = AuditRow(action=action, decision="allowed", resource=found[:300], actor="operator", reasons=reasons)
            self.database.lock(transaction, audit.lock(DEFAULT))
            AuditLog(self.database).enter(transaction, DEFAULT, [row], self.now)

        return told


@contextmanager
def of(settings: Settings, openers: Openers, now: datetime, *, alone: bool, new: bool = False) -> Iterator[Custody]:
    """The custody of the settings' store. ``alone``: no broker may run on its directory; ``new``: make it if it is not there.

    Other brokers of a shared database are not seen: after a rotation they must be started anew. Until then they go on
    with the data keys that they know, and wrap no new one.
    """
    directory, shared_database = settings.directory, replicas.opener(settings)
    if new or shared_database is not None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    elif not (directory / FILE).exists():
        raise ConfigError(
            "there is no broker's store",
            code="store_absent",
            field=str(directory),
            hint="give its data directory: --data DIR",
        )
    lock = BrokerLock.take(directory) if alone else None
    try:
        if lock is None and shared_database is None and (directory / FILE).exists():
            with closing(CopiedFile(directory / FILE, served=True)) as served:
                served.check()  # an older broker may serve it: its store is not to be brought up to date under its hands
        if shared_database is None:
            moved.check(directory)
        database = SqliteDatabase(directory / FILE) if shared_database is None else shared_database()
        try:
            yield Custody(database, settings.root_key, openers, now)
        finally:
            database.close()
    finally:
        if lock is not None:
            lock.release()
