"""Azure under TDX: the quote vouches for the claims, the claims for the TPM's key, the quote's TD is the TDREPORT's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.az_vtpm import AzureGuest
from adyton.devtee.dcap import DcapForge, td_body
from adyton.errors import AdytonError, EndorsementMissing, MalformedEvidence
from adyton.rats.types import SHARED_CLAIMS, Check, ReportData, TrustAnchors, VerifiedEvidence
from adyton.tee.az_vtpm import tdx
from adyton.tee.remembered import Remembered
from adyton.tee.tdx.abi import TdReport

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
NONCE = hashlib.sha384(b"nonce and key").digest()
FORGE = DcapForge.new(NOW)
ANCHORS = TrustAnchors(vendor=False, custom=frozenset({FORGE.fingerprint}))
MRTD = b"\x4d" * 48


def quote(hcl: bytes) -> bytes:
    """The quoting enclave's answer for the TDREPORT in the HCL report."""
    return FORGE.quote(td_body(report_data=TdReport.parse(hcl[32 : 32 + 1024]).report_data, mrtd=MRTD)).encode()


@pytest.fixture(scope="session")
def guest() -> AzureGuest:
    return AzureGuest(
        hardware=lambda data: TdReport(report_data=data, mrtd=MRTD).encode(),
        td_quote=quote,
        ak=rsa.generate_private_key(65537, 2048),
        user_data=NONCE.ljust(64, b"\0"),
    )


def verify(evidence: bytes, **change: object) -> VerifiedEvidence:
    endorsements = EndorsementSet.parse(FORGE.collateral("tdx").blobs())
    arguments = {
        "endorsements": endorsements,
        "now": NOW,
        "anchors": ANCHORS,
        "report_data": ReportData(NONCE),
        **change,
    }
    return tee.verify("az-tdx-vtpm", evidence, **arguments)  # type: ignore[arg-type]


def of_another_domain(guest: AzureGuest) -> bytes:
    """A genuine quote over these claims, around another TD's TDREPORT."""
    bound = hashlib.sha256(guest.runtime_claims()).digest() + bytes(32)
    other = replace(
        guest,
        hardware=lambda _: TdReport(report_data=b"\x66" * 64).encode(),
        td_quote=lambda _: FORGE.quote(td_body(report_data=bound)).encode(),
    )
    return other.evidence(NONCE)


WRONG: dict[str, tuple[Callable[[AzureGuest], bytes], str]] = {
    "quote of another TD": (of_another_domain, "td_report_mismatch"),
    "claims that the TD did not see": (
        lambda guest: guest.evidence(NONCE, hcl_report=guest.hcl_report(bound=b"\1" * 64)),
        "runtime_claims_mismatch",
    ),
    "type of other hardware": (
        lambda guest: guest.evidence(NONCE, hcl_report=guest.hcl_report(report_type=2)),
        "hcl_report_type",
    ),
    "quote by another TPM": (
        lambda guest: guest.evidence(NONCE, quote=guest.quote(NONCE, key=rsa.generate_private_key(65537, 2048))),
        "quote_sig",
    ),
    "quote for another nonce": (lambda guest: guest.evidence(b"\1" * 48), "report_data_mismatch"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_refused(what: str, guest: AzureGuest) -> None:
    make, code = WRONG[what]
    with pytest.raises(AdytonError) as caught:
        verify(make(guest))
    assert caught.value.code == code


def test_the_platform_needs_its_collateral(guest: AzureGuest) -> None:
    with pytest.raises(EndorsementMissing):
        verify(guest.evidence(NONCE), endorsements=EndorsementSet())


@pytest.mark.parametrize("version", [0, 1, 2])
def test_the_whole(version: int, guest: AzureGuest) -> None:
    trail: list[Check] = []
    remembered = Remembered()
    evidence = guest.evidence(NONCE, version=version)
    verified = verify(evidence, trail=trail, remembered=remembered, init_data=b"\x08" * 32)
    assert dict(verify(evidence, remembered=remembered).claims) == dict(verified.claims)
    assert [check.id for check in trail] == [check.id for check in verified.checks]
    assert verified.unchecked == ()
    assert verified.claims.keys() >= {*SHARED_CLAIMS}
    assert (verified.claims["measurement"], verified.claims["tcb_status"]) == (MRTD.hex(), "UpToDate")
    assert verified.coco_claims["init_data"] == "08" * 32
    assert tee.show("az-tdx-vtpm", evidence)["hcl_report_type"] == 4


def test_without_collateral_it_says_less(guest: AzureGuest) -> None:
    crls = EndorsementSet.parse(FORGE.collateral("tdx").blobs())
    verified = tdx.verify_signatures_without_tcb_as_asked(
        guest.evidence(NONCE), endorsements=crls, now=NOW, anchors=ANCHORS
    )
    assert {"tcb", "qe_identity", "report_data", "init_data"} <= {*verified.unchecked}
    assert verified.claims["tcb_status"] is None


def test_evidence_of_the_other_kind(guest: AzureGuest) -> None:
    with pytest.raises(MalformedEvidence):
        tee.show("az-snp-vtpm", guest.evidence(NONCE))
    enclave = replace(guest, td_quote=lambda _: FORGE.quote().encode())
    with pytest.raises(MalformedEvidence):
        verify(enclave.evidence(NONCE))
    of_snp = json.loads(guest.evidence(NONCE))
    of_snp["vcek"] = of_snp.pop("td_quote")
    for room in (verify, lambda evidence: tee.show("az-tdx-vtpm", evidence)):
        with pytest.raises(MalformedEvidence) as caught:
            room(json.dumps(of_snp).encode())
        assert caught.value.field == "vcek"
