"""DCAP evidence of our own making, read by another implementation, and the profile of what is issued."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dcap_qvl
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from adyton.devtee.dcap import DcapForge, resign, sgx_body, td_body
from adyton.devtee.dcap_certificates import Platform, make_pck_ca, make_tcb_signing, new_key
from adyton.devtee.dcap_collateral import TDX_COMPONENTS, Collateral, Level, ModuleLevel
from adyton.tee.dcap.quote import Quote

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def forge() -> DcapForge:
    return DcapForge.new(NOW)


def other(forge: DcapForge, quote: Quote, collateral: Collateral, now: datetime = NOW) -> tuple[str, list[str]]:
    """Status and advisories by another implementation; ``ValueError`` where it refuses."""
    root = forge.root.certificate.public_bytes(Encoding.DER)
    bundle = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(collateral.bundle()))
    report = dcap_qvl.verify_with_root_ca(quote.encode(), bundle, root, int(now.timestamp()))
    return report.status, sorted(report.advisory_ids)


BROKEN: dict[str, Any] = {
    "quote signature": lambda f: (f.quote(quote_signer=new_key()), f.collateral("sgx")),
    "QE report signature": lambda f: (f.quote(qe_signer=new_key()), f.collateral("sgx")),
    "QE report data": lambda f: (f.quote(qe_report={"report_data": bytes(64)}), f.collateral("sgx")),
    "QE's signer": lambda f: (f.quote(qe_report={"mrsigner": bytes(32)}), f.collateral("sgx")),
    "QE below every level": lambda f: (f.quote(qe_report={"isvsvn": 1}), f.collateral("sgx")),
    "vendor": lambda f: (f.quote(header={"qe_vendor_id": bytes(16)}), f.collateral("sgx")),
    "another TEE's TCB info": lambda f: (f.quote(), f.collateral("tdx")),
    "another FMSPC": lambda f: (f.quote(), f.collateral("sgx", info={"fmspc": "00" * 6})),
    "TCB info's signature": lambda f: (
        f.quote(),
        replace(f.collateral("sgx"), tcb_info=f.collateral("sgx").tcb_info._replace(signature=bytes(64))),
    ),
    "a QE identity of the other QE": lambda f: (f.quote(), f.collateral("sgx", identity={"id": "TD_QE"})),
    "a revoked leaf": lambda f: (f.quote(), f.collateral("sgx", revoked=[f.pck.certificate])),
    "a revoked CA": lambda f: (f.quote(), f.collateral("sgx", revoked=[f.pck_ca.certificate])),
    "a revoked signer": lambda f: (f.quote(), f.collateral("sgx", revoked=[f.tcb_signing.certificate])),
    "old collateral": lambda f: (f.quote(), f.collateral("sgx", issued=NOW - timedelta(days=60))),
    "collateral of tomorrow": lambda f: (f.quote(), f.collateral("sgx", issued=NOW + timedelta(days=1))),
    "a CRL by another CA": lambda f: (
        f.quote(),
        replace(f.collateral("sgx"), pck_crl=f.crl(f.pck_ca, key=make_pck_ca(f.root, NOW).key)),
    ),
    "an expired leaf": lambda f: (
        f.with_platform(f.platform, now=NOW - timedelta(days=3000)).quote(),
        f.collateral("sgx"),
    ),
    "no level": lambda f: (f.quote(), f.collateral("sgx", levels=[Level([255] * 16, 0)])),
    "an unknown module": lambda f: (f.quote(td_body()), f.collateral("tdx", modules=[(3, [ModuleLevel(0)])])),
    "a module's signer": lambda f: (f.quote(td_body(mrsignerseam=b"\1" * 48)), f.collateral("tdx")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_refused_by_another_implementation(forge: DcapForge, name: str) -> None:
    quote, collateral = BROKEN[name](forge)
    with pytest.raises(ValueError, match=r".+"):
        other(forge, quote, collateral)


def test_another_root_is_refused_by_another_implementation(forge: DcapForge) -> None:
    stranger = DcapForge.new(NOW)
    with pytest.raises(ValueError, match=r".+"):
        other(forge, stranger.quote(), stranger.collateral("sgx"))


@pytest.mark.parametrize("kind", ["platform", "processor"])
def test_what_is_right_is_accepted(forge: DcapForge, kind: str) -> None:
    here = forge.with_platform(replace(forge.platform, kind=kind))
    for tee, quote in (
        ("sgx", here.quote(sgx_body(report_data=b"\7" * 64))),
        ("tdx", here.quote(td_body(report_data=b"\7" * 64))),
        ("tdx", here.quote(td_body(), version=5)),
        ("tdx", here.quote(td_body(td15=True))),
    ):
        assert other(here, quote, here.collateral(tee)) == ("UpToDate", [])
        assert Quote.parse(quote.encode()) == quote
    v4 = here.quote(version=4)
    assert Quote.parse(v4.encode() + b"tail").tail == b"tail"


@pytest.mark.parametrize(
    ("platform", "qe", "module", "status"),
    [
        ("UpToDate", "UpToDate", "OutOfDate", "OutOfDate"),
        ("SWHardeningNeeded", "UpToDate", "UpToDate", "SWHardeningNeeded"),
        ("ConfigurationNeeded", "OutOfDate", "UpToDate", "OutOfDateConfigurationNeeded"),
        ("ConfigurationAndSWHardeningNeeded", "UpToDate", "OutOfDate", "OutOfDateConfigurationNeeded"),
        ("OutOfDateConfigurationNeeded", "UpToDate", "UpToDate", "OutOfDateConfigurationNeeded"),
    ],
)
def test_levels_converge_as_another_implementation_says(
    forge: DcapForge, platform: str, qe: str, module: str, status: str
) -> None:
    collateral = forge.collateral(
        "tdx",
        levels=[
            Level([255] * 16, 0, "UpToDate", TDX_COMPONENTS),
            Level(forge.platform.components, 13, platform, TDX_COMPONENTS, advisories=["INTEL-SA-2"]),
        ],
        qe_levels=[ModuleLevel(9), ModuleLevel(8, qe, advisories=["INTEL-SA-3"])],
        modules=[(1, [ModuleLevel(6), ModuleLevel(4, module, advisories=["INTEL-SA-1"])])],
    )
    found, advisories = other(forge, forge.quote(td_body()), collateral)
    assert found == status
    assert set(advisories) <= {"INTEL-SA-1", "INTEL-SA-2", "INTEL-SA-3"}


def test_the_leafs_extension_says_everything(forge: DcapForge) -> None:
    platform = Platform(components=tuple(range(120, 136)), pcesvn=0x1234, fmspc=b"\xfe\xdc\xba\x98\x76\x54", sgx_type=2)
    leaf = forge.with_platform(platform).pck.certificate
    read = dcap_qvl.parse_pck_extension_from_pem(leaf.public_bytes(Encoding.PEM))
    assert read.ppid == platform.ppid
    assert read.cpu_svn == bytes(range(120, 136))
    assert (read.pce_svn, read.pce_id, read.fmspc) == (0x1234, bytes(2), platform.fmspc)
    assert (read.sgx_type, read.platform_instance_id) == (2, platform.instance_id)
    assert read.get_value("1.2.840.113741.1.13.1.7.2") == b"\0"
    assert int.from_bytes(read.get_value("1.2.840.113741.1.13.1.2.9") or b"", "big") == 128
    processor = forge.with_platform(replace(platform, kind="processor")).pck.certificate
    assert dcap_qvl.parse_pck_extension_from_pem(processor.public_bytes(Encoding.PEM)).platform_instance_id is None


def test_every_name_says_what_it_is(forge: DcapForge) -> None:
    for holder, issuer in (
        (forge.root, forge.root),
        (forge.pck_ca, forge.root),
        (forge.pck, forge.pck_ca),
        (forge.tcb_signing, forge.root),
    ):
        certificate = holder.certificate
        certificate.verify_directly_issued_by(issuer.certificate)
        assert "Adyton development TEE, not Intel" in certificate.subject.rfc4514_string().replace("\\", "")
        assert "Intel Corporation" not in certificate.subject.rfc4514_string()
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraints.critical
        assert constraints.value.ca is (holder in {forge.root, forge.pck_ca})


def test_a_part_can_be_left_out_or_changed(forge: DcapForge) -> None:
    collateral = forge.collateral("sgx", info={"tcbEvaluationDataNumber": 3, "tcbType": None})
    assert collateral.tcb_info is not None
    body = json.loads(collateral.tcb_info.text)
    assert body["tcbEvaluationDataNumber"] == 3
    assert "tcbType" not in body
    assert len(collateral.blobs()) == 8
    assert len(replace(collateral, pck_crl=None, tcb_info=None).blobs()) == 6
    with pytest.raises(ValueError, match="all parts"):
        replace(collateral, pck_crl=None).bundle()
    signer = make_tcb_signing(forge.root, NOW, name="Intel SGX PCK Certificate")
    assert forge.collateral("sgx", info_signer=signer).tcb_signing == signer.certificate


def test_a_quote_is_changed_and_signed_again(forge: DcapForge) -> None:
    quote = forge.quote(sgx_body(mrenclave=b"\1" * 32))
    changed = msgspec.structs.replace(quote, body=sgx_body(mrenclave=b"\2" * 32))
    with pytest.raises(ValueError, match=r".+"):
        other(forge, changed, forge.collateral("sgx"))
    assert other(forge, resign(changed, forge.attestation_key), forge.collateral("sgx")) == ("UpToDate", [])
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\4" + quote.attestation_key)
    assert point == forge.attestation_key.public_key()
    assert quote.qe_report.report_data[:32] == hashlib.sha256(quote.attestation_key + quote.qe_auth_data).digest()
