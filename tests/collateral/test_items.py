"""What comes is what was asked for, or it is not kept."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.collateral.conftest import NOW
from tests.collateral.endorser import pem as to_pem

from adyton.collateral import items, pem, signers
from adyton.collateral.wanted import (
    AmdChain,
    AmdCrl,
    AmdVcek,
    AzureThim,
    IntelEvaluationNumbers,
    IntelIdentity,
    IntelPckCrl,
    IntelRootCrl,
    IntelTcbInfo,
    NvidiaOcsp,
    NvidiaRim,
    Wanted,
)
from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.devtee.dcap import DcapForge
from adyton.devtee.forge import Forge, flip
from adyton.errors import EndorsementMalformed
from adyton.tee.snp.product import Product


def vcek_of(forge: Forge, **other: Any) -> AmdVcek:
    levels = forge.signer.levels
    values = {
        "product": Product(forge.product), "chip_id": forge.signer.chip_id, "boot_loader": levels.boot_loader,
        "tee": levels.tee, "snp": levels.snp, "microcode": levels.microcode,
    }  # fmt: skip
    return AmdVcek(**{**values, **other})


def refused(wanted: Wanted, body: bytes, chain: bytes = b"", **more: Any) -> EndorsementMalformed:
    with pytest.raises(EndorsementMalformed) as caught:
        items.read(wanted, body, chain, **more)
    assert caught.value.code == "endorsement_unusable"
    assert caught.value.field == wanted.name
    return caught.value


def test_amd(forge: Forge) -> None:
    (_, leaf), (_, middle), (_, root) = forge.certificates
    chain = to_pem(middle, root)
    facts = items.read(vcek_of(forge), leaf)
    assert facts.expires == Certificate(leaf).not_after
    assert facts.order is None
    assert items.read(vcek_of(forge), leaf, known=[Certificate(middle)]).signer == Certificate(middle).spki_fingerprint
    for other in (
        {"chip_id": bytes(64)}, {"boot_loader": 0}, {"tee": 1}, {"snp": 0}, {"microcode": 0}, {"product": Product.MILAN},
    ):  # fmt: skip
        assert "another chip or another TCB" in refused(vcek_of(forge, **other), leaf).message
    refused(vcek_of(forge), middle)
    refused(vcek_of(forge), b"")
    assert items.read(AmdChain(Product.GENOA), chain).expires == Certificate(root).not_after
    refused(AmdChain(Product.GENOA, "vlek"), chain)
    refused(AmdChain(Product.MILAN), chain)
    refused(AmdChain(Product.GENOA), to_pem(root, middle))
    refused(AmdChain(Product.GENOA), to_pem(middle))
    crl = forge.crl(number=7)
    facts = items.read(AmdCrl(Product.GENOA), crl)
    assert (facts.order, facts.signer) == ((7, facts.issued), None)
    assert (
        items.read(AmdCrl(Product.GENOA), crl, known=[Certificate(root)]).signer == Certificate(root).spki_fingerprint
    )
    assert items.read(AmdCrl(Product.GENOA), flip(crl, 8 * (len(crl) - 1)), known=[Certificate(root)]).signer is None
    refused(AmdCrl(Product.GENOA), leaf)
    assert "another issuer" in refused(AmdCrl(Product.MILAN), crl).message
    assert "another issuer" in refused(IntelRootCrl(), crl).message
    refused(AmdCrl(Product.GENOA), bytes(5 * 1024 * 1024))
    assert items.read(AzureThim(), to_pem(leaf, middle, root)).expires == Certificate(leaf).not_after
    refused(AzureThim(), chain)


def test_no_server_slips_in_a_key_to_be_trusted(forge: Forge) -> None:
    """Bare keys among endorsements pin a TPM's key or a platform's: they come from the verifier's owner alone."""
    (_, leaf), (_, middle), (_, root) = forge.certificates
    key = (
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    for body in (to_pem(middle, root) + key, key + to_pem(middle, root)):
        assert "public key" in refused(AmdChain(Product.GENOA), body).message
    assert "public key" in refused(AmdCrl(Product.GENOA), forge.crl(), to_pem(root) + key).message
    assert "public key" in refused(AzureThim(), to_pem(leaf, middle, root) + key).message


@pytest.fixture(scope="module")
def intel(vectors: Path) -> dict[str, str]:
    loaded: dict[str, str] = json.loads((vectors / "dcap-synthetic/sgx-uptodate.collateral.json").read_text())
    return loaded


def document(recorded: dict[str, str], name: str, member: str) -> bytes:
    return f'{{"{member}":{recorded[name]},"signature":"{recorded[name + "_signature"]}"}}'.encode()


@pytest.mark.vectors
def test_tcb_info(intel: dict[str, str]) -> None:
    wanted = IntelTcbInfo("sgx", bytes.fromhex("aabbccddeeff"))
    body, chain = document(intel, "tcb_info", "tcbInfo"), intel["tcb_info_issuer_chain"].encode()
    facts = items.read(wanted, body, chain)
    assert facts.issued == datetime(2026, 1, 1, tzinfo=UTC)
    assert facts.expires == datetime(2026, 2, 1, tzinfo=UTC)
    assert facts.order == (20, facts.issued)
    assert facts.signer == EndorsementSet.parse([chain]).certificates[0].spki_fingerprint
    assert "another FMSPC" in refused(IntelTcbInfo("sgx", bytes(6)), body, chain).message
    assert "another TEE" in refused(IntelTcbInfo("tdx", wanted.fmspc), body, chain).message
    assert "number 20" in refused(IntelTcbInfo("sgx", wanted.fmspc, "19"), body, chain).message
    assert items.read(IntelTcbInfo("sgx", wanted.fmspc, "20"), body, chain) == facts
    assert "issuer chain" in refused(wanted, body).message
    refused(wanted, body, b"nonsense")
    refused(wanted, document(intel, "qe_identity", "enclaveIdentity"), chain)
    refused(wanted, body.replace(b'"pceId":"0000"', b'"pceId":"0001"'), chain)
    refused(wanted, body.replace(b'"tcbInfo":{', b'"tcbInfo": {').replace(b'"version":3', b'"version": 3'), chain)
    refused(wanted, body[:-1] + b',"signature":"00"}', chain)
    refused(wanted, body[: len(body) // 2], chain)
    for wrong in (b"", b"[]", b"{}", b'{"tcbInfo":1,"signature":""}', b'{"tcbInfo":{},"signature":""}', b"\xff"):
        refused(wanted, wrong, chain)
    moved = body[:-1].replace(b'{"tcbInfo":', b'{"signature":"00","tcbInfo":', 1) + b"}"
    refused(wanted, moved, chain)


@pytest.mark.vectors
def test_identities_and_crls(intel: dict[str, str]) -> None:
    body, chain = document(intel, "qe_identity", "enclaveIdentity"), intel["qe_identity_issuer_chain"].encode()
    assert items.read(IntelIdentity("qe"), body, chain).expires == datetime(2026, 2, 1, tzinfo=UTC)
    assert "another enclave" in refused(IntelIdentity("td_qe"), body, chain).message
    crl, issuers = bytes.fromhex(intel["pck_crl"]), intel["pck_crl_issuer_chain"].encode()
    ca = "platform" if "Platform" in EndorsementSet.parse([issuers]).certificates[0].common_name else "processor"
    facts = items.read(IntelPckCrl(ca), crl, issuers)
    assert facts.order is not None
    other = {"platform": "processor", "processor": "platform"}[ca]
    refused(IntelPckCrl(other), crl, issuers)
    assert "issuer that came with it" in refused(IntelPckCrl(ca), crl).message
    refused(IntelPckCrl(ca), flip(crl, 8 * len(crl) - 3), issuers)
    root = bytes.fromhex(intel["root_ca_crl"])
    known = EndorsementSet.parse([issuers]).certificates
    assert items.read(IntelRootCrl(), root, known=known).signer == known[1].spki_fingerprint
    assert items.read(IntelRootCrl(), root).signer is None
    refused(IntelRootCrl(), crl)
    refused(IntelPckCrl(ca), root, issuers)


@pytest.mark.vectors
def test_real_collateral_is_read(vectors: Path) -> None:
    count = 0
    for path in sorted((vectors / "dcap-collateral").glob("*-tcbv3-*.json")):
        recorded = json.loads(path.read_text())
        tee = path.name.partition("-")[0]
        inner = json.loads(recorded["tcb_info"])
        fmspc = bytes.fromhex(inner["fmspc"])
        facts = items.read(
            IntelTcbInfo(tee, fmspc),
            document(recorded, "tcb_info", "tcbInfo"),
            recorded["tcb_info_issuer_chain"].encode(),
        )
        assert facts.order is not None
        assert facts.order[0] == inner["tcbEvaluationDataNumber"]
        enclave = {"QE": "qe", "TD_QE": "td_qe"}[json.loads(recorded["qe_identity"])["id"]]
        items.read(
            IntelIdentity(enclave),
            document(recorded, "qe_identity", "enclaveIdentity"),
            recorded["qe_identity_issuer_chain"].encode(),
        )
        count += 1
    assert count >= 10


@pytest.mark.vectors
def test_ocsp_and_manifests(vectors: Path) -> None:
    from cryptography.x509 import ocsp

    body = (vectors / "nvidia/ocsp/gpu_certificate_l3.der").read_bytes()
    said = ocsp.load_der_ocsp_response(body)
    wanted = NvidiaOcsp(said.issuer_name_hash, said.issuer_key_hash, said.serial_number)
    facts = items.read(wanted, body)
    assert facts.expires is not None
    assert facts.issued is not None
    assert facts.expires - facts.issued == timedelta(days=1)
    assert facts.subject == "good"
    assert "another certificate" in refused(NvidiaOcsp(wanted.issuer_name, wanted.issuer_key, 5), body).message
    refused(wanted, bytes.fromhex("30030a0103"))  # internalError, without a word
    refused(wanted, b"")
    rim = (vectors / "nvidia/rim/NV_GPU_DRIVER_GH100_550.90.07.xml").read_bytes()
    assert items.read(NvidiaRim("x"), rim).expires is None
    for wrong in (b"", b"<html></html>", b"<!DOCTYPE x><SoftwareIdentity/>", b"{}"):
        refused(NvidiaRim("x"), wrong)


def test_forms_of_one_thing(forge: Forge) -> None:
    crl = forge.crl()
    assert pem.as_der(crl) == crl
    assert pem.as_der(crl.hex().encode()) == crl
    assert pem.as_der(crl.hex().upper().encode() + b"\n") == crl
    assert pem.as_der(pem.of_crl(crl)) == crl
    leaf = forge.certificates[0][1]
    assert pem.as_der(to_pem(leaf)) == leaf
    with pytest.raises(ValueError, match="exactly one"):
        pem.as_der(to_pem(leaf) * 1 + to_pem(forge.certificates[1][1]))
    with pytest.raises(ValueError, match="no PEM"):
        pem.lines(b"<html>")


def signed(body: dict[str, object], member: str, signer: object) -> bytes:
    from adyton.devtee.dcap_collateral import sign

    made = sign(dict(body), signer.key)  # type: ignore[attr-defined]  # a Holder
    return f'{{"{member}":{made.text.decode()},"signature":"{made.signature.hex()}"}}'.encode()


def test_evaluation_numbers_and_other_signers() -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    forged = DcapForge.new(NOW)
    other = DcapForge.new(NOW)
    body: dict[str, object] = {
        "id": "TDX", "version": 1, "issueDate": "2026-06-01T00:00:00Z", "nextUpdate": "2026-07-01T00:00:00Z",
        "tcbEvalNumbers": [{"tcbEvaluationDataNumber": 20, "tcbRecoveryEventDate": "x", "tcbDate": "y"}],
    }  # fmt: skip
    member = "tcbEvaluationDataNumbers"
    chain = b"".join(holder.certificate.public_bytes(Encoding.PEM) for holder in (forged.tcb_signing, forged.root))
    wanted = IntelEvaluationNumbers("tdx")
    facts = items.read(wanted, signed(body, member, forged.tcb_signing), chain)
    assert facts.expires == datetime(2026, 7, 1, tzinfo=UTC)
    assert facts.signer == Certificate(forged.tcb_signing.certificate.public_bytes(Encoding.DER)).spki_fingerprint
    refused(IntelEvaluationNumbers("sgx"), signed(body, member, forged.tcb_signing), chain)
    refused(wanted, signed(body, member, other.tcb_signing), chain)
    refused(wanted, signed(body, member, forged.root), chain)  # not who came first in the chain
    for change in (
        {"tcbEvalNumbers": 5}, {"issueDate": "2026-06-01"}, {"issueDate": 5}, {"nextUpdate": "neverZ"}, {"nextUpdate": None},
    ):  # fmt: skip
        refused(wanted, signed({**body, **change}, member, forged.tcb_signing), chain)
    info = forged.collateral("sgx", info={"tcbEvaluationDataNumber": True}).bundle()
    fmspc = forged.platform.fmspc
    refused(IntelTcbInfo("sgx", fmspc), document(info, "tcb_info", "tcbInfo"), info["tcb_info_issuer_chain"].encode())
    info = forged.collateral("sgx", info={"tcbLevels": []}).bundle()
    refused(IntelTcbInfo("sgx", fmspc), document(info, "tcb_info", "tcbInfo"), info["tcb_info_issuer_chain"].encode())


def test_a_signature_is_never_looked_for_twice() -> None:
    assert signers.inner_bytes(b'{"tcbInfo" : {"a":1} ,"signature":""}', "tcbInfo") == b'{"a":1}'
    for broken in (b"", b"{", b'{"x":1,"tcbInfo":{}}', b'{"tcbInfo":', b"\xff", b'{"tcbInfo":' + b"[" * 100_000):
        assert signers.inner_bytes(broken, "tcbInfo") is None
