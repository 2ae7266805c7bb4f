"""TPM 2.0 structures on the wire: TPMS_ATTEST (quotes), TPMT_SIGNATURE, TPMT_PUBLIC, TPM2B. No cryptography, no trust.

TPM 2.0 Library specification 1.59, part 2, sections 10.12.12, 11.3.4 and 12.2.4 (evidence 6). Everything is big-endian. No
bytes may remain after a structure, so that each encodes to itself.
"""

from __future__ import annotations

import hashlib
import struct
from enum import IntFlag
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from adyton.errors import MalformedEvidence, UnsupportedEvidence
from adyton.tee.eventlog.banks import BY_ID, Bank

MAGIC = 0xFF544347
ATTEST_QUOTE = 0x8018
RSASSA, RSAPSS, ECDSA, NULL = 0x0014, 0x0016, 0x0018, 0x0010
RSA, ECC = 0x0001, 0x0023
MAX_PCRS = 24
SPEC = "TPM 2.0 part 2; evidence 6"
TEE = "tpm"

_HEAD = struct.Struct(">IH")
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_CLOCK = struct.Struct(">QIIBQ")  # clock, resetCount, restartCount, safe, firmware version
_SELECTION = struct.Struct(">HB")
_MAX_SELECTIONS = 16
_MAX_BUFFER = 4096  # of one TPM2B; names have 66 bytes, RSA-4096 moduli 512
_CURVES: dict[int, type[ec.EllipticCurve]] = {3: ec.SECP256R1, 4: ec.SECP384R1, 5: ec.SECP521R1}


class Selection(NamedTuple):
    """The PCRs of one bank. ``bitmap`` as it stands; ``pcrs`` ascending."""

    bank: Bank
    bitmap: bytes
    pcrs: tuple[int, ...]


class Attest(NamedTuple):
    """A quote's TPMS_ATTEST. ``clock`` in milliseconds; ``raw``: the bytes that are signed."""

    raw: bytes
    qualified_signer: bytes
    extra_data: bytes
    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: int
    selections: tuple[Selection, ...]
    pcr_digest: bytes

    @classmethod
    def parse(cls, data: bytes) -> Attest:
        """Read one that fills ``data``; magic and type first. ``MalformedEvidence`` for anything else.

        A restricted key signs nothing that begins with the magic unless the TPM made it; so nothing is looked at before.
        """
        if len(data) < _HEAD.size:
            raise malformed("attest_short", "shorter than its head", field="message", got=len(data))
        magic, kind = _HEAD.unpack_from(data)
        if magic != MAGIC:
            raise malformed("attest_magic", "not made by a TPM", field="message", expected=hex(MAGIC), got=hex(magic))
        if kind != ATTEST_QUOTE:
            raise malformed("attest_type", "no quote", field="message", expected=hex(ATTEST_QUOTE), got=hex(kind))
        try:
            signer, offset = _buffer(data, _HEAD.size)
            extra, offset = _buffer(data, offset)
            clock, reset, restart, safe, firmware = _CLOCK.unpack_from(data, offset)
            selections, offset = _selections(data, offset + _CLOCK.size)
            digest, offset = _buffer(data, offset)
        except (struct.error, IndexError):
            raise malformed("attest_short", "cut off", field="message", got=len(data)) from None
        if offset != len(data):
            raise malformed("attest_tail", "bytes after its end", field="message", expected=offset, got=len(data))
        if safe > 1:
            raise malformed("attest_safe", "a flag that is neither yes nor no", field="message", got=safe)
        return cls(data, signer, extra, clock, reset, restart, bool(safe), firmware, selections, digest)

    def encode(self) -> bytes:
        """The bytes again, from the fields."""
        out = [_HEAD.pack(MAGIC, ATTEST_QUOTE), tpm2b(self.qualified_signer), tpm2b(self.extra_data)]
        out.append(_CLOCK.pack(self.clock, self.reset_count, self.restart_count, self.safe, self.firmware_version))
        out.append(_U32.pack(len(self.selections)))
        for bank, bitmap, _ in self.selections:
            out.append(_SELECTION.pack(bank.identifier, len(bitmap)) + bitmap)
        return b"".join((*out, tpm2b(self.pcr_digest)))


class Signature(NamedTuple):
    """TPMT_SIGNATURE. ``values``: one number for RSA, r and s for ECDSA, as they stand."""

    scheme: int
    bank: Bank
    values: tuple[bytes, ...]

    @classmethod
    def parse(cls, data: bytes) -> Signature:
        """Read one that fills ``data``, or ``MalformedEvidence``; another scheme is ``UnsupportedEvidence``."""
        if len(data) < 4:
            raise malformed("signature_short", "shorter than its head", field="signature", got=len(data))
        scheme, identifier = struct.unpack_from(">HH", data)
        if scheme not in {RSASSA, RSAPSS, ECDSA}:
            raise UnsupportedEvidence(
                "a signature scheme that is not for quotes",
                code="signature_scheme",
                tee=TEE,
                field="signature",
                expected="RSASSA, RSAPSS or ECDSA",
                got=hex(scheme),
                spec=SPEC,
            )
        bank = BY_ID.get(identifier)
        if bank is None:
            raise malformed("signature_hash", "an unknown hash", field="signature", got=hex(identifier))
        try:
            first, offset = _buffer(data, 4)
            values: tuple[bytes, ...] = (first,)
            if scheme == ECDSA:
                second, offset = _buffer(data, offset)
                values = (first, second)
        except struct.error:
            raise malformed("signature_short", "cut off", field="signature", got=len(data)) from None
        if offset != len(data):
            raise malformed("signature_tail", "bytes after its end", field="signature", expected=offset, got=len(data))
        return cls(scheme, bank, values)

    def encode(self) -> bytes:
        """The bytes again."""
        return struct.pack(">HH", self.scheme, self.bank.identifier) + b"".join(map(tpm2b, self.values))


class Attributes(IntFlag):
    """TPMA_OBJECT: what a key is and may do."""

    FIXED_TPM = 1 << 1
    ST_CLEAR = 1 << 2
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    NO_DA = 1 << 10
    ENCRYPTED_DUPLICATION = 1 << 11
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18
    X509_SIGN = 1 << 19


# What an attestation key must be: made in this TPM, never leaves it, and signs nothing that looks like a TPM's structure
# unless it is one.
AK_ATTRIBUTES = (
    Attributes.FIXED_TPM
    | Attributes.FIXED_PARENT
    | Attributes.SENSITIVE_DATA_ORIGIN
    | Attributes.RESTRICTED
    | Attributes.SIGN
)


class PublicArea(NamedTuple):
    """TPMT_PUBLIC of an RSA or ECC key. ``bits`` and ``exponent`` for RSA, ``curve`` for ECC; ``unique``: n, or x and y."""

    raw: bytes
    kind: int
    name_bank: Bank
    attributes: Attributes
    policy: bytes
    scheme: int
    scheme_hash: int | None
    bits: int
    exponent: int
    curve: int
    unique: tuple[bytes, ...]

    @classmethod
    def parse(cls, data: bytes) -> PublicArea:
        """Read TPMT_PUBLIC, or TPM2B_PUBLIC around it, that fills ``data``; else ``MalformedEvidence``."""
        if len(data) >= 4 and _U16.unpack_from(data)[0] == len(data) - 2:
            data = data[2:]
        try:
            return cls._parse(data)
        except (struct.error, IndexError):
            raise malformed("public_short", "cut off", field="ak_public", got=len(data)) from None

    @classmethod
    def _parse(cls, data: bytes) -> PublicArea:
        kind, name_hash, attributes = struct.unpack_from(">HHI", data)
        name_bank = BY_ID.get(name_hash)
        if name_bank is None or kind not in {RSA, ECC}:
            raise malformed("public_kind", "neither an RSA nor an ECC key", field="ak_public", got=hex(kind))
        policy, offset = _buffer(data, 8)
        (symmetric,) = _U16.unpack_from(data, offset)
        offset += 2 if symmetric == NULL else 6  # algorithm, key bits, mode
        (scheme,) = _U16.unpack_from(data, offset)
        offset += 2
        scheme_hash = None
        if scheme != NULL:
            (scheme_hash,) = _U16.unpack_from(data, offset)
            offset += 2
        bits = exponent = curve = 0
        if kind == RSA:
            bits, exponent = struct.unpack_from(">HI", data, offset)
            modulus, offset = _buffer(data, offset + 6)
            unique: tuple[bytes, ...] = (modulus,)
        else:
            curve, kdf = struct.unpack_from(">HH", data, offset)
            x, offset = _buffer(data, offset + (4 if kdf == NULL else 6))
            y, offset = _buffer(data, offset)
            unique = (x, y)
        if offset != len(data):
            raise malformed("public_tail", "bytes after its end", field="ak_public", expected=offset, got=len(data))
        return cls(
            data, kind, name_bank, Attributes(attributes), policy, scheme, scheme_hash, bits, exponent, curve, unique
        )

    @property
    def name(self) -> bytes:
        """The object's name: identifier of the name's hash, then the hash of the public area."""
        return _U16.pack(self.name_bank.identifier) + self.name_bank.new(self.raw).digest()

    def key(self) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
        """The key to verify with; ``MalformedEvidence`` if there is no such key."""
        try:
            if self.kind == RSA:
                modulus = int.from_bytes(self.unique[0], "big")
                if modulus.bit_length() != self.bits or not 1024 <= self.bits <= 4096:
                    raise ValueError("a modulus of another length")
                return rsa.RSAPublicNumbers(self.exponent or 65537, modulus).public_key()
            x, y = (int.from_bytes(value, "big") for value in self.unique)
            return ec.EllipticCurvePublicNumbers(x, y, _CURVES[self.curve]()).public_key()
        except (ValueError, KeyError, OverflowError) as error:
            raise malformed(
                "public_key", "not a key that can be", field="ak_public", got=self.bits or self.curve
            ) from error


def tpm2b(value: bytes) -> bytes:
    """A sized buffer: two bytes of length, then the value."""
    return _U16.pack(len(value)) + value


def malformed(code: str, message: str, *, field: str, expected: object = None, got: object = None) -> MalformedEvidence:
    """The error of a structure that cannot be read."""
    return MalformedEvidence(
        f"TPM {field}: {message}", code=code, tee=TEE, field=field, expected=expected, got=got, spec=SPEC
    )


def pcrs_of(bitmap: bytes) -> tuple[int, ...]:
    """The PCRs whose bits are set, ascending; bit n of byte m is PCR 8 m + n."""
    bits = int.from_bytes(bitmap, "little")
    return tuple([number for number in range(8 * len(bitmap)) if bits >> number & 1])


def _buffer(data: bytes, offset: int) -> tuple[bytes, int]:
    """The content of the TPM2B at ``offset`` and where it ends; ``struct.error`` if it is cut off."""
    (size,) = _U16.unpack_from(data, offset)
    begin = offset + 2
    end = begin + size
    if end > len(data) or size > _MAX_BUFFER:
        raise struct.error("cut off")
    return data[begin:end], end


_ALL = b"\xff\xff\xff"
_EVERY = tuple(range(MAX_PCRS))


def _selections(data: bytes, offset: int) -> tuple[tuple[Selection, ...], int]:
    (count,) = _U32.unpack_from(data, offset)
    offset += _U32.size
    if count > _MAX_SELECTIONS:
        raise malformed("attest_selection", "more banks than there are", field="message", got=count)
    found: list[Selection] = []
    for _ in range(count):
        identifier, size = _SELECTION.unpack_from(data, offset)
        begin = offset + _SELECTION.size
        offset = begin + size
        bitmap = data[begin:offset]
        bank = BY_ID.get(identifier)
        if bank is None or len(bitmap) != size or size * 8 > 2 * MAX_PCRS:
            raise malformed(
                "attest_selection", "a bank that is unknown or has too many PCRs", field="message", got=hex(identifier)
            )
        pcrs = _EVERY if bitmap == _ALL else pcrs_of(bitmap)
        if pcrs and pcrs[-1] >= MAX_PCRS:
            raise malformed("attest_selection", "a PCR that does not exist", field="message", got=pcrs[-1])
        found.append(Selection(bank, bitmap, pcrs))
    return tuple(found), offset


def fingerprint(spki: bytes) -> bytes:
    """SHA-256 of a SubjectPublicKeyInfo, 32 bytes: how a key is pinned."""
    return hashlib.sha256(spki).digest()
