"""SNP attestation reports as a secure processor writes and signs them (56860, ATTESTATION_REPORT; ``evidence`` 4.1).

Written apart from the parser in ``tee/snp`` on purpose: a mistake in one of them shows when the other reads it. Every
field can be set, also to what no firmware would write: tests need evidence that is wrong in one place.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from adyton.devtee.certificates import Levels, Signer

REPORT_SIZE = 1184
SIGNED_SIZE = 0x2A0
POLICY_RESERVED_ONE = 1 << 17
POLICY_SMT = 1 << 16
POLICY_DEBUG = 1 << 19
POLICY = POLICY_RESERVED_ONE | POLICY_SMT
KEY_KIND = {"VCEK": 0, "VLEK": 1}
# CPUID family, model, stepping of one part of each generation
CPUID = {"Milan": (0x19, 0x01, 1), "Genoa": (0x19, 0x11, 1), "Siena": (0x19, 0xA0, 2), "Turin": (0x1A, 0x02, 1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFields:
    """What a report says, under AMD's names. ``None``: what the signer's certificate makes true.

    TCB versions are ``Levels`` or 8 raw bytes; firmware versions are (major, minor, build). Reserved bytes are zero.
    """

    report_data: bytes = bytes(64)
    measurement: bytes = bytes(48)
    host_data: bytes = bytes(32)
    version: int = 5
    guest_svn: int = 0
    policy: int = POLICY
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    vmpl: int = 0
    signature_algo: int = 1
    platform_info: int = 0x25  # SMT, ECC, alias check complete
    author_key_enabled: bool = False
    mask_chip_key: bool = False
    signing_key: int | None = None
    id_key_digest: bytes = bytes(48)
    author_key_digest: bytes = bytes(48)
    report_id: bytes = bytes(32)
    report_id_ma: bytes = b"\xff" * 32
    current_tcb: Levels | bytes | None = None
    committed_tcb: Levels | bytes | None = None
    reported_tcb: Levels | bytes | None = None
    launch_tcb: Levels | bytes | None = None
    cpuid: tuple[int, int, int] | None = None
    chip_id: bytes | None = None
    current_version: tuple[int, int, int] = (1, 55, 43)
    committed_version: tuple[int, int, int] = (1, 55, 43)
    launch_mit_vector: int = 1
    current_mit_vector: int = 1


def issue_report(signer: Signer, fields: ReportFields) -> bytes:
    """A signed report, 1184 bytes."""
    return sign(signer.key, body(signer, fields))


def body(signer: Signer, fields: ReportFields) -> bytes:
    """The signed part, 0x2A0 bytes. A value of the wrong length is ``ValueError``."""

    def tcb(value: Levels | bytes | None) -> bytes:
        if isinstance(value, bytes):
            return _sized("tcb", value, 8)
        return (value or signer.levels).encode(signer.product)

    key = fields.signing_key if fields.signing_key is not None else KEY_KIND[signer.kind]
    chip = fields.chip_id if fields.chip_id is not None else signer.chip_id
    if fields.mask_chip_key and fields.chip_id is None:
        chip = b""
    if signer.product == "Turin" and fields.chip_id is None:
        chip = chip[:8]
    out = bytearray(SIGNED_SIZE)
    struct.pack_into("<IIQ", out, 0x00, fields.version, fields.guest_svn, fields.policy)
    out[0x10:0x20] = _sized("family_id", fields.family_id, 16)
    out[0x20:0x30] = _sized("image_id", fields.image_id, 16)
    struct.pack_into("<II", out, 0x30, fields.vmpl, fields.signature_algo)
    out[0x38:0x40] = tcb(fields.current_tcb)
    key_info = int(fields.author_key_enabled) | int(fields.mask_chip_key) << 1 | key << 2
    struct.pack_into("<QI", out, 0x40, fields.platform_info, key_info)
    out[0x50:0x90] = _sized("report_data", fields.report_data, 64)
    out[0x90:0xC0] = _sized("measurement", fields.measurement, 48)
    out[0xC0:0xE0] = _sized("host_data", fields.host_data, 32)
    out[0xE0:0x110] = _sized("id_key_digest", fields.id_key_digest, 48)
    out[0x110:0x140] = _sized("author_key_digest", fields.author_key_digest, 48)
    out[0x140:0x160] = _sized("report_id", fields.report_id, 32)
    out[0x160:0x180] = _sized("report_id_ma", fields.report_id_ma, 32)
    out[0x180:0x188] = tcb(fields.reported_tcb)
    if fields.version >= 3:
        out[0x188:0x18B] = bytes(fields.cpuid if fields.cpuid is not None else CPUID[signer.product])
    out[0x1A0:0x1E0] = _sized("chip_id", chip.ljust(64, b"\0"), 64)
    out[0x1E0:0x1E8] = tcb(fields.committed_tcb)
    out[0x1E8:0x1EB] = bytes(reversed(fields.current_version))  # build, minor, major
    out[0x1EC:0x1EF] = bytes(reversed(fields.committed_version))
    out[0x1F0:0x1F8] = tcb(fields.launch_tcb)
    if fields.version >= 4:
        struct.pack_into("<QQ", out, 0x1F8, fields.launch_mit_vector, fields.current_mit_vector)
    return bytes(out)


def sign(key: ec.EllipticCurvePrivateKey, signed: bytes) -> bytes:
    """``signed`` with its signature: r and s little-endian in 72 bytes each, the rest of 512 bytes zero."""
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(SHA384())))
    return signed + (r.to_bytes(72, "little") + s.to_bytes(72, "little")).ljust(512, b"\0")


def _sized(name: str, value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise ValueError(f"{name} has {size} bytes")
    return value
