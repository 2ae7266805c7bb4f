"""Development guests are measured by SNP's own algorithm, every part of the launch with its own effect."""

from __future__ import annotations

import hashlib

from adyton.devtee import firmware
from adyton.tee.snp import firmware as tables
from adyton.tee.snp.firmware import SectionKind
from adyton.tee.snp.measure import launch_digest


def test_each_part_of_a_launch_changes_the_measurement() -> None:
    initrd = hashlib.sha256(b"guest").digest()
    values = {
        firmware.measurement(b"launcher", initrd),
        firmware.measurement(b"launcher ", initrd),
        firmware.measurement(b"launcher", hashlib.sha256(b"other guest").digest()),
    }
    assert len(values) == 3
    assert all(len(value) == 48 for value in values)


def test_it_is_the_digest_of_a_direct_boot() -> None:
    parts = {"firmware": firmware.firmware(), "kernel": b"launcher", "initrd": b"guest", "cmdline": "adyton"}
    expected = launch_digest(**parts, vcpus=1, vcpu_type="EPYC-Genoa", guest_features=1)  # type: ignore[arg-type]
    assert firmware.measurement(b"launcher", hashlib.sha256(b"guest").digest()) == expected


def test_the_firmware_is_one_page_with_a_place_for_the_hashes() -> None:
    image = firmware.firmware()
    assert image == firmware.firmware()
    assert len(image) == 4096
    parsed = tables.parse(image)
    kinds = [section.kind for section in parsed.sections]
    assert kinds == [SectionKind.MEMORY, SectionKind.SECRETS, SectionKind.CPUID, SectionKind.KERNEL_HASHES]
    assert parsed.has_kernel_hashes
