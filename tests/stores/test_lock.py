from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adyton.errors import ConfigError, PlatformError
from adyton.stores.lock import BrokerLock
from adyton.stores.rootkey import load_or_create
from adyton.stores.sqlite import Store

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
CHILD = """
import sys
from pathlib import Path
from adyton.errors import AdytonError
from adyton.stores.lock import BrokerLock
try:
    how, directory, *instance = sys.argv[1:]
    lock = BrokerLock.take(Path(directory)) if how == "take" else BrokerLock.join(Path(directory), *instance)
    print("held", lock.instance, flush=True)
except AdytonError as error:
    print(error.code, flush=True)
sys.stdin.read()
"""


@contextmanager
def child(how: str, directory: Path, *instance: str) -> Iterator[tuple[list[str], subprocess.Popen[str]]]:
    """Another process that tries to lock; yields what it said. It lives until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, how, str(directory), *instance],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdin
    try:
        yield process.stdout.readline().split(), process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_a_second_broker_is_refused_and_told_who_runs(tmp_path: Path) -> None:
    lock = BrokerLock.take(tmp_path)
    try:
        with pytest.raises(ConfigError) as caught:
            BrokerLock.take(tmp_path)
        assert caught.value.code == "broker_running" and str(os.getpid()) in str(caught.value.got) and caught.value.hint
        with child("take", tmp_path) as (said, _):
            assert said == ["broker_running"]
    finally:
        lock.release()
        lock.release()
    BrokerLock.take(tmp_path).release()


def test_a_second_store_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    store = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    try:
        with pytest.raises(ConfigError) as caught:
            Store.open(tmp_path, root_key=bytes(32), now=NOW)
        assert caught.value.code == "broker_running"
        store.secrets.set("still", b"works")
    finally:
        store.close()


def test_a_failed_opening_leaves_no_lock_behind(tmp_path: Path) -> None:
    Store.open(tmp_path, root_key=bytes(32), now=NOW).close()
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            Store.open(tmp_path, root_key=b"x" * 32, now=NOW)
        assert caught.value.code == "root_key_wrong"
    Store.open(tmp_path, root_key=bytes(32), now=NOW).close()


@pytest.mark.parametrize("instance", ["", "0" * 32, "another"])
def test_a_worker_of_another_broker_is_refused(tmp_path: Path, instance: str) -> None:
    lock = BrokerLock.take(tmp_path)
    try:
        with pytest.raises(ConfigError) as caught:
            BrokerLock.join(tmp_path, instance)
        assert caught.value.code == "broker_gone"
    finally:
        lock.release()


def test_a_worker_without_its_broker_is_refused(tmp_path: Path) -> None:
    lock = BrokerLock.take(tmp_path)
    lock.release()
    with pytest.raises(ConfigError) as caught:
        BrokerLock.join(tmp_path, lock.instance)
    assert caught.value.code == "broker_gone"


def test_several_workers_join(tmp_path: Path) -> None:
    lock = BrokerLock.take(tmp_path)
    try:
        with child("join", tmp_path, lock.instance) as (one, _), child("join", tmp_path, lock.instance) as (two, _):
            assert one == two == ["held", lock.instance]
    finally:
        lock.release()


def test_a_killed_brokers_lock_is_free_but_not_while_its_workers_live(tmp_path: Path) -> None:
    with child("take", tmp_path) as (said, broker):
        assert said[0] == "held"
        with child("join", tmp_path, said[1]) as (joined, worker):
            assert joined == said
            broker.send_signal(signal.SIGKILL)
            broker.wait()
            with pytest.raises(ConfigError) as caught:
                BrokerLock.take(tmp_path)
            assert caught.value.code == "broker_running" and "worker" in str(caught.value.got)
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            lock = BrokerLock.take(tmp_path)
            assert lock.instance != said[1]
            lock.release()


def test_a_lock_file_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "broker.lock").symlink_to(tmp_path / "target")
    with pytest.raises(PlatformError):
        BrokerLock.take(tmp_path)
    assert (tmp_path / "target").read_text() == "precious"


# --- the root key's file


def test_a_root_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "root.key"
    key, made = load_or_create(path)
    assert made and len(key) == 32 and path.stat().st_mode & 0o777 == 0o600
    assert load_or_create(path) == (key, False)
    assert [file.name for file in tmp_path.iterdir()] == ["root.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o610])
def test_a_root_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "root.key"
    load_or_create(path)
    path.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        load_or_create(path)
    assert caught.value.code == "root_key_exposed" and caught.value.hint


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33, b"x" * 64])
def test_a_file_that_is_no_root_key_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "root.key"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_or_create(path)
    assert caught.value.code == "root_key_invalid" and path.read_bytes() == content
    assert "xxxx" not in str(caught.value.as_dict())


def test_a_root_key_behind_a_link_or_nowhere_is_refused(tmp_path: Path) -> None:
    load_or_create(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for path in (tmp_path / "link", tmp_path / "no" / "where", tmp_path):
        with pytest.raises(ConfigError):
            load_or_create(path)
