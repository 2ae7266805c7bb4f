from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from adyton.crypto import ecdsa
from adyton.crypto.ecdsa import P256_ORDER, P384_ORDER, P521_ORDER, verify_p256, verify_p384, verify_p521
from adyton.errors import SignatureInvalid

KEY = ec.derive_private_key(0x5EED, ec.SECP384R1())


@pytest.fixture(autouse=True, params=["openssl", "aws-lc"])
def back_end(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test of this file under both."""
    if request.param == "aws-lc":
        pytest.importorskip("awscrt")
    ecdsa.use(request.param)
    assert ecdsa.back_end() == request.param
    yield request.param
    ecdsa.use("openssl")


KEY_256 = ec.derive_private_key(0x5EED, ec.SECP256R1())


def sign(data: bytes) -> tuple[int, int]:
    return decode_dss_signature(KEY.sign(data, ec.ECDSA(hashes.SHA384())))


@pytest.mark.parametrize("size", [48, 72])
@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_size_and_order_are_explicit(size: int, byteorder: Literal["little", "big"]) -> None:
    r, s = sign(b"data")
    signature = r.to_bytes(size, byteorder) + s.to_bytes(size, byteorder)
    verify_p384(KEY.public_key(), signature, b"data", size=size, byteorder=byteorder)
    other: Literal["little", "big"] = "big" if byteorder == "little" else "little"
    for wrong in (
        {"data": b"Data"},
        {"byteorder": other},
        {"signature": s.to_bytes(size, byteorder) + r.to_bytes(size, byteorder)},
    ):
        call: dict[str, Any] = {"signature": signature, "data": b"data", "size": size, "byteorder": byteorder} | wrong
        with pytest.raises(SignatureInvalid):
            verify_p384(KEY.public_key(), call.pop("signature"), call.pop("data"), **call)


@pytest.mark.parametrize("number", [0, P384_ORDER, P384_ORDER + 1, 2**384 - 1, 2**384, 2**576 - 1])
def test_numbers_out_of_range(number: int) -> None:
    r, s = sign(b"data")
    for pair in ((number, s), (r, number), (r + P384_ORDER, s), (r, s + P384_ORDER)):
        signature = b"".join(value.to_bytes(73, "little")[:72] for value in pair)
        with pytest.raises(SignatureInvalid):
            verify_p384(KEY.public_key(), signature, b"data", size=72, byteorder="little")


def test_the_caller_s_mistakes() -> None:
    for signature, size in ((bytes(95), 48), (bytes(96), 47), (b"", 0), (bytes(144), 48)):
        with pytest.raises(ValueError, match="P-384 signature"):
            verify_p384(KEY.public_key(), signature, b"", size=size, byteorder="big")
    p256 = ec.derive_private_key(1, ec.SECP256R1()).public_key()
    with pytest.raises(ValueError, match="P-384 key"):
        verify_p384(p256, bytes(96), b"", size=48, byteorder="big")


@pytest.mark.parametrize("number", [0, P256_ORDER, P256_ORDER + 1, 2**256 - 1])
def test_p256_reads_two_numbers_of_32_bytes(number: int) -> None:
    r, s = decode_dss_signature(KEY_256.sign(b"data", ec.ECDSA(hashes.SHA256())))
    key = KEY_256.public_key()
    for good in ((r, s), (r, P256_ORDER - s)):
        verify_p256(key, b"".join(value.to_bytes(32, "big") for value in good), b"data")
    for bad in ((number, s), (r, number), (s, r)):
        with pytest.raises(SignatureInvalid):
            verify_p256(key, b"".join(value.to_bytes(32, "big") for value in bad), b"data")
    with pytest.raises(SignatureInvalid):
        verify_p256(key, r.to_bytes(32, "big") + s.to_bytes(32, "big"), b"Data")
    with pytest.raises(ValueError, match="P-256 key"):
        verify_p256(KEY.public_key(), bytes(64), b"data")


@given(st.integers(1, P256_ORDER - 1), st.integers(0, 256), st.integers(1, P256_ORDER - 1), st.integers(0, 256))
def test_numbers_are_written_as_der_writes_them(r: int, down: int, s: int, down_too: int) -> None:
    for number in (max(r >> down, 1), max(s >> down_too, 1)):
        for other in (1, number, P256_ORDER - 1):
            written = ecdsa._integer(number.to_bytes(32, "big")) + ecdsa._integer(other.to_bytes(32, "big"))
            assert encode_dss_signature(number, other) == bytes((0x30, len(written))) + written


def test_a_signature_is_malleable_so_its_hash_is_no_identity() -> None:
    r, s = sign(b"data")
    signature = r.to_bytes(48, "big") + (P384_ORDER - s).to_bytes(48, "big")
    verify_p384(KEY.public_key(), signature, b"data", size=48, byteorder="big")


@given(st.binary(min_size=96, max_size=96), st.binary(max_size=32))
def test_random_signatures_are_refused(signature: bytes, data: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        verify_p384(KEY.public_key(), signature, data, size=48, byteorder="big")


def test_p521_reads_two_numbers_of_66_bytes() -> None:
    key = ec.derive_private_key(0x5EED, ec.SECP521R1())
    r, s = decode_dss_signature(key.sign(b"data", ec.ECDSA(hashes.SHA512())))
    good = r.to_bytes(66, "big") + s.to_bytes(66, "big")
    verify_p521(key.public_key(), good, b"data")
    verify_p521(key.public_key(), good[:66] + (P521_ORDER - s).to_bytes(66, "big"), b"data")
    for pair in ((0, s), (r, 0), (P521_ORDER, s), (r, P521_ORDER), (2**528 - 1, s), (s, r)):
        with pytest.raises(SignatureInvalid):
            verify_p521(key.public_key(), b"".join(number.to_bytes(66, "big") for number in pair), b"data")
    with pytest.raises(SignatureInvalid):
        verify_p521(key.public_key(), good, b"Data")
    with pytest.raises(ValueError, match="P-521 signature"):
        verify_p521(key.public_key(), good[1:], b"data")
    with pytest.raises(ValueError, match="P-521 key"):
        verify_p521(KEY.public_key(), good, b"data")


@pytest.mark.parametrize("bits", [256, 384])
@given(st.binary(max_size=120), st.binary(max_size=40))
def test_both_back_ends_refuse_the_same_encodings(bits: int, noise: bytes, data: bytes) -> None:
    """DER that is cut, padded, negative, or of other numbers: nobody takes what the other refuses."""
    pytest.importorskip("awscrt")
    own = KEY if bits == 384 else KEY_256
    is_signed = ecdsa.is_signed_p384 if bits == 384 else ecdsa.is_signed_p256
    good = own.sign(data, ec.ECDSA(hashes.SHA384() if bits == 384 else hashes.SHA256()))
    r, s = decode_dss_signature(good)
    lax = b"\x30\x81" + good[1:2] + good[2:]  # a length longer than it need be
    negative = bytes([0x30, 0x06, 2, 1, 0x80 | r & 0x7F, 2, 1, s & 0x7F])
    for signature in (good, good + noise, noise, good[: len(noise) % len(good)], lax, negative, good[:-1] + b"\0"):
        verdicts = set()
        for name in ("openssl", "aws-lc"):
            ecdsa.use(name)
            verdicts.add(is_signed(own.public_key(), signature, data))
        assert verdicts == {signature == good}


def test_many_keys_are_forgotten_in_turn() -> None:
    data = b"data"
    keys = [ec.derive_private_key(number, ec.SECP384R1()) for number in range(2, 40)]
    signatures = [key.sign(data, ec.ECDSA(hashes.SHA384())) for key in keys]
    for _ in range(2):
        for key, signature in zip(keys, signatures, strict=True):
            assert ecdsa.is_signed_p384(key.public_key(), signature, data)
            assert not ecdsa.is_signed_p384(keys[0].public_key(), signature, data) or key is keys[0]
