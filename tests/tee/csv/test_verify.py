from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee import csv as forging
from adyton.devtee.forge import flip
from adyton.errors import (
    AdytonError,
    BindingMismatch,
    EndorsementMalformed,
    EndorsementMissing,
    EndorsementUntrusted,
    EvidenceError,
    MalformedEvidence,
    SignatureInvalid,
    UnsupportedEvidence,
)
from adyton.rats.types import SHARED_CLAIMS, Check, Revocation, RootKind, TrustAnchors
from adyton.tee.csv import endorsements as chains
from adyton.tee.csv.verify import FOREVER
from adyton.tee.eventlog import replay
from adyton.tee.eventlog.banks import SM3
from adyton.tee.eventlog.log import EventLog
from adyton.tee.eventlog.tagged import ApplicationEvent, record

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DATA = b"nonce and key".ljust(64, b"\0")
ORDER = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123


def code_of(chip: Any, evidence: bytes, kind: type[AdytonError] = AdytonError, **more: Any) -> str:
    with pytest.raises(kind) as caught:
        chip.verify(evidence, **more)
    return caught.value.code


# The mask


@given(delta=st.binary(min_size=4, max_size=4).filter(any))
@settings(max_examples=30, deadline=None)
def test_a_shifted_anonce_is_refused_before_any_claim(chip: Any, delta: bytes) -> None:
    """Bug: the firmware does not sign anonce, so every unmasked field of a version 1 report can be changed at once."""
    report = forging.shifted(chip.report(), delta)
    trail: list[Check] = []
    assert code_of(chip, report, BindingMismatch, trail=trail) == "report_data_mismatch"
    assert [check.id for check in trail] == ["format", "report_data"]


def test_a_shifted_anonce_keeps_signature_and_mac(chip: Any) -> None:
    """Why the result without an expectation says that nothing proves the mask."""
    honest = chip.verify(chip.report(), report_data=None)
    forged = chip.verify(forging.shifted(chip.report(), b"\1\0\0\0"), report_data=None)
    assert honest.claims["debug"] is False
    assert forged.claims["debug"] is True  # NODBG was masked away
    for verified in (honest, forged):
        assert verified.claims["fields_bound"] is False
        assert {"anonce", "report_data"} <= set(verified.unchecked)
    bound = chip.verify(chip.report())
    assert bound.claims["fields_bound"] is True
    assert not {"anonce", "report_data"} & set(bound.unchecked)


def test_version_2_has_no_mask(chip: Any) -> None:
    verified = chip.verify(chip.report(version=2), report_data=None)
    assert verified.claims["fields_bound"] is True
    assert "anonce" not in verified.unchecked
    assert "anonce" not in verified.claims


@pytest.mark.parametrize("expected", [b"\1" * 64, DATA[:63] + b"\1", flip(DATA, 0)])
def test_other_report_data(chip: Any, expected: bytes) -> None:
    for evidence in (chip.report(), chip.report(version=2), chip.json()):
        assert code_of(chip, evidence, BindingMismatch, report_data=expected) == "report_data_mismatch"


@pytest.mark.parametrize("expected", [b"\1" * 63, b"\1" * 65, b"\1" * 48, bytes(64)])
def test_an_expectation_is_the_whole_field(chip: Any, expected: bytes) -> None:
    with pytest.raises(ValueError, match="report data"):
        chip.verify(chip.report(report_data=bytes(64)), report_data=expected)


# The report


@pytest.mark.parametrize("version", [1, 2])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_one_flipped_bit_of_the_report(chip: Any, version: int, data: st.DataObject) -> None:
    report = chip.report(version=version)
    bit = data.draw(st.integers(0, 8 * (336 if version == 1 else 1168) - 1))
    with pytest.raises(EvidenceError):
        chip.verify(flip(report, bit))


def test_every_byte_that_is_signed(chip: Any) -> None:
    report = chip.report()
    for index in range(0, 180, 7):
        assert code_of(chip, flip(report, 8 * index), report_data=None) in {"report_sig", "signer_mac"}


@pytest.mark.parametrize(("usage", "algorithm"), [(0x1004, 4), (0x1002, 5), (0x1002, 0), (0, 4), (0x1001, 4)])
@pytest.mark.parametrize("version", [1, 2])
def test_a_report_is_signed_by_a_pek_with_sm2(chip: Any, version: int, usage: int, algorithm: int) -> None:
    report = chip.report(version=version, usage=usage, algorithm=algorithm)
    assert code_of(chip, report, EvidenceError) == "signature_usage"


def test_wrong_signatures(chip: Any) -> None:
    report = chip.report()
    r, s = report[192:264], report[264:336]
    plus = (int.from_bytes(r, "little") + ORDER).to_bytes(72, "little")
    for wrong in (s + r, bytes(144), bytes(72) + s, r + bytes(72), plus + s, r[:32][::-1].ljust(72, b"\0") + s):
        changed = report[:192] + wrong + report[336:]
        assert code_of(chip, changed, SignatureInvalid) == "report_sig"


def test_a_report_of_another_chip(chip: Any) -> None:
    other = chip.forge.with_chip()
    assert code_of(chip, other.report(pek=chip.pek, report_data=DATA), SignatureInvalid) == "report_sig"


@pytest.mark.parametrize("offset", [336, 336 + 2084, 336 + 2150, 336 + 2190, 2547])
def test_a_garbled_signer_block(chip: Any, offset: int) -> None:
    assert code_of(chip, flip(chip.report(), 8 * offset), EvidenceError) == "signer_mac"
    report = chip.report(version=2)
    assert code_of(chip, flip(report, 8 * (offset + 1168 - 336)), EvidenceError) == "signer_mac"


def test_register_0_is_the_measurement(chip: Any) -> None:
    registers = (b"\7" * 32, *[bytes(32)] * 4)
    assert code_of(chip, chip.report(version=2, registers=registers), EvidenceError) == "rtmr0_mismatch"


def test_there_is_no_init_data(chip: Any) -> None:
    for init_data in (b"", bytes(32)):
        assert code_of(chip, chip.report(), UnsupportedEvidence, init_data=init_data) == "no_init_data"


# The chain


def test_a_report_without_its_certificate(chip: Any) -> None:
    for report in (chip.report()[:336], chip.report(version=2)[:1168]):
        assert code_of(chip, report, EndorsementMissing) == "pek_missing"


def test_missing_endorsements(chip: Any) -> None:
    hsk, cek = chip.hsk_cek[:832], chip.hsk_cek[832:]
    for given_ones, code in (
        ([], "cek_missing"),
        ([hsk, chip.hrk], "cek_missing"),
        ([cek, chip.hrk], "hsk_missing"),
        ([hsk, cek], "hrk_missing"),
    ):
        endorsements = EndorsementSet.parse(given_ones)
        assert code_of(chip, chip.report(), EndorsementMissing, endorsements=endorsements) == code
    with pytest.raises(EndorsementMissing) as caught:
        chip.verify(chip.report(), endorsements=EndorsementSet())
    assert "hsk_cek?snumber=DEVTEE0001" in str(caught.value.hint)


def test_certificates_of_another_chip_or_root(chip: Any, stranger: Any) -> None:
    forge = chip.forge
    other = forge.with_chip()
    pool = EndorsementSet.parse([other.hsk_cek, chip.hrk])
    assert code_of(chip, chip.report(), EndorsementUntrusted, endorsements=pool) == "pek_sig"
    # an HSK that bears the right id, and is a stranger's
    hsk = replace(stranger.forge.hsk, key_id=forge.hsk.key_id)
    pool = EndorsementSet.parse([forging.authority(hsk, forge.hrk), chip.hsk_cek[832:], chip.hrk])
    assert code_of(chip, chip.report(), EndorsementUntrusted, endorsements=pool) == "cek_sig"
    # a root that bears the right id, and is a stranger's
    hrk = replace(stranger.forge.hrk, key_id=forge.hrk.key_id)
    pool = EndorsementSet.parse([chip.hsk_cek, forging.authority(hrk, hrk)])
    assert code_of(chip, chip.report(), EndorsementUntrusted, endorsements=pool) == "hsk_sig"
    # a root that another one signed
    pool = EndorsementSet.parse([chip.hsk_cek, forging.authority(forge.hrk, hrk)])
    assert code_of(chip, chip.report(), EndorsementUntrusted, endorsements=pool) == "hrk_sig"


def test_untrusted_roots(chip: Any, stranger: Any) -> None:
    for anchors in (TrustAnchors(), stranger.anchors, TrustAnchors(custom=stranger.anchors.custom)):
        assert code_of(chip, chip.report(), EndorsementUntrusted, anchors=anchors) == "hrk_untrusted"


def test_an_hsk_that_claims_hygons_root(chip: Any) -> None:
    """Its issuer's id is the pinned root's, the signature is not."""
    forge = chip.forge
    hrk = replace(forge.hrk, key_id=chains.ROOT_ID, user_id=chains.ROOT_USER)
    hsk, cek = forging.authority(forge.hsk, hrk), chip.hsk_cek[832:]
    for root, code in (([], "hsk_sig"), ([forging.authority(hrk, hrk)], "hrk_untrusted")):
        pool = EndorsementSet.parse([hsk, cek, *root])
        got = code_of(chip, chip.report(), EndorsementUntrusted, endorsements=pool, anchors=TrustAnchors())
        assert got == code


def test_keys_for_something_else(chip: Any) -> None:
    forge = chip.forge
    wrong = (
        forging.chip(forge.pek, forge.cek, usage=0x1003),
        forging.chip(forge.pek, forge.cek, algorithm=5),
        forging.chip(forge.pek, forge.cek, usage=0x1004),
    )
    for pek in wrong:
        report = forge.report(pek=pek, report_data=DATA)
        assert code_of(chip, report, EndorsementMalformed) == "pek_usage"
    pool = EndorsementSet.parse([chip.hsk_cek[:832], forging.chip(forge.cek, forge.hsk, algorithm=5), chip.hrk])
    assert code_of(chip, chip.report(), EndorsementMalformed, endorsements=pool) == "cek_usage"
    pool = EndorsementSet.parse([chip.hsk_cek[:832], forging.chip(forge.cek, forge.hsk, usage=0x1002), chip.hrk])
    assert code_of(chip, chip.report(), EndorsementMissing, endorsements=pool) == "cek_missing"


def test_the_owners_signature_alone_is_not_enough(chip: Any) -> None:
    pek = forging.chip(chip.forge.pek, chip.forge.oca)
    assert code_of(chip, chip.forge.report(pek=pek, report_data=DATA), EndorsementUntrusted) == "pek_sig"


def test_a_broken_pek(chip: Any) -> None:
    report = chip.forge.report(pek=flip(chip.pek, 8 * 20), report_data=DATA)
    assert code_of(chip, report, EndorsementMalformed) == "hygon_certificate_malformed"


def test_broken_endorsements_are_named(chip: Any) -> None:
    pool = EndorsementSet(documents=[flip(chip.hrk, 8 * 68)])
    assert code_of(chip, chip.report(), EndorsementMalformed, endorsements=pool) == "hygon_certificate_malformed"


def test_many_certificates_do_not_keep_us(chip: Any) -> None:
    hostile = [
        chip.pek[:8] + (0x1004).to_bytes(4, "little") + chip.pek[12:1562] + number.to_bytes(2, "big") + chip.pek[1564:]
        for number in range(400)
    ]
    pool = EndorsementSet(documents=[*hostile, chip.hsk_cek[:832], chip.hrk])
    assert code_of(chip, chip.report(), EndorsementUntrusted, endorsements=pool) == "pek_sig"
    assert chip.verify(chip.json(), endorsements=pool).claims["fields_bound"] is True  # its own are tried first


def test_the_order_of_endorsements_does_not_decide(chip: Any, stranger: Any) -> None:
    files = [chip.hsk_cek, chip.hrk, stranger.hsk_cek, stranger.hrk, chip.forge.with_chip().hsk_cek]
    first = chip.verify(chip.report(), endorsements=EndorsementSet.parse(files))
    again = chip.verify(chip.report(), endorsements=EndorsementSet.parse(files[::-1]))
    assert first.root_fingerprint == again.root_fingerprint


def test_a_trusted_root_is_preferred(chip: Any, stranger: Any) -> None:
    """Two roots signed the same HSK: the path to the trusted one is taken."""
    forge = chip.forge
    for owner in (stranger.forge.hrk, forge.hrk):
        second = replace(stranger.forge.hrk, key_id=b"\1" * 16)
        hsk_two = forging.authority(forge.hsk, second)
        pool = EndorsementSet.parse([chip.hsk_cek, hsk_two, chip.hrk, forging.authority(second, second)])
        anchors = chip.anchors if owner is forge.hrk else stranger.anchors
        verified = chip.verify(chip.report(), endorsements=pool, anchors=anchors)
        assert bytes.fromhex(verified.root_fingerprint) in anchors.custom


# What comes out


def test_what_is_verified(chip: Any) -> None:
    trail: list[Check] = []
    verified = chip.verify(chip.report(measure=b"\x11" * 32), trail=trail)
    assert (verified.tee, verified.tee_class, verified.root) == ("csv", "cpu", RootKind.CUSTOM)
    assert set(SHARED_CLAIMS) <= verified.claims.keys()
    assert verified.claims["measurement"] == verified.claims["measure"] == "11" * 32
    assert verified.claims["debug"] is False
    assert verified.claims["hmac_of_signer_block"].startswith("valid")
    assert verified.claims["chip_serial"] == "DEVTEE0001"
    assert verified.unchecked == ("revocation_lists", "chip_serial", "oca")
    assert (verified.expires, verified.init_data) == (FOREVER, b"")
    assert verified.tcb == {"firmware_api": "1.3", "build": None}
    assert [check.id for check in trail] == [check.id for check in verified.checks]
    assert all(check.ok for check in trail)
    assert verified.coco_claims == {
        "version": "1",
        "policy": {
            "nodbg": 1, "noks": 0, "es": 0, "nosend": 0, "domain": 0, "csv": 0, "csv3": 0, "asid_reuse": 0,
            "hsk_version": 0, "cek_version": 0, "api_major": 0, "api_minor": 0,
        },
        "user_pubkey_digest": "00" * 32,
        "vm_id": "00" * 16,
        "vm_version": "00" * 16,
        "report_data": DATA.hex(),
        "mnonce": bytes(range(16)).hex(),
        "measure": "11" * 32,
        "sig_usage": "02100000",
        "sig_algo": "04000000",
        "serial_number": "DEVTEE0001",
        "anonce": "01234567",
    }  # fmt: skip


def test_revocation_that_is_not_wanted_is_told(chip: Any) -> None:
    verified = tee.verify(
        "csv", chip.report(), endorsements=chip.endorsements, now=NOW, anchors=chip.anchors,
        revocation=Revocation.UNCHECKED_AS_ASKED,
    )  # fmt: skip
    assert verified.unchecked[0] == "revocation"


def test_what_is_verified_of_version_2(chip: Any) -> None:
    raw = chip.report(version=2)
    for evidence in (raw, forging.page(raw), forging.wrapped(raw), chip.json(raw)):
        verified = chip.verify(evidence)
        assert {"rtmr_version", "build", "rtmr0", "rtmr4"} <= verified.coco_claims.keys()
        assert "anonce" not in verified.coco_claims
        assert verified.coco_claims["version"] == "2"
        assert verified.coco_claims["rtmr0"] == verified.coco_claims["measure"]
        assert verified.tcb["build"] == 2068


def test_json_and_raw_say_the_same(chip: Any) -> None:
    raw = chip.report()
    text = chip.json(raw)
    one, other = chip.verify(raw), chip.verify(text, endorsements=EndorsementSet.parse([chip.hrk]))
    assert dict(one.coco_claims) == dict(other.coco_claims)
    assert one.claims["platform_id"] == other.claims["platform_id"]
    assert "signer_mac" in other.unchecked
    assert "hmac_of_signer_block" not in other.claims


def test_the_block_inside_the_json_is_not_looked_at(chip: Any) -> None:
    """The guest's library unmasks it in place, and clears what its MAC covers."""
    raw = chip.report()
    anonce = raw[188:192]
    block = forging.mask(raw[336:2516], anonce)
    restored = raw[:336] + block[:2148] + bytes(32) + raw[2516:]
    value = json.loads(chip.json(raw))
    value["attestation_report"]["data"] = list(forging.page(restored))
    assert chip.verify(json.dumps(value).encode()).claims["fields_bound"] is True


# The event log

COCO_HEADER = bytes.fromhex("0000000003000000" + "00" * 20 + "25000000" + "00" * 24 + "020000000c0030001200200000")


def log_of(*events: tuple[int, str]) -> bytes:
    """A log as CoCo's guest begins and goes on with it."""
    return COCO_HEADER + b"".join(
        record(ApplicationEvent("domain", "operation", text), register, SM3) for register, text in events
    )


def registers_of(log: bytes) -> tuple[bytes, ...]:
    values = replay.replay(EventLog.parse(log), SM3)
    return tuple(values.get(index, bytes(32)) for index in range(1, 5))


def with_registers(chip: Any, registers: tuple[bytes, ...], log: bytes) -> bytes:
    report = chip.report(version=2, measure=b"\x11" * 32, registers=(b"\x11" * 32, *registers))
    text: bytes = chip.json(report, log=log)
    return text


def test_an_event_log_that_leads_to_other_registers(chip: Any) -> None:
    log = log_of((1, "a"), (4, "b"))
    for other in (log_of((1, "a")), log_of((4, "b"), (4, "a")), log_of((1, "a"), (4, "b"), (2, "c")), log_of()):
        evidence = with_registers(chip, registers_of(other), log)
        assert code_of(chip, evidence, EvidenceError) == "event_log_mismatch"
    assert code_of(chip, with_registers(chip, registers_of(log), b"\1"), MalformedEvidence)


def test_an_event_log_that_replays(chip: Any) -> None:
    log = log_of((1, "a"), (4, "b"), (4, "c"))
    verified = chip.verify(with_registers(chip, registers_of(log), log))
    events: Any = verified.coco_claims["uefi_event_logs"]
    assert [event["index"] for event in events] == [1, 4, 4]
    assert "event_log" not in verified.unchecked
    assert "event_log" in [check.id for check in verified.checks]


def test_version_1_has_no_registers_for_a_log(chip: Any) -> None:
    verified = chip.verify(chip.json(log=log_of((1, "a"))))
    assert "uefi_event_logs" not in verified.coco_claims
    assert "event_log" in verified.unchecked


# Remembering


def test_a_remembered_chain_changes_nothing(chip: Any) -> None:
    memory = tee.Remembered()
    first = chip.verify(chip.report(vm_id=b"\1" * 16), remembered=memory)
    for _ in range(2):
        assert chip.verify(chip.report(vm_id=b"\1" * 16), remembered=memory) == first
    assert len(memory) == 1
    for evidence, code in (
        (forging.shifted(chip.report(), b"\1\0\0\0"), "report_data_mismatch"),
        (flip(chip.report(), 8 * 200), "report_sig"),
        (flip(chip.report(), 8 * 2540), "signer_mac"),
    ):
        assert code_of(chip, evidence, remembered=memory) == code
    assert len(memory) == 1


def test_what_is_remembered_is_for_these_anchors_and_endorsements(chip: Any, stranger: Any) -> None:
    memory = tee.Remembered()
    chip.verify(chip.report(), remembered=memory)
    assert code_of(chip, chip.report(), remembered=memory, anchors=stranger.anchors) == "hrk_untrusted"
    assert code_of(chip, chip.report(), remembered=memory, endorsements=EndorsementSet()) == "cek_missing"
    assert len(memory) == 1


@pytest.mark.vectors
def test_the_real_report(vectors: Path, chip: Any) -> None:
    report = (vectors / "csv" / "report.cert").read_bytes()
    pool = EndorsementSet.parse([(vectors / "csv" / "hsk_cek.cert").read_bytes()])
    data = b"user data".ljust(64, b"\0")
    memory = tee.Remembered()
    for _ in range(3):
        verified = chip.verify(report, endorsements=pool, anchors=TrustAnchors(), report_data=data, remembered=memory)
        assert verified.root is RootKind.VENDOR
        assert verified.claims["debug"] is False
        assert verified.claims["fields_bound"] is True
    with_root = EndorsementSet.parse([(vectors / "roots" / "hygon-hrk.cert").read_bytes()]).with_all(pool)
    custom = TrustAnchors(vendor=False, custom=frozenset({chains.ROOT_FINGERPRINT}))
    assert chip.verify(report, endorsements=with_root, anchors=custom, report_data=data).root is RootKind.CUSTOM
    for bit in range(8 * 180):
        with pytest.raises(EvidenceError):
            chip.verify(
                flip(report, bit), endorsements=pool, anchors=TrustAnchors(), report_data=None, remembered=memory
            )
    for delta in (b"\1\0\0\0", b"\0\0\0\x80"):
        changed = forging.shifted(report, delta)
        assert (
            code_of(chip, changed, endorsements=pool, anchors=TrustAnchors(), report_data=data)
            == "report_data_mismatch"
        )
