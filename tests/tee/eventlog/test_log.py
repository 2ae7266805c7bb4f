"""TCG logs: what is malformed, what ends a log, and that any bytes are one or the other."""

from __future__ import annotations

import contextlib
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tee.eventlog.building import SHA384_ONLY, booted, event, header

from adyton.devtee.tpm import sha1_log
from adyton.errors import MalformedEvidence
from adyton.tee.eventlog import log as logs
from adyton.tee.eventlog.banks import SHA1, SHA256, SHA384, SM3
from adyton.tee.eventlog.log import EventLog, Format
from adyton.tee.eventlog.replay import replay


def malformed(data: bytes, field: str | None = None, **given: int) -> MalformedEvidence:
    with pytest.raises(MalformedEvidence) as caught:
        EventLog.parse(data, **given)
    assert caught.value.code == "event_log_malformed"
    if field is not None:
        assert caught.value.field == field
    return caught.value


@pytest.mark.parametrize(
    "head",
    [
        header(),
        header((0x99, 32)),
        header((0xC, 47)),
        header((0xC, 48), (0xC, 48)),
        header(*[(0xC, 48)] * 9),
        header((0xC, 48))[:-1] + b"\5",
        header((0xC, 48))[:32] + b"Spec ID Event03\0" + bytes(17),
    ],
)
def test_headers_that_cannot_be_are_malformed(head: bytes) -> None:
    malformed(head)


def test_a_header_that_is_cut_off_is_malformed() -> None:
    body = b"Spec ID Event03\0" + bytes(8) + struct.pack("<I", 2) + b"\x0c\0"
    malformed(struct.pack("<II20sI", 0, 3, bytes(20), len(body)) + body, "event 0")
    malformed(b"", "event_log")
    malformed(struct.pack("<II20sI", 0, 3, bytes(20), 1), "event 0")


def test_lengths_beyond_the_end_are_malformed() -> None:
    good = event(1, 4, bytes(4))
    malformed(SHA384_ONLY + good[:-8] + struct.pack("<I", 5) + bytes(4), "event 0")
    malformed(SHA384_ONLY + good + good[:-1], "event 1")
    malformed(SHA384_ONLY + good + good[:20], "event 1")
    malformed(SHA384_ONLY + struct.pack("<III", 1, 4, 2) + good[12:], "event 0")
    malformed(SHA384_ONLY + struct.pack("<III", 1, 4, 0) + good[12:], "event 0")
    malformed(SHA384_ONLY + struct.pack("<IIIH", 1, 4, 1, 0xB) + good[14:], "event 0")
    malformed(header((0xC, 48), (0xB, 32)) + event(1, 4, b"", count=2) + event(1, 4, b""), "event 0")
    huge = struct.pack("<IIIH", 1, 4, 1, 0xC) + bytes(48) + struct.pack("<I", 0xFFFFFFFF)
    malformed(SHA384_ONLY + huge, "event 0")
    malformed(header((0xC, 48), (0xB, 32)) + huge, "event 0")


def test_registers_that_do_not_exist_are_malformed() -> None:
    malformed(SHA384_ONLY + event(24, 4, b""), "event 0")
    malformed(SHA384_ONLY + event(1, 4, b"") + event(5, 4, b""), "event 1", registers=5)
    EventLog.parse(SHA384_ONLY + event(0xFFFFFFFF, 3, b"information"))  # extends nothing


def test_sha1_logs_are_checked_as_well() -> None:
    good = sha1_log([(0, 8, bytes(20), b"version"), (7, 4, bytes(20), bytes(4))])
    parsed = EventLog.parse(good)
    assert (parsed.format, parsed.banks, len(parsed)) == (Format.TCG_1_2, (SHA1,), 2)
    malformed(good[:-1], "event 1")
    malformed(good + good[:20], "event 2")
    assert EventLog.parse(good + b"\xff" * 64).tail == b"\xff" * 64
    assert EventLog.parse(good + bytes(64)).tail == bytes(64)


@pytest.mark.parametrize("fill", [b"\xff", b"\0"])
def test_fill_ends_a_log_and_is_kept_apart(fill: bytes) -> None:
    whole = booted().log()
    for size in (8, 9, 4096):
        parsed = EventLog.parse(whole + fill * size)
        assert (parsed.raw, parsed.tail) == (whole, fill * size)
    malformed(whole + fill * 7)
    malformed(whole + fill * 8 + b"\1")  # something hidden behind an end
    other = b"\0" if fill == b"\xff" else b"\xff"
    malformed(whole + fill * 8 + other * 64)


@pytest.mark.parametrize(
    "events",
    [
        [(0, 3, b"StartupLocality\0\3"), (0, 3, b"StartupLocality\0\3")],
        [(0, 8, b"version"), (0, 3, b"StartupLocality\0\3")],
        [(0, 3, b"StartupLocality\0\2")],
        [(0, 3, b"StartupLocality\0")],
        [(0, 3, b"StartupLocality\0\3\3")],
    ],
)
def test_a_startup_locality_that_is_late_repeated_or_none_is_malformed(events: list[tuple[int, int, bytes]]) -> None:
    malformed(SHA384_ONLY + b"".join(event(*item) for item in events))


def test_a_startup_locality_is_read() -> None:
    for locality in (0, 3, 4):
        parsed = EventLog.parse(
            SHA384_ONLY + event(0, 3, b"StartupLocality\0" + bytes((locality,))) + event(0, 8, b"v")
        )
        assert parsed.locality == locality


def test_limits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = booted().log()
    monkeypatch.setattr(logs, "MAX_EVENTS", 3)
    malformed(whole, "event_log")
    malformed(sha1_log([(0, 4, bytes(20), b"")] * 4), "event_log")
    monkeypatch.setattr(logs, "MAX_SIZE", len(whole) - 1)
    malformed(whole, "event_log")


def test_a_log_of_nothing_but_small_events_is_read_in_time() -> None:
    data = SHA384_ONLY + event(1, 0xD, b"") * 60_000
    begin = time.process_time()
    assert len(EventLog.parse(data)) == 60_000
    assert time.process_time() - begin < 10


@pytest.mark.parametrize("end", [b"", b"\1", bytes(7), bytes(9)])
def test_events_that_look_like_fill_are_read_in_time(end: bytes) -> None:
    """Eight zeros at each event: whether they are fill is not asked of all that follows, over and over."""
    sha1 = struct.pack("<II20sI", 0, 0, b"\1" * 20, 0)
    agile = SHA384_ONLY + event(1, 4, bytes(4)) + event(0, 0, b"")
    for data in (sha1 * 60_000 + end, agile + event(0, 0, b"") * 60_000 + event(1, 0xD, b"", count=2) + end):
        begin = time.process_time()
        with contextlib.suppress(MalformedEvidence):
            assert len(EventLog.parse(data)) >= 60_000
        assert time.process_time() - begin < 10


def test_events_with_fewer_digests_or_another_order_are_read() -> None:
    head = header((0xC, 48), (0x12, 32))
    one = event(4, 6, b"x")
    both = struct.pack("<III", 1, 4, 2) + b"\x12\0" + bytes(32) + b"\x0c\0" + b"\1" * 48 + struct.pack("<I", 1) + b"y"
    parsed = EventLog.parse(head + one + both)
    assert parsed.banks == (SHA384, SM3)
    first, second = parsed.events()
    assert list(first.digests) == ["sha384"]
    assert second.digests == {"sha384": b"\1" * 48, "sm3": bytes(32)}
    assert second.data == b"y" == parsed.data_of(1)
    with pytest.raises(MalformedEvidence) as caught:
        replay(parsed, SM3)
    assert caught.value.field == "event 0"


def test_the_header_that_coco_writes_where_firmware_keeps_no_log() -> None:
    head = bytes.fromhex("0000000003000000" + "00" * 20 + "25000000" + "00" * 24 + "020000000c0030001200200000")
    parsed = EventLog.parse(head + event(4, 6, b"x") + b"\xff" * 8)
    assert parsed.format is Format.CRYPTO_AGILE
    assert (parsed.banks, len(parsed)) == ((SHA384, SM3), 1)
    changed = bytearray(head)
    changed[40] = 1  # any other header without a signature is no header: a log of SHA-1
    assert EventLog.parse(bytes(changed)).format is Format.TCG_1_2


def test_what_was_given_is_kept() -> None:
    whole = booted().log() + b"\xff" * 20
    parsed = EventLog.parse(whole)
    assert parsed.raw + parsed.tail == whole
    assert parsed.position(SHA256) == 1
    assert parsed.position(SM3) is None


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_log_or_malformed(data: bytes) -> None:
    for candidate in (data, SHA384_ONLY + data, SHA384_ONLY + event(1, 4, b"") + data):
        try:
            parsed = EventLog.parse(candidate)
        except MalformedEvidence:
            continue
        assert parsed.raw + parsed.tail == candidate
        assert len(list(parsed.events())) == len(parsed)


def test_every_beginning_of_a_real_log_is_read_or_malformed_at_once(vectors: Path) -> None:
    for name in ("cos-85-amd-sev.bin", "debian-10.bin"):
        whole = (vectors / "tpm" / "event-logs" / name).read_bytes()
        full = len(EventLog.parse(whole))
        for end in range(0, len(whole), 37):
            begin = time.process_time()
            with contextlib.suppress(MalformedEvidence):
                assert len(EventLog.parse(whole[:end])) < full
            assert time.process_time() - begin < 10
