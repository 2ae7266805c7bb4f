"""A move into a database that is killed anywhere: one store can be gone on with, and the same command ends the move."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.postgresql import Server

from adyton.cli.migrate import migrate
from adyton.errors import AdytonError, ConfigError, Unavailable
from adyton.protocol.audit_row import AuditRow
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores import moved, moving
from adyton.stores.postgres import PostgresDatabase
from adyton.stores.postgres_address import DatabaseAddress
from adyton.stores.sqlite import Store

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ROOT_KEY = bytes(range(32))
PATH = ResourcePath("a", "b", "c")


def opened(directory: Path, url: str = "") -> Store:
    where = None if not url else lambda: PostgresDatabase(DatabaseAddress.read(url, None))
    return Store.open(directory, root_key=ROOT_KEY, now=NOW, database=where)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    store = opened(tmp_path / "old")
    store.resources.set("default", PATH, b"value", Binding(), NOW)
    store.audit._commit([("default", AuditRow("attest", "allowed"), NOW)] * 5)
    store.close()
    return tmp_path / "old"


@pytest.fixture
def url(postgresql: Server) -> str:
    return postgresql.url(postgresql.database())


def run(old: Path, url: str, *more: str) -> Result:
    return CliRunner().invoke(migrate, ["--from", f"sqlite:{old}", "--to", url, *more])


def refused(old: Path, url: str, *more: str) -> str:
    error = run(old, url, *more).exception
    assert isinstance(error, AdytonError), error
    return error.code


def killed(old: Path, url: str, arm: Callable[[], None]) -> None:
    child = os.fork()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        return
    try:
        arm()
        run(old, url)
    finally:
        os._exit(2)


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def then_die(what: Callable[..., Any]) -> Callable[..., Any]:
    def done(*given: Any, **named: Any) -> None:
        what(*given, **named)
        die()

    return done


def die_at_marker(path: Path, *, missing_ok: bool = False) -> None:
    if path.name == moved.MARKER:
        die()
    if not missing_ok or path.exists():
        os.unlink(path)  # noqa: PTH108 -- Path's own is what this stands for


BEFORE: dict[str, Callable[[], None]] = {
    "after the marker": lambda: setattr(moved, "begin", then_die(moved.begin)),
    "in the middle of the copy": lambda: setattr(moving, "_compare", die),
}
AFTER: dict[str, Callable[[], None]] = {
    "after the commit": lambda: setattr(moving, "check_logs", die),
    "before the file is put aside": lambda: setattr(moved, "end", die),
    "before the marker is gone": lambda: setattr(Path, "unlink", die_at_marker),
}


def file_is_closed(old: Path, code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        opened(old)
    assert caught.value.code == code


@pytest.mark.parametrize("when", [*BEFORE, *AFTER])
def test_killed_anywhere_the_same_command_ends_it(old: Path, url: str, when: str) -> None:
    killed(old, url, {**BEFORE, **AFTER}[when])
    file_is_closed(old, "store_moving")
    ended = run(old, url)
    assert ended.exit_code == 0, ended.exception
    file_is_closed(old, "store_moved")
    assert not (old / moved.MARKER).exists() and (old / moved.ASIDE).exists() and not (old / moved.FILE).exists()
    store = opened(old, url)
    found = store.resources.get("default", PATH)
    assert found is not None and found.value == b"value" and store.audit.verify("default").sequence == 5
    store.close()
    assert refused(old, url) == "store_moved"


@pytest.mark.parametrize("when", BEFORE)
def test_what_did_not_come_to_its_end_is_taken_back(old: Path, url: str, when: str) -> None:
    killed(old, url, BEFORE[when])
    assert run(old, url, "--take-back").exit_code == 0
    store = opened(old)
    assert store.resources.get("default", PATH) is not None
    store.close()
    assert run(old, url).exit_code == 0


@pytest.mark.parametrize("when", AFTER)
def test_what_the_database_has_is_not_taken_back(old: Path, url: str, when: str) -> None:
    killed(old, url, AFTER[when])
    assert refused(old, url, "--take-back") == "store_moving"
    file_is_closed(old, "store_moving")
    store = opened(old.parent / "replica", url)  # somebody goes on there meanwhile
    store.audit._commit([("default", AuditRow("attest", "allowed"), NOW)])
    store.close()
    assert run(old, url).exit_code == 0


@pytest.mark.parametrize("when", AFTER)
def test_it_is_ended_where_it_was_begun(old: Path, url: str, postgresql: Server, when: str) -> None:
    killed(old, url, AFTER[when])
    elsewhere = postgresql.url(postgresql.database())
    assert refused(old, elsewhere) == refused(old, elsewhere, "--take-back") == "store_moving"
    assert run(old, url).exit_code == 0


def test_what_fails_leaves_the_file_as_it_was(old: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:

        def differs(*_: Any) -> None:
            raise Unavailable("differs", code="copy_differs")

        broken.setattr(moving, "_compare", differs)
        assert refused(old, url) == "copy_differs"
    opened(old).close()
    opened(old.parent / "other", url).close()  # another store is there now
    assert refused(old, url) == "store_not_empty"
    opened(old).close()


def test_a_marker_that_cannot_be_read_keeps_the_file_closed(old: Path, url: str) -> None:
    (old / moved.MARKER).write_bytes(b"{")
    file_is_closed(old, "store_moving")
    assert refused(old, url) == "store_moving"
