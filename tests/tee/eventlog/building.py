"""What the tests of event logs share: logs of a software TPM, and events by hand."""

from __future__ import annotations

import struct

from adyton.devtee.tpm import SoftTpm, digest

BANKS = ("sha1", "sha256", "sha384")


def booted(*, secure_boot: bytes = b"\1") -> SoftTpm:
    """A TPM without a use for its key, whose firmware has run."""
    tpm = SoftTpm(None)  # type: ignore[arg-type]  # no quote is made here
    tpm.reset(BANKS)
    tpm.boot(secure_boot=secure_boot)
    return tpm


def event(
    register: int, kind: int, data: bytes, *, bank: str = "sha384", count: int = 1, hashed: bytes | None = None
) -> bytes:
    """One event of a crypto-agile log with one digest."""
    identifier = {"sha1": 4, "sha256": 0xB, "sha384": 0xC, "sm3": 0x12}[bank]
    value = digest(bank, data if hashed is None else hashed)
    return struct.pack("<IIIH", register, kind, count, identifier) + value + struct.pack("<I", len(data)) + data


def header(*banks: tuple[int, int], register: int = 1, vendor: bytes = b"") -> bytes:
    """A header that names these algorithms with these sizes."""
    listed = b"".join(struct.pack("<HH", *bank) for bank in banks)
    body = b"Spec ID Event03\0" + bytes(8) + struct.pack("<I", len(banks)) + listed + bytes((len(vendor),)) + vendor
    return struct.pack("<II20sI", register, 3, bytes(20), len(body)) + body


SHA384_ONLY = header((0xC, 48))
