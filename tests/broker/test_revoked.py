"""Revocation: what is stopped stays stopped, at once and in every worker; nothing else is; and others can see it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from tests.broker import rig
from tests.waiting import until

from adyton.client import relying
from adyton.client.admin import Admin
from adyton.client.revocation import Revoking
from adyton.client.transport import Transport
from adyton.crypto import jwk
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import MalformedRequest, NotFound, NotPermitted, ReleaseRefused, SessionInvalid
from adyton.protocol import revoked
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath

KEY = ResourcePath("default", "key", "1")
RESOURCE = "/kbs/v0/resource/default/key/1"
WHY = "stolen from the rack"


@pytest.fixture(scope="module")
def spare(tmp_path_factory: pytest.TempPathFactory) -> DevelopmentRoot:
    """Another machine."""
    return rig.make_root(tmp_path_factory.mktemp("spare"))


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, root: DevelopmentRoot, spare: DevelopmentRoot
) -> Iterator[rig.RunningBroker]:
    running = rig.started(
        tmp_path_factory.mktemp("revoked") / "data", root, "--workers", "2",
        "--trust-dev-root", spare.fingerprint, "--endorsements", str(spare.endorsements),
    )  # fmt: skip
    for tenant in ("default", "other"):
        running.publish(tenant)
        with running.admin(tenant) as admin:
            admin.set_resource(KEY, rig.SECRET, Binding(workloads=[str(rig.document().digest)]))
    yield running
    assert running.stop() == 0


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("chip", ""), ("chip", "00" * 64), ("chip", "a b c d"), ("chip", "x" * 257), ("platform", "abc"), ("chip", "ab\ncd"),
        ("workload", "sha256:12"), ("workload", "ab" * 31), ("session", "ab" * 9), ("session", "0" * 16), ("token", "short"),
        ("token", "two words"), ("key", "ab"), ("machine", "abcd" * 9), ("", ""), ("chip\n", "abcd"),
    ],
)  # fmt: skip
def test_what_names_nothing_or_everything_is_refused(kind: str, value: str) -> None:
    with pytest.raises(MalformedRequest):
        revoked.written(kind, value)


def test_values_are_compared_as_written() -> None:
    assert revoked.written("chip", " ABCD ") == "abcd" and revoked.written("token", "AbCdEfGh") == "AbCdEfGh"
    found = revoked.Revoked(frozenset({("chip", "abcd")}))
    assert found.first([("platform", "abcd")]) is None and found.first([("chip", "abcd")]) == ("chip", "abcd")
    assert not revoked.NOTHING and found


def names(claims: dict[str, object] | None = None) -> list[tuple[str, str]]:
    return revoked.names_of_evidence(claims or {}, "aa" * 32, "bb" * 32)  # type: ignore[arg-type]


def test_evidence_goes_by_all_its_names() -> None:
    assert names({"platform_id": "AB12", "ppid": "cd34", "chip_id": None, "hwid": 5}) == [
        ("platform", "ab12"), ("chip", "cd34"), ("chip", "ab12"),
        ("workload", "aa" * 32), ("workload", "sha256:" + "bb" * 32), ("workload", "aa" * 32 + "/sha256:" + "bb" * 32),
    ]  # fmt: skip
    assert revoked.names_of_evidence({}, "", "") == []


def chip(root: DevelopmentRoot) -> str:
    return root.signer.chip_id.hex()


def rows_of(admin: Admin) -> list[dict[str, Any]]:
    return [one["row"] for one in admin.audit(limit=60)]


def released(client: rig.Raw) -> int:
    status, _, _ = client.ask("GET", RESOURCE)
    return status


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("kind", ["platform", "chip", "measurement", "document", "both", "session"])
def test_what_is_revoked_is_stopped_and_what_is_not_goes_on(
    pair: rig.RunningBroker, root: DevelopmentRoot, spare: DevelopmentRoot, kind: str, everywhere: bool
) -> None:
    bad = rig.attester(root)
    good = rig.attester(spare, rig.document(command=["/bin/good"]), measurement=bytes(48))
    tee_key = ec.generate_private_key(ec.SECP256R1())
    document = rig.document().digest.value.hex()
    what, value = {
        "platform": ("platform", chip(root).upper()),
        "chip": ("chip", chip(root)),
        "measurement": ("workload", rig.MEASUREMENT.hex()),
        "document": ("workload", f"sha256:{document}"),
        "both": ("workload", f"{rig.MEASUREMENT.hex()}/sha256:{document}"),
        "session": ("session", handle(tee_key)),
    }[kind]
    with rig.raw(pair) as client, rig.raw(pair, "/t/other") as elsewhere, pair.admin() as admin:
        client.handshake(bad, rig.document(), tee_key)
        assert released(client) == 200
        revoking = Revoking(admin, everywhere=everywhere)
        revoking.revoke(what, [value], WHY)
        try:
            for _ in range(6):  # both workers
                with rig.raw(pair) as another:
                    another.jar = dict(client.jar)
                    assert released(another) == 401
                    status, read, _ = another.ask("POST", "/kbs/v0/attest", b"{}")
                    assert status == 401 and b"session_outdated" in read, read
                with rig.raw(pair) as again, pytest.raises(AssertionError, match=r"\[revoked\]"):
                    again.handshake(bad, rig.document(), tee_key)
            with rig.raw(pair) as fine:
                fine.handshake(good, rig.document(command=["/bin/good"]))
            if everywhere:
                with pytest.raises(AssertionError, match=r"\[revoked\]"):
                    elsewhere.handshake(bad, rig.document(), tee_key)
            else:
                elsewhere.handshake(bad, rig.document(), tee_key)
                assert released(elsewhere) == 200
            row = next(one for one in reversed(rows_of(admin)) if one["decision"] == "refused")
            assert any(reason.startswith("revoked: ") for reason in row["reasons"]), row
            with pair.admin("broker") as whole:  # what concerns the broker is in its own log
                log = rows_of(whole if everywhere else admin)
            rows = [one for one in log if one["action"] == f"revoke.{what}"]
            assert rows and WHY in rows[-1]["resource"]
        finally:
            revoking.lift(what, value, "found again")
        assert released(client) == 401, "a session of before stays ended"
        with rig.raw(pair) as again:
            again.handshake(bad, rig.document(), tee_key)
            assert released(again) == 200
    with rig.raw(pair, "/t/never-heard-of") as nobody:  # a tenant that nothing was ever set for
        nobody.handshake(bad, rig.document(), tee_key)


def handle(key: ec.EllipticCurvePrivateKey) -> str:
    return jwk.from_public(key.public_key()).handle


def test_a_tenant_without_anything_obeys_the_operator(pair: rig.RunningBroker, root: DevelopmentRoot) -> None:
    bad = rig.attester(root)
    with rig.raw(pair, "/t/empty-one") as client, pair.admin() as admin:
        for _ in range(4):
            client.handshake(bad, rig.document())
        Revoking(admin, everywhere=True).revoke("chip", [chip(root)], WHY)
        try:
            for _ in range(4):
                with pytest.raises(AssertionError, match=r"\[revoked\]"):
                    client.handshake(bad, rig.document())
        finally:
            Revoking(admin, everywhere=True).lift("chip", chip(root), "x")


def test_acknowledged_means_decided(pair: rig.RunningBroker, root: DevelopmentRoot) -> None:
    """Whoever asks after the answer to a revocation is refused, however many ask, in both workers."""
    bad = rig.attester(root)
    asked: list[tuple[float, int]] = []
    stop = threading.Event()

    def ask(client: rig.Raw) -> None:
        while not stop.is_set():
            began = time.monotonic()
            asked.append((began, released(client)))

    clients = [rig.Raw(pair.port) for _ in range(4)]
    for client in clients:
        client.handshake(bad, rig.document())
    threads = [threading.Thread(target=ask, args=(client,)) for client in clients]
    with pair.admin() as admin:
        for thread in threads:
            thread.start()
        until(lambda: len(asked) > 10)
        Revoking(admin).revoke("chip", [chip(root)], WHY)
        decided = time.monotonic()
        until(lambda: sum(began >= decided for began, _ in asked) > 10)
        stop.set()
        for thread in threads:
            thread.join()
        Revoking(admin).lift("chip", chip(root), "x")
    for client in clients:
        client.close()
    before, after = [s for t, s in asked if t < decided], [s for t, s in asked if t >= decided]
    assert 200 in before and len(after) > 10 and set(after) == {401}


def test_bad_revocations(pair: rig.RunningBroker) -> None:
    with pair.admin() as admin:
        for kind, values, reason in (
            ("chip", ["00" * 64], WHY), ("chip", [], WHY), ("chip", ["abcd"], " "), ("chip", ["abcd"], "x" * 301),
            ("key", ["a" * 43], WHY), ("planet", ["earth"], WHY), ("chip", ["abcd", ""], WHY),
        ):  # fmt: skip
            with pytest.raises(MalformedRequest):
                Revoking(admin).revoke(kind, values, reason)
        with pytest.raises(NotFound):
            Revoking(admin).lift("chip", "abcd", WHY)
        with pytest.raises(NotFound):
            Revoking(admin, everywhere=True).revoke("key", ["a" * 43], WHY)
        assert Revoking(admin).list() == []
    with rig.raw(pair) as client:
        assert client.ask("GET", "/api/v0/revoked")[0] == 401
        assert client.ask("POST", "/api/v0/broker-revoked", b"{}")[0] == 401


@pytest.mark.parametrize("make", [MLKEM768PrivateKey.generate, lambda: rsa.generate_private_key(65537, 2048)])
def test_who_relies_on_tokens_of_every_kind_of_key(pair: rig.RunningBroker, root: DevelopmentRoot, make: Any) -> None:
    key = make()
    with rig.raw(pair) as client, pair.admin() as admin, Transport(pair.address()) as transport:
        token, _ = client.handshake(rig.attester(root), rig.document(), key)
        relying.check_token(transport, token, "default", time.time())
        handle = jwk.from_public(key.public_key()).handle
        Revoking(admin).revoke("session", [handle], WHY)
        with pytest.raises(NotPermitted):
            relying.check_token(transport, token, "default", time.time())
        Revoking(admin).lift("session", handle, WHY)


def test_who_relies_on_tokens_sees_what_is_revoked(pair: rig.RunningBroker, root: DevelopmentRoot) -> None:
    transport, foreign = Transport(pair.address()), Transport(pair.address("other"))
    with rig.raw(pair) as client, pair.admin() as admin:
        token, _ = client.handshake(rig.attester(root), rig.document())
        claims = relying.check_token(transport, token, "default", time.time())
        jti = str(claims.raw["jti"])
        with pytest.raises(SessionInvalid):
            relying.check_token(foreign, token, "other", time.time())
        with pytest.raises(SessionInvalid):
            relying.check_token(transport, token[:-2] + "AA", "default", time.time())
        row = next(one for one in reversed(rows_of(admin)) if one["action"] == "attest" and one.get("claims"))
        for kind, value in (
            ("token", jti), ("token", row["claims"]), ("session", row["request_id"]), ("chip", chip(root)),
            ("workload", rig.MEASUREMENT.hex()),
        ):  # fmt: skip
            Revoking(admin).revoke(kind, [value], WHY)
            with pytest.raises(NotPermitted) as refused:
                relying.check_token(transport, token, "default", time.time())
            assert refused.value.code == "revoked" and refused.value.field == kind
            Revoking(admin).lift(kind, value, WHY)
            relying.check_token(transport, token, "default", time.time())
        status, body, headers = client.ask("GET", revoked.PATH)
        assert status == 200 and headers["Content-Type"] == "application/jwt"
        assert chip(root).encode() not in body and WHY.encode() not in body
        transport.close()
        foreign.close()


def test_a_signing_key_that_leaked(tmp_path: Path, root: DevelopmentRoot) -> None:
    running = rig.started(tmp_path / "data", root, "--workers", "2")
    running.publish()
    with rig.raw(running) as client, running.admin() as admin:
        admin.set_resource(KEY, rig.SECRET, Binding(workloads=[str(rig.document().digest)]))
        (old,) = json.loads(client.ask("GET", "/.well-known/jwks.json")[1])["keys"]
        client.handshake(rig.attester(root), rig.document())
        assert released(client) == 200
        Revoking(admin, everywhere=True).revoke("key", [old["kid"]], "published by mistake")
        for _ in range(6):
            with rig.raw(running) as again:
                token, _ = again.handshake(rig.attester(root), rig.document())
                assert json.loads(jwt_part(token, 0))["kid"] != old["kid"]
                assert released(again) == 200
        with pytest.raises(NotFound):
            Revoking(admin, everywhere=True).revoke("key", [old["kid"]], "again")
    assert running.stop() == 0


def jwt_part(token: str, index: int) -> bytes:
    from adyton.wire import b64

    return b64.decode_url(token.split(".")[index])


def test_a_restart_forgets_nothing(tmp_path: Path, root: DevelopmentRoot) -> None:
    running = rig.started(tmp_path / "data", root)
    running.publish()
    with running.admin() as admin:
        Revoking(admin).revoke("chip", [chip(root)], WHY)
    running.kill()
    with rig.raw(running) as client, pytest.raises(AssertionError, match="revoked"):
        client.handshake(rig.attester(root), rig.document())
    with running.session(rig.attester(root)) as session, pytest.raises((ReleaseRefused, SessionInvalid, NotPermitted)):
        session.resource(KEY)
    assert running.stop() == 0
