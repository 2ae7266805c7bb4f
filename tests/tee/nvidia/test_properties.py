"""No change to what was signed goes unnoticed, wherever it is made."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tee.nvidia.conftest import DRIVER, NOW, VBIOS

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.forge import flip
from adyton.devtee.nvidia import NvidiaForge
from adyton.errors import AdytonError, EvidenceError
from adyton.rats.types import Revocation, TrustAnchors
from adyton.tee.nvidia.json_form import Device, to_json

FORGE = NvidiaForge.new(NOW)
REPORT = FORGE.report()
RIM = FORGE.rim(DRIVER)
OTHERS = [FORGE.pem, FORGE.rim(VBIOS, colloquialVersion="96.00.9F.00.01")]
JSON = to_json((Device(REPORT, FORGE.pem, "HOPPER"),))
MEMORY = tee.Remembered()


def verify(evidence: bytes, endorsements: EndorsementSet) -> object:
    return tee.verify(
        "nvidia",
        evidence,
        endorsements=endorsements,
        now=NOW,
        anchors=TrustAnchors(vendor=False, custom=FORGE.anchors),
        revocation=Revocation.UNCHECKED_AS_ASKED,
        remembered=MEMORY,
    )


@given(st.integers(0, 8 * len(REPORT) - 1))
def test_a_flipped_bit_of_a_report(bit: int) -> None:
    with pytest.raises(EvidenceError):
        verify(flip(REPORT, bit), EndorsementSet.parse([FORGE.pem]))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 8 * len(JSON) - 1))
def test_a_flipped_bit_of_json(bit: int) -> None:
    """It is refused, or it was in a part that nobody signed and that decides nothing: PEM's frame, a letter's case."""
    changed = flip(JSON, bit)
    try:
        verify(changed, EndorsementSet())
    except AdytonError:
        return
    from adyton.tee.nvidia import json_form

    (device,) = json_form.parse(changed)
    assert device.report == REPORT


@settings(max_examples=60)
@given(st.integers(0, 8 * len(RIM) - 1))
def test_a_flipped_bit_of_a_manifest(bit: int) -> None:
    """It is refused, or it is the same manifest: no value in it can be changed."""
    from adyton.tee.nvidia import rim

    changed = flip(RIM, bit)
    try:
        verify(REPORT, EndorsementSet.parse([*OTHERS, changed]))
    except AdytonError:
        return
    assert rim.parse(changed).golden == rim.parse(RIM).golden


def test_unchanged_they_verify() -> None:
    verify(REPORT, EndorsementSet.parse([FORGE.pem]))
    verify(REPORT, EndorsementSet.parse([*OTHERS, RIM]))
    verify(JSON, EndorsementSet())
