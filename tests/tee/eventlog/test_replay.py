"""Replay: which difference is named, and where registers start."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tee.eventlog.building import BANKS, booted

from adyton.devtee.forge import flip
from adyton.devtee.tpm import SoftTpm, crypto_agile_log, digest
from adyton.errors import EvidenceError, UnsupportedEvidence
from adyton.tee.eventlog import replay as replaying
from adyton.tee.eventlog.banks import BY_NAME, SHA1, SHA256, SHA384, SHA512, SM3, Bank
from adyton.tee.eventlog.log import EventLog
from adyton.tee.eventlog.replay import between, check, extend, first_difference, replay, start


def parsed(tpm: SoftTpm) -> EventLog:
    return EventLog.parse(tpm.log())


def pcrs(tpm: SoftTpm, bank: Bank = SHA256) -> dict[int, bytes]:
    return dict(enumerate(tpm.pcrs[bank.name]))


def mismatch(log: EventLog, quoted: dict[int, bytes], **given: object) -> EvidenceError:
    with pytest.raises(EvidenceError) as caught:
        check(log, SHA256, quoted, tee="tpm", **given)  # type: ignore[arg-type]
    assert caught.value.code == "event_log_mismatch"
    return caught.value


def test_an_event_log_that_replays_to_other_registers_is_named_by_register() -> None:
    tpm = booted()
    quoted = pcrs(tpm)
    quoted[4] = flip(quoted[4], 0)
    error = mismatch(parsed(tpm), quoted)
    assert (error.field, error.expected) == ("pcr04", quoted[4])
    assert "no part of the log" in error.message


def test_events_after_the_quote_are_named() -> None:
    tpm = booted()
    quoted = pcrs(tpm)
    tpm.measure(4, 0xD, b"one more")
    tpm.measure(4, 0xD, b"and more")
    error = mismatch(parsed(tpm), quoted)
    assert error.field == f"pcr04, event {len(tpm.events) - 2}"
    difference = first_difference(parsed(tpm), SHA256, 4, quoted[4])
    assert difference is not None
    assert difference.event == len(tpm.events) - 2


def test_an_event_that_was_put_in_is_named() -> None:
    tpm = booted()
    tpm.events.insert(3, (7, 0x80000001, {bank: digest(bank, b"x") for bank in BANKS}, b"x"))
    error = mismatch(parsed(tpm), pcrs(tpm))
    assert error.field == "pcr07, event 3"
    assert "was not extended" in error.message


def test_an_event_that_was_taken_out_cannot_be_named_but_its_register_is() -> None:
    tpm = booted()
    del tpm.events[2]
    assert mismatch(parsed(tpm), pcrs(tpm)).field == "pcr07"


def test_many_events_of_one_register_are_not_searched_for_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "_MAX_OMISSIONS", 2)
    tpm = booted()
    tpm.events.insert(3, (7, 0x80000001, {bank: digest(bank, b"x") for bank in BANKS}, b"x"))
    assert mismatch(parsed(tpm), pcrs(tpm)).field == "pcr07"


def test_a_register_that_the_log_does_not_reach_must_be_untouched_if_it_is_required() -> None:
    tpm = booted()
    tpm.extend(10, b"somebody else")
    log = parsed(tpm)
    assert mismatch(log, pcrs(tpm)).field == "pcr10"
    assert check(log, SHA256, pcrs(tpm), tee="tpm", required=range(8))[7] == 6
    assert 10 not in check(log, SHA256, pcrs(tpm), tee="tpm", required=())


def test_registers_that_nobody_quoted_are_not_looked_at() -> None:
    tpm = booted()
    counts = check(parsed(tpm), SHA256, {4: tpm.pcrs["sha256"][4]}, tee="tpm")
    assert counts[4] == 2


def test_a_bank_that_the_log_lacks_is_unsupported() -> None:
    for bank in (SHA512, SM3):
        with pytest.raises(UnsupportedEvidence) as caught:
            replay(parsed(booted()), bank)
        assert caught.value.code == "event_log_bank"


@pytest.mark.parametrize("bank", [SHA1, SHA256, SHA384])
def test_a_log_leads_to_its_registers(bank: Bank) -> None:
    tpm = booted()
    tpm.measure(0, 3, b"for information")
    replayed = replay(parsed(tpm), bank)
    assert replayed == {number: tpm.pcrs[bank.name][number] for number in range(8)}
    check(parsed(tpm), bank, pcrs(tpm, bank), tee="tpm")
    assert first_difference(parsed(tpm), bank, 4, tpm.pcrs[bank.name][4]) is None


def test_registers_start_where_they_start() -> None:
    assert start(0, SHA1) == bytes(20)
    assert start(0, SHA256, locality=3) == bytes(31) + b"\3"
    assert start(16, SHA256, locality=3) == bytes(32)
    assert {start(number, SHA256) for number in range(17, 23)} == {b"\xff" * 32}
    assert start(23, SHA384) == bytes(48)


@pytest.mark.parametrize("locality", [0, 3, 4])
def test_pcr_0_starts_at_the_startup_locality(locality: int) -> None:
    step = {"sha256": digest("sha256", b"version")}
    events = [(0, 3, {"sha256": bytes(32)}, b"StartupLocality\0" + bytes((locality,))), (0, 8, step, b"version")]
    log = EventLog.parse(crypto_agile_log(events, ["sha256"]))
    assert replay(log, SHA256)[0] == extend(SHA256, bytes(31) + bytes((locality,)), step["sha256"])


def test_an_h_crtm_event_means_locality_4() -> None:
    step = {"sha256": digest("sha256", b"microcode")}
    log = EventLog.parse(crypto_agile_log([(0, 0x80000010, step, b"H-CRTM"), (0, 8, step, b"v")], ["sha256"]))
    first = extend(SHA256, bytes(31) + b"\4", step["sha256"])
    assert replay(log, SHA256)[0] == extend(SHA256, first, step["sha256"])
    assert replaying.startup_locality(EventLog.parse(crypto_agile_log([(1, 8, step, b"")], ["sha256"]))) == 0


def test_registers_of_a_dynamic_launch_start_at_ones_or_once_it_happened_at_zero() -> None:
    step = {"sha256": digest("sha256", b"a launch")}
    log = EventLog.parse(crypto_agile_log([(17, 0x402, step, b"")], ["sha256"]))
    cold, launched = (extend(SHA256, begin, step["sha256"]) for begin in (b"\xff" * 32, bytes(32)))
    assert replay(log, SHA256) == {17: cold}
    assert replay(log, SHA256, dynamic_launch=True) == {17: launched}
    for value in (cold, launched):
        check(log, SHA256, {17: value}, tee="tpm")
    mismatch(log, {17: bytes(32)})
    check(log, SHA256, {17: launched, 18: bytes(32), 19: b"\xff" * 32}, tee="tpm")
    mismatch(log, {17: launched, 18: b"\1" * 32})


def test_two_logs_part_at_an_event() -> None:
    tpm, other = booted(), booted()
    assert between(parsed(tpm), parsed(other), SHA256) is None
    other.measure(4, 0xD, b"more")
    assert between(parsed(tpm), parsed(other), SHA256) == (4, len(tpm.events))
    assert between(parsed(other), parsed(tpm), SHA256) == (4, len(tpm.events))
    assert between(parsed(booted(secure_boot=b"\0")), parsed(tpm), SHA256) == (7, 1)


@given(st.lists(st.tuples(st.integers(0, 23), st.binary(max_size=20)), max_size=12), st.sampled_from(BANKS))
@settings(max_examples=60, deadline=None)
def test_whatever_is_measured_replays(events: list[tuple[int, bytes]], name: str) -> None:
    tpm = SoftTpm(None)  # type: ignore[arg-type]
    tpm.reset(BANKS)
    for register, data in events:
        tpm.measure(register, 0xD, data)
    log, bank = parsed(tpm), BY_NAME[name]
    replayed = replay(log, bank)
    assert set(replayed) == {register for register, _ in events}
    for register, value in replayed.items():
        assert value == tpm.pcrs[name][register]
    check(log, bank, pcrs(tpm, bank), tee="tpm")
