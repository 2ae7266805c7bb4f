"""Reports as bytes: what is refused, what re-encodes; then CoCo's JSON."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton import tee
from adyton.devtee.nvidia import NvidiaForge, ReportFields, body, gpu_opaque
from adyton.errors import MalformedEvidence
from adyton.tee.nvidia import abi, json_form, opaque
from adyton.tee.nvidia.json_form import Device

SIGNATURE = bytes(96)
REPORT = body(ReportFields(opaque=gpu_opaque())) + SIGNATURE
RECORD_END = 45 + 64 * 55


def test_every_prefix_is_malformed() -> None:
    for size in [*range(0, len(REPORT), 61), len(REPORT) - 1]:
        with pytest.raises(MalformedEvidence):
            abi.parse(REPORT[:size])


def test_nothing_may_follow() -> None:
    with pytest.raises(MalformedEvidence):
        abi.parse(REPORT + b"\0")
    with pytest.raises(MalformedEvidence, match="larger"):
        abi.parse(REPORT + bytes(abi.MAX_SIZE))


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, 0x12),  # SPDM 1.2
        (1, 0x60),
        (2, 0x00),  # no signature asked for
        (3, 0x01),  # one measurement only
        (36, 0x08),  # a slot that there is not
        (36, 0x01),  # the response names another
        (37, 0x12),
        (38, 0x7F),  # an error in a response's place
        (41, 0x00),  # no blocks
        (41, 0x3F),
        (41, 0x41),
        (42, 0xFF),
        (44, 0xFF),  # a record of 16 MB
        (45, 0x00),  # index 0
        (45, 0xFF),
        (45, 0x02),  # index 2 twice
        (46, 0x02),  # another specification
        (47, 0x32),
        (50, 0x2F),
        (RECORD_END + 32, 0xFF),
        (RECORD_END + 33, 0xFF),
        (RECORD_END + 36, 0xFF),  # size of the first opaque field
    ],
)
def test_one_wrong_byte_of_structure(at: int, value: int) -> None:
    changed = bytearray(REPORT)
    assert changed[at] != value
    changed[at] = value
    with pytest.raises(MalformedEvidence) as caught:
        abi.parse(bytes(changed))
    assert caught.value.code == "report_malformed"


def test_an_opaque_field_twice_or_cut_off() -> None:
    start, end = REPORT[: RECORD_END + 32], REPORT[-96:]
    for fields in (b"\x03\0\0\0\x03\0\0\0", b"\x03\0\0", b"\x03\0\1\0"):
        with pytest.raises(MalformedEvidence):
            abi.parse(start + len(fields).to_bytes(2, "little") + fields + end)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (3, b"550.90.07\n"),
        (3, b"\xff\xfe"),
        (6, b"96 10"),
        (11, b"\x56"),
        (11, b"\x55\x55"),
        (12, bytes(3)),
        (12, bytes(255 * 4)),
        (20, bytes(47)),
        (22, bytes(9)),
        (34, b""),
        (36, bytes(9)),
    ],
)
def test_opaque_fields_that_are_not_of_their_type(kind: int, data: bytes) -> None:
    report = abi.parse(body(ReportFields(opaque={**gpu_opaque(), kind: data})) + SIGNATURE)
    with pytest.raises(MalformedEvidence) as caught:
        opaque.read(report)
    assert caught.value.code == "opaque_malformed"
    with pytest.raises(MalformedEvidence):
        tee.show("nvidia", report.encode())


def test_what_opaque_fields_say() -> None:
    fields = {
        **gpu_opaque(nvdec0=b"\xaa"),
        22: bytes(16),
        34: b"\1\0",
        36: b"\2\0",
        35: b"GB202\0",
        77: b"\1\2",
        4: b"\3",
        5: b"",
    }
    said = opaque.read(abi.parse(body(ReportFields(opaque=fields)) + SIGNATURE))
    assert (said.driver_version, said.vbios_version, said.nvdec0_status) == ("550.90.07", "96.00.9F.00.01", "enabled")
    assert said.config["vbios_version"] == "96.00.9f.00.01"
    assert said.config["switch_pdi"] == ["00" * 8] * 2
    assert (said.feature, said.config["opaque_data_version"], said.config["chip_info"]) == ("PPCIE", 1, "GB202")
    assert (said.config["opaque_77"], said.config["gpu_info"], said.config["id_sku"]) == ("0102", "03", "")
    assert said.config["measurement_count"] == {str(index): 0 for index in range(1, 65)}
    unknown = opaque.read(abi.parse(body(ReportFields(opaque={36: b"\7"})) + SIGNATURE))
    assert (unknown.feature, unknown.driver_version, unknown.vbios_version) == ("unknown", None, None)


def test_measurements_of_any_length_re_encode() -> None:
    mixed = ReportFields(measurements={1: bytes(48), 2: bytes(32), 200: b"x"}, opaque=gpu_opaque(), kind=0x81)
    data = body(mixed) + SIGNATURE
    report = abi.parse(data)
    assert report.encode() == data
    assert [(index, kind) for index, kind, _ in report.blocks] == [(1, 0x81), (2, 0x81), (200, 0x81)]


def test_real_reports_re_encode(nvidia: Path) -> None:
    found = sorted(nvidia.glob("*.spdm"))
    assert found
    for path in found:
        assert abi.parse(path.read_bytes()).encode() == path.read_bytes()


@given(st.binary(max_size=400) | st.binary(max_size=200).map(lambda tail: REPORT[:45] + tail))
def test_any_bytes_are_a_report_or_malformed(data: bytes) -> None:
    try:
        report = abi.parse(data)
    except MalformedEvidence:
        return
    assert report.encode() == data


@given(st.integers(0, len(REPORT) - 1), st.integers(0, 255))
def test_any_changed_byte_is_a_report_or_malformed(at: int, value: int) -> None:
    changed = REPORT[:at] + bytes((value,)) + REPORT[at + 1 :]
    try:
        report = abi.parse(changed)
        opaque.read(report)
    except MalformedEvidence:
        return
    assert report.encode() == changed


# JSON

PEM = b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"


def document(**changes: object) -> bytes:
    device: dict[str, object] = {
        "arch": "HOPPER",
        "evidence": base64.b64encode(REPORT).decode(),
        "certificate": base64.b64encode(PEM).decode(),
    }
    device |= changes
    return json.dumps({"device_evidence_list": [{k: v for k, v in device.items() if v is not ...}]}).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"arch": "AMPERE"},
        {"arch": "hopper"},
        {"arch": None},
        {"arch": ...},
        {"evidence": ...},
        {"certificate": ...},
        {"evidence": "11e0 01"},
        {"evidence": "11e001f"},
        {"evidence": "EeAB/w"},
        {"evidence": 7},
        {"certificate": "LS0t\n"},
        {"certificate": ""},
        {"uuid": "x" * 129},
        {"uuid": "a\nb"},
        {"uuid": 'a"b'},
        {"uuid": 5},
        {"more": "x"},
    ],
)
def test_json_that_is_not_cocos(changes: dict[str, object]) -> None:
    if changes == {"certificate": ""}:  # no certificates: those among the endorsements will do
        assert json_form.parse(document(**changes))[0].pem == b""
        return
    with pytest.raises(MalformedEvidence):
        tee.show("nvidia", document(**changes))


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b'{"device_evidence_list": []}',
        b'{"device_evidence_list": {}}',
        b'{"device_evidence_list": [], "device_evidence_list": []}',
        b"{" * 5000,
        b" ",
        b'{"device_evidence_list": [1]}',
    ],
)
def test_json_of_another_shape(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        json_form.parse(data)


def test_json_with_a_member_twice() -> None:
    for name in ("arch", "uuid", "evidence", "certificate"):
        twice = document(uuid="u").replace(f'"{name}"'.encode(), f'"{name}": "HOPPER", "{name}"'.encode(), 1)
        with pytest.raises(MalformedEvidence):
            json_form.parse(twice)


def test_json_with_too_much() -> None:
    with pytest.raises(MalformedEvidence, match="devices"):
        json_form.parse(
            json.dumps({"device_evidence_list": json.loads(document())["device_evidence_list"] * 33}).encode()
        )
    with pytest.raises(MalformedEvidence) as caught:
        json_form.parse(document() + b" " * json_form.MAX_SIZE)
    assert caught.value.code == "evidence_too_large"
    with pytest.raises(ValueError, match="devices"):
        json_form.to_json(())


def test_json_in_hex_or_base64_with_or_without_uuid() -> None:
    for evidence in (REPORT.hex(), REPORT.hex().upper(), base64.b64encode(REPORT).decode()):
        assert json_form.parse(document(evidence=evidence)) == (Device(REPORT, PEM, "HOPPER"),)
    assert json_form.parse(document(arch="Blackwell", uuid="GPU-1")) == (Device(REPORT, PEM, "BLACKWELL", "GPU-1"),)


def test_json_round_trip(forge: NvidiaForge) -> None:
    devices = (Device(forge.report(), forge.pem, "HOPPER", "GPU-1"), Device(forge.report(), forge.pem, "LS10"))
    assert json_form.parse(json_form.to_json(devices)) == devices


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: document(uuid=text)))
def test_any_bytes_are_json_evidence_or_malformed(data: bytes) -> None:
    try:
        devices = json_form.parse(data)
    except MalformedEvidence:
        return
    assert json_form.parse(json_form.to_json(devices)) == devices
