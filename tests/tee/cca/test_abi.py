from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton import tee
from adyton.devtee.cca import (
    LEGACY_PLATFORM,
    PLATFORM,
    PLATFORM_PROFILE_2,
    REALM,
    Forge,
    collection,
    cose_key,
    halves,
    raw_point,
)
from adyton.devtee.cose_signing import Envelope, sign1
from adyton.errors import MalformedEvidence
from adyton.tee.cca import abi, platform, realm
from adyton.tee.cca.shape import Wrong
from adyton.wire import cbor

WRONG_PLATFORM: list[tuple[dict[Any, Any], str]] = [
    *(({label: ...}, field) for label, field in (
        (265, "platform_profile"), (10, "platform_challenge"), (2396, "implementation_id"), (256, "instance_id"),
        (2401, "config"), (2395, "lifecycle"), (2399, "sw_components"), (2402, "platform_hash_alg"),
    )),
    *(({label: None}, field) for label, field in (
        (265, "platform_profile"), (10, "platform_challenge"), (2396, "implementation_id"), (256, "instance_id"),
        (2401, "config"), (2395, "lifecycle"), (2399, "sw_components"), (2402, "platform_hash_alg"),
        (2400, "verification_service"),
    )),
    ({265: "http://arm.com/PSA-SSD/1.0.0"}, "platform_profile"),
    ({265: "http://arm.com/CCA-SSD/1.0.0 "}, "platform_profile"),
    ({265: [LEGACY_PLATFORM]}, "platform_profile"),
    ({10: bytes(31)}, "platform_challenge"),
    ({10: bytes(50)}, "platform_challenge"),
    ({10: [bytes(32)]}, "platform_challenge"),
    ({2396: bytes(34)}, "implementation_id"),
    ({2396: bytes(31)}, "implementation_id"),
    ({256: b"\2" + bytes(32)}, "instance_id"),
    ({256: b"\1" + bytes(31)}, "instance_id"),
    ({256: b""}, "instance_id"),
    ({2401: b""}, "config"),
    ({2401: bytes(5000)}, "config"),
    ({2395: 0x7F35}, "lifecycle"),
    ({2395: 0x3100}, "lifecycle"),
    ({2395: 0x0100}, "lifecycle"),
    ({2395: -1}, "lifecycle"),
    ({2395: 0x13000}, "lifecycle"),
    ({2395: True}, "lifecycle"),
    ({2399: []}, "sw_components"),
    ({2399: {}}, "sw_components"),
    ({2399: [1]}, "sw_components"),
    ({2399: [{}]}, "sw_components"),
    ({2399: [{2: bytes(32)}]}, "sw_components"),
    ({2399: [{5: bytes(32)}]}, "sw_components"),
    ({2399: [{2: bytes(33), 5: bytes(32)}]}, "sw_components"),
    ({2399: [{2: bytes(32), 5: b""}]}, "sw_components"),
    ({2399: [{2: bytes(32), 5: bytes(32), 1: ""}]}, "sw_components"),
    ({2399: [{2: bytes(32), 5: bytes(32), 3: "x"}]}, "sw_components"),
    ({2399: [{2: bytes(32), 5: bytes(32), "2": "x"}]}, "sw_components"),
    ({2399: [{2: bytes(32), 5: bytes(32)}] * 65}, "sw_components"),
    ({2400: ""}, "verification_service"),
    ({2400: b"x"}, "verification_service"),
    ({2402: "none"}, "platform_hash_alg"),
    ({2402: "SHA-256"}, "platform_hash_alg"),
    ({2402: -16}, "platform_hash_alg"),
    ({"text": 1}, "platform"),
]  # fmt: skip
WRONG_REALM: list[tuple[dict[Any, Any], str]] = [
    *(({label: ...}, field) for label, field in (
        (10, "realm_challenge"), (44235, "rpv"), (44236, "realm_hash_alg"), (44237, "rak"), (44238, "rim"),
        (44239, "rem"), (44240, "rak_hash_alg"),
    )),
    ({265: "tag:arm.com,2023:realm#1.0.1"}, "realm_profile"),
    ({265: None}, "realm_profile"),
    ({10: bytes(32)}, "realm_challenge"),
    ({10: bytes(65)}, "realm_challenge"),
    ({44235: bytes(63)}, "rpv"),
    ({44236: "sha-1"}, "realm_hash_alg"),
    ({44237: b""}, "rak"),
    ({44237: "rak"}, "rak"),
    ({44238: bytes(20)}, "rim"),
    ({44239: [bytes(32)] * 3}, "rem"),
    ({44239: [bytes(32)] * 5}, "rem"),
    ({44239: [bytes(32)] * 3 + [bytes(31)]}, "rem"),
    ({44239: bytes(128)}, "rem"),
    ({44240: ""}, "rak_hash_alg"),
    ({44240: ["sha-256"]}, "rak_hash_alg"),
    ({"text": 1}, "realm"),
]  # fmt: skip


def refused(token: bytes, field: str, cca: Any) -> None:
    for call in (abi.parse, cca.verify, lambda data: tee.show("cca", data)):
        with pytest.raises(MalformedEvidence) as caught:
            call(token)
        assert caught.value.field == field
        assert caught.value.code == f"malformed_{field}"


@pytest.mark.parametrize(("changes", "field"), WRONG_PLATFORM)
def test_wrong_platform_claims(changes: dict[int, Any], field: str, cca: Any) -> None:
    refused(cca.forge.token(platform=changes), field, cca)


@pytest.mark.parametrize(("changes", "field"), WRONG_REALM)
def test_wrong_realm_claims(changes: dict[int, Any], field: str, cca: Any) -> None:
    refused(cca.forge.token(realm=changes), field, cca)


def test_the_second_profile_asks_for_more(cca: Any) -> None:
    forge = cca.forge
    for wrong in (..., 2, True):
        refused(forge.token(platform={2394: wrong}, profile=PLATFORM_PROFILE_2), "client_id", cca)
    changes: dict[int, Any]
    for changes, field in (
        ({256: ...}, "realm_instance_id"), ({256: b"\0" + bytes(32)}, "realm_instance_id"), ({44243: ...}, "mec_policy"),
        ({44243: "public"}, "mec_policy"),
    ):  # fmt: skip
        refused(forge.token(realm=changes, version=2), field, cca)
    both = abi.parse(forge.token(version=2, profile=PLATFORM_PROFILE_2, platform={2403: b"x", 2405: [{}]}))
    assert both.platform_claims.unknown == both.realm_claims.unknown == ()


def test_wrong_wholes(cca: Any) -> None:
    token = cca.forge.token()
    platform_half, realm_half = halves(token)
    for wrong in (
        b"",
        b"\xd9",
        token[:-1],
        token + b"\0",
        token[3:],
        cbor2.dumps(cbor2.CBORTag(18, {PLATFORM: platform_half, REALM: realm_half})),
        cbor2.dumps(cbor2.CBORTag(399, [platform_half, realm_half])),
        cbor2.dumps(cbor2.CBORTag(399, {PLATFORM: platform_half})),
        cbor2.dumps(cbor2.CBORTag(399, {PLATFORM: platform_half, REALM: realm_half, 1: b""})),
        cbor2.dumps(cbor2.CBORTag(399, {str(PLATFORM): platform_half, REALM: realm_half})),
        collection(platform_half, None),
        collection([263, platform_half], [263, realm_half]),
        collection(platform_half, realm_half, tag=907),
        collection(platform_half, realm_half, tag=399, wrapped=True),
        cbor2.dumps(cbor2.CBORTag(907, {PLATFORM: [264, platform_half], REALM: [263, realm_half]})),
        cbor2.dumps(cbor2.CBORTag(907, {PLATFORM: [263, platform_half, 0], REALM: [263, realm_half]})),
        b"\xd9\x01\x8f\xbf" + token[4:] + b"\xff",
    ):
        refused(wrong, "token", cca)
    refused(b"\xd9" + bytes(abi.MAX_SIZE), "size", cca)
    refused(collection(b"", realm_half), "platform", cca)
    refused(collection(platform_half, realm_half[:-1]), "realm", cca)
    refused(collection(platform_half, sign1(cca.forge.rak, b"\x80")), "realm", cca)
    refused(collection(sign1(cca.forge.cpak, b"\xa1"), realm_half), "platform", cca)
    refused(cca.forge.token(platform_envelope=Envelope(algorithm=-8)), "platform_alg", cca)
    refused(cca.forge.token(realm_envelope=Envelope(algorithm=-37)), "realm_alg", cca)
    refused(cca.forge.token(realm_envelope=Envelope(tag=17)), "realm", cca)


def test_forms_of_a_token(cca: Any) -> None:
    for envelope in (Envelope(tag=18), Envelope(), Envelope(unprotected={4: b"kid"})):
        for wrapped in (False, True):
            token = cca.forge.token(platform_envelope=envelope, realm_envelope=envelope, wrapped=wrapped)
            parsed = abi.parse(token)
            assert parsed.encode() == token
            assert parsed.wrapped is wrapped
            as_json = json.dumps({"token": list(token)}).encode()
            assert abi.read(as_json) == abi.read(b" \n" + as_json) == parsed
    unknown = abi.parse(cca.forge.token(platform={70000: 1, -5: 2}, realm={9: b""}))
    assert (unknown.platform_claims.unknown, unknown.realm_claims.unknown) == ((-5, 70000), (9,))


@pytest.mark.parametrize(
    "text",
    [
        b"{", b"{}", b' {"token": 1}', b'{"token": [256]}', b'{"token": [-1]}', b'{"token": [1.0]}', b'{"token": [true]}',
        b'{"token": ["1"]}', b'{"token": [], "more": 1}', b'{"token": [1], "token": [1]}', b'{"token": null}', b"\t1",
        b'{"token": [' + b"1," * 100_000 + b"1]}", b"{" * 100_000,
    ],
)  # fmt: skip
def test_wrong_json(text: bytes, cca: Any) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        cca.verify(text)
    assert caught.value.code == "malformed_json"


def test_a_token_in_json_that_is_none(cca: Any) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        cca.verify(b'{"token": []}')
    assert caught.value.code == "malformed_token"


class TestRealmKey:
    def test_both_encodings(self) -> None:
        forge = Forge.new()
        raw, cose = raw_point(forge.rak), cose_key(forge.rak)
        assert realm.realm_key(raw).public_numbers() == realm.realm_key(cose).public_numbers()
        assert realm.realm_key(cose_key(forge.rak, alg=-35)).curve.name == "secp384r1"

    def test_wrong_ones(self) -> None:
        forge = Forge.new()
        raw = raw_point(forge.rak)
        for wrong in (
            raw[:-1],
            raw + b"\0",
            raw[:-1] + bytes((raw[-1] ^ 1,)),
            b"\4" + bytes(96),
            b"\2" + raw[1:49],
            b"\0" * 97,
            cose_key(forge.rak, kty=1),
            cose_key(forge.rak, kty=True),
            cose_key(forge.rak, crv=1),
            cose_key(forge.rak, crv=8),
            cose_key(forge.rak, crv="P-384"),
            cose_key(forge.rak, x=raw[1:48]),
            cose_key(forge.rak, x=b"\0" + raw[1:49]),
            cose_key(forge.rak, y=True),
            cose_key(forge.rak, y=raw[1:49]),
            cose_key(forge.rak, alg=-7),
            cose_key(forge.rak, extra={-4: bytes(48)}),
            cbor.encode([]),
            cbor.encode({}),
            cose_key(forge.rak) + b"\0",
        ):
            with pytest.raises(Wrong):
                realm.realm_key(wrong)


GOOD: dict[str, Any] = {
    "cca-platform-profile": LEGACY_PLATFORM,
    "cca-platform-challenge": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
    "cca-platform-implementation-id": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "cca-platform-instance-id": "AQICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC",
    "cca-platform-config": "AQID",
    "cca-platform-lifecycle": 12288,
    "cca-platform-sw-components": [
        {
            "measurement-type": "BL",
            "measurement-value": "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=",
            "signer-id": "BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ=",
        }
    ],
    "cca-platform-hash-algo-id": "sha-256",
}


class TestPlatformClaimsJson:
    def test_good(self) -> None:
        claims = platform.parse_json(json.dumps(GOOD).encode())
        assert (claims.config, claims.verification_service, claims.state) == (b"\1\2\3", None, "secured")
        assert claims.sw_components[0].measurement == b"\3" * 32
        assert claims.sw_components[0].type == "BL"

    @pytest.mark.parametrize("name", GOOD)
    def test_each_is_mandatory(self, name: str) -> None:
        for changed in (
            {key: value for key, value in GOOD.items() if key != name},
            GOOD | {name: None},
            GOOD | {name: 1.5},
            GOOD | {name: {}},
            GOOD | {name: ""},
        ):
            with pytest.raises(MalformedEvidence):
                platform.parse_json(json.dumps(changed).encode())

    @pytest.mark.parametrize(
        "changes",
        [
            {"psa-boot-seed": "AQID"},
            {"cca-platform-config": "AQI"},
            {"cca-platform-config": "AQI_"},
            {"cca-platform-service-indicator": ""},
            {"cca-platform-sw-components": [1]},
            {"cca-platform-sw-components": [{"measurement-value": "AQ=="}]},
            {"cca-platform-sw-components": [{"other": "AQ=="}]},
            {"cca-platform-sw-components": [{"measurement-value": 1}]},
        ],
    )
    def test_wrong_members(self, changes: dict[str, Any]) -> None:
        with pytest.raises(MalformedEvidence):
            platform.parse_json(json.dumps(GOOD | changes).encode())

    @pytest.mark.parametrize(
        "text", [b"", b"[]", b"1", b"{", b"\xff", b'{"cca-platform-lifecycle":1,"cca-platform-lifecycle":1}']
    )
    def test_no_object(self, text: bytes) -> None:
        with pytest.raises(MalformedEvidence):
            platform.parse_json(text)

    @given(
        st.recursive(
            st.none() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(sorted(GOOD)), inner),
        )
    )
    def test_any_json(self, value: Any) -> None:
        with suppress(MalformedEvidence):
            platform.parse_json(json.dumps(value).encode())


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    head = b"\x84\x44\xa1\x01\x38\x22\xa0"
    half = head + cbor.byte_string(data) + cbor.byte_string(bytes(96))
    for token in (data, b"\xd9\x01\x8f" + data, collection(half, half)):
        with suppress(MalformedEvidence):
            assert abi.parse(token).encode() == token


labels = st.sampled_from([265, 10, 2396, 256, 2401, 2395, 2399, 2400, 2402, 44235, 44236, 44237, 44238, 44239, 44240])
anything = (
    st.none()
    | st.integers()
    | st.binary(max_size=66)
    | st.text(max_size=10)
    | st.lists(st.binary(max_size=33), max_size=5)
)


@given(st.dictionaries(labels, anything), st.dictionaries(labels, anything))
def test_any_claims(first: dict[int, Any], second: dict[int, Any]) -> None:
    forge = _FORGE
    with suppress(MalformedEvidence):
        abi.parse(forge.token(platform=first, realm=second))


_FORGE = Forge.new()
