from __future__ import annotations

from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from adyton.crypto import cose
from adyton.devtee.cose_signing import Envelope, resigned, sign1
from adyton.errors import SignatureInvalid
from adyton.wire import cbor

KEYS: dict[int, ec.EllipticCurvePrivateKey] = {
    cose.ES256: ec.derive_private_key(0x5EED, ec.SECP256R1()),
    cose.ES384: ec.derive_private_key(0x5EED, ec.SECP384R1()),
    cose.ES512: ec.derive_private_key(0x5EED, ec.SECP521R1()),
}
ALGORITHMS = sorted(KEYS)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("tag", [None, 18])
def test_each_algorithm(algorithm: int, tag: int | None) -> None:
    key = KEYS[algorithm]
    message = sign1(key, b"payload", Envelope(tag=tag))
    parsed = cose.parse(message)
    assert (parsed.tagged, parsed.protected, parsed.algorithm) == (
        tag is not None,
        cbor.encode({1: algorithm}),
        algorithm,
    )
    assert (parsed.unprotected, parsed.payload) == ({}, b"payload")
    assert parsed.encode() == message
    assert cose.algorithm_of(key.public_key()) == algorithm
    cose.verify(parsed, key.public_key(), algorithm)
    with pytest.raises(SignatureInvalid):
        cose.verify(parsed._replace(payload=b"Payload"), key.public_key(), algorithm)


@pytest.mark.parametrize("named", ALGORITHMS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("curve", ALGORITHMS)
def test_the_message_does_not_choose(named: int, algorithm: int, curve: int) -> None:
    """Signed with one key, naming an algorithm, verified with an algorithm: all three must be one."""
    key = KEYS[curve]
    parsed = cose.parse(sign1(key, b"payload", Envelope(algorithm=named)))
    if named == algorithm == curve:
        cose.verify(parsed, key.public_key(), algorithm)
        return
    with pytest.raises(SignatureInvalid) as caught:
        cose.verify(parsed, key.public_key(), algorithm)
    assert caught.value.code == ("cose_algorithm" if named != algorithm else "cose_curve")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_wrong_signatures(algorithm: int) -> None:
    key = KEYS[algorithm]
    message = sign1(key, b"payload")
    good = cose.parse(message).signature
    half = len(good) // 2
    other = ec.generate_private_key(key.curve)
    with pytest.raises(SignatureInvalid):
        cose.verify(cose.parse(message), other.public_key(), algorithm)
    for bad in (
        b"",
        good[:-1],
        good + b"\0",
        bytes(len(good)),
        good[:half] + bytes(half),
        bytes(half) + good[half:],
        good[half:] + good[:half],
        good[:half][::-1] + good[half:][::-1],
        b"\xff" * len(good),
        bytes((good[0] ^ 1,)) + good[1:],
    ):
        with pytest.raises(SignatureInvalid):
            cose.verify(cose.parse(resigned(message, bad)), key.public_key(), algorithm)


def parts(**changes: Any) -> bytes:
    members = {"protected": cbor.encode({1: -35}), "unprotected": {}, "payload": b"p", "signature": bytes(96)} | changes
    return cbor2.dumps(list(members.values()))


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xd2",
        cbor2.dumps([]),
        cbor2.dumps({}),
        parts(more=b""),
        cbor2.dumps([b"", {}, b""]),
        parts(protected=b""),
        parts(protected=cbor.encode({})),
        parts(protected=cbor.encode([])),
        parts(protected=cbor.encode({1: "ES384"})),
        parts(protected=cbor.encode({1: True})),
        parts(protected={1: -35}),
        parts(protected=bytes.fromhex("a201382201382a")),  # two algorithms
        parts(protected=bytes.fromhex("a1013822f6")),
        parts(protected=bytes.fromhex("bf013822ff")),
        parts(protected=cbor.encode({1: -35, 2: [1]})),  # a critical header
        parts(unprotected={2: [1]}),
        parts(unprotected={1: -7}),  # the algorithm, unsigned besides
        parts(unprotected=[]),
        parts(unprotected=None),
        parts(payload=None),
        parts(payload="p"),
        parts(signature=None),
        parts(signature=[]),
        parts() + b"\0",
        b"\xd1" + parts(),  # COSE_Mac0
        b"\xd8\x62" + parts(),  # COSE_Sign
        b"\xd2\xd2" + parts(),
    ],
)
def test_malformed(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        cose.parse(message)


def test_an_unsigned_header_is_kept_apart() -> None:
    parsed = cose.parse(parts(unprotected={4: b"kid"}))
    assert parsed.unprotected == {4: b"kid"}
    assert parsed.algorithm == -35
    assert cose.parse(parts(protected=cbor.encode({1: -8}))).algorithm == -8


def test_other_curves_have_no_algorithm() -> None:
    assert cose.algorithm_of(ec.generate_private_key(ec.SECP256K1()).public_key()) is None


@given(st.binary(max_size=100))
def test_any_bytes(data: bytes) -> None:
    try:
        parsed = cose.parse(data)
    except ValueError:
        return
    assert cose.parse(parsed.encode()) == parsed


@given(st.integers(min_value=0))
def test_one_flipped_bit_never_verifies(number: int) -> None:
    key = KEYS[cose.ES384]
    message = bytearray(sign1(key, b"some payload"))
    bit = number % (8 * len(message))
    message[bit // 8] ^= 1 << bit % 8
    try:
        parsed = cose.parse(bytes(message))
    except ValueError:
        return
    with pytest.raises(SignatureInvalid):
        cose.verify(parsed, key.public_key(), cose.ES384)
