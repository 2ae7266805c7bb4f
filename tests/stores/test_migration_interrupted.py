"""From schema 3 to 4, killed or refused at every single statement: the older store is as it was, and goes on from there."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adyton.errors import Unavailable
from adyton.protocol.audit_row import AuditRow
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores import migrations, schema
from adyton.stores.sql import Result, Transaction
from adyton.stores.sqlite import FILE, Store

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PATH = ResourcePath("a", "b", "c")
STEP = migrations._STEPS[3]


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of schema 3 with a resource, a policy, a reference value and a record."""
    directory = tmp_path / "data"
    store = Store.open(directory, root_key=bytes(32), now=NOW)
    with monkeypatch.context() as then:  # when tenants had no data keys of their own
        then.setattr(store.sealer, "seal_for", lambda _, *what: store.sealer.seal(*what))
        store.resources.set("default", PATH, b"value", Binding(any_workload_i_accept=True), NOW)
        store.policies.set("default", "resource", "resource-policy", "package policy", NOW)
        store.references.set("default", "snp_launch_measurement", ["00"], None, NOW)
    for number in range(5):
        store.audit.append("default", AuditRow("attest", "allowed", peer=str(number)), NOW)
    store.close()
    connection = sqlite3.connect(directory / FILE)
    with connection:
        for made in schema.FOURTH:
            if made.split()[1] == "TABLE":
                connection.execute(f"DROP TABLE {made.split()[2]}")
        connection.execute("PRAGMA user_version=3")
    connection.close()
    return directory


def seen(directory: Path) -> dict[str, list[Any]]:
    """Everything in the file, by table, with the statements that made it."""
    connection = sqlite3.connect(directory / FILE)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found: dict[str, list[Any]] = {"version": connection.execute("PRAGMA user_version").fetchall()}
        found["made"] = connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
        for name, _ in found["made"]:
            if connection.execute("SELECT type FROM sqlite_schema WHERE name=?", (name,)).fetchone() == ("table",):
                found[name] = connection.execute(f'SELECT * FROM "{name}" ORDER BY 1, 2').fetchall()
    finally:
        connection.close()
    return found


class Interrupted:
    """A transaction in which something happens before statement ``number``, counted from 0."""

    def __init__(self, inner: Transaction, number: int, happens: Callable[[], None]) -> None:
        self.inner = inner
        self.left = number
        self.happens = happens

    def _next(self) -> None:
        if not self.left:
            self.happens()
        self.left -= 1

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> Result:
        self._next()
        return self.inner.execute(statement, parameters)

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> Result:
        self._next()
        return self.inner.executemany(statement, rows)


def full() -> None:
    raise sqlite3.OperationalError("database or disk is full")


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupted(directory: Path, monkeypatch: pytest.MonkeyPatch, number: int, happens: Callable[[], None]) -> None:
    with monkeypatch.context() as patched:
        steps = {**migrations._STEPS, 3: lambda inner: STEP(Interrupted(inner, number, happens))}
        patched.setattr(migrations, "_STEPS", steps)
        Store.open(directory, root_key=bytes(32), now=NOW).close()


def statements(directory: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many the step has."""
    counted: list[Interrupted] = []

    def count(inner: Transaction) -> None:
        counted.append(Interrupted(inner, 10**6, dies))
        STEP(counted[0])

    with monkeypatch.context() as patched:
        patched.setattr(migrations, "_STEPS", {**migrations._STEPS, 3: count})
        Store.open(directory, root_key=bytes(32), now=NOW).close()
    return 10**6 - counted[0].left


def whole(directory: Path) -> None:
    """Brought up, it has everything that the older one had, and takes more."""
    store = Store.open(directory, root_key=bytes(32), now=NOW)
    try:
        found = store.resources.get("default", PATH)
        assert found is not None and found.value == b"value"
        policy = store.policies.get("default", "resource", "resource-policy")
        assert policy is not None and policy.text == "package policy"
        assert store.audit.verify("default").sequence == 5
        store.resources.set("default", PATH, b"next", None, NOW)
        assert store.audit.append("default", AuditRow("attest", "allowed"), NOW) == 6
    finally:
        store.close()
    assert seen(directory)["version"] == [(schema.VERSION,)]


def test_refused_at_any_statement(older: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = seen(older)
    assert before["version"] == [(3,)]
    copy = tmp_path / "copy"
    copy.mkdir(mode=0o700)
    (copy / FILE).write_bytes((older / FILE).read_bytes())
    number = statements(copy, monkeypatch)
    assert number > len(schema.FOURTH) // 2
    for at in range(number):
        with pytest.raises(Unavailable) as caught:
            interrupted(older, monkeypatch, at, full)
        assert caught.value.code
        assert seen(older) == before, at
    whole(older)


def test_killed_at_any_statement(older: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = seen(older)
    at = 0
    while True:
        child = os.fork()
        if not child:
            try:
                interrupted(older, monkeypatch, at, dies)
                os._exit(0)
            finally:
                os._exit(9)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert seen(older) == before, at
        at += 1
    assert at > len(schema.FOURTH) // 2
    whole(older)
