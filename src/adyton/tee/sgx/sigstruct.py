"""SIGSTRUCT: an enclave's certificate, 1808 bytes, that EINIT checks (Intel SDM 3D, 35.14; evidence 13).

RSA-3072 with exponent 3, PKCS#1 v1.5, SHA-256 over bytes 0 to 128 and 900 to 1028; all numbers little-endian. ``q1``
and ``q2`` are quotients that spare the processor divisions: it refuses others than the right ones, and so do we.
MRSIGNER is the SHA-256 of the modulus as it stands here.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import struct
from dataclasses import dataclass, replace
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from adyton.crypto.algorithms import RSA_SHA256
from adyton.errors import DocumentInvalid, SignatureInvalid

SPEC = "Intel SDM 3D, SIGSTRUCT; evidence 13"
SIZE: Final = 1808
SCHEME: Final = "RSA-3072 e=3 PKCS#1 v1.5 SHA-256 over bytes [0:128] || [900:1028]"
DEBUG: Final = 1 << 1
_KEY = 384  # bytes of modulus, signature, q1, q2
_HEADER = bytes.fromhex("06000000e10000000000010000000000")
_HEADER2 = bytes.fromhex("01010000600000006000000001000000")
_VENDORS = (0, 0x8086)
_BODY = struct.Struct(
    "<16sII16sI84s"  # header, vendor, date, header 2, software defined, reserved
    "384sI384s"  # modulus, exponent, signature
    "IIBB2s16s16s16s32s16s16sHH"  # what the enclave must be
    "12s384s384s"
)
assert _BODY.size == SIZE  # noqa: S101 -- the layout above, said twice


@dataclass(frozen=True, slots=True, kw_only=True)
class Sigstruct:
    """A SIGSTRUCT as it stands; numbers as integers, the rest as bytes. Nothing of it is verified by parsing.

    ``attributes`` are 16 bytes (flags, XFRM) and compared under ``attribute_mask``; ``date`` is yyyymmdd in BCD,
    which nobody checks.
    """

    modulus: int
    signature: int
    q1: int
    q2: int
    enclave_hash: bytes
    date: int
    vendor: int = 0
    software_defined: int = 0
    miscselect: int = 0
    misc_mask: int = 0xFFFFFFFF
    cet_attributes: int = 0
    cet_attributes_mask: int = 0
    isv_family_id: bytes = bytes(16)
    attributes: bytes = bytes(16)
    attribute_mask: bytes = b"\xff" * 16
    isv_ext_prod_id: bytes = bytes(16)
    isv_prod_id: int = 0
    isv_svn: int = 0

    @classmethod
    def parse(cls, data: bytes) -> Sigstruct:
        """Read 1808 bytes, or ``DocumentInvalid``; ``encode`` gives them back."""
        if len(data) != SIZE:
            raise _invalid("a SIGSTRUCT has 1808 bytes", "sigstruct_size", len(data))
        fields = _BODY.unpack(data)
        header, vendor, day, header2, software, zeros, modulus, exponent, signature = fields[:9]
        misc, misc_mask, cet, cet_mask, zeros2, family, attributes, mask, enclave_hash = fields[9:18]
        zeros3, ext_prod_id, prod_id, svn, zeros4, q1, q2 = fields[18:]
        if header != _HEADER or header2 != _HEADER2 or vendor not in _VENDORS:
            raise _invalid("its headers or its vendor are not a SIGSTRUCT's", "sigstruct_header")
        if exponent != 3:
            raise _invalid("the exponent of an enclave's signer is 3", "sigstruct_exponent", exponent)
        if any(zeros) or any(zeros2) or any(zeros3) or any(zeros4):
            raise _invalid("reserved bytes are not zero", "sigstruct_reserved")
        return cls(
            modulus=int.from_bytes(modulus, "little"),
            signature=int.from_bytes(signature, "little"),
            q1=int.from_bytes(q1, "little"),
            q2=int.from_bytes(q2, "little"),
            enclave_hash=enclave_hash,
            date=day,
            vendor=vendor,
            software_defined=software,
            miscselect=misc,
            misc_mask=misc_mask,
            cet_attributes=cet,
            cet_attributes_mask=cet_mask,
            isv_family_id=family,
            attributes=attributes,
            attribute_mask=mask,
            isv_ext_prod_id=ext_prod_id,
            isv_prod_id=prod_id,
            isv_svn=svn,
        )

    def encode(self) -> bytes:
        """The 1808 bytes. A value that does not fit its field is ``ValueError``."""
        sized = (self.isv_family_id, self.attributes, self.attribute_mask, self.isv_ext_prod_id)
        if any(len(value) != 16 for value in sized) or len(self.enclave_hash) != 32:
            raise ValueError("an enclave's hash has 32 bytes; its attributes, masks and identities have 16")
        try:
            return _BODY.pack(
                *(_HEADER, self.vendor, self.date, _HEADER2),
                *(self.software_defined, bytes(84)),
                *(self.modulus.to_bytes(_KEY, "little"), 3, self.signature.to_bytes(_KEY, "little")),
                *(self.miscselect, self.misc_mask, self.cet_attributes, self.cet_attributes_mask, bytes(2)),
                *(self.isv_family_id, self.attributes, self.attribute_mask, self.enclave_hash, bytes(16)),
                *(self.isv_ext_prod_id, self.isv_prod_id, self.isv_svn, bytes(12)),
                *(self.q1.to_bytes(_KEY, "little"), self.q2.to_bytes(_KEY, "little")),
            )
        except (struct.error, OverflowError) as error:
            raise ValueError("a number does not fit its field") from error

    @property
    def signed(self) -> bytes:
        """What the signature is over, 256 bytes."""
        data = self.encode()
        return data[:128] + data[900:1028]

    @property
    def mrsigner(self) -> bytes:
        """SHA-256 of the modulus, little-endian: the signer's identity, 32 bytes."""
        return hashlib.sha256(self.modulus.to_bytes(_KEY, "little")).digest()

    @property
    def debug(self) -> bool:
        """Whether the enclave may be run with its memory open to a debugger."""
        return bool(int.from_bytes(self.attributes[:8], "little") & DEBUG)

    @property
    def signed_on(self) -> dt.date | None:
        """The day of signing, or ``None`` if ``date`` is none: some signers leave it empty."""
        digits = f"{self.date:08x}"
        try:
            return dt.date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
        except ValueError:
            return None

    @property
    def quotients(self) -> tuple[int, int]:
        """The ``q1`` and ``q2`` that signature and modulus ask for."""
        square = self.signature**2
        q1 = square // self.modulus
        return q1, self.signature * (square - q1 * self.modulus) // self.modulus

    def verify(self) -> None:
        """The quotients and the signature, or ``SignatureInvalid``. Whose key it is, is the caller's question."""
        if self.modulus.bit_length() != 8 * _KEY or not self.modulus & 1 or not 0 < self.signature < self.modulus:
            raise _refused("its modulus has not 3072 bits, or its signature is out of range", "sigstruct_modulus")
        if (self.q1, self.q2) != self.quotients:
            raise _refused("q1 and q2 are not those of its signature and modulus", "sigstruct_quotients")
        try:
            key = rsa.RSAPublicNumbers(3, self.modulus).public_key()
        except ValueError as error:
            raise _refused("its modulus is no RSA key's", "sigstruct_modulus") from error
        if not RSA_SHA256.verifies(key, self.signature.to_bytes(_KEY, "big"), self.signed):
            raise _refused("its signature does not verify", "sigstruct_sig")

    def check_measurement(self, mrenclave: bytes) -> None:
        """That it is made for this enclave, or ``DocumentInvalid``."""
        if not hmac.compare_digest(mrenclave, self.enclave_hash):
            raise DocumentInvalid(
                "the SIGSTRUCT is made for another enclave",
                code="sigstruct_enclave",
                tee="sgx",
                field="enclave_hash",
                expected=self.enclave_hash,
                got=mrenclave,
                spec=SPEC,
            )

    def sign(self, key: rsa.RSAPrivateKey) -> Sigstruct:
        """The same with modulus, signature and quotients of ``key``, which has 3072 bits and exponent 3."""
        numbers = key.public_key().public_numbers()
        if numbers.e != 3 or numbers.n.bit_length() != 8 * _KEY:
            raise ValueError("an enclave's signer has an RSA key of 3072 bits with exponent 3")
        keyed = replace(self, modulus=numbers.n, signature=0, q1=0, q2=0)
        signature = int.from_bytes(key.sign(keyed.signed, padding.PKCS1v15(), hashes.SHA256()), "big")
        signed = replace(keyed, signature=signature)
        q1, q2 = signed.quotients
        return replace(signed, q1=q1, q2=q2)


def _invalid(message: str, code: str, got: object = None) -> DocumentInvalid:
    return DocumentInvalid(message, code=code, tee="sgx", field="sigstruct", got=got, spec=SPEC)


def _refused(message: str, code: str) -> SignatureInvalid:
    return SignatureInvalid(message, code=code, tee="sgx", field="sigstruct", spec=SPEC)
