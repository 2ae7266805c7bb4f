"""``adyton run`` on the real road: platform service, measured guest stack, agent, runc."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
import tty
from pathlib import Path
from typing import Any

import pytest
from tests import waiting

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def nothing_left(adyton: Any) -> Any:
    yield
    for row in rows(adyton, "-a"):
        adyton("rm", "-f", row["id"])


def rows(adyton: Any, *options: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in adyton("ps", "--json", *options).stdout.splitlines()]


def plain(result: subprocess.CompletedProcess[bytes]) -> bytes:
    """Standard error without the two lines of Adyton's own that a good run may have."""
    lines = result.stderr.splitlines(keepends=True)
    own = (b"adyton: workload document sha256:", b"adyton: starting the development TEE's platform service")
    return b"".join(line for line in lines if not line.startswith(own))


# Refused


@pytest.mark.parametrize(
    "arguments",
    [
        ("--no-such-option", "IMAGE"),
        (),
        ("-v", "nonsense:", "IMAGE"),
        ("-p", "99999", "IMAGE"),
        ("-v", "/does/not/exist:/x", "IMAGE"),
        ("oci:/does/not/exist:latest",),
        ("Not A Name",),
        ("-u", "nobody-there", "IMAGE", "true"),
        ("--broker-pin", "sha256:00", "IMAGE"),
    ],
)
def test_what_adyton_cannot_do_is_125(adyton: Any, image: str, arguments: tuple[str, ...]) -> None:
    result = adyton("run", *(image if word == "IMAGE" else word for word in arguments))
    assert (result.returncode, result.stdout) == (125, b"")
    assert plain(result)


def test_command_missing_and_not_invocable(adyton: Any, image: str) -> None:
    missing = adyton("run", image, "no-such-command")
    assert (missing.returncode, missing.stdout) == (127, b"")
    assert b"not in the image" in missing.stderr
    assert adyton("run", image, "/etc/passwd").returncode == 126


def test_a_name_is_taken_once(adyton: Any, image: str) -> None:
    first = adyton("run", "-d", "--name", "one", image, "sleep", "100")
    assert first.returncode == 0, first.stderr
    second = adyton("run", "--name", "one", image, "echo", "ran")
    assert (second.returncode, second.stdout) == (125, b"")
    assert b"in use" in second.stderr
    assert adyton("rm", "one").returncode == 1  # it runs
    assert adyton("rm", "-f", "one").returncode == 0
    assert adyton("run", "--rm", "--name", "one", image, "true").returncode == 0
    assert adyton("run", "--rm", "--name", "one", image, "true").returncode == 0


def test_unknown_instances(adyton: Any, image: str) -> None:
    adyton("run", "--rm", image, "true")
    for verb in (("stop",), ("rm",), ("logs",)):
        result = adyton(*verb, "nobody")
        assert (result.returncode, result.stdout) == (1, b"")
        assert b"nobody" in result.stderr


# As podman


def test_the_images_own_command(adyton: Any, image: str) -> None:
    result = adyton("run", "--rm", image)
    assert (result.returncode, result.stdout, plain(result)) == (0, b"default command in /work as app with 1\n", b"")
    assert b"workload document sha256:" in result.stderr


@pytest.mark.parametrize("status", [0, 1, 42, 125, 255])
def test_exit_status(adyton: Any, image: str, status: int) -> None:
    assert adyton("run", "--rm", image, "sh", "-c", f"exit {status}").returncode == status


def test_streams(adyton: Any, image: str) -> None:
    result = adyton("run", "--rm", "-i", image, "sh", "-c", "cat; echo err >&2", input=b"x" * 1_000_000)
    assert (result.returncode, len(result.stdout), plain(result)) == (0, 1_000_000, b"err\n")
    assert adyton("run", "--rm", image, "cat", input=b"not connected").stdout == b""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_is_nobodys(adyton: Any, image: str, closed: str) -> None:
    line = f'exec "$0" -m adyton run -q --rm -i {image} sh -c "cat; echo out; echo err >&2; exit 5" {closed}'
    result = subprocess.run(
        ["sh", "-c", line, sys.executable], env=adyton.environment, input=b"in\n", capture_output=True, timeout=60
    )
    assert result.returncode == 5, result.stderr
    words = {b"in\n": "<&-" not in closed, b"out\n": ">&-" not in closed.replace("2>&-", "")}
    assert result.stdout == (b"".join(word for word, there in words.items() if there) if words[b"out\n"] else b"")
    assert plain(result) == (b"" if "2>&-" in closed else b"err\n")


def test_command_line(adyton: Any, image: str, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("A=from file\nB=2\n")
    result = adyton(
        *("run", "--rm", "-e", "A=1", "--env-file", str(tmp_path / "env"), "-w", "/tmp", "-u", "0:1001"),
        *("--entrypoint", "sh", image, "-c", 'echo $A $B $FROM_IMAGE $PWD $(id -u):$(id -g) "$@"', "x", "-v", "--rm"),
    )
    assert result.stdout == b"1 2 1 /tmp 0:1001 -v --rm\n"


def test_volumes(adyton: Any, image: str, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("given")
    script = (
        "cat /ro/given; touch /ro/x; echo new > /rw/new; cat /volume/from-image; echo 1 > /named/kept; echo 2 > /t/x"
    )
    result = adyton(
        *("run", "--rm", "-u", "0", "-v", f"{tmp_path}:/ro:ro", "-v", f"{tmp_path}:/rw", "-v", "named:/named"),
        *("--tmpfs", "/t", image, "sh", "-c", script),
    )
    assert result.stdout == b"givenkept"
    assert b"Read-only file system" in result.stderr
    assert (tmp_path / "new").read_text() == "new\n"
    again = adyton("run", "--rm", "-v", "named:/named:ro", image, "cat", "/named/kept")
    assert again.stdout == b"1\n"
    new = adyton("run", "--rm", "-v", "fresh:/volume", image, "sh", "-c", "cat /volume/from-image; touch /volume/mine")
    assert (new.returncode, new.stdout) == (0, b"kept"), new.stderr  # filled from the image, and its user may write


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 9), (signal.SIGINT, 9), (signal.SIGUSR1, 8)])
def test_signals_are_forwarded(adyton: Any, image: str, number: signal.Signals, status: int) -> None:
    script = "trap 'exit 9' TERM INT; trap 'exit 8' USR1; echo ready; while :; do sleep 0.05; done"
    process = adyton.start("run", "--rm", image, "sh", "-c", script)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    process.communicate(timeout=waiting.LONG)
    assert process.returncode == status


def test_a_killed_workload(adyton: Any, image: str) -> None:
    assert adyton("run", "--rm", image, "sh", "-c", "kill -9 $$; sleep 1; exit 3").returncode in {3, 137}
    process = adyton.start("run", "--name", "victim", image, "sh", "-c", "echo ready; sleep 100")
    assert process.stdout.readline() == b"ready\n"
    assert adyton("stop", "-t", "0", "victim").returncode == 0
    process.communicate(timeout=waiting.LONG)
    assert process.returncode == 137


def test_a_caller_that_leaves_takes_its_instance_along(adyton: Any, image: str) -> None:
    process = adyton.start("run", "--name", "left", image, "sh", "-c", "echo ready; sleep 100")
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    process.communicate()
    waiting.until(lambda: not rows(adyton), what="it still runs")


def test_detached(adyton: Any, image: str) -> None:
    script = "trap 'echo stopping; exit 3' TERM; echo out; echo err >&2; while :; do sleep 0.05; done"
    started = adyton("run", "-d", "--name", "service", image, "sh", "-c", script)
    assert started.returncode == 0, started.stderr
    identity = started.stdout.decode().strip()
    (row,) = rows(adyton)
    assert (row["id"], row["name"], row["state"], row["command"][:2]) == (identity, "service", "running", ["sh", "-c"])
    assert b"service" in adyton("ps").stdout
    follower = adyton.start("logs", "-f", "service")
    assert follower.stdout.readline() == b"out\n"
    stopped = adyton("stop", "service")
    assert (stopped.returncode, stopped.stdout) == (0, b"service\n")
    rest, _ = follower.communicate(timeout=waiting.LONG)
    assert rest == b"stopping\n"
    logs = adyton("logs", identity[:12])
    assert (logs.stdout, logs.stderr) == (b"out\nstopping\n", b"err\n")
    assert rows(adyton) == []
    (row,) = rows(adyton, "-a")
    assert (row["state"], row["status"]) == ("exited", 3)
    assert adyton("rm", "service").returncode == 0
    assert rows(adyton, "-a") == []


def test_terminal(adyton: Any, image: str) -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    script = (
        "trap 'stty size' WINCH; [ -t 0 ] && [ -t 1 ] && stty size; while ! read x; do :; done; echo got $x; exit 6"
    )
    import fcntl
    import struct
    import termios

    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    process = adyton.start("run", "--rm", "-it", image, "sh", "-c", script, stream=slave)
    os.close(slave)
    seen = until(master, b"33 101")
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
    process.send_signal(signal.SIGWINCH)
    seen = until(master, b"50 120")
    os.write(master, b"hello\r")
    seen = until(master, b"got hello")
    assert process.wait(waiting.LONG) == 6, seen
    os.close(master)


def test_a_terminal_without_input_leaves_ctrl_c_to_the_caller(adyton: Any, image: str) -> None:
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    script = "trap 'exit 9' INT; echo ready; while :; do sleep 0.05; done"
    argv = [sys.executable, "-m", "adyton", "run", "-q", "--rm", "-t", image, "sh", "-c", script]
    code = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *argv],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=adyton.environment,
        start_new_session=True,
    )
    os.close(slave)
    try:
        until(master, b"ready")
        os.write(master, b"\x03")
        assert process.wait(waiting.LONG) == 9
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_logs_of_an_attached_run_are_not_kept_and_it_says_so(adyton: Any, image: str) -> None:
    assert adyton("run", "--name", "attached", image, "true").returncode == 0
    result = adyton("logs", "attached")
    assert result.returncode == 1
    assert b"adyton run -d" in result.stderr


def until(descriptor: int, text: bytes, timeout: float = 60) -> bytes:
    data, end = b"", time.monotonic() + timeout
    while text not in data:
        assert time.monotonic() < end, data
        try:
            data += os.read(descriptor, 4096)
        except BlockingIOError:
            time.sleep(0.01)
    return data


def test_published_ports(adyton: Any, image: str) -> None:
    script = "echo hello > index.html; httpd -f -p 8080"
    started = adyton("run", "-d", "--name", "web", "-u", "0", "-p", "8080", image, "sh", "-c", script)
    assert started.returncode == 0, started.stderr
    (row,) = rows(adyton)
    (published,) = row["published"]
    assert (published["container_port"], published["host_address"]) == (8080, "127.0.0.1")

    def answered() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", published["host_port"]), waiting.LONG) as connection:
                connection.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
                with connection.makefile("rb") as stream:
                    return stream.read().endswith(b"hello\n")
        except ConnectionError:
            return False

    waiting.until(answered)
    taken = adyton("run", "-p", f"{published['host_port']}:80", image, "true")
    assert taken.returncode == 125
    assert b"cannot be published" in taken.stderr


def test_the_service_is_started_and_says_so(adyton: Any, image: str) -> None:
    assert adyton("devtee", "stop", "--force").returncode in {0, 1}
    first = adyton("run", "--rm", image, "true")
    assert (first.returncode, first.stderr.count(b"starting the development TEE's platform service")) == (0, 1)
    second = adyton("run", "--rm", image, "true")
    assert b"starting" not in second.stderr


# By a document


def test_a_document_decides(adyton: Any, image: str, tmp_path: Path) -> None:
    file = str(tmp_path / "w.toml")
    new = adyton(
        *("workload", "new", "-o", file, "-e", "A=1", "-e", "B~[0-9]+", "-p", "80", "--logs", "host", image),
        *("sh", "-c", "echo $A $B $C"),
    )
    assert new.returncode == 0, new.stderr
    digest = new.stderr.decode().split()[0]
    ran = adyton("run", "--rm", "--workload", file, "-e", "B=42", image)
    assert (ran.returncode, ran.stdout) == (0, b"1 42\n"), ran.stderr
    assert digest.encode() in ran.stderr
    for more in (
        (image, "sh", "-c", "echo other"),
        ("-e", "A=2", image),
        ("-e", "B=x", image),
        ("-e", "C=1", image),
        ("-v", f"{tmp_path}:/x", image),
        ("-p", "81", image),
        ("-u", "0", image),
        ("-t", image),
        ("--network", "host", image),
    ):
        refused = adyton("run", "--rm", "--workload", file, *more)
        assert (refused.returncode, refused.stdout) == (125, b""), more
        assert b"workload document" in refused.stderr


def test_a_documents_output_stays_inside(adyton: Any, image: str, tmp_path: Path) -> None:
    file = str(tmp_path / "w.toml")
    assert adyton("workload", "new", "-o", file, image, "sh", "-c", "echo secret; exit 5").returncode == 0
    ran = adyton("run", "--workload", file, image)
    assert (ran.returncode, ran.stdout) == (5, b"")
    assert b"inside the instance" in ran.stderr
    detached = adyton("run", "-d", "--name", "quiet", "--workload", file, image)
    assert detached.returncode == 0
    assert adyton("logs", "quiet").returncode == 1


def test_a_changed_document_is_another_identity(adyton: Any, image: str, tmp_path: Path) -> None:
    file = tmp_path / "w.toml"
    adyton("workload", "new", "-o", str(file), image, "true")
    shown = json.loads(adyton("workload", "show", "--json", str(file)).stdout)
    file.write_text(file.read_text().replace("debug", "debug") + "\n")
    again = json.loads(adyton("workload", "show", "--json", str(file)).stdout)
    assert shown["workload"] == again["workload"]
    assert shown["host_data"] != again["host_data"]
