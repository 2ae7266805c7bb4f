"""One SQLite file: opened, checked, read and written, with SQLite's errors turned into ours.

WAL with ``synchronous=FULL``: a transaction that has returned from ``COMMIT`` is on the disk, and a process may be
killed between any two instructions. One connection writes, and reads while it is free; another one reads while it is
not. Both may be used from any thread of the process that opened them, and never after a fork.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from adyton.errors import AdytonError, ConfigError, Unavailable
from adyton.stores import migrations, schema
from adyton.stores.changes import Changes
from adyton.stores.deed import Deeds
from adyton.stores.sql import Row, Transaction

BUSY_SECONDS = 10.0
PURGE_MILLISECONDS = 25
PURGE_PAUSE, MAX_PAUSE = 0.02, 0.5


class SqliteDatabase:
    """An open file. ``read`` sees what was last committed by any process; ``write`` is one transaction."""

    elsewhere = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.deeds = Deeds()
        self.others = False  # whether other processes of the broker write to it, too
        self.changes: Changes | None = None  # where they are told of what this process changes
        self._process = os.getpid()
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        try:
            _create(path)
        except OSError as error:
            raise ConfigError(
                f"cannot open the store: {error.strerror}",
                code="store_unusable",
                field=str(path),
                hint="the data directory must be writable by the broker's user",
            ) from error
        with self._translated():
            self._writer = _connect(path)
            try:
                self._prepare()
                self._reader = _connect(path)
            except BaseException:
                self._writer.close()
                raise

    def _prepare(self) -> None:
        execute = self._writer.execute
        application, version = execute("PRAGMA application_id").fetchone()[0], self._version()
        if application == 0 and version == 0 and execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
            self._use_wal()
            with self.write() as transaction:
                if self._version() == 0:  # nobody was quicker
                    for statement in schema.STATEMENTS:
                        transaction.execute(statement)
                    transaction.execute(f"PRAGMA application_id={schema.APPLICATION_ID}")
                    transaction.execute(f"PRAGMA user_version={schema.VERSION}")
            return
        if application != schema.APPLICATION_ID:
            raise ConfigError(
                "this SQLite file is not a broker's store",
                code="store_foreign",
                field=str(self.path),
                hint="give the broker a directory of its own",
            )
        if 0 < version < schema.VERSION:
            self._use_wal()
            with self.write() as transaction:
                if (version := self._version()) < schema.VERSION:  # nobody was quicker
                    migrations.bring_up(transaction, version)
                    transaction.execute(f"PRAGMA user_version={schema.VERSION}")
            version = self._version()
        if version != schema.VERSION:
            raise ConfigError(
                "the store was written by another version of Adyton",
                code="store_version",
                field=str(self.path),
                expected=schema.VERSION,
                got=version,
                hint="run the version that wrote it, or a newer one",
            )
        self._use_wal()

    def _use_wal(self) -> None:
        mode = self._writer.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":  # SQLite says so, and goes on without
            raise ConfigError(
                "the file system cannot hold the store: it shares no memory between processes",
                code="store_filesystem",
                field=str(self.path),
                expected="wal",
                got=mode,
                hint="put the broker's data on a local file system",
            )

    def _version(self) -> int:
        return int(self._writer.execute("PRAGMA user_version").fetchone()[0])

    def read(self, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
        """All rows of one ``SELECT``, from one snapshot."""
        if self.deeds.under_way and (deed := self.deeds.open()) is not None:
            return deed.read(statement, parameters)
        # After each commit a connection forgets all pages that it knew, unless the commit was its own. So the one that
        # writes reads too, and the other one reads only while that is busy writing. Where other processes write, it is
        # the other way round: what it knew is lost often, and the one that only reads has few pages to lose.
        free = not self.others and self._writing.acquire(blocking=False)
        if free and self._writer.in_transaction:  # a rollback that failed: what it left there was never committed
            self._writing.release()
            free = False
        lock, connection = (self._writing, self._writer) if free else (self._reading, self._reader)
        if not free:
            lock.acquire()
        try:
            self._check_process()
            return connection.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise translate(error, self.path) from error
        finally:
            lock.release()

    @property
    def where(self) -> str:
        """The file's path."""
        return str(self.path)

    def write(
        self,
        *locks: str,
        landed: Callable[[Transaction], bool] | None = None,
        apart: bool = False,
        appends: bool = False,
    ) -> AbstractContextManager[Transaction]:
        """One transaction: committed and on the disk when the block ends, rolled back if it raises.

        There is one writer at a time, whatever locks it names; and no commit whose outcome is not known.
        """
        if self.deeds.under_way and (deed := self.deeds.mine()) is not None:
            if not apart:
                return deed.part(locks)
            if deed.wrote:
                raise RuntimeError("nothing is written apart in the middle of a deed")
        return self._alone(None if appends else self.changes)

    def lock(self, transaction: Transaction, *names: str) -> None:
        """Nothing: whoever writes has the file to itself."""

    @contextmanager
    def _alone(self, changes: Changes | None = None) -> Iterator[Transaction]:
        with self._writing:
            self._check_process()
            connection = self._writer
            if changes is not None:
                changes.begin()
            try:
                if connection.in_transaction:  # what an earlier one could not even roll back
                    connection.execute("ROLLBACK")
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise translate(error, self.path) from error
            finally:
                if changes is not None:
                    changes.end()

    def purge(self, *, keys: bool = False) -> None:
        """Move everything from the log into the file, where what was deleted is overwritten, and empty the log."""
        if self.deeds.open() is not None:
            self.deeds.afterwards(lambda: self.purge(keys=keys))
            return
        until, pause = time.monotonic() + BUSY_SECONDS, PURGE_PAUSE
        while self._busy_purging():
            if time.monotonic() > until:  # somebody reads an older state, for longer than BUSY_SECONDS: a backup
                raise Unavailable(
                    "what was deleted is still in the store's log",
                    code="erasure_pending",
                    field=str(self.path),
                    hint="it cannot be used any more; its bytes go when you ask for it again, or when the broker next tries by itself",
                )
            time.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE)

    def _busy_purging(self) -> bool:
        """Try once, in a few milliseconds: while SQLite waits for who reads, nobody writes, and decisions wait."""
        with self._writing, self._translated():
            self._check_process()
            execute = self._writer.execute
            execute(f"PRAGMA busy_timeout={PURGE_MILLISECONDS}")
            try:
                busy, *_ = execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                execute(f"PRAGMA busy_timeout={int(1000 * BUSY_SECONDS)}")
        return bool(busy)

    def time(self, own: float) -> float:
        """``own``: nobody else has this file open."""
        return own

    def close(self) -> None:
        """Close both connections; SQLite tidies its log away if nobody else has the file open."""
        with self._reading, self._writing, self._translated():
            self._reader.close()
            self._writer.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    def _check_process(self) -> None:
        if self._process != os.getpid():  # SQLite's locks do not survive a fork
            raise RuntimeError("a store must be opened in the process that uses it")


def _create(path: Path) -> None:
    """Make sure that the file is there, with its name on the disk, readable by its owner only."""
    existed = path.exists()
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    if not existed:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS)
    try:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA secure_delete=ON")  # what is deleted is overwritten: keys are erased so
        connection.execute("PRAGMA cell_size_check=ON")
    except BaseException:
        connection.close()
        raise
    return connection


def translate(error: sqlite3.Error, path: Path) -> AdytonError:
    """The error of our tree for one of SQLite's."""
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if primary == sqlite3.SQLITE_NOTADB:
        return ConfigError(
            "the store is not a SQLite file",
            code="store_foreign",
            field=str(path),
            hint="restore it from a backup, or give the broker an empty directory",
        )
    if primary in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
        return Unavailable(
            "the store's disk is full or fails; nothing of this change was kept",
            code="store_disk",
            field=str(path),
            hint="make space on the disk and try again; what was acknowledged before is safe",
        )
    if primary == sqlite3.SQLITE_CORRUPT:
        return Unavailable(
            "the store is damaged",
            code="store_corrupt",
            field=str(path),
            hint="stop the broker, keep the files, and restore the last backup",
        )
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return Unavailable("the store is busy", code="store_busy", field=str(path), hint="try again")
    if primary in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}:
        return ConfigError(
            "the store cannot be opened or written",
            code="store_unusable",
            field=str(path),
            hint="the data directory and its files must belong to the broker's user",
        )
    if primary == sqlite3.SQLITE_ERROR and "no such" in str(error):
        return ConfigError(
            "the store lacks a table or column", code="store_foreign", field=str(path), hint="restore the last backup"
        )
    if primary == sqlite3.SQLITE_TOOBIG:
        return Unavailable("the value is too large for the store", code="store_value_too_large", field=str(path))
    return Unavailable("the store failed", code="store_failed", field=str(path), hint="the broker's log has the cause")
