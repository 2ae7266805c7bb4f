"""Which key signed an endorsement, among the certificates at hand. It says nothing of whether that key is trusted.

The cache remembers the newest that it has seen per name *and* signing key: so old material of a vendor's is refused, and
material that somebody else signed cannot make the vendor's own look old.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric import ec

from adyton.crypto import algorithms
from adyton.crypto.ecdsa import verify_p256
from adyton.crypto.ocsp import Answer
from adyton.crypto.x509 import Certificate, Crl
from adyton.errors import SignatureInvalid

_ALGORITHMS = (
    algorithms.RSA_PSS_SHA384,
    algorithms.ECDSA_SHA256,
    algorithms.ECDSA_SHA384,
    algorithms.ECDSA_SHA512,
    algorithms.RSA_SHA256,
    algorithms.RSA_SHA384,
    algorithms.RSA_SHA512,
)


def of_crl(crl: Crl, candidates: Iterable[Certificate]) -> bytes | None:
    """SHA-256 of the SPKI that signed ``crl``, or ``None`` if none of ``candidates`` did."""
    return _signer(crl, candidates)


def of_certificate(certificate: Certificate, candidates: Iterable[Certificate]) -> bytes | None:
    """SHA-256 of the SPKI that signed ``certificate``, or ``None`` if none of ``candidates`` did."""
    return _signer(certificate, candidates)


def of_answer(answer: Answer) -> bytes | None:
    """SHA-256 of the SPKI that signed an OCSP answer, or ``None`` if none of the certificates in it did."""
    return next((one.spki_fingerprint for one in answer.certificates if answer.is_signed_by(one, _ALGORITHMS)), None)


def _signer(item: Certificate | Crl, candidates: Iterable[Certificate]) -> bytes | None:
    algorithm = next((known for known in _ALGORITHMS if item.algorithm in known.identifiers), None)
    if algorithm is None:
        return None
    for candidate in candidates:
        if candidate.subject == item.issuer and algorithm.verifies(candidate.public_key, item.signature, item.signed):
            return candidate.spki_fingerprint
    return None


def signed_document(document: bytes, member: str, signature: object, signer: Certificate) -> bool:
    """Whether ``signer`` signed the bytes of ``member`` as they stand in ``document`` (evidence 3.2): ECDSA P-256, hex."""
    inner = inner_bytes(document, member)
    key = signer.public_key
    if inner is None or not isinstance(signature, str) or not re.fullmatch(r"[0-9a-fA-F]{128}", signature):
        return False
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        return False
    try:
        verify_p256(key, bytes.fromhex(signature), inner)
    except SignatureInvalid:
        return False
    return True


def inner_bytes(document: bytes, member: str) -> bytes | None:
    """The bytes of an object's member, which must be its first, as they were sent; ``None`` if it is not there."""
    try:
        text = document.decode("utf-8")
        begin = re.match(rf'\s*\{{\s*"{re.escape(member)}"\s*:\s*', text)
        if begin is None:
            return None
        _, end = json.JSONDecoder().raw_decode(text, begin.end())
    except (ValueError, RecursionError):
        return None
    return text[begin.end() : end].encode("utf-8")
