"""The store's tables in PostgreSQL: several brokers share them, and each is a ``stores.sql.Database``.

Transactions that write take named locks first (``pg_advisory_xact_lock``), so those of one name come one after the
other as SQLite's do; each statement then sees what was committed before it. What is done about a connection that breaks:

* a read is asked once more, of another connection;
* a transaction that has run nothing yet is begun anew;
* one that was under way is gone, and is said to be: nothing of it was kept;
* one whose commit was sent and not answered is *looked up*, under the same locks, so that it has ended by then: by a
  token that it wrote, or by what ``landed`` looks for. It is never done again blindly.

On an event loop every wait is short: half a second, then the request is refused. A thread may wait longer.
"""

from __future__ import annotations

import hashlib
import os
import time
from asyncio import get_running_loop
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from adyton.errors import AdytonError, Unavailable
from adyton.stores import postgres_errors, postgres_schema, schema
from adyton.stores.deed import Deeds
from adyton.stores.postgres_address import DatabaseAddress
from adyton.stores.postgres_connect import connect
from adyton.stores.postgres_link import Gave, Link, Lost, Step
from adyton.stores.postgres_pool import Pool
from adyton.stores.postgres_sql import translate
from adyton.stores.sql import EVERYTHING, Row, Transaction

LOOP_SECONDS = 0.5
THREAD_SECONDS = 12.0
TAKE_ON_LOOP, TAKE_IN_THREAD = 0.25, 1.0
MAKING_SECONDS = 600.0
PATIENCE = 15.0
RESOLVE_SECONDS = 5.0
_LOCK = "SELECT pg_advisory_xact_lock($1)"
_LOCKED = "SELECT pg_advisory_xact_lock(?)"
_BEGIN: Step = ("BEGIN", ())
_COMMIT: Step = ("COMMIT", ())
_ROLLBACK: Step = ("ROLLBACK", ())
_MAKING = "making the tables"
Landed = Callable[[Transaction], bool]


class PostgresDatabase:
    """An open database. Any thread may use it; after a fork it must be opened anew."""

    elsewhere = True

    def __init__(self, address: DatabaseAddress, *, patience: float = PATIENCE) -> None:
        self.where = address.where
        self.deeds = Deeds()
        self._process = os.getpid()
        self._pool = Pool(lambda: connect(address), address.where)
        try:
            self._prepare(patience)
        except BaseException:
            self._pool.close()
            raise

    def _prepare(self, patience: float) -> None:
        until = time.monotonic() + patience
        while True:
            try:
                with self._transaction((_MAKING,), None, making=True) as transaction:
                    postgres_schema.check_server(transaction, self.where)
                    postgres_schema.prepare(transaction, self.where)
                    transaction.execute(postgres_schema.FORGET, (postgres_schema.OUTCOME_SECONDS,))
                return
            except Unavailable as error:
                if error.code not in {"store_unreachable", "store_lost"} or time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def read(self, statement: str, parameters: Sequence[object] = (), /) -> list[Row]:
        """All rows of one ``SELECT``, from one snapshot."""
        if self.deeds.under_way and (deed := self.deeds.open()) is not None:
            return deed.read(statement, parameters)
        (text,) = translate(statement)
        waits, at_once, takes = _patience()
        for last in (False, True):
            link = self._take(takes, at_once=at_once)
            try:
                return link.run([(text, parameters)], waits)[0].fetchall()
            except Lost as error:
                if error.silent:
                    self._pool.distrust()
                if last or error.silent:  # a silent one has used up the time that there was
                    raise postgres_errors.unreachable(self.where) from error
            finally:
                self._pool.give(link)
        raise AssertionError("unreachable")

    def write(
        self, *locks: str, landed: Landed | None = None, apart: bool = False, appends: bool = False
    ) -> AbstractContextManager[Transaction]:
        """One transaction, alone among those of the same names (see ``stores.sql``)."""
        if self.deeds.under_way and (deed := self.deeds.mine()) is not None:
            if not apart:
                return deed.part(locks)
            if deed.wrote:
                raise RuntimeError("nothing is written apart in the middle of a deed")
        return self._transaction(locks or (EVERYTHING,), landed)

    def lock(self, transaction: Transaction, *names: str) -> None:
        """Wait for the locks of these names, until the transaction ends."""
        for key in sorted(map(_key, names)):
            transaction.execute(_LOCKED, (key,))

    def filling(self, landed: Landed) -> AbstractContextManager[PostgresTransaction]:
        """A transaction that may take long, before anybody else uses the tables."""
        return self._transaction((_MAKING, EVERYTHING), landed, making=True)

    @contextmanager
    def _transaction(
        self, locks: Sequence[str], landed: Landed | None, *, making: bool = False
    ) -> Iterator[PostgresTransaction]:
        transaction = PostgresTransaction(self, locks, making=making)
        try:
            yield transaction
            if landed is None and not making:
                transaction.remember()
            try:
                transaction.commit()
            except Lost as error:
                self._resolve(transaction, locks, landed, error)
        except Lost as error:
            raise postgres_errors.lost(self.where) from error
        finally:
            transaction.end()

    def _resolve(
        self, transaction: PostgresTransaction, locks: Sequence[str], landed: Landed | None, error: Lost
    ) -> None:
        """Find out what became of a commit whose answer was lost."""
        transaction.end()
        until = time.monotonic() + (LOOP_SECONDS if _on_loop() else RESOLVE_SECONDS)
        while True:
            looking = PostgresTransaction(self, locks)
            try:
                found = landed(looking) if landed is not None else looking.remembers(transaction.token)
                looking.rollback()
            except (Lost, Unavailable) as again:
                if time.monotonic() > until:
                    raise postgres_errors.unknown_outcome(self.where) from again
                time.sleep(0.05)
                continue
            finally:
                looking.end()
            if found:
                return
            raise postgres_errors.lost(self.where) from error

    def time(self, own: float) -> float:
        """The database's clock, in Unix seconds: the one that all who share it go by."""
        return float(self.read("SELECT extract(epoch from clock_timestamp())::double precision")[0][0])

    def purge(self, *, keys: bool = False) -> None:
        """Free what deleted values held, for others to overwrite; tables of wrapped keys are written anew without it.

        That is as far as PostgreSQL goes: its log, and copies of that, hold the bytes longer, sealed as they were.
        Whatever comes in between, what was deleted stays so: ``Unavailable`` ``erasure_pending``, and nothing else.
        """
        if self.deeds.open() is not None:
            self.deeds.afterwards(lambda: self.purge(keys=keys))
            return
        try:
            self._purge(keys=keys)
        except Unavailable as error:
            raise postgres_errors.erasure_pending(self.where) from error

    def _purge(self, *, keys: bool) -> None:
        link = self._take(TAKE_IN_THREAD, at_once=False)
        try:
            link.run([("SET statement_timeout = 0", ())], THREAD_SECONDS)
            link.run([("VACUUM resources, key_versions", ())], MAKING_SECONDS)
            if keys:
                link.run([("VACUUM FULL data_keys, tenant_keys, root_key_slots", ())], MAKING_SECONDS)
            link.run([("SET statement_timeout = '10s'", ())], THREAD_SECONDS)
        except Lost as error:
            raise postgres_errors.lost(self.where) from error
        except BaseException:
            link.broken = True  # its limits are not what they should be
            raise
        finally:
            self._pool.give(link)

    def _take(self, seconds: float, *, at_once: bool) -> Link:
        if self._process != os.getpid():
            raise RuntimeError("a store must be opened in the process that uses it")
        return self._pool.take(seconds, at_once=at_once)

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()


class PostgresTransaction:
    """One transaction under way (``stores.sql.Transaction``). What gives nothing back waits for what does."""

    def __init__(self, database: PostgresDatabase, locks: Sequence[str], *, making: bool = False) -> None:
        self._database = database
        self._making = making
        self._link: Link | None = None
        self._begun = False
        self._waits, self._at_once, self._takes = _patience()
        if making:
            self._waits = MAKING_SECONDS
        self.token = os.urandom(16)
        first = [("SET LOCAL lock_timeout = '300s'", ()), ("SET LOCAL statement_timeout = 0", ())] if making else []
        self._opening: list[Step] = [_BEGIN, *first, *[(_LOCK, (key,)) for key in sorted(map(_key, locks))]]
        if not making:
            self._opening.append((postgres_schema.VERSION, ()))
        self._later: list[tuple[Step, _Many | None]] = []

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> Gave:
        """Run one statement, after all that were given before."""
        texts = translate(statement)
        found = self._run([(text, parameters) for text in texts])
        return found[-1]

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> _Many:
        """Run one statement for each of ``rows``, together with what comes next."""
        (text,) = translate(statement)
        many = _Many(self)
        self._later.extend(((text, row), many) for row in rows)
        return many

    def raw(self, statement: str, /) -> Gave:
        """Run PostgreSQL's own words."""
        return self._run([(statement, ())])[-1]

    def flush(self) -> None:
        """Run what waits."""
        if self._later:
            self._run([])

    def remember(self) -> None:
        """Leave the token with what is committed."""
        self._later.append(((postgres_schema.REMEMBER, (self.token,)), None))

    def remembers(self, token: bytes) -> bool:
        """Whether a transaction that left ``token`` was committed."""
        return bool(self._run([(postgres_schema.OUTCOME, (token,))])[0].fetchall())

    def commit(self) -> None:
        """Make it last. ``Lost`` from here on means that the outcome is not known."""
        if not self._begun and not self._later:
            return  # nothing was done
        if not self._begun:
            self._begin([])
        self._send([*[step for step, _ in self._later], _COMMIT], many=[many for _, many in self._later])
        self._later.clear()
        self._begun = False

    def rollback(self) -> None:
        """As if it had never been."""
        if self._begun and self._link is not None and not self._link.broken:
            self._begun = False
            try:
                self._link.run([_ROLLBACK], self._waits)
            except Lost as error:
                self._broke(error)
            except AdytonError:
                self._link.broken = True

    def end(self) -> None:
        """Undo what was not committed and let the connection go."""
        self.rollback()
        link, self._link = self._link, None
        if link is not None:
            self._database._pool.give(link)  # noqa: SLF001 -- of one piece with it

    def _run(self, steps: Sequence[Step]) -> list[Gave]:
        """Run what waits, then ``steps``; what these gave."""
        waiting, self._later = self._later, []
        together = [*[step for step, _ in waiting], *steps]
        try:
            found = self._begin(together) if not self._begun else self._send(together)
        except Lost as error:
            raise postgres_errors.lost(self._database.where) from error
        for (_, many), gave in zip(waiting, found, strict=False):
            if many is not None:
                many.counted += gave.rowcount
        return found[len(waiting) :]

    def _begin(self, steps: Sequence[Step]) -> list[Gave]:
        """Begin and run the first steps in one round trip; on a connection that is dead already, begin on another."""
        for last in (False, True):
            self._link = self._database._take(self._takes, at_once=self._at_once)  # noqa: SLF001
            try:
                found = self._link.run([*self._opening, *steps], self._waits)
            except Lost as error:
                self._broke(error)
                self._database._pool.give(self._link)  # noqa: SLF001
                self._link = None
                if last or error.silent:
                    raise
            except AdytonError:
                self._begun = True  # to be rolled back
                raise
            else:
                self._begun = True
                self._check_version(found)
                return found[len(self._opening) :]
        raise AssertionError("unreachable")

    def _check_version(self, found: list[Gave]) -> None:
        if self._making:
            return
        version = found[len(self._opening) - 1].fetchone()
        if version is None or version[0] != schema.VERSION:
            raise postgres_schema.another_version(self._database.where, version[0] if version else 0)

    def _send(self, steps: Sequence[Step], many: Sequence[_Many | None] = ()) -> list[Gave]:
        if self._link is None or self._link.broken:
            raise Lost(silent=False)
        try:
            found = self._link.run(steps, self._waits)
        except Lost as error:
            self._broke(error)
            raise
        for one, gave in zip(many, found, strict=False):
            if one is not None:
                one.counted += gave.rowcount
        return found

    def _broke(self, error: Lost) -> None:
        if error.silent:
            self._database._pool.distrust()  # noqa: SLF001


class _Many:
    """What a statement for many rows gave: how many it changed, asked for when somebody wants to know."""

    def __init__(self, transaction: PostgresTransaction) -> None:
        self._transaction = transaction
        self.counted = 0

    @property
    def rowcount(self) -> int:
        """How many rows were changed by all of them."""
        self._transaction.flush()
        return self.counted

    def fetchone(self) -> Row | None:
        """Nothing."""
        return None

    def fetchmany(self, size: int = 1, /) -> list[Row]:
        """Nothing."""
        return []

    def fetchall(self) -> list[Row]:
        """Nothing."""
        return []


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, person=b"adyton").digest(), "big", signed=True)


def _on_loop() -> bool:
    try:
        get_running_loop()
    except RuntimeError:
        return False
    return True


def _patience() -> tuple[float, bool, float]:
    """How long an answer may take, whether to be refused at once, how long a connection may take: on a loop, or not."""
    return (LOOP_SECONDS, True, TAKE_ON_LOOP) if _on_loop() else (THREAD_SECONDS, False, TAKE_IN_THREAD)
