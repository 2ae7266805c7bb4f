"""Azure under SNP: every link between chip, claims, key and PCRs, broken one at a time; then the whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.az_vtpm import AzureGuest
from adyton.devtee.forge import Forge, flip
from adyton.errors import AdytonError, EndorsementMissing, EndorsementUntrusted, MalformedEvidence
from adyton.rats.types import SHARED_CLAIMS, Check, ReportData, RootKind, TrustAnchors, VerifiedEvidence
from adyton.tee.az_vtpm import json_form, snp
from adyton.tee.az_vtpm.abi import HclReport
from adyton.tee.eventlog.banks import SHA1, SHA384
from adyton.tee.remembered import Remembered

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
NONCE = hashlib.sha384(b"nonce and key").digest()


@pytest.fixture(scope="session")
def forge() -> Forge:
    return Forge.new(NOW)


@pytest.fixture(scope="session")
def guest(forge: Forge) -> AzureGuest:
    return AzureGuest(
        hardware=lambda data: forge.report(report_data=data),
        ak=rsa.generate_private_key(65537, 2048),
        vcek=forge.signer.certificate,
        user_data=NONCE.ljust(64, b"\0"),
    )


@pytest.fixture(scope="session")
def anchors(forge: Forge) -> TrustAnchors:
    root = EndorsementSet.parse(forge.blobs()).certificates[-1]
    return TrustAnchors(vendor=False, custom=frozenset({root.spki_fingerprint}))


@pytest.fixture
def verify(forge: Forge, anchors: TrustAnchors) -> Callable[..., VerifiedEvidence]:
    def run(evidence: bytes, **change: object) -> VerifiedEvidence:
        arguments = {
            "endorsements": EndorsementSet.parse(forge.blobs()[1:]),
            "now": NOW,
            "anchors": anchors,
            "report_data": ReportData(NONCE),
            **change,
        }
        return tee.verify("az-snp-vtpm", evidence, **arguments)  # type: ignore[arg-type]

    return run


def changed_pcr(guest: AzureGuest) -> bytes:
    value = json.loads(guest.evidence(NONCE))
    value["tpm_quote"]["pcrs"][7] = "ff" * 32
    return json.dumps(value).encode()


def claims_of_another_key(guest: AzureGuest) -> bytes:
    """The host's own key in the claims: the chip never saw them."""
    other = replace(guest, ak=rsa.generate_private_key(65537, 2048))
    bound = hashlib.sha256(guest.runtime_claims()).digest() + bytes(32)
    return other.evidence(NONCE, hcl_report=other.hcl_report(bound=bound))


WRONG: dict[str, tuple[Callable[[AzureGuest, Forge], bytes], str]] = {
    "claims that the chip did not see": (lambda guest, _: claims_of_another_key(guest), "runtime_claims_mismatch"),
    "hash of the claims, and more after it": (
        lambda guest, _: guest.evidence(
            NONCE, hcl_report=guest.hcl_report(bound=hashlib.sha256(guest.runtime_claims()).digest() + b"\1" * 32)
        ),
        "runtime_claims_mismatch",
    ),
    "type of other hardware": (
        lambda guest, _: guest.evidence(NONCE, hcl_report=guest.hcl_report(report_type=4)),
        "hcl_report_type",
    ),
    "quote by another TPM": (
        lambda guest, _: guest.evidence(NONCE, quote=guest.quote(NONCE, key=rsa.generate_private_key(65537, 2048))),
        "quote_sig",
    ),
    "changed PCR": (lambda guest, _: changed_pcr(guest), "pcr_digest"),
    "quote over a part of the PCRs": (
        lambda guest, _: guest.evidence(NONCE, quote=guest.quote(NONCE, selected=range(16))),
        "pcr_selection",
    ),
    "quote over a shifted selection": (
        lambda guest, _: guest.evidence(NONCE, quote=guest.quote(NONCE, selected=[*range(8), *range(9, 24)])),
        "pcr_selection",
    ),
    "quote over another bank": (
        lambda guest, _: guest.evidence(NONCE, quote=guest.quote(NONCE, bank=SHA1)),
        "pcr_missing",
    ),
    "quote over a bank that nobody gave": (
        lambda guest, _: guest.evidence(NONCE, quote=guest.quote(NONCE, bank=SHA384)),
        "pcr_missing",
    ),
    "quote for another nonce": (lambda guest, _: guest.evidence(b"\1" * 48), "report_data_mismatch"),
    "quote for a prefix of the nonce": (lambda guest, _: guest.evidence(NONCE[:32]), "report_data_mismatch"),
    "user data that does not repeat the nonce": (
        lambda guest, _: replace(guest, user_data=bytes(64)).evidence(NONCE),
        "user_data_mismatch",
    ),
    "user data that repeats it and says more": (
        lambda guest, _: replace(guest, user_data=NONCE.ljust(63, b"\0") + b"\1").evidence(NONCE),
        "user_data_mismatch",
    ),
    "report that software below the paravisor asked for": (
        lambda guest, forge: replace(guest, hardware=lambda data: forge.report(report_data=data, vmpl=2)).evidence(
            NONCE
        ),
        "vmpl",
    ),
    "changed hardware report": (
        lambda guest, forge: replace(
            guest, hardware=lambda data: flip(forge.report(report_data=data), 0x90 * 8)
        ).evidence(NONCE),
        "report_sig",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_refused(what: str, guest: AzureGuest, forge: Forge, verify: Callable[..., VerifiedEvidence]) -> None:
    make, code = WRONG[what]
    with pytest.raises(AdytonError) as caught:
        verify(make(guest, forge))
    assert caught.value.code == code


def test_trustee_pcrs_are_counted_by_number_and_not_by_position(
    guest: AzureGuest, verify: Callable[..., VerifiedEvidence]
) -> None:
    """CoCo's trustee: 24 values in a row, whatever was quoted, so that a PCR that anybody resets came to stand in PCR 8's place."""
    for selected in ([*range(8), *range(9, 24)], [*range(8), 16, *range(9, 16)], range(8)):
        evidence = guest.evidence(NONCE, quote=guest.quote(NONCE, selected=selected))
        for init_data in (None, b"\x09" * 32, b"\x08" * 32):
            with pytest.raises(AdytonError) as caught:
                verify(evidence, init_data=init_data)
            assert caught.value.code == "pcr_selection"


def test_the_chip_needs_its_endorsements(guest: AzureGuest, verify: Callable[..., VerifiedEvidence]) -> None:
    with pytest.raises(EndorsementMissing):
        verify(guest.evidence(NONCE), endorsements=EndorsementSet())
    with pytest.raises(EndorsementUntrusted):
        verify(guest.evidence(NONCE), anchors=TrustAnchors())


def test_init_data_is_pcr_8_whole(guest: AzureGuest, verify: Callable[..., VerifiedEvidence]) -> None:
    evidence = guest.evidence(NONCE)
    with pytest.raises(AdytonError) as caught:
        verify(evidence, init_data=b"\x08" * 31 + b"\x09")
    assert caught.value.code == "init_data_mismatch"
    verified = verify(evidence, init_data=b"\x08" * 32)
    assert verified.unchecked == ()
    assert verified.init_data == b"\x08" * 32


@pytest.mark.parametrize("version", [0, 1, 2])
def test_the_whole(version: int, guest: AzureGuest, verify: Callable[..., VerifiedEvidence]) -> None:
    trail: list[Check] = []
    remembered = Remembered()
    evidence = guest.evidence(NONCE, version=version)
    verified = verify(evidence, trail=trail, remembered=remembered)
    again = verify(evidence, remembered=remembered)
    assert dict(again.claims) == dict(verified.claims)
    assert [check.id for check in trail] == [check.id for check in verified.checks]
    assert {check.group for check in trail} >= {"HCL report", "vTPM quote", "binding", "hardware: certificates"}
    assert verified.unchecked == ("init_data",)
    assert verified.root is RootKind.CUSTOM
    assert verified.claims.keys() >= {*SHARED_CLAIMS}
    assert verified.claims["report_data"] == NONCE.hex()
    assert verified.claims["pcrs"] == {f"{number:02}": f"{number:02x}" * 32 for number in range(24)}
    assert verified.claims["debug"] is False
    coco = verified.coco_claims
    assert coco["tpm"] == {f"pcr{number:02}": f"{number:02x}" * 32 for number in range(24)}
    assert coco["init_data"] == "08" * 32
    assert coco["policy_debug_allowed"] == "false"
    assert coco["reported_tcb_snp"] == "25"
    assert coco["measurement"] == "A" * 64


def test_what_fails_is_not_remembered(guest: AzureGuest, verify: Callable[..., VerifiedEvidence]) -> None:
    """Else anybody could push verified chains out of the memory, with a certificate of their own each time."""
    remembered = Remembered()
    for number in range(3):
        name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, f"stranger {number}")])
        key = ec.generate_private_key(ec.SECP384R1())
        own = x509.CertificateBuilder(name, name, key.public_key(), 5, NOW, NOW + timedelta(days=1))
        vcek = own.sign(key, hashes.SHA384())
        with pytest.raises(AdytonError):
            verify(replace(guest, vcek=vcek).evidence(NONCE, version=1), remembered=remembered)
    assert len(remembered) == 0


def test_without_a_nonce_it_says_so(guest: AzureGuest, verify: Callable[..., VerifiedEvidence]) -> None:
    assert verify(guest.evidence(b""), report_data=None).unchecked == ("report_data", "init_data")


def test_evidence_of_the_other_kind(guest: AzureGuest, verify: Callable[..., VerifiedEvidence]) -> None:
    tdx = replace(guest, td_quote=lambda _: b"quote")
    with pytest.raises(MalformedEvidence):
        verify(tdx.evidence(NONCE))


def test_show(guest: AzureGuest) -> None:
    assert tee.show("az-snp-vtpm", guest.evidence(NONCE))["hcl_report_type"] == 2


def test_a_signature_of_another_scheme(guest: AzureGuest, verify: Callable[..., VerifiedEvidence]) -> None:
    message, _ = guest.quote(NONCE)
    foreign = ec.generate_private_key(ec.SECP256R1()).sign(message, ec.ECDSA(hashes.SHA256()))
    with pytest.raises(AdytonError) as caught:
        verify(guest.evidence(NONCE, quote=(message, foreign)))
    assert caught.value.code == "quote_sig"


def test_expiry_is_the_hardwares(guest: AzureGuest, verify: Callable[..., VerifiedEvidence]) -> None:
    verified = verify(guest.evidence(NONCE))
    assert (verified.expires_first, verified.expires) == ("CRL", NOW + timedelta(days=45, hours=-1))


@given(
    st.binary(max_size=400)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_any_bytes_parse_or_are_malformed(data: bytes) -> None:
    for parse in (json_form.parse, HclReport.parse, snp.show):
        with contextlib.suppress(MalformedEvidence):
            parse(data)


@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        (b"", "not JSON"),
        (b'{"version": 1, ', "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"a": 1, "a": 2}', "two members"),
        (b"[" * 5000, "nested"),
        (b'{"version": 1}', "missing required field"),
    ],
)
def test_what_is_not_evidence_says_why(evidence: bytes, said: str) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        json_form.parse(evidence)
    assert caught.value.field == "evidence"
    assert said in caught.value.message


@given(st.data())
def test_any_change_of_the_hcl_report_parses_or_is_malformed(guest: AzureGuest, data: st.DataObject) -> None:
    whole = bytearray(guest.hcl_report())
    at = data.draw(st.integers(0, 31) | st.integers(0x4C0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(MalformedEvidence):
        assert HclReport.parse(bytes(whole)).encode() == bytes(whole)


@pytest.mark.parametrize("member", ["version", "vcek", "tpm_quote", "hcl_report"])
def test_a_member_that_comes_twice(guest: AzureGuest, member: str) -> None:
    evidence = guest.evidence(NONCE)
    value = json.loads(evidence)[member]
    twice = b"{" + json.dumps({member: value})[1:-1].encode() + b"," + evidence[1:]
    with pytest.raises(MalformedEvidence):
        json_form.parse(twice)
    escaped = evidence.replace(b'"vcek"', b'"\\u0076cek"')
    assert json_form.parse(escaped) == json_form.parse(evidence)
