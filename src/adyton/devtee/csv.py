"""Hygon CSV evidence that is right, or wrong on purpose, under a root of our own making (evidence 10).

Written apart from the parser in ``tee/csv``: a mistake in one of them shows when the other reads it. A ``CsvForge`` holds
HRK, HSK, CEK, PEK and OCA; every field of a report and of a certificate can be set, also to what no firmware would write.
"""

from __future__ import annotations

import secrets
import struct
from dataclasses import dataclass, field, replace

from adyton.crypto.sm2 import hmac_sm3
from adyton.devtee.sm2 import SigningKey

HRK, HSK, OCA, PEK, CEK = 0, 0x13, 0x1001, 0x1002, 0x1004
SM2 = 4
EMPTY_SLOT = struct.pack("<II", 0x1000, 0) + bytes(512)
POLICY = 0x01  # NODBG
MAGIC = b"ATTESTATION_EXT\0"


@dataclass(frozen=True, slots=True)
class Holder:
    """A key, what it is for, and the id that goes into SM2's Z value. ``key_id``: 16 bytes, of authorities."""

    usage: int
    user_id: bytes
    key: SigningKey = field(default_factory=SigningKey.new)
    key_id: bytes = field(default_factory=lambda: secrets.token_bytes(16))

    def signature(self, data: bytes) -> bytes:
        """Over ``data``: r and s in 72 bytes each, little-endian."""
        r, s = self.key.sign(data, user_id=self.user_id)
        return r.to_bytes(72, "little") + s.to_bytes(72, "little")

    def slot(self, data: bytes, *, usage: int | None = None, algorithm: int = SM2) -> bytes:
        """A signature slot of a chip's certificate, 520 bytes."""
        head = struct.pack("<II", self.usage if usage is None else usage, algorithm)
        return (head + self.signature(data)).ljust(520, b"\0")


def authority(subject: Holder, issuer: Holder, *, version: int = 1, curve: int = 3, usage: int | None = None) -> bytes:
    """An HRK's or HSK's certificate, 832 bytes."""
    body = struct.pack("<I", version) + subject.key_id + issuer.key_id
    body += struct.pack("<I", subject.usage if usage is None else usage) + bytes(24)
    body = (body + _public(subject, curve)).ljust(576, b"\0")
    return (body + issuer.signature(body)).ljust(832, b"\0")


def chip(
    subject: Holder,
    *issuers: Holder,
    version: int = 1,
    api: tuple[int, int] = (1, 3),
    curve: int = 3,
    algorithm: int = SM2,
    usage: int | None = None,
) -> bytes:
    """A CEK's, PEK's or OCA's certificate, 2084 bytes, signed by up to two issuers."""
    body = struct.pack("<IBBHII", version, *api, 0, subject.usage if usage is None else usage, algorithm)
    body += _public(subject, curve)
    named = issuers[0].key_id if issuers and issuers[0].usage == HSK else bytes(16)
    body = (body + named).ljust(1044, b"\0")
    slots = [issuer.slot(body) for issuer in issuers] + [EMPTY_SLOT, EMPTY_SLOT]
    return body + slots[0] + slots[1]


def _public(subject: Holder, curve: int) -> bytes:
    x, y = subject.key.point
    key = struct.pack("<I", curve) + x.to_bytes(72, "little") + y.to_bytes(72, "little")
    return key + struct.pack("<H", len(subject.user_id)) + subject.user_id.ljust(254, b"\0")


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvFields:
    """What a report says. ``anonce`` is 4 bytes (version 1), ``registers`` are RTMR0 to RTMR4 (version 2)."""

    version: int = 1
    user_pubkey_digest: bytes = bytes(32)
    vm_id: bytes = bytes(16)
    vm_version: bytes = bytes(16)
    report_data: bytes = bytes(64)
    mnonce: bytes = bytes(range(16))
    measure: bytes = b"\x5a" * 32
    policy: int = POLICY
    usage: int = PEK
    algorithm: int = SM2
    anonce: bytes = b"\x01\x23\x45\x67"
    build: int = 2068
    rtmr_version: int = 1
    registers: tuple[bytes, ...] | None = None
    serial: bytes = b"DEVTEE0001"


@dataclass(frozen=True, slots=True)
class CsvForge:
    """A chip with its keys, under an HRK of its own."""

    hrk: Holder
    hsk: Holder
    cek: Holder
    pek: Holder
    oca: Holder

    @classmethod
    def new(cls) -> CsvForge:
        """Fresh keys throughout."""
        return cls(
            *(
                Holder(usage, b"DEVTEE-" + name)
                for usage, name in ((HRK, b"HRK"), (HSK, b"HSK"), (CEK, b"CEK"), (PEK, b"PEK"), (OCA, b"OCA"))
            )
        )

    def with_chip(self) -> CsvForge:
        """Another chip under the same HSK."""
        return replace(self, cek=Holder(CEK, b"DEVTEE-CEK"), pek=Holder(PEK, b"DEVTEE-PEK"))

    @property
    def hrk_certificate(self) -> bytes:
        """832 bytes, self-signed."""
        return authority(self.hrk, self.hrk)

    @property
    def hsk_certificate(self) -> bytes:
        """832 bytes."""
        return authority(self.hsk, self.hrk)

    @property
    def cek_certificate(self) -> bytes:
        """2084 bytes."""
        return chip(self.cek, self.hsk, version=2)

    @property
    def pek_certificate(self) -> bytes:
        """2084 bytes, by CEK and OCA."""
        return chip(self.pek, self.cek, self.oca)

    @property
    def hsk_cek(self) -> bytes:
        """As the key service sends them: 832 + 2084 bytes."""
        return self.hsk_certificate + self.cek_certificate

    def report(self, fields: CsvFields | None = None, /, *, pek: bytes | None = None, **changes: object) -> bytes:
        """A signed report with its signer block: 2548 bytes in version 1, 3380 in version 2."""
        fields = replace(fields or CsvFields(), **changes)  # type: ignore[arg-type]  # checked there
        info = self.info(fields)
        block = (pek or self.pek_certificate) + fields.serial.ljust(64, b"\0") + secrets.token_bytes(32)
        if fields.version == 1:
            block = mask(block, fields.anonce)
        return info + block + hmac_sm3(fields.mnonce, block)

    def info(self, fields: CsvFields) -> bytes:
        """The TEE info alone, signed by the PEK."""
        body = (
            fields.user_pubkey_digest + fields.vm_id + fields.vm_version + fields.report_data + fields.mnonce
            + fields.measure + struct.pack("<III", fields.policy, fields.usage, fields.algorithm)
        )  # fmt: skip
        if len(body) != 188:
            raise ValueError("a field of the report has the wrong length")
        if fields.version == 1:
            masked = mask(body, fields.anonce)
            return masked + fields.anonce + self.pek.signature(masked[:180])
        registers = fields.registers if fields.registers is not None else (fields.measure, *[bytes(32)] * 4)
        body += struct.pack("<IH14x", fields.build, fields.rtmr_version) + b"".join(registers) + bytes(656)
        return body + self.pek.signature(body)


def page(report: bytes) -> bytes:
    """A report as the guest's driver hands it out: zeros up to 4096 bytes."""
    return report.ljust(4096, b"\0")


def wrapped(report: bytes, *, magic: bytes | None = None, flags: int | None = None) -> bytes:
    """A report behind the marks that tell its version: 4116 bytes."""
    extended = len(report) > 2548
    return (
        (MAGIC if magic is None else magic)
        + struct.pack("<I", int(extended) if flags is None else flags)
        + page(report)
    )


def mask(data: bytes, anonce: bytes) -> bytes:
    """``data`` XOR ``anonce``, repeated. Unmasking is the same."""
    return bytes(byte ^ anonce[index % 4] for index, byte in enumerate(data))


def shifted(report: bytes, delta: bytes) -> bytes:
    """A version 1 report with every unmasked field XORed with ``delta`` (4 bytes), its signature and MAC still good.

    What anyone on the way can do: change ``anonce``, mask usage, algorithm and signer block anew, and key the MAC with the
    mnonce that the report now shows.
    """
    anonce = mask(report[188:192], delta)
    usage = mask(report[180:188], delta)
    info = report[:180] + usage + anonce + report[192:336]
    block = mask(report[336:2516], delta)
    return info + block + hmac_sm3(mask(report[128:144], anonce), block)
