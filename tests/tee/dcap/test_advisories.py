"""Each published mistake of a DCAP verifier, by its name (evidence 15): here it is refused, or it is told."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.tee.dcap.conftest import Lab, with_parts

from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.dcap import sgx_body, td_body
from adyton.devtee.dcap_collateral import Level, ModuleLevel
from adyton.errors import EndorsementMissing


def test_cve_2026_22696_ghsa_796p_j2gh_9m2q_qe_identity_unsigned_and_unused(lab: Lab, stranger: Lab, kind: str) -> None:
    """dcap-qvl below 0.3.9 checked neither the QE identity's signature nor its policy."""
    room = "sgx" if kind == "sgx" else "tdx"
    mine = lab.forge.collateral(room)
    assert lab.refused(lab.quote(kind), replace(mine, qe_identity=stranger.forge.collateral(room).qe_identity)) == (
        "qe_identity_sig"
    )
    assert lab.refused(lab.quote(kind, qe_report={"mrsigner": b"\1" * 32})) == "qe_mrsigner"


def test_dcap_qvl_124_tdx_module_identity_ignored(lab: Lab) -> None:
    """The JSON members were not declared, so a tolerant decoder dropped the module's identity. Unknown members are told."""
    outdated = lab.forge.collateral("tdx", modules=[(1, [ModuleLevel(6), ModuleLevel(5, "OutOfDate")])])
    assert lab.verify(lab.quote("td10"), outdated).claims["tcb_status"] == "OutOfDate"
    misspelt = lab.forge.collateral("tdx", info={"tdxModuleIdentities": None, "tdxModuleIdentitys": []})
    assert lab.refused(lab.quote("td10"), misspelt) == "tdx_module_unknown"
    told = lab.verify(lab.quote("td10"), lab.forge.collateral("tdx", info={"tdxModulePolicy": []})).unchecked
    assert "tcb_info.tdxModulePolicy" in told


def test_dcap_qvl_125_bitrouter_566_a_valid_signature_taken_for_a_good_platform(lab: Lab, kind: str) -> None:
    """The status stands wherever a caller looks, and without collateral there is no verdict at all."""
    room = "sgx" if kind == "sgx" else "tdx"
    verified = lab.verify(lab.quote(kind), lab.forge.collateral(room, levels=lab.forge.levels(room, ("Revoked",))))
    assert verified.claims["tcb_status"] == "Revoked"
    assert verified.coco_claims["tcb_status"] == "Revoked"
    assert verified.tcb["status"] == "Revoked"
    bare = replace(lab.forge.collateral(room), tcb_info=None)
    with pytest.raises(EndorsementMissing):
        lab.verify(lab.quote(kind), bare)


def test_dcap_qvl_127_vendor_id_unchecked(lab: Lab, kind: str) -> None:
    assert lab.refused(lab.quote(kind, header={"qe_vendor_id": b"\1" * 16})) == "qe_vendor_id"


def test_dcap_qvl_0_7_pceid_not_compared(lab: Lab, kind: str) -> None:
    room = "sgx" if kind == "sgx" else "tdx"
    assert lab.refused(lab.quote(kind), lab.forge.collateral(room, info={"pceId": "0001"})) == "pceid_mismatch"


def test_dcap_qvl_0_7_tcb_info_signed_by_a_pck_key(lab: Lab, kind: str) -> None:
    room = "sgx" if kind == "sgx" else "tdx"
    collateral = lab.forge.collateral(room, info_signer=lab.forge.pck)
    assert lab.refused(lab.quote(kind), collateral) == "tcb_info_signer_name"


def test_dcap_qvl_0_7_tail_of_the_qes_report_data(lab: Lab) -> None:
    quote = lab.quote()
    bound = hashlib.sha256(quote.attestation_key + quote.qe_auth_data).digest()
    assert lab.refused(lab.quote(qe_report={"report_data": bound + b"\1" * 32})) == "qe_report_data"


def test_dcap_qvl_0_7_own_policies_are_not_verifications(lab: Lab) -> None:
    """Debug, migratable, SEPT_VE_DISABLE clear, MRSERVICETD: facts for a policy, not reasons to call evidence forged."""
    body = td_body(td15=True, td_attributes=(1 | 1 << 29).to_bytes(8, "little"), mrservicetd=b"\1" * 48)
    claims = lab.verify(lab.quote("td15", body=body)).claims
    assert (claims["debug"], claims["tud"], claims["migratable"], claims["sept_ve_disable"]) == (
        True,
        True,
        True,
        False,
    )
    assert claims["mrservicetd"] == "01" * 48
    enclave = sgx_body(attributes=b"\7" + bytes(15))
    assert lab.verify(lab.quote(body=enclave)).claims["debug"] is True


@pytest.mark.parametrize("advisory", ["INTEL-DOC-10000", "INTEL-DOC-10001", "INTEL-SA-00615"])
def test_near_mpc_3281_advisories_inform_and_do_not_decide(lab: Lab, advisory: str) -> None:
    level = Level(lab.forge.platform.components, 13, advisories=[advisory])
    claims = lab.verify(lab.quote(), lab.forge.collateral("sgx", levels=[level])).claims
    assert (claims["tcb_status"], claims["advisory_ids"]) == ("UpToDate", [advisory])


@pytest.mark.parametrize("version", [3, 4, 5])
def test_automata_dcap_131_no_level_matched_and_passed(lab: Lab, version: int) -> None:
    level = Level((255,) * 16, 0xFFFF)
    collateral = lab.forge.collateral("sgx", levels=[level])
    assert lab.refused(lab.quote("sgx", version=version), collateral) == "tcb_not_supported"
    assert lab.refused(lab.quote("sgx", version=version, qe_report={"isvsvn": 0})) == "qe_not_supported"


def test_go_tdx_guest_37_module_version_and_svn_exchanged(lab: Lab) -> None:
    modules = [(1, [ModuleLevel(5)]), (5, [ModuleLevel(1, "Revoked")])]
    exchanged = td_body(tee_tcb_svn=bytes((1, 5, 2)) + bytes(13))
    collateral = lab.forge.collateral("tdx", modules=modules)
    assert lab.verify(lab.quote("td10"), collateral).claims["tcb_status"] == "UpToDate"
    assert lab.verify(lab.quote("td10", body=exchanged), collateral).claims["tcb_status"] == "Revoked"
    above = Level(lab.forge.platform.components, 13, tdx=(9, 9, 2, *([0] * 13)))  # 0 and 1 are not compared
    assert lab.verify(lab.quote("td10"), lab.forge.collateral("tdx", levels=[above])).claims["tcb_status"] == "UpToDate"


@pytest.mark.parametrize("part", ["root_crl", "pck_crl"])
def test_fortanix_925_and_steward_crl_ignored(lab: Lab, part: str) -> None:
    collateral = lab.forge.collateral("sgx")
    assert lab.refused(lab.quote(), with_parts(collateral, **{part: None})) == "revocation_unknown"
    holder = lab.forge.pck_ca if part == "root_crl" else lab.forge.pck
    revoked = lab.forge.collateral("sgx", revoked=[holder.certificate])
    assert lab.refused(lab.quote(), revoked) == ("pck_ca_revoked" if part == "root_crl" else "pck_revoked")


def test_intel_qvl_18_samples_age(vectors: Path, manifest: dict[str, Any]) -> None:
    """Time is a parameter: an old sample verifies as of its own time, and not as of another."""
    from adyton.cli import vectors as runner

    case = next(case for case in manifest["cases"] if case["id"] == "tdx-v4-50806f-debug-2023-06-18-ev15")
    assert runner.run(manifest, vectors, case).ok
    later = runner.run(manifest, vectors, case | {"reference_time": "2026-06-18T00:00:00Z"})
    assert later.got["outcome"] == "invalid"


def test_dstack_review_collateral_is_not_the_evidences_to_choose(lab: Lab, stranger: Lab) -> None:
    """Whatever a quote carries, TCB info comes from the endorsements, and certificates are believed for no place."""
    quote = lab.quote()
    info = stranger.forge.collateral("sgx").bundle()["tcb_info_issuer_chain"].encode()
    chain = lab.forge.chain().rstrip(b"\0")
    smuggled = msgspec.structs.replace(quote, certification_data=chain + info)
    assert lab.verify(smuggled).claims["tcb_status"] == "UpToDate"
    with pytest.raises(EndorsementMissing):
        lab.verify(smuggled, endorsements=EndorsementSet.parse(lab.forge.collateral("sgx").blobs()[2:]))


def test_tee_fail_wiretap_battering_ram_extracted_keys_are_revoked(lab: Lab, kind: str) -> None:
    """Whoever has a platform's key can sign anything with it, but not take it off Intel's list."""
    room = "sgx" if kind == "sgx" else "tdx"
    revoked = lab.forge.collateral(room, revoked=[lab.forge.pck.certificate])
    assert lab.refused(lab.quote(kind), revoked) == "pck_revoked"


def test_cve_2025_30513_migratable_and_service_td_are_claims(lab: Lab) -> None:
    """CVE-2025-30513: a migratable TD's migration TD is part of its TCB."""
    body = td_body(td15=True, td_attributes=(1 << 29).to_bytes(8, "little"), mrservicetd=b"\2" * 48)
    claims = lab.verify(lab.quote("td15", body=body)).claims
    assert claims["migratable"] is True
    assert claims["mrservicetd"] == "02" * 48


def test_signatures_are_malleable_so_no_digest_of_evidence_is_an_identity(lab: Lab) -> None:
    order = int("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)
    quote = lab.quote()
    other = (order - int.from_bytes(quote.signature[32:], "big")).to_bytes(32, "big")
    twin = msgspec.structs.replace(quote, signature=quote.signature[:32] + other)
    assert twin.encode() != quote.encode()
    assert dict(lab.verify(twin).claims) == dict(lab.verify(quote).claims)
    for wrong in (bytes(32) + other, quote.signature[:32] + order.to_bytes(32, "big")):
        assert lab.refused(msgspec.structs.replace(quote, signature=wrong)) == "quote_sig"
