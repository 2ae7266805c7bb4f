"""The host's certificate table: it comes from an untrusted host."""

from __future__ import annotations

import struct
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.attesters import cert_table
from adyton.errors import MalformedEvidence

NAMES = sorted(cert_table.GUIDS.values())


def entry(name: str, offset: int, length: int, *, little: bool = False) -> bytes:
    guid = uuid.UUID(next(text for text, known in cert_table.GUIDS.items() if known == name))
    return struct.pack("<16sII", guid.bytes_le if little else guid.bytes, offset, length)


@pytest.mark.parametrize(
    "table",
    [
        entry("VCEK", 48, 10) + bytes(24) + b"x" * 9,
        entry("VCEK", 0xFFFFFFFF, 0xFFFFFFFF) + bytes(24),
        entry("VCEK", 24, 4) + b"abcd",
        entry("VCEK", 72, 2) + entry("VCEK", 72, 2, little=True) + bytes(24) + b"ab",
        b"\x01" * 23,
        bytes(cert_table.MAX_SIZE + 1),
    ],
    ids=["beyond", "huge", "endless", "twice", "stub", "too large"],
)
def test_broken_tables_are_refused(table: bytes) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        cert_table.parse(table)
    assert caught.value.code == "certificate_table_malformed"


def test_either_byte_order_and_unknown_entries() -> None:
    unknown = struct.pack("<16sII", b"\x07" * 16, 96, 3)
    table = entry("VLEK", 96, 3, little=True) + unknown + entry("ASK", 99, 2) + bytes(24) + b"abcde"
    assert cert_table.parse(table) == [("VLEK", b"abc"), ("ASK", b"de")]


def test_no_table_is_no_certificates() -> None:
    assert cert_table.parse(b"") == []
    assert cert_table.parse(bytes(4096)) == []


@given(st.dictionaries(st.sampled_from(NAMES), st.binary(min_size=1, max_size=50)))
def test_what_is_written_is_read(certificates: dict[str, bytes]) -> None:
    listed = list(certificates.items())
    assert cert_table.parse(cert_table.write(listed)) == listed


@given(st.binary(max_size=200))
def test_garbage_gives_one_error(data: bytes) -> None:
    try:
        cert_table.parse(data)
    except MalformedEvidence as error:
        assert error.field == "certs"
