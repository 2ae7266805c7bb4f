"""COSE_Sign1 with ECDSA: taken apart strictly, verified with the algorithm that the format or the key fixes (RFC 9052, 9053).

``ES256``, ``ES384`` and ``ES512`` are numbers -7, -35 and -36; a signature is r then s, big-endian, each as long as the curve's
order. The algorithm stands in the protected header and decides nothing: it is compared with the one that is allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec

from adyton.crypto.ecdsa import verify_p256, verify_p384, verify_p521
from adyton.errors import SignatureInvalid
from adyton.wire import cbor

ES256 = -7
ES384 = -35
ES512 = -36
NAMES = {ES256: "ES256", ES384: "ES384", ES512: "ES512"}
SIGN1_TAG = 18

_ALG = 1
_CRIT = 2
_CONTEXT = b"\x84\x6aSignature1"  # an array of four, and its first
_NO_EXTERNAL_DATA = b"\x40"
_PROTECTED = {cbor.encode({_ALG: number}): number for number in NAMES}


class Sign1(NamedTuple):
    """A message as it was sent: ``protected`` and ``payload`` are the signed bytes. ``algorithm`` is its own word.

    ``unprotected`` is not signed: anybody may have put it there.
    """

    tagged: bool
    protected: bytes
    algorithm: int
    unprotected: dict[int | str, Any]
    payload: bytes
    signature: bytes

    @property
    def signed(self) -> bytes:
        """What the signature is over: Sig_structure without external data (RFC 9052 4.4)."""
        return b"".join(
            (
                _CONTEXT,
                cbor.byte_string(self.protected),
                _NO_EXTERNAL_DATA,
                cbor.byte_string(self.payload),
            )
        )

    def encode(self) -> bytes:
        """The message in deterministic CBOR."""
        parts = [self.protected, self.unprotected, self.payload, self.signature]
        return cbor.encode(parts, tag=SIGN1_TAG if self.tagged else None)


def parse(data: bytes, *, max_size: int = cbor.MAX_SIZE) -> Sign1:
    """One COSE_Sign1, with its tag or without, or ``ValueError``.

    The payload must be inside. A critical header is refused, since none is understood here; so is a header that stands
    both protected and not.
    """
    tag, item = cbor.split_tag(data)
    if tag not in {None, SIGN1_TAG}:
        raise ValueError("not tagged as COSE_Sign1")
    parts = cbor.decode(item, max_size=max_size)
    if type(parts) is not list or len(parts) != 4:
        raise ValueError("not an array of four")
    protected, unprotected, payload, signature = parts
    if type(protected) is not bytes or type(payload) is not bytes or type(signature) is not bytes:
        raise ValueError("protected header, payload or signature is no byte string")
    if type(unprotected) is not dict:
        raise ValueError("the unprotected header is no map")
    algorithm = _PROTECTED.get(protected)
    if algorithm is None or unprotected:
        algorithm = _read_headers(protected, unprotected)
    return Sign1(tag is not None, protected, algorithm, unprotected, payload, signature)


def _read_headers(protected: bytes, unprotected: dict[int | str, Any]) -> int:
    header = cbor.decode(protected)
    if type(header) is not dict:
        raise ValueError("the protected header is no map")
    if _CRIT in header or _CRIT in unprotected:
        raise ValueError("a critical header that is not understood here")
    if header.keys() & unprotected.keys():
        raise ValueError("a header stands both protected and unprotected")
    algorithm = header.get(_ALG)
    if type(algorithm) is not int:
        raise ValueError("the protected header does not name an algorithm")
    return algorithm


def algorithm_of(key: ec.EllipticCurvePublicKey) -> int | None:
    """The one algorithm for a key on this curve; ``None`` for curves that are not used."""
    return OF_CURVE.get(key.curve.name)


def verify(message: Sign1, key: ec.EllipticCurvePublicKey, algorithm: int) -> None:
    """Verify ``message`` under ``key`` with ``algorithm`` (one of the three), or ``SignatureInvalid``.

    That the message names another algorithm, or the key is on another curve, is ``SignatureInvalid`` as well.
    """
    curve, size, check = _CHECKS[algorithm]
    if message.algorithm != algorithm:
        raise SignatureInvalid(
            "the message names another algorithm than its format or key has",
            code="cose_algorithm",
            field="alg",
            expected=algorithm,
            got=message.algorithm,
            spec="RFC 9053 2.1",
        )
    if key.curve.name != curve:
        raise SignatureInvalid(
            "the key is on another curve than the algorithm's",
            code="cose_curve",
            field="key",
            expected=curve,
            got=key.curve.name,
            spec="RFC 9053 2.1",
        )
    if len(message.signature) != size:
        raise SignatureInvalid(
            "the signature has another length than the algorithm's",
            field="signature",
            expected=size,
            got=len(message.signature),
            spec="RFC 9053 2.1",
        )
    check(key, message.signature, message.signed)


def _p384(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> None:
    verify_p384(key, signature, data, size=48, byteorder="big")


_CHECKS: dict[int, tuple[str, int, Callable[[ec.EllipticCurvePublicKey, bytes, bytes], None]]] = {
    ES256: ("secp256r1", 64, verify_p256),
    ES384: ("secp384r1", 96, _p384),
    ES512: ("secp521r1", 132, verify_p521),
}
OF_CURVE = {curve: algorithm for algorithm, (curve, _, _) in _CHECKS.items()}
