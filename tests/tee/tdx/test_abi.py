"""TDREPORT: 1024 bytes that encode to themselves, whatever they say; what they say is believed nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.errors import MalformedEvidence
from adyton.tee.tdx.abi import TdReport


@pytest.mark.parametrize("size", [0, 1, 584, 1023, 1025, 2048])
def test_another_length(size: int) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        TdReport.parse(bytes(size))
    assert caught.value.code == "tdreport_length"


@given(st.binary(min_size=1024, max_size=1024))
def test_any_1024_bytes(raw: bytes) -> None:
    assert TdReport.parse(raw).encode() == raw


def test_a_field_of_the_wrong_length() -> None:
    with pytest.raises(ValueError, match="length"):
        TdReport(mrtd=b"").encode()


def test_the_hashes_under_the_mac() -> None:
    report = TdReport(mrtd=b"\1" * 48, tee_tcb_svn=b"\2" * 16, td_attributes=b"\1" + bytes(7))
    assert not report.hashes_hold
    raw = report.encode()
    whole = msgspec.structs.replace(
        report,
        tee_tcb_info_hash=hashlib.sha384(raw[256:495]).digest(),
        td_info_hash=hashlib.sha384(raw[512:]).digest(),
    )
    assert whole.hashes_hold
    assert (whole.is_td, whole.debug) == (True, True)
    assert not msgspec.structs.replace(whole, mrtd=bytes(48)).hashes_hold
    assert not TdReport(report_type=bytes(4)).is_td


def test_the_public_sample_begins_48_bytes_late(vectors: Path) -> None:
    """It has the length of a TDREPORT and lacks its first 48 bytes: read, and told to make no sense."""
    raw = (vectors / "tdx" / "tdreport-v1.bin").read_bytes()
    report = TdReport.parse(raw)
    assert report.encode() == raw
    assert (report.is_td, report.hashes_hold) == (False, False)
    moved = bytes(48) + raw[:-48]
    assert TdReport.parse(moved).mrtd == raw[0x1E0:0x210]
