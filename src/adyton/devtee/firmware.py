"""The firmware of development guests: tables only, so that SNP's own algorithm can measure a direct boot.

A development instance boots without firmware; its launch digest is computed as QEMU's direct kernel boot would give it
(design 5; ``evidence`` 13): this image, then zeroed memory, secrets, CPUID and the page with the SHA-256 of kernel,
initrd and command line, then one vCPU. Debian's OVMF has no place for those hashes, so it cannot be used for this.
"""

from __future__ import annotations

import hashlib

from adyton.tee.snp.firmware import PAGE, Section, SectionKind, write
from adyton.tee.snp.measure import KernelHashes, launch_digest

COMMAND_LINE = "adyton"
VCPUS = 1
VCPU_TYPE = "EPYC-Genoa"
GUEST_FEATURES = 0x1

_MEMORY = 0x800000
_HASHES = 0x810000
_SECTIONS = (
    Section(SectionKind.MEMORY, _MEMORY, 0xD * PAGE),
    Section(SectionKind.SECRETS, _MEMORY + 0xD * PAGE, PAGE),
    Section(SectionKind.CPUID, _MEMORY + 0xE * PAGE, PAGE),
    Section(SectionKind.KERNEL_HASHES, _HASHES, PAGE),
)


def firmware() -> bytes:
    """The image, one page; always the same."""
    return write(_SECTIONS, hash_table=_HASHES + 0xC00, reset_address=0x80B004)


def measurement(launcher: bytes, guest_sha256: bytes) -> bytes:
    """MEASUREMENT of an instance, 48 bytes: ``launcher`` is its kernel, ``guest_sha256`` the digest of its initrd."""
    hashes = KernelHashes.precomputed(
        kernel=hashlib.sha256(launcher).digest(), initrd=guest_sha256, cmdline=COMMAND_LINE
    )
    return launch_digest(
        firmware=firmware(),
        kernel_hashes=hashes,
        vcpus=VCPUS,
        vcpu_type=VCPU_TYPE,
        guest_features=GUEST_FEATURES,
    )
