"""What a realm's measurements must be, from what its host asked of the monitor and what its software extended (DEN0137 1.0).

The initial measurement (RIM) is a chain over the calls that made the realm, in their order: the hash of its parameters (B4.3.9),
then for each granule of data, each range that became RAM and each virtual CPU the hash of a descriptor of 256 bytes that holds the
RIM so far. Numbers are little-endian, measurements stand in fields of 64 bytes. What is not measured is zero in the structures.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from adyton.errors import DocumentInvalid

GRANULE = 4096
REGISTERS = 4
SPEC = "DEN0137 1.0, RIM"
HASHES = {"sha256": 0, "sha512": 1}  # RmiHashAlgorithm
_FIELD = 64
_DESCRIPTOR_SIZE = 0x100
_DATA, _REC, _RIPAS = range(3)
_MEASURE_CONTENT = 1
_RUNNABLE = 1
_HEAD = struct.Struct("<B7xQ64s")  # type, length, RIM so far
_PARAMETERS = struct.Struct("<QB7xB7xB7xB7xB7xB")
_MAX_ADDRESS = 1 << 52


@dataclass(frozen=True, slots=True, kw_only=True)
class RealmParameters:
    """The measured ones of RMI_REALM_CREATE, as the structure holds them.

    ``flags``: bit 0 LPA2, 1 SVE, 2 PMU; ``ipa_width`` in bits; ``sve_vector_length`` as SVE encodes it; numbers of breakpoints and
    watchpoints are one less than there are.
    """

    flags: int = 0
    ipa_width: int
    sve_vector_length: int = 0
    breakpoints: int
    watchpoints: int
    pmu_counters: int = 0
    hash: str = "sha256"

    def encode(self) -> bytes:
        """RmiRealmParams, 4096 bytes. A value that does not fit its field is ``ValueError``."""
        try:
            known = _PARAMETERS.pack(
                self.flags,
                self.ipa_width,
                self.sve_vector_length,
                self.breakpoints,
                self.watchpoints,
                self.pmu_counters,
                HASHES[self.hash],
            )
        except (struct.error, KeyError) as error:
            raise ValueError("a parameter of the realm that its field cannot hold") from error
        return known.ljust(GRANULE, b"\0")


class RealmMeasurement:
    """The measurements of one realm as it is made. Each method is one call that the monitor measures, in that order."""

    def __init__(self, parameters: RealmParameters) -> None:
        """RMI_REALM_CREATE."""
        encoded = parameters.encode()
        self._hash = parameters.hash
        self._rim = self._digest(encoded)
        self._registers = [bytes(len(self._rim))] * REGISTERS

    @property
    def initial(self) -> bytes:
        """The RIM so far: 32 bytes for SHA-256, 64 for SHA-512."""
        return self._rim

    @property
    def extensible(self) -> tuple[bytes, ...]:
        """The four REMs so far."""
        return tuple(self._registers)

    def data(self, address: int, content: bytes, *, measured: bool = True) -> None:
        """RMI_DATA_CREATE for each granule of ``content``, which is whole granules. Unmeasured: only where, not what."""
        _check(address, len(content))
        for offset in range(0, len(content), GRANULE):
            digest = self._digest(content[offset : offset + GRANULE]) if measured else b""
            told = struct.pack("<QQ64s", address + offset, _MEASURE_CONTENT if measured else 0, digest)
            self._chain(_DATA, told)

    def ram(self, base: int, top: int) -> None:
        """RMI_RTT_INIT_RIPAS, as the monitor measures it: one call for each entry of the translation table that it covers."""
        _check(base, top - base)
        self._chain(_RIPAS, struct.pack("<QQ", base, top))

    def cpu(self, entry: int, registers: Sequence[int] = (), *, runnable: bool = True) -> None:
        """RMI_REC_CREATE: a virtual CPU that begins at ``entry`` with up to eight general registers set."""
        if len(registers) > 8:
            raise ValueError("eight general registers are given at most")
        parameters = bytearray(GRANULE)
        try:
            struct.pack_into("<Q", parameters, 0x000, _RUNNABLE if runnable else 0)
            struct.pack_into("<Q", parameters, 0x200, entry)
            struct.pack_into(f"<{len(registers)}Q", parameters, 0x300, *registers)
        except struct.error as error:
            raise ValueError("a register has 64 bits") from error
        self._chain(_REC, self._digest(bytes(parameters)).ljust(_FIELD, b"\0"))

    def extend(self, register: int, value: bytes) -> None:
        """RSI_MEASUREMENT_EXTEND of REM 0 to 3 with 1 to 64 bytes: the hash of the register and the value."""
        if not 0 <= register < REGISTERS or not 1 <= len(value) <= _FIELD:
            raise ValueError("a realm extends registers 0 to 3 by 1 to 64 bytes")
        self._registers[register] = self._digest(self._registers[register] + value)

    def _chain(self, kind: int, told: bytes) -> None:
        descriptor = _HEAD.pack(kind, _DESCRIPTOR_SIZE, self._rim) + told
        self._rim = self._digest(descriptor.ljust(_DESCRIPTOR_SIZE, b"\0"))

    def _digest(self, data: bytes) -> bytes:
        return hashlib.new(self._hash, data).digest()


def _check(base: int, size: int) -> None:
    if base < 0 or size <= 0 or base % GRANULE or size % GRANULE or base + size > _MAX_ADDRESS:
        raise DocumentInvalid(
            "memory of a realm is whole granules of 4096 bytes",
            code="cca_granules",
            tee="cca",
            field="address",
            got=f"{base:#x}, {size:#x} bytes",
            spec=SPEC,
        )
