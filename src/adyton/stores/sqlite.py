"""The broker's store: everything that must last, in one SQLite file of one directory, or in a database that is shared.

``Store.open`` without ``instance`` becomes the broker of the directory (a second one is refused, ``stores/lock.py``);
further worker processes of that broker open it with the first one's ``instance``, each for itself, never over a fork.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from adyton.errors import ConfigError
from adyton.protocol.audit_row import AuditRow
from adyton.stores import audit, moved, schema
from adyton.stores.audit import AuditLog
from adyton.stores.authorities import Authorities
from adyton.stores.changes import Changes, under_way
from adyton.stores.database import SqliteDatabase
from adyton.stores.deed import Deed
from adyton.stores.erasures import Erasures
from adyton.stores.intents import Intents
from adyton.stores.keepsakes import ClaimSets, Secrets
from adyton.stores.keys import Keys
from adyton.stores.lock import BrokerLock
from adyton.stores.people import People
from adyton.stores.policies import Policies
from adyton.stores.policy_trials import DryRuns, Recordings, Staged
from adyton.stores.promotions import Promotions
from adyton.stores.proposals import Proposals
from adyton.stores.providers import Providers
from adyton.stores.references import References
from adyton.stores.removals import Removals
from adyton.stores.resources import Resources
from adyton.stores.revoked import Revocations
from adyton.stores.seal import Sealer
from adyton.stores.sql import Database
from adyton.stores.tenant_settings import TenantRegistry
from adyton.stores.turns import Turn

FILE = moved.FILE


class Store:
    """An open store. Every method of its tables takes the tenant; all changes are durable on return."""

    def __init__(self, lock: BrokerLock, database: Database, sealer: Sealer) -> None:
        self._lock = lock
        self._database = database
        self.sealer = sealer
        self.removals = Removals(database, sealer)
        self.intents = Intents(database, sealer, self.removals, lock.instance, shared=database.elsewhere)
        self.erasures = Erasures(database)
        self.resources = Resources(database, sealer, self.removals, self.intents, self.erasures)
        self.authorities = Authorities(database, sealer)
        self.keys = Keys(database, sealer, self.resources, self.intents, self.erasures, self.removals)
        self.policies = Policies(database, sealer)
        self.dry_runs, self.staged = DryRuns(database), Staged(database)
        self.recordings = Recordings(database, sealer)
        self.references = References(database, sealer)
        self.providers = Providers(database, sealer)
        self.promotions = Promotions(database, self.policies, self.references, self.resources)
        self.revoked = Revocations(database)
        self._changes: Changes | None = None
        self._generations: dict[str, tuple[bytes, int]] = {}
        self.audit = AuditLog(database)
        self.secrets = Secrets(database, sealer)
        self.claims = ClaimSets(database)
        self.registry = TenantRegistry(database, sealer, schema.tables_of_tenants(), self.resources.leave_all)
        self.people = People(database, sealer)
        self.proposals = Proposals(database, sealer, lock.instance, shared=database.elsewhere)

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        root_key: bytes | Callable[[Database], bytes],
        now: datetime,
        instance: str | None = None,
        database: Callable[[], Database] | None = None,
    ) -> Store:
        """Open or make the store in ``directory``, or in the ``database`` that is opened under that directory's lock.

        ``root_key`` is 32 bytes that lie elsewhere, or who finds them.
        ``ConfigError`` if another broker runs there, the root key is wrong, or the file is not a store;
        ``Unavailable`` if it is damaged or the disk fails.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot make the broker's data directory: {error.strerror}",
                code="store_unusable",
                field=str(directory),
            ) from error
        lock = BrokerLock.take(directory) if instance is None else BrokerLock.join(directory, instance)
        try:
            if database is None:
                moved.check(directory)
            opened = SqliteDatabase(directory / FILE) if database is None else database()
            try:
                return cls(lock, opened, Sealer(opened, found_key(opened, root_key), now))
            except BaseException:
                opened.close()
                raise
        except BaseException:
            lock.release()
            raise

    @property
    def instance(self) -> str:
        """What this broker's other worker processes open the store with."""
        return self._lock.instance

    @property
    def shared(self) -> bool:
        """Whether other brokers may use the same database."""
        return self._database.elsewhere

    def among_others(self, directory: Path) -> None:
        """Go on as one of several processes that write to the file in ``directory``."""
        if isinstance(self._database, SqliteDatabase):
            self._database.others = True
            self.audit.turn = Turn(directory)

    def tell_changes(self, changes: Changes) -> None:
        """Tell the other processes of this broker by ``changes`` what is changed here, and hear of what they change."""
        if isinstance(self._database, SqliteDatabase):
            self._database.changes = self._changes = changes

    def time(self, own: float) -> float:
        """The time that all brokers of this store go by, in Unix seconds; ``own`` where there is one."""
        return self._database.time(own)

    def generation(self, tenant: str) -> int:
        """The tenant's generation now, whoever changed it: it grows with its policies and reference values.

        Read it for each decision; 0 for a tenant that has none.
        """
        changes = self._changes
        if changes is None or self._database.deeds.open() is not None:
            return self._generation(tenant) or 0
        seen = changes.seen()  # before it is read: see stores.changes
        known = self._generations.get(tenant)
        if known is not None and known[0] == seen:
            return known[1]
        generation = self._generation(tenant)
        if generation is not None and not under_way(seen):  # names that nobody has would fill the memory
            self._generations[tenant] = seen, generation
        return generation or 0

    def seen(self) -> bytes | None:
        """What equals what it gave before, if nothing was changed in between; ``None`` where that is not known."""
        if self._changes is None:
            return None
        seen = self._changes.seen()
        return None if under_way(seen) else seen

    def _generation(self, tenant: str) -> int | None:
        rows = self._database.read("SELECT generation FROM tenants WHERE name=?", (tenant,))
        return int(rows[0][0]) if rows else None

    def deed(self) -> Deed:
        """What this thread changes in any of the tables, as one transaction: ``with store.deed() as deed``."""
        return Deed(self._database)

    def record(self, log: str, rows: Sequence[AuditRow], now: datetime) -> None:
        """Write rows into a log, as the last part of this thread's deed: durable with it."""
        with self._database.write(audit.lock(log)) as transaction:
            self.audit.enter(transaction, log, rows, now)

    def afterwards(self, done: Callable[[], None], undone: Callable[[], None] | None = None) -> None:
        """Call ``done`` once what this thread changes is durable, or ``undone`` if it came to nothing (``stores.deed``)."""
        self._database.deeds.afterwards(done, undone)

    def check_writable(self) -> None:
        """Write something small and harmless; ``Unavailable`` or ``ConfigError`` if that does not last."""
        with self._database.write(apart=True) as transaction:
            transaction.execute(
                "INSERT INTO meta VALUES ('written', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (b"1",),
            )

    def tenants(self) -> list[str]:
        """The names of the tenants that anything was ever set for: whose they are, never what."""
        return [row[0] for row in self._database.read("SELECT name FROM tenants ORDER BY name")]

    def close(self) -> None:
        """Finish writing, close the file, let the lock go."""
        self.audit.close()
        self._database.close()
        self._lock.release()


def found_key(database: Database, root_key: bytes | Callable[[Database], bytes]) -> bytes:
    """The key itself, or what is found for this database: it may hold the slots that the key is in."""
    return root_key if isinstance(root_key, bytes) else root_key(database)
