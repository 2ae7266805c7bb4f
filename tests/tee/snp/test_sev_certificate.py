from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.errors import EndorsementMalformed, EndorsementUntrusted
from adyton.tee.snp.sev_certificate import ARK, ASK, SevCertificate


def load(vectors: Path, generation: str, kind: str) -> bytes:
    return (vectors / f"roots/amd-sev-legacy-{generation}-{kind}.cert").read_bytes()


@pytest.mark.vectors
@pytest.mark.parametrize("generation", ["naples", "rome"])
def test_chain_of_the_first_generation(vectors: Path, generation: str) -> None:
    other = "rome" if generation == "naples" else "naples"
    ark, ask = (SevCertificate.parse(load(vectors, generation, kind)) for kind in ("ark", "ask"))
    foreign = SevCertificate.parse(load(vectors, other, "ark"))
    for certificate, issuer in ((ask, foreign), (ark, foreign), (ark, ask), (ask, ask), (replace(ask, usage=ARK), ark)):
        with pytest.raises(EndorsementUntrusted):
            certificate.check_issued_by(issuer)
    assert (ark.usage, ask.usage) == (ARK, ASK)
    ark.check_issued_by(ark)
    ask.check_issued_by(ark)


@pytest.mark.vectors
def test_one_flipped_bit_never_verifies(vectors: Path) -> None:
    ark = SevCertificate.parse(load(vectors, "naples", "ark"))
    encoded = load(vectors, "naples", "ask")
    assert SevCertificate.parse(encoded).encode() == encoded
    for bit in range(0, len(encoded) * 8, 7):
        flipped = bytearray(encoded)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises((EndorsementMalformed, EndorsementUntrusted)):
            SevCertificate.parse(bytes(flipped)).check_issued_by(ark)


@given(st.binary(max_size=900))
def test_any_bytes_parse_or_are_malformed(data: bytes) -> None:
    with contextlib.suppress(EndorsementMalformed):
        assert SevCertificate.parse(data).encode() == data
