"""The other formats: canonical event logs, IMA, dstack, Windows."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton.devtee.forge import flip
from adyton.devtee.tpm import digest
from adyton.errors import EvidenceError, MalformedEvidence, UnsupportedEvidence
from adyton.tee.eventlog import cel, dstack, ima, sipa
from adyton.tee.eventlog.banks import SHA1, SHA256, SHA384

# Canonical event logs


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack(">BI", kind, len(value)) + value


def record(
    number: int, content: bytes, *, index: bytes = b"\4", index_kind: int = 0x6C, digests: bytes | None = None
) -> bytes:
    body = tlv(80, content)
    listed = tlv(0xC, digest("sha384", body)) if digests is None else digests
    return tlv(0, struct.pack(">Q", number)) + tlv(index_kind, index) + tlv(3, listed) + body


@pytest.mark.parametrize(
    "data",
    [
        record(1, b""),
        record(0, b"")[:-1],
        record(0, b"") + record(2, b""),
        record(0, b"", index=b"\1\2"),
        record(0, b"", index_kind=2),
        record(0, b"", digests=b""),
        record(0, b"", digests=tlv(0x99, bytes(48))),
        record(0, b"", digests=tlv(0xC, bytes(47))),
        record(0, b"", digests=tlv(0xC, bytes(48)) * 2),
        tlv(0, bytes(7)),
        tlv(1, bytes(8)),
        tlv(0, bytes(8)) + tlv(0x6C, b"\4") + tlv(4, b""),
        b"\0",
        struct.pack(">BI", 0, 0xFFFFFFFF),
    ],
)
def test_canonical_logs_that_cannot_be_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        cel.parse(data)


def test_content_must_be_what_was_measured() -> None:
    records = cel.parse(record(0, tlv(2, b"Never"), digests=tlv(0xC, bytes(48))))
    with pytest.raises(EvidenceError) as caught:
        cel.check_content(records, tee="tdx")
    assert caught.value.field == "record 0"


def test_canonical_logs_replay_by_kind_of_index(monkeypatch: pytest.MonkeyPatch) -> None:
    data = record(0, tlv(2, b"Never")) + record(1, tlv(99, b"x"), index=b"\7", index_kind=1)
    records = cel.parse(data)
    cel.check_content(records, tee="tdx")
    assert [item.event for item in records] == [("restart_policy", b"Never"), ("99", b"x")]
    assert set(cel.replay(records, SHA384)) == {4}
    assert set(cel.replay(records, SHA384, index_kind=cel.PCR_INDEX)) == {7}
    with pytest.raises(UnsupportedEvidence):
        cel.replay(records, SHA256)
    with pytest.raises(ValueError, match="not one TLV"):
        _ = cel.parse(record(0, tlv(2, b"") + b"\0"))[0].event
    with pytest.raises(ValueError, match="no event"):
        _ = cel.Record(0, 1, 1, {}, b"\1").event
    monkeypatch.setattr(cel, "MAX_SIZE", 10)
    with pytest.raises(MalformedEvidence):
        cel.parse(data)


def test_every_flipped_bit_of_a_real_canonical_log_is_noticed(vectors: Path) -> None:
    whole = (vectors / "tpm" / "cel" / "confidential-space-ccmr.cel").read_bytes()
    honest = cel.replay(cel.parse(whole), SHA384)
    for bit in range(0, 8 * len(whole), 53):
        try:
            records = cel.parse(flip(whole, bit))
            cel.check_content(records, tee="tdx")
            values = cel.replay(records, SHA384)
        except EvidenceError:
            continue
        assert values != honest


# IMA


def line(template: str, rest: str, data: bytes, *, pcr: int = 10) -> str:
    return f"{pcr} {digest('sha1', data).hex()} {template} {rest}\n"


def field(value: bytes) -> bytes:
    return struct.pack("<I", len(value)) + value


NG = field(b"sha256:\0" + bytes(32)) + field(b"/bin/a b\0")
SIG = NG + field(b"\3\2")
TEXT_NG = f"sha256:{'00' * 32} /bin/a b"
OLD = bytes(20) + b"/init".ljust(256, b"\0")
V2 = field(b"verity:sha256:\0" + bytes(32)) + field(b"/x\0")
BUF = field(b"sha256:\0" + bytes(32)) + field(b"kexec-cmdline\0") + field(b"ro")


@pytest.mark.parametrize(
    ("template", "rest", "data"),
    [
        ("ima-ng", TEXT_NG, NG),
        ("ima-sig", f"{TEXT_NG} 0302", SIG),
        ("ima-sig", f"{TEXT_NG.replace(' b', '')} ", field(b"sha256:\0" + bytes(32)) + field(b"/bin/a\0") + field(b"")),
        ("ima", f"{'00' * 20} /init", OLD),
        ("ima-ngv2", f"verity:sha256:{'00' * 32} /x", V2),
        ("ima-buf", f"sha256:{'00' * 32} kexec-cmdline 726f", BUF),
    ],
)
def test_template_hashes_are_recomputed(template: str, rest: str, data: bytes) -> None:
    (entry,) = ima.parse(line(template, rest, data).encode())
    assert entry.data == data
    assert ima.check_templates([entry], tee="tpm") == 1
    (changed,) = ima.parse(line(template, rest, data + b"x").encode())
    with pytest.raises(EvidenceError) as caught:
        ima.check_templates([changed], tee="tpm")
    assert caught.value.field == "entry 0"


def binary(template: str, data: bytes, *, pcr: int = 10) -> bytes:
    head = struct.pack("<I20sI", pcr, digest("sha1", data), len(template)) + template.encode()
    if template == "ima":
        name = data[20:].rstrip(b"\0")
        return head + data[:20] + struct.pack("<I", len(name)) + name
    return head + struct.pack("<I", len(data)) + data


def test_both_forms_say_the_same() -> None:
    text = line("ima-ng", TEXT_NG, NG) + line("ima", f"{'00' * 20} /init", OLD)
    written = binary("ima-ng", NG) + binary("ima", OLD)
    ascii_entries, binary_entries = ima.parse(text.encode()), ima.parse(written)
    assert ascii_entries == binary_entries
    assert [entry.path for entry in binary_entries] == ["/bin/a b", "/init"]
    assert ima.check_templates(binary_entries, tee="tpm") == 2
    assert ima.parse(b"") == []
    (odd,) = ima.parse(binary("other", b"\1"))
    assert (odd.path, odd.data) == ("", b"\1")


@pytest.mark.parametrize(
    "data",
    [
        b"10",
        b"10 00 ima-ng x\n",
        b"99 " + b"00" * 20 + b" ima-ng sha1:00 /x\n",
        b"10 " + b"00" * 20 + b" ima-ng\n",
        b"10 " + b"00" * 20 + b" ima-ng nodigest /x\n",
        b"10 " + b"00" * 20 + b" ima 00 /x\n",
        b"10 " + b"00" * 20 + b" ima-sig sha1:00 /x zz\n",
        b"10 " + b"00" * 20 + b" ima-ng sha1:00 /x",
        binary("ima-ng", NG)[:-1],
        binary("ima-ng", NG, pcr=24),
        struct.pack("<I20sI", 10, bytes(20), 256) + b"x" * 256 + bytes(4),
        struct.pack("<I20sI", 10, bytes(20), 3) + b"ima" + bytes(20) + struct.pack("<I", 257) + bytes(257),
        struct.pack("<I20sI", 10, bytes(20), 6) + b"ima-ng" + struct.pack("<I", 0xFFFFFFFF),
    ],
)
def test_lists_that_cannot_be_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        ima.parse(data)


def test_violations_extend_ones() -> None:
    text = f"10 {'00' * 20} ima-ng sha1:{'00' * 20} /raced\n"
    entries = ima.parse(text.encode())
    assert entries[0].violation
    assert ima.check_templates(entries, tee="tpm") == 0
    for bank in (SHA1, SHA256):
        assert ima.replay(entries, bank)[10] == bank.new(bytes(bank.size) + b"\xff" * bank.size).digest()


def test_old_kernels_pad_sha1_in_other_banks() -> None:
    entries = ima.parse((line("ima-ng", TEXT_NG, NG) * 2).encode())
    new, old = (ima.replay(entries, SHA256, padded=padded)[10] for padded in (False, True))
    assert new != old
    for value in (new, old):
        assert ima.check(entries, SHA256, value, tee="tpm") == 2
    with pytest.raises(EvidenceError) as caught:
        ima.check(entries, SHA256, bytes(32), tee="tpm")
    assert caught.value.code == "ima_mismatch"
    with pytest.raises(EvidenceError):
        ima.check(entries, SHA1, new[:20], tee="tpm")


def test_a_template_that_is_unknown_replays_only_where_its_data_is_not_needed() -> None:
    entries = ima.parse(line("vendor-own", "a b c", b"x").encode())
    assert entries[0].data is None
    assert ima.check_templates(entries, tee="tpm") == 0
    ima.replay(entries, SHA1)
    with pytest.raises(MalformedEvidence):
        ima.replay(entries, SHA256)
    padded = ima.replay(entries, SHA256, padded=True)[10]
    assert ima.check(entries, SHA256, padded, tee="tpm") == 1


def test_an_empty_list_is_that_of_a_register_that_nothing_extended() -> None:
    assert ima.check([], SHA256, bytes(32), tee="tpm") == 0
    with pytest.raises(EvidenceError):
        ima.check([], SHA256, b"\1" * 32, tee="tpm")
    other = ima.parse(line("ima-ng", TEXT_NG, NG, pcr=11).encode())
    with pytest.raises(EvidenceError):
        ima.check(other, SHA256, bytes(32), tee="tpm")


def test_limits_of_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ima, "MAX_ENTRIES", 1)
    for data in (line("ima-ng", TEXT_NG, NG).encode() * 2, binary("ima-ng", NG) * 2):
        with pytest.raises(MalformedEvidence):
            ima.parse(data)
    monkeypatch.setattr(ima, "MAX_SIZE", 4)
    with pytest.raises(MalformedEvidence):
        ima.parse(bytes(5))


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_list_or_malformed(data: bytes) -> None:
    for candidate in (data, b"10 " + data, binary("ima-ng", NG) + data):
        for parse in (ima.parse, cel.parse):
            try:
                parse(candidate)
            except MalformedEvidence:
                continue


# dstack


def dstack_event(**changes: Any) -> dict[str, Any]:
    kind, name, payload = 0x08000001, "app-id", b"\1\2"
    covered = struct.pack("<I", kind) + b":" + name.encode() + b":" + payload
    made = {
        "imr": 3,
        "event_type": kind,
        "digest": digest("sha384", covered).hex(),
        "event": name,
        "event_payload": payload.hex(),
    }
    return {**made, **changes}


@pytest.mark.parametrize(
    "changes",
    [{"imr": 4}, {"imr": -1}, {"imr": "3"}, {"digest": "00"}, {"digest": "zz"}, {"event_payload": "0"}, {"event": None}, {"event_type": -1}],
)  # fmt: skip
def test_dstack_logs_that_cannot_be_are_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedEvidence):
        dstack.parse(json.dumps([dstack_event(**changes)]))


def test_dstack_payloads_are_covered_by_their_digest() -> None:
    for changes in ({"event_payload": "0103"}, {"event": "app-ie"}, {"event_type": 1}):
        events = dstack.parse(json.dumps([dstack_event(**changes)]))
        with pytest.raises(EvidenceError) as caught:
            dstack.runtime_events(events, tee="tdx")
        assert caught.value.code == "event_data_digest_mismatch"
    events = dstack.parse(json.dumps([dstack_event(imr=0, event_payload="ff"), dstack_event()]).encode())
    assert dstack.runtime_events(events, tee="tdx") == [{"event": "app-id", "payload": "0102"}]
    assert dstack.replay(events)[1] == bytes(48)
    with pytest.raises(MalformedEvidence):
        dstack.parse("{}")


# Windows


def nested(depth: int) -> bytes:
    data = struct.pack("<II", 1, 0)
    for _ in range(depth):
        data = struct.pack("<II", sipa.AGGREGATION | 1, len(data)) + data
    return data


def test_go_attestation_506_nesting_without_end_is_refused() -> None:
    # Early-launch anti-malware events, nested until a recursive reader's stack was gone (2026-08)
    for depth in (sipa.MAX_DEPTH + 1, 10_000):
        with pytest.raises(ValueError, match="nested deeper"):
            sipa.parse(nested(depth))
    assert len(sipa.parse(nested(sipa.MAX_DEPTH))) == sipa.MAX_DEPTH + 1


@pytest.mark.parametrize("data", [b"\1", struct.pack("<II", 1, 9), struct.pack("<II", 0x40000001, 4) + b"abcd"])
def test_windows_events_that_cannot_be_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="event"):
        sipa.parse(data)


def test_windows_events_are_bounded_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = struct.pack("<II", 5, 1) + b"a" + struct.pack("<II", 6, 0)
    data = struct.pack("<II", 0x40010001, len(inner)) + inner + struct.pack("<II", 7, 0)
    assert [(item.depth, item.kind) for item in sipa.parse(data)] == [(0, 0x40010001), (0, 7), (1, 5), (1, 6)]
    monkeypatch.setattr(sipa, "MAX_EVENTS", 2)
    with pytest.raises(ValueError, match="more than"):
        sipa.parse(data)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_windows_events_or_refused(data: bytes) -> None:
    for candidate in (data, struct.pack("<II", 0x40000001, len(data)) + data):
        try:
            sipa.parse(candidate)
        except ValueError:
            continue
