"""Cookies and tokens that must not work: forged, expired, moved, of another broker, from before a change."""

from __future__ import annotations

import hashlib
import json
import re
import time
import zlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.broker import rig

from adyton.broker import session
from adyton.broker.session import Attested, Challenged
from adyton.client.handshake import Session
from adyton.crypto import jwe
from adyton.crypto.aead import KeyRing
from adyton.crypto.jwt import Signer
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import NotFound, ReleaseRefused, SessionInvalid
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.protocol.workload import WorkloadDocument
from adyton.wire import b64

RESOURCE = "/kbs/v0/resource/default/key/1"
KEY = ResourcePath("default", "key", "1")
NOW = 1_800_000_000
RING = KeyRing({b"ring": b"k" * 32}, b"ring")
CHALLENGED = Challenged(NOW + 300, "snp", "nonce", "sha384")
TEE_KEY = {"kty": "EC", "x": "a" * 43, "y": "b" * 43}


def test_a_cookie_opens_for_its_tenant_until_it_expires() -> None:
    value = session.seal(RING, "a", CHALLENGED)
    assert session.open_(RING, "a", value, NOW) == CHALLENGED
    for tenant, now in (("b", NOW), ("", NOW), ("a", NOW + 300)):
        with pytest.raises(SessionInvalid):
            session.open_(RING, tenant, value, now)


def test_another_brokers_cookie() -> None:
    value = session.seal(KeyRing({b"ring": b"x" * 32}, b"ring"), "a", CHALLENGED)
    with pytest.raises(SessionInvalid):
        session.open_(RING, "a", value, NOW)


@given(st.binary(max_size=300))
def test_rubbish_in_cookies(value: bytes) -> None:
    session.value_of(value)
    with pytest.raises(SessionInvalid):
        session.open_(RING, "a", value, NOW)


@pytest.mark.parametrize("more", [-1, 0, 1, 100_000])
def test_claims_that_a_cookie_would_hold_but_not_give_back_are_shelved(more: int) -> None:
    """Long and all the same, as a document full of spaces is: a few bytes when compressed."""
    claims = b'{"a":"'.ljust(session.MAX_CLAIMS - 2 + more, b" ") + b'"}'
    value, _, shelve = session.attested(RING, "a", NOW + 300, "snp", TEE_KEY, 7, claims)
    opened = session.open_(RING, "a", value, NOW)
    assert isinstance(opened, Attested)
    assert shelve is (more > 0)
    assert session.claims(opened, claims if shelve else None) == claims


def test_every_character_of_a_cookie_matters() -> None:
    value = session.seal(RING, "a", CHALLENGED)
    for index in range(len(value)):
        changed = value[:index] + (b"A" if value[index : index + 1] != b"A" else b"B") + value[index + 1 :]
        with pytest.raises(SessionInvalid):
            session.open_(RING, "a", changed, NOW)


@pytest.mark.parametrize("size", [10, 1500, 1900, 2300, 5000, 60_000])
@pytest.mark.parametrize("dense", [False, True])
def test_claims_of_any_size_keep_the_cookie_small(size: int, dense: bool) -> None:
    claims = (RING.keys[b"ring"] * 2000 if not dense else bytes(zlib.crc32(b"%d" % i) % 251 for i in range(size)))[
        :size
    ]
    value, digest, shelve = session.attested(RING, "a", NOW + 300, "snp", TEE_KEY, 7, claims)
    assert len(value) <= session.MAX_COOKIE
    opened = session.open_(RING, "a", value, NOW)
    assert isinstance(opened, Attested)
    assert opened.digest == digest == hashlib.sha256(claims).digest()
    assert session.claims(opened, claims if shelve else None) == claims
    if shelve:
        with pytest.raises(SessionInvalid):
            session.claims(opened, None)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (b"", None),
        (b"kbs-session-id=abc", b"abc"),
        (b"a=b; kbs-session-id=abc; c=d", b"abc"),
        (b'kbs-session-id="abc"', b"abc"),
        (b"xkbs-session-id=abc", None),
        (b"kbs-session-id", None),
        (b";;=;", None),
    ],
)
def test_cookie_headers(header: bytes, value: bytes | None) -> None:
    assert session.value_of(header) == value


# ---------------------------------------------------------------- against a running broker


def test_forged_and_foreign_cookies(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with rig.raw(broker) as client:
        client.handshake(rig.attester(root), rig.document())
        good = client.jar["kbs-session-id"][0]
        for value in ("", "x", good[:-4], good[:-1] + ("A" if good[-1] != "A" else "B"), good + good, "a" * 9000):
            status, body, _ = client.ask("GET", RESOURCE, headers={"Cookie": f"kbs-session-id={value}"})
            assert status == 401, value
            assert json.loads(body)["type"].endswith("/TokenNotFound")
        assert client.ask("GET", RESOURCE)[0] == 200


def test_the_cookie_before_attestation_gives_nothing(broker: rig.RunningBroker) -> None:
    with rig.raw(broker) as client:
        client.ask("POST", "/kbs/v0/auth", '{"version":"0.4.0","tee":"snp","extra-params":""}')
        assert client.ask("GET", RESOURCE)[0] == 401


def test_a_session_holds_where_nothing_is_remembered(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with rig.raw(broker) as client:
        _, key = client.handshake(rig.attester(root), rig.document())
        here = client.ask("GET", RESOURCE)
        broker.kill()  # another process, which has only the cookie
    with rig.raw(broker) as again:
        again.jar = client.jar
        there = again.ask("GET", RESOURCE)
    assert (here[0], there[0]) == (200, 200)
    assert jwe.decrypt(key, here[1]) == jwe.decrypt(key, there[1]) == rig.SECRET
    with broker.admin() as admin:
        before, after = (entry["row"] for entry in admin.audit(limit=2))
    assert before == after  # the same was decided, by the same facts


def test_another_tenants_cookie_and_token(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    broker.publish("other")
    with broker.admin("other") as admin:
        admin.set_resource(KEY, b"other's", Binding(workloads=[str(rig.document().digest)]))
    with rig.raw(broker) as client:
        token, _ = client.handshake(rig.attester(root), rig.document())
        cookie = {"Cookie": f"kbs-session-id={client.jar['kbs-session-id'][0]}"}
        assert client.ask("GET", "/t/other" + RESOURCE, headers=cookie)[0] == 401
        bearer = {"Authorization": f"Bearer {token}"}
        assert client.ask("GET", "/t/other" + RESOURCE, headers=bearer)[0] == 401
    with rig.raw(broker, "/t/other") as client:
        _, key = client.handshake(rig.attester(root), rig.document())
        assert client.jar["kbs-session-id"][1] == "/t/other/kbs/v0"
        assert jwe.decrypt(key, client.ask("GET", RESOURCE)[1]) == b"other's"


def test_the_passport(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with rig.raw(broker) as client:
        token, key = client.handshake(rig.attester(root), rig.document())
    with rig.raw(broker) as client:  # elsewhere, later: only the token and the key
        status, body, _ = client.ask("GET", RESOURCE, headers={"Authorization": f"Bearer {token}"})
        assert status == 200
        assert jwe.decrypt(key, body) == rig.SECRET
        head, payload, signature = token.split(".")
        forged = Signer.generate().sign(b'{"exp":9999999999}')
        for bad in ("", "x", f"{head}.{payload}.", f"{head}.{payload}.{signature[::-1]}", forged, "é", "a" * 70_000):
            authorization = {"Authorization": f"Bearer {bad}".encode().decode("latin-1")}
            assert client.ask("GET", RESOURCE, headers=authorization)[0] == 401, bad
        assert client.ask("GET", RESOURCE, headers={"Authorization": f"Basic {token}"})[0] == 401


def test_a_change_of_rules_ends_sessions_and_tokens(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with rig.raw(broker) as client:
        token, key = client.handshake(rig.attester(root), rig.document())
        assert client.ask("GET", RESOURCE)[0] == 200
        broker.publish(snp_launch_measurement=["00" * 48])
        status, body, _ = client.ask("GET", RESOURCE)
        assert status == 401
        assert "session_outdated" in json.loads(body)["detail"]
        assert client.ask("GET", RESOURCE, headers={"Cookie": "", "Authorization": f"Bearer {token}"})[0] == 401
        client.handshake(rig.attester(root), rig.document(), key)
        assert client.ask("GET", RESOURCE)[0] == 403
        broker.publish()
        client.handshake(rig.attester(root), rig.document(), key)
        assert client.ask("GET", RESOURCE)[0] == 200


def test_sessions_and_tokens_expire(tmp_path: Path, root: DevelopmentRoot) -> None:
    running = rig.started(tmp_path / "data", root, "--session-seconds", "10", "--token-seconds", "10")
    try:
        running.publish()
        with running.admin() as admin:
            admin.set_resource(KEY, rig.SECRET, Binding(workloads=[str(rig.document().digest)]))
        with rig.raw(running) as client:
            token, _ = client.handshake(rig.attester(root), rig.document())
            expires = json.loads(b64.decode_url(token.split(".")[1]))["exp"]
            assert client.ask("GET", RESOURCE)[0] == 200
    finally:
        running.stop()
    assert expires <= time.time() + 10
    # the broker's clock is its own: the rest is looked at where time is a parameter (above, and tests/crypto)


@pytest.mark.parametrize(
    ("fields", "runs", "reason"),
    [
        ({"policy": 0x30000 | 1 << 19}, rig.document(), "debug"),
        ({"measurement": bytes(48)}, rig.document(), "snp_launch_measurement"),
        ({"vmpl": 1}, rig.document(), "vmpl"),
        ({}, rig.document(command=["/bin/sh"]), "workload_not_bound"),
    ],
)
def test_refusals_tell_the_stranger_little_and_the_owner_why(
    broker: rig.RunningBroker, root: DevelopmentRoot, fields: dict[str, object], runs: WorkloadDocument, reason: str
) -> None:
    attester = rig.attester(root, runs, **fields)
    with Session(broker.address(), attester, runs.raw) as client, pytest.raises(ReleaseRefused) as refused:
        client.resource(KEY)
    assert reason not in str(refused.value)
    with broker.admin() as admin:
        attested, released = (entry["row"] for entry in admin.audit(limit=2))
    assert (released["action"], released["decision"]) == ("release", "refused")
    assert attested["request_id"] == released["request_id"]
    assert reason in " ".join([*released["reasons"], *(attested.get("reasons", ()) if reason == "vmpl" else ())])


@settings(max_examples=20, deadline=None)
@given(path=st.text(alphabet="abcdefghij", min_size=1, max_size=8))
def test_who_is_not_accepted_cannot_tell_absent_from_not_permitted(
    broker: rig.RunningBroker, root: DevelopmentRoot, path: str
) -> None:
    with broker.admin() as admin:
        admin.set_resource(ResourcePath("hidden", "key", "nobody"), b"x", Binding())
    with rig.raw(broker) as client:
        unknown = rig.attester(root, measurement=bytes(48))
        client.handshake(unknown, rig.document(), ec.generate_private_key(ec.SECP256R1()))
        absent = client.ask("GET", f"/kbs/v0/resource/absent/key/{path}")
        hidden = client.ask("GET", "/kbs/v0/resource/hidden/key/nobody")
    assert absent[0] == hidden[0] == 403
    # The name of each decision is another one, and tells nothing but that.
    told = [re.sub(rb"decision [a-z2-7]{26}\b", b"decision", body) for body in (absent[1], hidden[1])]
    assert told[0] == told[1]
    assert len(absent[1]) == len(hidden[1])
    assert absent[2].keys() == hidden[2].keys()


def test_who_is_accepted_is_told_that_a_resource_is_absent(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with broker.admin() as admin:
        admin.set_resource(ResourcePath("hidden", "key", "nobody"), b"x", Binding())
    with rig.raw(broker) as client:
        client.handshake(rig.attester(root), rig.document(), ec.generate_private_key(ec.SECP256R1()))
        status, body, _ = client.ask("GET", "/kbs/v0/resource/absent/key/one")
        assert status == 404
        assert set(json.loads(body)) == {"type", "detail"}
        assert client.ask("GET", "/kbs/v0/resource/hidden/key/nobody")[0] == 403
    with Session(broker.address(), rig.attester(root), rig.document().raw) as session, pytest.raises(NotFound):
        session.resource(ResourcePath("absent", "key", "one"))
    with broker.admin() as admin:
        row = admin.audit(limit=1)[0]["row"]
    assert (row["action"], row["decision"], row["resource"]) == ("release", "refused", "kbs:///absent/key/one")
    assert row["reasons"][0].startswith("resource_absent")
