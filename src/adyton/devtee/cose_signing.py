"""COSE_Sign1 messages as attesters write them, and wrong in any part that a test asks for (RFC 9052).

Written apart from the parser on purpose, down to the heads of CBOR items: a mistake in one shows when the other reads it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

ES256, ES384, ES512 = -7, -35, -36
_OF_CURVE: dict[str, tuple[int, int, HashAlgorithm]] = {
    "secp256r1": (ES256, 32, SHA256()),
    "secp384r1": (ES384, 48, SHA384()),
    "secp521r1": (ES512, 66, SHA512()),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What is around a payload. ``algorithm``: what the header says, ``None`` for what the key makes true.

    ``protected`` replaces the whole header, encoded; ``tag`` is 18, another, or ``None`` for none.
    """

    algorithm: int | None = None
    protected: bytes | None = None
    unprotected: object = None
    tag: int | None = None


def sign1(key: ec.EllipticCurvePrivateKey, payload: bytes, envelope: Envelope | None = None) -> bytes:
    """A message over ``payload``; r then s, big-endian, each as long as the curve's order."""
    envelope = envelope or Envelope()
    algorithm, size, hash_of = _OF_CURVE[key.curve.name]
    header = envelope.protected
    if header is None:
        header = cbor2.dumps({1: envelope.algorithm if envelope.algorithm is not None else algorithm})
    signed = cbor2.dumps(["Signature1", header, b"", payload])
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hash_of)))
    signature = r.to_bytes(size, "big") + s.to_bytes(size, "big")
    parts = [header, envelope.unprotected if envelope.unprotected is not None else {}, payload, signature]
    return cbor2.dumps(parts if envelope.tag is None else cbor2.CBORTag(envelope.tag, parts))


def resigned(message: bytes, signature: bytes) -> bytes:
    """The same message with another signature."""
    parts = cbor2.loads(message)
    if isinstance(parts, cbor2.CBORTag):
        return cbor2.dumps(cbor2.CBORTag(parts.tag, [*parts.value[:3], signature]))
    return cbor2.dumps([*parts[:3], signature])


def repaid(message: bytes, payload: bytes) -> bytes:
    """The same message around another payload: its signature is no longer over it."""
    parts = cbor2.loads(message)
    if isinstance(parts, cbor2.CBORTag):
        return cbor2.dumps(cbor2.CBORTag(parts.tag, [*parts.value[:2], payload, parts.value[3]]))
    return cbor2.dumps([*parts[:2], payload, parts[3]])
