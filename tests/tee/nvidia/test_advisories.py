"""What went wrong in other verifiers of NVIDIA evidence, one test each, named after it (evidence 11 and 15)."""

from __future__ import annotations

import re

import pytest
from cryptography import x509
from tests.tee.nvidia.conftest import DRIVER, GOLDEN, NOW, Verify

from adyton.devtee import nvidia_endorsements as made
from adyton.devtee.nvidia import NvidiaForge, ReportFields, gpu_opaque
from adyton.errors import (
    BindingMismatch,
    EndorsementError,
    EndorsementMalformed,
    EndorsementMissing,
    EndorsementRevoked,
    EndorsementUntrusted,
    SignatureInvalid,
    UnsupportedEvidence,
)
from adyton.rats.types import TrustAnchors
from adyton.tee.nvidia import rim
from adyton.tee.nvidia.endorsements import DEVICE_ROOT
from adyton.tee.nvidia.rim import RIM_ROOT

META = {"colloquialVersion": "550.90.07", "edition": "GPU", "product": "GH100"}


def test_dstack_review_gpu_shown_verified_without_cryptography(forge: NvidiaForge, verify: Verify) -> None:
    """A well-formed report with right claims and no valid signature is nothing."""
    report = forge.report()
    for bad in (report[:-96] + bytes(96), report[:-1] + bytes((report[-1] ^ 1,))):
        with pytest.raises(SignatureInvalid):
            verify(bad)


def test_hold_ignored(forge: NvidiaForge, verify: Verify) -> None:
    """A certificate on hold is refused: there is no switch that lets it pass."""
    with pytest.raises(EndorsementRevoked) as caught:
        verify(forge.report(), [forge.pem, *forge.answers("hold")])
    assert caught.value.code == "chip_held"


def test_nonce_not_compared(forge: NvidiaForge, verify: Verify) -> None:
    """The requester's nonce counts, in full; the device's own does not stand in for it."""
    wanted = bytes(range(32))
    for got in (bytes(32), wanted[:31] + b"\0", wanted[::-1]):
        fields = ReportFields(nonce=got, response_nonce=wanted, opaque=gpu_opaque())
        with pytest.raises(BindingMismatch):
            verify(forge.report(fields), nonce=wanted)


def test_trustee_root_compared_by_sha1(forge: NvidiaForge, verify: Verify) -> None:
    """Roots are pinned by the SHA-256 of their key; a root with NVIDIA's name is none."""
    assert (len(DEVICE_ROOT), len(RIM_ROOT)) == (32, 32)
    with pytest.raises(EndorsementUntrusted) as caught:
        verify(forge.report(), anchors=TrustAnchors())
    assert caught.value.code == "root_untrusted"


def test_each_root_is_for_its_own_chain(
    forge: NvidiaForge, verify: Verify, driver_rim: bytes, vbios_rim: bytes
) -> None:
    """Whoever trusts a device root alone trusts no manifests by that."""
    only_devices = TrustAnchors(vendor=False, custom=frozenset({forge.device[-1].spki_fingerprint}))
    with pytest.raises(EndorsementUntrusted) as caught:
        verify(forge.report(), also=[driver_rim, vbios_rim], anchors=only_devices)
    assert caught.value.code == "rim_root_untrusted"


def test_rim_version_chosen_by_attacker(
    forge: NvidiaForge, verify: Verify, driver_rim: bytes, vbios_rim: bytes
) -> None:
    """A host that names a driver without a manifest does not get out of being compared."""
    report = forge.report(ReportFields(opaque=gpu_opaque(driver="1.2.3")))
    with pytest.raises(EndorsementMissing) as caught:
        verify(report, also=[driver_rim, vbios_rim])
    assert caught.value.code == "driver_rim_missing"
    for missing in (3, 6):
        report = forge.report(ReportFields(opaque={**gpu_opaque(), missing: None}))
        with pytest.raises(EndorsementMissing):
            verify(report, also=[driver_rim, vbios_rim])


def test_a_vbios_manifest_in_the_drivers_place(forge: NvidiaForge, verify: Verify, vbios_rim: bytes) -> None:
    """Nor one that calls its driver by the VBIOS's version, so that one manifest would serve for both."""
    report = forge.report(ReportFields(opaque=gpu_opaque(driver="96.00.9F.00.01")))
    with pytest.raises(EndorsementMissing) as caught:
        verify(report, also=[vbios_rim])
    assert caught.value.code == "driver_rim_missing"


def _refused(forge: NvidiaForge, document: bytes) -> None:
    with pytest.raises(EndorsementMalformed) as caught:
        rim.parse(document)
    assert caught.value.code in {"xml_malformed", "rim_malformed"}


def test_xml_wrapping_a_second_document_around_the_signed_one(forge: NvidiaForge, driver_rim: bytes) -> None:
    """The signature must be a child of the root that is read."""
    evil = made.swid({7: [bytes(48)]}, META)
    _refused(forge, evil.replace("</SoftwareIdentity>", driver_rim.decode() + "</SoftwareIdentity>").encode())


def test_xml_wrapping_a_reference_to_a_part(forge: NvidiaForge) -> None:
    """Only the empty URI, which means the whole document."""
    for uri in ("#golden", "#xpointer(/)", "http://example.invalid/rim.xml"):
        _refused(forge, made.sign_xml(made.swid(DRIVER, META), forge.manifest, uri=uri))


def test_xml_wrapping_two_signatures(forge: NvidiaForge, driver_rim: bytes) -> None:
    """One document, one signature."""
    text = driver_rim.decode()
    signature = re.search(r"<ds:Signature .*</ds:Signature>", text, re.DOTALL)
    assert signature is not None
    _refused(forge, text.replace(signature[0], signature[0] * 2).encode())


def test_xml_wrapping_a_payload_inside_the_signature(forge: NvidiaForge, driver_rim: bytes) -> None:
    """What the enveloped transform takes out of the digest must not be read: no objects, no other key information."""
    inside = f"<ds:Object>{made.swid({7: [bytes(48)]}, META)}</ds:Object></ds:Signature>"
    _refused(forge, driver_rim.decode().replace("</ds:Signature>", inside).encode())


def test_xml_wrapping_a_comment_inside_a_value(forge: NvidiaForge, driver_rim: bytes) -> None:
    """Comments are not signed; they must not cut a value in two for the one who reads it."""
    value = GOLDEN[8].hex()
    commented = driver_rim.decode().replace("<ns0:Payload>", "<ns0:Payload><!-- 7 -->")
    read = rim.parse(commented.encode())
    assert read.signed.digest_matches()
    assert read.golden[7] == (bytes.fromhex(value),)
    match = re.search(r"<ds:DigestValue>(.{10})", driver_rim.decode())
    assert match is not None
    _refused(forge, driver_rim.decode().replace(match[0], match[0] + "<!---->").encode())


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE SoftwareIdentity [<!ENTITY a "b">]>',
        '<!DOCTYPE SoftwareIdentity SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE SoftwareIdentity SYSTEM "http://example.invalid/a.dtd">',
    ],
)
def test_xml_entities_and_document_types(forge: NvidiaForge, driver_rim: bytes, head: str) -> None:
    """None at all: no expansion, no file, no network."""
    _refused(forge, head.encode() + driver_rim)


def test_a_transform_that_was_not_agreed_upon(forge: NvidiaForge, driver_rim: bytes) -> None:
    """XSLT, XPath and weaker algorithms are refused by name."""
    text = driver_rim.decode()
    for old, new in (
        ("http://www.w3.org/2000/09/xmldsig#enveloped-signature", "http://www.w3.org/TR/1999/REC-xslt-19991116"),
        ("http://www.w3.org/2001/04/xmldsig-more#sha384", "http://www.w3.org/2000/09/xmldsig#sha1"),
        ("http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384", "http://www.w3.org/2000/09/xmldsig#hmac-sha1"),
    ):
        assert old in text
        _refused(forge, text.replace(old, new).encode())


def test_a_manifest_is_read_only_as_it_was_signed(forge: NvidiaForge, driver_rim: bytes) -> None:
    """Attributes that XML lets come in any order mean the same: the canonical text is what is read."""
    text = driver_rim.decode().replace(
        'active="True" alternatives="1" index="7"', 'index="7" active="True" alternatives="1"'
    )
    read = rim.parse(text.encode())
    assert read.signed.digest_matches()
    assert read.golden[7] == (GOLDEN[8],)


def test_a_dpu_is_not_taken_for_a_gpu(forge: NvidiaForge) -> None:
    """There is no room for DPU evidence, and it is refused as such."""
    from adyton import tee
    from adyton.crypto.x509 import EndorsementSet

    with pytest.raises(UnsupportedEvidence):
        tee.verify("nvidiadpu", forge.report(), endorsements=EndorsementSet(), now=NOW, anchors=TrustAnchors())


def test_an_answer_of_a_stranger_is_no_answer(forge: NvidiaForge, other: NvidiaForge, verify: Verify) -> None:
    """OCSP: the responder must be certified by the issuer of the certificate in question, and for OCSP."""
    chip, provisioner = forge.device[1], forge.device[2]
    stranger = made.new_responder(other.device[2], NOW)
    server = made.new_responder(provisioner, NOW, purpose=x509.ObjectIdentifier("1.3.6.1.5.5.7.3.1"))
    rest = forge.answers()[1:]
    for responder, code in (
        (stranger, "ocsp_responder"),
        (server, "ocsp_responder"),
        (other.device[2], "ocsp_responder"),
    ):
        bad = made.answer(chip, provisioner, NOW, responder=responder)
        with pytest.raises(EndorsementError) as caught:
            verify(forge.report(), [forge.pem, bad, *rest])
        assert caught.value.code == code
