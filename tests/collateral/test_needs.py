"""What evidence needs is read from its bytes; nothing in them chooses where it is asked for."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from urllib.parse import parse_qsl
from urllib.parse import quote as url_quote

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st
from tests.collateral.conftest import NOW, Collect
from tests.collateral.endorser import Answer, Clock, Endorser, at, play_amd, play_intel, play_nvidia, vcek_path
from tests.collateral.test_items import vcek_of

from adyton.collateral import gather, intel, services
from adyton.collateral.cache import Cache
from adyton.collateral.collector import Collector
from adyton.collateral.items import Item
from adyton.collateral.needs import after, needs
from adyton.collateral.wanted import (
    AmdChain,
    AmdCrl,
    AmdVcek,
    IntelIdentity,
    IntelPck,
    IntelPckCrl,
    IntelRootCrl,
    IntelTcbInfo,
    NvidiaOcsp,
    NvidiaRim,
)
from adyton.crypto.x509 import Certificate
from adyton.devtee.az_vtpm import AzureGuest
from adyton.devtee.certificates import Levels
from adyton.devtee.dcap import DcapForge
from adyton.devtee.forge import Forge
from adyton.devtee.nvidia import NvidiaForge, default_measurements
from adyton.devtee.snp import ReportFields, issue_report
from adyton.errors import AdytonError, EndorsementMissing, MalformedEvidence, NotFound
from adyton.rats.types import Revocation, TrustAnchors
from adyton.tee import verify
from adyton.tee.nvidia.json_form import Device, to_json
from adyton.tee.snp.product import Product


def test_snp(forge: Forge) -> None:
    wanted = needs("snp", forge.report())
    assert wanted == (AmdChain(Product.GENOA), AmdCrl(Product.GENOA), vcek_of(forge))
    assert needs("snp", forge.report(mask_chip_key=True)) == wanted[:2]
    assert needs("snp", forge.report(signing_key=1)) == (AmdChain(Product.GENOA, "vlek"), AmdCrl(Product.GENOA))
    old = needs("snp", forge.report(version=2))  # does not say which product: both are asked for
    assert [type(one) for one in old] == [AmdChain, AmdCrl, AmdVcek] * 2
    with pytest.raises(MalformedEvidence):
        needs("snp", forge.report()[:-1])


def test_snp_asks_for_the_reported_tcb(forge: Forge) -> None:
    """go-sev-guest #72: KDS was asked with current_tcb."""
    report = forge.report(reported_tcb=Levels(snp=3), current_tcb=Levels(snp=99))
    (found,) = (one for one in needs("snp", report) if isinstance(one, AmdVcek))
    assert found.snp == 3


def test_turin_has_a_short_id_and_fmc() -> None:
    from adyton.devtee.certificates import new_key

    key = new_key()
    turin = Forge.new(NOW, product="Turin", levels=Levels(fmc=7), new_rsa_key=lambda: key)
    (found,) = (one for one in needs("snp", issue_report(turin.signer, ReportFields())) if isinstance(one, AmdVcek))
    assert (len(found.chip_id), found.fmc) == (8, 7)


@pytest.mark.vectors
def test_dcap(vectors: Path) -> None:
    quote = (vectors / "dcap-synthetic/sgx-uptodate.quote.bin").read_bytes()
    fmspc = bytes.fromhex("aabbccddeeff")
    assert needs("sgx", quote) == (
        IntelTcbInfo("sgx", fmspc), IntelPckCrl("platform"), IntelIdentity("qe"), IntelRootCrl(),
    )  # fmt: skip
    td = (vectors / "dcap-synthetic/tdx-uptodate.quote.bin").read_bytes()
    wanted = needs("tdx", td, edition="standard")
    assert {IntelTcbInfo("tdx", fmspc, "standard"), IntelIdentity("td_qe", "standard")} < set(wanted)
    as_json = json.dumps({"cc_eventlog": None, "quote": base64.b64encode(td).decode()}).encode()
    assert needs("tdx", as_json, edition="standard") == wanted
    for broken in (quote[:100], b"{", b"[]", b"{}", b'{"quote":5}', b'{"quote":"!"}'):
        with pytest.raises(MalformedEvidence):
            needs("sgx", broken)


@pytest.mark.vectors
def test_every_quote_and_report_of_the_vectors(manifest: dict[str, object], vectors: Path) -> None:
    kinds: dict[str, set[type]] = {}
    cases = manifest["cases"]
    assert isinstance(cases, list)
    for case in cases:
        evidence = case["files"].get("quote") or case["files"].get("report") or case["files"].get("evidence")
        tee = {"azure-vtpm": "az-tdx-vtpm" if "tdx" in case["id"] else "az-snp-vtpm"}.get(case["tee"], case["tee"])
        if not isinstance(evidence, str) or tee not in {"sgx", "tdx", "snp", "nvidia", "az-snp-vtpm", "az-tdx-vtpm"}:
            continue
        try:
            wanted = needs(tee, (vectors / evidence).read_bytes())
        except AdytonError as error:
            assert case["expected"]["outcome"] != "valid" or isinstance(error, MalformedEvidence), case["id"]
            continue
        assert wanted or tee == "nvidia", case["id"]
        kinds.setdefault(tee, set()).update(map(type, wanted))
    assert {AmdVcek, AmdChain, AmdCrl} <= kinds["snp"]
    assert {IntelTcbInfo, IntelRootCrl} <= kinds["sgx"] & kinds["tdx"]
    assert IntelPck in kinds["sgx"]
    assert AmdCrl in kinds["az-snp-vtpm"]
    assert IntelTcbInfo in kinds["az-tdx-vtpm"]


@pytest.mark.vectors
def test_nvidia(vectors: Path) -> None:
    report = (vectors / "nvidia/h100-550.90.07.spdm").read_bytes()
    assert needs("nvidia", report) == ()  # the chain is not in it, and the chain says which chip it is
    manifests = (NvidiaRim("NV_GPU_DRIVER_GH100_550.90.07"), NvidiaRim("NV_GPU_VBIOS_1010_0200_882_96009F0001"))
    device = {
        "arch": "HOPPER", "evidence": base64.b64encode(report).decode(),
        "certificate": base64.b64encode((vectors / "nvidia/h100-550.90.07-chain.pem").read_bytes()).decode(),
    }  # fmt: skip
    wanted = needs("nvidia", json.dumps({"device_evidence_list": [device]}).encode())
    assert wanted[:2] == manifests
    asked = [one for one in wanted if isinstance(one, NvidiaOcsp)]
    assert len(asked) == 3
    switch = (vectors / "nvidia/nvswitch-ls10.spdm").read_bytes()
    chain = (vectors / "nvidia/nvswitch-ls10-chain.pem").read_bytes()
    device = {
        "arch": "LS10", "evidence": base64.b64encode(switch).decode(), "certificate": base64.b64encode(chain).decode(),
    }  # fmt: skip
    (first, *_) = needs("nvidia", json.dumps({"device_evidence_list": [device]}).encode())
    assert first == NvidiaRim("NV_SWITCH_BIOS_5612_0002_890_9610550001")


@pytest.mark.vectors
def test_a_manifests_signers_are_asked_about_too(vectors: Path) -> None:
    body = (vectors / "nvidia/rim/NV_GPU_DRIVER_GH100_550.90.07.xml").read_bytes()
    item = Item.read(NvidiaRim("NV_GPU_DRIVER_GH100_550.90.07"), body, url="test:", fetched=NOW)
    asked = after(item, "nvidia")
    assert len(asked) == 3
    recorded = [ocsp.load_der_ocsp_response(path.read_bytes()) for path in vectors.glob("nvidia/ocsp/*rim*")]
    assert {NvidiaOcsp(one.issuer_name_hash, one.issuer_key_hash, one.serial_number) for one in recorded} <= set(asked)


def test_others_need_nothing() -> None:
    assert needs("nitro", b"anything") == needs("tpm", b"") == ()


@pytest.mark.parametrize("tee", ["snp", "sgx", "tdx", "nvidia", "az-snp-vtpm", "az-tdx-vtpm"])
@given(evidence=st.one_of(st.binary(max_size=3000), st.binary(max_size=100).map(lambda b: b'{"quote":"' + b + b'"}')))
def test_any_bytes_are_read_or_refused(tee: str, evidence: bytes) -> None:
    with contextlib.suppress(AdytonError):
        needs(tee, evidence)


def test_evidence_does_not_choose_its_endorser(forge: Forge, endorser: Endorser, collect: Collect) -> None:
    """dstack review (January 2026): a caller-chosen PCCS URL. Where endorsements come from is configuration."""
    report = json.dumps({"pccs_url": endorser.url, "quote": "x", "collateral_service": endorser.url}).encode()
    with pytest.raises(MalformedEvidence):
        gather.gather("tdx", report, collect(), NOW)
    assert endorser.asked == []


def test_gathered_snp_verifies(forge: Forge, endorser: Endorser, collect: Collect, clock: Clock) -> None:
    play_amd(endorser, forge)
    collector = collect(f"kds={endorser.url}")
    found = gather.gather("snp", forge.report(), collector, NOW)
    anchors = TrustAnchors(vendor=False, custom=frozenset({Certificate(forge.certificates[2][1]).spki_fingerprint}))
    verified = verify(
        "snp", forge.report(), endorsements=found, now=NOW, anchors=anchors, revocation=Revocation.REQUIRED
    )
    assert verified.unchecked == ("report_data", "init_data")
    endorser.outage = True
    assert gather.gather("snp", forge.report(), collect(), NOW) == found
    assert endorser.asked == ["/vcek/v1/Genoa/cert_chain", "/vcek/v1/Genoa/crl", vcek_path(forge)]


def test_problems_are_told_and_verification_says_what_it_misses(
    forge: Forge, endorser: Endorser, collect: Collect
) -> None:
    play_amd(endorser, forge)
    del endorser.routes[vcek_path(forge)]
    collector = collect(f"kds={endorser.url}")
    with pytest.raises(NotFound):
        gather.gather("snp", forge.report(), collector, NOW)
    problems: list[AdytonError] = []
    found = gather.gather("snp", forge.report(), collector, NOW, problems=problems)
    assert [error.code for error in problems] == ["endorsement_absent"]
    assert len(found.crls) == 1
    with pytest.raises(EndorsementMissing):
        verify("snp", forge.report(), endorsements=found, now=NOW, anchors=TrustAnchors())


@pytest.mark.vectors
@pytest.mark.parametrize("kind", ["pccs", "pcs"])
def test_gathered_from_pccs_and_from_pcs(
    vectors: Path, endorser: Endorser, collect: Collect, clock: Clock, kind: str
) -> None:
    clock.at = at("2026-01-15T00:00:00Z")
    for tee in ("sgx", "tdx"):
        play_intel(
            endorser,
            vectors / f"dcap-synthetic/{tee}-uptodate.collateral.json",
            tee=tee,
            ca="platform",
            pccs=kind == "pccs",
        )
        sources = (f"pccs={endorser.url}",) if kind == "pccs" else (f"pcs={endorser.url}", f"root-crl={endorser.url}")
        evidence = (vectors / f"dcap-synthetic/{tee}-uptodate.quote.bin").read_bytes()
        found = gather.gather(tee, evidence, collect(*sources), clock.at)
        assert len(found.crls) == 2
        assert len(found.documents) == 2
    assert any("update=early" in target for target in endorser.asked)
    endorser.routes["/tdx/certification/v4/tcb"] = Answer(b"{}", headers={"TCB-Info-Issuer-Chain": "x"})
    with pytest.raises(AdytonError) as caught:
        collect(*sources).refresh(IntelTcbInfo("tdx", bytes.fromhex("aabbccddeeff")))
    assert caught.value.code == "endorsement_unusable"


def test_a_quote_that_names_its_platform_by_ppid(endorser: Endorser, collect: Collect) -> None:
    """Certification data of type 3: the PCK certificate is had first, and says what else is wanted."""
    forged = DcapForge.new(NOW)
    platform = forged.platform
    ppid, cpusvn = bytes(range(256)) + bytes(128), bytes(platform.components)
    pcesvn, pceid = platform.pcesvn.to_bytes(2, "little"), bytes(2)
    quote = forged.quote(certification=(3, ppid + cpusvn + pcesvn + pceid)).encode()
    bundle = forged.collateral("sgx").bundle()
    ca = "platform" if "Platform" in str(forged.pck_ca.certificate.subject) else "processor"
    play_intel(endorser, bundle, tee="sgx", ca=ca)
    asked = needs("sgx", quote)
    assert IntelPck(bytes(16), ppid, cpusvn, pcesvn, pceid) in asked
    leaf = forged.pck.certificate.public_bytes(Encoding.PEM)
    chain = {"SGX-PCK-Certificate-Issuer-Chain": url_quote(bundle["pck_crl_issuer_chain"], safe="")}
    target = (
        f"/sgx/certification/v4/pckcert?encrypted_ppid={ppid.hex()}&cpusvn={cpusvn.hex()}&pcesvn={pcesvn.hex()}"
        f"&pceid={pceid.hex()}&qeid={'00' * 16}"
    )
    endorser.routes[target] = Answer(leaf, headers=chain)
    collector = collect(f"pccs={endorser.url}")
    found = gather.gather("sgx", quote, collector, NOW)
    anchors = TrustAnchors(vendor=False, custom=frozenset({forged.fingerprint}))
    verified = verify("sgx", quote, endorsements=found, now=NOW, anchors=anchors, revocation=Revocation.REQUIRED)
    assert verified.claims["tcb_status"] == "UpToDate"
    # and a proxy hands it on with what a quoting library wants to know
    item = collector.get(asked[0])
    reply = intel.reply(item, {}, "/sgx/certification/v4/pckcert")
    assert reply.headers["SGX-TCBm"] == (cpusvn + pcesvn).hex().upper()
    assert reply.headers["SGX-FMSPC"] == platform.fmspc.hex().upper()
    assert reply.headers["SGX-PCK-Certificate-CA-Type"] == ca
    routed = intel.route("/sgx/certification/v4/pckcert", dict(parse_qsl(target.partition("?")[2])))
    assert routed == asked[0]
    endorser.routes[target] = Answer(
        leaf, headers={"SGX-PCK-Certificate-Issuer-Chain": url_quote(pem_text(forged), safe="")}
    )
    with pytest.raises(AdytonError) as caught:
        collector.refresh(asked[0])
    assert caught.value.code == "endorsement_unusable"


def test_gathered_nvidia_verifies(endorser: Endorser, collect: Collect, tmp_path: Path) -> None:
    forged = NvidiaForge.new(NOW)
    golden = default_measurements()
    rims = {
        "NV_GPU_DRIVER_GH100_550.90.07": forged.rim({7: [golden[8]]}),
        "NV_GPU_VBIOS_1010_0200_882_96009F0001": forged.rim({0: [golden[1]]}, colloquialVersion="96.00.9F.00.01"),
    }
    play_nvidia(endorser, rims, forged.answers())
    device = Device(forged.report(), forged.pem, "HOPPER")
    evidence = to_json((device,))
    collector = collect(f"rim={endorser.url}", f"ocsp={endorser.url}")
    found = gather.gather("nvidia", evidence, collector, NOW)
    assert len(found.documents) == 2 + 6
    anchors = TrustAnchors(vendor=False, custom=forged.anchors)
    verified = verify("nvidia", evidence, endorsements=found, now=NOW, anchors=anchors, revocation=Revocation.REQUIRED)
    assert verified.tee == "nvidia"
    play_nvidia(endorser, rims, [])
    problems: list[AdytonError] = []
    with Cache(tmp_path / "empty") as empty:
        sources = [services.source(f"{kind}={endorser.url}", clock=lambda: NOW) for kind in ("rim", "ocsp")]
        gather.gather("nvidia", evidence, Collector(empty, sources, clock=lambda: NOW), NOW, problems=problems)
    assert {error.code for error in problems} == {"endorsement_unusable"}  # the responder knows none of them


def test_gathered_azure_verifies(forge: Forge, endorser: Endorser, collect: Collect) -> None:
    play_amd(endorser, forge)
    guest = AzureGuest(
        hardware=lambda data: forge.report(report_data=data),
        ak=rsa.generate_private_key(65537, 2048),
        vcek=forge.signer.certificate,
    )
    evidence = guest.evidence(b"nonce")
    found = gather.gather("az-snp-vtpm", evidence, collect(f"kds={endorser.url}"), NOW)
    assert vcek_path(forge) not in endorser.asked  # the evidence carries it
    anchors = TrustAnchors(vendor=False, custom=frozenset({Certificate(forge.certificates[2][1]).spki_fingerprint}))
    verified = verify("az-snp-vtpm", evidence, endorsements=found, now=NOW, anchors=anchors)
    assert verified.tee == "az-snp-vtpm"


def pem_text(forged: DcapForge) -> str:
    """A chain that did not issue the leaf."""
    return forged.root.certificate.public_bytes(Encoding.PEM).decode()
