"""HyperEnclave: TPM → monitor → enclave, each link broken, then the whole in one call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.hyperenclave import HyperEnclaveForge
from adyton.devtee.sm2 import SigningKey
from adyton.errors import AdytonError, MalformedEvidence
from adyton.rats.types import SHARED_CLAIMS, Check, ReportData, Revocation, RootKind, TrustAnchors, VerifiedEvidence
from adyton.tee.dcap.bodies import SgxBody
from adyton.tee.eventlog.banks import SHA1, SHA256
from adyton.tee.hyperenclave.abi import SIZE, HyperEnclaveQuote
from adyton.tee.remembered import Remembered
from adyton.tee.tpm.abi import Selection

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DATA = bytes(range(64))
BODY = SgxBody(
    mrenclave=b"\xee" * 32, mrsigner=b"\xdd" * 32, isvprodid=7, isvsvn=2, report_data=DATA, configid=b"\xcc" * 64
)
FORGE = HyperEnclaveForge(now=NOW)
CHINESE = FORGE.with_monitor(SigningKey.new())


def stranger() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def verify(evidence: bytes, forge: HyperEnclaveForge = FORGE, **change: object) -> VerifiedEvidence:
    endorsements = EndorsementSet.parse([FORGE.root(), FORGE.crl()])
    arguments = {
        "endorsements": endorsements,
        "now": NOW,
        "anchors": TrustAnchors(vendor=False, custom=frozenset({endorsements.certificates[0].spki_fingerprint})),
        "report_data": ReportData(DATA),
        **change,
    }
    return tee.verify("hyperenclave", evidence, **arguments)  # type: ignore[arg-type]


WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    "report that another monitor signed": (lambda: FORGE.quote(BODY, report_signer=stranger()), "report_sig"),
    "SM2 report that another monitor signed": (
        lambda: CHINESE.quote(BODY, report_signer=SigningKey.new()),
        "report_sig",
    ),
    "quote for another monitor's key": (lambda: FORGE.quote(BODY, quoted_key=bytes(64)), "monitor_key_mismatch"),
    "quote by another TPM": (lambda: FORGE.quote(BODY, tpm_signer=stranger()), "quote_sig"),
    "attestation key that nobody endorsed": (
        lambda: replace(FORGE, root_key=stranger()).quote(BODY),
        "ak_sig",
    ),
    "expired attestation key": (lambda: replace(FORGE, lifetime=timedelta(0)).quote(BODY), "ak_validity"),
    "quote over two banks": (
        lambda: FORGE.quote(
            BODY, selections=(Selection(SHA1, b"\0\x30\0", (12, 13)), Selection(SHA256, b"\0\x30\0", (12, 13)))
        ),
        "malformed_evidence",  # it does not fit its place
    ),
    "quote over no PCR": (lambda: FORGE.quote(BODY, selections=(Selection(SHA256, b"\0\0\0", ()),)), "pcr_selection"),
    "for another nonce": (lambda: FORGE.quote(SgxBody(report_data=b"\1" * 64)), "report_data_mismatch"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_refused(what: str) -> None:
    make, code = WRONG[what]
    try:
        evidence = make()
    except ValueError:
        assert code == "malformed_evidence"
        return
    at = NOW + timedelta(hours=1) if code == "ak_validity" else NOW
    with pytest.raises(AdytonError) as caught:
        verify(evidence, now=at)
    assert caught.value.code == code


def test_untrusted_root_revoked_key_missing_crl() -> None:
    evidence = FORGE.quote(BODY)
    for change, code in (
        ({"anchors": TrustAnchors()}, "root_untrusted"),
        ({"endorsements": EndorsementSet.parse([FORGE.root()])}, "revocation_unknown"),
        ({"endorsements": EndorsementSet.parse([FORGE.root(), FORGE.crl(revoked=True)])}, "ak_revoked"),
        ({"endorsements": EndorsementSet()}, "root_missing"),
        ({"init_data": b"\xcc" * 63 + b"\xcd"}, "init_data_mismatch"),
    ):
        with pytest.raises(AdytonError) as caught:
            verify(evidence, **change)
        assert caught.value.code == code
    with pytest.raises(ValueError, match="64 bytes"):
        verify(evidence, init_data=b"")


@pytest.mark.parametrize("forge", [FORGE, CHINESE], ids=["p256", "sm2"])
def test_the_whole_chain(forge: HyperEnclaveForge) -> None:
    trail: list[Check] = []
    remembered = Remembered()
    evidence = forge.quote(BODY)
    verified = verify(evidence, trail=trail, remembered=remembered, init_data=b"\xcc" * 64)
    assert dict(verify(evidence, remembered=remembered).claims) == dict(verified.claims)
    assert [check.id for check in trail] == [check.id for check in verified.checks]
    assert verified.unchecked == ()
    assert verified.root is RootKind.CUSTOM
    assert verified.claims.keys() >= {*SHARED_CLAIMS}
    assert verified.claims["measurement"] == "ee" * 32
    assert verified.claims["monitor_measurement"] == forge.monitor_measurement.hex()
    assert verified.claims["monitor_pcrs"] == [{"bank": "sha256", "pcrs": [12, 13]}]
    assert verified.expires_first == "crl"
    without = verify(
        evidence, endorsements=EndorsementSet.parse([FORGE.root()]), revocation=Revocation.UNCHECKED_AS_ASKED
    )
    assert "revocation" in without.unchecked
    assert tee.show("hyperenclave", evidence)["isvprodid"] == 7


def test_one_flipped_bit_never_verifies() -> None:
    evidence = FORGE.quote(BODY)
    certificate_end = 775 + len(FORGE.ak_certificate())
    for bit in range(0, certificate_end * 8, 11):
        flipped = bytearray(evidence)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(AdytonError):
            verify(bytes(flipped))


def test_a_monitor_key_off_the_curve() -> None:
    parsed = HyperEnclaveQuote.parse(FORGE.quote(BODY, quoted_key=b"\1" * 64))
    forged = HyperEnclaveQuote(
        parsed.sign_type, parsed.header, parsed.body, parsed.signature, b"\1" * 64, parsed.attest, parsed.tpm_signature,
        parsed.ak_certificate,
    )  # fmt: skip
    with pytest.raises(MalformedEvidence) as caught:
        verify(forged.encode())
    assert caught.value.code == "monitor_key"


@given(st.binary(max_size=SIZE + 8))
def test_any_bytes_parse_or_are_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedEvidence):
        HyperEnclaveQuote.parse(data)


@given(st.integers(0, SIZE - 1), st.integers(1, 255))
def test_any_changed_byte_parses_to_itself_or_is_malformed(at: int, change: int) -> None:
    data = bytearray(EVIDENCE)
    data[at] ^= change
    with contextlib.suppress(MalformedEvidence):
        assert HyperEnclaveQuote.parse(bytes(data)).encode() == bytes(data)


EVIDENCE = FORGE.quote(BODY)
