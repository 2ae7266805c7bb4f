"""Reference manifests: forged, changed, wrapped, of others, contradicting; then the comparison itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.tee.nvidia.conftest import DRIVER, GOLDEN, NOW, VBIOS, Verify

from adyton.crypto.x509 import EndorsementSet
from adyton.devtee import nvidia_endorsements as made
from adyton.devtee.nvidia import NvidiaForge, ReportFields, gpu_opaque, switch_opaque
from adyton.errors import (
    EndorsementError,
    EndorsementExpired,
    EndorsementMalformed,
    EndorsementMissing,
    EndorsementRevoked,
    EndorsementUntrusted,
    EvidenceError,
)
from adyton.rats.types import Revocation, TrustAnchors
from adyton.tee.nvidia import rim
from adyton.tee.nvidia.endorsements import Answers
from adyton.tee.nvidia.json_form import Device, to_json

META = {"colloquialVersion": "550.90.07", "edition": "GPU", "product": "GH100"}
DAY = timedelta(days=1)


def alone(forge: NvidiaForge, document: bytes) -> rim.VerifiedRim:
    return rim.verify(
        rim.parse(document),
        EndorsementSet(),
        Answers(()),
        now=NOW,
        anchors=TrustAnchors(vendor=False, custom=forge.anchors),
        revocation=Revocation.UNCHECKED_AS_ASKED,
    )


# Who signed


def test_a_value_changed_after_signing(forge: NvidiaForge, verify: Verify, driver_rim: bytes, vbios_rim: bytes) -> None:
    changed = driver_rim.replace(GOLDEN[8].hex().encode(), GOLDEN[9].hex().encode())
    with pytest.raises(EndorsementUntrusted) as caught:
        verify(forge.report(), also=[changed, vbios_rim])
    assert caught.value.code == "rim_digest"


def test_signed_by_another_key(forge: NvidiaForge, other: NvidiaForge, verify: Verify, vbios_rim: bytes) -> None:
    document = made.sign_xml(made.swid(DRIVER, META), forge.manifest, key=other.manifest[0].key)
    with pytest.raises(EndorsementUntrusted) as caught:
        verify(forge.report(), also=[document, vbios_rim])
    assert caught.value.code == "rim_sig"


def test_the_certificate_inside_is_not_trust(forge: NvidiaForge, other: NvidiaForge, verify: Verify) -> None:
    with pytest.raises(EndorsementUntrusted) as caught:
        verify(forge.report(), also=[other.rim(DRIVER), *other.answers()])
    assert caught.value.code == "rim_root_untrusted"


def test_a_device_does_not_sign_manifests(forge: NvidiaForge) -> None:
    text = made.swid(DRIVER, META)
    with pytest.raises(EndorsementError) as caught:
        alone(forge, made.sign_xml(text, forge.device))
    assert caught.value.code == "rim_root_sig"
    with pytest.raises(EndorsementMissing):
        alone(forge, made.sign_xml(text, forge.device[:1]))


def test_a_shorter_chain(forge: NvidiaForge) -> None:
    root = forge.manifest[3]
    signer = made.new_holder("HCC RIM L4 Signer", NOW, issuer=root, ca=False)
    with pytest.raises(EndorsementUntrusted) as caught:
        alone(forge, made.sign_xml(made.swid(DRIVER, META), (signer, root)))
    assert caught.value.code == "rim_issuer_self_issued"


def test_a_signer_out_of_its_time(forge: NvidiaForge) -> None:
    old = made.new_holder("HCC RIM L4 Signer", NOW - 4000 * DAY, issuer=forge.manifest[1], ca=False)
    with pytest.raises(EndorsementExpired) as caught:
        alone(forge, made.sign_xml(made.swid(DRIVER, META), (old, *forge.manifest[1:])))
    assert caught.value.code == "rim_signer_validity"


def test_an_authority_signs_no_manifests(forge: NvidiaForge) -> None:
    with pytest.raises(EndorsementMalformed) as caught:
        alone(forge, made.sign_xml(made.swid(DRIVER, META), forge.manifest[1:]))
    assert caught.value.code == "rim_signer_profile"


@pytest.mark.parametrize(("status", "code"), [("revoked", "rim_signer_revoked"), ("hold", "rim_signer_held")])
def test_a_revoked_signer(forge: NvidiaForge, verify: Verify, rims: list[bytes], status: str, code: str) -> None:
    given = [forge.pem, *rims, *forge.answers(status, about="Signer")]
    with pytest.raises(EndorsementRevoked) as caught:
        verify(forge.report(), given)
    assert caught.value.code == code


def test_a_manifest_needs_answers_too(
    forge: NvidiaForge, verify: Verify, answers: list[bytes], driver_rim: bytes, vbios_rim: bytes
) -> None:
    with pytest.raises(EndorsementMissing) as caught:
        verify(forge.report(), [forge.pem, driver_rim, vbios_rim, *answers[:3]])
    assert (caught.value.code, caught.value.field) == ("revocation_unknown", "rim_signer")


@pytest.mark.parametrize("wrong", ["", "unanswered", "revoked", "expired", "an authority", "signed by a stranger"])
def test_the_second_manifest_has_a_signer_of_its_own(
    forge: NvidiaForge, other: NvidiaForge, verify: Verify, driver_rim: bytes, wrong: str
) -> None:
    """What was verified for the first manifest's signer's issuer is not verified again; its signer's own part is."""
    issuer = other.manifest[1] if wrong == "signed by a stranger" else forge.manifest[1]
    start = NOW - 4000 * DAY if wrong == "expired" else NOW
    signer = made.new_holder("second signer", start, issuer=issuer, ca=wrong == "an authority")
    if wrong == "signed by a stranger":  # and claims to be issued by ours
        name = forge.manifest[1].certificate.subject
        forged = replace(forge.manifest[1], certificate=forge.manifest[1].certificate, key=issuer.key)
        assert forged.certificate.subject == name
        signer = made.new_holder("second signer", NOW, issuer=forged, ca=False)
    document = made.sign_xml(
        made.swid(VBIOS, {**META, "colloquialVersion": "96.00.9F.00.01"}), (signer, *forge.manifest[1:])
    )
    given = [driver_rim, document]
    if wrong != "unanswered":
        status = "revoked" if wrong == "revoked" else "good"
        given.append(made.answer(signer, forge.manifest[1], NOW, status=status))
    if not wrong:
        assert verify(forge.report(), also=given).claims["measurements_match"] is True
        return
    with pytest.raises(EndorsementError) as caught:
        verify(forge.report(), also=given)
    codes = {
        "unanswered": "revocation_unknown",
        "revoked": "rim_signer_revoked",
        "expired": "rim_signer_validity",
        "an authority": "rim_signer_profile",
        "signed by a stranger": "rim_signer_sig",
    }
    assert caught.value.code == codes[wrong]


# Which manifest


@pytest.mark.parametrize("given", ["driver", "vbios"])
def test_both_manifests_or_none(
    forge: NvidiaForge, verify: Verify, driver_rim: bytes, vbios_rim: bytes, given: str
) -> None:
    with pytest.raises(EndorsementMissing) as caught:
        verify(forge.report(), also=[driver_rim if given == "driver" else vbios_rim])
    assert caught.value.code == ("vbios_rim_missing" if given == "driver" else "driver_rim_missing")


@pytest.mark.parametrize(
    "meta", [{"colloquialVersion": "550.90.08"}, {"product": "GB100"}, {"edition": "SWITCH"}, {"product": "GH10"}]
)
def test_a_manifest_of_something_else(
    forge: NvidiaForge, verify: Verify, vbios_rim: bytes, meta: dict[str, str]
) -> None:
    with pytest.raises(EndorsementMissing) as caught:
        verify(forge.report(), also=[forge.rim(DRIVER, **meta), vbios_rim])
    assert caught.value.code == "driver_rim_missing"
    assert "NV_GPU_DRIVER_GH100_550.90.07" in (caught.value.hint or "")


def test_of_several_boards_manifests_the_one_that_fits(
    forge: NvidiaForge, verify: Verify, driver_rim: bytes, vbios_rim: bytes
) -> None:
    board = forge.rim({0: [GOLDEN[2]], 12: [GOLDEN[3]]}, colloquialVersion="96.00.9F.00.01")
    got = verify(forge.report(), also=[board, driver_rim, vbios_rim])
    assert got.claims["measurements_match"] is True


def test_a_forged_manifest_beside_a_true_one_is_no_harm(
    forge: NvidiaForge, other: NvidiaForge, verify: Verify, driver_rim: bytes, vbios_rim: bytes
) -> None:
    assert verify(forge.report(), also=[other.rim(DRIVER), driver_rim, vbios_rim]).claims["measurements_match"] is True


def test_unreadable_manifests_are_an_error_if_all_are(forge: NvidiaForge, verify: Verify, driver_rim: bytes) -> None:
    broken = driver_rim.replace(b"<ns0:Meta", b"<ns0:Mega", 1)
    with pytest.raises(EndorsementMalformed) as caught:
        verify(forge.report(), also=[broken])
    assert caught.value.code == "xml_malformed"


# The comparison


def test_a_measurement_that_differs(forge: NvidiaForge, verify: Verify, driver_rim: bytes, vbios_rim: bytes) -> None:
    report = forge.report(ReportFields(measurements={**GOLDEN, 8: bytes(48)}, opaque=gpu_opaque()))
    with pytest.raises(EvidenceError) as caught:
        verify(report, also=[driver_rim, vbios_rim])
    assert (caught.value.code, caught.value.field) == ("measurement_mismatch", "measurements[7]")
    assert (caught.value.expected, caught.value.got) == ([GOLDEN[8].hex()], bytes(48).hex())


def test_a_measurement_that_is_missing(forge: NvidiaForge, verify: Verify, driver_rim: bytes, vbios_rim: bytes) -> None:
    less = {index: value for index, value in GOLDEN.items() if index != 13}
    with pytest.raises(EvidenceError) as caught:
        verify(forge.report(ReportFields(measurements=less, opaque=gpu_opaque())), also=[driver_rim, vbios_rim])
    assert (caught.value.code, caught.value.field, caught.value.got) == (
        "measurement_mismatch",
        "measurements[12]",
        None,
    )


def test_a_measurement_cut_short_is_no_match(
    forge: NvidiaForge, verify: Verify, driver_rim: bytes, vbios_rim: bytes
) -> None:
    report = forge.report(ReportFields(measurements={**GOLDEN, 8: GOLDEN[8][:32]}, opaque=gpu_opaque()))
    with pytest.raises(EvidenceError) as caught:
        verify(report, also=[driver_rim, vbios_rim])
    assert caught.value.code == "measurement_mismatch"


def test_two_owners_of_one_index(forge: NvidiaForge, verify: Verify, driver_rim: bytes) -> None:
    both = forge.rim({**VBIOS, 7: [GOLDEN[8]]}, colloquialVersion="96.00.9F.00.01")
    with pytest.raises(EvidenceError) as caught:
        verify(forge.report(), also=[driver_rim, both])
    assert (caught.value.code, caught.value.field) == ("rim_index_conflict", "measurements[7]")


def test_any_alternative_will_do(forge: NvidiaForge, verify: Verify, driver_rim: bytes, vbios_rim: bytes) -> None:
    for value in (GOLDEN[22], bytes(48)):
        report = forge.report(ReportFields(measurements={**GOLDEN, 22: value}, opaque=gpu_opaque()))
        got = verify(report, also=[driver_rim, vbios_rim])
        assert got.claims["rim_active_measurements"] == 5


@pytest.mark.parametrize(("nvdec0", "good"), [(b"\x55", True), (b"\xaa", False), (None, False)])
def test_index_35_counts_unless_the_decoder_is_off(
    forge: NvidiaForge, verify: Verify, rims: list[bytes], nvdec0: bytes | None, good: bool
) -> None:
    opaque = {**gpu_opaque(), 11: nvdec0}
    report = forge.report(ReportFields(measurements={**GOLDEN, 36: bytes(48)}, opaque=opaque))
    if good:
        assert verify(report, also=rims).claims["rim_excused_indices"] == [35]
        return
    with pytest.raises(EvidenceError) as caught:
        verify(report, also=rims)
    assert caught.value.field == "measurements[35]"


def test_a_manifest_of_nothing_but_an_excused_index_matches_nothing(
    forge: NvidiaForge, verify: Verify, vbios_rim: bytes
) -> None:
    with pytest.raises(EvidenceError) as caught:
        verify(forge.report(), also=[forge.rim({35: [bytes(48)]}), vbios_rim])
    assert caught.value.code == "measurement_mismatch"


def test_everything_matches(forge: NvidiaForge, verify: Verify, driver_rim: bytes, vbios_rim: bytes) -> None:
    got = verify(forge.report(), also=[driver_rim, vbios_rim])
    assert got.unchecked == ()
    assert got.claims["debug"] is False
    assert got.claims["rim_versions"] == {"driver": "550.90.07", "vbios": "96.00.9F.00.01"}
    assert [check.id for check in got.checks][-3:] == ["driver_rim", "vbios_rim", "measurements"]


def test_what_cocos_default_gpu_policy_asks_for(
    forge: NvidiaForge, verify: Verify, driver_rim: bytes, vbios_rim: bytes
) -> None:
    claims = verify(forge.report(), also=[driver_rim, vbios_rim]).coco_claims
    for name in ("gpu-attestation-report", "gpu-driver-rim", "gpu-vbios-rim"):
        chain = claims[f"x-nvidia-{name}-cert-chain"]
        assert isinstance(chain, dict)
        assert (chain["x-nvidia-cert-status"], chain["x-nvidia-cert-ocsp-status"]) == ("valid", "good")
    names = ["attestation-report-cert-chain-fwid-match", "attestation-report-parsed", "arch-check"]
    names += ["attestation-report-signature-verified", "attestation-report-nonce-match", "vbios-index-no-conflict"]
    names += [
        f"{source}-rim-{fact}"
        for source in ("driver", "vbios")
        for fact in ("fetched", "measurements-available", "schema-validated", "signature-verified", "version-match")
    ]
    assert all(claims[f"x-nvidia-gpu-{name}"] is True for name in names)
    assert (claims["measres"], claims["secboot"], claims["dbgstat"]) == ("success", True, "disabled")
    assert (claims["x-nvidia-gpu-driver-version"], claims["x-nvidia-gpu-vbios-version"]) == (
        "550.90.07",
        "96.00.9F.00.01",
    )
    assert None not in claims.values()  # null is true in Rego


def test_gpus_and_switches_among_manifests_of_both(
    forge: NvidiaForge, verify: Verify, rims: list[bytes], answers: list[bytes]
) -> None:
    family = NvidiaForge(NOW, "LS_10", forge.device, forge.manifest).with_device()
    bios = family.rim({0: [GOLDEN[1]]}, colloquialVersion="96.10.55.00.01", edition="SWITCH")
    report = family.report(ReportFields(opaque=switch_opaque()))
    both = to_json((Device(forge.report(), forge.pem, "HOPPER"), Device(report, family.pem, "LS10")))
    given = [bios, *rims, *answers, *family.answers()]
    assert verify(both, given).claims["measurements_match"] is True
    with pytest.raises(EndorsementMissing) as caught:
        verify(both, given[1:])
    assert caught.value.code == "vbios_rim_missing"
    with pytest.raises(EndorsementMissing) as caught:
        verify(both, given[:1] + given[3:])
    assert caught.value.code == "driver_rim_missing"


# The document


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('active="True"', 'active="true"'),
        ('alternatives="1"', 'alternatives="2"'),
        ('alternatives="1"', 'alternatives="0"'),
        ('alternatives="1"', 'alternatives="x"'),
        ('index="9"', 'index="8"'),
        ('index="9"', 'index="-9"'),
        ('index="9"', 'index="254"'),
        ('size="48"', 'size="47"'),
        ('size="48"', 'size="0"'),
        ('type="Measurement"', 'type="MinimumSvn"'),
        ('name="Measurement_3"', 'nome="Measurement_3"'),
        ('name="Measurement_3"', 'moreover="1" name="Measurement_3"'),
        ("ns2:Hash0", "ns0:Hash0"),
        ("ns0:Resource", "ns0:Directory"),
        ('colloquialVersion="550.90.07"', 'colloquialVersion=""'),
        ('edition="GPU"', 'edition="CPU"'),
        ('product="GH100"', 'product=""'),
        ("ns0:Payload", "ns0:Evidence"),
        ("SoftwareIdentity", "SoftwareIdentities"),
    ],
)
def test_a_document_that_is_not_understood_whole(forge: NvidiaForge, old: str, new: str) -> None:
    text = made.swid(DRIVER, META)
    changed = text.replace(old, new)
    assert changed != text
    if "SoftwareIdentities" in changed:
        with pytest.raises(EndorsementMalformed):
            rim.parse(made.sign_xml(text, forge.manifest).replace(old.encode(), new.encode()))
        return
    with pytest.raises(EndorsementMalformed) as caught:
        rim.parse(made.sign_xml(changed, forge.manifest))
    assert caught.value.code == "rim_malformed"


def test_a_manifest_without_anything_active(forge: NvidiaForge) -> None:
    with pytest.raises(EndorsementMalformed, match="any active"):
        rim.parse(forge.rim({}))


def test_a_signer_without_a_p384_key(forge: NvidiaForge) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA384

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, SHA384())
    )
    holder = replace(forge.manifest[0], certificate=certificate)
    with pytest.raises(EndorsementMalformed) as caught:
        alone(forge, made.sign_xml(made.swid(DRIVER, META), (holder,), key=forge.manifest[0].key))
    assert caught.value.code == "rim_signer_key"
