"""What went wrong in other verifiers of SNP evidence and in protocols around it, one test each, named after it (evidence 15)."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.tee.snp.conftest import CHIP, NOW

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import AdytonError, BindingMismatch, SignatureInvalid
from adyton.protocol import annotated
from adyton.rats import binding
from adyton.rats.types import ReportData, Revocation, RootKind, TrustAnchors, VerifiedEvidence
from adyton.tee.remembered import Remembered
from adyton.tee.snp import json_form
from adyton.tee.snp.abi import SnpReport

KEY = {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": "eA", "y": "eQ"}
SIGNED = 0x2A0


def verify(issuer: Any, evidence: bytes, **change: Any) -> VerifiedEvidence:
    arguments = {"endorsements": issuer.set_of(), "now": NOW, "anchors": issuer.anchors, **change}
    return tee.verify("snp", evidence, **arguments)


def test_veraison_418_no_way_in_forgets_the_signature(genoa: Any) -> None:
    """veraison/services PR #418: a refactoring dropped the check of a report's integrity."""
    report, remembered = genoa.report(), Remembered()
    verify(genoa, report, remembered=remembered)  # warm from here on
    for at in (0x00, 0x20, 0x50, 0x90, 0xC0, SIGNED - 1, SIGNED, SIGNED + 72):
        changed = bytearray(report)
        changed[at] ^= 1
        for warm in (remembered, None):
            with pytest.raises(AdytonError):
                verify(genoa, bytes(changed), remembered=warm)
    other = report[:0x90] + bytes(48) + report[0xC0:]  # another measurement
    for evidence in (other, msgspec.json.encode(json_form.to_json(SnpReport.parse(other), []))):
        for warm in (remembered, None):
            with pytest.raises(SignatureInvalid) as caught:
                verify(genoa, evidence, remembered=warm)
            assert caught.value.code == "report_sig"


def test_tav_147_extensions_are_matched_whole(genoa: Any) -> None:
    """Microsoft TAV #147: an extension whose number or value only begins like the right one was taken for it."""
    for values in (
        {"4": CHIP[:8]},  # a beginning of the chip's id
        {"4": CHIP + b"\0"},
        {"4": None, "4.1": CHIP},  # a number that begins so
        {"3.1": None, "3.10": b"\x02\x01\x0a"},
    ):
        with pytest.raises(AdytonError) as caught:
            verify(genoa, genoa.report(), endorsements=genoa.set_of(vcek=genoa.leaf(set_=values)))
        assert caught.value.code == "leaf_extensions"


def test_occlum_1119_the_verifiers_nonce_is_its_own(genoa: Any) -> None:
    """occlum PR #1119: the untrusted side rewrote the nonce in the verifier's own call, so that any evidence was fresh."""
    wanted = binding.expected("snp", binding.primary_object("bm9uY2U=", KEY))
    old = genoa.report(report_data=binding.expected("snp", binding.primary_object("b2xk", KEY)).value)
    before = wanted.value
    for evidence in (old, msgspec.json.encode(json_form.to_json(SnpReport.parse(old), []))):
        with pytest.raises(BindingMismatch) as caught:
            verify(genoa, evidence, report_data=wanted)
        assert caught.value.code == "report_data_mismatch"
    assert wanted.value == before
    with pytest.raises((AttributeError, TypeError)):
        wanted.value = old[0x50:0x90]  # type: ignore[misc]


def test_coco_evidence_factory_key_and_init_data_are_bound_too(genoa: Any) -> None:
    """FOSDEM 2023: a guest that gives evidence for any nonce serves whoever asks it, unless key and init data are bound."""
    mine = binding.expected("snp", binding.primary_object("bm9uY2U=", KEY))
    factory = genoa.report(report_data=mine.value)
    stranger = binding.expected("snp", binding.primary_object("bm9uY2U=", {**KEY, "x": "eg"}))
    device = ReportData(binding.digest(binding.device_object("bm9uY2U=", KEY)).ljust(64, b"\0"))
    for expected in (stranger, device):
        with pytest.raises(BindingMismatch) as caught:
            verify(genoa, factory, report_data=expected)
        assert caught.value.code == "report_data_mismatch"
    document = binding.expected_init_data("snp", b'version = "0.1.0"\n')
    with pytest.raises(BindingMismatch) as caught:
        verify(genoa, factory, report_data=mine, init_data=document)
    assert caught.value.code == "init_data_mismatch"
    right = genoa.report(report_data=mine.value, host_data=document)
    assert verify(genoa, right, report_data=mine, init_data=document).init_data == document


@pytest.mark.vectors
@pytest.mark.parametrize(
    ("report", "leaf", "product"),
    [
        ("milan-v2-virtee", "milan-v2-virtee", "Milan"),
        ("genoa-v3-azure", "genoa-v3-azure", "Genoa"),
    ],
)
def test_arxiv_2605_12990_policies_can_name_the_product(vectors: Path, report: str, leaf: str, product: str) -> None:
    """The seed of a whole generation was read by software: a policy must be able to refuse that generation."""
    roots = {
        "Milan": "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9",
        "Genoa": "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831",
    }
    chain = (vectors / f"roots/amd-{product.lower()}-ask-ark-asvk.pem").read_bytes()
    verified = tee.verify(
        "snp",
        (vectors / f"snp/reports/{report}.bin").read_bytes(),
        endorsements=EndorsementSet.parse([(vectors / f"snp/certs/{leaf}-vcek.der").read_bytes(), chain]),
        now=datetime.fromisoformat("2025-02-23T02:21:48Z"),
        anchors=TrustAnchors(),
        revocation=Revocation.UNCHECKED_AS_ASKED,
    )
    assert str(verified.claims["product"]).startswith(product)
    assert (verified.root, verified.root_fingerprint) == (RootKind.VENDOR, roots[product])
    seen = annotated.evidence(verified, {}, None, b"")["adyton"]
    assert isinstance(seen, dict)
    assert seen["root_fingerprint"] == roots[product]  # AMD has a root for each generation
