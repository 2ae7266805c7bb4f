"""The handshake over a real socket with a stand-in for CoCo's client: the four traps, and everything that is refused."""

from __future__ import annotations

import base64
import json
import re
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet
from tests.broker import rig

from adyton.crypto import jwe, jwk
from adyton.devtee.root import DevelopmentRoot
from adyton.protocol import initdata, rcar
from adyton.wire import b64

AUTH = {"version": "0.4.0", "tee": "snp", "extra-params": ""}
RESOURCE = "/kbs/v0/resource/default/key/1"
ERRORS = "https://github.com/confidential-containers/kbs/errors/"


def error(body: bytes) -> tuple[str, str]:
    """As CoCo's client reads an error: two required strings, or a hard failure."""
    read = json.loads(body)
    assert set(read) == {"type", "detail"}
    assert read["type"].startswith(ERRORS)
    assert isinstance(read["detail"], str)
    return read["type"].removeprefix(ERRORS), read["detail"]


def begun(client: rig.Raw) -> str:
    status, body, _ = client.ask("POST", "/kbs/v0/auth", json.dumps(AUTH))
    assert status == 200
    nonce: str = json.loads(body)["nonce"]
    return nonce


# ---------------------------------------------------------------- the traps for a foreign server


@pytest.mark.parametrize("kind", ["P-256", "P-521", "RSA"])
def test_trap_one_coco_opens_the_resource(broker: rig.RunningBroker, root: DevelopmentRoot, kind: str) -> None:
    curves = {"P-256": ec.SECP256R1(), "P-521": ec.SECP521R1()}
    key = rsa.generate_private_key(65537, 2048) if kind == "RSA" else ec.generate_private_key(curves[kind])
    with rig.raw(broker) as client:
        client.handshake(rig.attester(root), rig.document(), key)
        status, body, headers = client.ask("GET", RESOURCE)
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    message = json.loads(body)
    # CoCo's client decodes the header into a struct and serialises it anew: the AAD must survive that
    header = json.loads(base64.urlsafe_b64decode(message["protected"] + "=="))
    anew = {"alg": header["alg"], "enc": header["enc"]}
    if "epk" in header:
        anew["epk"] = dict(sorted(header["epk"].items()))
    assert set(header) == set(anew)
    again = json.dumps(anew, separators=(",", ":")).encode()
    assert message["protected"] == base64.urlsafe_b64encode(again).decode().rstrip("=")
    assert jwe.decrypt(key, body) == rig.SECRET


@pytest.mark.parametrize(
    ("method", "path", "status", "variant"),
    [
        ("GET", RESOURCE, 401, "TokenNotFound"),
        ("POST", "/kbs/v0/attest", 401, "AttestationError"),
        ("POST", "/kbs/v0/auth", 400, "SerdeError"),
        ("GET", "/kbs/v0/auth", 404, "PluginNotFound"),
        ("GET", "/kbs/v0/nebula-ca/credential", 404, "PluginNotFound"),
        ("GET", "/kbs/v0/resource/one/two", 404, "InvalidRequestPath"),
        ("POST", RESOURCE, 401, "AdminAuthAccess"),
        ("DELETE", RESOURCE, 401, "AdminAuthAccess"),
        ("POST", "/kbs/v0/resource-policy", 401, "AdminAuthAccess"),
        ("GET", "/api/v0/resources", 401, "AdminAuthAccess"),
        ("GET", "/nothing", 404, "InvalidRequestPath"),
        ("PATCH", "/kbs/v0/auth", 405, "InvalidRequestPath"),
    ],
)
def test_trap_two_every_error_has_the_error_body(
    broker: rig.RunningBroker, method: str, path: str, status: int, variant: str
) -> None:
    with rig.raw(broker) as client:
        got, body, headers = client.ask(method, path, b"" if method == "POST" else None)
    assert (got, error(body)[0]) == (status, variant)
    assert headers["Content-Type"] == "application/json"


def test_trap_three_cookie_path(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with rig.raw(broker) as client:
        _, _, headers = client.ask("POST", "/kbs/v0/auth", json.dumps(AUTH))
        first = headers["Set-Cookie"]
        assert re.match(r"kbs-session-id=[A-Za-z0-9_-]+; Expires=\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", first)
        assert "path=" not in first.lower()  # so that a client files it under the request's own /kbs/v0
        assert "secure" not in first.lower()  # plain http on loopback
        assert client.jar["kbs-session-id"][1] == "/kbs/v0"
        client.handshake(rig.attester(root), rig.document())
        value, scope = client.jar["kbs-session-id"]
        assert scope == "/kbs/v0"
        assert len(value) <= 3000
        assert client.ask("GET", RESOURCE)[0] == 200


def test_trap_four_token(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with rig.raw(broker) as client:
        token, key = client.handshake(rig.attester(root), rig.document())
        _, jwks, _ = client.ask("GET", "/.well-known/jwks.json")
    parts = token.split(".")
    assert len(parts) == 3
    claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    assert isinstance(claims["exp"], int)
    assert time.time() < claims["exp"] <= time.time() + 300
    header = json.loads(base64.urlsafe_b64decode(parts[0] + "=" * (-len(parts[0]) % 4)))
    assert header["alg"] == "ES256"
    assert header["kid"]
    assert header["jwk"]["kty"] == "EC"
    verified = joserfc_jwt.decode(token, KeySet.import_key_set(json.loads(jwks)), algorithms=["ES256"])
    evidence = verified.claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    assert evidence["runtime_data_claims"]["tee-pubkey"] == dict(jwk.from_public(key.public_key()).members)
    assert evidence["init_data_claims"]["workload"]["image"] == rig.IMAGE


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/kbs/v0/resource//default/key/1", 200),
        ("/kbs/v0/resource///default/key/1", 404),
        ("/kbs/v0/resource/default//key/1", 404),
        ("/kbs/v0/resource/default/key/1/", 404),
        ("/kbs/v0/resource//default/key//1", 404),
        ("/kbs/v0//resource/default/key/1", 404),
        ("//kbs/v0/resource/default/key/1", 404),
        ("/kbs/v0/resource/default/../default/key/1", 404),
        ("/kbs/v0/resource/default/./key/1", 404),
        ("/kbs/v0/resource/default/key/..", 404),
        ("/kbs/v0/resource/%64efault/key/1", 404),
        ("/kbs/v0/resource/default%2Fkey/1", 404),
        ("/kbs/v0/resource/default/key/%2e%2e", 404),
        ("/kbs/v0/resource/default/key/1%00", 404),
        ("/kbs/v0/resource/default/k\u00e9y/1", 400),
        ("/kbs/v0/resource/.default/key/1", 404),
        ("/kbs/v0/resource/default/key/" + "a" * 200, 404),
        ("/kbs/v0/resource/" + "a" * 8000, 404),
        ("/kbs/v0/resource/default/key/1?version=2", 200),
    ],
)
def test_double_slash_and_odd_paths(broker: rig.RunningBroker, root: DevelopmentRoot, path: str, status: int) -> None:
    with rig.raw(broker) as client:
        client.handshake(rig.attester(root), rig.document())
        connection = client.connection
        connection._encode_request = lambda text: text.encode("utf-8")  # type: ignore[attr-defined]
        connection._validate_path = lambda _: None  # type: ignore[attr-defined]
        cookie = f"kbs-session-id={client.jar['kbs-session-id'][0]}"
        got, body, _ = client.ask("GET", path, headers={"Cookie": cookie})
    assert got == status, body
    if status == 404:
        assert error(body)[0] == "InvalidRequestPath"


# ---------------------------------------------------------------- auth


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"version": "0.1.0"}, 401),
        ({"version": "0.3.1"}, 401),
        ({"version": "=0.4.0"}, 401),
        ({"version": "0.4.1"}, 401),
        ({"version": "1.0.0"}, 401),
        ({"version": ""}, 401),
        ({"tee": "sample"}, 401),
        ({"tee": "sampledevice"}, 401),
        ({"tee": "nvidia"}, 401),  # a device is no place to put a secret
        ({"tee": "se"}, 401),
        ({"tee": "nitro"}, 401),
        ({"tee": "nosuch"}, 401),
        ({"extra-params": {"supported-hash-algorithms": ["sm3"]}}, 401),
        ({"version": None}, 400),
        ({"tee": 5}, 400),
    ],
)
def test_auth_refused(broker: rig.RunningBroker, change: dict[str, Any], status: int) -> None:
    with rig.raw(broker) as client:
        got, body, headers = client.ask("POST", "/kbs/v0/auth", json.dumps({**AUTH, **change}))
    assert got == status
    assert "Set-Cookie" not in headers
    variant, detail = error(body)
    assert variant == ("AttestationError" if status == 401 else "SerdeError")
    if change.get("tee") == "sample":
        assert "tee_unsupported" in detail or "refused" in detail


def test_hash_negotiation(broker: rig.RunningBroker) -> None:
    with rig.raw(broker) as client:
        extra = {"supported-hash-algorithms": ["sha512", "sm3"]}
        _, body, _ = client.ask("POST", "/kbs/v0/auth", json.dumps({**AUTH, "extra-params": extra}))
    assert json.loads(body)["extra-params"] == {"selected-hash-algorithm": "sha512"}


def test_nonces_are_32_fresh_bytes(broker: rig.RunningBroker) -> None:
    with rig.raw(broker) as client:
        nonces = {begun(client) for _ in range(20)}
    assert len(nonces) == 20
    assert all(len(b64.decode(nonce)) == 32 for nonce in nonces)


# ---------------------------------------------------------------- attest


def attest(client: rig.Raw, body: bytes | dict[str, Any]) -> tuple[int, str, str]:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, read, _ = client.ask("POST", "/kbs/v0/attest", sent)
    if status == 200:
        return status, "", ""
    return (status, *_unnamed(*error(read)))


def _unnamed(variant: str, detail: str) -> tuple[str, str]:
    """Without the name of the decision, which is another one each time."""
    return variant, re.sub(r" \(decision [a-z2-7]{26}\)\Z", "", detail)


def honest(client: rig.Raw, root: DevelopmentRoot, **fields: Any) -> dict[str, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    body = rig.attest_body(begun(client), rig.attester(root, **fields), rig.document(), key)
    read: dict[str, Any] = json.loads(body)
    return read


def test_another_nonce(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with rig.raw(broker) as client:
        body = honest(client, root)
        begun(client)  # a new session in the cookie
        assert attest(client, body) == (401, "AttestationError", "the evidence was refused [nonce_mismatch]")


def test_replayed_evidence_with_the_new_nonce_written_in(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with rig.raw(broker) as client:
        body = honest(client, root)
        assert attest(client, body)[0] == 200
        body["runtime-data"]["nonce"] = begun(client)
        assert attest(client, body) == (401, "AttestationError", "the evidence was refused [report_data_mismatch]")
    with broker.admin() as admin:
        row = admin.audit(limit=1)[0]["row"]
    assert (row["action"], row["decision"]) == ("attest", "refused")
    assert row["reasons"][0].startswith("report_data_mismatch: ")


def test_another_key(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with rig.raw(broker) as client:
        body = honest(client, root)
        other = jwk.from_public(ec.generate_private_key(ec.SECP256R1()).public_key()).members
        body["runtime-data"]["tee-pubkey"] = dict(other)
        assert attest(client, body)[2] == "the evidence was refused [report_data_mismatch]"


def test_another_document(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with rig.raw(broker) as client:
        body = honest(client, root)
        body["init-data"]["body"] = rig.document(command=["/bin/sh"]).raw.decode()
        status, variant, _ = attest(client, body)
        assert (status, variant) == (401, "AttestationError")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("", "toml"),
        ("{}", "json"),
        ("version = '0.1.0'", "toml"),
        (initdata.write({"a": "b"}, "sha512").decode(), "toml"),
        ("\x00", "toml"),
    ],
)
def test_init_data_refused(broker: rig.RunningBroker, root: DevelopmentRoot, text: str, form: str) -> None:
    with rig.raw(broker) as client:
        body = honest(client, root)
        body["init-data"] = {"format": form, "body": text}
        assert attest(client, body)[:2] == (401, "AttestationError")


@pytest.mark.parametrize(
    ("additional", "said"),
    [
        ('{"nvidia":{"device_evidence_list":[]}}', "json_malformed"),
        ('{"sampledevice":{"svn":"2"}}', "sample_untrusted"),
        ('{"nosuch":1}', "tee_unsupported"),
        ('{"nvidiadpu":{}}', "tee_unsupported"),
        ("{", "additional_evidence_malformed"),
        ("not JSON", "additional_evidence_malformed"),
        ("[1]", "additional_evidence_malformed"),
        ('{"a":1,"a":1}', "additional_evidence_malformed"),
    ],
)
def test_devices_are_named_and_refused(
    broker: rig.RunningBroker, root: DevelopmentRoot, additional: str, said: str
) -> None:
    with rig.raw(broker) as client:
        key = ec.generate_private_key(ec.SECP256R1())
        body = rig.attest_body(begun(client), rig.attester(root), rig.document(), key, additional)
        status, variant, detail = attest(client, body)
        assert (status, variant) == (401, "AttestationError")
        assert said in detail


@pytest.mark.parametrize(
    "primary",
    [None, 5, "x", [], {}, {"attestation_report": {}}, {"svn": "1", "report_data": "AA=="}, [[[[]]]] * 50],
)
def test_other_evidence(broker: rig.RunningBroker, root: DevelopmentRoot, primary: object) -> None:
    with rig.raw(broker) as client:
        body = honest(client, root)
        body["tee-evidence"]["primary_evidence"] = primary
        assert attest(client, body)[:2] == (401, "AttestationError")


@pytest.mark.parametrize(
    "jwk_change",
    [{"kty": "oct"}, {"crv": "P-384"}, {"alg": "RSA1_5"}, {"x": "AAAA"}, {"d": "AAAA"}, {"y": None}],
)
def test_keys_that_nothing_is_encrypted_to(
    broker: rig.RunningBroker, root: DevelopmentRoot, jwk_change: dict[str, Any]
) -> None:
    with rig.raw(broker) as client:
        body = honest(client, root)
        body["runtime-data"]["tee-pubkey"].update(jwk_change)
        assert attest(client, body)[:2] == (400, "SerdeError")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a":' * 50_000, b"1" * 1000])
def test_bodies_that_cannot_be_read(broker: rig.RunningBroker, body: bytes) -> None:
    with rig.raw(broker) as client:
        begun(client)
        assert attest(client, body)[:2] == (400, "SerdeError")


def test_two_megabytes_and_one_byte(broker: rig.RunningBroker) -> None:
    with rig.raw(broker) as client:
        begun(client)
        assert attest(client, b" " * 2_000_000)[0] == 400
    with rig.raw(broker) as client:
        status, body, _ = client.ask("POST", "/kbs/v0/attest", b" " * 2_000_001)
        assert (status, error(body)[0]) == (413, "HTTPFailed")


def test_a_foreign_root(broker: rig.RunningBroker, tmp_path_factory: pytest.TempPathFactory) -> None:
    foreign = rig.make_root(tmp_path_factory.mktemp("foreign"))
    with rig.raw(broker) as client:
        status, variant, detail = attest(client, honest(client, foreign))
        assert (status, variant) == (401, "AttestationError")
        assert "untrusted" in detail


def test_attested_again_gives_a_token_of_the_same_claims(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with rig.raw(broker) as client:
        key = ec.generate_private_key(ec.SECP256R1())
        body = rig.attest_body(begun(client), rig.attester(root), rig.document(), key)
        tokens = []
        for _ in range(2):
            status, read, _ = client.ask("POST", "/kbs/v0/attest", body)
            assert status == 200
            tokens.append(rcar.parse_token(read).split(".")[1])
        assert tokens[0] == tokens[1]
        # but not for another key
        other = rig.attest_body("x", rig.attester(root), rig.document(), ec.generate_private_key(ec.SECP256R1()))
        assert attest(client, other)[0] == 401


def test_attested_again_after_a_change_of_rules_is_nothing(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    """Else what was revoked would go on being attested by a cookie."""
    with rig.raw(broker) as client:
        key = ec.generate_private_key(ec.SECP256R1())
        body = rig.attest_body(begun(client), rig.attester(root), rig.document(), key)
        assert attest(client, body)[0] == 200
        broker.publish(snp_launch_measurement=["00" * 48])
        try:
            status, read, _ = client.ask("POST", "/kbs/v0/attest", body)
            assert (status, "session_outdated" in json.loads(read)["detail"]) == (401, True)
        finally:
            broker.publish()


def test_a_replayed_cookie_and_body_serves_the_same_key_only(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with rig.raw(broker) as client, rig.raw(broker) as thief:
        key = ec.generate_private_key(ec.SECP256R1())
        body = rig.attest_body(begun(client), rig.attester(root), rig.document(), key)
        thief.jar = dict(client.jar)
        assert attest(client, body)[0] == 200
        assert attest(thief, body)[0] == 200
        _, answer, _ = thief.ask("GET", RESOURCE)
        assert jwe.decrypt(key, answer) == rig.SECRET  # to the TEE's key, which the thief does not have


def test_a_stranger_s_init_data_does_not_hold_up_the_worker(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    """A dotted key of many parts takes the standard library's parser minutes."""
    long = ".".join(["a"] * 100_000) + "=1"
    inner = initdata.write({"workload.toml": long}).decode()
    for document in (long, inner):
        with rig.raw(broker) as client:
            nonce = begun(client)
            key = ec.generate_private_key(ec.SECP256R1())
            sent = json.loads(rig.attest_body(nonce, rig.attester(root, rig.document()), rig.document(), key))
            sent["init-data"]["body"] = document
            began = time.monotonic()
            assert client.ask("POST", "/kbs/v0/attest", json.dumps(sent))[0] == 401
            assert time.monotonic() - began < 30
