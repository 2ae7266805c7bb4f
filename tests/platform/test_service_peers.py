"""Who may talk to the service, and what happens to those who talk nonsense. It serves on afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.platform.conftest import Starter
from tests.platform.services import Caller, Running, make_document
from tests.waiting import LONG, until

from adyton.protocol import devtee

pytestmark = pytest.mark.root
NOBODY = 65534


def as_nobody(path: Path) -> bytes:
    """What the service answers another user's ``About``; ``b""`` if that user cannot even connect."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                with contextlib.suppress(ConnectionError):  # it may have said no and gone already
                    connection.sendall(devtee.frame(devtee.About()))
                os.write(write, connection.recv(65536))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def descriptors_of(process: int) -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def code(reply: object) -> object:
    assert isinstance(reply, devtee.Failed), reply
    return reply.error["code"]


def still_serves(service: Running) -> bool:
    return isinstance(service.connect().ask(devtee.About()), devtee.Platform)


def test_another_user_cannot_reach_the_socket(shared: Running) -> None:
    assert as_nobody(shared.socket) == b""


def test_another_user_who_reaches_it_is_refused_by_credentials(service: Running) -> None:
    for path in (service.home, service.home / "run"):
        path.chmod(0o755)
    service.socket.chmod(0o777)
    answer = as_nobody(service.socket)
    assert b"peer_refused" in answer
    assert b"measurement" not in answer
    assert still_serves(service)


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack(">I", 2) + b"{}",
        struct.pack(">I", 4) + b"\xff\xfe\0\0",
        struct.pack(">I", 12) + b'{"type":"\xff"}',
        struct.pack(">I", 32) + b'{"type":"Logs","instance":"\xc3\x28\xff"}',
        struct.pack(">I", 0),
        struct.pack(">I", devtee.MAX_FRAME + 1),
        b"\xff\xff\xff\xff" + b"x" * 100,
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">I", 16) + b'{"type":"Reboot"',
        struct.pack(">I", 200_000) + b"[" * 200_000,
        devtee.frame(devtee.ReportRequest(bytes(64))),  # an agent's message: only its own channel takes it
    ],
)
def test_what_is_no_request_ends_the_conversation(shared: Running, raw: bytes) -> None:
    caller = shared.connect()
    caller.send_raw(raw)
    assert code(caller.receive()) in {"frame_malformed", "frame_too_large"}
    assert caller.receive() is None
    assert still_serves(shared)


def test_half_a_frame_and_gone(shared: Running) -> None:
    before = descriptors_of(shared.process.pid)
    for _ in range(20):
        caller = shared.connect()
        caller.send_raw(struct.pack(">I", 1000) + b'{"type"')
        caller.close()
    until(lambda: descriptors_of(shared.process.pid) <= before)
    assert still_serves(shared)


def test_too_many_descriptors_are_refused_and_none_is_kept(shared: Running) -> None:
    before = descriptors_of(shared.process.pid)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (4, 50):
        caller = shared.connect()
        caller.send(devtee.Run(document=make_document()), (null,) * number)
        assert code(caller.receive()) == "too_many_descriptors"
        caller.close()
    os.close(null)
    until(lambda: descriptors_of(shared.process.pid) <= before)
    assert not shared.instances()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_caller_that_stays_must_bring_three(shared: Running, number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    caller = shared.connect()
    caller.send(devtee.Run(document=make_document()), (null,) * number)
    os.close(null)
    assert code(caller.receive()) == "descriptors_missing"
    assert not shared.instances()


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (devtee.Signal(9), "frame_unexpected"),
        (devtee.Resize(1, 1), "frame_unexpected"),
    ],
)
def test_signals_belong_to_a_run(shared: Running, request_: devtee.ControlRequest, expected: str) -> None:
    assert code(shared.connect().ask(request_)) == expected
    assert still_serves(shared)


@pytest.mark.parametrize("document", ["", "x", "[data]", 'version = "0.1.0"\nalgorithm = "sha384"\n[data]\n'])
def test_a_document_that_is_none_starts_nothing(shared: Running, document: str) -> None:
    caller = shared.start("", document=document) if document else shared.connect()
    if not document:
        null = os.open(os.devnull, os.O_RDWR)
        caller.send(devtee.Run(document=""), (null,) * 3)
        os.close(null)
    reply = caller.receive()
    assert isinstance(reply, devtee.Failed)
    assert reply.error["kind"] == "DocumentInvalid"
    assert not shared.instances()
    assert not shared.children()


@pytest.mark.parametrize(
    "request_", [devtee.Attach("none"), devtee.Logs("none"), devtee.Stop("none"), devtee.Remove("none")]
)
def test_an_instance_that_is_not_there(shared: Running, request_: devtee.ControlRequest) -> None:
    assert code(shared.connect().ask(request_)) == "instance_unknown"


def test_a_second_service_is_refused(shared: Running) -> None:
    command = [sys.executable, "-m", "adyton", "devtee", "serve", "--guest", "/nowhere"]
    second = subprocess.run(
        command, env={**os.environ, "ADYTON_HOME": str(shared.home)}, capture_output=True, text=True, timeout=LONG
    )
    assert second.returncode == 1
    assert "service_running" in second.stderr
    assert still_serves(shared)


def test_it_ends_by_itself_when_nothing_happens(start_service: Starter) -> None:
    service = start_service("--idle-exit", "2")
    caller = service.connect()
    assert isinstance(caller.ask(devtee.About()), devtee.Platform)
    with pytest.raises(subprocess.TimeoutExpired):
        service.process.wait(timeout=3)  # somebody is connected
    caller.close()
    assert service.process.wait(timeout=LONG) == 0
    assert not service.socket.exists()


def test_it_ends_on_term_and_leaves_no_socket(service: Running) -> None:
    caller: Caller = service.connect()
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(timeout=LONG) == 0
    assert not service.socket.exists()
    assert caller.receive() is None


def test_the_process_that_holds_the_keys_cannot_be_dumped(shared: Running) -> None:
    limits = Path(f"/proc/{shared.process.pid}/limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4] == "0"
    assert (shared.socket.stat().st_mode & 0o777) == 0o600
    assert (shared.socket.parent.stat().st_mode & 0o777) == 0o700


def test_of_two_that_start_at_once_the_second_waits_for_the_first(root_directory: Path, probe_guest: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="ady") as home:
        shutil.copytree(root_directory, Path(home) / "devtee")
        command = [sys.executable, "-m", "adyton", "devtee", "serve", "--guest", str(probe_guest)]
        environment = {**os.environ, "ADYTON_HOME": home}
        both = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in "ab"]
        until(lambda: any(process.poll() is not None for process in both))
        (loser,) = [process for process in both if process.poll() is not None]
        (winner,) = [process for process in both if process is not loser]
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(Path(home) / "run" / "devtee.sock"))  # it can be reached by now
        connection.close()
        winner.terminate()
        assert (loser.returncode, winner.wait(timeout=LONG)) == (1, 0)
        assert "service_running" in loser.communicate()[1]
        assert "listening on" in winner.communicate()[1]
