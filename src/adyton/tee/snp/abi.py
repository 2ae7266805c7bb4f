"""The SEV-SNP attestation report: 1184 bytes and the type they stand for. No cryptography, no trust.

AMD 56860, "SEV Secure Nested Paging Firmware ABI", MSG_REPORT_RSP, report versions 2 to 5 (evidence 4.1). Version 4 has
the fields of 5. Everything is little-endian. Signed are bytes 0 to 0x29F; ``r`` and ``s`` follow, 72 bytes each.

What is reserved is kept, and means nothing: inside the signed part it is "signed but unknown", the ``tail`` after ``s``
is not signed and is never looked at. So ``SnpReport.parse(x).encode() == x`` for every report that parses.
"""

from __future__ import annotations

import struct
from enum import Enum
from functools import lru_cache
from operator import itemgetter
from typing import Any

import msgspec

from adyton.errors import MalformedEvidence

REPORT_SIZE = 1184
SIGNED_SIZE = 0x2A0
VERSIONS = (2, 3, 4, 5)
ECDSA_P384_SHA384 = 1
TURIN_FAMILY = 0x1A
SPEC = "AMD 56860 report; evidence 4.1"

# One value for each field of ``SnpReport``, in its order; a TCB version as its 8 bytes.
LAYOUT = struct.Struct("<IIQ16s16sII8sQII64s48s32s48s48s32s32s8sBBB21s64s8sBBBBBBBB8sQQ152s72s72s368s")


class TcbLayout(Enum):
    """Where the components lie in the 8 bytes of a TCB version; microcode is always the last byte."""

    MILAN = "boot loader 0, tee 1, snp 6"  # and Genoa
    TURIN = "fmc 0, boot loader 1, tee 2, snp 3"


class Tcb(msgspec.Struct, frozen=True):
    """A TCB version: its 8 bytes as they lie in the report, and the layout that its generation of chips uses."""

    raw: bytes = bytes(8)
    layout: TcbLayout = TcbLayout.MILAN

    @classmethod
    def of(cls, *, boot_loader: int, tee: int, snp: int, microcode: int, fmc: int | None = None) -> Tcb:
        """From its components, 0 to 255 each. ``fmc`` makes it the layout of Turin."""
        if fmc is None:
            return cls(bytes((boot_loader, tee, 0, 0, 0, 0, snp, microcode)), TcbLayout.MILAN)
        return cls(bytes((fmc, boot_loader, tee, snp, 0, 0, 0, microcode)), TcbLayout.TURIN)

    @property
    def fmc(self) -> int | None:
        """FMC firmware; ``None`` where the layout has none."""
        return self.raw[0] if self.layout is TcbLayout.TURIN else None

    @property
    def boot_loader(self) -> int:
        """Boot loader of the secure processor."""
        return self.components[1]

    @property
    def tee(self) -> int:
        """Operating system of the secure processor."""
        return self.components[2]

    @property
    def snp(self) -> int:
        """SNP firmware."""
        return self.components[3]

    @property
    def microcode(self) -> int:
        """Lowest microcode patch level of all cores."""
        return self.raw[7]

    @property
    def components(self) -> tuple[int, int, int, int, int]:
        """``(fmc, boot loader, tee, snp, microcode)``; fmc is 0 where the layout has none."""
        raw = self.raw
        if self.layout is TcbLayout.TURIN:
            return (raw[0], raw[1], raw[2], raw[3], raw[7])
        return (0, raw[0], raw[1], raw[6], raw[7])

    def __le__(self, other: Tcb) -> bool:
        """Not newer in any component. Comparing the 8 bytes as one number would be wrong."""
        return all(mine <= theirs for mine, theirs in zip(self.components, other.components, strict=True))


@lru_cache(maxsize=256)
def _milan(raw: bytes) -> Tcb:  # remembered: a fleet has few TCB versions, and each report names four
    return Tcb(raw, TcbLayout.MILAN)


@lru_cache(maxsize=256)
def _turin(raw: bytes) -> Tcb:
    return Tcb(raw, TcbLayout.TURIN)


class GuestPolicy(int):
    """The guest's policy, 64 bits. Bit 17 is reserved and must be 1."""

    __slots__ = ()

    BITS = (
        ("smt_allowed", 16),
        ("migrate_ma", 18),
        ("debug_allowed", 19),
        ("single_socket", 20),
        ("cxl_allowed", 21),
        ("mem_aes_256_xts", 22),
        ("rapl_dis", 23),
        ("ciphertext_hiding", 24),
        ("page_swap_disable", 25),
    )

    @property
    def abi_minor(self) -> int:
        """Lowest minor version of the firmware's ABI."""
        return self & 0xFF

    @property
    def abi_major(self) -> int:
        """Lowest major version of the firmware's ABI."""
        return self >> 8 & 0xFF

    @property
    def reserved_bit(self) -> bool:
        """Bit 17, which every valid policy has."""
        return bool(self >> 17 & 1)

    @property
    def debug_allowed(self) -> bool:
        """Whether the host may read the guest's memory."""
        return bool(self >> 19 & 1)

    def bits(self) -> dict[str, bool]:
        """The named bits."""
        return {name: bool(self >> bit & 1) for name, bit in self.BITS}


class PlatformInfo(int):
    """What the platform has switched on, 64 bits."""

    __slots__ = ()

    BITS = (
        ("smt_enabled", 0),
        ("tsme_enabled", 1),
        ("ecc_enabled", 2),
        ("rapl_disabled", 3),
        ("ciphertext_hiding_enabled", 4),
        ("alias_check_complete", 5),
        ("tio_enabled", 7),
    )

    def bits(self) -> dict[str, bool]:
        """The named bits."""
        return {name: bool(self >> bit & 1) for name, bit in self.BITS}


class SigningKey(Enum):
    """The kind of key that signed the report: per chip, per cloud provider, or none."""

    VCEK = 0
    VLEK = 1
    NONE = 7


class KeyInfo(int):
    """Bits 0 author key, 1 chip key masked (the report is then not signed), 2 to 4 signing key."""

    __slots__ = ()

    @property
    def author_key_enabled(self) -> bool:
        """Whether ``author_key_digest`` means something."""
        return bool(self & 1)

    @property
    def mask_chip_key(self) -> bool:
        """Whether the firmware was told not to sign."""
        return bool(self >> 1 & 1)

    @property
    def signing_key(self) -> SigningKey | None:
        """The kind of key; ``None`` for the reserved values 2 to 6."""
        return _SIGNING_KEYS[self >> 2 & 7]


_SIGNING_KEYS = (SigningKey.VCEK, SigningKey.VLEK, None, None, None, None, None, SigningKey.NONE)
_ZERO_TCB = Tcb()


class SnpReport(msgspec.Struct, frozen=True):
    """One report. Lengths in bytes: as in ``encode``. ``r`` and ``s`` are little-endian numbers in 72 bytes.

    Versions differ in what a field means, not in where it lies: ``cpuid`` is ``None`` before 3, the mitigation vectors
    are read by ``mitigation_vectors``, ``None`` before 4.
    """

    version: int = 3
    guest_svn: int = 0
    policy: GuestPolicy = GuestPolicy(0x30000)
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    vmpl: int = 0
    signature_algorithm: int = ECDSA_P384_SHA384
    current_tcb: Tcb = _ZERO_TCB
    platform_info: PlatformInfo = PlatformInfo(0)
    key_info: KeyInfo = KeyInfo(0)
    reserved_4c: int = 0
    report_data: bytes = bytes(64)
    measurement: bytes = bytes(48)
    host_data: bytes = bytes(32)
    id_key_digest: bytes = bytes(48)
    author_key_digest: bytes = bytes(48)
    report_id: bytes = bytes(32)
    report_id_ma: bytes = b"\xff" * 32
    reported_tcb: Tcb = _ZERO_TCB
    cpuid_family: int = 0
    cpuid_model: int = 0
    cpuid_stepping: int = 0
    reserved_18b: bytes = bytes(21)
    chip_id: bytes = bytes(64)
    committed_tcb: Tcb = _ZERO_TCB
    current_build: int = 0
    current_minor: int = 0
    current_major: int = 0
    reserved_1eb: int = 0
    committed_build: int = 0
    committed_minor: int = 0
    committed_major: int = 0
    reserved_1ef: int = 0
    launch_tcb: Tcb = _ZERO_TCB
    launch_mit_vector: int = 0
    current_mit_vector: int = 0
    reserved_208: bytes = bytes(152)
    r: bytes = bytes(72)
    s: bytes = bytes(72)
    tail: bytes = bytes(368)

    @classmethod
    def parse(cls, data: bytes) -> SnpReport:
        """From exactly 1184 bytes; ``MalformedEvidence`` if the length, version or signature algorithm is unknown."""
        if len(data) != REPORT_SIZE:
            raise _malformed("a report has 1184 bytes", "report_length", REPORT_SIZE, len(data))
        values = list(LAYOUT.unpack(data))
        version = values[0]
        if version not in VERSIONS:
            raise _malformed("unknown version of a report", "version", "2, 3, 4 or 5", version)
        if values[6] != ECDSA_P384_SHA384:
            raise _malformed(
                "unknown signature algorithm", "signature_algorithm", f"{ECDSA_P384_SHA384} (ECDSA P-384)", values[6]
            )
        tcb = _turin if version > 2 and values[19] == TURIN_FAMILY else _milan
        for index in _TCB_INDICES:
            values[index] = tcb(values[index])
        values[2] = GuestPolicy(values[2])
        values[8] = PlatformInfo(values[8])
        values[9] = KeyInfo(values[9])
        return cls(*values)

    def encode(self) -> bytes:
        """The 1184 bytes; ``ValueError`` if a field does not fit its place."""
        values: list[Any] = list(msgspec.structs.astuple(self))
        for index in _TCB_INDICES:
            values[index] = values[index].raw
        if tuple(map(len, _BYTES(values))) != _LENGTHS:
            raise ValueError("a field of the report has the wrong length")
        try:
            return LAYOUT.pack(*values)
        except struct.error as error:
            raise ValueError("a field of the report is out of range") from error

    @property
    def signed_bytes(self) -> bytes:
        """What the signature covers: bytes 0 to 0x29F."""
        return self.encode()[:SIGNED_SIZE]

    @property
    def cpuid(self) -> tuple[int, int, int] | None:
        """Family, model and stepping; ``None`` in version 2, which has none."""
        return (self.cpuid_family, self.cpuid_model, self.cpuid_stepping) if self.version > 2 else None

    @property
    def mitigation_vectors(self) -> tuple[int, int] | None:
        """At launch and now; ``None`` before version 4."""
        return (self.launch_mit_vector, self.current_mit_vector) if self.version > 3 else None

    @property
    def current_version(self) -> tuple[int, int, int]:
        """Major, minor, build of the firmware that runs."""
        return (self.current_major, self.current_minor, self.current_build)

    @property
    def committed_version(self) -> tuple[int, int, int]:
        """Major, minor, build of the firmware that the platform can no longer go back behind."""
        return (self.committed_major, self.committed_minor, self.committed_build)

    @property
    def chip_id_masked(self) -> bool:
        """Whether the platform hides its chip id (all zeros)."""
        return not any(self.chip_id)


_NAMES = SnpReport.__struct_fields__
_TCB_INDICES = tuple(_NAMES.index(name) for name in ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"))
_SIZES = {
    index: len(value) for index, value in enumerate(LAYOUT.unpack(bytes(REPORT_SIZE))) if isinstance(value, bytes)
}
_BYTES, _LENGTHS = itemgetter(*_SIZES), tuple(_SIZES.values())


def _malformed(message: str, field: str, expected: object, got: object) -> MalformedEvidence:
    return MalformedEvidence(message, tee="snp", field=field, expected=expected, got=got, spec=SPEC)
