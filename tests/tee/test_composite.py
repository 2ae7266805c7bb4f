"""A CPU with a GPU beside it: bound to one nonce, one key and to each other, or refused."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.crypto.x509 import EndorsementSet
from adyton.devtee import sample
from adyton.devtee.dcap import DcapForge, td_body
from adyton.devtee.nvidia import NvidiaForge, ReportFields, gpu_opaque
from adyton.errors import AdytonError, BindingMismatch, EvidenceError, MalformedEvidence, UnsupportedEvidence
from adyton.rats import binding
from adyton.rats.types import Check, TrustAnchors, VerifiedEvidence
from adyton.tee import composite
from adyton.tee.sample.anybody import ANYBODY

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
NONCE = base64.b64encode(b"n" * 32).decode()
KEY = {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": "eA", "y": "eQ"}
OTHER_KEY = {**KEY, "x": "eB"}
CPU = DcapForge.new(NOW)
GPU = NvidiaForge.new(NOW)
ANCHORS = TrustAnchors(vendor=False, custom=frozenset({CPU.fingerprint}) | GPU.anchors)
ENDORSEMENTS = EndorsementSet.parse([*CPU.collateral("tdx").blobs(), *GPU.answers(), GPU.pem])


def gpu(nonce: str = NONCE, key: dict[str, str] = KEY) -> str:
    """The additional evidence, as text."""
    bound = binding.expected("nvidia", binding.device_object(nonce, key)).value
    report = GPU.report(replace(ReportFields(opaque=gpu_opaque()), nonce=bound))
    device = {"arch": "HOPPER", "evidence": report.hex(), "certificate": base64.b64encode(GPU.pem).decode()}
    return json.dumps({"nvidia": {"device_evidence_list": [device]}})


def cpu(additional: str, nonce: str = NONCE, key: dict[str, str] = KEY) -> bytes:
    """The primary evidence over the additional one."""
    bound = binding.expected("tdx", binding.primary_object(nonce, key, additional)).value
    return CPU.quote(td_body(report_data=bound)).encode()


def verify(primary: bytes, additional: str, tee: str = "tdx", **change: object) -> tuple[VerifiedEvidence, ...]:
    arguments = {"nonce": NONCE, "tee_public_key": KEY, "endorsements": ENDORSEMENTS, "now": NOW, "anchors": ANCHORS}
    return composite.verify(tee, primary, additional, **{**arguments, **change})  # type: ignore[arg-type]


def test_a_device_cannot_be_taken_away_put_in_or_exchanged() -> None:
    with_gpu, another = gpu(), gpu()
    for primary, additional in (
        (cpu(with_gpu), ""),
        (cpu(""), with_gpu),
        (cpu(with_gpu), another),
        (cpu(with_gpu), with_gpu + " "),  # the same devices in another text
    ):
        with pytest.raises(BindingMismatch) as caught:
            verify(primary, additional)
        assert caught.value.code == "report_data_mismatch"
        assert caught.value.tee == "tdx"


@pytest.mark.parametrize("stale", [gpu(key=OTHER_KEY), gpu(nonce=base64.b64encode(b"o" * 32).decode())])
def test_a_device_that_was_asked_for_another_key_or_nonce(stale: str) -> None:
    """The primary evidence may well vouch for the text: a relayed device is refused by its own."""
    with pytest.raises(AdytonError) as caught:
        verify(cpu(stale), stale)
    assert caught.value.tee == "nvidia"


def test_a_cpu_is_no_device_and_a_device_no_cpu() -> None:
    anybody = TrustAnchors(vendor=False, custom=ANCHORS.custom | {ANYBODY})
    device = binding.expected("sample", binding.device_object(NONCE, KEY)).value
    additional = json.dumps({"sample": json.loads(sample.evidence(device))})
    with pytest.raises(EvidenceError) as caught:
        verify(cpu(additional), additional, anchors=anybody)
    assert caught.value.code == "device_class"
    primary = json.dumps(json.loads(gpu())["nvidia"]).encode()
    with pytest.raises(AdytonError):  # bound as a device, not as the primary
        verify(primary, "", tee="nvidia")
    bound = binding.expected("sampledevice", binding.primary_object(NONCE, KEY)).value
    with pytest.raises(EvidenceError) as caught:
        verify(sample.evidence(bound, svn="2"), "", tee="sampledevice", anchors=anybody)
    assert caught.value.code == "device_class"


def test_a_device_without_a_room_is_refused_by_name() -> None:
    additional = json.dumps({"nvidiadpu": {}})
    with pytest.raises(UnsupportedEvidence) as caught:
        verify(cpu(additional), additional)
    assert caught.value.tee == "nvidiadpu"


def test_the_whole() -> None:
    additional = gpu()
    trail: list[Check] = []
    found = verify(cpu(additional), additional, trail=trail)
    assert [(one.tee, one.tee_class) for one in found] == [("tdx", "cpu"), ("nvidia", "gpu")]
    assert "report_data" not in found[0].unchecked
    assert {"report_data"} <= {check.id for check in trail}
    for nothing in ("", "{}", " { } "):  # what counts as no device is bound as it was sent all the same
        assert len(verify(cpu(nothing), nothing)) == 1
    with pytest.raises(BindingMismatch):
        verify(cpu("{}"), "")


@given(st.text(max_size=200) | st.dictionaries(st.text(max_size=8), st.integers()).map(json.dumps))
def test_any_text_is_devices_or_malformed(text: str) -> None:
    try:
        devices = composite.devices_of(text)
    except MalformedEvidence as error:
        assert error.code == "additional_evidence_malformed"
    else:
        assert set(devices) == set(json.loads(text or "{}"))


@pytest.mark.parametrize(
    "text", ["[]", "null", '{"nvidia":{},"nvidia":{}}', "{" * 100, json.dumps({str(n): 1 for n in range(9)})]
)
def test_what_is_no_object_of_devices(text: str) -> None:
    with pytest.raises(MalformedEvidence):
        composite.devices_of(text)


def test_fields_of_the_protocol() -> None:
    """``kbs-protocol`` 1.5: where the digest goes."""
    canonical = binding.primary_object(NONCE, KEY)
    digest = binding.digest(canonical)
    assert binding.expected("snp", canonical).value == digest + bytes(16)
    assert binding.expected("az-snp-vtpm", canonical).value == digest
    assert binding.expected("tpm", canonical).value == digest[:32]
    assert binding.expected("nvidia", canonical).value == digest[:32]
    assert binding.expected("sample", canonical).value == digest
    assert binding.expected("se", canonical).value == binding.digest(canonical, "sha512")
    assert binding.expected("nvidia", canonical, "sha256").value == binding.digest(canonical, "sha256")
