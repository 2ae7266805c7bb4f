"""Workers and the process above them, whatever signals come and whoever dies."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.broker import rig
from tests.waiting import until

from adyton.broker.running import process, server
from adyton.broker.running.bell import Bell

SERVE = [sys.executable, "-m", "adyton", "broker", "serve", "--listen", "127.0.0.1:0"]


def children(process: int) -> list[int]:
    found = [
        int(one) for task in Path(f"/proc/{process}/task").iterdir() for one in (task / "children").read_text().split()
    ]
    return sorted(found)


def runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def answers(url: str, path: str = "healthz") -> bool:
    try:
        with urllib.request.urlopen(f"{url}/{path}", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture
def two(tmp_path: Path) -> Iterator[rig.RunningBroker]:
    running = rig.started(tmp_path / "data", None, "--workers", "2", "--drain-seconds", "0")
    yield running
    if running.process is not None and running.process.poll() is None:
        running.process.kill()
        running.process.wait()


def test_who_has_begun_to_come_is_let_in_while_others_are_turned_away() -> None:
    code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
    nothing = struct.pack("HxxxxxxP", 1, ctypes.addressof(code))  # a filter that lets no packet in
    with server.listen("127.0.0.1", 0) as listener, socket.socket() as begun, socket.socket() as late:
        for client in (begun, late):
            client.setblocking(False)
        begun.setsockopt(socket.SOL_SOCKET, 26, nothing)  # so the listener's answer does not reach it for now
        assert begun.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        process.turn_away(listener)
        begun.setsockopt(socket.SOL_SOCKET, 27, 0)
        assert late.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        listener.settimeout(10)  # the answer is sent again after a second
        taken, peer = listener.accept()
        with taken:
            assert peer == begun.getsockname()
            begun.setblocking(True)
            begun.sendall(b"a question")
            taken.settimeout(10)
            assert taken.recv(100) == b"a question", "its connection does not inherit a filter that keeps it deaf"
        listener.settimeout(0.3)
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.slow
def test_a_worker_that_is_told_to_end_takes_the_port_from_nobody(two: rig.RunningBroker) -> None:
    assert two.process is not None
    url = two.description["url"]
    for first in range(2):
        before = children(two.process.pid)
        os.kill(before[first], signal.SIGTERM)
        until(lambda: not runs(before[first]), 15)  # noqa: B023
        until(lambda: len([one for one in children(two.process.pid) if runs(one)]) == 2, 15)  # type: ignore[union-attr]
        until(lambda: two.log().count("starting another") == first + 1, 15)  # noqa: B023
        time.sleep(0.5)
        assert all(answers(url) for _ in range(5))
    assert two.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_comes_while_it_ends(tmp_path: Path, workers: str) -> None:
    """Settings are not read again then; a second wish to end shortens the wait, and nothing is left behind."""
    running = rig.started(tmp_path / "data", None, "--workers", workers, "--drain-seconds", "20")
    assert running.process is not None
    below = children(running.process.pid)
    running.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    for number in (signal.SIGHUP, signal.SIGUSR2):
        running.process.send_signal(number)
    time.sleep(0.5)
    assert running.process.poll() is None and answers(running.description["url"])
    began = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(15) == 0 and time.monotonic() - began < 10
    assert not (running.data / "broker.json").exists()
    assert not any(map(runs, below))


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_end_while_it_begins_leaves_nothing(tmp_path: Path, workers: str) -> None:
    log = tmp_path / "log"
    for number, after in enumerate((0.5, 1.0, 1.5, 2.0, 2.7)):
        data = tmp_path / f"data{number}"
        with log.open("w") as file:
            process = subprocess.Popen(
                [*SERVE, "--data", str(data), "--no-tls", "--workers", workers],
                stdout=file, stderr=file, env={**os.environ, "ADYTON_HOME": str(tmp_path / "home")},
            )  # fmt: skip
        time.sleep(after)
        process.send_signal(signal.SIGHUP)
        below = children(process.pid)
        process.send_signal(signal.SIGTERM)
        status = process.wait(20)
        assert status in {0, 143, -signal.SIGTERM, -signal.SIGHUP}, (
            log.read_text()
        )  # the last two before Python had begun
        assert "Traceback" not in log.read_text()
        assert not (data / "broker.json").exists()
        until(lambda: not any(map(runs, below)), 10)  # noqa: B023


@pytest.mark.slow
def test_who_is_killed_leaves_no_process(two: rig.RunningBroker) -> None:
    assert two.process is not None
    below = children(two.process.pid)
    url = two.description["url"]
    until(lambda: answers(url, "readyz") and all(map(children, below)))  # each has asked its policy engine
    engines = [engine for one in below for engine in children(one)]
    os.kill(below[0], signal.SIGKILL)
    two.process.kill()
    two.process.wait()
    until(lambda: not any(map(runs, [*below, *engines])), 15)


@pytest.mark.slow
def test_a_wrong_setting_is_told_as_one_worker_tells_it(tmp_path: Path) -> None:
    (tmp_path / "endorsements").mkdir()
    (tmp_path / "endorsements" / "crl.der").write_text("no CRL")
    said = []
    for workers in ("1", "2"):
        found = subprocess.run(
            [*SERVE, "--data", str(tmp_path / f"data{workers}"), "--workers", workers, "--endorsements", str(tmp_path / "endorsements")],
            capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "ADYTON_HOME": str(tmp_path)},
        )  # fmt: skip
        assert found.returncode == 1
        said.append(found.stderr)
    assert "endorsement_malformed" in said[0] and "hint:" in said[0]
    assert said[1] == said[0]


@pytest.mark.slow
def test_nobody_else_is_told_to_reload(two: rig.RunningBroker) -> None:
    """What a broker that was killed wrote of itself names a process that may be anybody by now."""
    assert two.process is not None
    description = (two.data / "broker.json").read_text()
    two.process.kill()
    two.process.wait()
    with subprocess.Popen(["sleep", "60"]) as other:
        (two.data / "broker.json").write_text(description.replace(f'"pid": {two.process.pid}', f'"pid": {other.pid}'))
        home = two.data.parent / "home"
        home.mkdir(exist_ok=True)
        (home / "broker").symlink_to(two.data)
        for arguments in ([], ["--settings"]):
            found = subprocess.run(
                [sys.executable, "-m", "adyton", "broker", "reload", *arguments],
                capture_output=True, text=True, check=False, env={**os.environ, "ADYTON_HOME": str(home)},
            )  # fmt: skip
            assert found.returncode == 1 and "broker_unknown" in found.stderr
        assert other.poll() is None
        other.kill()


def test_a_bell_is_deaf_to_nothing_and_puts_back_what_was() -> None:
    before = signal.getsignal(signal.SIGUSR2)
    with Bell((signal.SIGUSR2,)) as bell:
        began = time.monotonic()
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert not bell.wait(60) and time.monotonic() - began < 30
        assert set(bell.take()) == {signal.SIGUSR2} and bell.take() == []
        assert not bell.wait(0.01)
        reading, writing = os.pipe()
        os.write(writing, b"x")
        assert bell.wait(10, reading)
        os.close(reading)
        os.close(writing)
    assert signal.getsignal(signal.SIGUSR2) is before
