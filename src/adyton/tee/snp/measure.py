"""Launch measurements: what MEASUREMENT must be, computed from what a guest is started with (evidence 13).

SEV-SNP: a chain of SHA-384 over the pages that the VMM loads, in its order: firmware, the sections of its metadata
(among them the hashes of kernel, initrd and command line), one save area for each vCPU. SEV and SEV-ES: one SHA-256.
Kernel and initrd enter as their SHA-256 only, so a caller may hash a large guest once, streaming, and hand in that.

    >>> KernelHashes.of(kernel=b"", initrd=b"", cmdline="") == KernelHashes.of(kernel=b"", initrd=None, cmdline="")
    True
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from dataclasses import dataclass
from functools import lru_cache

from adyton.errors import DocumentInvalid
from adyton.tee.snp import firmware as fw
from adyton.tee.snp.firmware import PAGE, Firmware, Section, SectionKind
from adyton.tee.snp.vmsa import BOOT_ADDRESS, Vmm, page, vcpu_signature

SPEC = "AMD 56860 SNP_LAUNCH_UPDATE; evidence 13"
MAX_VCPUS = 4096
VMSA_ADDRESS = 0xFFFFFFFFF000

_NORMAL, _VMSA, _ZERO, _UNMEASURED, _SECRETS, _CPUID = 1, 2, 3, 4, 5, 6
_PAGE_INFO = struct.Struct("<48s48sHBBBBBBQ")
_ZEROS = bytes(48)

_TABLE = uuid.UUID("9438d606-4f22-4cc9-b479-a793d411fd21").bytes_le
_CMDLINE = uuid.UUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a").bytes_le
_INITRD = uuid.UUID("44baf731-3a2f-4bd7-9af1-41e29169781d").bytes_le
_KERNEL = uuid.UUID("4de79437-abd2-427f-b835-d5b172d2045b").bytes_le
_TABLE_SIZE = 176  # 18 of header, three entries of 50, filled up to 16


@dataclass(frozen=True, slots=True)
class KernelHashes:
    """SHA-256 of the three things that a directly booted guest starts with, 32 bytes each."""

    kernel: bytes
    initrd: bytes
    cmdline: bytes

    def __post_init__(self) -> None:
        if any(len(value) != 32 for value in (self.kernel, self.initrd, self.cmdline)):
            raise ValueError("a SHA-256 has 32 bytes")

    @classmethod
    def of(cls, *, kernel: bytes, initrd: bytes | None, cmdline: str) -> KernelHashes:
        """From the contents. QEMU hashes the command line with its closing NUL, and no initrd as an empty one."""
        return cls.precomputed(
            kernel=hashlib.sha256(kernel).digest(), initrd=hashlib.sha256(initrd or b"").digest(), cmdline=cmdline
        )

    @classmethod
    def precomputed(cls, *, kernel: bytes, initrd: bytes, cmdline: str) -> KernelHashes:
        """From the SHA-256 of kernel and initrd, as a caller that streams them has them."""
        if "\0" in cmdline:
            raise DocumentInvalid("a kernel command line holds no NUL", code="cmdline", tee="snp", field="cmdline")
        return cls(kernel=kernel, initrd=initrd, cmdline=hashlib.sha256(cmdline.encode("utf-8") + b"\0").digest())

    def table(self) -> bytes:
        """The table as the VMM lays it into memory, 176 bytes."""
        entries = b"".join(
            struct.pack("<16sH", guid, 50) + digest
            for guid, digest in ((_CMDLINE, self.cmdline), (_INITRD, self.initrd), (_KERNEL, self.kernel))
        )
        return (struct.pack("<16sH", _TABLE, 18 + len(entries)) + entries).ljust(_TABLE_SIZE, b"\0")


def launch_digest(
    *,
    firmware: bytes,
    kernel: bytes | None = None,
    initrd: bytes | None = None,
    cmdline: str = "",
    kernel_hashes: KernelHashes | None = None,
    vcpus: int,
    vcpu_type: str | None,
    guest_features: int,
    vmm: Vmm = Vmm.QEMU,
) -> bytes:
    """SEV-SNP's MEASUREMENT, 48 bytes. ``kernel_hashes`` instead of ``kernel``, ``initrd`` and ``cmdline``.

    ``vcpu_type`` is one of QEMU's CPU models; EC2 and GCE do not measure it and take ``None``. ``guest_features`` is
    SEV_FEATURES: bit 0 SNP, bit 5 debug swap. ``DocumentInvalid`` if the firmware has no place for kernel hashes, or
    anything else cannot be measured.
    """
    hashes = _hashes(kernel, initrd, cmdline, kernel_hashes)
    signature = _signature(vcpu_type, vmm)
    _check(vcpus, guest_features)
    image = fw.parse(firmware)
    if hashes is not None and not image.has_kernel_hashes:
        raise DocumentInvalid(
            "this firmware has no section for the kernel's hashes: a kernel could be exchanged unseen",
            code="firmware_lacks_kernel_hashes_section",
            tee="snp",
            spec=SPEC,
            hint="use a firmware built for measured direct boot, such as OVMF's AmdSev package",
        )
    chain = _Chain(_firmware_digest(firmware))
    for section in image.sections:
        _load(chain, section, image, hashes, vmm)
    if vmm is Vmm.EC2:  # which loads its CPUID pages last
        for section in image.sections:
            if section.kind is SectionKind.CPUID:
                chain.page(_CPUID, section.address)
    for contents in _save_areas(image, vcpus, vmm=vmm, signature=signature, features=guest_features):
        chain.page(_VMSA, VMSA_ADDRESS, contents)
    return chain.value


class _Chain:
    """LD := SHA-384(LD, contents, 0x70, type, IMI 0, VMPL permissions 0, 0, 0, reserved 0, address)."""

    __slots__ = ("value",)

    def __init__(self, value: bytes = _ZEROS) -> None:
        self.value = value

    def page(self, kind: int, address: int, contents: bytes = _ZEROS) -> None:
        """Load one page; ``contents`` is its SHA-384, or zeros for kinds whose contents are not the host's."""
        self.value = hashlib.sha384(
            _PAGE_INFO.pack(self.value, contents, _PAGE_INFO.size, kind, 0, 0, 0, 0, 0, address)
        ).digest()

    def pages(self, kind: int, section: Section) -> None:
        """Load a range of pages without contents."""
        for address in range(section.address, section.address + section.size, PAGE):
            self.page(kind, address)


@lru_cache(maxsize=8)
def _firmware_digest(image: bytes) -> bytes:
    """The chain after the firmware. Most of the work, and the same for every guest that starts with it."""
    chain = _Chain()
    base = fw.FOUR_GIB - len(image)
    for offset in range(0, len(image), PAGE):
        chain.page(_NORMAL, base + offset, hashlib.sha384(image[offset : offset + PAGE]).digest())
    return chain.value


def _load(chain: _Chain, section: Section, image: Firmware, hashes: KernelHashes | None, vmm: Vmm) -> None:
    if section.kind is SectionKind.MEMORY:
        chain.pages(_UNMEASURED if vmm is Vmm.GCE else _ZERO, section)
    elif section.kind is SectionKind.SECRETS:
        chain.page(_SECRETS, section.address)
    elif section.kind is SectionKind.CPUID:
        if vmm is not Vmm.EC2:
            chain.page(_CPUID, section.address)
    elif section.kind is SectionKind.KERNEL_HASHES and hashes is not None:
        chain.page(_NORMAL, section.address, hashlib.sha384(_hash_page(section, image, hashes)).digest())
    else:
        chain.pages(_ZERO, section)


def _hash_page(section: Section, image: Firmware, hashes: KernelHashes) -> bytes:
    offset = (image.hash_table or 0) - section.address
    if image.hash_table is None or section.size != PAGE or not 0 <= offset <= PAGE - _TABLE_SIZE:
        raise DocumentInvalid(
            "the firmware's place for kernel hashes lies outside its section",
            code="firmware_hash_table",
            tee="snp",
            spec=SPEC,
        )
    return (bytes(offset) + hashes.table()).ljust(PAGE, b"\0")


def _save_areas(image: Firmware, vcpus: int, *, vmm: Vmm, signature: int, features: int) -> list[bytes]:
    """SHA-384 of each vCPU's save area, the boot processor first."""
    first = hashlib.sha384(page(BOOT_ADDRESS, vmm=vmm, signature=signature, features=features)).digest()
    if vcpus == 1:
        return [first]
    other = page(_reset_address(image), vmm=vmm, signature=signature, features=features)
    return [first] + [hashlib.sha384(other).digest()] * (vcpus - 1)


def _reset_address(image: Firmware) -> int:
    if image.reset_address is None:
        raise DocumentInvalid(
            "this firmware does not say where further vCPUs begin", code="firmware_reset_block", tee="snp", spec=SPEC
        )
    return image.reset_address


def sev_launch_digest(
    *,
    firmware: bytes,
    kernel: bytes | None = None,
    initrd: bytes | None = None,
    cmdline: str = "",
    kernel_hashes: KernelHashes | None = None,
    vcpus: int = 1,
    vcpu_type: str | None = None,
    encrypted_state: bool,
) -> bytes:
    """The digest of SEV (``encrypted_state`` false) or SEV-ES under QEMU, 32 bytes. Adyton verifies neither's evidence."""
    hashes = _hashes(kernel, initrd, cmdline, kernel_hashes)
    image = fw.parse(firmware)
    if hashes is not None and image.hash_table is None:
        raise DocumentInvalid(
            "this firmware has no place for the kernel's hashes",
            code="firmware_lacks_kernel_hashes_section",
            tee="snp",
            spec=SPEC,
        )
    digest = hashlib.sha256(firmware)
    if hashes is not None:
        digest.update(hashes.table())
    if encrypted_state:
        _check(vcpus, 0)
        signature = _signature(vcpu_type, Vmm.QEMU)
        digest.update(page(BOOT_ADDRESS, vmm=Vmm.QEMU, signature=signature, features=0))
        for _ in range(vcpus - 1):
            digest.update(page(_reset_address(image), vmm=Vmm.QEMU, signature=signature, features=0))
    return digest.digest()


def _hashes(
    kernel: bytes | None, initrd: bytes | None, cmdline: str, precomputed: KernelHashes | None
) -> KernelHashes | None:
    if precomputed is not None:
        if kernel is not None or initrd is not None or cmdline:
            raise ValueError("either kernel_hashes or kernel, initrd and cmdline")
        return precomputed
    if kernel is None:
        if initrd is not None or cmdline:
            raise DocumentInvalid(
                "an initrd or a command line without a kernel is not measured",
                code="kernel_missing",
                tee="snp",
                field="kernel",
                spec=SPEC,
            )
        return None
    return KernelHashes.of(kernel=kernel, initrd=initrd, cmdline=cmdline)


def _signature(vcpu_type: str | None, vmm: Vmm) -> int:
    if vcpu_type is not None:
        return vcpu_signature(vcpu_type)
    if vmm is Vmm.QEMU:
        raise DocumentInvalid(
            "QEMU measures the vCPU's type", code="vcpu_type", tee="snp", field="vcpu_type", spec=SPEC
        )
    return 0


def _check(vcpus: int, guest_features: int) -> None:
    if not 1 <= vcpus <= MAX_VCPUS:
        raise DocumentInvalid(
            "number of vCPUs out of range",
            code="vcpus",
            tee="snp",
            field="vcpus",
            expected=f"1 to {MAX_VCPUS}",
            got=vcpus,
        )
    if not 0 <= guest_features < 1 << 64:
        raise DocumentInvalid(
            "guest features have 64 bits", code="guest_features", tee="snp", field="guest_features", got=guest_features
        )
