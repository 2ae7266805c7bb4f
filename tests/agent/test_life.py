"""An agent's whole life with real namespaces and a real OCI runtime, driven over the report channel."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import socket
import threading
import time
import tty
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.waiting import LONG, until

from adyton.protocol import devtee, workload

pytestmark = pytest.mark.root


def host(path: str, mode: Literal["ro", "rw"] = "rw") -> workload.Mount:
    return workload.Mount(path=path, kind="host", mode=mode)


# What must not run


def test_foreign_document_is_not_run(launch: Any) -> None:
    instance = launch("echo", "ran", host_data=b"\x01" * 32)
    out, _ = instance.wait()
    assert instance.failure()["code"] == "host_data_mismatch"
    assert instance.process.returncode == 125
    assert out == b""


@pytest.mark.parametrize(
    ("members", "run", "volumes", "code"),
    [
        ({}, {}, {"/data": "/etc"}, "not_in_document"),
        ({}, {"volumes": {"/data": "/etc"}}, {}, "not_in_document"),
        ({"mounts": [workload.Mount(path="/t", kind="tmpfs")]}, {}, {"/t": "/etc"}, "not_in_document"),
        ({"mounts": [host("/data")]}, {}, {}, "volume_missing"),
        ({"mounts": [host("/data")]}, {}, {"/data": "/private"}, "volume_place"),
        ({}, {"terminal": True}, {}, "not_in_document"),
        ({"network": "bridge"}, {"publish": [devtee.Publish(80)]}, {}, "not_in_document"),
        ({"env": {"A": workload.EnvPattern("[0-9]+")}}, {"env": {"A": "1x"}}, {}, "env_not_allowed"),
        ({"user": "nobody-here"}, {}, {}, "user_unknown"),
        ({"user": "app:nobody-here"}, {}, {}, "group_unknown"),
    ],
)
def test_an_offer_outside_the_document_is_refused(launch: Any, members: Any, run: Any, volumes: Any, code: str) -> None:
    instance = launch("echo", "ran", run=run, volumes=volumes, **members)
    out, _ = instance.wait()
    assert instance.failure()["code"] == code
    assert instance.process.returncode == 125
    assert out == b""


def test_a_taken_port_is_an_error_before_anything_runs(launch: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        instance = launch(
            "echo",
            "ran",
            run={"publish": [devtee.Publish(80, taken.getsockname()[1])]},
            network="bridge",
            ports=[workload.Port(80)],
        )
        out, _ = instance.wait()
    assert instance.failure()["code"] == "port_unavailable"
    assert out == b""


@pytest.mark.parametrize(
    ("command", "code"),
    [("/bin/missing", "command_not_found"), ("missing", "command_not_found"), ("/bin/plain", "command_not_invocable")],
)
def test_a_command_that_cannot_run_says_why(launch: Any, command: str, code: str) -> None:
    instance = launch(command)
    instance.wait()
    assert instance.failure()["code"] == code


def test_output_stays_inside_unless_the_document_lets_it_out(launch: Any) -> None:
    instance = launch("sh", "-c", "echo secret; echo secret >&2; exit 3", logs=False)
    out, err = instance.wait()
    assert instance.status() == 3
    assert out == b""
    assert b"secret" not in err
    assert err.count(b"\n") == 1


def test_the_workload_dies_with_the_platform(launch: Any) -> None:
    instance = launch("sleep", "60")
    instance.event(devtee.Running)
    instance.channel.shutdown(socket.SHUT_RDWR)
    instance.wait()
    assert instance.process.returncode in {125, 137}  # 125 if it was about to say that the workload runs


def test_a_hostile_etc_leads_nowhere(launch: Any, tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "etc").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.write_text("root:x:4242:4242::/:/bin/sh\n")
    (top / "etc" / "passwd").symlink_to(outside)
    instance = launch("id", "-u", layers=(top,), user="root")
    instance.wait()
    assert instance.failure()["code"] == "user_unknown"


@pytest.mark.parametrize("number", ["9" * 5000, "\u00b2", "-1", ""])
def test_numbers_in_etc_that_are_none_are_passed_over(launch: Any, tmp_path: Path, number: str) -> None:
    top = tmp_path / "top"
    (top / "etc").mkdir(parents=True)
    lines = f"odd:x:{number}:0::/:\nodder:x:7:{number}::/:\napp:x:1000:1001::/:\n"
    (top / "etc" / "passwd").write_text(lines)
    (top / "etc" / "group").write_text(f"odd:x:{number}:app\napp:x:1001:\n")
    instance = launch("sh", "-c", "id -u; id -g; id -G", layers=(top,), user="1000")
    out, _ = instance.wait()
    assert out == b"1000\n1001\n1001\n", instance.events


def test_a_defect_is_said_without_what_the_image_holds(launch: Any) -> None:
    instance = launch("echo", "ran", stop_signal="raise:the image's secret")
    out, err = instance.wait()
    assert instance.failure()["code"] == "agent_defect"
    assert instance.process.returncode == 125
    assert b"secret" not in out + err
    assert "secret" not in str(instance.failure())


# What must run, as podman runs it


def test_output_and_status(launch: Any) -> None:
    instance = launch("sh", "-c", "echo out; echo err >&2; exit 7")
    out, err = instance.wait()
    assert (out, err) == (b"out\n", b"err\n")
    assert instance.status() == 7
    assert instance.process.returncode == 7
    assert isinstance(instance.event(devtee.Running), devtee.Running)


def test_exact_environment(launch: Any) -> None:
    instance = launch(
        "env",
        env={"A": "1", "B": workload.EnvPattern("[a-z]+"), "C": workload.EnvPattern(".*")},
        run={"env": {"B": "ok", "D": "dropped", "A": "changed"}},
    )
    out, _ = instance.wait()
    lines = dict(line.split("=", 1) for line in out.decode().splitlines())
    assert lines.pop("HOSTNAME").startswith("t")
    assert lines == {
        "A": "1",
        "B": "ok",
        "HOME": "/root",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "container": "oci",
    }


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("app", "1000 1001 1001 50"),
        ("1000", "1000 1001 1001 50"),
        ("app:staff", "1000 50 50"),
        ("4321", "4321 0 0"),
        ("4321:99", "4321 99 99"),
        ("0:0", "0 0 0"),
    ],
)
def test_users_are_the_images(launch: Any, user: str, expected: str) -> None:
    instance = launch("sh", "-c", "echo $(id -u) $(id -g) $(id -G)", user=user)
    out, _ = instance.wait()
    assert out.decode().strip() == expected


def test_cwd_hostname_and_files(launch: Any) -> None:
    instance = launch("sh", "-c", "pwd; hostname; cat /etc/hosts; ls /proc/self/fd", cwd="/made/for/it")
    out, _ = instance.wait()
    lines = out.decode().splitlines()
    assert lines[0] == "/made/for/it"
    assert lines[1] == instance.name[:12]
    assert "localhost" in lines[2]
    assert lines[-4:] == ["0", "1", "2", "3"]  # 3 is ls's own; no channel, no store


def test_limits_and_capabilities(launch: Any) -> None:
    instance = launch("sh", "-c", "ulimit -Hc; ulimit -c; cat /proc/self/status; echo x > /proc/sys/kernel/hostname")
    out, err = instance.wait()
    lines = out.decode().splitlines()
    assert lines[0] in {"0", "1", "2"}  # in blocks of 512 bytes: below any core file
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert int(status["CapEff"], 16) == 0x800405FB
    assert status["Seccomp"].strip() == "2"
    assert b"Read-only" in err


def test_only_the_workload_is_to_be_seen(launch: Any) -> None:
    instance = launch("sh", "-c", "echo /proc/[0-9]*; cat /proc/mounts")
    out, _ = instance.wait()
    processes, *mounted = out.decode().splitlines()
    assert len(processes.split()) <= 2
    assert mounted[0].startswith("overlay / overlay rw")


def test_layers_lie_over_each_other_and_stay_as_they_are(launch: Any, layer: Path, tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "data").mkdir(parents=True)
    (top / "data" / "kept").write_text("from the top")
    instance = launch("sh", "-c", "cat /data/kept; echo changed > /data/kept; cat /data/kept", layers=(top,))
    out, _ = instance.wait()
    assert out == b"from the topchanged\n"
    assert (top / "data" / "kept").read_text() == "from the top"
    assert (layer / "data" / "kept").read_text() == "from the image"


def test_two_hundred_layers(launch: Any, tmp_path: Path) -> None:
    tops = []
    for number in range(200):
        top = tmp_path / f"a-layer-with-a-rather-long-name-{number}"
        top.mkdir()
        (top / f"f{number}").write_text("x")
        tops.append(top)
    instance = launch("sh", "-c", "ls / | tr '\\n' ' '", layers=tuple(tops))
    out, _ = instance.wait()
    assert b" f0 f1 f10 f100" in out
    assert instance.status() == 0


def test_mounts(launch: Any, tmp_path: Path) -> None:
    (tmp_path / "rw").mkdir()
    (tmp_path / "ro").mkdir()
    (tmp_path / "ro" / "file").write_text("given")
    instance = launch(
        "sh",
        "-c",
        "cat /ro/file; echo x > /ro/file; echo written > /rw/file; echo y > /data/new; cat /data/kept; touch /t/a; stat -c %a /t;"
        "cat /anonymous/x; touch /anonymous/y",
        mounts=[
            host("/ro", "ro"),
            host("/rw"),
            workload.Mount(path="/data", kind="volume"),
            workload.Mount(path="/t", kind="tmpfs"),
            workload.Mount(path="/anonymous", kind="volume", mode="ro"),
        ],
        volumes={"/ro": str(tmp_path / "ro"), "/rw": str(tmp_path / "rw")},
    )
    out, err = instance.wait()
    assert out == b"givenfrom the image1777\n"
    assert err.count(b"Read-only file system") == 2
    assert (tmp_path / "rw" / "file").read_text() == "written\n"
    assert (tmp_path / "ro" / "file").read_text() == "given"


@pytest.mark.parametrize("encrypted", [True, False])
def test_a_new_volume_has_the_images_owner_and_of_plain_images_its_content(
    launch: Any, tmp_path: Path, encrypted: bool
) -> None:
    top, volume = tmp_path / "top", tmp_path / "volume"
    (top / "data" / "sub").mkdir(parents=True)
    (top / "data" / "sub" / "file").write_text("content")
    (top / "data" / "sub" / "link").symlink_to("/etc/shadow")
    for path in (top / "data", top / "data" / "sub", top / "data" / "sub" / "file"):
        os.chown(path, 1000, 1001)
    (top / "data").chmod(0o2750)
    volume.mkdir()
    for word in ("first", "second"):
        instance = launch(
            *("sh", "-c", f"echo {word} >> /data/written; cat /data/sub/file; cat /data/written"),
            user="app",
            layers=(top,),
            mounts=[workload.Mount("/data", "volume")],
            volumes={"/data": str(volume)},
            encrypted=encrypted,
        )
        out, _ = instance.wait()
        expected = b"first\n" if word == "first" else b"first\nsecond\n"
        assert out == (expected if encrypted else b"content" + expected)
    status = volume.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1000, 1001, 0o2750)
    assert (volume / "sub").exists() is not encrypted
    if not encrypted:
        assert (volume / "sub" / "link").readlink() == Path("/etc/shadow")
        assert (volume / "sub" / "file").stat().st_uid == 1000


def test_a_runtime_that_does_not_work_here_gives_way_to_the_next(launch: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text(
        "#!/bin/sh\nwhile [ $# -gt 0 ]; do [ $1 = --log ] && log=$2; shift; done\n"
        'echo \'{"level":"error","msg":"cgroups in hybrid mode not supported"}\' >> $log\nexit 1\n'
    )
    broken.chmod(0o755)
    instance = launch("echo", "ran", runtimes={"runc": broken, "crun": shutil.which("runc", path="/usr/sbin:/usr/bin")})
    out, _ = instance.wait()
    assert (out, instance.status()) == (b"ran\n", 0)
    said = [event.label for event in instance.events if isinstance(event, devtee.Phase) and event.name == "notice"]
    assert any("hybrid mode" in text for text in said)
    alone = launch("echo", "ran", runtimes={"runc": broken})
    alone.wait()
    assert alone.failure()["code"] == "runtime_failed"
    assert "hybrid mode" in str(alone.failure()["got"])


def test_standard_input(launch: Any) -> None:
    instance = launch("cat", run={"interactive": True})
    out, _ = instance.process.communicate(b"x" * 300_000, timeout=20)
    assert out == b"x" * 300_000


def test_without_interactive_there_is_no_input(launch: Any) -> None:
    instance = launch("cat")
    out, _ = instance.process.communicate(b"not for you", timeout=20)
    assert (out, instance.status()) == (b"", 0)


def test_much_output_and_a_reader_that_leaves(launch: Any) -> None:
    instance = launch(
        "sh", "-c", "while echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; do :; done; exit 9"
    )
    assert instance.process.stdout.read(100_000).startswith(b"yyy")
    instance.process.stdout.close()
    instance.process.stdout = None
    instance.wait()
    assert instance.status() in {9, 141}  # busybox's echo sees EPIPE, or SIGPIPE ends it


def test_output_that_does_not_come_out_is_no_success(launch: Any) -> None:
    null, full = os.open(os.devnull, os.O_RDWR), os.open("/dev/full", os.O_WRONLY)
    for stdio, name in (((null, full, null), "stdout"), ((null, null, full), "stderr")):
        instance = launch("sh", "-c", f"echo lost >&{2 if name == 'stderr' else 1}", stdio=stdio)
        instance.wait()
        failure = instance.failure()
        assert (failure["code"], failure["field"]) == ("output_unwritable", name)
        assert "No space left" in failure["message"]
    os.close(null)
    os.close(full)


def test_descriptors_that_do_not_wait(launch: Any) -> None:
    """A caller may have made its own ends non-blocking: nothing is cut off when it reads or writes slowly."""
    null = os.open(os.devnull, os.O_RDWR)
    (their_input, our_input), (our_output, their_output) = os.pipe(), os.pipe()
    for descriptor in (their_input, their_output):
        os.set_blocking(descriptor, False)
    instance = launch("cat", run={"interactive": True}, stdio=(their_input, their_output, null))
    for descriptor in (null, their_input, their_output):
        os.close(descriptor)
    instance.event(devtee.Running)
    time.sleep(0.2)  # nothing to be read yet, which ``read`` says at once
    sent = os.urandom(400_000)

    def write() -> None:
        with os.fdopen(our_input, "wb") as writing:
            writing.write(sent)

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.3)  # the pipe of the output is full by now
    with os.fdopen(our_output, "rb") as reading:
        assert reading.read() == sent
    writer.join()
    instance.wait()
    assert instance.status() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1])
def test_signals_reach_the_workload(launch: Any, number: int) -> None:
    trap = "trap 'echo got; exit 5' TERM USR1; echo ready; while :; do sleep 0.05; done"
    instance = launch("sh", "-c", trap)
    assert instance.process.stdout.readline() == b"ready\n"
    instance.send(devtee.Signal(int(number)))
    out, _ = instance.wait()
    assert (out, instance.status()) == ((b"", 137) if number == signal.SIGKILL else (b"got\n", 5))


@pytest.mark.parametrize(("named", "status"), [("", 5), ("SIGUSR1", 6), ("nonsense", 5)])
def test_a_stop_is_the_signal_that_the_image_names(launch: Any, named: str, status: int) -> None:
    trap = "trap 'exit 5' TERM; trap 'exit 6' USR1; echo ready; while :; do sleep 0.05; done"
    instance = launch("sh", "-c", trap, stop_signal=named)
    assert instance.process.stdout.readline() == b"ready\n"
    instance.send(devtee.Signal(devtee.STOP))
    instance.wait()
    assert instance.status() == status


@pytest.mark.parametrize("number", [signal.SIGINT, devtee.STOP])
def test_a_signal_before_the_workload_runs_ends_the_instance(launch: Any, tmp_path: Path, number: int) -> None:
    fifo = tmp_path / "never"
    os.mkfifo(fifo)
    instance = launch("echo", "ran", slow=fifo)
    instance.event(devtee.Phase)
    time.sleep(0.3)
    instance.send(devtee.Signal(int(number)))
    out, _ = instance.wait()
    status = 128 + (number or signal.SIGTERM)
    assert (out, instance.status(), instance.process.returncode) == (b"", status, status)


def test_orphans_are_reaped_and_die_with_the_workload(launch: Any) -> None:
    instance = launch("sh", "-c", "(sleep 100 &) ; (sleep 100 &) ; echo done")
    began = time.monotonic()
    out, _ = instance.wait()
    assert out == b"done\n"
    assert time.monotonic() - began < LONG


def test_terminal(launch: Any) -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    instance = launch(
        "sh",
        "-c",
        "trap 'echo winch' WINCH; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo tty $TERM; while ! read x; do :; done; echo got $x; exit 4",
        run={"terminal": True, "interactive": True, "rows": 33, "columns": 101},
        terminal=True,
        stdio=(slave, slave, slave),
        logs=False,
    )
    os.close(slave)
    seen = read_until(master, b"tty xterm")
    instance.send(devtee.Resize(50, 120))
    seen += read_until(master, b"winch")
    os.write(master, b"hello\n")
    seen += read_until(master, b"got hello")
    instance.process.wait(LONG)
    os.close(master)
    assert instance.status() == 4


def test_a_detached_terminal_keeps_its_secrets(launch: Any) -> None:
    instance = launch("echo", "secret", run={"terminal": True, "detach": True}, terminal=True, logs=False)
    out, err = instance.wait()
    assert instance.status() == 0
    assert b"secret" not in out + err


def read_until(descriptor: int, text: bytes, timeout: float = LONG) -> bytes:
    os.set_blocking(descriptor, False)
    data, end = b"", time.monotonic() + timeout
    while text not in data:
        assert time.monotonic() < end, data
        try:
            data += os.read(descriptor, 4096)
        except BlockingIOError:
            time.sleep(0.01)
    return data


def test_published_ports(launch: Any) -> None:
    instance = launch(
        "sh",
        "-c",
        "while :; do echo -e 'HTTP/1.0 200 OK\\r\\n\\r\\nhello' | nc -l -p 8080; done",
        run={"publish": [devtee.Publish(8080), devtee.Publish(9)]},
        network="bridge",
        ports=[workload.Port(8080), workload.Port(9)],
    )
    published = instance.event(devtee.Running).published
    assert [item.container_port for item in published] == [8080, 9]
    until(lambda: talk(published[0].host_port, b"GET / HTTP/1.0\r\n\r\n").endswith(b"hello\n"))
    with pytest.raises(ConnectionError):
        talk(published[1].host_port, b"x", swallow=False)  # nobody listens there: refused, not swallowed
    instance.send(devtee.Signal(signal.SIGKILL))
    instance.wait()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", published[0].host_port), 1)


def talk(port: int, data: bytes, *, swallow: bool = True) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), LONG) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            return answer
    except ConnectionError:
        if not swallow:
            raise
        return b""


def test_networks_are_apart(launch: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        inside = launch("sh", "-c", f"nc -w 1 127.0.0.1 {port} < /dev/null; echo $?; ls /sys/class/net")
        out, _ = inside.wait()
        assert out == b"1\nlo\n"
        outside = launch("sh", "-c", f"nc -w 1 127.0.0.1 {port} < /dev/null; echo $?", network="host")
        server.accept()[0].close()
        out, _ = outside.wait()
        assert out == b"0\n"
