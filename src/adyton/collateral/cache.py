"""The cache on disk: contents by their digest, and an index that says what they are. Safe to kill at any moment.

::

    <directory>/                 0700
        index.sqlite             what there is, what was seen, what is known to be absent, how each host is doing
        blobs/<sha256>           bodies and issuer chains, each written beside its place, synced and renamed
        claims                   one byte of it is locked while somebody fetches an item: which, its name's digest says

A content is on disk before the index speaks of it, and its digest is checked when it is read: what is damaged is as if it
were not there. Several processes may share one directory. Of every name the newest ``VERSIONS`` are kept, so that evidence
can be judged as of an earlier time; of every kind about ``MAX_OF_A_KIND``, since strangers may make up names that a source
has an answer for.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import stat
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from adyton.collateral import wanted as names
from adyton.collateral.blobs import Blobs
from adyton.collateral.items import Facts, Item, Order
from adyton.collateral.wanted import Wanted
from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.errors import AdytonError, ConfigError, EndorsementError, PlatformError, Unavailable

VERSIONS = 8
MAX_ABSENT = 10_000
MAX_OF_A_KIND = 20_000
_BUSY_SECONDS = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS item (
    name TEXT NOT NULL, body TEXT NOT NULL, chain TEXT NOT NULL, url TEXT NOT NULL, fetched REAL NOT NULL,
    max_age INTEGER, issued REAL, expires REAL, number INTEGER, signer TEXT, subject TEXT NOT NULL,
    PRIMARY KEY (name, body)) STRICT;
CREATE TABLE IF NOT EXISTS seen (
    name TEXT NOT NULL, signer TEXT NOT NULL, number INTEGER NOT NULL, issued REAL NOT NULL,
    PRIMARY KEY (name, signer)) STRICT;
CREATE TABLE IF NOT EXISTS absent (
    name TEXT NOT NULL, source TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (name, source)) STRICT;
CREATE TABLE IF NOT EXISTS host (
    name TEXT PRIMARY KEY, asked TEXT NOT NULL, failures INTEGER NOT NULL, not_before REAL NOT NULL) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """An item as the cache holds it; ``max_age`` is what HTTP said when it was fetched (seconds)."""

    item: Item
    max_age: int | None


class Cache:
    """One directory. Use from several threads and processes; ``close`` when done."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.RLock()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = directory.stat()
            if status.st_mode & 0o022 or status.st_uid not in {0, os.geteuid()}:
                raise _exposed(directory, status)
            self._blobs = Blobs(directory / "blobs")
            self._database = sqlite3.connect(
                directory / "index.sqlite", timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            (directory / "index.sqlite").chmod(0o600)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise _unusable(directory, error) from error

    def close(self) -> None:
        """Let go of the index."""
        with self._lock:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Items

    def find(self, wanted: Wanted, at: datetime) -> Stored | None:
        """The last of that name that came and is valid at ``at``; nothing is ever served outside its validity.

        The last is the newest of its signer's, since ``put`` takes nothing older; its own number is not believed.
        """
        rows = self._rows(
            "SELECT * FROM item WHERE name = ? AND (issued IS NULL OR issued <= ?) AND (expires IS NULL OR expires >= ?)"
            " ORDER BY rowid DESC",
            (wanted.name, _stamp(at), _stamp(at)),
        )
        return next(self._stored(rows), None)

    def all(self) -> list[Stored]:
        """Everything that is there, by name, the last that came first."""
        return list(self._stored(self._rows("SELECT * FROM item ORDER BY name, rowid DESC", ())))

    def put(self, item: Item, *, max_age: int | None = None) -> Item:
        """Keep it. ``EndorsementError`` ``endorsement_older`` if a newer one of that name and signer was seen (rule 14)."""
        facts = item.facts
        body, chain = self._blobs.write(item.body), self._blobs.write(item.chain) if item.chain else ""
        with self._transaction():
            if facts.order is not None and facts.signer is not None:
                self._note(item, facts.order, facts.signer.hex())
            self._database.execute(
                "INSERT OR REPLACE INTO item VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    item.wanted.name, body, chain, item.url, _stamp(item.fetched), max_age,
                    _stamp(facts.issued) if facts.issued else None, _stamp(facts.expires) if facts.expires else None,
                    facts.order[0] if facts.order else None, facts.signer.hex() if facts.signer else None, facts.subject,
                ),
            )  # fmt: skip
            self._database.execute("DELETE FROM absent WHERE name = ?", (item.wanted.name,))
            pruned = self._prune(item.wanted.name) | self._prune_kind(item.wanted.name)
        if pruned:
            self.tidy(item.fetched)
        return item

    def _note(self, item: Item, order: Order, signer: str) -> None:
        row = self._database.execute(
            "SELECT number, issued FROM seen WHERE name = ? AND signer = ?", (item.wanted.name, signer)
        ).fetchone()
        mine = (order[0], _stamp(order[1]))
        if row is not None and mine < (row[0], row[1]):
            raise EndorsementError(
                f"{item.wanted.name}: a newer one than this was seen before",
                code="endorsement_older",
                field=item.wanted.name,
                expected=f"number {row[0]}, issued {_time(row[1]).isoformat()}, or later",
                got=f"number {order[0]}, issued {order[1].isoformat()}",
                spec="evidence 1, rule 14",
                hint="whoever serves it is behind, or wants you to be: ask another source",
            )
        self._database.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)", (item.wanted.name, signer, *mine))

    def _prune(self, name: str) -> bool:
        rows = self._database.execute("SELECT body FROM item WHERE name = ? ORDER BY rowid DESC", (name,)).fetchall()
        for (body,) in rows[VERSIONS:]:
            self._database.execute("DELETE FROM item WHERE name = ? AND body = ?", (name, body))
        return len(rows) > VERSIONS

    def _prune_kind(self, name: str) -> bool:
        kind = "/".join(name.split("/")[:2])
        these = (f"{kind}/", f"{kind}0")  # what comes between them begins with the first
        count = self._database.execute("SELECT count(*) FROM item WHERE name > ? AND name < ?", these).fetchone()[0]
        if count <= MAX_OF_A_KIND:
            return False
        many = count - MAX_OF_A_KIND + MAX_OF_A_KIND // 20  # so that this is rare
        self._database.execute(
            "DELETE FROM item WHERE rowid IN (SELECT rowid FROM item WHERE name > ? AND name < ? ORDER BY rowid LIMIT ?)",
            (*these, many),
        )
        return True

    def tidy(self, now: datetime) -> int:
        """Remove contents that the index does not speak of, an hour after they came; how many there were."""
        with self._transaction():
            kept = {digest for row in self._database.execute("SELECT body, chain FROM item") for digest in row}
            return self._blobs.tidy(kept, _stamp(now) - 3600)

    def certificates(self, vendor: str) -> tuple[Certificate, ...]:
        """All certificates of a vendor's (``amd``, ``intel``) chains: who may have signed what comes without its issuer."""
        found: dict[bytes, Certificate] = {}
        for row in self._rows(
            "SELECT DISTINCT body, chain FROM item WHERE name LIKE ? AND (chain != '' OR name LIKE 'amd/chain/%')",
            (f"{vendor}/%",),
        ):
            for digest in row["chain"], row["body"] if not row["chain"] else "":
                content = self._blobs.read(digest) if digest else None
                for certificate in EndorsementSet.parse([content]).certificates if content else ():
                    found[certificate.digest] = certificate
        return tuple(found.values())

    # What is known of sources

    def absent(self, wanted: Wanted, source: str, now: datetime) -> datetime | None:
        """Until when ``source`` is believed not to have it; ``None`` if it may."""
        rows = self._rows("SELECT until FROM absent WHERE name = ? AND source = ?", (wanted.name, source))
        return _time(rows[0][0]) if rows and rows[0][0] > _stamp(now) else None

    def note_absent(self, wanted: Wanted, source: str, now: datetime, seconds: float) -> None:
        """``source`` says that it has no such thing: do not ask again for so long. At most ``MAX_ABSENT`` are remembered."""
        with self._transaction():
            self._database.execute("DELETE FROM absent WHERE until <= ?", (_stamp(now),))
            count = self._database.execute("SELECT count(*) FROM absent").fetchone()[0]
            if count >= MAX_ABSENT:
                self._database.execute(
                    "DELETE FROM absent WHERE rowid IN (SELECT rowid FROM absent ORDER BY until LIMIT ?)",
                    (count - MAX_ABSENT + 1,),
                )
            until = _stamp(now + timedelta(seconds=seconds))
            self._database.execute("INSERT OR REPLACE INTO absent VALUES (?, ?, ?)", (wanted.name, source, until))

    @contextmanager
    def host(self, name: str) -> Iterator[HostRow]:
        """How a host is doing, to be read and changed by one process at a time."""
        with self._transaction():
            row = self._database.execute("SELECT * FROM host WHERE name = ?", (name,)).fetchone()
            state = HostRow(json.loads(row[1]), row[2], row[3]) if row else HostRow([], 0, 0.0)
            yield state
            self._database.execute(
                "INSERT OR REPLACE INTO host VALUES (?, ?, ?, ?)",
                (name, json.dumps(state.asked), state.failures, state.not_before),
            )

    @contextmanager
    def claimed(self, wanted: Wanted) -> Iterator[bool]:
        """Whether this caller alone may fetch it now; if not, somebody else is at it."""
        digest = hashlib.sha256(wanted.name.encode("utf-8")).digest()
        place = (
            int.from_bytes(digest[:8], "big") >> 2
        )  # below 2**62; no file of its own for names that strangers make up
        lock = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
        descriptor = os.open(self.directory / "claims", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)  # this opening's, so threads exclude each other too
            except (BlockingIOError, PermissionError):
                yield False
                return
            yield True
        finally:
            os.close(descriptor)

    def _stored(self, rows: Iterable[sqlite3.Row]) -> Iterator[Stored]:
        for row in rows:
            body = self._blobs.read(row["body"])
            chain = self._blobs.read(row["chain"]) if row["chain"] else b""
            try:
                wanted = names.parse(row["name"])
            except ValueError:
                continue
            if body is None or chain is None:
                continue
            issued = _time(row["issued"]) if row["issued"] is not None else None
            facts = Facts(
                issued,
                _time(row["expires"]) if row["expires"] is not None else None,
                (row["number"], issued) if row["number"] is not None and issued is not None else None,
                bytes.fromhex(row["signer"]) if row["signer"] else None,
                row["subject"],
            )
            item = Item(wanted, body, chain, row["url"], _time(row["fetched"]), facts)
            yield Stored(item, row["max_age"])

    def _rows(self, query: str, values: tuple[object, ...]) -> list[sqlite3.Row]:
        with self._lock:
            try:
                cursor = self._database.cursor()
                cursor.row_factory = sqlite3.Row
                return cursor.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise _unusable(self.directory, error) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise _unusable(self.directory, error) from error
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException as error:
                self._database.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise _unusable(self.directory, error) from error
                raise


@dataclass(slots=True)
class HostRow:
    """When it was ``asked`` lately; ``failures`` in a row; not to be asked before ``not_before`` (Unix times)."""

    asked: list[float]
    failures: int
    not_before: float


def _stamp(moment: datetime) -> float:
    return moment.timestamp()


def _time(stamp: float) -> datetime:
    return datetime.fromtimestamp(stamp, UTC)


def _exposed(directory: Path, status: os.stat_result) -> ConfigError:
    return ConfigError(
        "others may write in the cache's directory",
        code="cache_exposed",
        field=str(directory),
        expected="a directory of this user that nobody else may write in",
        got=f"mode {stat.S_IMODE(status.st_mode):04o}, user {status.st_uid}",
        hint="give the cache a directory of its own: --cache DIR",
    )


def _unusable(directory: Path, error: Exception) -> AdytonError:
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return Unavailable("the cache is busy with another process", code="cache_busy", field=str(directory))
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return PlatformError(
        f"the cache cannot be used: {reason}",
        code="cache_unusable",
        field=str(directory),
        hint="give a directory that is yours and has room: --cache DIR; a damaged index may be removed",
    )
