"""Two broker processes, each an instance of the development TEE: the root key goes to the same identity, and to nobody else."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import structs
from tests.broker import rig
from tests.broker.instance_rig import DOCUMENT, MEASUREMENT, instance

from adyton.broker.custodians.peers import Giver, Instance, ask
from adyton.broker.door.connection import HttpRequest
from adyton.broker.settings import Settings
from adyton.client.transport import Transport
from adyton.crypto import jwe, jwk
from adyton.devtee.root import DevelopmentRoot
from adyton.devtee.snp import POLICY, POLICY_DEBUG
from adyton.errors import AdytonError, ReleaseRefused
from adyton.protocol import peers
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.rats import binding
from adyton.rats.ports import CollectedEvidence
from adyton.rats.types import ReportData
from adyton.stores.sqlite import Store
from adyton.wire import b64

NOW = datetime.fromtimestamp(int(time.time()), UTC)
ROOT_KEY = bytes(range(7, 39))


@pytest.fixture(scope="module")
def giver(tmp_path_factory: pytest.TempPathFactory, root: DevelopmentRoot) -> Iterator[rig.RunningBroker]:
    data = tmp_path_factory.mktemp("giver") / "data"
    with instance(data, root, "--accept-peers", "127.0.0.1:0", tls=True) as running:
        yield running


def asking(giver: rig.RunningBroker) -> tuple[str, ...]:
    return ("--peer", giver.description["peers"], "--peer-pin", giver.description["pin"])


def rows(broker: rig.RunningBroker, action: str) -> list[dict[str, Any]]:
    with broker.admin() as admin:
        return [entry["row"] for entry in admin.audit(limit=1000) if entry["row"]["action"] == action]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"measurement": bytes(48)}, "peer_identity"),
        ({"host_data": bytes(32)}, "peer_identity"),
        ({"policy": POLICY | POLICY_DEBUG}, "peer_debug"),
        ({"vmpl": 1}, "vmpl_not_accepted"),
    ],
)
def test_another_instance_gets_nothing(
    giver: rig.RunningBroker, root: DevelopmentRoot, tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    """It would take itself for its own kind; the giver does not."""
    allowing = ("--allow-debug-peers",) if "policy" in fields else ()
    before = len(rows(giver, "root-key.share"))
    with pytest.raises(RuntimeError) as caught, instance(
        tmp_path / "asker", root, *asking(giver), *allowing, **fields
    ):  # fmt: skip
        pass
    assert "peer_refused" in str(caught.value)
    if "vmpl" in fields:  # which it is told at home already
        return
    row = rows(giver, "root-key.share")[before]
    assert row["decision"] == "refused"
    assert any(one.startswith(reason) for one in row["reasons"])
    assert not (tmp_path / "asker" / "root.key").exists()
    assert str(Path(giver.data / "root.key").read_bytes()) not in str(caught.value)


def test_the_same_instance_gets_it(giver: rig.RunningBroker, root: DevelopmentRoot, tmp_path: Path) -> None:
    data = tmp_path / "asker"
    key = (giver.data / "root.key").read_bytes()
    path = ResourcePath("default", "key", "1")
    with instance(data, root, *asking(giver), "--workers", "2") as asker:
        with asker.admin() as admin:
            admin.set_resource(path, b"a secret of the second", Binding())
        assert "root key   from peer" in asker.log()
        (received,) = rows(asker, "root-key.receive")
        assert (received["decision"], received["measurement"]) == ("allowed", MEASUREMENT.hex())
        shared = rows(giver, "root-key.share")[-1]
        assert (shared["decision"], shared["host_data"]) == ("allowed", DOCUMENT.hex())
        assert shared["root_fingerprint"] == root.fingerprint
    assert not (data / "root.key").exists()
    raw = b"".join(one.read_bytes() for one in data.rglob("*") if one.is_file()) + asker.log().encode()
    assert key not in raw
    assert key.hex().encode() not in raw
    store = Store.open(data, root_key=key, now=NOW)
    found = store.resources.get("default", path)
    store.close()
    assert found is not None
    assert found.value == b"a secret of the second"
    with instance(data, root, *asking(giver)):  # and after a restart it asks again
        pass


def test_without_a_peer_it_does_not_open(giver: rig.RunningBroker, root: DevelopmentRoot, tmp_path: Path) -> None:
    with instance(tmp_path / "asker", root, *asking(giver)):
        pass
    with pytest.raises(RuntimeError, match="root_key_missing"), instance(tmp_path / "asker", root):
        pass
    elsewhere = ("--peer", "https://127.0.0.1:9", "--peer-pin", giver.description["pin"])
    with pytest.raises(RuntimeError, match="broker_unreachable"), instance(tmp_path / "asker", root, *elsewhere):
        pass


# What follows speaks to the giver's code directly, with the clock and the messages in hand.


class DirectAttester:
    tee = "snp"

    def __init__(self, root: DevelopmentRoot, **fields: Any) -> None:
        self.inner = rig.DevAttester(root, DOCUMENT, {"measurement": MEASUREMENT, **fields})

    def collect(self, report_data: ReportData) -> CollectedEvidence:
        return self.inner.collect(report_data)


class Desk:
    """A giver in this process, and an asker that may say anything."""

    def __init__(
        self, root: DevelopmentRoot, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.root, self.store, self.now = root, store, time.time()
        monkeypatch.setattr("adyton.broker.custodians.peers.attester_of", lambda _: DirectAttester(root))
        self.instance = Instance.of(settings, NOW)
        self.giver = Giver(self.instance, store, ROOT_KEY, lambda: self.now)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.members = dict(jwk.from_public(self.key.public_key()).members)

    def send(self, path: str, body: bytes, method: str = "POST") -> tuple[int, Any]:
        answer = self.giver(HttpRequest(method, path.encode(), {}, body, keep_alive=True, peer="127.0.0.1"))
        return answer.status, answer.body

    def nonce(self) -> bytes:
        status, body = self.send(peers.HELLO, peers.write(peers.Hello("adyton-peer/1", "test", "snp")))
        assert status == 200, body
        return peers.parse_welcome(body).nonce

    def join(self, nonce: bytes, attester: Any = None, *, bound: bytes | None = None, **change: Any) -> peers.Join:
        own = os.urandom(32)
        canonical = bound or peers.bound("join", "test", nonce, self.members, peers.own_text(own))
        evidence = (attester or DirectAttester(self.root)).collect(binding.report_data(canonical))
        raw = msgspec.Raw(msgspec.json.encode(evidence.primary))
        return msgspec.structs.replace(peers.Join(nonce, own, "test", "snp", self.members, raw), **change)

    def refused(self, join: peers.Join, code: str) -> dict[str, Any]:
        status, body = self.send(peers.JOIN, peers.write(join))
        assert status in {400, 403, 429}, body
        assert ROOT_KEY not in body
        assert json.loads(body)["detail"] == code, body
        entry = json.loads(self.store.audit.bodies("default", self.store.audit.size("default") - 1, 1)[0])
        row: dict[str, Any] = entry["row"]
        return row


@pytest.fixture
def desk(tmp_path: Path, root: DevelopmentRoot, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    settings = Settings(
        data=str(tmp_path), environment="test", development_roots=[root.fingerprint],
        endorsements=[str(root.endorsements)], attester="x", accept_peers="127.0.0.1:0",
    )  # fmt: skip
    store = Store.open(tmp_path / "data", root_key=ROOT_KEY, now=NOW)
    yield Desk(root, store, settings, monkeypatch)
    store.close()


def test_a_nonce_is_used_once(desk: Desk) -> None:
    join = desk.join(desk.nonce())
    assert desk.send(peers.JOIN, peers.write(join))[0] == 200
    row = desk.refused(join, "peer_nonce")
    assert row["decision"] == "refused"


def test_a_stale_nonce_and_one_of_nobody(desk: Desk) -> None:
    join = desk.join(desk.nonce())
    desk.now += peers.NONCE_SECONDS + 1
    desk.refused(join, "peer_nonce")
    desk.refused(desk.join(os.urandom(32)), "peer_nonce")


def test_evidence_for_another_nonce_key_or_purpose(desk: Desk) -> None:
    other = dict(jwk.from_public(ec.generate_private_key(ec.SECP256R1()).public_key()).members)
    for bound in (
        peers.bound("join", "test", os.urandom(32), desk.members, "x"),
        peers.bound("give", "test", bytes(32), desk.members, "x"),
    ):
        desk.refused(desk.join(desk.nonce(), bound=bound), "report_data_mismatch")
    nonce = desk.nonce()
    desk.refused(desk.join(nonce, key=other), "report_data_mismatch")
    nonce = desk.nonce()  # evidence of an ordinary handshake, which a hostile broker can ask any workload for
    ordinary = binding.primary_object("adyton", desk.members)
    desk.refused(desk.join(nonce, bound=ordinary), "report_data_mismatch")
    nonce = desk.nonce()  # whatever that broker says is its nonce
    ordinary = binding.primary_object(f"adyton peer 1 join test {b64.encode(nonce)}", desk.members)
    desk.refused(desk.join(nonce, bound=ordinary), "report_data_mismatch")
    desk.refused(desk.join(desk.nonce(), own=os.urandom(32)), "report_data_mismatch")


def test_a_foreign_root(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> None:
    foreign = rig.make_root(tmp_path_factory.mktemp("foreign"))
    row = desk.refused(desk.join(desk.nonce(), DirectAttester(foreign)), "root_untrusted")
    assert row["decision"] == "refused"


def test_a_downgraded_tcb(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The giver's platform has a higher level than the asker's."""
    own = desk.instance.rules.own
    levels = dict(own.tcb)
    reported = levels["reported"]
    assert isinstance(reported, dict)
    higher = {name: value + 1 if isinstance(value, int) else value for name, value in reported.items()}
    rules = replace(desk.instance.rules, own=structs.replace(own, tcb={**levels, "reported": higher}))
    monkeypatch.setattr(desk.giver, "_instance", replace(desk.instance, rules=rules))
    row = desk.refused(desk.join(desk.nonce()), "peer_refused")
    assert all(reason.startswith("peer_tcb: expected reported.") for reason in row["reasons"])
    assert row["reasons"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"measurement": b"\x01" * 48}, "peer_identity"),
        ({"host_data": b"\x01" * 32}, "peer_identity"),
        ({"policy": POLICY | POLICY_DEBUG}, "peer_debug"),
        ({"vmpl": 2}, "vmpl_not_accepted"),
        ({"version": 2}, "report_version_not_accepted"),
    ],
)
def test_another_identity(desk: Desk, fields: dict[str, Any], reason: str) -> None:
    row = desk.refused(desk.join(desk.nonce(), DirectAttester(desk.root, **fields)), "peer_refused")
    assert any(one.startswith(reason) for one in row["reasons"]), row["reasons"]


def test_a_revoked_peer(desk: Desk) -> None:
    desk.store.revoked.add("", "workload", [f"sha256:{DOCUMENT.hex()}"], "sold", "test", NOW)
    row = desk.refused(desk.join(desk.nonce()), "peer_revoked")
    assert row["reasons"] == [f"peer_revoked: workload sha256:{DOCUMENT.hex()}"]


def test_another_environment(desk: Desk) -> None:
    status, body = desk.send(peers.HELLO, peers.write(peers.Hello("adyton-peer/1", "production", "snp")))
    assert (status, json.loads(body)["detail"]) == (403, "peer_environment")
    desk.refused(desk.join(desk.nonce(), environment="development"), "peer_environment")


def test_too_many_ask(desk: Desk) -> None:
    for _ in range(10):
        desk.refused(desk.join(os.urandom(32)), "peer_nonce")
    assert desk.send(peers.JOIN, b"")[0] == 429
    desk.now += 61
    assert desk.send(peers.JOIN, peers.write(desk.join(desk.nonce())))[0] == 200
    for _ in range(63):
        desk.nonce()
    desk.nonce()
    assert desk.send(peers.HELLO, peers.write(peers.Hello("adyton-peer/1", "test", "snp")))[0] == 429


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b'{"version":"adyton-peer/2"}', b"[" * 10000])
@pytest.mark.parametrize("path", [peers.HELLO, peers.JOIN])
def test_noise(desk: Desk, path: str, body: bytes) -> None:
    status, answer = desk.send(path, body)
    assert (status, json.loads(answer)["detail"]) == (400, "body_malformed")
    assert desk.send(path, body, "GET")[0] == 405
    assert desk.send("/kbs/v0/auth", body)[0] == 404


def test_what_is_given_opens_with_the_attested_key_and_is_answered_for(desk: Desk) -> None:
    nonce = desk.nonce()
    join = desk.join(nonce)
    status, body = desk.send(peers.JOIN, peers.write(join))
    assert status == 200
    given = peers.parse_given(body)
    assert jwe.decrypt(desk.key, bytes(given.root_key)) == ROOT_KEY
    said = peers.transcript(peers.write(join), bytes(given.root_key))
    canonical = peers.bound("give", "test", join.own, desk.members, said)
    giver = desk.instance.verified("snp", bytes(given.evidence), canonical, NOW)
    desk.instance.rules.check(giver)
    other = jwe.encrypt(jwk.from_public(desk.key.public_key()), bytes(32))
    with pytest.raises(AdytonError, match="nonce and key"):
        swapped = peers.bound("give", "test", join.own, desk.members, peers.transcript(peers.write(join), other))
        desk.instance.verified("snp", bytes(given.evidence), swapped, NOW)


def test_a_giver_of_another_identity_gives_in_vain(
    desk: Desk, root: DevelopmentRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An asker must not seal its secrets under a root key that a stranger knows."""
    settings = Settings(
        data=str(tmp_path), environment="test", development_roots=[root.fingerprint],
        endorsements=[str(root.endorsements)], attester="x", peer="http://127.0.0.1:1",
    )  # fmt: skip
    stranger = replace(desk.instance, attester=DirectAttester(root, measurement=b"\x09" * 48))
    hostile = Giver(stranger, desk.store, bytes(32), lambda: desk.now)

    class Reached(Transport):
        def request(self, method: str, path: str, body: bytes | None = None, headers: Any = None) -> Any:
            from adyton.client.transport import Reply

            answer = hostile(HttpRequest(method, path.encode(), {}, body or b"", keep_alive=True))
            return Reply(answer.status, {}, answer.body)

    monkeypatch.setattr("adyton.broker.custodians.peers.Transport", Reached)
    with pytest.raises(ReleaseRefused) as caught:
        ask(settings)
    assert caught.value.code == "peer_refused"
    assert caught.value.reasons[0].startswith("peer_identity")


def test_settings_that_contradict() -> None:
    from adyton.broker.settings import check

    for change in ({"peer": "https://x"}, {"accept_peers": "127.0.0.1:0"}, {"allow_debug_peers": True}):
        with pytest.raises(AdytonError):
            check(Settings(data="/nowhere", **change))
