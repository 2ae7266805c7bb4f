"""SIGSTRUCT: every changed bit is refused, and so is every value that EINIT would refuse."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from adyton.errors import DocumentInvalid, SignatureInvalid
from adyton.tee.sgx.sigstruct import SIZE, Sigstruct

FIELDS: dict[str, Any] = {"modulus": 0, "signature": 0, "q1": 0, "q2": 0, "date": 0x20260601}
FIELDS |= {"enclave_hash": bytes(range(32)), "isv_prod_id": 7, "isv_svn": 3, "attributes": b"\4" + bytes(15)}


@pytest.fixture(scope="session")
def signer() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(3, 3072)


@pytest.fixture(scope="session")
def signed(signer: rsa.RSAPrivateKey) -> Sigstruct:
    return Sigstruct(**FIELDS).sign(signer)


@pytest.mark.parametrize(
    ("offset", "value", "code"),
    [
        (0, 7, "sigstruct_header"),
        (16, 1, "sigstruct_header"),
        (24, 2, "sigstruct_header"),
        (44, 1, "sigstruct_reserved"),
        (127, 1, "sigstruct_reserved"),
        (512, 5, "sigstruct_exponent"),
        (910, 1, "sigstruct_reserved"),
        (992, 1, "sigstruct_reserved"),
        (1028, 1, "sigstruct_reserved"),
    ],
)
def test_what_einit_would_not_read_is_refused(signed: Sigstruct, offset: int, value: int, code: str) -> None:
    data = bytearray(signed.encode())
    data[offset] = value
    with pytest.raises(DocumentInvalid) as caught:
        Sigstruct.parse(bytes(data))
    assert caught.value.code == code


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE + 1])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        Sigstruct.parse(bytes(size))
    assert caught.value.code == "sigstruct_size"


@given(st.integers(0, SIZE * 8 - 1))
def test_one_flipped_bit_is_refused(signed: Sigstruct, bit: int) -> None:
    data = bytearray(signed.encode())
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises((DocumentInvalid, SignatureInvalid)):
        Sigstruct.parse(bytes(data)).verify()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"q1": 1}, "sigstruct_quotients"),
        ({"q2": 1}, "sigstruct_quotients"),
        ({"signature": 0}, "sigstruct_modulus"),
        ({"modulus": 1 << 3071}, "sigstruct_modulus"),
        ({"modulus": 3}, "sigstruct_modulus"),
        ({"isv_svn": 4}, "sigstruct_sig"),
        ({"enclave_hash": bytes(32)}, "sigstruct_sig"),
        ({"cet_attributes": 1}, "sigstruct_sig"),
    ],
)
def test_each_defect_has_its_error(signed: Sigstruct, changes: dict[str, Any], code: str) -> None:
    with pytest.raises(SignatureInvalid) as caught:
        replace(signed, **changes).verify()
    assert caught.value.code == code


def test_another_signers_key_is_refused(signed: Sigstruct) -> None:
    other = Sigstruct(**FIELDS).sign(rsa.generate_private_key(3, 3072))
    mixed = replace(signed, modulus=other.modulus)
    q1, q2 = mixed.quotients
    with pytest.raises(SignatureInvalid) as caught:
        replace(mixed, q1=q1, q2=q2).verify()
    assert caught.value.code in {"sigstruct_sig", "sigstruct_modulus"}
    assert other.mrsigner != signed.mrsigner


def test_a_signature_of_another_enclave(signed: Sigstruct) -> None:
    signed.check_measurement(bytes(range(32)))
    with pytest.raises(DocumentInvalid) as caught:
        signed.check_measurement(bytes(32))
    assert caught.value.code == "sigstruct_enclave"


def test_what_was_signed_verifies_and_encodes_to_itself(signed: Sigstruct) -> None:
    signed.verify()
    data = signed.encode()
    assert len(data) == SIZE
    assert Sigstruct.parse(data) == signed
    assert signed.signed_on == date(2026, 6, 1)
    assert replace(signed, date=0).signed_on is None
    assert replace(signed, date=0x2026ABCD).signed_on is None
    assert not signed.debug
    assert replace(signed, attributes=b"\6" + bytes(15)).debug


def test_misuse_is_a_value_error(signed: Sigstruct) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        replace(signed, enclave_hash=b"").encode()
    with pytest.raises(ValueError, match="fit"):
        replace(signed, isv_svn=1 << 16).encode()
    with pytest.raises(ValueError, match="exponent 3"):
        signed.sign(rsa.generate_private_key(65537, 2048))


@pytest.mark.vectors
def test_a_real_one(vectors: Path) -> None:
    data = (vectors / "measure" / "sgx" / "sig1.sigstruct").read_bytes()
    sigstruct = Sigstruct.parse(data)
    sigstruct.verify()
    assert sigstruct.encode() == data
    assert sigstruct.signed_on == date(2016, 1, 9)
    for offset in range(SIZE):
        broken = bytearray(data)
        broken[offset] ^= 1
        with pytest.raises((DocumentInvalid, SignatureInvalid)):
            Sigstruct.parse(bytes(broken)).verify()
