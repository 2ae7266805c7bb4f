from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton import tee
from adyton.devtee import csv as forging
from adyton.errors import MalformedEvidence
from adyton.tee.csv import abi
from adyton.tee.csv.abi import RAW_SIZES, CsvReport, GuestPolicy, unmask


@pytest.mark.parametrize(
    "size", sorted({0, 1, 335, 337, 2547, 2549, 1167, 1169, 3379, 3381, 4095, 4097, 4115, 4117, 5000})
)
def test_other_lengths(size: int) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        CsvReport.parse(bytes(size))
    assert caught.value.got == size


@pytest.mark.parametrize(
    ("magic", "flags"),
    [
        (bytes(16), 1),
        (bytes(16), 2),
        (abi.MAGIC, 2),
        (abi.MAGIC, 3),
        (abi.MAGIC, 2**32 - 1),
        (b"ATTESTATION_EXT ", 1),
        (b"attestation_ext\0", 1),
    ],
)
def test_unknown_marks_of_a_page(magic: bytes, flags: int) -> None:
    with pytest.raises(MalformedEvidence):
        CsvReport.parse(forging.wrapped(bytes(2548), magic=magic, flags=flags))


def test_a_page_has_its_length() -> None:
    with pytest.raises(MalformedEvidence):
        CsvReport.of_page(bytes(4095), magic=abi.MAGIC, flags=1)


@given(st.sampled_from(sorted(RAW_SIZES)), st.randoms(use_true_random=False))
def test_whatever_parses_encodes_to_itself(size: int, random: object) -> None:
    data = random.randbytes(size)  # type: ignore[attr-defined]  # of random.Random
    if size == abi.WRAPPED:
        data = abi.MAGIC + (1).to_bytes(4, "little") + data[20:]
    report = CsvReport.parse(data)
    assert report.encode() == data
    assert report.signed_bytes == report.info[: abi.SIGNED_SIZES[report.version]]


@given(st.binary(max_size=300))
def test_other_bytes_are_malformed(data: bytes) -> None:
    for read in (tee.show, None):
        with pytest.raises(MalformedEvidence):
            if read is None:
                CsvReport.parse(data)
            else:
                read("csv", data)


@given(st.integers(0, 60), st.binary(min_size=4, max_size=4))
def test_masking_twice_is_nothing(words: int, anonce: bytes) -> None:
    data = bytes(range(256))[: 4 * words]
    assert unmask(unmask(data, anonce), anonce) == data
    assert unmask(data, anonce) == forging.mask(data, anonce)
    assert unmask(data, b"") == data


def test_fields_of_version_1() -> None:
    forge = forging.CsvForge.new()
    fields = forging.CsvFields(
        user_pubkey_digest=b"\1" * 32,
        vm_id=b"\2" * 16,
        vm_version=b"\3" * 16,
        report_data=b"\4" * 64,
        mnonce=b"\5" * 16,
        measure=b"\6" * 32,
        policy=0x12345678,
    )
    pek = forge.pek_certificate
    report = CsvReport.parse(forge.report(fields, pek=pek))
    assert report.version == 1
    assert report.user_pubkey_digest == b"\1" * 32
    assert (report.vm_id, report.vm_version) == (b"\2" * 16, b"\3" * 16)
    assert (report.report_data, report.mnonce, report.measure) == (b"\4" * 64, b"\5" * 16, b"\6" * 32)
    assert (report.policy, report.usage, report.algorithm) == (0x12345678, 0x1002, 4)
    assert (report.anonce, report.registers, report.build) == (fields.anonce, (), None)
    assert report.signer is not None
    assert (report.signer.pek, report.signer.chip_serial) == (pek, "DEVTEE0001")


def test_fields_of_version_2_in_each_wrapping() -> None:
    forge = forging.CsvForge.new()
    registers = tuple(bytes([number]) * 32 for number in range(5))
    raw = forge.report(version=2, registers=registers, build=77, rtmr_version=1)
    assert len(raw) == 3380
    for data in (raw, forging.page(raw), forging.wrapped(raw), raw[:1168]):
        report = CsvReport.parse(data)
        assert (report.version, report.build, report.rtmr_version, report.anonce) == (2, 77, 1, b"")
        assert report.registers == registers
        assert report.encode() == data
        assert (report.signer is None) == (len(data) == 1168)


def test_a_bare_page_of_version_1() -> None:
    raw = forging.CsvForge.new().report()
    for data in (forging.page(raw), forging.wrapped(raw), forging.wrapped(raw, magic=bytes(16)), raw, raw[:336]):
        assert CsvReport.parse(data).version == 1


def test_policy_bits() -> None:
    assert GuestPolicy(0).debug_allowed
    assert not GuestPolicy(1).debug_allowed
    assert GuestPolicy(0x0201_54C5).fields() == {
        "nodbg": 1,
        "noks": 0,
        "es": 1,
        "nosend": 0,
        "domain": 0,
        "csv": 0,
        "csv3": 1,
        "asid_reuse": 1,
        "hsk_version": 4,
        "cek_version": 5,
        "api_major": 1,
        "api_minor": 2,
    }


@pytest.mark.parametrize(
    ("serial", "text"),
    [(b"NZA9", "NZA9"), (b"", ""), (b"\xff\1", None), (b"a\0b", None), (b"a\nb", None), ("\u00fc".encode(), None)],
)
def test_serial_numbers_are_printable_or_nothing(serial: bytes, text: str | None) -> None:
    assert abi.serial_text(serial.ljust(64, b"\0")) == text


@pytest.mark.vectors
def test_the_real_report(vectors: Path) -> None:
    data = (vectors / "csv" / "report.cert").read_bytes()
    report = CsvReport.parse(data)
    assert report.encode() == data
    assert CsvReport.parse(forging.page(data)).info == report.info
    assert tee.show("csv", data)["chip_serial"] == "NZA9T14052605"
