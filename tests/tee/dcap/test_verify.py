"""Every step of evidence 3.3: what must be refused, by its code, before what is accepted."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.tee.dcap.conftest import NOW, Lab, with_parts

from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.dcap import DcapForge, resign, sgx_body, td_body
from adyton.devtee.dcap_certificates import (
    Platform,
    make_crl,
    make_pck,
    make_pck_ca,
    make_root,
    make_tcb_signing,
    new_key,
)
from adyton.devtee.dcap_collateral import Collateral, Level, ModuleLevel
from adyton.errors import (
    BindingMismatch,
    EndorsementMissing,
    EvidenceError,
    MalformedEvidence,
    SignatureInvalid,
    UnsupportedEvidence,
)
from adyton.rats.types import Check, ReportData, Revocation, RootKind, TrustAnchors
from adyton.tee.remembered import Remembered
from adyton.tee.sgx import verify as sgx_room
from adyton.tee.tdx import verify as tdx_room

ROOM = {"sgx": "sgx", "td10": "tdx", "td15": "tdx"}


def changed(lab: Lab, kind: str, **fields: Any) -> Any:
    """A quote with other fields in its signature data, the rest as it was."""
    return msgspec.structs.replace(lab.quote(kind), **fields)


# Step 1: header


def test_another_vendors_quoting_enclave(lab: Lab, kind: str) -> None:
    assert lab.refused(lab.quote(kind, header={"qe_vendor_id": bytes(16)})) == "qe_vendor_id"


def test_a_quote_of_the_other_tee(lab: Lab) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        lab.verify(lab.quote("td10"), name="sgx")
    assert caught.value.code == "tee_type"
    with pytest.raises(MalformedEvidence) as caught:
        lab.verify(lab.quote("sgx", version=4), name="tdx")
    assert caught.value.code == "tee_type"


# Step 2: PCK chain


def test_a_root_of_the_same_name(lab: Lab, stranger: Lab, kind: str) -> None:
    assert lab.refused(stranger.quote(kind), stranger.forge.collateral(ROOM[kind])) == "root_untrusted"


def test_a_leaf_that_its_issuer_did_not_sign(lab: Lab, stranger: Lab, kind: str) -> None:
    forged = replace(lab.forge, pck=stranger.forge.pck)
    assert lab.refused(forged.quote(lab.quote(kind).body)) == "pck_sig"


def test_a_leaf_that_expired(lab: Lab, kind: str) -> None:
    forged = lab.forge.with_platform(Platform(), life=timedelta(minutes=30))
    assert lab.refused(forged.quote(lab.quote(kind).body)) == "pck_validity"


def test_a_ca_that_expired(lab: Lab) -> None:
    ca = make_pck_ca(lab.forge.root, NOW, life=timedelta(minutes=30))
    forged = replace(lab.forge, pck_ca=ca, pck=make_pck(ca, Platform(), NOW))
    assert lab.refused(forged.quote(), forged.collateral("sgx")) == "pck_ca_validity"


def test_a_leaf_with_another_name(lab: Lab) -> None:
    forged = lab.forge.with_platform(Platform(), name="Intel SGX Something Else")
    assert lab.refused(forged.quote()) == "pck_name"


def test_a_ca_with_another_name(lab: Lab) -> None:
    for name, code in (("Intel SGX PCK Something", "pck_ca_name"), ("Intel SGX Somebody's CA", "pck_ca_name")):
        ca = make_pck_ca(lab.forge.root, NOW, name=name)
        forged = replace(lab.forge, pck_ca=ca, pck=make_pck(ca, Platform(), NOW))
        assert lab.refused(forged.quote(), forged.collateral("sgx")) == code


def test_a_root_with_another_name() -> None:
    root = make_root(NOW, name="Some Root CA")
    ca = make_pck_ca(root, NOW)
    forge = DcapForge(NOW, root, ca, make_pck(ca, Platform(), NOW), make_tcb_signing(root, NOW), new_key())
    assert Lab(forge).refused(forge.quote()) == "root_name"


def test_a_tcb_signing_certificate_in_the_place_of_the_pck(lab: Lab) -> None:
    forged = replace(lab.forge, pck=lab.forge.tcb_signing, pck_ca=lab.forge.root)
    assert lab.refused(forged.quote()) == "pck_extension"


def test_a_pck_certificate_without_intels_extension(lab: Lab) -> None:
    assert lab.refused(lab.forge.with_platform(Platform(), extension=b"").quote()) == "pck_extension"


def test_a_chain_that_cannot_be_read(lab: Lab) -> None:
    for data in (b"", b"\0", b"-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n", b"MIIB" * 99):
        with pytest.raises(MalformedEvidence):
            lab.verify(lab.quote(certification=(5, data)))
    chain = lab.forge.chain()
    with pytest.raises(MalformedEvidence):
        lab.verify(lab.quote(certification=(5, chain.rstrip(b"\0") + b"garbage")))


def test_issuers_may_come_from_the_endorsements_alone(lab: Lab) -> None:
    leaf = lab.forge.pck.certificate
    for data in (leaf.public_bytes(Encoding.PEM), leaf.public_bytes(Encoding.DER)):
        assert lab.verify(lab.quote(certification=(4, data))).claims["cert_data_type"] == 4
    assert lab.verify(lab.quote(certification=(5, leaf.public_bytes(Encoding.PEM)))).claims["cert_data_type"] == 5


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_quote_that_names_its_platform_by_ppid(lab: Lab, number: int) -> None:
    quote = lab.quote(certification=(number, bytes(404)))
    with pytest.raises(UnsupportedEvidence) as caught:
        lab.verify(quote)
    assert caught.value.code == "pck_lookup_needed"
    collateral, other = lab.forge.collateral("sgx"), lab.forge.with_platform(Platform())
    stranger = other.pck.certificate.public_bytes(Encoding.DER)
    with pytest.raises(UnsupportedEvidence):
        lab.verify(quote, collateral, stranger)
    own = lab.forge.pck.certificate.public_bytes(Encoding.DER)
    assert lab.verify(quote, collateral, stranger, own).claims["fmspc"] == lab.forge.platform.fmspc.hex()


@pytest.mark.parametrize("number", [0, 6, 7, 8, 0xFFFF])
def test_certification_data_that_certifies_nothing(lab: Lab, number: int) -> None:
    with pytest.raises(UnsupportedEvidence) as caught:
        lab.verify(lab.quote(certification=(number, b"whatever")))
    assert caught.value.code == "certification_data_type"


# Step 3: CRLs


@pytest.mark.parametrize("part", ["root_crl", "pck_crl"])
def test_a_crl_is_missing_or_another_authoritys(lab: Lab, stranger: Lab, part: str, kind: str) -> None:
    room, quote = ROOM[kind], lab.quote(kind)
    collateral = lab.forge.collateral(room)
    with pytest.raises(EndorsementMissing) as caught:
        lab.verify(quote, with_parts(collateral, **{part: None}))
    assert (caught.value.code, caught.value.field) == ("revocation_unknown", part)
    assert "https://" in str(caught.value.hint)
    issuer = lab.forge.root if part == "root_crl" else lab.forge.pck_ca
    other = make_crl(issuer, NOW, key=stranger.forge.root.key).public_bytes(Encoding.DER)
    assert lab.refused(quote, with_parts(collateral, **{part: other})) == "crl_sig"
    swapped = lab.forge.crl(lab.forge.pck_ca if part == "root_crl" else lab.forge.root)
    assert lab.refused(quote, with_parts(collateral, **{part: swapped})) == "revocation_unknown"


@pytest.mark.parametrize("part", ["root_crl", "pck_crl"])
def test_a_stale_crl(lab: Lab, part: str) -> None:
    issuer = lab.forge.root if part == "root_crl" else lab.forge.pck_ca
    stale = lab.forge.crl(issuer, life=timedelta(minutes=30))
    early = lab.forge.crl(issuer, now=NOW + timedelta(days=1))
    for crl in (stale, early):
        assert lab.refused(lab.quote(), with_parts(lab.forge.collateral("sgx"), **{part: crl})) == "crl_validity"


def test_revoked_pck_ca_and_signer(lab: Lab, kind: str) -> None:
    for holder, code in (
        (lab.forge.pck, "pck_revoked"),
        (lab.forge.pck_ca, "pck_ca_revoked"),
        (lab.forge.tcb_signing, "tcb_signing_revoked"),
    ):
        collateral = lab.forge.collateral(ROOM[kind], revoked=[holder.certificate])
        assert lab.refused(lab.quote(kind), collateral) == code


def test_revocation_is_for_good(lab: Lab) -> None:
    """An entry on a stale list counts, beside a fresh list without it."""
    stale = lab.forge.crl(lab.forge.pck_ca, revoked=[lab.forge.pck.certificate], life=timedelta(minutes=30))
    assert lab.refused(lab.quote(), lab.forge.collateral("sgx"), stale) == "pck_revoked"


def test_revocation_unchecked_as_asked(lab: Lab) -> None:
    collateral = replace(lab.forge.collateral("sgx"), root_crl=None, pck_crl=None)
    verified = lab.verify(lab.quote(), collateral, revocation=Revocation.UNCHECKED_AS_ASKED)
    assert "revocation" in verified.unchecked
    assert "revocation" not in {check.id for check in verified.checks}


# Steps 4 and 6: who signed the collateral


@pytest.mark.parametrize("part", ["tcb_info", "qe_identity"])
def test_collateral_that_is_missing_changed_or_signed_by_others(lab: Lab, stranger: Lab, part: str, kind: str) -> None:
    room, quote = ROOM[kind], lab.quote(kind)
    collateral = lab.forge.collateral(room)
    with pytest.raises(EndorsementMissing) as caught:
        lab.verify(quote, with_parts(collateral, **{part: None}))
    assert caught.value.code == f"{part}_missing"
    what = f"tcb?fmspc={lab.forge.platform.fmspc.hex().upper()}" if part == "tcb_info" else "qe/identity"
    assert f"https://api.trustedservices.intel.com/{room}/certification/v4/{what}" in str(caught.value.hint)
    signed = getattr(collateral, part)
    tampered = signed._replace(text=signed.text.replace(b'DataNumber":20', b'DataNumber":21'))
    assert lab.refused(quote, with_parts(collateral, **{part: tampered})) == f"{part}_sig"
    spaced = signed._replace(text=signed.text.replace(b'":', b'": '))
    assert lab.refused(quote, with_parts(collateral, **{part: spaced})) == f"{part}_sig"
    other = getattr(stranger.forge.collateral(room), part)
    assert lab.refused(quote, with_parts(collateral, **{part: other})) == f"{part}_sig"


@pytest.mark.parametrize("part", ["info_signer", "identity_signer"])
def test_a_pck_key_that_signs_its_own_tcb_info(lab: Lab, part: str, kind: str) -> None:
    code = "tcb_info_signer_name" if part == "info_signer" else "qe_identity_signer_name"
    signer: dict[str, Any] = {part: lab.forge.pck}
    collateral = lab.forge.collateral(ROOM[kind], **signer)
    assert lab.refused(lab.quote(kind), collateral) == code
    if part == "info_signer":
        alone = replace(collateral, tcb_signing=lab.forge.pck.certificate, qe_signing=lab.forge.pck.certificate)
        assert lab.refused(lab.quote(kind), alone) == code


def test_no_signing_certificate_at_all(lab: Lab) -> None:
    root = lab.forge.root.certificate
    collateral = replace(lab.forge.collateral("sgx"), tcb_signing=root, qe_signing=root)
    assert lab.refused(lab.quote(), collateral) == "tcb_signing_missing"


def test_a_signer_of_the_right_name_under_another_root(lab: Lab, stranger: Lab, kind: str) -> None:
    collateral = lab.forge.collateral(ROOM[kind], info_signer=stranger.forge.tcb_signing)
    strangers_root = stranger.forge.root.certificate.public_bytes(Encoding.DER)
    # one name, another key: the signature on the signer does not verify under the root that is trusted
    assert lab.refused(lab.quote(kind), collateral) in {"tcb_signing_sig", "root_untrusted"}
    assert lab.refused(lab.quote(kind), collateral, strangers_root) == "root_untrusted"


def test_one_trusted_root_does_not_speak_for_the_platforms_of_another(lab: Lab, stranger: Lab) -> None:
    """A development root beside the vendor's must not be able to call the vendor's platforms up to date."""
    both = TrustAnchors(vendor=False, custom=frozenset({lab.forge.fingerprint, stranger.forge.fingerprint}))
    collateral = lab.forge.collateral("sgx", info_signer=stranger.forge.tcb_signing)
    root = stranger.forge.root.certificate.public_bytes(Encoding.DER)
    crl = stranger.forge.crl(stranger.forge.root)
    assert lab.refused(lab.quote(), collateral, root, crl, anchors=both) == "root_untrusted"


def test_a_signer_that_expired(lab: Lab) -> None:
    old = make_tcb_signing(lab.forge.root, NOW, life=timedelta(minutes=30))
    assert lab.refused(lab.quote(), lab.forge.collateral("sgx", info_signer=old)) == "tcb_signing_validity"


@pytest.mark.parametrize("part", ["info", "identity"])
def test_collateral_outside_its_dates(lab: Lab, part: str, kind: str) -> None:
    code = "tcb_info_validity" if part == "info" else "qe_identity_validity"

    def dated(**dates: str) -> Collateral:
        changes: dict[str, Any] = {part: dates}
        return lab.forge.collateral(ROOM[kind], **changes)

    for outside in (dated(nextUpdate="2026-06-01T11:59:59Z"), dated(issueDate="2026-06-01T12:00:01Z")):
        assert lab.refused(lab.quote(kind), outside) == code
    edge = dated(issueDate="2026-06-01T12:00:00Z", nextUpdate="2026-06-01T12:00:00Z")
    assert lab.verify(lab.quote(kind), edge).expires == NOW


def test_tcb_info_of_the_other_tee(lab: Lab) -> None:
    for quote, other in ((lab.quote("sgx"), "tdx"), (lab.quote("td10"), "sgx")):
        room = "sgx" if other == "tdx" else "tdx"
        collateral = replace(lab.forge.collateral(room), tcb_info=lab.forge.collateral(other).tcb_info)
        assert lab.refused(quote, collateral) == "tcb_info_tee"


def test_tcb_info_2_is_for_sgx_alone(lab: Lab) -> None:
    level = {f"sgxtcbcomp{n:02}svn": svn for n, svn in enumerate(lab.forge.platform.components, 1)} | {"pcesvn": 13}
    levels = [{"tcb": level, "tcbDate": "2026-02-11T00:00:00Z", "tcbStatus": "SWHardeningNeeded"}]
    old = {"id": None, "version": 2, "tcbLevels": levels}
    verified = lab.verify(lab.quote(), lab.forge.collateral("sgx", info=old))
    assert verified.claims["tcb_status"] == "SWHardeningNeeded"
    collateral = replace(lab.forge.collateral("tdx"), tcb_info=lab.forge.collateral("sgx", info=old).tcb_info)
    assert lab.refused(lab.quote("td10"), collateral) == "tcb_info_tee"


def test_qe_identity_of_the_other_enclave(lab: Lab) -> None:
    for quote, other in ((lab.quote("sgx"), "tdx"), (lab.quote("td10"), "sgx")):
        room = "sgx" if other == "tdx" else "tdx"
        collateral = replace(lab.forge.collateral(room), qe_identity=lab.forge.collateral(other).qe_identity)
        assert lab.refused(quote, collateral) == "qe_identity_tee"


# Step 5: the platform


def test_collateral_of_another_family_or_pce(lab: Lab, kind: str) -> None:
    for changes, code in (({"fmspc": "00906ED50000"}, "fmspc_mismatch"), ({"pceId": "0001"}, "pceid_mismatch")):
        assert lab.refused(lab.quote(kind), lab.forge.collateral(ROOM[kind], info=changes)) == code
    other = lab.forge.with_platform(Platform(fmspc=bytes.fromhex("00906ed50000")))
    assert lab.refused(other.quote(lab.quote(kind).body), lab.forge.collateral(ROOM[kind])) == "fmspc_mismatch"
    other = lab.forge.with_platform(Platform(pceid=b"\0\1"))
    assert lab.refused(other.quote(lab.quote(kind).body), lab.forge.collateral(ROOM[kind])) == "pceid_mismatch"


def test_fmspc_in_either_case(lab: Lab) -> None:
    lower = {"fmspc": lab.forge.platform.fmspc.hex()}
    assert lab.verify(lab.quote(), lab.forge.collateral("sgx", info=lower)).claims["tcb_status"] == "UpToDate"


# Step 7: TDX module


@pytest.mark.parametrize("name", ["td10", "td15"])
def test_a_module_that_intel_does_not_describe(lab: Lab, name: str) -> None:
    td15 = name == "td15"
    for fields, code in (
        ({"tee_tcb_svn": bytes((5, 2, 2)) + bytes(13)}, "tdx_module_unknown"),
        ({"mrsignerseam": b"\1" + bytes(47)}, "tdx_module_mrsigner"),
        ({"seam_attributes": b"\1" + bytes(7)}, "tdx_module_attributes"),
        ({"tee_tcb_svn": bytes((5, 0, 2)) + bytes(13), "mrsignerseam": bytes(47) + b"\1"}, "tdx_module_mrsigner"),
    ):
        assert lab.refused(lab.quote(name, body=td_body(td15=td15, **fields))) == code
    assert lab.refused(lab.quote(name), lab.forge.collateral("tdx", modules=[])) == "tdx_module_unknown"


def test_a_module_of_version_0_has_no_identity(lab: Lab) -> None:
    body = td_body(tee_tcb_svn=bytes((5, 0, 2)) + bytes(13))
    levels = [Level(lab.forge.platform.components, 13, tdx=(5, 0, 2, *([0] * 13)))]
    verified = lab.verify(lab.quote("td10", body=body), lab.forge.collateral("tdx", levels=levels))
    assert verified.claims["tdx_module_tcb_status"] is None
    below = td_body(tee_tcb_svn=bytes((4, 0, 2)) + bytes(13))
    assert lab.refused(lab.quote("td10", body=below), lab.forge.collateral("tdx", levels=levels)) == "tcb_not_supported"


# Steps 8 to 10: the quoting enclave


def test_a_qe_report_that_the_pck_did_not_sign(lab: Lab, stranger: Lab, kind: str) -> None:
    with pytest.raises(SignatureInvalid) as caught:
        lab.verify(lab.quote(kind, qe_signer=stranger.forge.pck.key))
    assert caught.value.code == "qe_report_sig"
    for signature in (bytes(64), b"\xff" * 64):
        assert lab.refused(changed(lab, kind, qe_report_signature=signature)) == "qe_report_sig"


def test_a_pck_of_another_platform_of_the_family(lab: Lab, kind: str) -> None:
    other = lab.forge.with_platform(Platform())
    assert lab.refused(other.quote(lab.quote(kind).body, qe_signer=lab.forge.pck.key)) == "qe_report_sig"


def test_an_attestation_key_that_the_qe_does_not_vouch_for(lab: Lab, stranger: Lab, kind: str) -> None:
    key = stranger.quote(kind).attestation_key
    taken = resign(changed(lab, kind, attestation_key=key), stranger.forge.attestation_key)
    with pytest.raises(BindingMismatch) as caught:
        lab.verify(taken)
    assert caught.value.code == "qe_report_data"
    assert lab.refused(changed(lab, kind, qe_auth_data=b"other")) == "qe_report_data"
    assert lab.verify(lab.quote(kind, qe_auth_data=b"")).tee == ROOM[kind]


def test_the_other_half_of_the_qes_report_data_is_zero(lab: Lab, kind: str) -> None:
    quote = lab.quote(kind)
    bound = hashlib.sha256(quote.attestation_key + quote.qe_auth_data).digest()
    assert lab.refused(lab.quote(kind, qe_report={"report_data": bound + bytes(31) + b"\1"})) == "qe_report_data"


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("miscselect", 1, "qe_miscselect"),
        ("attributes", bytes.fromhex("1700000000000000e700000000000000"), "qe_attributes"),  # DEBUG
        ("mrsigner", bytes(32), "qe_mrsigner"),
        ("isvprodid", 7, "qe_isvprodid"),
        ("isvsvn", 7, "qe_not_supported"),
    ],
)
def test_another_quoting_enclave(lab: Lab, kind: str, field: str, value: object, code: str) -> None:
    assert lab.refused(lab.quote(kind, qe_report={field: value})) == code


def test_a_bit_that_the_identity_masks_away(lab: Lab) -> None:
    attributes = bytes.fromhex("1100000000000000e700000000000000")  # without MODE64
    assert lab.verify(lab.quote(qe_report={"attributes": attributes})).claims["qe_tcb_status"] == "UpToDate"


# Step 11: the quote


def test_a_quote_that_the_attestation_key_did_not_sign(lab: Lab, stranger: Lab, kind: str) -> None:
    assert lab.refused(lab.quote(kind, quote_signer=stranger.forge.attestation_key)) == "quote_sig"
    assert lab.refused(changed(lab, kind, signature=bytes(64))) == "quote_sig"
    quote = lab.quote(kind)
    body = msgspec.structs.replace(quote.body, report_data=b"\1" * 64)
    assert lab.refused(msgspec.structs.replace(quote, body=body)) == "quote_sig"
    header = msgspec.structs.replace(quote.header, user_data=b"\1" * 20)
    assert lab.refused(msgspec.structs.replace(quote, header=header)) == "quote_sig"


def test_an_attestation_key_that_is_no_point(lab: Lab, kind: str) -> None:
    key = b"\1" * 64
    bound = hashlib.sha256(key + bytes(range(32))).digest() + bytes(32)
    quote = msgspec.structs.replace(lab.quote(kind, qe_report={"report_data": bound}), attestation_key=key)
    assert lab.refused(quote) == "attestation_key"


# Steps 12 and 13: levels


def test_a_platform_below_every_level(lab: Lab, kind: str) -> None:
    room, platform = ROOM[kind], lab.forge.platform
    tdx = (5, 1, 2, *([0] * 13)) if room == "tdx" else None
    more = (platform.components[0] + 1, *platform.components[1:])
    for level in (Level(more, 13, tdx=tdx), Level(platform.components, 14, tdx=tdx)):
        assert lab.refused(lab.quote(kind), lab.forge.collateral(room, levels=[level])) == "tcb_not_supported"
    if room == "tdx":
        above = Level(platform.components, 13, tdx=(0, 0, 3, *([0] * 13)))
        assert lab.refused(lab.quote(kind), lab.forge.collateral(room, levels=[above])) == "tcb_not_supported"


def test_the_certificates_tcb_counts_not_the_reports(lab: Lab) -> None:
    """The CPUSVN that an enclave reports is not the TCB that Intel certified."""
    quote = lab.quote(body=sgx_body(cpusvn=b"\xff" * 16))
    more = (lab.forge.platform.components[0] + 1, *lab.forge.platform.components[1:])
    assert lab.refused(quote, lab.forge.collateral("sgx", levels=[Level(more, 13)])) == "tcb_not_supported"


@pytest.mark.parametrize("name", ["td10", "td15"])
def test_a_module_below_every_level(lab: Lab, name: str) -> None:
    modules = [(1, [ModuleLevel(6)])]
    assert lab.refused(lab.quote(name), lab.forge.collateral("tdx", modules=modules)) == "tdx_module_not_supported"


def test_module_svn_and_version_are_told_apart(lab: Lab) -> None:
    """With a version, components 0 and 1 are the module identity's; without, they are the level's."""
    platform = lab.forge.platform
    levels = [Level(platform.components, 13, tdx=(99, 99, 2, *([0] * 13)))]
    verified = lab.verify(lab.quote("td10"), lab.forge.collateral("tdx", levels=levels))
    assert verified.claims["platform_tcb_status"] == "UpToDate"


def test_levels_are_sorted_whatever_their_order(lab: Lab, kind: str) -> None:
    room = ROOM[kind]
    levels = lab.forge.levels(room, ("UpToDate", "OutOfDate", "Revoked"))
    for order in (levels, levels[::-1]):
        assert lab.verify(lab.quote(kind), lab.forge.collateral(room, levels=order)).claims["tcb_status"] == "UpToDate"
    qe_levels = [ModuleLevel(1, "Revoked"), ModuleLevel(8), ModuleLevel(4, "OutOfDate")]
    verified = lab.verify(lab.quote(kind), lab.forge.collateral(room, qe_levels=qe_levels))
    assert verified.claims["qe_tcb_status"] == "UpToDate"


# Steps 14 to 16 are in test_status.py; then binding


def test_report_data_and_init_data(lab: Lab, kind: str) -> None:
    expected = ReportData(b"\7" * 64)
    assert lab.refused(lab.quote(kind), report_data=expected) == "report_data_mismatch"
    size, name = (64, "configid") if kind == "sgx" else (48, "mrconfigid")
    assert lab.refused(lab.quote(kind), init_data=b"\7" * size) == "init_data_mismatch"
    with pytest.raises(ValueError, match=f"{size} bytes"):
        lab.verify(lab.quote(kind), init_data=b"\7" * (size - 1))
    with pytest.raises(ValueError, match="empty"):
        lab.verify(lab.quote(kind), report_data=ReportData(bytes(64)))
    body = msgspec.structs.replace(lab.quote(kind).body, report_data=b"\7" * 64, **{name: b"\7" * size})
    verified = lab.verify(lab.quote(kind, body=body), report_data=expected, init_data=b"\7" * size)
    assert verified.unchecked == ()
    assert verified.init_data == b"\7" * size
    assert {"report_data", "init_data"} <= {check.id for check in verified.checks}


def test_absent_collateral_is_missing_not_overlooked(lab: Lab, kind: str) -> None:
    room = ROOM[kind]
    bare = replace(lab.forge.collateral(room), tcb_info=None, qe_identity=None)
    assert lab.refused(lab.quote(kind), bare) == "tcb_info_missing"
    module = {"sgx": sgx_room, "tdx": tdx_room}[room]
    verified = module.verify_signatures_without_tcb_as_asked(
        lab.quote(kind).encode(), endorsements=EndorsementSet.parse(bare.blobs()), now=NOW, anchors=lab.anchors
    )
    assert {"tcb", "qe_identity"} <= set(verified.unchecked)
    assert verified.claims["tcb_status"] is None
    assert verified.tcb["status"] is None
    assert "tcb_status" not in verified.coco_claims
    for code, quote in (
        ("quote_sig", changed(lab, kind, signature=bytes(64))),
        ("qe_report_sig", changed(lab, kind, qe_report_signature=bytes(64))),
    ):
        with pytest.raises(EvidenceError) as caught:
            module.verify_signatures_without_tcb_as_asked(
                quote.encode(), endorsements=EndorsementSet.parse(bare.blobs()), now=NOW, anchors=lab.anchors
            )
        assert caught.value.code == code


def test_what_is_verified_says_so(lab: Lab, kind: str) -> None:
    trail: list[Check] = []
    verified = lab.verify(lab.quote(kind), trail=trail)
    assert [check.id for check in trail] == [check.id for check in verified.checks]
    assert all(check.ok and check.group and check.spec for check in trail)
    assert ("tdx_module" in {check.id for check in trail}) is (kind != "sgx")
    assert verified.root is RootKind.CUSTOM
    assert verified.root_fingerprint == lab.forge.fingerprint.hex()
    assert verified.expires_first in {"TCB info", "QE identity", "PCK CRL", "root CRL"}  # which end together
    assert verified.expires == NOW - timedelta(hours=1) + timedelta(days=30)
    assert verified.tcb["status"] == verified.claims["tcb_status"] == verified.coco_claims["tcb_status"] == "UpToDate"
    failing: list[Check] = []
    lab.refused(changed(lab, kind, signature=bytes(64)), trail=failing)
    assert [check.ok for check in failing] == [True] * (len(failing) - 1) + [False]
    assert failing[-1].id == "quote_sig"


@pytest.mark.parametrize("version", [3, 4, 5])
def test_every_version_with_an_enclaves_body(lab: Lab, version: int) -> None:
    verified = lab.verify(lab.quote("sgx", version=version, tail=b"\0\1\2"))
    assert verified.claims["quote_version"] == version
    assert verified.claims["trailing_bytes"] == 3


@pytest.mark.parametrize("platform_kind", ["platform", "processor"])
def test_both_cas(lab: Lab, kind: str, platform_kind: str) -> None:
    forge = lab.forge.with_platform(Platform(kind=platform_kind, sgx_type=int(platform_kind == "platform")))
    verified = lab.verify(forge.quote(lab.quote(kind).body), forge.collateral(ROOM[kind]))
    assert verified.claims["pck_ca"] == platform_kind
    assert ("platform_instance_id" in verified.coco_claims) is (platform_kind == "platform")
    assert ("is_smt_enabled" in verified.coco_claims) is (platform_kind == "platform")


def test_a_trail_tells_what_was_expected_and_what_came(lab: Lab, kind: str) -> None:
    body = msgspec.structs.replace(lab.quote(kind).body, report_data=b"\7" * 64)
    size = 64 if kind == "sgx" else 48
    trail: list[Check] = []
    memory = Remembered()
    for _ in range(2):  # the same whether or not it is remembered
        trail.clear()
        lab.verify(
            lab.quote(kind, body=body),
            report_data=ReportData(b"\7" * 64),
            init_data=bytes(size),
            trail=trail,
            remembered=memory,
        )
        told = {check.id: (check.expected, check.got) for check in trail}
        fmspc = lab.forge.platform.fmspc.hex()
        assert told["fmspc"] == (fmspc, fmspc)
        assert told["pceid"] == ("0000", "0000")
        assert told["report_data"] == ("07" * 64, "07" * 64)
        assert told["init_data"] == ("00" * size, "00" * size)
        assert told["tcb_status"] == (None, "UpToDate")
        assert told["platform_tcb"] == told["qe_tcb"] == (None, "UpToDate as of 2026-02-11T00:00:00Z")
        if kind != "sgx":
            assert told["tdx_module"] == ("TDX_01", "version 1, SVN 5")
            assert told["tdx_module_tcb"] == (None, "UpToDate as of 2026-02-11T00:00:00Z")
