"""One connection to PostgreSQL: statements in pipelines, every wait with an end.

Built on libpq's pipeline mode (``psycopg.pq``): what is sent together costs one round trip, and a server that falls
silent costs the deadline and not the kernel's minutes. Statements are prepared at first use; values travel in binary.
"""

from __future__ import annotations

import select
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from psycopg import OperationalError, pq
from psycopg.pq import abc

from adyton.errors import AdytonError, MalformedRequest
from adyton.stores import postgres_errors
from adyton.stores.sql import Row

MAX_PREPARED = 500
_STATE = pq.DiagnosticField.SQLSTATE
_BAD = pq.ConnStatus.BAD
_SYNC = pq.ExecStatus.PIPELINE_SYNC
_ABORTED = pq.ExecStatus.PIPELINE_ABORTED
_TUPLES = pq.ExecStatus.TUPLES_OK
_COMMAND = pq.ExecStatus.COMMAND_OK
_BINARY = 1

Step = tuple[str, Sequence[Any]]
"""A statement that PostgreSQL reads, and its parameters."""


class Lost(Exception):
    """The connection broke or fell silent; ``silent`` tells which."""

    def __init__(self, *, silent: bool) -> None:
        super().__init__("silent" if silent else "broken")
        self.silent = silent


class Gave:
    """What a statement gave (``stores.sql.Result``)."""

    __slots__ = ("_at", "_rows", "rowcount")

    def __init__(self, rows: list[Row], rowcount: int) -> None:
        self._rows = rows
        self._at = 0
        self.rowcount = rowcount

    def fetchone(self) -> Row | None:
        """The next row, or ``None``."""
        found = self.fetchmany(1)
        return found[0] if found else None

    def fetchmany(self, size: int = 1, /) -> list[Row]:
        """Some of the rows that follow."""
        found = self._rows[self._at : self._at + size]
        self._at += len(found)
        return found

    def fetchall(self) -> list[Row]:
        """All rows that follow."""
        found, self._at = self._rows[self._at :], len(self._rows)
        return found


class Link:
    """An open connection in pipeline mode. For one thread at a time. ``broken``: of no more use."""

    def __init__(self, connection: abc.PGconn, where: str) -> None:
        self._connection = connection
        self._where = where
        self._prepared: dict[str, bytes] = {}
        self._readers: dict[str, tuple[Callable[[bytes], Any], ...]] = {}
        self.broken = False
        connection.nonblocking = 1
        connection.enter_pipeline_mode()
        self._poll = select.poll()
        self._socket = connection.socket
        self._poll.register(self._socket, select.POLLIN)

    @property
    def idle(self) -> bool:
        """Whether it is alive, as far as can be told without asking: no end, no notice has come while nobody read."""
        if self.broken:
            return False
        if self._poll.poll(0):
            try:
                self._connection.consume_input()
            except OperationalError:
                self.broken = True
        self.broken = self.broken or self._connection.status == _BAD
        return not self.broken

    def run(self, steps: Sequence[Step], seconds: float) -> list[Gave]:
        """Run ``steps`` in one round trip, in order, until the first that fails: its error is raised.

        ``Lost`` if the connection breaks, or does not answer within ``seconds``: what became of them is not known.
        """
        deadline = time.monotonic() + seconds
        preparing: dict[str, bytes] = {}
        kinds: list[str | None] = []  # of each result that will come: the statement, or None for its preparation
        connection = self._connection
        values = [(statement, *_parameters(parameters)) for statement, parameters in steps]
        try:
            for statement, texts, formats in values:
                name = self._prepared.get(statement) or preparing.get(statement)
                if name is None and len(self._prepared) + len(preparing) < MAX_PREPARED:
                    name = preparing[statement] = b"s%d" % (len(self._prepared) + len(preparing))
                    connection.send_prepare(name, statement.encode())
                    kinds.append(None)
                if name is None:
                    connection.send_query_params(
                        statement.encode(), texts, param_formats=formats, result_format=_BINARY
                    )
                else:
                    connection.send_query_prepared(name, texts, param_formats=formats, result_format=_BINARY)
                kinds.append(statement)
            connection.pipeline_sync()
            results = self._results(deadline)
        except OperationalError as error:
            self.broken = True
            raise Lost(silent=False) from error
        except Lost:
            self.broken = True
            raise
        return self._read(results, kinds, preparing)

    def _results(self, deadline: float) -> list[abc.PGresult]:
        connection = self._connection
        while connection.flush():
            self._wait(deadline, select.POLLIN | select.POLLOUT)
            connection.consume_input()
        found: list[abc.PGresult] = []
        while True:
            while connection.is_busy():
                self._wait(deadline, select.POLLIN)
                connection.consume_input()
            result = connection.get_result()
            if result is None:
                if connection.status == _BAD:
                    raise Lost(silent=False)
                continue
            if result.status == _SYNC:
                return found
            found.append(result)

    def _wait(self, deadline: float, events: int) -> None:
        left = deadline - time.monotonic()
        if events != select.POLLIN:
            self._poll.modify(self._socket, events)
        try:
            if left <= 0 or not self._poll.poll(left * 1000):
                raise Lost(silent=True)
        finally:
            if events != select.POLLIN:
                self._poll.modify(self._socket, select.POLLIN)

    def _read(self, results: list[abc.PGresult], kinds: list[str | None], preparing: dict[str, bytes]) -> list[Gave]:
        gave: list[Gave] = []
        prepared = iter(list(preparing.items()))
        failed: AdytonError | None = None
        for result, statement in zip(results, kinds, strict=False):
            status = result.status
            if status in {_TUPLES, _COMMAND}:
                if statement is None:
                    text, name = next(prepared)
                    self._prepared[text] = name
                else:
                    gave.append(self._rows(result, statement) if status == _TUPLES else _counted(result))
                continue
            if status != _ABORTED and failed is None:
                state = (result.error_field(_STATE) or b"").decode("ascii", "replace")
                if state.startswith("57P") or not state:  # the server ends this connection, or libpq did
                    self.broken = True
                    raise Lost(silent=False)
                failed = postgres_errors.translate(state, self._where)
            if statement is None:
                next(prepared)
        if failed is not None:
            raise failed
        if len(results) < len(kinds):
            self.broken = True
            raise Lost(silent=False)
        return gave

    def _rows(self, result: abc.PGresult, statement: str) -> Gave:
        readers = self._readers.get(statement)
        if readers is None:
            readers = tuple([_READERS.get(result.ftype(column), _text) for column in range(result.nfields)])
            self._readers[statement] = readers
        value, columns = result.get_value, tuple(enumerate(readers))
        rows = [
            tuple([None if (raw := value(row, column)) is None else read(raw) for column, read in columns])
            for row in range(result.ntuples)
        ]
        return Gave(rows, len(rows))

    def close(self) -> None:
        """Let it go."""
        self.broken = True
        self._connection.finish()


def _counted(result: abc.PGresult) -> Gave:
    return Gave([], int(result.command_tuples or 0))


def _parameters(values: Sequence[Any]) -> tuple[list[bytes | None], list[int]]:
    texts: list[bytes | None] = []
    formats = []
    for value in values:
        if isinstance(value, bytes):
            texts.append(value)
            formats.append(1)
            continue
        formats.append(0)
        if value is None:
            texts.append(None)
        elif isinstance(value, str):
            if "\0" in value:
                raise MalformedRequest("a text holds a NUL character", code="store_text_invalid")
            texts.append(value.encode())
        elif isinstance(value, bool):
            texts.append(b"1" if value else b"0")
        else:
            texts.append(repr(value).encode("ascii"))
    return texts, formats


def _integer(raw: bytes) -> int:
    return int.from_bytes(raw, "big", signed=True)


def _text(raw: bytes) -> str:
    return raw.decode()


def _numeric(raw: bytes) -> int | float:
    """What ``sum`` of integers gives: base 10,000, most significant first."""
    digits, weight, sign, _ = struct.unpack_from(">hhHh", raw)
    groups = struct.unpack_from(f">{digits}h", raw, 8)
    value: int | float = 0
    for index, group in enumerate(groups):
        value += group * 10000 ** (weight - index)
    return -value if sign == 0x4000 else value


_READERS: dict[int, Callable[[bytes], Any]] = {
    16: _integer,  # a truth value, which SQLite has as a number
    17: bytes,
    20: _integer,
    21: _integer,
    23: _integer,
    26: _integer,
    700: lambda raw: struct.unpack(">f", raw)[0],
    701: lambda raw: struct.unpack(">d", raw)[0],
    1700: _numeric,
    2278: lambda _: None,
}
