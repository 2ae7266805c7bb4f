"""What may be claimed from event data: every trick that the specification's silence allows, then honest logs."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tee.eventlog.building import BANKS, booted

from adyton.devtee.tpm import SoftTpm, digest, efi_variable
from adyton.errors import EvidenceError
from adyton.tee.eventlog import tagged, uki
from adyton.tee.eventlog.banks import SHA1, SHA256, SHA384, SHA512
from adyton.tee.eventlog.bound import Bound, explain
from adyton.tee.eventlog.facts import application_events, check_data, facts
from adyton.tee.eventlog.kinds import (
    EFI_ACTION,
    EFI_VARIABLE_BOOT,
    EFI_VARIABLE_DRIVER_CONFIG,
    EVENT_TAG,
    IPL,
    SEPARATOR,
)
from adyton.tee.eventlog.log import EventLog

ALL = range(24)


def parsed(tpm: SoftTpm) -> EventLog:
    return EventLog.parse(tpm.log())


def relabel(tpm: SoftTpm, number: int, kind: int, data: bytes | None = None) -> None:
    register, _, digests, old = tpm.events[number]
    tpm.events[number] = (register, kind, digests, old if data is None else data)


def secure_boot(tpm: SoftTpm) -> object:
    found = facts(parsed(tpm), SHA256, quoted=ALL)
    assert (found.claims["secure_boot"] is None) == any(problem.startswith("pcr07") for problem in found.problems)
    return found.claims["secure_boot"]


def number_of(tpm: SoftTpm, register: int, kind: int) -> int:
    return next(i for i, item in enumerate(tpm.events) if item[:2] == (register, kind))


def test_go_attestation_event_log_disclosure_a_relabelled_event_and_a_forged_one_give_no_claim() -> None:
    # go-attestation, event-log disclosure: the real event gets a type that readers skip, one's own is extended later
    tpm = booted(secure_boot=b"\0")
    relabel(tpm, number_of(tpm, 7, EFI_VARIABLE_DRIVER_CONFIG), 0x12345678)
    tpm.measure(7, EFI_VARIABLE_DRIVER_CONFIG, efi_variable("SecureBoot", b"\1"))
    assert secure_boot(tpm) is None
    check_data(parsed(tpm), SHA256, tee="tpm")  # which alone would not have told


def test_a_separator_under_another_label_is_still_one() -> None:
    tpm = booted(secure_boot=b"\0")
    first = number_of(tpm, 7, SEPARATOR)
    relabel(tpm, number_of(tpm, 7, EFI_VARIABLE_DRIVER_CONFIG), EFI_ACTION)
    relabel(tpm, first, 0x80000003)
    tpm.measure(7, EFI_VARIABLE_DRIVER_CONFIG, efi_variable("SecureBoot", b"\1"))
    tpm.measure(7, SEPARATOR, bytes(4))
    assert secure_boot(tpm) is None
    assert 7 not in facts(parsed(tpm), SHA256, quoted=ALL).claims["separators"]  # type: ignore[operator]


@pytest.mark.parametrize("count", [0, 2])
def test_one_separator_belongs_into_each_register_of_the_firmware(count: int) -> None:
    tpm = booted()
    if count == 2:
        tpm.measure(7, SEPARATOR, bytes(4))
    else:
        del tpm.events[number_of(tpm, 7, SEPARATOR)]
    assert secure_boot(tpm) is None


def test_a_separator_that_tells_of_an_error_is_none() -> None:
    tpm = booted()
    tpm.events[number_of(tpm, 7, SEPARATOR)] = (7, SEPARATOR, {b: digest(b, b"\1\0\0\0") for b in BANKS}, b"\1\0\0\0")
    assert secure_boot(tpm) is None


@pytest.mark.parametrize("content", [b"\2", b"\1\0"])
def test_a_state_that_is_not_clear_is_none(content: bytes) -> None:
    assert secure_boot(booted(secure_boot=content)) is None


def test_a_variable_twice_or_of_another_vendor_gives_no_claim() -> None:
    tpm = booted()
    tpm.events.insert(2, tpm.events[number_of(tpm, 7, EFI_VARIABLE_DRIVER_CONFIG)])
    assert secure_boot(tpm) is None
    foreign = SoftTpm(None)  # type: ignore[arg-type]
    foreign.reset(BANKS)
    foreign.measure(7, EFI_VARIABLE_DRIVER_CONFIG, efi_variable("SecureBoot", b"\1", vendor=bytes(16)))
    foreign.measure(7, SEPARATOR, bytes(4))
    assert secure_boot(foreign) is None


def test_a_state_after_the_separator_is_none() -> None:
    tpm = SoftTpm(None)  # type: ignore[arg-type]
    tpm.reset(BANKS)
    tpm.measure(7, 3, b"for information")
    tpm.measure(7, SEPARATOR, bytes(4))
    tpm.measure(7, EFI_VARIABLE_DRIVER_CONFIG, efi_variable("SecureBoot", b"\1"))
    assert secure_boot(tpm) is None


def test_data_that_is_not_what_was_measured_is_refused_and_gives_no_claim() -> None:
    tpm = booted(secure_boot=b"\0")
    at = number_of(tpm, 7, EFI_VARIABLE_DRIVER_CONFIG)
    relabel(tpm, at, EFI_VARIABLE_DRIVER_CONFIG, efi_variable("SecureBoot", b"\1"))
    with pytest.raises(EvidenceError) as caught:
        check_data(parsed(tpm), SHA256, tee="tpm")
    assert caught.value.code == "event_data_digest_mismatch"
    assert str(caught.value.field).startswith(f"event {at},")
    assert secure_boot(tpm) is None
    check_data(parsed(tpm), SHA256, tee="tpm", registers=[0, 4])
    check_data(parsed(tpm), SHA256, tee="tpm", kinds_of=[SEPARATOR])
    with pytest.raises(EvidenceError):
        check_data(parsed(tpm), SHA512, tee="tpm")


@pytest.mark.parametrize("state", [b"\1", b"\0", b""])
def test_an_honest_log_tells_the_state(state: bytes) -> None:
    found = facts(parsed(booted(secure_boot=state)), SHA256, quoted=ALL)
    assert found.claims["secure_boot"] is (state == b"\1")
    assert found.claims["separators"] == [*range(8)]
    assert found.claims["secure_boot_keys"] == {
        n: digest("sha256", n.lower().encode()).hex() for n in ("PK", "KEK", "db", "dbx")
    }
    assert found.problems == ()


def test_only_quoted_registers_and_banks_of_the_log_give_claims() -> None:
    found = facts(parsed(booted()), SHA256, quoted=range(7))
    assert found.claims["secure_boot"] is None
    assert found.problems == ()
    assert facts(parsed(booted()), SHA512, quoted=ALL).problems == ("no digests of bank sha512",)


def test_real_logs_tell_their_state(vectors: Path) -> None:
    states = {
        "cos-85-amd-sev": True,
        "debian-10": True,
        "rhel8-uefi": True,
        "ubuntu-2104-no-dbx": False,
        "keylime-fedora": False,
        "gdc-host": False,
    }
    for name, state in states.items():
        log = EventLog.parse((vectors / "tpm" / "event-logs" / f"{name}.bin").read_bytes())
        for bank in log.banks:
            check_data(log, bank, tee="tpm")
            found = facts(log, bank, quoted=ALL)
            assert found.claims["secure_boot"] is state, name
            assert found.problems == ()


def application(tpm: SoftTpm, content: str, *, register: int = 15) -> None:
    tpm.measure(register, EVENT_TAG, tagged.encode(tagged.ApplicationEvent("example.com", "op", content)))


def test_application_events_count_only_where_their_digest_covers_them() -> None:
    tpm = booted()
    application(tpm, "honest")
    application(tpm, '{"image": "x", "n": [1]}')
    application(tpm, "elsewhere", register=14)
    data = tagged.encode(tagged.ApplicationEvent("example.com", "op", "forged"))
    tpm.measure(15, EVENT_TAG, data, b"something else")
    tpm.measure(15, EVENT_TAG, b"\1\0\0\0\0\0\0\0")
    found = application_events(parsed(tpm), SHA256, quoted=[15])
    contents = [item["content"] for item in found]  # type: ignore[index, call-overload]
    assert contents == ["honest", {"image": "x", "n": [1]}]
    assert facts(parsed(tpm), SHA256, quoted=[15]).claims["application_events"] == found
    assert application_events(parsed(tpm), SHA512, quoted=[15]) == []


def test_a_boot_variable_is_no_application_event() -> None:
    """Its content, which the host chooses, is all that is hashed in PCR 1: with another label it would look like one."""
    tpm = booted()
    content = tagged.encode(tagged.ApplicationEvent("github.com/confidential-containers", "PullImage", "trusted"))
    tpm.measure(1, EFI_VARIABLE_BOOT, efi_variable("Boot0001", content), content)
    relabel(tpm, number_of(tpm, 1, EFI_VARIABLE_BOOT), EVENT_TAG, content)
    assert facts(parsed(tpm), SHA256, quoted=ALL).claims["application_events"] == []


@pytest.mark.parametrize(
    ("kind", "data", "hashed", "expected"),
    [
        (IPL, b"grub_cmd: set a=b\0", b"set a=b", Bound.COMMAND),
        (IPL, b"kernel_cmdline: ro quiet\0", b"ro quiet", Bound.COMMAND),
        (IPL, ".linux\0".encode("utf-16-le"), b".linux\0", Bound.NAME),
        (IPL, b"/boot/vmlinuz\0", b"a file", Bound.NOTHING),
        (0x80000002, efi_variable("Boot0000", b"path"), b"path", Bound.VARIABLE),
        (0x800000E0, b"short", b"path", Bound.NOTHING),
        (EFI_ACTION, b"Exit", b"Exit", Bound.DATA),
        (0x80000008, b"blob", b"memory", Bound.NOTHING),
    ],
)
def test_what_a_digest_covers(kind: int, data: bytes, hashed: bytes, expected: Bound) -> None:
    for bank in (SHA1, SHA256, SHA384):
        assert explain(kind, data, bank.new(hashed).digest(), bank) is expected


def test_sections_of_a_unified_kernel_image_are_pairs_of_events() -> None:
    tpm = booted()
    for name, content in ((".linux", b"kernel"), (".osrel", b"ID=x"), (".cmdline", b"ro\0")):
        label = f"{name}\0".encode("utf-16-le")
        tpm.measure(11, IPL, label, name.encode() + b"\0")
        tpm.measure(11, IPL, label, content)
    tpm.measure(11, IPL, b"enter-initrd")
    tpm.measure(11, IPL, ".false\0".encode("utf-16-le"), b"whatever")
    found = uki.sections(parsed(tpm), SHA256)
    assert [item.name for item in found] == [".linux", ".osrel", ".cmdline"]
    assert found[0].digest == digest("sha256", b"kernel")
    assert uki.sections(parsed(tpm), SHA512) == []
    assert uki.sections(parsed(tpm), SHA256, register=12) == []
