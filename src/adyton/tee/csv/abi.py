"""Attestation reports of Hygon CSV: their bytes and what they stand for. No trust; SM3 is not even needed here.

A report is a TEE info (336 bytes in version 1, 1168 in version 2), mostly followed by a signer block (2212 bytes) and, as
the guest's driver hands it out, zeros up to 4096 bytes. Everything is little-endian (evidence 10).

**Version 1 is masked**: whatever stands before ``anonce`` is stored XORed with it (4 bytes, repeated), and so are the
signer block's certificate, serial number and reserved bytes. The signature covers the first 180 *masked* bytes, and not
``anonce``: who changes ``anonce`` changes every field and keeps the signature. ``verify`` deals with that.

Version 2 is not masked and has no ``anonce``; its signature covers all 1024 bytes before it.
"""

from __future__ import annotations

import struct

import msgspec

from adyton.errors import MalformedEvidence

TEE = "csv"
SPEC = "evidence 10"
MAGIC = b"ATTESTATION_EXT\0"
PAGE = 4096
WRAPPED = len(MAGIC) + 4 + PAGE
INFO_SIZES = {1: 0x150, 2: 0x490}
SIGNED_SIZES = {1: 180, 2: 1024}
SIGNER_SIZE = 2084 + 64 + 32 + 32
REGISTERS = 5  # of 32 bytes each, extended with SM3
SM2_SIGNATURE = 4  # the algorithm's number

_HEAD = struct.Struct("<32s16s16s64s16s32sIII")  # up to and with the signature's algorithm: 188 bytes
_MORE = struct.Struct("<IH14s32s32s32s32s32s656s")  # what version 2 has besides
_SIGNATURE = struct.Struct("<72s72s")
_SIGNER = struct.Struct("<2084s64s32s32s")
_WRAPPER = struct.Struct("<16sI4096s")
# Bytes of evidence in raw form -> version; a page of 4096 is either.
_RAW = {0x150: 1, 0x150 + SIGNER_SIZE: 1, 0x490: 2, 0x490 + SIGNER_SIZE: 2}
RAW_SIZES = frozenset((*_RAW, PAGE, WRAPPED))


class GuestPolicy(int):
    """The guest's policy, 32 bits."""

    __slots__ = ()

    BITS = (
        ("nodbg", 0, 1),
        ("noks", 1, 1),
        ("es", 2, 1),
        ("nosend", 3, 1),
        ("domain", 4, 1),
        ("csv", 5, 1),
        ("csv3", 6, 1),
        ("asid_reuse", 7, 1),
        ("hsk_version", 8, 4),
        ("cek_version", 12, 4),
        ("api_major", 16, 8),
        ("api_minor", 24, 8),
    )  # name, lowest bit, bits

    @property
    def debug_allowed(self) -> bool:
        """Whether the host may debug the guest: bit 0, NODBG, is clear."""
        return not self & 1

    def fields(self) -> dict[str, int]:
        """Each named part as a number."""
        return {name: self >> low & (1 << size) - 1 for name, low, size in self.BITS}


class SignerBlock(msgspec.Struct, frozen=True):
    """What comes behind a report: the certificate of the key that signed it (PEK) and the chip's serial number.

    ``masked`` are the 2180 bytes before ``mac`` as they stand; ``pek``, ``serial`` and ``reserved`` are unmasked. The MAC is
    keyed with ``mnonce``, which stands in the report: it protects against accidents, not against people.
    """

    masked: bytes
    pek: bytes
    serial: bytes
    reserved: bytes
    mac: bytes

    @property
    def chip_serial(self) -> str | None:
        """The serial number without its zeros, if it is printable ASCII."""
        return serial_text(self.serial)


def serial_text(serial: bytes) -> str | None:
    """64 bytes as text: printable ASCII, then zeros; ``None`` for anything else."""
    text = serial.rstrip(b"\0")
    return text.decode("ascii") if text.isascii() and text.decode("ascii").isprintable() else None


class CsvReport(msgspec.Struct, frozen=True):
    """One report, its fields unmasked. ``r`` and ``s`` are 72 bytes, little-endian; ``anonce`` is empty in version 2.

    ``info`` are the TEE info's bytes as they stand, ``tail`` what follows the signer block (zeros of the page, never looked
    at), ``flags`` those of a wrapped report.
    """

    version: int
    info: bytes
    user_pubkey_digest: bytes
    vm_id: bytes
    vm_version: bytes
    report_data: bytes
    mnonce: bytes
    measure: bytes
    policy: GuestPolicy
    usage: int
    algorithm: int
    anonce: bytes
    r: bytes
    s: bytes
    build: int | None = None
    rtmr_version: int | None = None
    reserved0: bytes = b""
    registers: tuple[bytes, ...] = ()
    reserved1: bytes = b""
    signer: SignerBlock | None = None
    tail: bytes = b""
    wrapper: bytes = b""

    @classmethod
    def parse(cls, data: bytes) -> CsvReport:
        """From raw evidence of one of ``RAW_SIZES``, or ``MalformedEvidence``.

        A bare page does not name its version. Version 2 fills it further than version 1 does: a page that is zero where only
        version 2 has its signer block is version 1. Who lies about that gets a signature that does not verify.
        """
        size = len(data)
        if size == WRAPPED:
            magic, flags, page = _WRAPPER.unpack(data)
            return cls.of_page(page, magic=magic, flags=flags, wrapper=data[: WRAPPED - PAGE])
        if size == PAGE:
            end = INFO_SIZES[1] + SIGNER_SIZE
            return cls._read(data, 1 if not any(data[end : INFO_SIZES[2] + SIGNER_SIZE]) else 2)
        version = _RAW.get(size)
        if version is None:
            raise malformed("not the length of a report", "report_length", sorted(RAW_SIZES), size)
        return cls._read(data, version)

    @classmethod
    def of_page(cls, page: bytes, *, magic: bytes, flags: int, wrapper: bytes = b"") -> CsvReport:
        """From a page of 4096 bytes with the marks that tell its version: no magic, or magic with flags 0: 1; flags 1: 2."""
        if len(page) != PAGE:
            raise malformed("a page has 4096 bytes", "data", PAGE, len(page))
        version = {(bytes(16), 0): 1, (MAGIC, 0): 1, (MAGIC, 1): 2}.get((magic, flags))
        if version is None:
            raise malformed("unknown kind of report", "magic, flags", "none, or ATTESTATION_EXT with 0 or 1", flags)
        return cls._read(page, version, wrapper)

    @classmethod
    def _read(cls, data: bytes, version: int, wrapper: bytes = b"") -> CsvReport:
        size = INFO_SIZES[version]
        info = data[:size]
        block, tail = data[size : size + SIGNER_SIZE], data[size + SIGNER_SIZE :]
        if version == 1:
            anonce = info[188:192]
            head = _HEAD.unpack(unmask(info[:188], anonce))
            r, s = _SIGNATURE.unpack_from(info, 192)
            more: tuple[object, ...] = (None, None, b"", (), b"")
        else:
            anonce = b""
            head = _HEAD.unpack_from(info)
            build, rtmr_version, reserved0, *registers, reserved1 = _MORE.unpack_from(info, 188)
            r, s = _SIGNATURE.unpack_from(info, 1024)
            more = (build, rtmr_version, reserved0, tuple(registers), reserved1)
        digest, vm_id, vm_version, report_data, mnonce, measure, policy, usage, algorithm = head
        return cls(
            version, info, digest, vm_id, vm_version, report_data, mnonce, measure, GuestPolicy(policy), usage, algorithm,
            anonce, r, s, *more, _signer(block, anonce) if block else None, tail, wrapper,  # type: ignore[call-arg, arg-type]  # in order
        )  # fmt: skip

    def encode(self) -> bytes:
        """The bytes that it was parsed from."""
        block = self.signer.masked + self.signer.mac if self.signer is not None else b""
        return self.wrapper + self.info + block + self.tail

    @property
    def signed_bytes(self) -> bytes:
        """What the signature covers, masked in version 1."""
        return self.info[: SIGNED_SIZES[self.version]]


def unmask(data: bytes, anonce: bytes) -> bytes:
    """``data`` XOR ``anonce``, repeated; as it is without one. Masking is the same. A multiple of 4 bytes."""
    if not anonce:
        return data
    size = len(data)
    mask = int.from_bytes(anonce * (size // 4), "little")
    return (int.from_bytes(data, "little") ^ mask).to_bytes(size, "little")


def _signer(block: bytes, anonce: bytes) -> SignerBlock:
    masked = block[:-32]
    plain = unmask(masked, anonce)
    return SignerBlock(masked, plain[:2084], plain[2084:2148], plain[2148:], block[-32:])


def malformed(message: str, field: str, expected: object, got: object) -> MalformedEvidence:
    """``MalformedEvidence`` of this TEE."""
    return MalformedEvidence(
        f"not a CSV report: {message}", tee=TEE, field=field, expected=expected, got=got, spec=SPEC
    )
