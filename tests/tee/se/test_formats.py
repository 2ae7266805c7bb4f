from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from adyton import tee
from adyton.devtee import se as forging
from adyton.errors import MalformedEvidence, SignatureInvalid
from adyton.tee.se import header, json_form, request
from adyton.tee.se.exchange import Exchange
from adyton.tee.se.header import HeaderTags, SeHeader
from adyton.tee.se.request import AttestationRequest, RequestSecrets


def put(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


HEADER = forging.image_header(b"\1" * 32, b"\2" * 32).encode()


# Headers


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEADER[:415],
        HEADER[:-1],
        HEADER + b"\0",
        put(HEADER, 0, b"IBMSecEy"),
        put(HEADER, 8, b"\0\0\2\0"),
        put(HEADER, 12, b"\0\0\0\0"),
        put(HEADER, 12, b"\xff\xff\xff\xff"),
        put(HEADER, 32, b"\0\0\0\0\0\0\0\3"),
        put(HEADER, 32, b"\xff" * 8),
        put(HEADER, 40, b"\xff" * 8),
        put(HEADER, 40, b"\0" * 8),
        b"IBMSecEx".ljust(0x3000, b"\0"),
    ],
)
def test_broken_headers(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        SeHeader.parse(data)


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=4))
def test_headers_encode_to_themselves(hashes: list[bytes]) -> None:
    made = forging.image_header(*hashes)
    data = made.encode()
    parsed = SeHeader.parse(data)
    assert parsed == made
    assert parsed.encode() == data
    assert parsed.key_hashes == frozenset(hashes)
    assert HeaderTags.parse(parsed.tags.encode()) == parsed.tags


def test_finding_a_header() -> None:
    for page in (0, 1, 0x14):
        assert header.find(bytes(0x1000 * page) + HEADER + bytes(77)).encode() == HEADER
    at = 0xE000
    metadata = struct.pack(">8sQIQ", b"SeImgLnx", at, 1, 0)
    image = put(bytes(at) + HEADER, 0xC000, metadata)
    assert header.find(image).encode() == HEADER
    for broken in (
        b"",
        bytes(0x20000),
        bytes(0x15000) + HEADER,
        bytes(8) + HEADER,
        put(image, 0xC000 + 8, (at + 8).to_bytes(8, "big")),
        put(image, 0xC000 + 16, b"\0\0\0\2"),
        put(image, 0xC000 + 8, b"\xff" * 8),
        HEADER[:-1],
    ):
        with pytest.raises(MalformedEvidence):
            header.find(broken)


def test_tags_have_208_bytes() -> None:
    for size in (0, 207, 209):
        with pytest.raises(MalformedEvidence):
            HeaderTags.parse(bytes(size))


@given(st.binary(max_size=600))
def test_other_bytes_are_malformed(data: bytes) -> None:
    for read in (SeHeader.parse, header.find, AttestationRequest.parse, Exchange.parse, json_form.parse):
        with pytest.raises(MalformedEvidence):
            read(data)
    with pytest.raises(MalformedEvidence):
        tee.show("se", data)


# Requests


def test_what_firmware_reads_is_what_was_written(world: Any) -> None:
    parsed = AttestationRequest.parse(world.request)
    assert parsed.encode() == world.request
    assert parsed.key_hashes == {world.machine.key_hash}
    assert parsed.open(world.secrets.protection_key) == (world.secrets.measurement_key, world.secrets.nonce)


@pytest.mark.parametrize("offset", [16, 28, 39, 48, 60, 70, 224, 256, 303, 310, 399])
def test_a_changed_request(world: Any, offset: int) -> None:
    changed = put(world.request, offset, bytes([world.request[offset] ^ 1]))
    with pytest.raises((MalformedEvidence, SignatureInvalid)):
        AttestationRequest.parse(changed).open(world.secrets.protection_key)
    with pytest.raises(Exception, match=r".*"):
        world.machine.attest(changed, b"")


def test_another_protection_key(world: Any) -> None:
    with pytest.raises(SignatureInvalid) as caught:
        AttestationRequest.parse(world.request).open(bytes(32))
    assert caught.value.code == "request_seal"


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, b"\1"),
        (8, b"\0\0\2\0"),
        (12, b"\0\0\0\0"),
        (28, b"\1"),
        (32, b"\1"),
        (39, b"\0"),
        (39, b"\2"),
        (40, b"\1"),
        (44, b"\0\0\0\0"),
        (44, b"\xff\xff\xff\xff"),
        (48, b"\x30"),
        (48, b"\x71"),
        (55, b"\1"),
        (56, b"\0\0\0\2"),
        (60, b"\1"),
    ],
)
def test_broken_requests(world: Any, offset: int, value: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        AttestationRequest.parse(put(world.request, offset, value))


def test_lengths_of_requests(world: Any) -> None:
    for data in (world.request[:-1], world.request + b"\0", world.request[:224], bytes(0x100001)):
        with pytest.raises(MalformedEvidence):
            AttestationRequest.parse(data)


def test_requests_for_many_machines(world: Any, stranger: Any) -> None:
    keys = [stranger.machine.key.public_key(), world.machine.key.public_key()]
    data = request.build(keys, world.secrets, flags=request.FLAGS | request.FIRMWARE_STATE | request.SECRET_STORE_HASH)
    for machine in (world.machine, stranger.machine):
        answer = machine.attest(data, b"hello")
        assert len(answer.additional_data) == 64 + 64 + 320
        assert answer.measurement == request.measurement(
            world.secrets.measurement_key,
            machine.image.tags,
            cuid=machine.cuid,
            user_data=b"hello",
            nonce=world.secrets.nonce,
            additional_data=answer.additional_data,
        )
    with pytest.raises(ValueError, match="no key slot"):
        forging.Machine(world.machine.image).attest(data, b"")


def test_misuse(world: Any) -> None:
    key = world.machine.key.public_key()
    for keys, flags in (
        ([], request.FLAGS),
        ([key] * 256, request.FLAGS),
        ([key], request.FLAGS & ~request.NONCE),
        ([key], request.FLAGS | 1),
    ):
        with pytest.raises(ValueError, match="request"):
            request.build(keys, world.secrets, flags=flags)
    with pytest.raises(ValueError, match="P-521"):
        request.build([ec.generate_private_key(ec.SECP256R1()).public_key()], world.secrets)
    ours = world.secrets
    with pytest.raises(ValueError, match="64, 16, 32"):
        RequestSecrets(ours.measurement_key[1:], ours.nonce, ours.protection_key, ours.iv, ours.ephemeral)
    with pytest.raises(ValueError, match="P-521"):
        RequestSecrets(
            ours.measurement_key, ours.nonce, ours.protection_key, ours.iv, ec.generate_private_key(ec.SECP384R1())
        )
    for secret in (ours.measurement_key, ours.nonce, ours.protection_key):
        assert repr(secret) not in repr(ours)


@pytest.mark.parametrize("size", [0, 63, 65, 128])
def test_additional_data_are_what_was_asked_for(size: int) -> None:
    with pytest.raises(MalformedEvidence):
        request.read_additional(bytes(size), request.FLAGS)


# Exchange files

FULL = Exchange(b"request", b"m" * 64, b"a" * 64, b"user", b"c" * 16).encode()
ASKED = Exchange(b"request", sizes=(64, 32)).encode()


def test_requests_and_responses() -> None:
    for data, response in ((FULL, True), (ASKED, False), (Exchange(b"r", b"m", cuid=bytes(16)).encode(), True)):
        parsed = Exchange.parse(data)
        assert parsed.encode() == data
        assert parsed.is_response is response
    assert Exchange.parse(ASKED).sizes == (64, 32)
    with pytest.raises(MalformedEvidence, match="no answer"):
        tee.show("se", ASKED)
    with pytest.raises(ValueError, match="too long"):
        Exchange(b"r", user_data=bytes(257)).encode()


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, b"q"),
        (8, b"\0\0\2\0"),
        (12, b"\0\0\0\1"),
        (16, b"\1"),
        (24, b"\0\0\0\0"),
        (28, b"\0\0\0\x3f"),
        (28, b"\0\0\0\x41"),
        (28, b"\0\0\0\0"),
        (24, b"\xff\xff\xff\xff"),
        (28, b"\xff\xff\xff\xff"),
        (32, b"\0\0\0\1"),
        (32, b"\0\1\0\0"),
        (36, b"\0\0\0\x40"),
        (48, b"\0\0\1\1"),
        (48, b"\0\0\0\5"),
        (52, b"\0\0\0\0"),
        (56, b"\0\0\0\x0f"),
        (60, b"\xff\xff\xff\xff"),
    ],
)
def test_broken_exchange_files(offset: int, value: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        Exchange.parse(put(FULL, offset, value))


def test_lengths_of_exchange_files() -> None:
    short = Exchange(b"r", b"m", cuid=bytes(15)).encode()
    for data in (FULL[:-1], FULL + b"\0", FULL[:63], bytes(2**21), Exchange(b"").encode(), short):
        with pytest.raises(MalformedEvidence):
            Exchange.parse(data)


@given(
    st.binary(min_size=1, max_size=40),
    st.binary(max_size=40),
    st.binary(max_size=40),
    st.binary(max_size=40),
    st.booleans(),
)
def test_exchange_files_encode_to_themselves(one: bytes, two: bytes, three: bytes, four: bytes, uid: bool) -> None:
    made = Exchange(one, two, three, four, b"u" * 16 if uid else b"")
    parsed = Exchange.parse(made.encode())
    assert parsed[:5] == made[:5]
    assert parsed.encode() == made.encode()


@pytest.mark.vectors
def test_the_published_exchange_file(vectors: Path) -> None:
    data = (vectors / "se" / "pvattest-exchange-full.bin").read_bytes()
    assert Exchange.parse(data).encode() == data
    assert tee.show("se", data)["cuid"] == "14" * 16


# JSON


def test_members_come_back(world: Any) -> None:
    response = world.response()
    text = json.dumps(json_form.to_json(response)).encode()
    assert json_form.parse(text) == response
    assert (
        json_form.parse(b" \n" + json.dumps(dict(reversed(json_form.to_json(response).items())), indent=1).encode())
        == response
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("measurement", "AAAA"),
        ("measurement", ""),
        ("cuid", "AAAA"),
        ("image_hdr_tags", "AAAA"),
        ("user_data", "A" * 344),
        ("additional_data", "A" * 43692),
        ("user_data", "AA"),
        ("user_data", "AB=="),
        ("user_data", "AA-_"),
        ("user_data", 'AA"A'),
        ("user_data", None),
        ("user_data", [1]),
        ("more", ""),
    ],
)
def test_members_out_of_bounds(world: Any, name: str, value: object) -> None:
    text = json.dumps(json_form.to_json(world.response()) | {name: value}).encode()
    with pytest.raises(MalformedEvidence):
        json_form.parse(text)


def test_missing_and_double_members(world: Any) -> None:
    value = json_form.to_json(world.response())
    for name in json_form.NAMES:
        without = {own: text for own, text in value.items() if own != name}
        with pytest.raises(MalformedEvidence):
            json_form.parse(json.dumps(without).encode())
        twice = json.dumps(value).replace(f'"{name}":', f'"{name}": "AAAA", "{name}":', 1)
        with pytest.raises(MalformedEvidence, match="same name"):
            json_form.parse(twice.encode())


def test_too_large() -> None:
    with pytest.raises(MalformedEvidence) as caught:
        json_form.parse(b"{" + b" " * json_form.MAX_SIZE)
    assert caught.value.code == "evidence_too_large"


def test_what_cannot_be_written(world: Any) -> None:
    import msgspec

    for missing in ("tags", "sealed"):
        with pytest.raises(ValueError, match="JSON form"):
            json_form.to_json(msgspec.structs.replace(world.response(), **{missing: None}))
