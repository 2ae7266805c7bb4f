"""Quotes and bodies: any bytes are one that encodes to itself, or malformed; every length is looked at."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tee.dcap.conftest import Lab

from adyton.devtee.dcap import DcapForge, sgx_body, td_body
from adyton.errors import MalformedEvidence
from adyton.tee.dcap.bodies import SgxBody, TdBody, TdExtension
from adyton.tee.dcap.quote import Quote, QuoteHeader


def refused(data: bytes) -> str:
    with pytest.raises(MalformedEvidence) as caught:
        Quote.parse(data)
    assert caught.value.spec
    return caught.value.code


def body_of(kind: str) -> SgxBody | TdBody:
    if kind == "td15ext":
        return msgspec.structs.replace(td_body(td15=True), extension=TdExtension(vm_id=7, td_id=b"\3" * 32))
    return sgx_body() if kind == "sgx" else td_body(td15=kind == "td15")


SHAPES = [("sgx", 3), ("sgx", 4), ("sgx", 5), ("td10", 4), ("td10", 5), ("td15", 5), ("td15ext", 5)]


@pytest.fixture(params=SHAPES, ids=lambda shape: f"{shape[0]}-v{shape[1]}")
def quote(request: pytest.FixtureRequest, forge: DcapForge) -> Quote:
    kind, version = request.param
    return forge.quote(body_of(kind), version=version, tail=b"tail")


def test_every_prefix_is_malformed(quote: Quote) -> None:
    whole = msgspec.structs.replace(quote, tail=b"").encode()
    for end in [*range(0, 1300, 7), *range(1300, len(whole), 97), len(whole) - 1]:
        refused(whole[:end])


def test_every_length_is_looked_at(quote: Quote) -> None:
    whole = quote.encode()
    ends = {
        quote.signed_size: "<I",
        quote.qe_report_offset + 448: "<H",
        quote.qe_report_offset + 450 + len(quote.qe_auth_data) + 2: "<I",
    }
    if quote.header.version > 3:
        ends[quote.qe_report_offset - 4] = "<I"
    if quote.header.version > 4:
        ends[50] = "<I"
    for offset, form in ends.items():
        (value,) = struct.unpack_from(form, whole, offset)
        largest = 0xFFFF if form == "<H" else 0xFFFFFFFF
        for wrong in {0, 1, value - 1, value + 1, largest, largest // 2} - {value}:
            data = bytearray(whole)
            struct.pack_into(form, data, offset, wrong)
            refused(bytes(data))


def test_types_are_looked_at(quote: Quote) -> None:
    whole = quote.encode()
    for version in (0, 1, 2, 6, 0xFFFF):
        assert refused(struct.pack("<H", version) + whole[2:]) == "version"
    for key_type in (0, 1, 3, 0xFFFF):
        assert refused(whole[:2] + struct.pack("<H", key_type) + whole[4:]) == "attestation_key_type"
    assert refused(whole[:4] + struct.pack("<I", 0x82) + whole[8:]) == "tee_type"
    if quote.header.version == 3:
        assert refused(whole[:4] + struct.pack("<I", 0x81) + whole[8:]) == "tee_type"
    if quote.header.version > 3:
        outer = quote.qe_report_offset - 6
        assert refused(whole[:outer] + b"\5" + whole[outer + 1 :]) == "qe_report_certification"
    if quote.header.version > 4:
        for kind in {0, 1, 2, 3, 4, 5} - {quote.body_type}:
            assert refused(whole[:48] + struct.pack("<H", kind) + whole[50:]) == "body_type"


def test_encoded_again_it_is_the_same(quote: Quote) -> None:
    whole = quote.encode()
    again = Quote.parse(whole)
    assert again == quote
    assert again.encode() == whole
    assert again.signed_bytes == whole[: again.signed_size]
    assert again.size == len(whole) - 4
    offset = again.qe_report_offset
    assert again.qe_report.encode() == whole[offset : offset + 384]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_change_parses_to_itself_or_is_malformed(data: st.DataObject) -> None:
    whole = bytearray(_SAMPLES[data.draw(st.integers(0, len(_SAMPLES) - 1))])
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, min(len(whole) - 1, 1400)))] = data.draw(st.integers(0, 255))
    raw = bytes(whole)[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else bytes(whole)
    try:
        quote = Quote.parse(raw)
    except MalformedEvidence:
        return
    assert quote.encode() == raw


@given(st.binary(max_size=2000))
def test_any_bytes(raw: bytes) -> None:
    parsers: tuple[Callable[[bytes], Quote | SgxBody | TdBody], ...] = (Quote.parse, SgxBody.parse, TdBody.parse)
    for parse in parsers:
        with contextlib.suppress(MalformedEvidence):
            assert parse(raw).encode() == raw


def _samples() -> list[bytes]:
    from tests.tee.dcap.conftest import NOW

    forge = DcapForge.new(NOW)
    return [forge.quote(body_of(kind), version=version, tail=b"x").encode() for kind, version in SHAPES]


_SAMPLES = _samples()


def test_fields_that_do_not_fit_are_the_callers_mistake(lab: Lab) -> None:
    quote = lab.quote("td15")
    for wrong in (
        msgspec.structs.replace(quote, signature=b""),
        msgspec.structs.replace(quote, attestation_key=bytes(65)),
        msgspec.structs.replace(quote, qe_auth_data=bytes(0x10000)),
        msgspec.structs.replace(quote, header=QuoteHeader(user_data=b"")),
        msgspec.structs.replace(quote, header=QuoteHeader(version=70000)),
        msgspec.structs.replace(quote, body=TdBody(mrtd=b"")),
        msgspec.structs.replace(quote, body=TdBody(mrservicetd=bytes(48))),
        msgspec.structs.replace(quote, qe_report=SgxBody(isvsvn=70000)),
        msgspec.structs.replace(quote, qe_report=SgxBody(mrenclave=bytes(31))),
    ):
        with pytest.raises(ValueError, match=r"length|range|both"):
            wrong.encode()


def test_what_bits_mean() -> None:
    assert SgxBody(attributes=b"\2" + bytes(15)).debug
    assert not SgxBody().debug
    assert SgxBody(attributes=b"\x97" + bytes(15)).flags == 0x97
    assert TdBody(td_attributes=b"\1" + bytes(7)).debug
    assert TdBody(td_attributes=bytes(7) + b"\x80").attributes == 1 << 63


def test_every_real_quote_encodes_to_itself(vectors: Path) -> None:
    found = sorted(vectors.glob("*/quotes/*.bin")) + sorted(vectors.glob("dcap-synthetic/*.bin"))
    assert len(found) >= 50
    for path in found:
        raw = path.read_bytes()
        assert Quote.parse(raw).encode() == raw
