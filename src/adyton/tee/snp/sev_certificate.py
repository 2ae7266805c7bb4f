"""AMD's own certificate format of SEV's first generation: the ARK and ASK of Naples and Rome (55766, appendix B.1).

Little-endian: version (4 bytes, 1), key id (16), certifying id (16), usage (4: 0 ARK, 0x13 ASK), reserved (16, zero),
sizes in bits of public exponent and modulus (4 each), exponent and modulus (each as long as the modulus), signature.
It signs everything before the signature: RSASSA-PSS, SHA-256 for 2048 bits (Naples), SHA-384 for 4096 (Rome).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from adyton.errors import EndorsementMalformed, EndorsementUntrusted

ARK = 0x00
ASK = 0x13
_HEAD = struct.Struct("<I16s16sI16sII")
_HASHES: dict[int, hashes.HashAlgorithm] = {2048: hashes.SHA256(), 4096: hashes.SHA384()}
_SPEC = "AMD 55766 appendix B.1"


@dataclass(frozen=True, slots=True)
class SevCertificate:
    """One such certificate. ``exponent`` and ``modulus`` are numbers; ``signature`` is as stored, little-endian."""

    key_id: bytes
    certifying_id: bytes
    usage: int
    exponent: int
    modulus: int
    bits: int
    signature: bytes

    @classmethod
    def parse(cls, encoded: bytes) -> SevCertificate:
        """From exactly its bytes, or ``EndorsementMalformed``."""
        if len(encoded) < _HEAD.size:
            raise _malformed("too short")
        version, key_id, certifying_id, usage, reserved, exponent_bits, bits = _HEAD.unpack_from(encoded)
        size = bits // 8
        if version != 1 or bits not in _HASHES or exponent_bits != bits or any(reserved) or usage not in {ARK, ASK}:
            raise _malformed("not a certificate of an ARK or ASK")
        if len(encoded) != _HEAD.size + 3 * size:
            raise _malformed("its length does not fit its key")
        exponent, modulus = (
            int.from_bytes(encoded[at : at + size], "little") for at in (_HEAD.size, _HEAD.size + size)
        )
        if exponent != 65537 or modulus.bit_length() != bits or not modulus & 1:
            raise _malformed("not an RSA key of this format")
        return cls(key_id, certifying_id, usage, exponent, modulus, bits, encoded[_HEAD.size + 2 * size :])

    def encode(self) -> bytes:
        """The bytes that ``parse`` takes."""
        return self.signed() + self.signature

    def signed(self) -> bytes:
        """What the signature is over."""
        size = self.bits // 8
        head = _HEAD.pack(1, self.key_id, self.certifying_id, self.usage, bytes(16), self.bits, self.bits)
        return head + self.exponent.to_bytes(size, "little") + self.modulus.to_bytes(size, "little")

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the whole certificate."""
        return hashlib.sha256(self.encode()).digest()

    def check_issued_by(self, issuer: SevCertificate) -> None:
        """``issuer`` is an ARK that signed this one, or ``EndorsementUntrusted``."""
        algorithm = _HASHES[issuer.bits]
        key = rsa.RSAPublicNumbers(issuer.exponent, issuer.modulus).public_key()
        scheme = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
        try:
            if issuer.usage != ARK or self.certifying_id != issuer.key_id:
                raise InvalidSignature
            key.verify(self.signature[::-1], self.signed(), scheme, algorithm)
        except InvalidSignature:
            raise EndorsementUntrusted(
                "not issued by this ARK", code="sev_certificate_sig", tee="snp", field="signature", spec=_SPEC
            ) from None


def _malformed(reason: str) -> EndorsementMalformed:
    return EndorsementMalformed(reason, code="sev_certificate_malformed", tee="snp", spec=_SPEC)
