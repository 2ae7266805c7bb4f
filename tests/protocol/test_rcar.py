"""Bodies of the handshake: what cannot be read, and what is bound."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.errors import MalformedRequest
from adyton.protocol import rcar
from adyton.protocol.known_chains import MAX_CHAINS, KnownChains
from adyton.rats.types import Nonce
from adyton.wire import b64

KEY = {
    "alg": "ECDH-ES+A256KW",
    "crv": "P-256",
    "kty": "EC",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
NONCE = b64.encode(bytes(32))
AUTH = {"version": "0.4.0", "tee": "snp", "extra-params": ""}


def attest(**change: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "init-data": None,
        "runtime-data": {"nonce": NONCE, "tee-pubkey": dict(KEY)},
        "tee-evidence": {"primary_evidence": {"a": [1, 2.50, "x"]}, "additional_evidence": ""},
    }
    return {**body, **change}


def read(body: object) -> rcar.Attestation:
    return rcar.parse_attestation(json.dumps(body).encode())


BAD_JSON = [
    b"",
    b"null",
    b"[]",
    b"{",
    b"\xff\xfe",
    b'{"version":"0.4.0","version":"0.4.0","tee":"snp","extra-params":""}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"version":NaN}',
    json.dumps({**AUTH, "extra-params": json.loads("[" * 65 + "]" * 65)}).encode(),
]


@pytest.mark.parametrize("body", BAD_JSON)
def test_bodies_that_cannot_be_read(body: bytes) -> None:
    for parse in (rcar.parse_request, rcar.parse_attestation, rcar.parse_challenge, rcar.parse_token):
        with pytest.raises(MalformedRequest):
            parse(body)


@pytest.mark.parametrize("name", AUTH)
@pytest.mark.parametrize("value", [None, 5, ["x"], {"a": 1}, 10**400, "absent"])
def test_auth_wrong_types(name: str, value: object) -> None:
    body: dict[str, object] = {**AUTH, name: value}
    if value == "absent":
        del body[name]
    elif name == "extra-params":
        assert rcar.parse_request(json.dumps(body).encode()).tee == "snp"  # any JSON at all
        return
    with pytest.raises(MalformedRequest):
        rcar.parse_request(json.dumps(body).encode())


@pytest.mark.parametrize(
    "body",
    [
        attest(**{"runtime-data": None}),
        attest(**{"runtime-data": {"nonce": 5, "tee-pubkey": KEY}}),
        attest(**{"runtime-data": {"nonce": "x" * 40_000, "tee-pubkey": KEY}}),
        attest(**{"runtime-data": {"nonce": NONCE, "tee-pubkey": {**KEY, "y": KEY["x"]}}}),
        attest(**{"runtime-data": {"nonce": NONCE, "tee-pubkey": []}}),
        attest(**{"tee-evidence": {"primary_evidence": {}}}),
        attest(**{"tee-evidence": {"primary-evidence": {}, "additional-evidence": ""}}),
        attest(**{"tee-evidence": {"primary_evidence": {}, "additional_evidence": {}}}),
        attest(**{"init-data": "x"}),
        attest(**{"init-data": {"format": "toml"}}),
    ],
)
def test_attest_wrong_types(body: dict[str, object]) -> None:
    with pytest.raises(MalformedRequest):
        read(body)


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("where", ["runtime-data", "nonce", "x", "additional_evidence", "primary_evidence"])
def test_two_members_of_one_name_are_refused(where: str, long: bool, compact: bool) -> None:
    evidence = {"a": ["y" * 2000] if long else 1}
    parts = attest(**{"tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""}})
    text = json.dumps(parts, separators=(",", ":") if compact else None)
    rcar.parse_attestation(text.encode())
    start = text.index(f'"{where}":')
    _, end = json.JSONDecoder().raw_decode(text, start + len(where) + (3 if compact else 4))
    doubled = text[:start] + text[start:end] + ("," if compact else ", ") + text[start:]
    assert json.loads(doubled) == json.loads(text)
    with pytest.raises(MalformedRequest):
        rcar.parse_attestation(doubled.encode())


@pytest.mark.parametrize(
    "member",
    [
        '"zz":{"a":1,"a":2}',
        '"zz":' + "[" * 70 + "]" * 70,
        '"zz":"\\ud800"',
        '"zz":NaN',
    ],
)
def test_what_is_odd_is_refused_in_the_spelling_of_cocos_guest_too(member: str) -> None:
    good = rcar.attestation_body(NONCE, KEY, {"q": [1, 2]}, b"x")
    assert rcar.parse_attestation(good).primary == b'{"q":[1,2]}'
    odd = good.replace(b'"tee-pubkey":{', b'"tee-pubkey":{' + member.encode() + b",")
    assert odd != good
    with pytest.raises(MalformedRequest):
        rcar.parse_attestation(odd)


CHAIN = json.dumps([{"cert_type": "VCEK", "data": list(range(256)) * 3}], separators=(",", ":"))


def with_chain(chain: str, report: str = '{"version":3}') -> bytes:
    body = rcar.attestation_body(NONCE, KEY, 0, b"x")
    return body.replace(
        b'"primary_evidence":0', f'"primary_evidence":{{"attestation_report":{report},"cert_chain":{chain}}}'.encode()
    )


def test_evidence_with_a_known_chain_is_the_same_evidence() -> None:
    first, second = rcar.parse_attestation(with_chain(CHAIN)), rcar.parse_attestation(with_chain(CHAIN))
    assert first.primary == second.primary == f'{{"attestation_report":{{"version":3}},"cert_chain":{CHAIN}}}'.encode()
    assert (first.nonce, first.key.members, first.init_data) == (second.nonce, second.key.members, second.init_data)
    other = CHAIN[:-5] + ("1" if CHAIN[-5] != "1" else "2") + CHAIN[-4:]
    assert rcar.parse_attestation(with_chain(other)).primary.endswith(f'"cert_chain":{other}}}'.encode())


@pytest.mark.parametrize("report", ["0,0", '{"a":1', '{"a":1}}', '"', '{"a":1},"attestation_report"'])
def test_what_stands_around_a_known_chain_is_still_read(report: str) -> None:
    rcar.parse_attestation(with_chain(CHAIN))
    with pytest.raises(MalformedRequest):
        rcar.parse_attestation(with_chain(CHAIN, report))


@pytest.mark.parametrize("tail", ["", ',"x":1', ',"cert_chain":0', ',"cert_chain":' + CHAIN])
def test_a_known_chain_in_an_odd_place(tail: str) -> None:
    rcar.parse_attestation(with_chain(CHAIN))
    inner = f'{{"q":{{"z":1,"cert_chain":{CHAIN}}},"additional_evidence":1{tail}}}'
    good = rcar.attestation_body(NONCE, KEY, 0, b"x").decode()
    odd = good.replace(
        '"primary_evidence":0,"additional_evidence":""', f'"additional_evidence":"","primary_evidence":{inner}'
    )
    assert rcar.parse_attestation(odd.encode()).primary == inner.encode()
    listed = f"[{inner}]"  # spelt as we would, but the chain is not at the evidence's end
    whole = good.replace('"primary_evidence":0', f'"primary_evidence":{listed}')
    assert rcar.parse_attestation(whole.encode()).primary == listed.encode()
    key = good.replace('"tee-pubkey":{', f'"tee-pubkey":{{"a":"b","cert_chain":{CHAIN}}},"additional_evidence":{{')
    for _ in range(2):
        with pytest.raises(MalformedRequest):
            rcar.parse_attestation(key.encode())


def test_chains_that_are_remembered_are_bounded() -> None:
    known = KnownChains()
    for number in range(200):
        known.learn(b'{"r":1,"cert_chain":["%0600d"]}' % number)
    assert len(known._known) <= MAX_CHAINS
    for bad in (b"", b"{}", b'{"r":1,"cert_chain":[%b}' % (b"1," * 400), b'{"r":1,"cert_chain":1,"x":"%0600d"}' % 1):
        empty = KnownChains()
        empty.learn(bad)
        assert not empty._known
    assert known.put_back(b'{"cert_chain":[]}', 14, 16, b'{"cert_chain":0}') is None


def test_a_remembered_request_is_the_same_and_a_refusal_is_not_remembered() -> None:
    for _ in range(2):
        assert rcar.parse_request(rcar.request_body("snp")).tee == "snp"
        with pytest.raises(MalformedRequest):
            rcar.parse_request(b'{"version":"0.4.0","tee":"snp","tee":"tdx","extra-params":""}')
        with pytest.raises(MalformedRequest):
            rcar.choose_hash(b'{"supported-hash-algorithms":["md5"]}')


def test_evidence_is_kept_byte_for_byte() -> None:
    text = json.dumps(attest()).replace('{"a": [1, 2.5, "x"]}', '{ "a":[1 ,2.50, "\\u0078"]}')
    assert rcar.parse_attestation(text.encode()).primary == b'{ "a":[1 ,2.50, "\\u0078"]}'


def test_published_check_value() -> None:
    # kbs-protocol 1.5; members of the key beyond the known ones are dropped before hashing
    body = attest(**{"runtime-data": {"nonce": NONCE, "tee-pubkey": {**KEY, "use": "enc", "zz": [1]}}})
    expected = (
        "d4bd1841ef158d7c3904848b81d834cafb2fb888d896151632a2aa5e8c258da20f8ba11735fc30d095f10ed26e055e09" + "00" * 16
    )
    assert read(body).report_data("sha384").value.hex() == expected


def test_additional_evidence_is_bound() -> None:
    with_device = attest(**{"tee-evidence": {"primary_evidence": {}, "additional_evidence": '{"nvidia":1}'}})
    assert read(with_device).report_data("sha384") != read(attest()).report_data("sha384")
    text = f'{{"additional-evidence":"{{\\"nvidia\\":1}}","nonce":"{NONCE}","tee-pubkey":'
    text += json.dumps(KEY, separators=(",", ":")) + "}"
    assert read(with_device).report_data("sha512").value == hashlib.sha512(text.encode()).digest()


@pytest.mark.parametrize(
    ("extra", "chosen"),
    [
        ('""', "sha384"),
        ("{}", "sha384"),
        ("null", "sha384"),
        ('{"supported-hash-algorithms":[]}', "sha384"),
        ('{"supported-hash-algorithms":["sha256","sha384","sha512","sm3"]}', "sha384"),
        ('{"supported-hash-algorithms":["SHA256","sm3"]}', "sha256"),
        ('{"supported-hash-algorithms":["sha256","sha512"]}', "sha512"),
    ],
)
def test_hash_negotiation(extra: str, chosen: str) -> None:
    assert rcar.choose_hash(extra.encode()) == chosen
    nonce, algorithm = rcar.parse_challenge(rcar.challenge(Nonce(bytes(32)), chosen))
    assert (nonce, algorithm) == (NONCE, chosen)
    assert len(nonce) == 44


def test_no_hash_in_common() -> None:
    with pytest.raises(MalformedRequest) as refused:
        rcar.choose_hash(b'{"supported-hash-algorithms":["sm3", 5]}')
    assert refused.value.code == "hash_unsupported"


def test_default_challenge_is_what_upstream_sends() -> None:
    assert rcar.challenge(Nonce(bytes(32)), "sha384") == b'{"nonce":"%s","extra-params":""}' % NONCE.encode()


@pytest.mark.parametrize("extra", [{"selected-hash-algorithm": "md5"}, {"selected-hash-algorithm": "sm3"}])
def test_client_refuses_other_hashes(extra: dict[str, str]) -> None:
    with pytest.raises(MalformedRequest):
        rcar.parse_challenge(json.dumps({"nonce": NONCE, "extra-params": extra}).encode())


@given(st.text(max_size=50), st.text(max_size=50))
def test_what_a_client_writes_a_broker_reads(additional: str, document: str) -> None:
    body = rcar.attestation_body(NONCE, KEY, {"q": [1, 2]}, document.encode(), additional)
    parsed = rcar.parse_attestation(body)
    assert (parsed.additional, parsed.init_data, parsed.init_data_format) == (additional, document.encode(), "toml")
    assert dict(parsed.key.members) == KEY
    assert parsed.primary == b'{"q":[1,2]}'
    assert parsed.runtime_data_claims["tee-pubkey"] == KEY


@given(st.binary(max_size=300))
def test_rubbish_gives_one_error(body: bytes) -> None:
    for parse in (rcar.parse_request, rcar.parse_attestation, rcar.parse_challenge, rcar.parse_token):
        with pytest.raises(MalformedRequest):
            parse(body)


def test_token_body() -> None:
    assert rcar.parse_token(rcar.token_body("a.b.c")) == "a.b.c"
    assert rcar.parse_request(rcar.request_body("snp")).version == "0.4.0"
