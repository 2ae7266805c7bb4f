"""What is forged is refused by the verifier, each for its own reason; what is issued well is accepted."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from adyton import errors
from adyton.crypto.x509 import EndorsementSet, spki_fingerprint
from adyton.devtee.certificates import Levels
from adyton.devtee.forge import Forge, break_signatures, flip
from adyton.rats.types import ReportData, Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee import verify


def check(
    forge: Forge,
    report: bytes,
    *,
    blobs: tuple[bytes, ...] | None = None,
    root: Forge | None = None,
    now: datetime | None = None,
    report_data: bytes | None = None,
) -> VerifiedEvidence:
    trusted = EndorsementSet.parse([(root or forge).certificates[2][1]]).certificates[0]
    return verify(
        "snp",
        report,
        endorsements=EndorsementSet.parse(blobs if blobs is not None else forge.blobs()),
        now=now or forge.now,
        anchors=TrustAnchors(vendor=False, custom=frozenset({spki_fingerprint(trusted)})),
        revocation=Revocation.REQUIRED,
        report_data=ReportData(report_data) if report_data else None,
    )


@pytest.fixture(scope="module")
def vlek(forge: Forge) -> Forge:
    return forge.with_kind("VLEK")


def test_every_broken_signature_is_refused(forge: Forge) -> None:
    for name, broken in break_signatures(forge.report()).items():
        with pytest.raises(errors.SignatureInvalid):
            check(forge, broken)
            pytest.fail(name)


def test_flipped_bits_are_refused(forge: Forge) -> None:
    report = forge.report(report_data=os.urandom(64))
    for bit in range(0, 0x2A0 * 8, 331):
        with pytest.raises(errors.AdytonError):
            check(forge, flip(report, bit))


def test_an_unknown_root_is_refused(forge: Forge) -> None:
    other = Forge.new(forge.now)
    with pytest.raises(errors.EndorsementUntrusted):
        check(other, other.report(), root=forge)
    with pytest.raises(errors.AdytonError):  # our root's chain beside another root's report
        check(forge, other.report())


@pytest.mark.parametrize("shift", [timedelta(days=-3000), timedelta(days=2)])
def test_a_leaf_outside_its_validity_is_refused(forge: Forge, shift: timedelta) -> None:
    other = forge.with_leaf(start=forge.now + shift)
    with pytest.raises(errors.EndorsementExpired):
        check(other, other.report())


def test_revoked_certificates_are_refused(forge: Forge) -> None:
    for certificate in (forge.signer.certificate, forge.intermediate.certificate):
        blobs = (*forge.blobs(crl=False), forge.crl(revoked=[certificate]))
        with pytest.raises(errors.EndorsementRevoked):
            check(forge, forge.report(), blobs=blobs)


def test_without_a_fresh_crl_nothing_is_verified(forge: Forge) -> None:
    for blobs in (
        forge.blobs(crl=False),
        (*forge.blobs(crl=False), forge.crl(start=forge.now - timedelta(days=400))),
        (*forge.blobs(crl=False), Forge.new(forge.now).crl()),
    ):
        with pytest.raises(errors.EndorsementError):
            check(forge, forge.report(), blobs=blobs)


def test_another_chip_product_or_tcb_is_refused(forge: Forge) -> None:
    for report in (
        forge.report(chip_id=os.urandom(64)),
        forge.report(cpuid=(0x19, 0x01, 1)),  # Milan's
        forge.report(reported_tcb=Levels(boot_loader=9)),
        forge.report(reported_tcb=Levels(snp=24)),
        forge.report(signing_key=1),
        forge.report(signing_key=7),
        forge.report(policy=1 << 16),  # reserved bit 17 must be one
    ):
        with pytest.raises(errors.AdytonError):
            check(forge, report)
    milan = forge.with_leaf(product_name="Milan")
    with pytest.raises(errors.AdytonError):
        check(milan, milan.report())


def test_a_leaf_of_the_other_kind_is_refused(forge: Forge, vlek: Forge) -> None:
    wrong = forge.with_leaf(kind="VLEK")  # under an ASK
    with pytest.raises(errors.AdytonError):
        check(wrong, wrong.report())
    with pytest.raises(errors.AdytonError):
        check(vlek, vlek.report(signing_key=0))


@pytest.mark.parametrize("version", [2, 3, 5])
def test_what_is_issued_well_is_accepted(forge: Forge, version: int) -> None:
    data = os.urandom(64)
    evidence = check(forge, forge.report(version=version, report_data=data), report_data=data)
    assert evidence.report_data.value == data
    check(forge, forge.report(version=version, mask_chip_key=True))


def test_a_providers_key_is_accepted_as_such(vlek: Forge) -> None:
    assert vlek.report()[0x48] >> 2 & 7 == 1
    check(vlek, vlek.report())


@pytest.mark.parametrize("product", ["Milan", "Turin"])
def test_other_generations(forge: Forge, product: str) -> None:
    keys = iter((forge.ark.key, forge.intermediate.key))
    levels = Levels(boot_loader=4, tee=1, snp=0x90, microcode=0xD5, fmc=3 if product == "Turin" else 0)
    other = Forge.new(forge.now, product=product, levels=levels, new_rsa_key=lambda: next(keys))
    check(other, other.report(version=5))
    with pytest.raises(errors.AdytonError):
        check(other, replace(other, product="Genoa").report(cpuid=(0x19, 0x11, 1)))
