"""Everything that must be refused, by name; then what must be accepted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.tee.nvidia.conftest import GOLDEN, NONCE, NOW, VBIOS, Verify

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee import nvidia_endorsements as made
from adyton.devtee.forge import flip
from adyton.devtee.nvidia import FIRMWARE, NvidiaForge, ReportFields, gpu_opaque, switch_opaque
from adyton.errors import (
    AdytonError,
    BindingMismatch,
    EndorsementExpired,
    EndorsementMalformed,
    EndorsementMissing,
    EndorsementRevoked,
    EndorsementUntrusted,
    EvidenceError,
    MalformedEvidence,
    SignatureInvalid,
)
from adyton.rats.types import SHARED_CLAIMS, Check, ReportData, Revocation, RootKind, TrustAnchors
from adyton.tee.nvidia.json_form import Device, to_json
from adyton.tee.nvidia.verify import is_protected_pcie, verify_devices

DAY = timedelta(days=1)
YEAR = timedelta(days=366)


def refused(kind: type[AdytonError], code: str, call: Callable[[], object]) -> AdytonError:
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.code == code
    return caught.value


def json_of(forge: NvidiaForge, report: bytes, arch: str = "HOPPER", uuid: str | None = None) -> bytes:
    return to_json((Device(report, forge.pem, arch, uuid),))


# Certificates


def test_no_certificate(forge: NvidiaForge, verify: Verify, answers: list[bytes]) -> None:
    refused(EndorsementMissing, "leaf_missing", lambda: verify(forge.report(), answers))


@pytest.mark.parametrize("missing", range(5))
def test_a_chain_with_a_gap(forge: NvidiaForge, verify: Verify, answers: list[bytes], missing: int) -> None:
    holders = [holder for number, holder in enumerate(forge.device) if number != missing]
    codes = ("leaf_missing", "chip_missing", "provisioner_missing", "identity_missing", "root_missing")
    refused(EndorsementMissing, codes[missing], lambda: verify(forge.report(), [made.pem(holders), *answers]))


def test_a_root_does_not_stand_in_for_missing_authorities(forge: NvidiaForge, verify: Verify) -> None:
    root = forge.device[4]
    short = NvidiaForge(NOW, "GH100", (forge.device[0], root, root, root, root), forge.manifest).with_leaf()
    call = lambda: verify(short.report(), [made.pem(short.device)], revocation=Revocation.UNCHECKED_AS_ASKED)  # noqa: E731
    refused(EndorsementUntrusted, "chip_self_issued", call)


def test_a_leaf_of_other_hands(forge: NvidiaForge, other: NvidiaForge, verify: Verify, answers: list[bytes]) -> None:
    mixed = replace(other, device=(other.device[0], *forge.device[1:]))
    refused(EndorsementMissing, "chip_missing", lambda: verify(mixed.report(), [mixed.pem, *answers]))


def test_another_makers_root(forge: NvidiaForge, other: NvidiaForge, verify: Verify) -> None:
    error = refused(
        EndorsementUntrusted, "root_untrusted", lambda: verify(other.report(), [other.pem, *other.answers()])
    )
    assert error.got == other.device[4].spki_fingerprint


def test_a_device_root_is_not_nvidias_by_its_name(forge: NvidiaForge, verify: Verify) -> None:
    refused(EndorsementUntrusted, "root_untrusted", lambda: verify(forge.report(), anchors=TrustAnchors()))


def test_an_authority_is_no_leaf(forge: NvidiaForge, verify: Verify, answers: list[bytes]) -> None:
    bad = forge.with_leaf(ca=True)
    refused(EndorsementMissing, "leaf_missing", lambda: verify(bad.report(), [bad.pem, *answers]))


@pytest.mark.parametrize(("start", "word"), [(NOW - 20 * YEAR, "expired"), (NOW + DAY, "not valid yet")])
def test_a_leaf_out_of_its_time(
    forge: NvidiaForge, verify: Verify, answers: list[bytes], start: object, word: str
) -> None:
    bad = forge.with_leaf(start=start)  # type: ignore[arg-type]
    error = refused(EndorsementExpired, "leaf_validity", lambda: verify(bad.report(), [bad.pem, *answers]))
    assert word in error.message


def test_an_unknown_generation(verify: Verify) -> None:
    strange = NvidiaForge.new(NOW, chip="XY100")
    refused(EndorsementMalformed, "leaf_arch", lambda: verify(strange.report(), [strange.pem]))


# Revocation


def test_without_answers_nothing_is_known(forge: NvidiaForge, verify: Verify) -> None:
    refused(EndorsementMissing, "revocation_unknown", lambda: verify(forge.report(), [forge.pem]))


@pytest.mark.parametrize("at", [1, 2, 3])
def test_each_authority_needs_an_answer(forge: NvidiaForge, verify: Verify, answers: list[bytes], at: int) -> None:
    given = [forge.pem, *(answer for number, answer in enumerate(answers) if number != at - 1)]
    error = refused(EndorsementMissing, "revocation_unknown", lambda: verify(forge.report(), given))
    assert error.field == ("chip", "provisioner", "identity")[at - 1]


@pytest.mark.parametrize(
    ("about", "field"), [("BROM", "chip"), ("Provisioner", "provisioner"), ("GH100 Identity", "identity")]
)
@pytest.mark.parametrize("status", ["revoked", "hold"])
def test_revoked_or_on_hold(forge: NvidiaForge, verify: Verify, about: str, field: str, status: str) -> None:
    given = [forge.pem, *forge.answers(status, about=about)]
    code = {"revoked": "revoked", "hold": "held"}[status]
    refused(EndorsementRevoked, f"{field}_{code}", lambda: verify(forge.report(), given))


def test_a_good_answer_does_not_outweigh_revoked(forge: NvidiaForge, verify: Verify, answers: list[bytes]) -> None:
    stale = forge.answers("revoked", about="BROM", now=NOW - 30 * DAY)
    refused(EndorsementRevoked, "chip_revoked", lambda: verify(forge.report(), also=stale))


def test_a_hold_that_has_run_out_is_over(forge: NvidiaForge, verify: Verify) -> None:
    verify(forge.report(), also=forge.answers("hold", now=NOW - 30 * DAY))


@pytest.mark.parametrize("shift", [-30 * DAY, 30 * DAY])
def test_answers_that_are_not_fresh(forge: NvidiaForge, verify: Verify, shift: timedelta) -> None:
    given = [forge.pem, *forge.answers(now=NOW + shift)]
    refused(EndorsementExpired, "ocsp_validity", lambda: verify(forge.report(), given, now=NOW))


def test_an_answer_of_unknown(forge: NvidiaForge, verify: Verify) -> None:
    refused(
        EndorsementMissing, "revocation_unknown", lambda: verify(forge.report(), [forge.pem, *forge.answers("unknown")])
    )


def test_an_unreadable_answer_is_named_when_it_is_all_there_is(forge: NvidiaForge, verify: Verify) -> None:
    broken = bytes.fromhex("30030a0106")
    refused(EndorsementMalformed, "ocsp_malformed", lambda: verify(forge.report(), [forge.pem, broken]))


def test_a_broken_answer_beside_good_ones_is_no_harm(forge: NvidiaForge, verify: Verify) -> None:
    verify(forge.report(), also=[bytes.fromhex("30030a0106")])


def test_a_crl_where_there_is_no_answer(forge: NvidiaForge, verify: Verify, answers: list[bytes]) -> None:
    given = [forge.pem, *answers[1:]]
    good = verify(forge.report(), [*given, crl(forge, ())])
    assert good.coco_claims["x-nvidia-gpu-attestation-report-cert-chain"] == {
        "x-nvidia-cert-status": "valid",
        "x-nvidia-cert-expiration-date": "2036-05-29T11:00:00Z",
    }
    bad = crl(forge, (forge.device[1].certificate.serial_number,))
    refused(EndorsementRevoked, "chip_revoked", lambda: verify(forge.report(), [*given, bad]))


def crl(forge: NvidiaForge, revoked: tuple[int, ...]) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA384

    issuer = forge.device[2]
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(NOW - DAY)
        .next_update(NOW + DAY)
    )
    for serial in revoked:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - DAY).build()
        )
    return builder.sign(issuer.key, SHA384()).public_bytes(Encoding.DER)


# The report


def test_another_nonce(forge: NvidiaForge, verify: Verify) -> None:
    refused(BindingMismatch, "report_data_mismatch", lambda: verify(forge.report(), nonce=bytes(31) + b"\1"))


def test_a_nonce_of_another_length_is_misuse(forge: NvidiaForge, verify: Verify) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        verify(forge.report(), nonce=bytes(range(48)))
    with pytest.raises(ValueError, match="init data"):
        tee.verify(
            "nvidia",
            forge.report(),
            endorsements=EndorsementSet(),
            now=NOW,
            anchors=TrustAnchors(),
            init_data=b"x",
        )


def test_a_signature_of_another_key(forge: NvidiaForge, other: NvidiaForge, verify: Verify) -> None:
    for key in (other.device[0].key, forge.device[1].key):
        report = forge.report(key=key)
        refused(SignatureInvalid, "report_sig", lambda report=report: verify(report))  # type: ignore[misc]


def test_one_flipped_bit_anywhere(forge: NvidiaForge, verify: Verify) -> None:
    report = forge.report()
    memory = tee.Remembered()
    verify(report, remembered=memory)
    for bit in [*range(0, 8 * len(report), 1009), 8 * 4, 8 * 35, 8 * (len(report) - 1), 8 * (len(report) - 60)]:
        with pytest.raises(EvidenceError):
            verify(flip(report, bit), remembered=memory, nonce=None)


def test_swapped_and_out_of_range_signatures(forge: NvidiaForge, verify: Verify) -> None:
    report = forge.report()
    signed, r, s = report[:-96], report[-96:-48], report[-48:]
    for bad in (s + r, bytes(96), r + bytes(48), r[::-1] + s[::-1], b"\xff" * 96):
        refused(SignatureInvalid, "report_sig", lambda bad=bad: verify(signed + bad))  # type: ignore[misc]


def test_other_firmware_than_the_leaf_was_issued_for(forge: NvidiaForge, verify: Verify) -> None:
    report = forge.report(ReportFields(opaque=gpu_opaque(fwid=bytes(48))))
    refused(BindingMismatch, "fwid_mismatch", lambda: verify(report))


def test_a_report_without_firmware_id_says_so(forge: NvidiaForge, verify: Verify) -> None:
    got = verify(forge.report(ReportFields(opaque={**gpu_opaque(), 20: None})))
    assert "fwid" in got.unchecked
    assert got.claims["fwid_match"] is None
    assert "x-nvidia-gpu-attestation-report-cert-chain-fwid-match" not in got.coco_claims


@pytest.mark.parametrize(("listed", "match"), [((bytes(48), FIRMWARE), True), ((bytes(48),), None)])
def test_blackwells_leaf_lists_firmware_ids(verify: Verify, listed: tuple[bytes, ...], match: bool | None) -> None:
    forge = NvidiaForge.new(NOW, chip="GB100").with_device(tcb_info=listed)
    got = verify(
        forge.report(),
        [forge.pem, *forge.answers()],
        anchors=TrustAnchors(vendor=False, custom=forge.anchors),
    )
    assert got.claims["arch"] == "BLACKWELL"
    assert got.claims["fwid_match"] is match
    assert ("fwid" in got.unchecked) is (match is None)


@pytest.mark.parametrize("content", [b"", b"\x30\x00", b"\x30\x03\x02\x01\x01", b"\x30\x05\x02\x01\x01\x30\x00"])
def test_a_leaf_whose_extension_cannot_be_read(forge: NvidiaForge, verify: Verify, content: bytes) -> None:
    from adyton.devtee.nvidia import FWID_OID

    broken = x509.UnrecognizedExtension(FWID_OID, content)
    leaf = made.new_holder("GH100 A01 GSP FMC LF", NOW, issuer=forge.device[1], ca=False, extensions=[broken])
    bad = replace(forge, device=(leaf, *forge.device[1:]))
    refused(EndorsementMalformed, "leaf_extensions", lambda: verify(bad.report(), [bad.pem]))


# CoCo's JSON


def test_an_architecture_that_the_certificate_denies(forge: NvidiaForge, verify: Verify, answers: list[bytes]) -> None:
    refused(BindingMismatch, "arch_mismatch", lambda: verify(json_of(forge, forge.report(), "BLACKWELL"), answers))


def test_json_of_one_device(forge: NvidiaForge, verify: Verify, answers: list[bytes]) -> None:
    got = verify(json_of(forge, forge.report(), uuid="GPU-1"), answers)
    assert (got.tee_class, got.coco_claims["arch"], got.coco_claims["uuid"]) == ("gpu", "Hopper", "GPU-1")
    assert got.unchecked == ("measurements", "uuid")
    assert "uuid" not in got.claims


def fleet(forge: NvidiaForge, gpus: int, switches: int, nonce: bytes = NONCE) -> tuple[list[NvidiaForge], bytes]:
    devices = [forge.with_device() for _ in range(gpus)]
    family = NvidiaForge(NOW, "LS_10", forge.device, forge.manifest)
    devices += [family.with_device() for _ in range(switches)]
    listed = tuple(
        Device(
            one.report(ReportFields(nonce=nonce, opaque=switch_opaque() if one.chip == "LS_10" else gpu_opaque())),
            one.pem,
            "LS10" if one.chip == "LS_10" else "HOPPER",
        )
        for one in devices
    )
    return devices, to_json(listed)


def test_several_devices_each_verify(forge: NvidiaForge, verify: Verify) -> None:
    devices, evidence = fleet(forge, 2, 1)
    answers = [answer for one in devices for answer in one.answers()]
    trail: list[Check] = []
    got = verify(evidence, answers, trail=trail)
    assert got.tee_class == "gpu"
    assert not set(got.coco_claims) & {"arch", "measres"}
    listed = got.claims["devices"]
    assert isinstance(listed, list)
    assert [one["arch"] for one in listed] == ["HOPPER", "HOPPER", "LS10"]  # type: ignore[index, call-overload]
    assert {check.group for check in trail} >= {"device 0: report", "device 2: certificates"}
    each = verify_devices(
        evidence,
        endorsements=EndorsementSet.parse(answers),
        now=NOW,
        anchors=TrustAnchors(vendor=False, custom=forge.anchors),
        report_data=ReportData(NONCE),
    )
    assert [one.tee_class for one in each] == ["gpu", "gpu", "switch"]
    assert not is_protected_pcie(each)
    assert is_protected_pcie((*(each[:1] * 8), *(each[2:] * 4)))


def test_one_device_does_not_stand_for_two(forge: NvidiaForge, verify: Verify, answers: list[bytes]) -> None:
    twice = to_json((Device(forge.report(), forge.pem, "HOPPER"),) * 2)
    refused(BindingMismatch, "device_repeated", lambda: verify(twice, answers))
    again = forge.with_leaf()  # the same chip under another leaf
    both = to_json((Device(forge.report(), forge.pem, "HOPPER"), Device(again.report(), again.pem, "HOPPER")))
    refused(BindingMismatch, "device_repeated", lambda: verify(both, answers))


def test_devices_for_different_nonces(forge: NvidiaForge, verify: Verify) -> None:
    one, two = forge.with_device(), forge.with_device()
    late = two.report(ReportFields(nonce=bytes(32), opaque=gpu_opaque()))
    evidence = to_json((Device(one.report(), one.pem, "HOPPER"), Device(late, two.pem, "HOPPER")))
    refused(BindingMismatch, "nonces_differ", lambda: verify(evidence, [*one.answers(), *two.answers()], nonce=None))


def test_one_bad_device_spoils_all(forge: NvidiaForge, verify: Verify) -> None:
    one, two = forge.with_device(), forge.with_device()
    evidence = to_json(
        (Device(one.report(), one.pem, "HOPPER"), Device(two.report(key=one.device[0].key), two.pem, "HOPPER"))
    )
    refused(SignatureInvalid, "report_sig", lambda: verify(evidence, [*one.answers(), *two.answers()]))


# What is accepted


def test_a_raw_report(forge: NvidiaForge, verify: Verify) -> None:
    trail: list[Check] = []
    got = verify(forge.report(), trail=trail)
    assert (got.tee, got.tee_class, got.root, got.unchecked) == ("nvidia", "gpu", RootKind.CUSTOM, ("measurements",))
    assert set(SHARED_CLAIMS) <= set(got.claims)
    assert got.claims["measurements_match"] is None
    assert got.claims["debug"] is None
    assert "measres" not in got.coco_claims
    assert got.report_data == ReportData(NONCE)
    assert got.expires == NOW - timedelta(hours=1) + DAY
    assert got.expires_first.startswith("OCSP answer")
    assert [check.id for check in trail] == [check.id for check in got.checks]
    assert all(
        check.ok and check.got is not None for check in trail if check.id in {"revocation", "report_data", "fwid"}
    )


def test_the_failing_check_ends_the_trail(forge: NvidiaForge, verify: Verify) -> None:
    trail: list[Check] = []
    with pytest.raises(SignatureInvalid):
        verify(forge.report(key=forge.device[1].key), trail=trail)
    assert (trail[-1].id, trail[-1].ok) == ("report_sig", False)


def test_revocation_left_out_on_request_is_said(forge: NvidiaForge, verify: Verify) -> None:
    got = verify(forge.report(), [forge.pem], revocation=Revocation.UNCHECKED_AS_ASKED, nonce=None)
    assert got.unchecked == ("revocation", "report_data", "measurements")
    chain = got.coco_claims["x-nvidia-gpu-attestation-report-cert-chain"]
    assert isinstance(chain, dict)
    assert "x-nvidia-cert-ocsp-status" not in chain
    assert "x-nvidia-gpu-attestation-report-nonce-match" not in got.coco_claims


def test_among_many_leaves_the_one_that_signed(forge: NvidiaForge, verify: Verify) -> None:
    family = [forge.with_device() for _ in range(4)]
    given = [made.pem(one.device) for one in family] + [answer for one in family for answer in one.answers()]
    memory = tee.Remembered()
    for _ in range(2):
        for one in family:
            got = verify(one.report(), given, remembered=memory)
            assert got.claims["platform_id"] == f"{one.device[1].certificate.serial_number:x}"
    refused(SignatureInvalid, "report_sig", lambda: verify(forge.report(), given, remembered=memory))


def test_a_remembered_chain_gives_the_same_and_ends_in_time(
    forge: NvidiaForge, verify: Verify, driver_rim: bytes, vbios_rim: bytes
) -> None:
    memory = tee.Remembered()
    rims = [driver_rim, vbios_rim]
    first = verify(forge.report(), also=rims, remembered=memory)
    second = verify(forge.report(), also=rims, remembered=memory)
    assert (second.claims, second.coco_claims, second.checks) == (first.claims, first.coco_claims, first.checks)
    second.claims["chain"].append("changed")  # type: ignore[union-attr]
    second.coco_claims["config"]["fwid"] = "changed"  # type: ignore[call-overload, index]
    assert verify(forge.report(), also=rims, remembered=memory).claims == first.claims
    assert verify(forge.report(), also=rims, remembered=memory).coco_claims == first.coco_claims
    refused(
        EndorsementExpired,
        "ocsp_validity",
        lambda: verify(forge.report(), also=rims, remembered=memory, now=NOW + 2 * DAY),
    )


def test_a_memory_ends_when_a_responder_that_holds_back_becomes_valid(
    forge: NvidiaForge, verify: Verify, answers: list[bytes]
) -> None:
    hour, chip, issuer = timedelta(hours=1), forge.device[1], forge.device[2]
    late = next(
        own
        for own in (made.new_responder(issuer, NOW + timedelta(days=days)) for days in range(4000))
        if own.certificate.not_valid_before_utc > NOW
    )
    begins = late.certificate.not_valid_before_utc
    held = made.answer(chip, issuer, NOW, status="hold", responder=late, lifetime=begins - NOW + 9 * DAY)
    given = [forge.pem, *forge.answers(lifetime=begins - NOW + 9 * DAY), held]
    memory = tee.Remembered()
    verify(forge.report(), given, remembered=memory, now=begins - hour)
    for remembered in (None, memory):
        refused(
            EndorsementRevoked,
            "chip_held",
            lambda: verify(forge.report(), given, remembered=remembered, now=begins + hour),  # noqa: B023
        )


def test_what_fails_is_not_remembered(forge: NvidiaForge, other: NvidiaForge, verify: Verify) -> None:
    """Else anybody could push verified chains out of the memory, with certificates of their own each time."""
    memory = tee.Remembered()
    refused(EndorsementUntrusted, "root_untrusted", lambda: verify(json_of(other, other.report()), remembered=memory))
    assert len(memory) == 0
    verify(json_of(forge, forge.report()), remembered=memory)
    assert len(memory) == 2


def test_certificates_without_end(forge: NvidiaForge, verify: Verify) -> None:
    with pytest.raises(ValueError, match="65536 characters"):
        to_json((Device(forge.report(), forge.pem + b" " * 65536, "HOPPER"),))
    document = json_of(forge, forge.report()).replace(b'"certificate":"', b'"certificate":"' + b"ICAg" * 16384)
    refused(MalformedEvidence, "json_malformed", lambda: verify(document))


def test_what_is_remembered_depends_on_versions(
    forge: NvidiaForge, verify: Verify, driver_rim: bytes, vbios_rim: bytes
) -> None:
    memory = tee.Remembered()
    rims = [driver_rim, vbios_rim]
    verify(forge.report(), also=rims, remembered=memory)
    other = forge.report(ReportFields(opaque=gpu_opaque(driver="999.1.2")))
    refused(EndorsementMissing, "driver_rim_missing", lambda: verify(other, also=rims, remembered=memory))


def test_a_switch(verify: Verify) -> None:
    forge = NvidiaForge.new(NOW, chip="LS_10")
    rim = forge.rim(VBIOS, colloquialVersion="96.10.55.00.01", edition="SWITCH")
    report = forge.report(ReportFields(opaque=switch_opaque(), measurements={i: GOLDEN[i] for i in range(1, 32)}))
    got = verify(report, [forge.pem, rim, *forge.answers()], anchors=TrustAnchors(vendor=False, custom=forge.anchors))
    assert (got.tee_class, got.claims["arch"], got.claims["measurements_match"]) == ("switch", "LS10", True)
    assert got.coco_claims["x-nvidia-switch-bios-rim-version-match"] is True
    assert got.coco_claims["x-nvidia-device-type"] == "nvswitch"


def test_show_believes_nothing_and_tells_all(forge: NvidiaForge) -> None:
    report = forge.report()
    assert tee.show("nvidia", report)["driver_version"] == "550.90.07"
    shown = tee.show("nvidia", json_of(forge, report, uuid="GPU-1"))
    assert (shown["arch"], shown["uuid"]) == ("HOPPER", "GPU-1")
    twice = to_json((Device(report, forge.pem, "HOPPER"),) * 2)
    assert len(tee.show("nvidia", twice)["devices"]) == 2  # type: ignore[arg-type]
