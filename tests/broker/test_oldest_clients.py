"""Guests of protocol 0.1: a key at the top, RSA1_5 or EC, the form of answers before there was a JWE (kbs-protocol 1.15)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tests.broker import rig
from tests.broker.conftest import KEY as PATH

from adyton.crypto import jwe, jwk
from adyton.devtee.root import DevelopmentRoot
from adyton.protocol.release import Binding
from adyton.rats.types import ReportData
from adyton.wire import b64

RESOURCE = "/kbs/v0/resource/default/key/1"
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory, root: DevelopmentRoot) -> Iterator[rig.RunningBroker]:
    running = rig.started(tmp_path_factory.mktemp("old") / "data", root, "--allow-rsa1-5")
    running.publish()
    with running.admin() as admin:
        admin.set_resource(PATH, rig.SECRET, Binding(workloads=[str(rig.document().digest)]))
    yield running
    assert running.stop() == 0


def members(form: str, key: Any = RSA_KEY) -> dict[str, str]:
    if form == "EC":
        return dict(jwk.from_public(EC_KEY.public_key()).members)
    numbers = key.public_key().public_numbers()
    n, e = (b64.encode_url(number.to_bytes((number.bit_length() + 7) // 8)) for number in (numbers.n, numbers.e))
    if form == "2023":
        return {"alg": "RSA1_5", "k-mod": n, "k-exp": e}
    return {"kty": "RSA", "alg": "RSA1_5", "n": n, "e": e}


def bound(form: str, nonce: str, key: dict[str, str]) -> ReportData:
    """Written apart from the server's own code: two ways in 0.1, told apart by the key's form."""
    if form == "2023":
        text = nonce + key["k-mod"] + key["k-exp"]
    else:
        text = json.dumps({"nonce": nonce, "tee-pubkey": key}, sort_keys=True, separators=(",", ":"))
    return ReportData(hashlib.sha384(text.encode()).digest().ljust(64, b"\0"))


def begun(client: rig.Raw, version: str) -> str:
    status, read, _ = client.ask(
        "POST", "/kbs/v0/auth", json.dumps({"version": version, "tee": "snp", "extra-params": ""})
    )
    assert status == 200, read
    nonce: str = json.loads(read)["nonce"]
    return nonce


def attest(client: rig.Raw, body: Any) -> tuple[int, Any]:
    status, read, _ = client.ask("POST", "/kbs/v0/attest", json.dumps(body))
    return status, json.loads(read)


def opened(text: bytes) -> bytes:
    """As a guest of 0.1 does: header as it stands, PKCS#1 v1.5, the tag behind the ciphertext, no additional data."""
    message = json.loads(text)
    assert json.loads(message["protected"]) == {"alg": "RSA1_5", "enc": "A256GCM"}
    assert message["tag"] == ""
    content_key = RSA_KEY.decrypt(b64.decode_url(message["encrypted_key"]), padding.PKCS1v15())
    return AESGCM(content_key).decrypt(b64.decode_url(message["iv"]), b64.decode_url(message["ciphertext"]), None)


def test_off_unless_asked_for(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with rig.raw(broker) as client:
        sent = json.dumps({"version": "0.1.0", "tee": "snp", "extra-params": ""})
        status, read, headers = client.ask("POST", "/kbs/v0/auth", sent)
        assert status == 401 and b"rsa1_5_off" in read and "Set-Cookie" not in headers
        nonce, key = begun(client, "0.1.1"), members("RSA")
        primary = rig.attester(root).collect(bound("RSA", nonce, key)).primary
        status, answer = attest(client, {"tee-pubkey": key, "tee-evidence": primary})
        assert status == 400 and "rsa1_5_off" in answer["detail"]
        assert client.ask("GET", "/kbs/v0/resource/key/1")[0] == 404


@pytest.mark.parametrize("version", ["0.2.0", "0.3.0", "0.4.0"])
@pytest.mark.parametrize("form", ["RSA", "2023"])
def test_rsa1_5_never_where_something_else_is_known(
    old: rig.RunningBroker, root: DevelopmentRoot, version: str, form: str
) -> None:
    key = members(form)
    with rig.raw(old) as client:
        nonce = begun(client, version)
        primary: Any = rig.attester(root).collect(bound(form, nonce, key)).primary
        both = {"primary_evidence": primary, "additional_evidence": ""}
        body: Any = {"tee-pubkey": key, "tee-evidence": primary if version == "0.2.0" else both}
        if version == "0.4.0":
            body = {"runtime-data": {"nonce": nonce, "tee-pubkey": key}, "tee-evidence": both}
        status, answer = attest(client, body)
    assert status == 400 and "tee_key_malformed" in answer["detail"]


@pytest.mark.parametrize(
    ("version", "form"), [("0.1.0", "EC"), ("0.1.1", "2023"), ("0.1.0", "OAEP"), ("0.1.1", "OAEP"), ("0.1.1", "AKP")]
)
def test_keys_that_a_version_does_not_have(
    old: rig.RunningBroker, root: DevelopmentRoot, version: str, form: str
) -> None:
    key = members("RSA" if form == "OAEP" else form if form != "AKP" else "EC")
    if form == "OAEP":
        key["alg"] = "RSA-OAEP-256"
    if form == "AKP":
        key = dict(jwk.from_public(MLKEM768PrivateKey.generate().public_key()).members)
    with rig.raw(old) as client:
        primary = rig.attester(root).collect(bound(form, begun(client, version), key)).primary
        assert attest(client, {"tee-pubkey": key, "tee-evidence": primary})[0] == 400


@pytest.mark.parametrize("bits", [1024, 2047])
def test_an_rsa_key_that_is_too_small(old: rig.RunningBroker, root: DevelopmentRoot, bits: int) -> None:
    key = members("RSA", rsa.generate_private_key(65537, bits))
    with rig.raw(old) as client:
        primary = rig.attester(root).collect(bound("RSA", begun(client, "0.1.0"), key)).primary
        assert attest(client, {"tee-pubkey": key, "tee-evidence": primary})[0] == 400


def test_a_digit_moved_from_modulus_to_exponent_is_another_key(old: rig.RunningBroker, root: DevelopmentRoot) -> None:
    """Bug: the binding of 2023 has both texts one after the other, so the same evidence would pass for both keys."""
    key = members("2023", rsa.generate_private_key(65537, 4096))
    moved = {**key, "k-mod": key["k-mod"][:-4], "k-exp": key["k-mod"][-4:] + key["k-exp"]}
    with rig.raw(old) as client:
        nonce = begun(client, "0.1.0")
        assert bound("2023", nonce, key) == bound("2023", nonce, moved)
        primary = rig.attester(root).collect(bound("2023", nonce, key)).primary
        status, answer = attest(client, {"tee-pubkey": moved, "tee-evidence": primary})
        assert status == 400 and "tee_key_malformed" in answer["detail"]


@pytest.mark.parametrize("meant", ["2023", "RSA"])
def test_the_binding_is_the_key_forms(old: rig.RunningBroker, root: DevelopmentRoot, meant: str) -> None:
    said = "RSA" if meant == "2023" else "2023"
    with rig.raw(old) as client:
        nonce, key = begun(client, "0.1.0"), members(meant)
        other = bound("2023" if said == "2023" else "RSA", nonce, {**members("RSA"), **members("2023"), **key})
        primary = rig.attester(root).collect(other).primary
        status, answer = attest(client, {"tee-pubkey": key, "tee-evidence": primary})
        assert status == 401 and "report_data_mismatch" in answer["detail"]


def test_a_nonce_of_another_version(old: rig.RunningBroker, root: DevelopmentRoot) -> None:
    """The session says which version is spoken: the same evidence under another session's cookie is refused."""
    key = members("RSA")
    with rig.raw(old) as client, rig.raw(old) as other:
        nonce = begun(client, "0.1.0")
        begun(other, "0.1.1")
        primary = rig.attester(root).collect(bound("RSA", nonce, key)).primary
        body = {"tee-pubkey": key, "tee-evidence": primary}
        assert attest(other, body)[0] == 401
        begun(other, "0.4.0")
        assert attest(other, body)[0] == 400
        begun(client, "0.1.0")
        newer = {"runtime-data": {"nonce": nonce, "tee-pubkey": key}, "tee-evidence": {"primary_evidence": primary}}
        assert attest(client, newer)[0] == 400


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(("version", "form"), [("0.1.0", "2023"), ("0.1.0", "RSA"), ("0.1.1", "RSA"), ("0.1.1", "EC")])
def test_the_oldest_guest_gets_its_secret(
    old: rig.RunningBroker, root: DevelopmentRoot, version: str, form: str, wrapped: bool
) -> None:
    key = members(form)
    with rig.raw(old) as client:
        primary: Any = rig.attester(root).collect(bound(form, begun(client, version), key)).primary
        evidence = json.dumps(primary) if wrapped else primary
        status, answer = attest(client, {"tee-pubkey": key, "tee-evidence": evidence})
        if wrapped and version != "0.1.0":
            assert status == 401
            return
        assert status == 200, answer
        for path in (RESOURCE, "/kbs/v0/resource/key/1"):
            status, read, _ = client.ask("GET", path)
            assert status == 200, read
            assert (jwe.decrypt(EC_KEY, read) if form == "EC" else opened(read)) == rig.SECRET
    with rig.raw(old) as stranger:
        status, read, _ = stranger.ask("GET", RESOURCE, None, {"Authorization": f"Bearer {answer['token']}"})
        assert status == 200, read


def test_a_guest_with_a_post_quantum_key(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    key = MLKEM768PrivateKey.generate()
    with rig.raw(broker) as client:
        client.handshake(rig.attester(root), rig.document(), key)
        status, read, _ = client.ask("GET", RESOURCE)
        assert status == 200 and jwe.decrypt(key, read) == rig.SECRET
