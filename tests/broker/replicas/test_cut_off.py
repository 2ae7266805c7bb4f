"""A replica without its database refuses, and comes back by itself; one that is held up never acts on what is old."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.broker import rig
from tests.broker.replicas.conftest import KEY, Replicas
from tests.broker.replicas.record import whole
from tests.postgresql import Server
from tests.waiting import until

from adyton.devtee.root import DevelopmentRoot
from adyton.errors import AdytonError, ReleaseRefused, Unavailable
from adyton.protocol.release import Binding

RESOURCE = f"/kbs/v0/resource/{KEY}"


def test_acknowledged_by_one_is_decided_by_all(replicas: Replicas, root: DevelopmentRoot) -> None:
    for _ in range(2):
        replicas.add()
    replicas.prepare()
    one, other = replicas.brokers
    with other.session(rig.attester(root)) as session, one.admin() as admin:
        for turn in range(5):
            assert session.resource(KEY) == rig.SECRET
            admin.bind_resource(KEY, Binding(workloads=["sha256:" + "0" * 64]))
            with pytest.raises(ReleaseRefused):  # at once, at the other one, over a connection and a session that stand
                session.resource(KEY)
            admin.bind_resource(KEY, Binding(workloads=[str(rig.document().digest)]))
            assert session.resource(KEY) == rig.SECRET
            admin.set_reference("snp_launch_measurement", ["00" * 48] if turn % 2 == 0 else [rig.MEASUREMENT.hex()])
            with rig.raw(other) as client:
                headers = {"Cookie": f"kbs-session-id={session._cookie}"}
                assert client.ask("GET", RESOURCE, headers=headers)[0] == 401
            admin.set_reference("snp_launch_measurement", [rig.MEASUREMENT.hex()])
        admin.delete_resource(KEY)
        with pytest.raises(AdytonError):
            session.resource(KEY)
    whole(one, releases=10)


def test_a_replica_that_was_stopped_in_the_middle_releases_nothing(replicas: Replicas, root: DevelopmentRoot) -> None:
    """Stopped and let go again and again while it releases: after an acknowledged change, none of it goes out."""
    for _ in range(2):
        replicas.add()
    replicas.prepare()
    one, other = replicas.brokers
    assert other.process is not None
    answers: list[int] = []
    with other.session(rig.attester(root)) as session, rig.raw(other) as client:
        assert session.resource(KEY) == rig.SECRET
        headers = {"Cookie": f"kbs-session-id={session._cookie}"}
        stopped = threading.Event()

        def asking() -> None:
            while not stopped.is_set():
                answers.append(client.ask("GET", RESOURCE, headers=headers)[0])

        thread = threading.Thread(target=asking)
        thread.start()
        until(lambda: len(answers) > 10)
        os.kill(other.process.pid, signal.SIGSTOP)
        time.sleep(0.5)  # what it sent has come
        before = len(answers)
        with one.admin() as admin:
            admin.set_reference("snp_launch_measurement", ["00" * 48])
        time.sleep(1.3)
        os.kill(other.process.pid, signal.SIGCONT)
        until(lambda: len(answers) > before + 10)
        stopped.set()
        thread.join()
    assert answers[:before].count(200) > 10
    assert 200 not in answers[before:]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_database_is_killed_under_load_and_clients_succeed(
    replicas: Replicas, root: DevelopmentRoot, own_server: Server
) -> None:
    replicas.url = own_server.schema()
    for _ in range(2):
        replicas.add()
    replicas.prepare()
    stopped = threading.Event()
    got: list[int] = [0, 0]
    failed: list[Exception] = []

    def asking(index: int) -> None:
        while not stopped.is_set():
            try:
                with replicas.session(rig.attester(root), index) as session:
                    assert session.resource(KEY) == rig.SECRET
                    got[index] += 1
            except Unavailable:
                time.sleep(0.05)
            except Exception as error:
                failed.append(error)
                raise

    threads = [threading.Thread(target=asking, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for how in ("kill", "fast", "kill"):
        time.sleep(1)
        own_server.kill() if how == "kill" else own_server.stop(how)
        for broker in replicas.brokers:
            with rig.raw(broker) as client:
                began = time.monotonic()
                status, _, _ = client.ask("GET", RESOURCE, headers={"Cookie": "kbs-session-id=x"})
                assert status in {401, 503} and time.monotonic() - began < 2
        own_server.start()
        before = sum(got)
        until(lambda: sum(got) >= before + 4)  # noqa: B023
    stopped.set()
    for thread in threads:
        thread.join()
    assert not failed and min(got) > 0
    whole(replicas.brokers[0], releases=sum(got))


# ---------------------------------------------------------------- network namespaces


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def apart() -> Iterator[tuple[str, str]]:
    """A network namespace for a replica, and the address by which it reaches the database outside."""
    name = f"adyton-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode or shutil.which("ip") is None:
        pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
    outer, inner = f"ad{os.getpid() % 10**6}o", f"ad{os.getpid() % 10**6}i"
    near, far = "10.217.93.1", "10.217.93.2"
    try:
        run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name)
        run("ip", "addr", "add", f"{near}/30", "dev", outer)
        run("ip", "link", "set", outer, "up")
        run("ip", "-n", name, "addr", "add", f"{far}/30", "dev", inner)
        run("ip", "-n", name, "link", "set", inner, "up")
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield name, near
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", outer], check=False, capture_output=True)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_network_that_is_cut(tmp_path: Path, root: DevelopmentRoot, apart: tuple[str, str]) -> None:
    """One replica in a namespace of its own loses the wire to the database: it refuses, the other one goes on."""
    name, near = apart
    outer = f"ad{os.getpid() % 10**6}o"
    server = Server.make(address=f"127.0.0.1,{near}")
    with (server.data / "pg_hba.conf").open("a") as rules:
        rules.write(f"host all all {near}/30 trust\n")
    replicas = Replicas(tmp_path, root, "")
    inside: subprocess.Popen[str] | None = None
    try:
        server.start()
        search = server.schema().partition("options=")[2]
        replicas.url = f"postgresql://adyton@127.0.0.1:{server.port}/tests?options={search}"
        one = replicas.add()
        replicas.prepare()
        # The other one: the same program, in the namespace, asked through a program that runs there too.
        data = tmp_path / "inside"
        data.mkdir(mode=0o700)
        for file in ("root.key", "admin.token"):
            shutil.copy(one.data / file, data / file)
        url = f"postgresql://adyton@{near}:{server.port}/tests?sslmode=disable&options={search}"
        trust = [
            "--environment",
            "test",
            "--trust-dev-root",
            root.fingerprint,
            "--endorsements",
            str(root.endorsements),
        ]
        within = ["ip", "netns", "exec", name, sys.executable, "-m", "adyton"]
        with (tmp_path / "inside.log").open("w") as log:
            inside = subprocess.Popen(
                [*within, "broker", "serve", "--data", str(data), "--listen", "127.0.0.1:8080", "--database", url, *trust],
                stdout=log, stderr=log, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        for _ in range(400):
            if (data / "broker.json").exists() and "JWK set" in (tmp_path / "inside.log").read_text():
                break
            time.sleep(0.05)

        with one.session(rig.attester(root)) as session:
            assert session.resource(KEY) == rig.SECRET
            cookie = f"kbs-session-id={session._cookie}"  # made by one, shown to the other

            def ask() -> tuple[int, float]:
                code = (
                    "import http.client,time,sys\n"
                    "c=http.client.HTTPConnection('127.0.0.1',8080,timeout=20);b=time.monotonic()\n"
                    f"c.request('GET',{RESOURCE!r},headers={{'Cookie':sys.stdin.read()}})\n"
                    "print(c.getresponse().status,time.monotonic()-b)"
                )
                said = subprocess.run(
                    ["ip", "netns", "exec", name, sys.executable, "-c", code],
                    input=cookie, capture_output=True, text=True, check=True,
                ).stdout.split()  # fmt: skip
                return int(said[0]), float(said[1])

            assert ask()[0] == 200
            run("ip", "link", "set", outer, "down")
            status, took = ask()
            assert (status, took < 3) == (503, True), took
            with one.admin() as admin:  # nobody waits for the one that is cut off
                began = time.monotonic()
                admin.set_reference("snp_launch_measurement", ["00" * 48])
                assert time.monotonic() - began < 5
            assert [ask()[0] for _ in range(3)] == [503] * 3
            run("ip", "link", "set", outer, "up")
            for _ in range(100):
                status, _ = ask()
                assert status in {503, 401}  # never the old state
                if status == 401:
                    break
                time.sleep(0.1)
            else:
                pytest.fail((tmp_path / "inside.log").read_text())
            assert one.process is not None
        whole(one)
    finally:
        if inside is not None:
            inside.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                inside.wait(15)
            inside.kill()
        replicas.stop()
        server.close()
