"""A broker that proves what it is: replayed, relayed, downgraded and foreign answers are refused by name; one is kept."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.broker import rig
from tests.broker.instance_rig import DOCUMENT, MEASUREMENT, Platform, instance
from tests.waiting import LONG

from adyton.broker.custodians.attestation_desk import Desk
from adyton.broker.custodians.attesting import OneAtATime
from adyton.broker.door import certificate
from adyton.broker.door.connection import HttpRequest
from adyton.cli import known as cli_known
from adyton.client import broker_attestation, known_brokers
from adyton.client.address import BrokerAddress
from adyton.client.broker_attestation import Answered, Wanted
from adyton.client.known_brokers import Known
from adyton.collateral import directory
from adyton.devtee.root import DevelopmentRoot
from adyton.devtee.snp import POLICY, POLICY_DEBUG
from adyton.errors import AdytonError, ConfigError, MalformedRequest, ReleaseRefused, Unavailable
from adyton.protocol import broker_attestation as wire
from adyton.protocol.broker_attestation import Facts, Proof
from adyton.protocol.checkpoint import LogKey
from adyton.rats.types import Check, ReportData, TrustAnchors, VerifiedEvidence

NOW = datetime.fromtimestamp(int(time.time()), UTC)
PIN = "sha256:" + "ab" * 32
JWKS = b'{"keys":[]}'
FACTS = Facts(PIN, wire.digest(JWKS), LogKey("adyton/audit/x/default", bytes(32)).text(), "test")
HOST = Wanted(frozenset({MEASUREMENT.hex()}), frozenset({DOCUMENT.hex()}))


def proof(root: DevelopmentRoot, nonces: list[bytes], facts: Facts = FACTS, **fields: Any) -> Proof:
    attester = rig.DevAttester(root, DOCUMENT, {"measurement": MEASUREMENT, **fields})
    return asyncio.run(_proof(attester, nonces, facts))


async def _proof(attester: Any, nonces: list[bytes], facts: Facts) -> Proof:
    desk = Desk(attester, lambda: (facts, JWKS), gap=0.0)
    answers = await asyncio.gather(*(desk.answer(challenge(nonce)) for nonce in nonces))
    assert {answer.status for answer in answers} == {200}
    return wire.parse_proof(answers[0].body)


def challenge(nonce: bytes, peer: str = "192.0.2.1") -> HttpRequest:
    body = wire.write(wire.Challenge(wire.VERSION, nonce))
    return HttpRequest("POST", wire.PATH.encode(), {}, body, keep_alive=True, peer=peer)


def verified(
    root: DevelopmentRoot, answered: Answered, nonce: bytes, *, trusted: DevelopmentRoot | None = None
) -> VerifiedEvidence:
    anchors = TrustAnchors(vendor=False, custom=frozenset({bytes.fromhex((trusted or root).fingerprint)}))
    trail: list[Check] = []
    endorsements = directory.load([root.endorsements])
    return broker_attestation.verify(answered, nonce, endorsements, anchors, NOW, trail)


def refused(root: DevelopmentRoot, answered: Answered, nonce: bytes, **options: Any) -> str:
    with pytest.raises(AdytonError) as caught:
        verified(root, answered, nonce, **options)
    return caught.value.code


def test_a_recorded_answer(root: DevelopmentRoot) -> None:
    old, new = os.urandom(32), os.urandom(32)
    answer = proof(root, [old])
    assert refused(root, Answered(answer, PIN), new) == "broker_nonce"
    forged = msgspec.structs.replace(answer, nonces=[new])
    assert refused(root, Answered(forged, PIN), new) == "report_data_mismatch"
    forged = msgspec.structs.replace(answer, nonces=[old, new])
    assert refused(root, Answered(forged, PIN), new) == "report_data_mismatch"


def test_a_relayed_answer(root: DevelopmentRoot) -> None:
    """Whoever stands in between has another TLS key, and cannot put it under the evidence."""
    nonce, theirs = os.urandom(32), "sha256:" + "cd" * 32
    answer = proof(root, [nonce])
    assert refused(root, Answered(answer, theirs), nonce) == "broker_relayed"
    assert refused(root, Answered(answer, ""), nonce) == "broker_relayed"
    changed = msgspec.structs.replace(answer, facts=msgspec.structs.replace(FACTS, tls=theirs))
    assert refused(root, Answered(changed, theirs), nonce) == "report_data_mismatch"


@pytest.mark.parametrize("name", ["log", "environment", "jwks"])
def test_changed_facts(root: DevelopmentRoot, name: str) -> None:
    nonce = os.urandom(32)
    answer = proof(root, [nonce])
    other = LogKey("adyton/audit/x/default", bytes(31) + b"\1").text()
    value = {"log": other, "environment": "production", "jwks": wire.digest(b"{}")}[name]
    changed = msgspec.structs.replace(
        answer,
        facts=msgspec.structs.replace(FACTS, **{name: value}),
        jwks=b"{}" if name == "jwks" else JWKS,
    )
    assert refused(root, Answered(changed, PIN), nonce) == "report_data_mismatch"


def test_a_foreign_root(root: DevelopmentRoot, tmp_path_factory: pytest.TempPathFactory) -> None:
    foreign = rig.make_root(tmp_path_factory.mktemp("foreign"))
    nonce = os.urandom(32)
    answer = proof(foreign, [nonce])
    assert refused(root, Answered(answer, PIN), nonce, trusted=root) in {"root_untrusted", "signature_invalid"}
    assert refused(foreign, Answered(answer, PIN), nonce, trusted=root) == "root_untrusted"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"measurement": bytes(48)}, "measurement: expected"),
        ({"host_data": bytes(31) + b"\1"}, "workload: expected"),
        ({"host_data": bytes(32)}, "workload: expected"),
        ({"policy": POLICY | POLICY_DEBUG}, "no_debug: expected"),
        ({"vmpl": 1}, "vmpl_not_accepted: expected"),
        ({"version": 2}, "report_version_not_accepted: expected"),
    ],
)
def test_another_identity(root: DevelopmentRoot, fields: dict[str, Any], reason: str) -> None:
    nonce, trail = os.urandom(32), list[Check]()
    found = verified(root, Answered(proof(root, [nonce], **fields), PIN), nonce)
    with pytest.raises(ReleaseRefused) as caught:
        broker_attestation.check(found, HOST, trail)
    assert caught.value.code == "broker_identity_refused"
    assert [one for one in caught.value.reasons if one.startswith(reason)]
    assert not all(one.ok for one in trail)


def test_nothing_named_is_nothing_allowed(root: DevelopmentRoot) -> None:
    nonce = os.urandom(32)
    found = verified(root, Answered(proof(root, [nonce]), PIN), nonce)
    for wanted in (Wanted(frozenset()), replace(HOST, workloads=frozenset()), replace(HOST, measurements=frozenset())):
        with pytest.raises(ReleaseRefused):
            broker_attestation.check(found, wanted, [])


def test_the_one_that_was_expected(root: DevelopmentRoot) -> None:
    nonces = [os.urandom(32) for _ in range(3)]
    answer = proof(root, nonces)
    assert answer.nonces == nonces
    for nonce in nonces:
        found = verified(root, Answered(answer, PIN), nonce)
        trail: list[Check] = []
        broker_attestation.check(found, HOST, trail)
        assert {one.id for one in trail} == {"measurement", "workload", "no_debug"}
    bare = verified(root, Answered(proof(root, nonces, host_data=bytes(32)), PIN), nonces[0])
    broker_attestation.check(bare, replace(HOST, workloads=frozenset()), [])


@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    for parse in (wire.parse_challenge, wire.parse_proof):
        with pytest.raises(MalformedRequest):
            parse(body)


@pytest.mark.parametrize(
    "change",
    [
        {"nonces": []},
        {"nonces": [bytes(31)]},
        {"nonces": [bytes(32)] * 65},
        {"jwks": b"{}"},
        {"facts": msgspec.structs.replace(FACTS, tls="sha256:x")},
    ],
)
def test_a_proof_that_contradicts_itself(change: dict[str, Any]) -> None:
    whole = Proof(wire.VERSION, FACTS, [bytes(32)], JWKS, "snp", msgspec.Raw(b"{}"))
    assert wire.parse_proof(wire.write(whole)).canonical == whole.canonical
    with pytest.raises(MalformedRequest):
        wire.parse_proof(wire.write(msgspec.structs.replace(whole, **change)))
    with pytest.raises(ValueError, match="nonces"):
        wire.bound(FACTS, [])


# The desk: the TEE is not exhausted.


class Slow:
    """A TEE that takes its time, and counts."""

    tee = "snp"

    def __init__(self, root: DevelopmentRoot, seconds: float = 0.0) -> None:
        self.inner, self.seconds = rig.DevAttester(root, DOCUMENT), seconds
        self.at_once = self.most = self.made = 0
        self.broken: Exception | None = None

    def collect(self, report_data: ReportData) -> Any:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.made += 1
        time.sleep(self.seconds)
        self.at_once -= 1
        if self.broken is not None:
            raise self.broken
        return self.inner.collect(report_data)


def test_many_questions_are_one_piece_of_evidence(root: DevelopmentRoot) -> None:
    slow = Slow(root, 0.1)

    async def run() -> list[int]:
        desk = Desk(slow, lambda: (FACTS, JWKS), gap=0.05)
        asked = [desk.answer(challenge(os.urandom(32), f"192.0.2.{n}")) for n in range(200)]
        return [answer.status for answer in await asyncio.gather(*asked)]

    statuses = asyncio.run(run())
    assert statuses.count(200) == 64
    assert statuses.count(429) == 136
    assert slow.made <= 2
    assert slow.most == 1


def test_one_address_asks_a_few_times(root: DevelopmentRoot) -> None:
    async def run() -> list[int]:
        desk = Desk(Slow(root), lambda: (FACTS, JWKS), gap=0.0)
        return [(await desk.answer(challenge(os.urandom(32)))).status for _ in range(12)]

    assert asyncio.run(run()) == [200] * 10 + [429] * 2


@pytest.mark.parametrize(
    ("error", "code"),
    [(Unavailable("x", code="report_failed"), "report_failed"), (RuntimeError("a secret"), "attester_failed")],
)
def test_a_tee_that_fails(root: DevelopmentRoot, error: Exception, code: str) -> None:
    slow = Slow(root)
    slow.broken = error

    async def run() -> tuple[Any, Any]:
        desk = Desk(slow, lambda: (FACTS, JWKS), gap=0.0)
        failed = await desk.answer(challenge(os.urandom(32)))
        slow.broken = None
        return failed, await desk.answer(challenge(os.urandom(32)))

    failed, worked = asyncio.run(run())
    assert (failed.status, worked.status) == (503, 200)
    assert code in failed.body.decode()
    assert b"a secret" not in failed.body


def test_processes_ask_one_after_the_other(root: DevelopmentRoot, tmp_path: Path) -> None:
    slow = Slow(root, 0.05)
    attesters = [OneAtATime(slow, tmp_path) for _ in range(4)]  # each with a lock of its own, as processes have
    threads = [threading.Thread(target=one.collect, args=(ReportData(bytes(64)),)) for one in attesters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (slow.made, slow.most) == (4, 1)
    (tmp_path / "attester.lock").unlink()
    (tmp_path / "attester.lock").symlink_to("/etc/passwd")
    with pytest.raises(Unavailable):
        attesters[0].collect(ReportData(bytes(64)))


# The file of known brokers.

KNOWN = Known(
    url="https://broker.example:8443", pin=PIN, by="attested", first_seen="2026-01-02T03:04:05+00:00", seen="x",
    tee="snp", measurement="aa" * 48, workload="bb" * 32, root="vendor:cc", log="l", tcb={"reported.snp": 7},
)  # fmt: skip


def kept(path: Path, *brokers: Known) -> None:
    known_brokers.change(path, lambda table: table.update({one.url: one for one in brokers}))


def test_the_file_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "config" / "known-brokers"
    assert known_brokers.read(path) == {}
    kept(path, KNOWN)
    assert known_brokers.read(path) == {KNOWN.url: KNOWN}
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)  # it holds no secret
    assert known_brokers.read(path)
    for mode in (0o620, 0o602, 0o666):
        path.chmod(mode)
        assert exposed(path) == "known_brokers_exposed"
    path.chmod(0o600)
    path.parent.chmod(0o777)
    assert exposed(path) == "known_brokers_exposed"
    path.parent.chmod(0o700)
    real = path.rename(tmp_path / "elsewhere")
    path.symlink_to(real)
    assert exposed(path) == "known_brokers_exposed"
    path.unlink()
    os.mkfifo(path)
    assert exposed(path) == "known_brokers_exposed"


def exposed(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        known_brokers.read(path)
    return caught.value.code


@pytest.mark.parametrize(
    "content",
    [
        b"x\n",
        b"{}\n",
        b'{"url":"https://a:1"}\n',
        b"[" * 10000,
        b"\xff\n",
        msgspec.json.encode(KNOWN) + b"\n" + msgspec.json.encode(KNOWN),
        msgspec.json.encode(msgspec.structs.replace(KNOWN, url="https://Broker.example:8443/")),
    ],
)
def test_a_file_that_cannot_be_read_decides_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "known-brokers"
    path.write_bytes(content)
    path.chmod(0o600)
    assert exposed(path) == "known_brokers_malformed"


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ({"measurement": "ab" * 48}, "broker_identity_changed", "measurement: known aa"),
        ({"workload": ""}, "broker_identity_changed", "workload: known bb"),
        ({"root": "custom:cc"}, "broker_identity_changed", "root: known vendor:cc, now custom:cc"),
        ({"log": "m"}, "broker_identity_changed", "log: known l, now m"),
        ({"tcb": {"reported.snp": 6}}, "broker_identity_changed", "tcb: known reported.snp of 7, now 6"),
        ({"tcb": {}}, "broker_identity_changed", "tcb: known reported.snp of 7, now none"),
        ({"pin": "sha256:" + "ef" * 32}, "broker_pin_changed", "pin: known sha256:ab"),
    ],
)
def test_what_changed_is_named(change: dict[str, Any], code: str, told: str) -> None:
    known_brokers.compare(KNOWN, KNOWN)
    with pytest.raises(ReleaseRefused) as caught:
        known_brokers.compare(KNOWN, msgspec.structs.replace(KNOWN, **change))
    assert caught.value.code == code
    assert caught.value.reasons[0].startswith(told)


def test_whom_secrets_go_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADYTON_HOME", str(tmp_path))
    far = BrokerAddress("https://broker.example:8443", tenant="red")

    def code(where: BrokerAddress, *, accept: bool = False) -> str:
        with pytest.raises(AdytonError) as caught:
            cli_known.for_secrets(where, ours=False, accept=accept)
        return caught.value.code

    assert code(far) == "broker_unattested"
    assert code(BrokerAddress("http://broker.example", pin=PIN, insecure_http=True)) == "broker_unattested"
    assert code(BrokerAddress("https://127.0.0.1.example")) == "broker_unattested"
    assert cli_known.for_secrets(far, ours=False, accept=True) == far
    assert cli_known.for_secrets(far, ours=True, accept=False) == far
    for near in ("http://127.0.0.1:80", "https://localhost", "https://[::1]:1"):
        address = BrokerAddress(near)
        assert cli_known.for_secrets(address, ours=False, accept=False) == address
    pinned = replace(far, pin=PIN)
    assert cli_known.for_secrets(pinned, ours=False, accept=False) == pinned
    kept(tmp_path / "config" / "known-brokers", KNOWN)
    assert cli_known.for_secrets(far, ours=False, accept=False) == pinned
    assert cli_known.for_secrets(replace(far, url="https://BROKER.example:8443/"), ours=False, accept=False).pin == PIN
    assert code(replace(far, pin="sha256:" + "00" * 32), accept=True) == "broker_pin_changed"
    (tmp_path / "config" / "known-brokers").chmod(0o666)
    assert code(far, accept=True) == "known_brokers_exposed"


# Real brokers over real TLS.


@pytest.fixture(scope="module")
def proving(tmp_path_factory: pytest.TempPathFactory, root: DevelopmentRoot) -> Iterator[rig.RunningBroker]:
    with instance(tmp_path_factory.mktemp("proving") / "data", root, "--workers", "2", tls=True) as running:
        yield running


def adyton(home: Path, *arguments: object) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        [sys.executable, "-m", "adyton", "broker", *map(str, arguments), "--json"],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
        env={**os.environ, "ADYTON_HOME": str(home)},
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, lines[-1] if lines else {}, done.stderr


def trust(root: DevelopmentRoot) -> tuple[str, ...]:
    return ("--trust-dev-root", root.fingerprint, "--endorsements", str(root.endorsements))


NAMED = ("--measurement", MEASUREMENT.hex(), "--workload", f"sha256:{DOCUMENT.hex()}")


def test_a_broker_is_attested_and_known(proving: rig.RunningBroker, root: DevelopmentRoot, tmp_path: Path) -> None:
    url, jwks = proving.description["url"], tmp_path / "jwks.json"
    status, said, text = adyton(tmp_path, "attest", url, *trust(root))
    assert (status, said["error"]["code"]) == (1, "broker_identity_unnamed"), text
    status, said, _ = adyton(tmp_path, "attest", url, *NAMED, "--endorsements", root.endorsements)
    assert (status, said["error"]["code"]) == (1, "root_untrusted")
    status, said, _ = adyton(tmp_path, "attest", url, "--measurement", "00" * 48, *trust(root))
    assert (status, said["error"]["code"]) == (1, "broker_identity_refused")
    status, said, _ = adyton(tmp_path, "attest", url, "--show-only", *trust(root))
    assert (status, said["compared"], said["known"]) == (0, False, False)
    assert not (tmp_path / "config").exists()
    status, said, text = adyton(tmp_path, "attest", url, *NAMED, *trust(root), "--jwks", jwks)
    assert (status, said["known"], said["root"]) == (0, True, "custom"), text
    assert said["tls"] == proving.description["pin"]
    assert said["jwks"] == wire.digest(jwks.read_bytes())
    assert all(one["ok"] for one in said["checks"])
    with proving.admin() as admin:
        assert said["log"] == admin.audit_key().key
    for _ in range(2):  # known by now: nothing need be named
        assert adyton(tmp_path, "attest", url, *trust(root))[0] == 0
    known = known_brokers.read(tmp_path / "config" / "known-brokers")[url]
    assert (known.pin, known.measurement, known.workload) == (said["tls"], MEASUREMENT.hex(), DOCUMENT.hex())
    changed = msgspec.structs.replace(known, measurement="ab" * 48)
    kept(tmp_path / "config" / "known-brokers", changed)
    for named in ((), NAMED):
        status, said, text = adyton(tmp_path, "attest", url, *named, *trust(root))
        assert (status, said["error"]["code"]) == (1, "broker_identity_changed")
        assert "measurement: known abab" in text
    assert adyton(tmp_path, "attest", url, "--replace", *trust(root))[1]["error"]["code"] == "broker_identity_unnamed"
    assert adyton(tmp_path, "attest", url, "--replace", *NAMED, *trust(root))[0] == 0
    assert adyton(tmp_path, "forget", url)[0] == 0
    assert adyton(tmp_path, "forget", url)[1]["error"]["code"] == "broker_not_known"


def test_a_tree_for_people(proving: rig.RunningBroker, root: DevelopmentRoot, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "adyton", "broker", "attest", proving.description["url"], *NAMED, *trust(root)],
        capture_output=True, text=True, check=True, env={**os.environ, "ADYTON_HOME": str(tmp_path)},
    )  # fmt: skip
    for text in ("VERIFIED", "the answer", "tls_key", "the broker's identity", "measurement"):
        assert text in done.stdout
    assert "known" in done.stderr


@contextmanager
def in_between(broker: rig.RunningBroker, place: Path) -> Iterator[int]:
    """Somebody with a certificate of their own, who passes everything on and reads it."""
    chain, key = certificate.make(place, ["127.0.0.1"], NOW)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    there = ssl.create_default_context()
    there.check_hostname, there.verify_mode = False, ssl.CERT_NONE
    threads: list[threading.Thread] = []

    def copied(source: ssl.SSLSocket, sink: ssl.SSLSocket) -> bool:
        """Whether there may be more; what is there is passed on."""
        source.settimeout(0)
        try:
            data = source.recv(65536)
        except ssl.SSLWantReadError:  # a record of TLS's own
            return True
        finally:
            source.settimeout(LONG)
        sink.sendall(data)
        return bool(data)

    def pass_on(near: socket.socket) -> None:
        with near, suppress(OSError), context.wrap_socket(near, server_side=True) as client:  # noqa: SIM117
            with (
                socket.create_connection(("127.0.0.1", broker.port)) as plain,
                there.wrap_socket(plain, server_hostname="127.0.0.1") as far,
            ):
                ends = {client: far, far: client}  # one thread: two at once would break a TLS connection
                while True:
                    ready = [one for one in ends if one.pending()] or select.select(list(ends), [], [], LONG)[0]
                    if not ready or not all(copied(one, ends[one]) for one in ready):
                        return

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    near, _ = listener.accept()
                    near.settimeout(LONG)
                    threads.append(threading.Thread(target=pass_on, args=(near,)))
                    threads[-1].start()

        accepting = threading.Thread(target=serve)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(LONG)
            for thread in threads:
                thread.join(LONG)


def test_somebody_in_between(proving: rig.RunningBroker, root: DevelopmentRoot, tmp_path: Path) -> None:
    with in_between(proving, tmp_path / "tls") as port:
        url = f"https://127.0.0.1:{port}"
        status, said, _ = adyton(tmp_path, "attest", url, *NAMED, *trust(root))
        assert (status, said["error"]["code"]) == (1, "broker_relayed")
        assert said["error"]["got"] == proving.description["pin"]
        pinned = ("--broker-pin", proving.description["pin"])
        status, said, _ = adyton(tmp_path, "attest", url, *NAMED, *pinned, *trust(root))
        assert (status, said["error"]["code"]) == (1, "broker_pin_mismatch")
    assert not (tmp_path / "config").exists()


def test_a_broker_without_an_attester(broker: rig.RunningBroker, root: DevelopmentRoot, tmp_path: Path) -> None:
    url = broker.description["url"]
    status, said, _ = adyton(tmp_path, "attest", url, *NAMED, *trust(root))
    assert (status, said["error"]["code"]) == (1, "broker_not_attested")
    kept(tmp_path / "config" / "known-brokers", msgspec.structs.replace(KNOWN, url=known_brokers.origin(url)))
    status, said, _ = adyton(tmp_path, "attest", url, *NAMED, *trust(root))
    assert (status, said["error"]["code"]) == (1, "broker_identity_changed")
    with rig.raw(broker) as client:
        assert client.ask("GET", wire.PATH)[0] == 405
        assert client.ask("POST", wire.PATH, b"{}")[0] == 404


def test_a_pin_alone(proving: rig.RunningBroker, root: DevelopmentRoot, tmp_path: Path) -> None:
    url, right = proving.description["url"], proving.description["pin"]
    assert adyton(tmp_path, "pin", url, PIN)[1]["error"]["code"] == "broker_pin_mismatch"
    assert adyton(tmp_path, "pin", "http://127.0.0.1:1", PIN)[1]["error"]["code"] == "broker_http"
    assert adyton(tmp_path, "pin", url, right)[0] == 0
    assert adyton(tmp_path, "known")[1]["by"] == "pin"
    assert adyton(tmp_path, "attest", url, *trust(root))[1]["error"]["code"] == "broker_identity_unnamed"
    assert adyton(tmp_path, "attest", url, *NAMED, *trust(root))[0] == 0
    assert adyton(tmp_path, "pin", url, right)[0] == 0
    assert adyton(tmp_path, "known")[1]["by"] == "attested"  # it stays known for more


def test_noise(proving: rig.RunningBroker) -> None:
    address = proving.address()
    from adyton.client.transport import Transport

    with Transport(address) as transport:
        for body in (b"", b"{}", b"\xff", wire.write(wire.Challenge(wire.VERSION, bytes(31))), b" " * 2000):
            assert transport.request("POST", wire.PATH, body).status == 400


def test_a_guest_whose_channel_is_gone(root: DevelopmentRoot, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="setting_invalid"):
        rig.started(tmp_path / "data", root, "--attester", "tdx")
    with pytest.raises(RuntimeError, match="report_channel"):
        rig.started(tmp_path / "data", root, "--attester", "devtee:99")
    platform = Platform(root)
    running = rig.RunningBroker(
        tmp_path / "other",
        ("--listen", "127.0.0.1:0", "--environment", "test", "--attester", platform.attester),
        descriptors=(platform.theirs.fileno(),),
    )
    try:
        running.start()
        platform.ours.shutdown(socket.SHUT_RDWR)
        with pytest.raises(Unavailable) as caught:
            broker_attestation.ask(running.address(), os.urandom(32))
        assert caught.value.code == "broker_attestation_failed"
    finally:
        running.stop()
        platform.close()
