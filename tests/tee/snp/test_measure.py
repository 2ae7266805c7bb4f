from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.errors import DocumentInvalid
from adyton.tee.snp import firmware as fw
from adyton.tee.snp.firmware import PAGE, Section, SectionKind
from adyton.tee.snp.measure import KernelHashes, launch_digest, sev_launch_digest
from adyton.tee.snp.vmsa import VCPU_TYPES, Vmm, page, vcpu_signature

SECTIONS = (
    Section(SectionKind.MEMORY, 0x800000, 2 * PAGE),
    Section(SectionKind.SECRETS, 0x810000, PAGE),
    Section(SectionKind.CPUID, 0x811000, PAGE),
    Section(SectionKind.KERNEL_HASHES, 0x812000, PAGE),
)
IMAGE = fw.write(SECTIONS, hash_table=0x812C00, reset_address=0x80B004)
BOOT: dict[str, Any] = {
    "firmware": IMAGE,
    "kernel": b"kernel",
    "initrd": b"initrd",
    "cmdline": "adyton",
    "vcpus": 2,
    "vcpu_type": "EPYC-Genoa",
    "guest_features": 1,
}


def test_what_is_written_is_read() -> None:
    image = fw.parse(IMAGE)
    assert image.sections == SECTIONS
    assert (image.hash_table, image.reset_address, image.address) == (0x812C00, 0x80B004, 2**32 - PAGE)
    with pytest.raises(ValueError, match="too many"):
        fw.write(SECTIONS * 100, hash_table=0, reset_address=0)


def test_everything_that_is_measured_changes_the_digest() -> None:
    base = launch_digest(**BOOT)
    assert len(base) == 48
    other = fw.write(
        (*SECTIONS[:3], Section(SectionKind.KERNEL_HASHES, 0x813000, PAGE)),
        hash_table=0x813C00,
        reset_address=0x80B004,
    )
    changes: list[dict[str, Any]] = [
        {"kernel": b"Kernel"},
        {"initrd": b"Initrd"},
        {"initrd": None},
        {"cmdline": "adyton debug"},
        {"cmdline": ""},
        {"vcpus": 1},
        {"vcpus": 3},
        {"vcpu_type": "EPYC-Milan"},
        {"guest_features": 0x21},
        {"vmm": Vmm.EC2},
        {"vmm": Vmm.GCE},
        {"firmware": other},
        {"firmware": IMAGE[:100] + b"\1" + IMAGE[101:]},
        {"kernel": None, "initrd": None, "cmdline": ""},
    ]
    digests = {launch_digest(**(BOOT | change)) for change in changes}
    assert len(digests) == len(changes)
    assert base not in digests
    assert launch_digest(**BOOT) == base


def test_every_vcpu_type_is_measured() -> None:
    assert len({launch_digest(**(BOOT | {"vcpu_type": name})) for name in VCPU_TYPES}) == len(set(VCPU_TYPES.values()))
    assert vcpu_signature("EPYC-Turin") == 0xB00F00
    # what EC2 and GCE do not measure
    assert launch_digest(**(BOOT | {"vmm": Vmm.GCE, "vcpu_type": None})) == launch_digest(**(BOOT | {"vmm": Vmm.GCE}))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"vcpus": 0}, "vcpus"),
        ({"vcpus": 4097}, "vcpus"),
        ({"vcpu_type": "Xeon"}, "vcpu_type"),
        ({"vcpu_type": None}, "vcpu_type"),
        ({"guest_features": -1}, "guest_features"),
        ({"guest_features": 2**64}, "guest_features"),
        ({"cmdline": "a\0b"}, "cmdline"),
        ({"kernel": None}, "kernel_missing"),
        ({"firmware": b""}, "firmware_size"),
        ({"firmware": bytes(PAGE + 1)}, "firmware_size"),
        ({"firmware": bytes(PAGE)}, "firmware_table_missing"),
        (
            {"firmware": fw.write(SECTIONS[:3], hash_table=0x812C00, reset_address=1)},
            "firmware_lacks_kernel_hashes_section",
        ),
        ({"firmware": fw.write(SECTIONS, hash_table=0x900000, reset_address=1)}, "firmware_hash_table"),
        ({"firmware": fw.write(SECTIONS, hash_table=0, reset_address=1)}, "firmware_hash_table"),
    ],
)
def test_what_cannot_be_measured(change: dict[str, Any], code: str) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        launch_digest(**(BOOT | change))
    assert caught.value.code == code


def test_hashes_or_contents() -> None:
    hashes = KernelHashes.of(kernel=b"kernel", initrd=b"initrd", cmdline="adyton")
    common = {name: value for name, value in BOOT.items() if name not in {"kernel", "initrd", "cmdline"}}
    assert launch_digest(**common, kernel_hashes=hashes) == launch_digest(**BOOT)
    with pytest.raises(ValueError, match="either"):
        launch_digest(**BOOT, kernel_hashes=hashes)
    with pytest.raises(ValueError, match="32 bytes"):
        KernelHashes(b"", b"", b"")


def test_sev_and_sev_es() -> None:
    common: dict[str, Any] = {"firmware": IMAGE, "kernel": b"kernel"}
    sev = sev_launch_digest(**common, encrypted_state=False)
    es = sev_launch_digest(**common, encrypted_state=True, vcpu_type="EPYC-v4")
    assert (len(sev), len(es)) == (32, 32)
    assert sev != es
    with pytest.raises(DocumentInvalid):
        sev_launch_digest(**common, encrypted_state=True)
    with pytest.raises(DocumentInvalid):
        sev_launch_digest(firmware=fw.write((), hash_table=0, reset_address=1), kernel=b"k", encrypted_state=False)


def test_a_save_area_is_a_page() -> None:
    areas = {page(0x80B004, vmm=vmm, signature=0xA10F10, features=1) for vmm in Vmm}
    assert len(areas) == 3
    assert all(len(area) == PAGE for area in areas)


def test_every_broken_byte_of_the_tables_is_read_or_refused() -> None:
    for position in [*range(60, 140), *range(PAGE - 160, PAGE - 32)]:
        for value in (0, 0xFF, IMAGE[position] ^ 1):
            broken = bytearray(IMAGE)
            broken[position] = value
            with contextlib.suppress(DocumentInvalid):
                launch_digest(**(BOOT | {"firmware": bytes(broken)}))


@given(st.binary(min_size=0, max_size=256))
def test_any_tail_is_read_or_refused(tail: bytes) -> None:
    end = IMAGE[-50:]
    with contextlib.suppress(DocumentInvalid):
        fw.parse(bytes(PAGE - 50 - len(tail)) + tail + end)
