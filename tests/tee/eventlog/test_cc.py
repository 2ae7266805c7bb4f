"""CC event logs: the ACPI table, RTMRs, CoCo's entries and application events."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tee.eventlog.building import SHA384_ONLY, event, header

from adyton.devtee.tpm import efi_variable
from adyton.errors import EvidenceError, MalformedEvidence
from adyton.tee.eventlog import ccel, coco, device_paths, tagged
from adyton.tee.eventlog.banks import SHA256, SHA384, SHA512, SM3
from adyton.tee.eventlog.kinds import EVENT_TAG
from adyton.wire import b64

COCO_TEXT = tagged.ApplicationEvent("domain", "operation", "content")


def table(**changes: Any) -> bytes:
    fields = {"signature": b"CCEL", "length": 56, "kind": 2, **changes}
    raw = bytearray(
        struct.pack(
            "<4sIBB6s8sI4sIBBHQQ",
            *(fields["signature"], fields["length"], 1, 0, b"ADYTON", b"TEST    ", 1, b"TEST", 1),
            *(fields["kind"], 0, 0, 0x10000, 0x1000),
        )
    )
    raw[9] = -sum(raw) & 0xFF
    return bytes(raw)


def test_tables_that_cannot_be_are_malformed() -> None:
    for wrong in (b"", table()[:-1], table() + b"\0", table(signature=b"SSDT"), table(length=60)):
        with pytest.raises(MalformedEvidence) as caught:
            ccel.parse_table(wrong)
        assert caught.value.code == "ccel_table"
    broken = bytearray(table())
    broken[20] ^= 1
    with pytest.raises(MalformedEvidence):
        ccel.parse_table(bytes(broken))


def test_a_table_is_read(vectors: Path) -> None:
    assert ccel.parse_table(table()).minimum_length == 0x10000
    real = ccel.parse_table((vectors / "tdx" / "gcp-cos113" / "ccel-table.bin").read_bytes())
    assert ccel.CC_TYPES[real.cc_type] == "tdx"


def test_the_launch_measurement_cannot_be_extended() -> None:
    with pytest.raises(MalformedEvidence) as caught:
        ccel.parse(SHA384_ONLY + event(1, 4, b"") + event(0, 4, b""))
    assert caught.value.field == "event 1"
    ccel.parse(SHA384_ONLY + event(0, 3, b"information"))


def test_registers_that_differ_are_named() -> None:
    log = ccel.parse(SHA384_ONLY + event(1, 4, bytes(4)) + event(3, 0xD, b"kernel") + event(3, 0xD, b"initrd"))
    rtmrs = list(ccel.rtmrs(log))
    assert ccel.check_rtmrs(log, rtmrs, tee="tdx") == (1, 0, 2, 0)
    for number, changed in ((0, bytes(48)), (1, b"\1" * 48), (2, rtmrs[0]), (3, rtmrs[0])):
        wrong = list(rtmrs)
        wrong[number] = changed
        with pytest.raises(EvidenceError) as caught:
            ccel.check_rtmrs(log, wrong, tee="tdx")
        assert caught.value.code == "event_log_mismatch"
        assert str(caught.value.field).startswith(f"rtmr{number}")
        assert caught.value.tee == "tdx"
    with pytest.raises(ValueError, match="four"):
        ccel.check_rtmrs(log, rtmrs[:3], tee="tdx")


def test_sm3_logs_replay() -> None:
    listed = header((0x12, 32)) + event(2, 4, bytes(4), bank="sm3")
    value = SM3.new(bytes(32) + SM3.new(bytes(4)).digest()).digest()
    assert ccel.rtmrs(ccel.parse(listed), SM3)[1] == value
    (entry,) = coco.entries(ccel.parse(listed))
    digests: Any = entry
    assert digests["digests"] == [{"alg": "SM3", "digest": SM3.new(bytes(4)).digest().hex()}]


def test_cocos_application_events_hash_as_cocos_do() -> None:
    data = tagged.encode(COCO_TEXT)
    assert SHA256.new(data).digest().hex() == "46df8dacf00a07d34a83cdf56d7978697790787cf2ba1432ef7c38f22cd96351"
    assert (
        SHA384.new(data).digest().hex().startswith("dad5f0e226318ffa9839b75a472c6aa7fdb5834949d0a0a22990cf04d5692440")
    )
    assert (
        SHA512.new(data).digest().hex().startswith("b708d222ca8bd44dfe6ba0c4ca2cbb72379276fba8091025217064be45a813e5")
    )
    assert tagged.application_event(data) == COCO_TEXT
    parsed = ccel.parse(SHA384_ONLY + tagged.record(COCO_TEXT, 4))
    assert parsed.rows[0][1] == EVENT_TAG


@pytest.mark.parametrize(
    "event_of",
    [
        tagged.ApplicationEvent("", "op", "x"),
        tagged.ApplicationEvent("a b", "op", "x"),
        tagged.ApplicationEvent("a", "o p", "x"),
        tagged.ApplicationEvent("a", "op", "x\ny"),
    ],
)
def test_application_events_that_would_be_read_as_others_are_not_written(event_of: tagged.ApplicationEvent) -> None:
    with pytest.raises(ValueError, match=r"words|line"):
        tagged.encode(event_of)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 7, struct.pack("<II", tagged.AAEL_ID, 3) + b"a b", struct.pack("<II", 1, 5) + b"a b c",
     struct.pack("<II", tagged.AAEL_ID, 4) + b"a b c", struct.pack("<II", tagged.AAEL_ID, 2) + b"\xff\xff",
     struct.pack("<II", tagged.AAEL_ID, 4) + b" b c", struct.pack("<II", tagged.AAEL_ID, 7) + b"a b c\nd"],
)  # fmt: skip
def test_what_is_no_application_event_is_none(data: bytes) -> None:
    assert tagged.application_event(data) is None


def test_content_is_json_only_if_it_is() -> None:
    assert tagged.ApplicationEvent("a", "b", '{"k": 1}').value == {"k": 1}
    assert tagged.ApplicationEvent("a", "b", '{"k": 1').value == '{"k": 1'
    assert tagged.ApplicationEvent("a", "b", "17").value == "17"


def entries(log: bytes) -> list[dict[str, Any]]:
    found: Any = coco.entries(ccel.parse(log))
    return list(found)


def test_entries_of_a_real_log_are_those_of_cocos_verifier(vectors: Path) -> None:
    found = entries((vectors / "tdx" / "ccel" / "CCEL_data_grub.bin").read_bytes())
    assert len(found) == 37
    first, _, third = found[:3]
    assert first == {
        "index": 1,
        "type_name": "EV_EFI_HANDOFF_TABLES2",
        "digests": [{"alg": "SHA-384", "digest": first["digests"][0]["digest"]}],
        "digest_matches_event": False,
        "event": "CVRkeFRhYmxlAAEAAAAAAAAAr5a7k/K5uE6UYuC6dFZCNgCQgAAAAAAA",
        "details": {"string": "TdxTable"},
    }
    assert third["digest_matches_event"] is True
    assert third["details"] == {
        "unicode_name": "SecureBoot",
        "unicode_name_length": 10,
        "variable_data": "AQ==",
        "variable_data_length": 1,
        "variable_name": "61dfe48b-ca93-d211-aa0d-00e098032b8c",
    }
    types = {entry["type_name"] for entry in found}
    assert {"EV_SEPARATOR", "EV_EFI_GPT_EVENT", "EV_EVENT_TAG", "EV_IPL"} <= types
    paths = [entry["details"]["device_paths"] for entry in found if "device_paths" in entry["details"]]
    assert paths[0][-1] == "File(\\EFI\\BOOT\\BOOTX64.EFI)"
    assert paths[0][0] == "ACPI(PNP0A03,0)"
    texts = [entry["details"].get("string") for entry in found]
    assert "LOADED_IMAGE::LoadOptions" in texts
    assert "MokListTrusted" in texts


def test_entries_of_application_events() -> None:
    (plain,) = entries(SHA384_ONLY + tagged.record(COCO_TEXT, 4))
    assert plain["details"] == {
        "string": "domain operation content",
        "unicode_name": "AAEL",
        "data": {"domain": "domain", "operation": "operation", "content": "content"},
    }
    assert plain["digest_matches_event"] is True
    (forged,) = entries(SHA384_ONLY + event(4, EVENT_TAG, tagged.encode(COCO_TEXT), hashed=b"another"))
    assert forged["digest_matches_event"] is False


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (0xD, b"\x2e\0l\0i\0n\0u\0x\0\0\0", {"string": "linux"}),
        (0xD, b"grub_cmd set pager=1\0\0", {"string": "grub_cmd set pager=1"}),
        (0xD, b"\xff\xfe", {"string": "fffe"}),
        (0xD, b"\x2e\0\xff\xdf", {}),
        (0xA, b"etc/acpi/rsdp\0\0\0", {"string": "etc/acpi/rsdp"}),
        (0x1, b"ACPI DATA", {"string": "ACPI DATA"}),
        (0x1, b"\xff", {}),
        (0x8000000B, b"", {}),
        (0x8000000B, b"\x09TdxTable\0", {"string": "TdxTable"}),
        (0x8000000A, b"\x29short", {}),
        (0x80000001, b"short", {}),
        (0x80000001, efi_variable("x", b"")[:-1], {}),
        (0x80000003, b"short", {}),
        (0x80000003, bytes(32), {}),
        (0x80000003, bytes(24) + struct.pack("<Q", 9), {}),
        (6, b"short", {}),
        (6, struct.pack("<II", 1, 3) + b"a\0b", {"string": "ab"}),
        (0x12345678, b"anything", {}),
    ],
)
def test_details_by_type(kind: int, data: bytes, expected: dict[str, Any]) -> None:
    assert coco.details(kind, data) == expected
    (entry,) = entries(SHA384_ONLY + event(1, kind, data))
    assert entry["event"] == b64.encode(data)
    if kind == 0x12345678:
        assert entry["type_name"] == "0x12345678"


@pytest.mark.parametrize(
    "path",
    [b"\1", b"\1\1\3\0", b"\1\1\6\0\0", b"\4\4\x05\0" * 3, b"\1\1\4\0" * 65],
)
def test_device_paths_that_cannot_be_are_refused(path: bytes) -> None:
    with pytest.raises(ValueError, match="device path"):
        device_paths.texts(path)


def test_device_paths_are_read_node_by_node() -> None:
    nodes = b"\1\1\6\0\2\3" + b"\3\x17\x08\0" + b"abcd" + b"\x7f\xff\4\0" + b"after the end"
    assert device_paths.texts(nodes) == ["Pci(2,3)", "Path(3,23,61626364)"]


GUID = bytes.fromhex("72f728144ab61e44b8c39ebdd7f893c7")


@pytest.mark.parametrize(
    ("kind", "subkind", "body", "text"),
    [
        (1, 1, b"\2", "Path(1,1,02)"),  # too short for what it is
        (2, 1, struct.pack("<II", 0x0A0341D0, 0), "ACPI(PNP0A03,0)"),
        (3, 5, b"\1\2", "USB(1,2)"),
        (3, 0x0B, bytes.fromhex("525400123456").ljust(32, b"\0") + b"\1", "Mac(525400123456,0x01)"),
        (3, 0x0B, bytes(32), "Path(3,11," + "00" * 32 + ")"),
        (
            *(3, 0x0C, bytes((10, 0, 0, 1, 10, 0, 0, 2)) + struct.pack("<HHHBII", 0, 80, 6, 1, 7, 0)),
            "IPv4(2.0.0.10,TCP,Static,1.0.0.10,7,0)",
        ),
        (3, 0x0C, bytes(8) + struct.pack("<HHHBII", 0, 0, 9, 9, 0, 0), "IPv4(0.0.0.0,,,0.0.0.0)"),
        (3, 0x15, bytes(range(16)), "FibreEx(0x0001020304050607,0x08090a0b0c0d0e0f)"),
        (
            *(4, 1, struct.pack("<IQQ", 1, 2048, 16) + GUID + b"\2\2"),
            "HD(1,GPT,1428F772-B64A-441E-B8C3-9EBDD7F893C7,0x800,0x10)",
        ),
        (4, 1, struct.pack("<IQQ", 0, 0, 0) + b"\1\2\3\4".ljust(16, b"\0") + b"\1\1", "HD(0,MBR,0x04030201)"),
        (4, 1, bytes(38), "Path(4,1," + "00" * 38 + ")"),
        (4, 3, GUID, "VenMedia(1428F772-B64A-441E-B8C3-9EBDD7F893C7,)"),
        (4, 3, GUID + b"\xab", "VenMedia(1428F772-B64A-441E-B8C3-9EBDD7F893C7,ab)"),
        (4, 3, GUID[:15], f"Path(4,3,{GUID[:15].hex()})"),
        (4, 4, "kernel\0".encode("utf-16-le"), "File(kernel)"),
        (4, 4, b"odd", "Path(4,4,6f6464)"),
        (5, 1, b"\3\0\1\0cd\0more", "BBS(CDROM,cd,1)"),
        (5, 1, b"\x42\0\0\0", "BBS(66,,0)"),
        (5, 1, b"\3\0\1\0\xff", "Path(5,1,03000100ff)"),
    ],
)
def test_each_node_reads_as_cocos_verifier_writes_it(kind: int, subkind: int, body: bytes, text: str) -> None:
    assert device_paths.node(kind, subkind, body) == text


@given(st.integers(0, 6), st.integers(0, 0x20), st.binary(max_size=64))
def test_any_node_has_a_text(kind: int, subkind: int, body: bytes) -> None:
    assert device_paths.node(kind, subkind, body).endswith(")")


@pytest.mark.vectors
def test_real_logs_read_as_cocos_verifier_reads_them(vectors: Path) -> None:
    """Two that CoCo's own tests hold: OVMF's kernel, and td-shim's flags, which are not all text."""
    ovmf = entries((vectors / "tdx/ccel/CCEL_data_ovmf.bin").read_bytes())
    paths = [entry["details"]["device_paths"] for entry in ovmf if "device_paths" in entry["details"]]
    assert ["VenMedia(1428F772-B64A-441E-B8C3-9EBDD7F893C7,)", "File(kernel)"] in paths
    shim = entries((vectors / "tdx/ccel/CCEL_data.bin").read_bytes())
    flags = [entry["details"] for entry in shim if entry["type_name"] == "EV_PLATFORM_CONFIG_FLAGS"]
    assert flags == [{"string": ""}, {"string": "td_payload_info root=/dev/vda1 console=hvc0 rw"}]


@given(st.sampled_from([1, 6, 0xA, 0xD, 0x80000001, 0x80000003, 0x8000000A]), st.binary(max_size=120))
@settings(max_examples=300, deadline=None)
def test_details_of_any_bytes_are_an_object(kind: int, data: bytes) -> None:
    assert isinstance(coco.details(kind, data), dict)
    tagged.application_event(data)


@given(st.text(min_size=1), st.text(min_size=1), st.text())
def test_application_events_are_read_as_they_were_written(domain: str, operation: str, content: str) -> None:
    item = tagged.ApplicationEvent(domain, operation, content)
    try:
        data = tagged.encode(item)
    except (ValueError, UnicodeEncodeError):
        return
    assert tagged.application_event(data) == item


def test_sm3_is_there_where_hashlibs_openssl_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = SM3.new(b"abc").digest()
    assert expected.hex() == "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"

    def without(name: str, data: bytes = b"") -> object:
        raise ValueError(name)

    monkeypatch.setattr("hashlib.new", without)
    assert SM3.new(b"abc").digest() == expected
