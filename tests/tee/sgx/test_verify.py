"""The SGX room's door: forms of evidence, claims under both sets of names."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.dcap import DcapForge, sgx_body, td_body
from adyton.errors import AdytonError, MalformedEvidence
from adyton.rats.types import SHARED_CLAIMS, TrustAnchors, VerifiedEvidence
from adyton.tee.sgx.verify import show

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
BODY = sgx_body(
    mrenclave=b"\1" * 32,
    mrsigner=b"\2" * 32,
    configid=b"\3" * 64,
    report_data=b"\4" * 64,
    isvprodid=5,
    isvsvn=6,
    configsvn=7,
    isvfamilyid=b"\x08" * 16,
    isvextprodid=b"\x09" * 16,
    miscselect=1,
)


@pytest.fixture(scope="module")
def forge() -> DcapForge:
    return DcapForge.new(NOW)


def verify(forge: DcapForge, evidence: bytes, **options: Any) -> VerifiedEvidence:
    given = EndorsementSet.parse(forge.collateral("sgx").blobs())
    anchors = TrustAnchors(vendor=False, custom=frozenset({forge.fingerprint}))
    return tee.verify("sgx", evidence, endorsements=given, now=NOW, anchors=anchors, **options)


def in_json(raw: bytes, **more: Any) -> bytes:
    return json.dumps({"quote": base64.b64encode(raw).decode(), **more}).encode()


def test_a_trust_domains_quote_is_none(forge: DcapForge) -> None:
    raw = forge.quote(td_body()).encode()
    for room in (lambda evidence: verify(forge, evidence), show):
        for evidence in (raw, in_json(raw)):
            with pytest.raises(MalformedEvidence) as caught:
                room(evidence)
            assert caught.value.code == "tee_type"


@pytest.mark.parametrize("size", [0, 32, 48, 63, 65])
def test_an_expectation_is_the_whole_configid(forge: DcapForge, size: int) -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        verify(forge, forge.quote(BODY).encode(), init_data=b"\3" * size)


def test_json_that_is_not_evidence(forge: DcapForge) -> None:
    raw = forge.quote(BODY).encode()
    text = base64.b64encode(raw).decode()
    for bad in (
        b"{}",
        b"{",
        b"[]",
        b' "quote"',
        b'{"quote":null}',
        b'{"quote":7}',
        b'{"quote":""}',
        b'{"quote":"AAAA"}',
        json.dumps({"quote": text[:-2]}).encode(),
        json.dumps({"quote": text + "\n"}).encode(),
        json.dumps({"quote": raw.hex()}).encode(),
        in_json(raw, cc_eventlog=None),
        in_json(raw, other=1),
        f'{{"quote":"{text}","quote":"{text}"}}'.encode(),
        b'{"quote":' + b"[" * 100_000,
    ):
        with pytest.raises(MalformedEvidence):
            verify(forge, bad)
        with pytest.raises(MalformedEvidence):
            show(bad)


@given(st.binary(max_size=600))
def test_any_bytes(raw: bytes) -> None:
    with pytest.raises(AdytonError):
        tee.verify("sgx", raw, endorsements=EndorsementSet(), now=NOW, anchors=TrustAnchors())
    with pytest.raises(MalformedEvidence):
        show(raw)


def test_both_forms_say_the_same(forge: DcapForge) -> None:
    raw = forge.quote(BODY).encode()
    plain, wrapped = verify(forge, raw), verify(forge, in_json(raw))
    assert dict(plain.claims) == dict(wrapped.claims)
    assert show(raw) == show(in_json(raw))
    assert {name: plain.claims[name] for name in show(raw)} == show(raw)


def test_claims(forge: DcapForge) -> None:
    verified = verify(forge, forge.quote(BODY).encode())
    claims = verified.claims
    assert set(SHARED_CLAIMS) <= set(claims)
    assert claims["measurement"] == claims["mrenclave"] == "01" * 32
    assert claims["init_data"] == claims["configid"] == "03" * 64
    assert claims["report_data"] == "04" * 64
    assert (claims["isvprodid"], claims["isvsvn"], claims["configsvn"]) == (5, 6, 7)
    assert claims["attribute_bits"] == {
        "init": True, "debug": False, "mode64": True, "provision_key": False, "einittoken_key": False, "cet": False,
        "kss": False, "aex_notify": False,
    }  # fmt: skip
    assert claims["platform_id"] == forge.platform.ppid.hex()
    assert verified.init_data == b"\3" * 64


def test_coco_claims_are_exactly_those(forge: DcapForge) -> None:
    coco = verify(forge, forge.quote(BODY).encode()).coco_claims
    zero = "00"
    assert coco == {
        "header": {
            "version": "0300",
            "att_key_type": "0200",
            "att_key_data_0": "00000000",
            "qe_svn": "0800",
            "pce_svn": "0d00",
            "vendor_id": "939a7233f79c4ca9940a0db3957f0607",
            "user_data": zero * 20,
        },
        "body": {
            "cpu_svn": zero * 16,
            "misc_select": "01000000",
            "reserved1": zero * 12,
            "isv_ext_prod_id": "09" * 16,
            "attributes.flags": "0500000000000000",
            "attributes.xfrm": "e700000000000000",
            "mr_enclave": "01" * 32,
            "reserved2": zero * 32,
            "mr_signer": "02" * 32,
            "reserved3": zero * 32,
            "config_id": "03" * 64,
            "isv_prod_id": "0500",
            "isv_svn": "0600",
            "config_svn": "0700",
            "reserved4": zero * 42,
            "isv_family_id": "08" * 16,
            "report_data": "04" * 64,
        },
        "report_data": "04" * 64,
        "init_data": "03" * 64,
        "collateral_expiration_status": "0",
        "earliest_issue_date": "2026-06-01T11:00:00Z",
        "latest_issue_date": "2026-06-01T11:00:00Z",
        "earliest_expiration_date": "2026-07-01T11:00:00Z",
        "pck_crl_num": 1,
        "root_ca_crl_num": 1,
        "root_key_id": coco["root_key_id"],
        "platform_provider_id": forge.platform.ppid.hex(),
        "platform_instance_id": forge.platform.instance_id.hex(),
        "sgx_type": "Scalable",
        "is_dynamic_platform": True,
        "is_cached_keys": False,
        "is_smt_enabled": True,
        "tcb_status": "UpToDate",
        "tcb_date": "2026-02-11T00:00:00Z",
        "advisory_ids": [],
        "tcb_eval_num": 20,
    }
    assert len(str(coco["root_key_id"])) == 96


def test_show_of_a_quote_whose_certificate_cannot_be_read(forge: DcapForge) -> None:
    found = show(forge.quote(BODY, certification=(5, b"garbage")).encode())
    assert found["mrenclave"] == "01" * 32
    assert found["pck_ca"] is None
    assert "fmspc" not in found
    assert "fmspc" not in show(forge.quote(BODY, certification=(3, bytes(404))).encode())
