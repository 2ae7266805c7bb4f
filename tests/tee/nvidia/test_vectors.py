"""Real reports, manifests and answers: each as the manifest expects, and refused once a signed bit of it is changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adyton import tee
from adyton.cli.vectors import run
from adyton.crypto import ocsp
from adyton.crypto.chain import Role
from adyton.crypto.x509 import EndorsementSet, spki_fingerprint
from adyton.devtee.forge import flip
from adyton.errors import AdytonError, EndorsementError, EndorsementUntrusted, EvidenceError, SignatureInvalid
from adyton.rats.types import Revocation, RootKind, TrustAnchors, VerifiedEvidence
from adyton.tee.nvidia import abi, rim
from adyton.tee.nvidia.endorsements import ALGORITHMS, DEVICE_ROOT, is_leaf, read_leaf, verify_chain
from adyton.tee.nvidia.rim import RIM_ROOT

H100 = ("h100-550.90.07", datetime(2024, 6, 2, 3, tzinfo=UTC))
REPORTS = (
    H100,
    ("h100-580.95.05", datetime(2025, 12, 1, tzinfo=UTC)),
    ("h200-590.12", datetime(2025, 12, 1, tzinfo=UTC)),
    ("blackwell-gb100-575.32", datetime(2025, 12, 1, tzinfo=UTC)),
    ("nvswitch-ls10", datetime(2026, 5, 22, tzinfo=UTC)),
)
MANIFESTS = ("NV_GPU_DRIVER_GH100_550.90.07.xml", "NV_GPU_VBIOS_1010_0200_882_96009F0001.xml")


def verified(nvidia: Path, name: str, now: datetime, *also: bytes, report: bytes | None = None) -> VerifiedEvidence:
    return tee.verify(
        "nvidia",
        report if report is not None else (nvidia / f"{name}.spdm").read_bytes(),
        endorsements=EndorsementSet.parse([(nvidia / f"{name}-chain.pem").read_bytes(), *also]),
        now=now,
        anchors=TrustAnchors(),
        revocation=Revocation.UNCHECKED_AS_ASKED,
    )


def test_every_case_of_the_manifest(vectors: Path, manifest: dict[str, object]) -> None:
    cases = [case for case in manifest["cases"] if case["tee"] == "nvidia"]  # type: ignore[attr-defined]
    assert len(cases) >= 17
    wrong = {case["id"]: run(manifest, vectors, case).differs for case in cases}
    assert {name: differs for name, differs in wrong.items() if differs} == {}


def test_pins_are_those_of_the_files(vectors: Path) -> None:
    for name, pin in (("nvidia-device-identity-root", DEVICE_ROOT), ("nvidia-rim-root", RIM_ROOT)):
        (root,) = EndorsementSet.parse([(vectors / "roots" / f"{name}.pem").read_bytes()]).certificates
        assert spki_fingerprint(root) == pin


@pytest.mark.parametrize(("name", "now"), REPORTS)
def test_a_flipped_bit_of_a_real_report(nvidia: Path, name: str, now: datetime) -> None:
    assert verified(nvidia, name, now).root is RootKind.VENDOR
    report = (nvidia / f"{name}.spdm").read_bytes()
    for bit in range(0, 8 * len(report), 8 * len(report) // 12 + 1):
        with pytest.raises(EvidenceError):
            verified(nvidia, name, now, report=flip(report, bit))


def test_a_real_gpu_with_its_manifests(nvidia: Path) -> None:
    rims = [(nvidia / "rim" / name).read_bytes() for name in MANIFESTS]
    got = verified(nvidia, *H100, *rims)
    assert got.claims["measurements_match"] is True
    assert got.claims["rim_active_measurements"] == 33
    assert got.root is RootKind.VENDOR
    assert "measurements" not in got.unchecked


def test_another_drivers_manifest(nvidia: Path) -> None:
    rims = [(nvidia / "rim" / name).read_bytes() for name in ("NV_GPU_DRIVER_GH100_550.144.03.xml", MANIFESTS[1])]
    with pytest.raises(AdytonError) as caught:
        verified(nvidia, *H100, *rims)
    assert caught.value.code == "driver_rim_missing"


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_flipped_bit_of_a_real_manifest(nvidia: Path, name: str) -> None:
    """Everywhere: what is not white space between parts of the signature either breaks it or cannot be read."""
    document = (nvidia / "rim" / name).read_bytes()
    for bit in range(3, 8 * len(document), 8 * len(document) // 40 + 1):
        try:
            read = rim.parse(flip(document, bit))
            same = read.signed == rim.parse(document).signed
            good = read.signed.digest_matches() and read.signed.is_signed_by(read.signer_key)
        except EndorsementError:
            continue
        assert same or not good or read.certificates != rim.parse(document).certificates


def test_the_report_with_a_broken_signature_fits_no_known_device(nvidia: Path) -> None:
    report = (nvidia / "h200-560-invalid-signature.spdm").read_bytes()
    abi.parse(report)
    for name, now in REPORTS:
        with pytest.raises(SignatureInvalid):
            verified(nvidia, name, now, report=report)


def test_real_answers_about_a_real_chain(nvidia: Path) -> None:
    """NVIDIA's answers verify from the pinned root down; a flipped bit, another time or another issuer breaks them."""
    path = verify_chain(
        EndorsementSet.parse([(nvidia / "h100-550.90.07-chain.pem").read_bytes()]),
        now=datetime(2025, 8, 21, 12, tzinfo=UTC),
        anchors=TrustAnchors(),
        revocation=Revocation.UNCHECKED_AS_ASKED,
    )
    names = ("gpu_certificate_l4", "gpu_certificate_l3", "gpu_certificate_l2")
    answers = [(nvidia / "ocsp" / f"{name}.der").read_bytes() for name in names]
    complete = EndorsementSet.parse([(nvidia / "h100-550.90.07-chain.pem").read_bytes(), *answers])
    now = datetime(2025, 8, 21, 12, tzinfo=UTC)
    verify_chain(complete, now=now, anchors=TrustAnchors())
    for late in (now + timedelta(days=2), now - timedelta(days=2)):
        with pytest.raises(EndorsementError) as caught:
            verify_chain(complete, now=late, anchors=TrustAnchors())
        assert caught.value.code == "ocsp_validity"
    role = Role("nvidia", "chip", "test")
    for number, encoded in enumerate(answers, start=1):
        certificate, issuer = path.certificates[number : number + 2]
        for bit in range(40, 8 * len(encoded), 997):
            with pytest.raises(EndorsementError):
                answer = ocsp.Answer(flip(encoded, bit))
                ocsp.check_good(certificate, issuer, [answer], now, whose=role, algorithms=ALGORITHMS)
        with pytest.raises(EndorsementError):
            ocsp.check_good(certificate, path.leaf, [ocsp.Answer(encoded)], now, whose=role, algorithms=ALGORITHMS)
        with pytest.raises(EndorsementUntrusted):
            ocsp.check_good(certificate, issuer, [ocsp.Answer(encoded)], now, whose=role, algorithms=())


def test_real_leaves_name_their_firmware(nvidia: Path) -> None:
    for name, now in REPORTS:
        pool = EndorsementSet.parse([(nvidia / f"{name}-chain.pem").read_bytes()])
        (leaf,) = (read_leaf(certificate) for certificate in pool.certificates if is_leaf(certificate))
        claims = verified(nvidia, name, now).claims
        assert leaf.exact is not name.startswith("blackwell")
        assert claims.get("fwid_in_report") in {leaf.fwids[0].hex(), None}
        assert claims["chain_len"] == 5
