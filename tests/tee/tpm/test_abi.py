"""Structures on the wire: what must be refused, and that the rest encodes to itself."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tee.tpm.building import NONCE

from adyton.devtee.tpm import QuoteFields, SoftTpm
from adyton.errors import MalformedEvidence, UnsupportedEvidence
from adyton.tee.tpm.abi import Attest, Attributes, PublicArea, Signature, pcrs_of, tpm2b


def code_of(parse: object, data: bytes) -> str:
    with pytest.raises(MalformedEvidence) as caught:
        parse(data)  # type: ignore[operator]
    return caught.value.code


def test_every_beginning_of_a_structure_is_malformed(tpm: SoftTpm) -> None:
    message, signature = tpm.quote(QuoteFields(extra_data=NONCE))
    area = tpm.public_area()
    for parse, whole in ((Attest.parse, message), (PublicArea.parse, area)):
        for end in range(len(whole)):
            code_of(parse, whole[:end])
        code_of(parse, whole + b"\0")
    for end in range(4, len(signature)):
        code_of(Signature.parse, signature[:end])
    assert code_of(Signature.parse, b"\0\x14\0") == "signature_short"
    assert code_of(Signature.parse, signature + b"\0") == "signature_tail"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tail": b"\0"}, "attest_tail"),
        ({"safe": 2}, "attest_safe"),
        ({"bitmap_size": 9}, "attest_selection"),
        ({"selections": (("sha256", (24,)),), "bitmap_size": 4}, "attest_selection"),
    ],
)
def test_odd_fields_are_malformed(tpm: SoftTpm, changes: dict[str, object], code: str) -> None:
    fields = {"extra_data": NONCE, "pcr_digest": bytes(32), **changes}
    tpm.pcrs["sha256"].append(bytes(32))  # so that a 25th can be selected
    assert code_of(Attest.parse, tpm.attest(QuoteFields(**fields))) == code  # type: ignore[arg-type]


def test_too_many_banks_and_unknown_ones_are_malformed(tpm: SoftTpm) -> None:
    message = tpm.attest(QuoteFields(extra_data=NONCE))
    at = message.index(struct.pack(">IHB", 1, 0x000B, 3))
    assert code_of(Attest.parse, message[:at] + struct.pack(">I", 17) + message[at + 4 :]) == "attest_selection"
    assert code_of(Attest.parse, message[: at + 4] + b"\0\x99" + message[at + 6 :]) == "attest_selection"


def test_unknown_hashes_and_kinds_are_malformed(tpm: SoftTpm) -> None:
    signature = tpm.sign(b"")
    assert code_of(Signature.parse, signature[:2] + b"\0\x99" + signature[4:]) == "signature_hash"
    area = tpm.public_area()
    assert code_of(PublicArea.parse, b"\0\x08" + area[2:]) == "public_kind"
    assert code_of(PublicArea.parse, area[:2] + b"\0\x99" + area[4:]) == "public_kind"


def test_a_key_that_cannot_be_is_malformed(tpm: SoftTpm) -> None:
    area = PublicArea.parse(tpm.public_area())
    with pytest.raises(MalformedEvidence, match="not a key"):
        area._replace(bits=2047).key()
    point = PublicArea.parse(SoftTpm.new("secp256r1").public_area())
    with pytest.raises(MalformedEvidence, match="not a key"):
        point._replace(curve=99).key()
    with pytest.raises(MalformedEvidence, match="not a key"):
        point._replace(unique=(b"\1", b"\1")).key()


@pytest.mark.parametrize("tpm", ["rsa", "secp256r1", "secp384r1"], indirect=True)
def test_a_public_area_gives_the_key_back(tpm: SoftTpm) -> None:
    for encoded in (tpm.public_area(), tpm2b(tpm.public_area())):
        area = PublicArea.parse(encoded)
        assert area.key() == tpm.key.public_key()
        assert Attributes.RESTRICTED in area.attributes
        assert len(area.name) == 34


def test_a_symmetric_algorithm_and_a_key_without_scheme_are_read(tpm: SoftTpm) -> None:
    # As storage keys have them: AES-128-CFB, no scheme
    area = tpm.public_area()
    at = 4 + 4 + 2
    changed = area[:at] + struct.pack(">HHHH", 0x0006, 128, 0x0043, 0x0010) + area[at + 6 :]
    assert PublicArea.parse(changed).scheme == 0x0010
    assert PublicArea.parse(changed).scheme_hash is None


@pytest.mark.parametrize("tpm", ["rsa", "secp256r1", "secp384r1"], indirect=True)
def test_quotes_and_signatures_encode_to_themselves(tpm: SoftTpm) -> None:
    message, signature = tpm.quote(QuoteFields(extra_data=NONCE, selections=(("sha256", (15, 16, 22)), ("sha1", (0,)))))
    assert Attest.parse(message).encode() == message
    assert Signature.parse(signature).encode() == signature
    assert [s.pcrs for s in Attest.parse(message).selections] == [(15, 16, 22), (0,)]


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_value_or_malformed(data: bytes) -> None:
    for parse, head in (
        (Attest.parse, bytes.fromhex("ff5443478018")),
        (Signature.parse, b"\0\x18\0\x0b"),
        (PublicArea.parse, b""),
    ):
        for candidate in (data, head + data):
            try:
                value = parse(candidate)
            except (MalformedEvidence, UnsupportedEvidence):
                continue
            assert isinstance(value, PublicArea) or value.encode() == candidate


@given(st.binary(max_size=6))
def test_a_bitmap_is_its_pcrs(bitmap: bytes) -> None:
    assert sum(1 << number for number in pcrs_of(bitmap)).to_bytes(len(bitmap), "little") == bitmap
