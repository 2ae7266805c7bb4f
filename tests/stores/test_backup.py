"""Backups: what was tampered with, cut or older is refused; what was acknowledged before is there; no secret travels."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adyton.crypto import merkle
from adyton.errors import AdytonError
from adyton.protocol import backup as documents
from adyton.protocol.audit_row import AuditRow
from adyton.protocol.checkpoint import Checkpoint
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores import backup, schema
from adyton.stores.custody import keyring, slots
from adyton.stores.custody.keyring import Openers
from adyton.stores.custody.passphrase import Cost, PassphraseCustodian
from adyton.stores.database import SqliteDatabase
from adyton.stores.restore import restore
from adyton.stores.sqlite import FILE, Store

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
ROOT_KEY = bytes(range(100, 132))
SECRET = b"the secret of the temple, which nobody may read"
WORDS = b"correct horse battery staple"


class Silent:
    def advance(self, label: str, done: int, total: int | None) -> None:
        assert total is None or 0 <= done <= total, label


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    store = Store.open(directory, root_key=ROOT_KEY, now=NOW)
    store.resources.set("default", ResourcePath("default", "key", "1"), SECRET, Binding(), NOW)
    store.policies.set("default", "attestation", "p", "package secret_of_the_policy", NOW)
    for number in range(5):
        store.audit.append("default", AuditRow("attest", "allowed", peer=str(number)), NOW)
    store.audit.append("other", AuditRow("attest", "refused"), NOW)
    store.close()
    (directory / "root.key").write_bytes(ROOT_KEY)
    (directory / "admin.token").write_bytes(b"the admin's token")
    database = SqliteDatabase(directory / FILE)
    opened = keyring.Opened(ROOT_KEY, "plain")
    words = PassphraseCustodian(WORDS, Cost(19 * 1024, 2, 1))
    keyring.add(database, opened, lambda root, store: slots.make("words", words, root, store, NOW))
    database.close()
    return directory


def made(data: Path, name: str = "backup", **options: Any) -> Path:
    destination = data.parent / name
    backup.make(data, destination, NOW, Silent(), **{"root_key": ROOT_KEY, **options})
    return destination


def refused(code: str, action: Callable[[], Any]) -> AdytonError:
    with pytest.raises(AdytonError) as caught:
        action()
    assert caught.value.code == code
    return caught.value


def nothing_left(place: Path) -> None:
    assert not (place / "new").exists()
    assert [path for path in place.iterdir() if path.name.startswith(".")] == []


def restored(source: Path, **options: Any) -> Any:
    return restore(source, source.parent / "new", Silent(), **options)


def rewritten(source: Path, **change: Any) -> None:
    manifest = documents.parse((source / backup.MANIFEST).read_bytes())
    (source / backup.MANIFEST).write_bytes(msgspec.structs.replace(manifest, **change).written())


@pytest.mark.parametrize("place", [0, 40, 5000, -1])
def test_one_flipped_bit_is_found(data: Path, place: int) -> None:
    source = made(data)
    raw = bytearray((source / FILE).read_bytes())
    raw[place] ^= 1
    (source / FILE).write_bytes(raw)
    refused("backup_tampered", lambda: restored(source))
    nothing_left(data.parent)


def test_a_row_that_was_changed_with_its_digests_is_found(data: Path) -> None:
    source = made(data)
    connection = sqlite3.connect(source / FILE)
    connection.execute("DROP TRIGGER audit_no_update")
    connection.execute(
        "UPDATE audit SET body=CAST(replace(CAST(body AS TEXT), 'allowed', 'refused') AS BLOB) WHERE sequence=3"
    )
    for statement in schema.APPEND_ONLY:
        if "audit_no_update" in statement:
            connection.execute(statement)
    connection.commit()
    connection.close()
    rewritten(source, sha256=backup.digest(source / FILE, Silent()), size=(source / FILE).stat().st_size)
    with pytest.raises(AdytonError) as caught:
        restored(source)
    assert "row 3" in str(caught.value.field)
    nothing_left(data.parent)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER mine AFTER INSERT ON audit BEGIN DELETE FROM root_key_slots; END",
        "DROP TRIGGER audit_no_update",
        "CREATE VIEW v AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n) SELECT x FROM n",
        "DROP TABLE checkpoints; CREATE VIEW checkpoints AS SELECT 1 AS tenant, 2 AS size, 3 AS time, 4 AS note",
        "CREATE VIRTUAL TABLE words USING fts5(x)",
        "DROP TABLE checkpoints; CREATE TABLE checkpoints (tenant, size, time, note)",
        "ALTER TABLE resources ADD COLUMN mine TEXT",
        "DROP TABLE removals",
    ],
)
def test_a_file_that_does_something_of_its_own_is_refused(data: Path, statement: str) -> None:
    source = made(data)
    connection = sqlite3.connect(source / FILE)
    connection.executescript(statement)
    connection.close()
    rewritten(source, sha256=backup.digest(source / FILE, Silent()), size=(source / FILE).stat().st_size, mac="")
    refused("backup_damaged", lambda: restored(source))
    nothing_left(data.parent)


def test_a_mac_that_was_taken_away_is_noticed(data: Path) -> None:
    """Else whoever changes a backup need only leave it out."""
    source = made(data)
    rewritten(source, mac="", created="2030-01-01T00:00:00+00:00")
    refused("backup_unauthenticated", lambda: restored(source, root_key=lambda _: ROOT_KEY))
    nothing_left(data.parent)
    assert restored(source, root_key=lambda _: ROOT_KEY, unauthenticated=True)[1] is False


@pytest.mark.parametrize("name", [backup.MANIFEST, FILE])
@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "device"])
def test_members_that_are_no_files(data: Path, name: str, kind: str) -> None:
    source = made(data)
    (source / name).rename(data.parent / "elsewhere")
    if kind == "link":
        (source / name).symlink_to(data.parent / "elsewhere")
    elif kind == "device":
        (source / name).symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(source / name)
    else:
        (source / name).mkdir()
    refused("backup_malformed", lambda: restored(source))
    nothing_left(data.parent)


def test_a_manifest_without_end_is_not_read(data: Path) -> None:
    source = made(data)
    with (source / backup.MANIFEST).open("r+b") as file:
        file.truncate(1 << 40)  # a hole: nothing on the disk
    refused("backup_malformed", lambda: restored(source))


def test_names_that_mean_something_in_a_uri(data: Path) -> None:
    place = data.parent / "a?b=c#d%20e"
    place.mkdir()
    moved = data.rename(place / "data")
    source = made(moved, "backup?mode=rw")
    restored(source)
    assert (place / "new" / FILE).exists()


@given(st.binary(max_size=3000), st.integers(0, 6000), st.binary(max_size=40))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_archive_is_refused_in_our_words(data: Path, noise: bytes, place: int, change: bytes) -> None:
    source = data.parent / "whole.tar"
    if not source.exists():
        made(data, source.name)
    raw = bytearray(source.read_bytes())
    raw[place : place + len(change)] = change
    for content in (noise, bytes(raw), bytes(raw[: place * 3])):
        (data.parent / "other.tar").write_bytes(content)
        try:
            manifest, _ = restored(data.parent / "other.tar")
        except AdytonError:
            pass
        else:
            assert manifest.sha256.encode() in source.read_bytes(), "what was changed is no part of the store"
            shutil.rmtree(data.parent / "new")
        nothing_left(data.parent)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_ended_leaves_no_half_copy(data: Path, number: int) -> None:
    slow = (  # the copy takes its time
        "import signal, sys, time; from adyton.stores import backup; real = backup._strip\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where these tests are run by nohup\n"
        "def strip(*a, **k): print('half', flush=True); time.sleep(300)\n"
        "backup._strip = strip; from adyton.cli import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", slow, "broker", "backup", str(data.parent / "new"), "--data", str(data), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stdout.readline() == "half\n"
        running.send_signal(number)
        assert running.wait(60) == 128 + number
    nothing_left(data.parent)


def test_an_older_store_is_left_as_it_is(data: Path) -> None:
    """A broker of that version may serve it: a newer command that backs it up first must not change it under its hands."""
    connection = sqlite3.connect(data / FILE)
    with connection:
        for made_ in schema.FOURTH:
            if made_.split()[1] == "TABLE":
                connection.execute(f"DROP TABLE {made_.split()[2]}")
        connection.execute("PRAGMA user_version=3")
        before = connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
    connection.close()
    (data / "broker.json").write_text(
        '{"url": "http://127.0.0.1:1", "admin_token_file": "%s"}' % (data / "admin.token")
    )
    found = subprocess.run(
        [sys.executable, "-m", "adyton", "broker", "backup", str(data.parent / "new"), "--data", str(data)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 1 and "store_version" in found.stderr, found.stderr
    for asked in (["doctor"], ["root-key", "show"]):
        found = subprocess.run(
            [sys.executable, "-m", "adyton", "broker", *asked, "--data", str(data)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "store_version" in found.stdout + found.stderr, asked
    connection = sqlite3.connect(data / FILE)
    assert connection.execute("PRAGMA user_version").fetchone() == (3,)
    assert connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall() == before
    connection.close()
    nothing_left(data.parent)


def test_a_manifest_that_was_changed_is_found(data: Path) -> None:
    source = made(data)
    rewritten(source, created="2030-01-01T00:00:00+00:00")
    refused("backup_tampered", lambda: restored(source, root_key=lambda _: ROOT_KEY))
    rewritten(source, logs=[])
    refused("backup_tampered", lambda: restored(source))
    nothing_left(data.parent)


def test_another_version_is_refused(data: Path) -> None:
    source = made(data)
    rewritten(source, schema=99)
    assert refused("backup_version", lambda: restored(source)).got == 99


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"format":"other"}', b"\xff" * 100, b'{"a":1,"a":2}'])
def test_what_is_no_manifest(data: Path, raw: bytes) -> None:
    source = made(data)
    (source / backup.MANIFEST).write_bytes(raw)
    refused("backup_malformed", lambda: restored(source))
    nothing_left(data.parent)


def test_a_backup_older_than_the_checkpoint_is_refused(data: Path) -> None:
    source = made(data)
    store = Store.open(data, root_key=ROOT_KEY, now=NOW)
    store.audit.append("default", AuditRow("attest", "allowed"), NOW)
    held = Checkpoint("adyton/audit/x/default", 6, store.audit.root("default", 6))
    before = Checkpoint("adyton/audit/x/default", 5, store.audit.root("default", 5))
    store.close()
    error = refused("backup_too_old", lambda: restored(source, checkpoints=[before, held]))
    assert (error.expected, error.got) == ("at least 6 rows", "5 rows")
    nothing_left(data.parent)
    restored(source, checkpoints=[before])


def test_another_history_is_refused(data: Path) -> None:
    source = made(data)
    held = Checkpoint("adyton/audit/x/default", 5, merkle.leaf_hash(b"another"))
    refused("backup_forked", lambda: restored(source, checkpoints=[held]))
    nothing_left(data.parent)


def test_nothing_is_written_over(data: Path) -> None:
    source = made(data)
    refused("backup_exists", lambda: made(data))
    refused("restore_not_empty", lambda: restore(source, data, Silent()))
    (data.parent / "new").mkdir()
    restored(source)
    refused("restore_not_empty", lambda: restored(source))


@pytest.mark.parametrize("names", [["manifest.json"], ["broker.sqlite", "manifest.json"], ["../x", "broker.sqlite"]])
def test_archives_that_are_no_backup(data: Path, names: list[str]) -> None:
    source = data.parent / "x.tar"
    with tarfile.open(source, "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"abc"))
    refused("backup_malformed", lambda: restored(source))
    (data.parent / "noise.tar").write_bytes(os.urandom(5000))
    refused("backup_malformed", lambda: restored(data.parent / "noise.tar"))
    nothing_left(data.parent)


def test_there_is_no_store(tmp_path: Path) -> None:
    refused("store_absent", lambda: backup.make(tmp_path, tmp_path / "b", NOW, Silent()))


@pytest.mark.parametrize("name", ["backup", "backup.tar"])
def test_no_secret_travels(data: Path, name: str) -> None:
    """Nothing of the values, the root key, the token or what a passphrase opens is in any byte of it."""
    database = SqliteDatabase(data / FILE)
    slot = slots.read(database)[0]
    database.close()
    source = made(data, name)
    files = [source] if source.is_file() else list(source.iterdir())
    raw = b"".join(path.read_bytes() for path in files)
    for secret in (ROOT_KEY, SECRET, b"secret_of_the_policy", b"the admin's token", slot.kept.sealed, slot.public):
        assert secret not in raw
        assert secret.hex().encode() not in raw
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    manifest, authentic = restored(source, root_key=lambda _: ROOT_KEY)
    assert authentic
    assert manifest.left_out == ["words"]


def test_a_passphrase_slot_stays_if_asked_for(data: Path) -> None:
    source = made(data, keep_passphrase_slots=True)
    restored(source)
    database = SqliteDatabase(data.parent / "new" / FILE)
    found = keyring.unlock(database, data.parent / "new" / "root.key", Openers(passphrase=lambda: WORDS))
    database.close()
    assert found is not None
    assert (found.by, found.root_key) == ("words", ROOT_KEY)


def test_the_root_key_is_needed(data: Path) -> None:
    source = made(data)
    restored(source)
    assert [path.name for path in (data.parent / "new").iterdir()] == [FILE]
    refused("root_key_wrong", lambda: Store.open(data.parent / "new", root_key=bytes(32), now=NOW))
    store = Store.open(data.parent / "new", root_key=ROOT_KEY, now=NOW)
    found = store.resources.get("default", ResourcePath("default", "key", "1"))
    assert found is not None
    assert found.value == SECRET
    assert store.audit.verify("default").sequence == 5
    store.close()


WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from adyton.protocol.audit_row import AuditRow
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores.sqlite import Store
now = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
store = Store.open(Path(sys.argv[1]), root_key=bytes(range(100, 132)), now=now)
for number in range(1000000):
    store.resources.set("default", ResourcePath("r", "load", str(number % 50)), str(number).encode() * 500, Binding(), now)
    store.audit.append("default", AuditRow("resource.set", "allowed", resource=str(number)), now)
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


def test_under_load_what_was_acknowledged_before_is_there(data: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(data)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        for _ in range(60):
            last = int(process.stdout.readline())
        source = made(data)
        later = int(process.stdout.readline())
        assert later > last
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    restored(source)
    store = Store.open(data.parent / "new", root_key=ROOT_KEY, now=NOW)
    head = store.audit.verify("default")
    assert head.sequence >= 5 + last + 1
    rows = store.audit.bodies("default", 5, 10**6)
    assert f'"resource":"{last}"'.encode() in rows[last]
    for number in range(last - 49, last + 1):
        found = store.resources.get("default", ResourcePath("r", "load", str(number % 50)))
        assert found is not None
        assert int(found.value[: len(found.value) // 500]) >= number
    store.close()


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.05, 0.1])
def test_interrupted_nothing_usable_is_left(data: Path, seconds: float) -> None:
    source = made(data)
    child = os.fork()
    if child == 0:
        restored(source)
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if (data.parent / "new").exists():  # it was quicker
        Store.open(data.parent / "new", root_key=ROOT_KEY, now=NOW).close()
    else:
        restored(source)
