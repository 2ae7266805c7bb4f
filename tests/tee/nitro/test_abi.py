from __future__ import annotations

from contextlib import suppress
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton import tee
from adyton.devtee.cose_signing import Envelope, resigned, sign1
from adyton.devtee.nitro import pcrs
from adyton.errors import MalformedEvidence
from adyton.tee.nitro import abi
from adyton.wire import cbor

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no module": ({"module_id": ...}, "payload"),
    "no digest": ({"digest": ...}, "payload"),
    "no registers": ({"pcrs": ...}, "payload"),
    "no bundle": ({"cabundle": ...}, "payload"),
    "a member more": ({"extra": 1}, "payload"),
    "empty module": ({"module_id": ""}, "module_id"),
    "module in bytes": ({"module_id": b"i-1"}, "module_id"),
    "long module": ({"module_id": "i" * 257}, "module_id"),
    "another digest": ({"digest": "SHA256"}, "digest"),
    "digest in small letters": ({"digest": "sha384"}, "digest"),
    "time of zero": ({"timestamp": 0}, "timestamp"),
    "time before time": ({"timestamp": -1}, "timestamp"),
    "time after all time": ({"timestamp": 2**63}, "timestamp"),
    "time just after all time": ({"timestamp": 253402300800000}, "timestamp"),
    "time in text": ({"timestamp": "1"}, "timestamp"),
    "true for a time": ({"timestamp": True}, "timestamp"),
    "registers in a list": ({"pcrs": [bytes(48)]}, "pcrs"),
    "register 32": ({"pcrs": pcrs(pcr32=bytes(48))}, "pcrs"),
    "register -1": ({"pcrs": pcrs() | {-1: bytes(48)}}, "pcrs"),
    "register in text": ({"pcrs": pcrs() | {"0": bytes(48)}}, "pcrs"),
    "no register 0": ({"pcrs": {number: bytes(48) for number in range(1, 16)}}, "pcrs"),
    "no register 2": ({"pcrs": {0: bytes(48), 1: bytes(48)}}, "pcrs"),
    "no register at all": ({"pcrs": {}}, "pcrs"),
    "register of 32 bytes": ({"pcrs": pcrs(pcr5=bytes(32))}, "pcrs"),
    "registers of 32 bytes": ({"pcrs": {number: bytes(32) for number in range(16)}}, "pcrs"),
    "register of 49 bytes": ({"pcrs": pcrs(pcr0=bytes(49))}, "pcrs"),
    "register without value": ({"pcrs": pcrs() | {7: None}}, "pcrs"),
    "empty leaf": ({"certificate": b""}, "certificate"),
    "long leaf": ({"certificate": bytes(1025)}, "certificate"),
    "no leaf": ({"certificate": None}, "certificate"),
    "empty bundle": ({"cabundle": []}, "cabundle"),
    "no bundle given": ({"cabundle": None}, "cabundle"),
    "bundle of nine": ({"cabundle": [b"x"] * 9}, "cabundle"),
    "bundle with an empty one": ({"cabundle": [b"x", b""]}, "cabundle"),
    "bundle with a long one": ({"cabundle": [bytes(1025)]}, "cabundle"),
    "bundle of text": ({"cabundle": ["x"]}, "cabundle"),
    "long public key": ({"public_key": bytes(1025)}, "public_key"),
    "empty public key": ({"public_key": b""}, "public_key"),
    "public key in text": ({"public_key": "k"}, "public_key"),
    "long user data": ({"user_data": bytes(513)}, "user_data"),
    "user data in a list": ({"user_data": [1]}, "user_data"),
    "long nonce": ({"nonce": bytes(513)}, "nonce"),
    "nonce as a number": ({"nonce": 7}, "nonce"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_members(name: str, nitro: Any) -> None:
    changes, field = WRONG[name]
    document = nitro.forge.document(**changes)
    for call in (abi.parse, nitro.verify, lambda data: tee.show("nitro", data)):
        with pytest.raises(MalformedEvidence) as caught:
            call(document)
        assert caught.value.field == field
        assert caught.value.code == f"malformed_{field}"


@pytest.mark.parametrize(
    ("envelope", "field"),
    [
        (Envelope(algorithm=-7), "alg"),
        (Envelope(algorithm=-36), "alg"),
        (Envelope(algorithm=-65535), "alg"),
        (Envelope(algorithm=0), "alg"),
        (Envelope(protected=b""), "cose"),
        (Envelope(protected=cbor.encode({})), "cose"),
        (Envelope(protected=cbor.encode({1: -35, 2: [1]})), "cose"),
        (Envelope(protected=bytes.fromhex("a2013822013822")), "cose"),
        (Envelope(unprotected={4: b"kid"}), "unprotected"),
        (Envelope(unprotected={1: -35}), "cose"),
        (Envelope(tag=17), "cose"),
        (Envelope(tag=399), "cose"),
    ],
)
def test_wrong_envelopes(envelope: Envelope, field: str, nitro: Any) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        nitro.verify(nitro.forge.document(envelope=envelope))
    assert caught.value.field == field


def test_every_prefix_and_a_tail_are_malformed(nitro: Any) -> None:
    document = nitro.forge.document()
    for end in range(0, len(document), 7):
        with pytest.raises(MalformedEvidence):
            abi.parse(document[:end])
    for tail in (b"\0", b"\xff", document):
        with pytest.raises(MalformedEvidence):
            abi.parse(document + tail)
    with pytest.raises(MalformedEvidence) as caught:
        abi.parse(document + bytes(abi.MAX_SIZE))
    assert caught.value.code == "malformed_size"
    with pytest.raises(MalformedEvidence) as caught:
        abi.parse(resigned(document, bytes(95)))
    assert caught.value.field == "signature"


def test_duplicate_keys_and_inner_open_containers_are_malformed(nitro: Any) -> None:
    """Two readers of one document must not see two different ones."""
    payload = cbor2.dumps(nitro.forge.payload())
    twice = b"\xaa" + payload[1:] + cbor2.dumps("digest") + cbor2.dumps("SHA384")
    opened = b"\xbf" + payload[1:] + b"\xff"
    inner = payload.replace(b"\x64pcrs\xb0", b"\x64pcrs\xbf")
    inner = inner.replace(b"\x6bcertificate", b"\xff\x6bcertificate")
    assert cbor2.loads(inner) == cbor2.loads(payload)
    for wrong in (
        twice,
        inner,
        b"\xbf" + inner[1:] + b"\xff",
        opened + b"\xff",
        b"\x81" + payload,
        b"\xa0",
        b"\x80",
        b"",
    ):
        with pytest.raises(MalformedEvidence) as caught:
            abi.parse(sign1(nitro.forge.keys[-1], wrong))
        assert caught.value.field == "payload"


def test_what_a_document_says(nitro: Any) -> None:
    forge = nitro.forge
    document = forge.document(
        public_key=b"key",
        user_data=b"",
        nonce=b"n" * 512,
        pcrs=pcrs(pcr31=b"\x31" * 48),
        open_map=True,
        envelope=Envelope(tag=18),
    )
    parsed = abi.parse(document)
    assert parsed.encode() == document
    assert parsed.message.tagged
    assert (parsed.public_key, parsed.user_data, parsed.nonce) == (b"key", b"", b"n" * 512)
    assert parsed.pcrs[31] == b"\x31" * 48
    assert parsed.time == nitro.now
    assert parsed.cabundle == tuple(forge.bundle)
    assert abi.parse(forge.document(public_key=..., user_data=..., nonce=...)).nonce is None


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    for document in (data, b"\x84\x44\xa1\x01\x38\x22\xa0" + cbor.byte_string(data) + cbor.byte_string(bytes(96))):
        with suppress(MalformedEvidence):
            assert abi.parse(document).encode() == document


members = st.sampled_from(sorted(abi._MEMBERS)) | st.text(max_size=8)
anything = (
    st.none()
    | st.integers()
    | st.binary(max_size=60)
    | st.text(max_size=10)
    | st.lists(st.binary(max_size=8), max_size=4)
)


@given(
    st.dictionaries(
        members, anything | st.dictionaries(st.integers(0, 40), st.binary(min_size=48, max_size=48), max_size=20)
    )
)
def test_any_payload(payload: dict[str, Any]) -> None:
    document = b"\x84\x44\xa1\x01\x38\x22\xa0" + cbor.byte_string(cbor2.dumps(payload)) + cbor.byte_string(bytes(96))
    with suppress(MalformedEvidence):
        assert abi.parse(document).encode() == document
