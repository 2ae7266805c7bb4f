"""From start to end, however the end comes: nothing of an instance is left behind, and its row says how it ended."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from tests.platform.conftest import Starter
from tests.platform.services import Caller, Running, backing_of, loop_of, make_document
from tests.waiting import LONG, until

from adyton.errors import NotFound
from adyton.platform import cgroups
from adyton.platform.instances import Row, Table
from adyton.protocol import devtee

pytestmark = pytest.mark.root
FOREVER = "host.send(devtee.Running([]))\nimport time\nwhile True: time.sleep(1)\n"
BACKGROUND = "import subprocess; subprocess.Popen(['/guest/bin/python3', '-I', '-S', '-c', 'while True: pass']);"
OBEDIENT = """
host.send(devtee.Running([]))
while True:
    message = host.receive()
    if isinstance(message, devtee.Signal):
        host.say(message.number)
        if message.number == devtee.STOP: break
"""
DEAF = """
host.send(devtee.Running([]))
while True: host.receive()
"""


def running(caller: Caller) -> str:
    """Wait until it runs; the instance's id."""
    identity = ""
    while not isinstance(reply := caller.receive(), devtee.Running):
        assert reply is not None
        assert not isinstance(reply, devtee.Failed), reply
        if isinstance(reply, devtee.Started):
            identity = reply.instance
    return identity


def code(reply: object) -> object:
    assert isinstance(reply, devtee.Failed), reply
    return reply.error["code"]


def test_a_caller_that_vanishes_takes_its_instance_along(service: Running) -> None:
    caller = service.start(BACKGROUND + FOREVER)
    running(caller)
    assert len(service.children()) == 1
    caller.close()
    until(lambda: not service.children())
    until(lambda: [row.state for row in service.instances()] == ["exited"])
    assert [row.status for row in service.instances()] == [137]


def test_a_detached_instance_outlives_its_caller(service: Running) -> None:
    caller = service.start(OBEDIENT, detach=True)
    identity = running(caller)
    assert isinstance(caller.receive(), devtee.Done)
    caller.close()
    time.sleep(0.3)
    assert [row.state for row in service.instances()] == ["running"]
    assert isinstance(service.connect().ask(devtee.Stop(identity)), devtee.Done)
    assert [(row.state, row.status) for row in service.instances()] == [("exited", 0)]


def test_a_service_that_is_killed_leaves_nothing(start_service: Starter) -> None:
    service = start_service()
    device = loop_of(service.process.pid)
    backing = backing_of(device)
    assert backing is not None
    identity = running(service.start(BACKGROUND + FOREVER, detach=True, name="victim"))
    (first,) = service.children()
    group = f"/proc/{first}/root"
    assert Path(group).exists()
    service.process.kill()
    service.process.wait()
    until(lambda: not Path(f"/proc/{first}").exists())
    until(lambda: backing_of(device) != backing)
    again = start_service()
    (row,) = again.instances()
    assert (row.id, row.name, row.state, row.status) == (identity, "victim", "exited", 137)
    assert again.probe("host.say(1)") == [1]


def test_the_control_groups_of_a_killed_instance_are_removed(service: Running) -> None:
    hierarchies = [place for place in cgroups.hierarchies(Path("/proc/self/mountinfo")) if os.access(place, os.W_OK)]
    identity = running(service.start(FOREVER, detach=True))
    made = [place / "adyton" / identity / "inner" for place in hierarchies]
    for group in made:
        group.mkdir(parents=True)
    assert isinstance(service.connect().ask(devtee.Remove(identity, force=True)), devtee.Done)
    assert not [group for group in made if group.parent.exists()]
    assert not service.instances()


def test_stop_asks_first_and_kills_who_does_not_listen(service: Running) -> None:
    obedient, deaf = (running(service.start(probe, detach=True)) for probe in (OBEDIENT, DEAF))
    began = time.monotonic()
    assert isinstance(service.connect().ask(devtee.Stop(obedient, timeout=LONG)), devtee.Done)
    assert time.monotonic() - began < LONG / 2
    began = time.monotonic()
    assert isinstance(service.connect().ask(devtee.Stop(deaf, timeout=0.2)), devtee.Done)
    assert time.monotonic() - began < LONG / 2
    states = {row.id: row.status for row in service.instances()}
    assert states == {obedient: 0, deaf: 137}
    assert not service.children()


def test_signals_and_sizes_reach_the_agent(service: Running) -> None:
    caller = service.start(
        """
host.send(devtee.Running([]))
got = host.receive(), host.receive()
host.say([type(m).__name__ for m in got] + [got[0].number, got[1].rows, got[1].columns])
"""
    )
    running(caller)
    caller.send(devtee.Signal(10))
    caller.send(devtee.Resize(24, 80))
    said, ended = caller.everything()
    assert isinstance(said, devtee.Phase)
    assert said.label == '["Signal", "Resize", 10, 24, 80]'
    assert ended == devtee.Exited(0)


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        ("os._exit(7)", "instance_lost"),
        ("os.kill(os.getpid(), 11)\nraise SystemExit(3)", "instance_lost"),
        ("host.socket.close(); os._exit(0)", "instance_lost"),
        ("host.socket.sendall(b'\\xff' * 64)\nimport time; time.sleep(60)", "frame_too_large"),
        ("host.socket.sendall(b'\\0\\0\\0\\2{}')\nimport time; time.sleep(60)", "frame_malformed"),
        (
            "host.send(devtee.Exited(0)) if 0 else host.socket.sendall(b'\\0\\0\\1\\0half'); os._exit(0)",
            "frame_malformed",
        ),
        (
            'b = b\'{"type":"Phase","name":"\\xff"}\'; host.socket.sendall(len(b).to_bytes(4, \'big\') + b); host.receive()',
            "frame_malformed",
        ),
        ("host.send(devtee.Failed({'code': 'of_the_agent', 'kind': 'ImageError'}))", "of_the_agent"),
        ("host.send(devtee.Failed({'code': 'first'})); host.send(devtee.Exited(0))", "first"),
    ],
)
def test_an_agent_that_fails_or_raves(service: Running, probe: str, expected: str) -> None:
    replies = service.start(probe).everything()
    assert code(replies[-1]) == expected
    (row,) = service.instances()
    assert (row.state, row.status) == ("failed", 125)
    assert code(service.connect().ask(devtee.Attach(row.id))) == expected
    assert not service.children()
    assert service.probe("host.say(1)") == [1]


@pytest.mark.slow
def test_an_agent_that_says_farewell_and_stays(service: Running) -> None:
    replies = service.start("host.send(devtee.Exited(3))\nimport time; time.sleep(60)").everything()
    assert replies[-1] == devtee.Exited(3)
    assert not service.children()


def test_a_flood_of_phases_does_not_fill_the_service(service: Running) -> None:
    caller = service.start("for n in range(20000): host.send(devtee.Phase('flood', label='x' * 500))\n")
    time.sleep(1.0)  # the caller does not read
    assert isinstance(service.connect().ask(devtee.About()), devtee.Platform)
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert resident < 150_000  # kB
    assert caller.everything()[-1] == devtee.Exited(0)


def test_attaching_sees_the_end(service: Running) -> None:
    identity = running(service.start(OBEDIENT, detach=True, name="watched"))
    watcher = service.connect()
    watcher.send(devtee.Attach("watched"))
    time.sleep(0.1)
    service.connect().ask(devtee.Stop(identity))
    assert watcher.everything()[-1] == devtee.Exited(0)
    assert service.connect().ask(devtee.Attach(identity)) == devtee.Exited(0)


def test_what_is_written_stays_inside_unless_the_document_lets_it_out(service: Running) -> None:
    secret = "os.write(1, b'PLAINTEXT'); os.write(2, b'PLAINTEXT')"
    service.start(secret, detach=True, name="quiet").everything()
    until(lambda: service.instances()[0].state == "exited")
    assert code(service.connect().ask(devtee.Logs("quiet"))) == "logs_not_kept"
    for path in service.home.rglob("*"):
        if path.is_file() and path.stat().st_size < 1 << 20:
            assert b"PLAINTEXT" not in path.read_bytes(), path


def test_logs_of_a_document_that_allows_them(service: Running) -> None:
    probe = """
host.send(devtee.Running([]))
os.write(1, b"first\\n"); os.write(2, b"second\\n")
host.receive()
os.write(1, b"third\\n")
"""
    identity = running(service.start(probe, detach=True, name="loud", document=make_document(logs="host")))
    until(lambda: len(service.connect_and_read_logs("loud")) == 2)
    followers = [service.connect() for _ in range(3)]
    for follower in followers:
        follower.send(devtee.Logs("loud", follow=True))
    time.sleep(0.2)
    service.connect().ask(devtee.Stop(identity))
    for follower in followers:
        pieces = follower.everything()
        assert isinstance(pieces[-1], devtee.Done)
        told = [(piece.stream, piece.data) for piece in pieces if isinstance(piece, devtee.Output)]
        assert sorted(told[:2]) == [("stderr", b"second\n"), ("stdout", b"first\n")]
        assert told[2:] == [("stdout", b"third\n")]
    assert isinstance(service.connect().ask(devtee.Remove("loud")), devtee.Done)
    assert not list((service.home / "devtee" / "instances").iterdir())


def test_names_are_unique_and_running_rows_stay(service: Running) -> None:
    identity = running(service.start(FOREVER, detach=True, name="one"))
    assert code(service.start("", name="one").receive()) == "name_in_use"
    assert code(service.start("", name="-x").receive()) == "name_invalid"
    assert code(service.connect().ask(devtee.Remove("one"))) == "instance_running"
    assert code(service.connect().ask(devtee.Shutdown())) == "instances_running"
    assert [row.id for row in service.instances()] == [identity]
    assert isinstance(service.connect().ask(devtee.Remove(identity[:8], force=True)), devtee.Done)
    assert service.instances() == []


def test_remove_forgets_at_the_end(service: Running) -> None:
    assert service.start("host.say(1)", remove=True).everything()[-1] == devtee.Exited(0)
    assert service.instances() == []
    assert list((service.home / "devtee" / "instances").iterdir()) == []


def test_shutdown_by_force_ends_everything(service: Running) -> None:
    watcher = service.start(BACKGROUND + FOREVER)
    running(watcher)
    assert isinstance(service.connect().ask(devtee.Shutdown(force=True)), devtee.Done)
    assert watcher.everything()[-1] == devtee.Exited(137)
    assert service.process.wait(timeout=LONG) == 0


def test_the_operators_offer_is_not_kept(service: Running) -> None:
    running(service.start(FOREVER, detach=True, decryption_keys=["PEM-OF-A-KEY"], registry_auth="CREDENTIALS"))
    for path in service.home.rglob("*"):
        if path.is_file() and path.stat().st_size < 1 << 20:
            content = path.read_bytes()
            assert b"PEM-OF-A-KEY" not in content
            assert b"CREDENTIALS" not in content
    (first,) = service.children()
    for name in ("cmdline", "environ"):
        assert b"PEM-OF-A-KEY" not in Path(f"/proc/{first}/{name}").read_bytes()


def test_many_at_once(service: Running) -> None:
    callers = [service.start(f"host.say({number})") for number in range(12)]
    assert [caller.everything()[-1] for caller in callers] == [devtee.Exited(0)] * 12
    assert len(service.instances()) == 12
    assert not service.children()
    os.kill(service.process.pid, signal.SIGTERM)


def test_rows_that_a_crash_cut_short_are_passed_over(tmp_path: Path) -> None:
    described = devtee.Instance(
        id="aaaa1111",
        name="n",
        image="i",
        command=["c"],
        host_data="",
        state="running",
        created="2026-11-21T06:00:00+00:00",
    )
    first = Table(tmp_path)
    first.add(Row(described))
    (tmp_path / "bbbb.json").write_bytes(b'{"instance"')
    (tmp_path / "cccc.json").write_bytes(b"")
    (row,) = Table(tmp_path).rows()
    assert (row.instance.state, row.instance.status) == ("exited", 137)
    with pytest.raises(NotFound):
        first.find("bbbb")
    with pytest.raises(NotFound):
        first.find("aaa")  # too short to be meant
    assert first.find("aaaa1").instance.name == "n"
