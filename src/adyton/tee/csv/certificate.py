"""Hygon's certificates: 832 bytes for its authorities (HRK, HSK), 2084 for a chip's keys (CEK, PEK, OCA). No X.509.

Both hold an SM2 key, the id that goes into SM2's Z value, and one or two signatures (evidence 10). Numbers are
little-endian; a coordinate has 72 bytes, of which 32 are used. There is no validity, no revocation and no name: what a
certificate is for is its usage, and which key signed it shows when the signature is tried.

Signed are the first 576 and 1044 bytes. Reserved bytes among them are "signed but unknown"; those after a signature are
not signed and never looked at.
"""

from __future__ import annotations

import hashlib
import struct
from enum import IntEnum
from functools import lru_cache

from adyton.crypto.sm2 import Sm2Key
from adyton.errors import EndorsementMalformed, SignatureInvalid
from adyton.tee.csv.abi import SM2_SIGNATURE, SPEC, TEE

AUTHORITY_SIZE = 832
CHIP_SIZE = 2084
SM2_CURVE = 3

AUTHORITY_LAYOUT = struct.Struct("<I16s16sI24sI72s72sH254s108s72s72s112s")
CHIP_LAYOUT = struct.Struct("<IBBHIII72s72sH254s16s608sII72s72s368sII72s72s368s")


class Usage(IntEnum):
    """What a key is for."""

    HRK = 0
    HSK = 0x13
    INVALID = 0x1000  # of a signature: the slot is empty
    OCA = 0x1001
    PEK = 0x1002
    PDH = 0x1003
    CEK = 0x1004


_VERSIONS = {AUTHORITY_SIZE: (1,), CHIP_SIZE: (1, 2)}


class Slot:
    """A signature and the usage of the key that is said to have made it."""

    __slots__ = ("algorithm", "r", "s", "usage")

    def __init__(self, usage: int, algorithm: int, r: bytes, s: bytes) -> None:
        self.usage = usage
        self.algorithm = algorithm
        self.r = int.from_bytes(r, "little")
        self.s = int.from_bytes(s, "little")


class HygonCertificate:
    """One certificate. ``key_id`` and ``issuer_id`` are 16 bytes; a chip's keys have no id of their own (empty).

    ``algorithm`` is the key's, ``firmware`` the (major, minor) version that made it; authorities have neither.
    """

    __slots__ = (
        "algorithm", "digest", "encoded", "firmware", "issuer_id", "key", "key_id", "signed", "slots", "usage", "user_id",
    )  # fmt: skip

    def __init__(self, encoded: bytes) -> None:
        """From exactly 832 or 2084 bytes, or ``EndorsementMalformed``."""
        self.encoded = encoded
        self.digest = hashlib.sha256(encoded).digest()
        self.firmware: tuple[int, int] | None = None
        self.algorithm = SM2_SIGNATURE
        if len(encoded) == AUTHORITY_SIZE:
            (
                version, self.key_id, self.issuer_id, self.usage, _, curve, x, y, length, user_id, _, r, s, _,
            ) = AUTHORITY_LAYOUT.unpack(encoded)  # fmt: skip
            self.signed = encoded[:576]
            # An authority's certificate does not say whose signature it bears: HRK's, always.
            self.slots: tuple[Slot, ...] = (Slot(Usage.HRK, SM2_SIGNATURE, r, s),)
        elif len(encoded) == CHIP_SIZE:
            (
                version, major, minor, _, self.usage, self.algorithm, curve, x, y, length, user_id, self.issuer_id, _,
                usage1, algorithm1, r1, s1, _, usage2, algorithm2, r2, s2, _,
            ) = CHIP_LAYOUT.unpack(encoded)  # fmt: skip
            self.key_id = b""
            self.firmware = (major, minor)
            self.signed = encoded[:1044]
            self.slots = (Slot(usage1, algorithm1, r1, s1), Slot(usage2, algorithm2, r2, s2))
        else:
            raise malformed("not the length of a certificate", "length", [AUTHORITY_SIZE, CHIP_SIZE], len(encoded))
        if version not in _VERSIONS[len(encoded)]:
            raise malformed("unknown version", "version", _VERSIONS[len(encoded)], version)
        if curve != SM2_CURVE:
            raise malformed("not a key on the SM2 curve", "curve", SM2_CURVE, curve)
        if length > len(user_id):
            raise malformed("its user id is longer than its field", "user_id", len(user_id), length)
        self.user_id = user_id[:length]
        try:
            self.key = Sm2Key(int.from_bytes(x, "little"), int.from_bytes(y, "little"))
        except ValueError as error:
            raise malformed("its key is not a point of the SM2 curve", "public_key", None, None) from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HygonCertificate) and self.encoded == other.encoded

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"HygonCertificate(usage={self.usage:#x}, sha256={self.digest.hex()})"

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the key's SubjectPublicKeyInfo, 32 bytes: what trust anchors pin."""
        return hashlib.sha256(self.key.spki).digest()

    def signed_by(self, issuer: HygonCertificate) -> bool:
        """Whether one of its signatures is said to be by ``issuer``'s usage and verifies under ``issuer``'s key and id."""
        for slot in self.slots:
            if slot.usage == issuer.usage and slot.algorithm == SM2_SIGNATURE:
                try:
                    issuer.key.verify(slot.r, slot.s, self.signed, user_id=issuer.user_id)
                except SignatureInvalid:
                    continue
                return True
        return False


@lru_cache(maxsize=256)
def read(encoded: bytes) -> HygonCertificate:
    """As the constructor; the same content is read once."""
    return HygonCertificate(encoded)


def split(document: bytes) -> list[bytes]:
    """The certificates of a document in Hygon's format: one of either kind, or an HSK with a CEK behind it."""
    if len(document) == AUTHORITY_SIZE + CHIP_SIZE:
        return [document[:AUTHORITY_SIZE], document[AUTHORITY_SIZE:]]
    return [document]


def malformed(message: str, field: str, expected: object, got: object) -> EndorsementMalformed:
    """``EndorsementMalformed`` about a certificate in Hygon's format."""
    return EndorsementMalformed(
        f"not a certificate of Hygon's: {message}",
        code="hygon_certificate_malformed",
        tee=TEE,
        field=field,
        expected=expected,
        got=got,
        spec=SPEC,
    )
