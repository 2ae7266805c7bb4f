"""The state that a virtual CPU starts in, as the page that SEV-ES and SEV-SNP measure (VMSA).

AMD 24593 (APM volume 2) table B-4 gives the offsets, "processor initialization state" the values; QEMU/KVM, Amazon EC2
and Google Compute Engine each start from slightly other ones (evidence 13).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum

from adyton.errors import DocumentInvalid

PAGE = 4096
BOOT_ADDRESS = 0xFFFFFFF0


class Vmm(Enum):
    """Who starts the guest."""

    QEMU = "QEMU"
    EC2 = "ec2"
    GCE = "gce"


def _signature(family: int, model: int, stepping: int) -> int:
    """CPUID leaf 1 EAX: extended family and model in their places."""
    extended = family - 0xF
    return (extended << 20) | (model >> 4 << 16) | (0xF << 8) | ((model & 0xF) << 4) | stepping


_FAMILIES = (
    (("EPYC", "EPYC-v1", "EPYC-v2", "EPYC-IBPB", "EPYC-v3", "EPYC-v4", "EPYC-v5"), _signature(23, 1, 2)),
    (
        ("EPYC-Rome", "EPYC-Rome-v1", "EPYC-Rome-v2", "EPYC-Rome-v3", "EPYC-Rome-v4", "EPYC-Rome-v5"),
        _signature(23, 49, 0),
    ),
    (("EPYC-Milan", "EPYC-Milan-v1", "EPYC-Milan-v2", "EPYC-Milan-v3"), _signature(25, 1, 1)),
    (("EPYC-Genoa", "EPYC-Genoa-v1", "EPYC-Genoa-v2"), _signature(25, 17, 0)),
    (("EPYC-Turin", "EPYC-Turin-v1"), _signature(26, 0, 0)),
)
VCPU_TYPES = {name: signature for names, signature in _FAMILIES for name in names}


def vcpu_signature(vcpu_type: str) -> int:
    """The CPUID signature of one of QEMU's CPU models; ``DocumentInvalid`` if it is none that SEV runs on."""
    try:
        return VCPU_TYPES[vcpu_type]
    except KeyError:
        raise DocumentInvalid(
            "unknown vCPU type",
            code="vcpu_type",
            tee="snp",
            field="vcpu_type",
            expected=sorted(VCPU_TYPES),
            got=vcpu_type[:40],
            spec="evidence 13",
        ) from None


@dataclass(frozen=True, slots=True)
class _Start:
    """Where the three kinds of VMM differ: attributes of CS, SS and TR, then registers."""

    cs: int
    ss: int
    tr: int
    pat: int = 0x0007040600070406
    mxcsr: int = 0x1F80
    fcw: int = 0x37F


_STARTS = {
    Vmm.QEMU: _Start(cs=0x9B, ss=0x93, tr=0x8B),
    Vmm.EC2: _Start(cs=0x9B, ss=0x92, tr=0x83, mxcsr=0, fcw=0),
    Vmm.GCE: _Start(cs=0x9B, ss=0x93, tr=0x8B, pat=0x00070106, mxcsr=0, fcw=0),
}


def page(address: int, *, vmm: Vmm, signature: int, features: int) -> bytes:
    """The save area, 4096 bytes, of a vCPU that begins at ``address`` (below 4 GiB).

    ``signature`` is what RDX holds at the start under QEMU; ``features`` are SEV_FEATURES (0 for SEV-ES).
    """
    start = _STARTS[vmm]
    cs = 0x9A if vmm is Vmm.EC2 and address == BOOT_ADDRESS else start.cs
    rdx = signature if vmm is Vmm.QEMU else 0x600  # what a processor holds there after reset
    area = bytearray(PAGE)

    def segment(offset: int, selector: int, attributes: int, base: int = 0) -> None:
        struct.pack_into("<HHIQ", area, offset, selector, attributes, 0xFFFF, base)

    def register(offset: int, value: int) -> None:
        struct.pack_into("<Q", area, offset, value)

    segment(0x00, 0, 0x93)  # ES
    segment(0x10, 0xF000, cs, address & 0xFFFF0000)
    segment(0x20, 0, start.ss)
    segment(0x30, 0, 0x93)  # DS
    segment(0x40, 0, 0x93)  # FS
    segment(0x50, 0, 0x93)  # GS
    segment(0x60, 0, 0)  # GDTR
    segment(0x70, 0, 0x82)  # LDTR
    segment(0x80, 0, 0)  # IDTR
    segment(0x90, 0, start.tr)
    register(0xD0, 0x1000)  # EFER: SVME
    register(0x148, 0x40)  # CR4: MCE
    register(0x158, 0x10)  # CR0: ET
    register(0x160, 0x400)  # DR7
    register(0x168, 0xFFFF0FF0)  # DR6
    register(0x170, 0x2)  # RFLAGS
    register(0x178, address & 0xFFFF)  # RIP
    register(0x268, start.pat)
    register(0x310, rdx)
    register(0x3B0, features)
    register(0x3E8, 0x1)  # XCR0
    struct.pack_into("<I", area, 0x408, start.mxcsr)
    struct.pack_into("<H", area, 0x410, start.fcw)
    return bytes(area)
