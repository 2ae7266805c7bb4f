"""What an enclave's registers must be: from its image file, its signer, its parent's role and instance (evidence 8, 13).

A register is SHA-384 over 48 zero bytes and a value. For 0, 1, 2 and 8 that value is itself the SHA-384 of what is measured; for
3 and 4 it is the text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from adyton.crypto import cose
from adyton.errors import SignatureInvalid
from adyton.tee.nitro.abi import PCR_SIZE
from adyton.tee.nitro.eif import EnclaveImage, Kind, invalid, parse
from adyton.wire import cbor

IMAGE, BOOT, APPLICATION, ROLE, INSTANCE, SIGNER = 0, 1, 2, 3, 4, 8
MAX_SIGNATURE_SECTION = 64 * 1024
_MEASURED = frozenset({Kind.KERNEL, Kind.CMDLINE, Kind.RAMDISK})
_BYTE_VALUES = frozenset(range(256))


def image_pcrs(data: bytes) -> dict[int, bytes]:
    """Registers 0, 1 and 2 of an enclave image file, and 8 if it is signed; ``DocumentInvalid``.

    0: kernel, command line and every ramdisk, in the file's order; 1: without the ramdisks after the first; 2: those. The
    signature is verified: it must be the certificate's, over register 0.
    """
    image = parse(data)
    kernels, lines = image.all_of(Kind.KERNEL), image.all_of(Kind.CMDLINE)
    if len(kernels) != 1 or len(lines) != 1 or not image.all_of(Kind.RAMDISK):
        raise invalid("sections", "one kernel, one command line and a ramdisk or more are due")
    measured = [(kind, content) for kind, content in image.sections if kind in _MEASURED]
    later = {number for number, (kind, _) in enumerate(measured) if kind is Kind.RAMDISK}
    later.remove(min(later))
    found = {
        IMAGE: _of_contents(content for _, content in measured),
        BOOT: _of_contents(content for number, (_, content) in enumerate(measured) if number not in later),
        APPLICATION: _of_contents(content for number, (_, content) in enumerate(measured) if number in later),
    }
    certificate = _signer(image, found[IMAGE])
    if certificate is not None:
        found[SIGNER] = signer_pcr(certificate)
    return found


def signer_pcr(certificate: x509.Certificate) -> bytes:
    """Register 8 of an image that is signed under this certificate."""
    return _register(hashlib.sha384(certificate.public_bytes(Encoding.DER)).digest())


def role_pcr(arn: str) -> bytes:
    """Register 3 where the parent instance has this IAM role."""
    return _register(arn.encode("utf-8"))


def instance_pcr(instance: str) -> bytes:
    """Register 4 on this parent instance (``i-`` and 17 hex digits)."""
    return _register(instance.encode("utf-8"))


def _of_contents(contents: Iterable[memoryview]) -> bytes:
    digest = hashlib.sha384()
    for content in contents:
        digest.update(content)
    return _register(digest.digest())


def _register(value: bytes) -> bytes:
    return hashlib.sha384(bytes(PCR_SIZE) + value).digest()


def _signer(image: EnclaveImage, pcr0: bytes) -> x509.Certificate | None:
    sections = image.all_of(Kind.SIGNATURE)
    if not sections:
        return None
    if len(sections) > 1:
        raise invalid("signature", "more than one signature section", 1, len(sections))
    try:
        signatures = cbor.decode(bytes(sections[0]), max_size=MAX_SIGNATURE_SECTION)
    except ValueError as error:
        raise invalid("signature", str(error)) from error
    if type(signatures) is not list or len(signatures) != 1 or type(signatures[0]) is not dict:
        raise invalid("signature", "an array of one signature is due")
    pem, signature = (_bytes(signatures[0].get(name)) for name in ("signing_certificate", "signature"))
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise invalid("signature", "the signing certificate cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or (algorithm := cose.algorithm_of(key)) is None:
        raise invalid("signature", "the signing certificate's key is on no curve that is used")
    try:
        message = cose.parse(signature)
        cose.verify(message, key, algorithm)
        signed = cbor.decode(message.payload)
    except (ValueError, SignatureInvalid) as error:
        raise invalid("signature", "not the certificate's") from error
    if type(signed) is not dict or signed.get("register_index") != 0 or _bytes(signed.get("register_value")) != pcr0:
        raise invalid("signature", "over another register or value than this image's register 0", pcr0)
    return certificate


def _bytes(value: Any) -> bytes:
    """Bytes, which AWS's tools write as an array of numbers."""
    if type(value) is bytes:
        return value
    if type(value) is list and all(type(item) is int and item in _BYTE_VALUES for item in value):
        return bytes(value)
    raise invalid("signature", "neither a byte string nor an array of bytes")
