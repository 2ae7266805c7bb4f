"""What a machine does to a running broker: its clock jumps, its disk is full, it dies between any two writes.

The broker's process gets a module that runs before it: it moves the clock that Python reads, and kills the process at a
chosen statement of the database. Everything else is as it is served.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.broker import rig

from adyton.crypto import jwe
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import AdytonError
from adyton.protocol import rcar
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath

KEY = ResourcePath("default", "key", "1")
RESOURCE = f"/kbs/v0/resource/{KEY}"
MINE = Binding(workloads=[str(rig.document().digest)])
HOUR, DAY = 3600.0, 24 * 3600.0
BEFORE = """
import os, signal, sqlite3, time

_DIRECTORY = os.environ["ADYTON_TEST_FAULTS"]
_time, _connect = time.time, sqlite3.connect


def _said(name):
    try:
        with open(os.path.join(_DIRECTORY, name)) as file:
            return file.read()
    except OSError:
        return ""


def _moved():
    return _time() + float(_said("clock") or 0)


class _Connection(sqlite3.Connection):
    def execute(self, statement, *rest):
        _count(statement)
        return super().execute(statement, *rest)

    def executemany(self, statement, *rest):
        _count(statement)
        return super().executemany(statement, *rest)


def _count(statement):
    left = _said("statements")
    if not left or statement.lstrip()[:6].upper() == "SELECT":
        return
    if left == "0":
        os.unlink(os.path.join(_DIRECTORY, "statements"))
        os.kill(os.getpid(), signal.SIGKILL)
    with open(os.path.join(_DIRECTORY, "statements"), "w") as file:
        file.write(str(int(left) - 1))


time.time = _moved
sqlite3.connect = lambda *given, **named: _connect(*given, **{"factory": _Connection, **named})
"""


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory in which a test says what is to happen to brokers that start from now on."""
    if os.environ.get("ADYTON_TEST_STORE") == "postgresql":
        pytest.skip("these are faults of a broker with its own file")
    directory = tmp_path / "faults"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(BEFORE)
    monkeypatch.setenv("PYTHONPATH", str(directory))
    monkeypatch.setenv("ADYTON_TEST_FAULTS", str(directory))
    return directory


@pytest.fixture
def own(faults: Path, tmp_path: Path, root: DevelopmentRoot) -> Iterator[rig.RunningBroker]:
    running = rig.started(tmp_path / "data", root)
    running.publish()
    with running.admin() as admin:
        admin.set_resource(KEY, rig.SECRET, MINE)
    yield running
    if running.process is not None and running.process.poll() is None:
        running.stop()


def rows(broker: rig.RunningBroker) -> list[dict[str, Any]]:
    with broker.admin() as admin:
        found: list[dict[str, Any]] = admin.audit(limit=1000)
    return found


def jwks(broker: rig.RunningBroker) -> set[str]:
    with rig.raw(broker) as client:
        return {key["kid"] for key in json.loads(client.ask("GET", "/.well-known/jwks.json")[1])["keys"]}


# ---------------------------------------------------------------- the clock


@pytest.mark.slow
def test_the_clock_jumps(own: rig.RunningBroker, faults: Path, root: DevelopmentRoot) -> None:
    def jump(seconds: float) -> None:
        (faults / "clock").write_text(str(seconds))

    kids = jwks(own)
    with rig.raw(own) as client, rig.raw(own) as ahead:
        token, key = client.handshake(rig.attester(root), rig.document())
        bearer = {"Authorization": f"Bearer {token}"}

        def asked(headers: dict[str, str] | None = None) -> int:
            status, body, _ = client.ask("GET", RESOURCE, headers=headers)
            assert status != 200 or jwe.decrypt(key, body) == rig.SECRET
            return status

        assert asked() == 200 and asked({**bearer, "Cookie": "x=y"}) == 200
        # A day forward: what had an end has ended, and says so; nothing is given for it.
        jump(DAY)
        assert asked() == 401 and asked({**bearer, "Cookie": "x=y"}) == 401
        time.sleep(6)  # maintenance has seen it: no key is made or thrown away for what may be a mistake
        assert jwks(own) >= kids
        status, read, _ = ahead.ask("POST", "/kbs/v0/auth", rcar.request_body("snp"))
        assert status == 200
        body = rig.attest_body(json.loads(read)["nonce"], rig.attester(root), rig.document(), key)
        status, read, _ = ahead.ask("POST", "/kbs/v0/attest", body)
        assert status == 200, read
        # Back to where it was: the old session lives again, as long as it would have.
        jump(0)
        assert asked() == 200 and asked({**bearer, "Cookie": "x=y"}) == 200
        assert ahead.ask("GET", RESOURCE)[0] == 200  # what began under a clock that was ahead ends by that clock
        # An hour back: sessions go on, new ones begin, keys that are not yet to be used still open what they made.
        jump(-HOUR)
        assert asked() == 200
        assert jwks(own) >= kids
        with rig.raw(own) as back:
            status, read, _ = back.ask("POST", "/kbs/v0/auth", rcar.request_body("snp"))
            assert status == 200
            body = rig.attest_body(json.loads(read)["nonce"], rig.attester(root), rig.document(), key)
            assert back.ask("POST", "/kbs/v0/attest", body)[0] == 200
        jump(0)
        assert asked() == 200
    with own.admin() as admin:
        admin.set_resource(KEY, b"next", MINE)
    found = rows(own)
    assert [row["sequence"] for row in found] == list(
        range(1, len(found) + 1)
    )  # the order is the log's, not the clock's
    assert len({row["time"][:13] for row in found}) > 1  # and the times are as the clock said
    with own.admin() as admin:
        admin.audit_verify()
    own.kill()
    assert jwks(own) >= kids and len(rows(own)) == len(found)


# ---------------------------------------------------------------- the disk


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m,mode=0700", "none", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.root
def test_the_disk_is_full_while_it_serves(small: Path, root: DevelopmentRoot) -> None:
    if os.environ.get("ADYTON_TEST_STORE") == "postgresql":
        pytest.skip("these are faults of a broker with its own file")
    broker = rig.started(small / "data", root)
    try:
        broker.publish()
        with broker.admin() as admin:
            admin.set_resource(KEY, rig.SECRET, MINE)
        with rig.raw(broker) as client:
            _, key = client.handshake(rig.attester(root), rig.document())
            released = 0
            with contextlib.suppress(OSError), (small / "filler").open("wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))
            kept: dict[str, bytes] = {}
            refused = 0
            with broker.admin() as admin:
                for number in range(40):
                    value = bytes([number]) * 20_000
                    try:
                        admin.set_resource(ResourcePath("fill", "disk", str(number)), value, MINE)
                        kept[str(number)] = value
                    except AdytonError:
                        refused += 1
            assert refused
            statuses = []
            for _ in range(60):  # what cannot be written down is not released
                status, body, _ = client.ask("GET", RESOURCE)
                statuses.append(status)
                released += status == 200
            assert statuses[-1] == 503 and set(statuses) <= {200, 503}
            with rig.raw(broker) as other:
                assert other.ask("GET", "/healthz")[0] == 200
                assert other.ask("GET", "/readyz")[0] == 503  # it lives, and cannot decide
            (small / "filler").unlink()
            until = time.monotonic() + 20
            while time.monotonic() < until:
                status, body, _ = client.ask("GET", RESOURCE)
                if status == 200:
                    break
                time.sleep(0.2)
            assert status == 200 and jwe.decrypt(key, body) == rig.SECRET
            released += 1
        for again in (False, True):
            if again:
                broker.kill()
            found = rows(broker)
            given = [row for row in found if row["row"]["action"] == "release" and row["row"]["decision"] == "allowed"]
            assert len(given) >= released  # the record says more than was done, never less
            with broker.admin() as admin:
                admin.audit_verify()
                there = {item.uri.rpartition("/")[2] for item in admin.list_resources() if "/fill/" in item.uri}
            assert kept.keys() <= there
        with broker.session(rig.attester(root)) as session:
            for tag, value in kept.items():
                assert session.resource(ResourcePath("fill", "disk", tag)) == value
    finally:
        broker.stop()


# ---------------------------------------------------------------- kill -9 between any two writes


def attested(client: rig.Raw, root: DevelopmentRoot) -> tuple[int, bytes]:
    read = client.ask("POST", "/kbs/v0/auth", rcar.request_body("snp"))[1]
    key = ec.generate_private_key(ec.SECP256R1())
    body = rig.attest_body(json.loads(read)["nonce"], rig.attester(root), rig.document(), key)
    return client.ask("POST", "/kbs/v0/attest", body)[:2]


def released(client: rig.Raw, _: DevelopmentRoot) -> tuple[int, bytes]:
    return client.ask("GET", RESOURCE)[:2]


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("action", "ask"), [("attest", attested), ("release", released)])
def test_killed_between_any_two_writes(
    own: rig.RunningBroker,
    faults: Path,
    root: DevelopmentRoot,
    action: str,
    ask: Callable[[rig.Raw, DevelopmentRoot], tuple[int, bytes]],
) -> None:
    cookies: dict[str, tuple[str, str]] = {}
    deaths, answered, before = 0, 0, 0
    for at in range(40):
        with rig.raw(own) as client:
            if not cookies:
                client.handshake(rig.attester(root), rig.document())
                cookies = dict(client.jar)
                before = _count(own, action)
            client.jar = dict(cookies)  # the session outlives every death
            (faults / "statements").write_text(str(at))
            try:
                status, body = ask(client, root)
                assert status == 200, body
                answered += 1
            except (http.client.HTTPException, ConnectionError):
                deaths += 1
            died = not (faults / "statements").exists()
            (faults / "statements").unlink(missing_ok=True)
        if died:
            assert own.process is not None
            own.kill()
        count = _count(own, action)
        assert count >= before + answered, at  # every answer has its row; a row may lack its answer
        assert count <= before + answered + deaths, at
        with own.admin() as admin:
            admin.audit_verify()
        if not died:
            break
    assert deaths >= 3 and not died
    found = rows(own)
    assert [row["sequence"] for row in found] == list(range(1, len(found) + 1))


def _count(broker: rig.RunningBroker, action: str) -> int:
    return sum(row["row"]["action"] == action and row["row"]["decision"] == "allowed" for row in rows(broker))
