"""The TDX room's door: forms of evidence, event logs, claims under both sets of names."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.dcap import DcapForge, sgx_body, td_body
from adyton.errors import AdytonError, EvidenceError, MalformedEvidence
from adyton.rats.types import SHARED_CLAIMS, TrustAnchors, VerifiedEvidence
from adyton.tee.dcap.bodies import TdBody, TdExtension
from adyton.tee.eventlog import ccel
from adyton.tee.tdx.verify import show, verify_signatures_without_tcb_as_asked

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def forge() -> DcapForge:
    return DcapForge.new(NOW)


def anchors(forge: DcapForge) -> TrustAnchors:
    return TrustAnchors(vendor=False, custom=frozenset({forge.fingerprint}))


def verify(forge: DcapForge, evidence: bytes, **options: Any) -> VerifiedEvidence:
    given = EndorsementSet.parse(forge.collateral("tdx").blobs())
    return tee.verify("tdx", evidence, endorsements=given, now=NOW, anchors=anchors(forge), **options)


def in_json(raw: bytes, log: bytes | None = None, **more: Any) -> bytes:
    encoded = base64.b64encode(log).decode() if log is not None else None
    return json.dumps({"quote": base64.b64encode(raw).decode(), "cc_eventlog": encoded, **more}).encode()


@pytest.fixture(scope="module")
def log(vectors: Path) -> bytes:
    return (vectors / "tdx" / "ccel" / "CCEL_data_ovmf.bin").read_bytes()


def body_for(log: bytes) -> TdBody:
    names = ("rtmr0", "rtmr1", "rtmr2", "rtmr3")
    registers: dict[str, Any] = dict(zip(names, ccel.rtmrs(ccel.parse(log)), strict=True))
    return td_body(**registers)


def test_an_enclaves_quote_is_none(forge: DcapForge) -> None:
    raw = forge.quote(sgx_body()).encode()
    for room in (lambda evidence: verify(forge, evidence), show):
        for evidence in (raw, in_json(raw)):
            with pytest.raises(MalformedEvidence) as caught:
                room(evidence)
            assert caught.value.code == "tee_type"


@pytest.mark.parametrize("size", [0, 32, 47, 49, 64])
def test_an_expectation_is_the_whole_mrconfigid(forge: DcapForge, size: int) -> None:
    with pytest.raises(ValueError, match="48 bytes"):
        verify(forge, forge.quote(td_body()).encode(), init_data=b"\2" * size)


def test_json_that_is_not_evidence(forge: DcapForge) -> None:
    raw = forge.quote(td_body()).encode()
    for bad in (
        b"{}",
        in_json(raw, other=None),
        json.dumps({"quote": base64.b64encode(raw).decode(), "cc_eventlog": 7}).encode(),
        in_json(raw, b"garbage"),
        in_json(b""),
    ):
        with pytest.raises(MalformedEvidence):
            verify(forge, bad)
        with pytest.raises(MalformedEvidence):
            show(bad)


@given(st.binary(max_size=800))
def test_any_bytes(raw: bytes) -> None:
    with pytest.raises(AdytonError):
        tee.verify("tdx", raw, endorsements=EndorsementSet(), now=NOW, anchors=TrustAnchors())
    with pytest.raises(MalformedEvidence):
        show(raw)


@pytest.mark.parametrize("register", [0, 1, 2, 3])
def test_an_event_log_that_leads_elsewhere(forge: DcapForge, log: bytes, register: int) -> None:
    """The first register that differs is named, also where no event is about it."""
    body = msgspec.structs.replace(body_for(log), **{f"rtmr{register}": b"\1" * 48})
    with pytest.raises(EvidenceError) as caught:
        verify(forge, in_json(forge.quote(body).encode(), log))
    assert caught.value.code == "event_log_mismatch"
    assert f"rtmr{register}" in str(caught.value.field)


def test_an_event_log_of_another_guest(forge: DcapForge, log: bytes, vectors: Path) -> None:
    other = (vectors / "tdx" / "ccel" / "CCEL_data_grub.bin").read_bytes()
    with pytest.raises(EvidenceError) as caught:
        verify(forge, in_json(forge.quote(body_for(log)).encode(), other))
    assert (caught.value.code, caught.value.tee) == ("event_log_mismatch", "tdx")
    with pytest.raises(EvidenceError):
        verify_signatures_without_tcb_as_asked(
            in_json(forge.quote(body_for(log)).encode(), other),
            endorsements=EndorsementSet.parse(forge.collateral("tdx").blobs()),
            now=NOW,
            anchors=anchors(forge),
        )


def test_an_event_log_that_fits(forge: DcapForge, log: bytes) -> None:
    evidence = in_json(forge.quote(body_for(log)).encode(), log)
    verified = verify(forge, evidence)
    assert "event_log" in {check.id for check in verified.checks}
    assert verified.claims["event_log_events"] == show(evidence)["event_log_events"]
    assert verified.claims["rtmr3_events"] == 0
    entries = verified.coco_claims["uefi_event_logs"]
    assert isinstance(entries, list)
    assert len(entries) > 5
    without = verify(forge, in_json(forge.quote(body_for(log)).encode()))
    assert "uefi_event_logs" not in without.coco_claims
    assert "event_log" not in {check.id for check in without.checks}


def test_both_forms_say_the_same(forge: DcapForge) -> None:
    raw = forge.quote(td_body(td15=True)).encode()
    assert dict(verify(forge, raw).claims) == dict(verify(forge, in_json(raw)).claims)
    assert {name: verify(forge, raw).claims[name] for name in show(raw)} == show(raw)


def test_claims(forge: DcapForge) -> None:
    body = td_body(
        td15=True,
        mrtd=b"\1" * 48,
        mrconfigid=b"\2" * 48,
        report_data=b"\3" * 64,
        td_attributes=(1 << 63 | 1 << 31 | 1 << 4).to_bytes(8, "little"),
    )
    verified = verify(forge, forge.quote(body).encode())
    claims = verified.claims
    assert set(SHARED_CLAIMS) <= set(claims)
    assert claims["measurement"] == claims["mrtd"] == "01" * 48
    assert claims["init_data"] == claims["mrconfigid"] == "02" * 48
    assert (claims["tud"], claims["debug"], claims["body"]) == (True, False, "td15")
    bits = claims["td_attribute_bits"]
    assert isinstance(bits, dict)
    assert [name for name, on in bits.items() if on] == ["hgs_plus", "kl", "perfmon"]
    assert verified.init_data == b"\2" * 48


def test_an_extended_body(forge: DcapForge) -> None:
    body = msgspec.structs.replace(td_body(td15=True), extension=TdExtension(vm_id=3, servtd_hash=b"\5" * 48))
    claims = verify(forge, forge.quote(body).encode()).claims
    assert (claims["body"], claims["vm_id"], claims["servtd_hash"]) == ("td15ext", 3, "05" * 48)


def test_coco_claims_are_exactly_those(forge: DcapForge) -> None:
    body = td_body(td15=True, mrtd=b"\1" * 48, td_attributes=(1 << 28 | 1).to_bytes(8, "little"))
    coco = dict(verify(forge, forge.quote(body).encode()).coco_claims)
    assert coco.pop("quote") == {
        "header": {
            "version": "0500",
            "att_key_type": "0200",
            "tee_type": "81000000",
            "reserved": "00000000",
            "vendor_id": "939a7233f79c4ca9940a0db3957f0607",
            "user_data": "00" * 20,
        },
        "type": "0300",
        "size": "88020000",
        "body": {
            "tcb_svn": "050102" + "00" * 13,
            "mr_seam": "00" * 48,
            "mrsigner_seam": "00" * 48,
            "seam_attributes": "00" * 8,
            "td_attributes": "0100001000000000",
            "xfam": "e742060000000000",
            "mr_td": "01" * 48,
            "mr_config_id": "00" * 48,
            "mr_owner": "00" * 48,
            "mr_owner_config": "00" * 48,
            **{f"rtmr_{number}": "00" * 48 for number in range(4)},
            "report_data": "00" * 64,
            "tee_tcb_svn2": "050102" + "00" * 13,
            "mr_servicetd": "00" * 48,
        },
    }
    assert coco.pop("td_attributes") == {
        "debug": True,
        "key_locker": False,
        "perfmon": False,
        "protection_keys": False,
        "septve_disable": True,
    }
    assert set(coco) == {
        "report_data", "init_data", "collateral_expiration_status", "earliest_issue_date", "latest_issue_date",
        "earliest_expiration_date", "pck_crl_num", "root_ca_crl_num", "root_key_id", "platform_provider_id",
        "platform_instance_id", "sgx_type", "is_dynamic_platform", "is_cached_keys", "is_smt_enabled", "tcb_status",
        "tcb_date", "advisory_ids", "tcb_eval_num",
    }  # fmt: skip
    older = verify(forge, forge.quote(td_body()).encode()).coco_claims["quote"]
    assert isinstance(older, dict)
    assert "type" not in older
