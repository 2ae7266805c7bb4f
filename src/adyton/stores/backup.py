"""A copy of the store while it is served: one moment of it, checked, without what would open it.

SQLite's online backup reads pages under one read transaction: writers go on, and what they write meanwhile is not in it.
Of the data directory only the database is copied: no root key, no admin token, no TLS key. In the copy, slots that a
passphrase opens are left out (a copy travels, and whoever has it could guess for ever), and free pages are gone. What is
left is sealed under a root key that is not there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from adyton import __version__
from adyton.errors import ConfigError, PlatformError, Unavailable
from adyton.protocol import backup, checkpoint
from adyton.protocol.backup import LogState, Manifest
from adyton.rats.ports import Progress
from adyton.stores import schema, whole_file
from adyton.stores.audit_reading import AuditReading, StoredCheckpoint
from adyton.stores.custody import passphrase, private_file
from adyton.stores.database import translate
from adyton.stores.deed import Deeds
from adyton.stores.sql import Row, Transaction
from adyton.stores.sqlite import FILE

MANIFEST = "manifest.json"
PAGES = 512
_CHUNK = 1 << 20


class CopiedFile:
    """A ``Database`` over a file that nobody else uses, or that is ``served``; it is never written through this.

    Nor is a file of an older schema brought up to date: the broker that serves it may be that old.
    """

    def __init__(self, path: Path, *, served: bool = False) -> None:
        self.where = str(path)
        self.deeds = Deeds()
        self._path = path
        try:
            how = "mode=rw" if served else "mode=ro&immutable=1"  # a reader of a write-ahead log shares its memory
            self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=30)
            self._connection.execute("PRAGMA query_only=ON")
            self._connection.execute("PRAGMA trusted_schema=OFF")
            self._connection.execute("PRAGMA cell_size_check=ON")
        except sqlite3.Error as error:
            raise translate(error, path) from error

    def check(self) -> None:
        """``ConfigError`` ``store_foreign`` or ``store_version`` unless it is a store of this version; ``Unavailable``."""
        (application,), (version,) = self.read("PRAGMA application_id")[0], self.read("PRAGMA user_version")[0]
        if application != schema.APPLICATION_ID:
            raise ConfigError(
                "this SQLite file is not a broker's store",
                code="store_foreign",
                field=self.where,
                hint="give the data directory of a broker",
            )
        if version != schema.VERSION:
            raise ConfigError(
                "the store was written by another version of Adyton",
                code="store_version",
                field=self.where,
                expected=schema.VERSION,
                got=version,
                hint="ask with the version that serves it; a newer one brings it up to date when it serves",
            )

    def read(self, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
        """All rows of one ``SELECT``."""
        try:
            return self._connection.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise translate(error, self._path) from error

    elsewhere = False

    def write(
        self,
        *locks: str,
        landed: Callable[[Transaction], bool] | None = None,
        apart: bool = False,
        appends: bool = False,
    ) -> AbstractContextManager[Transaction]:
        """Never."""
        raise RuntimeError("a backup is not written to")

    def lock(self, transaction: Transaction, *names: str) -> None:
        """Nothing."""

    def time(self, own: float) -> float:
        """``own``."""
        return own

    def purge(self, *, keys: bool = False) -> None:
        """Nothing was deleted."""

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def make(
    directory: Path,
    destination: Path,
    now: datetime,
    progress: Progress,
    *,
    root_key: bytes | None = None,
    keep_passphrase_slots: bool = False,
) -> Manifest:
    """Back the store in ``directory`` up to ``destination``: a directory, or one file if it ends in ``.tar``.

    It appears whole or not at all. ``ConfigError`` if there is no store, or something is there already; ``Unavailable``
    if the copy does not check out; ``PlatformError`` if it cannot be written.
    """
    source = directory / FILE
    if not source.exists():
        raise ConfigError(
            "there is no broker's store",
            code="store_absent",
            field=str(directory),
            hint="--data DIR; a store in PostgreSQL is backed up with pg_dump, and the root key apart from it",
        )
    if destination.exists() or destination.is_symlink():
        raise ConfigError("there is something already", code="backup_exists", field=str(destination))
    partial = destination.with_name(f".{destination.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        partial.mkdir(mode=0o700)
        copy = partial / FILE
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        _copy(source, copy, progress)
        copied = CopiedFile(copy)
        try:
            copied.check()
        finally:
            copied.close()
        left_out = _strip(copy, keep_passphrase_slots=keep_passphrase_slots)
        manifest = _described(copy, now, left_out, progress)
        if root_key is not None:
            manifest = manifest.with_mac(root_key)
        _flush(copy)
        private_file.write(partial / MANIFEST, manifest.written())
        _publish(partial, destination)
    except OSError as error:
        raise PlatformError(
            f"the backup cannot be written: {error.strerror}",
            code="backup_unwritable",
            field=str(destination),
            hint="is there room, and is the directory yours?",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _copy(source: Path, copy: Path, progress: Progress) -> None:
    size = 0

    def moved(_: int, remaining: int, total: int) -> None:
        progress.advance("copying the store", (total - remaining) * size, total * size)

    try:
        with _connected(source) as reading, _connected(copy) as writing:
            reading.execute("PRAGMA query_only=ON")
            reading.execute("BEGIN")  # one snapshot for all steps: else every change by the broker would begin it anew
            (size,) = reading.execute("PRAGMA page_size").fetchone()
            reading.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            reading.backup(writing, pages=PAGES, progress=moved, sleep=0.005)
            reading.execute("ROLLBACK")
            writing.execute("PRAGMA journal_mode=DELETE").fetchone()
    except sqlite3.Error as error:
        raise translate(error, source) from error


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    try:
        yield connection
    finally:
        connection.close()


def _strip(copy: Path, *, keep_passphrase_slots: bool) -> list[str]:
    """Take out what a copy must not carry; returns the names of the slots that are no longer in it."""
    try:
        with _connected(copy) as connection:
            connection.execute("PRAGMA secure_delete=ON")
            wanted = "kind=?" if not keep_passphrase_slots else "kind=? AND 0"
            rows = connection.execute(
                f"SELECT name FROM root_key_slots WHERE {wanted} ORDER BY name",  # noqa: S608 -- ours
                (passphrase.KIND,),
            ).fetchall()
            connection.execute(f"DELETE FROM root_key_slots WHERE {wanted}", (passphrase.KIND,))  # noqa: S608 -- ours
            connection.execute("VACUUM")
    except sqlite3.Error as error:
        raise translate(error, copy) from error
    return [row[0] for row in rows]


def _described(copy: Path, now: datetime, left_out: list[str], progress: Progress) -> Manifest:
    database = CopiedFile(copy)
    try:
        logs = check_file(database, progress)
        meta = {name: bytes(value) for name, value in database.read("SELECT name, value FROM meta")}
        held = [row[0] for row in database.read("SELECT name FROM root_key_slots ORDER BY name")]
        (version,) = database.read("PRAGMA user_version")[0]
    finally:
        database.close()
    return Manifest(
        format=backup.FORMAT,
        created=now.astimezone(UTC).isoformat(timespec="microseconds"),
        version=__version__,
        schema=version,
        store=meta.get("store", b"").hex(),
        root=meta.get("root", b"").hex(),
        file=FILE,
        size=copy.stat().st_size,
        sha256=digest(copy, progress),
        logs=logs,
        slots=held,
        left_out=left_out,
    )


def check_file(database: CopiedFile, progress: Progress) -> list[LogState]:
    """Whether the file is sound and every log in it whole, and met by the checkpoints in it; ``Unavailable``, ``LogBroken``."""
    _check_tables(database)
    found = [row[0] for row in database.read("PRAGMA integrity_check(5)")]
    application = database.read("PRAGMA application_id")[0][0]
    if found != ["ok"] or application != schema.APPLICATION_ID:
        raise Unavailable(
            "the file of the backup is damaged", code="backup_damaged", field=database.where, got=str(found[0])[:200]
        )
    log = AuditReading(database)
    tenants = log.tenants_with_rows()
    states = []
    for number, tenant in enumerate(tenants):
        progress.advance("checking the record of decisions", number, len(tenants))
        head = log.verify(tenant, [checkpoint.parse(one.note) for one in _checkpoints(log, tenant)])
        latest = log.latest_checkpoint(tenant)
        states.append(LogState(tenant, head.sequence, head.root, latest.note if latest else ""))
    progress.advance("checking the record of decisions", len(tenants), len(tenants))
    return states


def _check_tables(database: CopiedFile) -> None:
    """Its tables are a store's, and there is nothing in it that would do something of its own: triggers, views, modules."""
    own = sqlite3.connect(":memory:")
    try:
        for statement in schema.STATEMENTS:
            own.execute(statement)
        wanted = _shape(lambda text: own.execute(text).fetchall())
    finally:
        own.close()
    got = _shape(database.read)
    differs = sorted(name for name in wanted.keys() | got.keys() if wanted.get(name) != got.get(name))
    if differs:
        raise Unavailable(
            "the tables of the backup are not those of a store",
            code="backup_damaged",
            field=database.where,
            got=", ".join(differs)[:200],
            hint="use another copy; keep this one as evidence",
        )


def _shape(read: Callable[[str], list[Row]]) -> dict[str, object]:
    """What stands in the file: columns of tables by name, texts of triggers and views."""
    found: dict[str, object] = {}
    for _, name, kind, _, _, strict in read("PRAGMA main.table_list"):
        if str(name).startswith("sqlite_"):
            continue
        quoted = str(name).replace("'", "''")
        columns = read(f"SELECT name, type, \"notnull\", pk FROM pragma_table_info('{quoted}')")  # noqa: S608 -- quoted
        found[f"{kind} {name}"] = (strict, sorted(map(tuple, columns)))
    for kind, name, text in read("SELECT type, name, sql FROM main.sqlite_schema WHERE type NOT IN ('table', 'index')"):
        found[f"{kind} {name}"] = text
    return found


def _checkpoints(log: AuditReading, tenant: str) -> Iterator[StoredCheckpoint]:
    after = -1
    while page := log.checkpoints(tenant, after=after):
        yield from page
        after = page[-1].size


def digest(path: Path, progress: Progress) -> str:
    """SHA-256 of a file in hex."""
    total, done, sha256 = path.stat().st_size, 0, hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            sha256.update(piece)
            done += len(piece)
            progress.advance("hashing", done, total)
    return sha256.hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(partial: Path, destination: Path) -> None:
    """Give the backup its name, once it is on the disk."""
    whole_file.sync(partial)
    if destination.suffix != ".tar":
        partial.rename(destination)
        whole_file.sync(destination.parent)
        return
    packed = partial / "packed"
    with os.fdopen(os.open(packed, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name in (MANIFEST, FILE):
                archive.add(partial / name, arcname=name, filter=_anonymous)
        file.flush()
        os.fsync(file.fileno())
    os.link(packed, destination)
    whole_file.sync(destination.parent)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member
