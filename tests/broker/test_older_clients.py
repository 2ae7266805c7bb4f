"""Guests that speak the protocol as it was before 0.4.0 (kbs-protocol 1.15), beside those that do not, in one broker."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tests.broker import rig

from adyton.crypto import jwe, jwk
from adyton.devtee.root import DevelopmentRoot
from adyton.rats.types import ReportData

RESOURCE = "/kbs/v0/resource/default/key/1"
OLDER = ("0.2.0", "0.3.0")


def bound(version: str, nonce: str, members: dict[str, str], additional: str = "") -> ReportData:
    """What such a client puts into its report, written apart from the server's own code."""
    value: dict[str, Any] = {"nonce": nonce, "tee-pubkey": members}
    if version != "0.2.0":
        value["additional-evidence"] = additional
    text = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return ReportData(hashlib.sha384(text).digest().ljust(64, b"\0"))


def begun(client: rig.Raw, version: str, tee: str = "snp") -> str:
    status, read, _ = client.ask(
        "POST", "/kbs/v0/auth", json.dumps({"version": version, "tee": tee, "extra-params": ""})
    )
    assert status == 200, read
    nonce: str = json.loads(read)["nonce"]
    return nonce


def older_body(version: str, members: dict[str, str], primary: Any) -> dict[str, Any]:
    evidence = primary if version == "0.2.0" else {"primary_evidence": primary, "additional_evidence": ""}
    return {"tee-pubkey": members, "tee-evidence": evidence}


def attest(client: rig.Raw, body: Any) -> tuple[int, Any]:
    status, read, _ = client.ask("POST", "/kbs/v0/attest", json.dumps(body))
    return status, json.loads(read)


@pytest.mark.parametrize("said", [*OLDER, "0.4.0"])
@pytest.mark.parametrize("meant", [*OLDER, "0.4.0"])
def test_a_binding_is_good_for_the_versions_that_have_it(
    broker: rig.RunningBroker, root: DevelopmentRoot, said: str, meant: str
) -> None:
    """Evidence that binds no additional evidence does not pass where it must, nor the other way round."""
    key = ec.generate_private_key(ec.SECP256R1())
    members = dict(jwk.from_public(key.public_key()).members)
    with rig.raw(broker) as client:
        nonce = begun(client, said)
        primary = rig.attester(root).collect(bound(meant, nonce, members)).primary
        body: Any = older_body(said, members, primary)
        if said == "0.4.0":
            body = {
                "runtime-data": {"nonce": nonce, "tee-pubkey": members},
                "tee-evidence": {"primary_evidence": primary, "additional_evidence": ""},
            }
        status, answer = attest(client, body)
    if (said == "0.2.0") == (meant == "0.2.0"):
        assert status == 200, answer
    else:
        assert status == 401 and "report_data_mismatch" in answer["detail"]


@pytest.mark.parametrize("version", OLDER)
def test_a_session_does_not_read_bodies_of_another_version(
    broker: rig.RunningBroker, root: DevelopmentRoot, version: str
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    members = dict(jwk.from_public(key.public_key()).members)
    with rig.raw(broker) as client:
        nonce = begun(client, version)
        assert client.ask("POST", "/kbs/v0/attest", rig.attest_body(nonce, rig.attester(root), None, key))[0] == 400
        nonce = begun(client, "0.4.0")
        primary = rig.attester(root).collect(bound(version, nonce, members)).primary
        assert attest(client, older_body(version, members, primary))[0] == 400
        nonce = begun(client, version)
        stale = rig.attester(root).collect(bound(version, "another nonce", members)).primary
        assert attest(client, older_body(version, members, stale))[0] == 401
        other = dict(jwk.from_public(ec.generate_private_key(ec.SECP256R1()).public_key()).members)
        relayed = rig.attester(root).collect(bound(version, nonce, other)).primary
        assert attest(client, older_body(version, members, relayed))[0] == 401
        twice = json.dumps(older_body(version, members, {}))[:-1] + ',"tee-pubkey":{}}'
        assert client.ask("POST", "/kbs/v0/attest", twice)[0] == 400
        with_rsa15 = {"kty": "RSA", "alg": "RSA1_5", "n": "AQAB", "e": "AQAB"}
        assert attest(client, older_body(version, with_rsa15, {}))[0] == 400


@pytest.mark.parametrize("version", OLDER)
@pytest.mark.parametrize("kind", ["EC", "RSA"])
def test_an_older_guest_gets_its_secret(
    broker: rig.RunningBroker, root: DevelopmentRoot, version: str, kind: str
) -> None:
    """Its init data cannot come along, and need not: HOST_DATA names the document all the same."""
    key: Any = ec.generate_private_key(ec.SECP256R1()) if kind == "EC" else rsa.generate_private_key(65537, 2048)
    members = dict(jwk.from_public(key.public_key()).members)
    with rig.raw(broker) as client:
        primary = rig.attester(root).collect(bound(version, begun(client, version), members)).primary
        body = older_body(version, members, primary)
        status, answer = attest(client, body)
        assert status == 200, answer
        status, again = attest(client, body)
        assert status == 200 and again["token"].count(".") == 2
        status, read, _ = client.ask("GET", RESOURCE)
        assert status == 200
        assert jwe.decrypt(key, read) == rig.SECRET
        changed = {
            **body,
            "tee-pubkey": dict(jwk.from_public(ec.generate_private_key(ec.SECP256R1()).public_key()).members),
        }
        assert attest(client, changed)[0] == 401


@pytest.mark.parametrize("name", ["azsnpvtpm", "aztdxvtpm"])
def test_azures_older_names(broker: rig.RunningBroker, name: str) -> None:
    with rig.raw(broker) as client:
        begun(client, "0.3.0", name)
