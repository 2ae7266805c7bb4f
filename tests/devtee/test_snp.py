"""Reports as the secure processor writes them: layout against literal offsets, signatures against pyca."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from adyton.devtee.certificates import Levels, make_leaf
from adyton.devtee.forge import Forge, break_signatures, flip
from adyton.devtee.snp import REPORT_SIZE, SIGNED_SIZE, ReportFields, issue_report


def verifies(report: bytes, key: ec.EllipticCurvePublicKey) -> bool:
    r, s = (int.from_bytes(report[at : at + 72], "little") for at in (0x2A0, 0x2E8))
    try:
        key.verify(encode_dss_signature(r, s), report[:SIGNED_SIZE], ec.ECDSA(SHA384()))
    except (InvalidSignature, ValueError):
        return False
    return True


@pytest.mark.parametrize(
    ("name", "size"),
    [("report_data", 64), ("measurement", 48), ("host_data", 32), ("family_id", 16), ("report_id", 32)],
)
@pytest.mark.parametrize("off", [-1, 1])
def test_a_field_of_the_wrong_length_is_misuse(forge: Forge, name: str, size: int, off: int) -> None:
    with pytest.raises(ValueError, match=name):
        forge.report(**{name: bytes(size + off)})


def test_every_broken_signature_is_broken(forge: Forge) -> None:
    report = forge.report()
    for name, broken in break_signatures(report).items():
        assert len(broken) == REPORT_SIZE, name
        assert broken[:SIGNED_SIZE] == report[:SIGNED_SIZE], name
        assert not verifies(broken, forge.signer.key.public_key()), name


def test_any_flipped_bit_of_the_signed_part_is_noticed(forge: Forge) -> None:
    report = forge.report()
    for bit in range(0, SIGNED_SIZE * 8, 97):
        assert not verifies(flip(report, bit), forge.signer.key.public_key())


def test_fields_lie_where_amd_puts_them(forge: Forge) -> None:
    fields = ReportFields(
        version=5,
        guest_svn=7,
        policy=0x123456789,
        family_id=os.urandom(16),
        image_id=os.urandom(16),
        vmpl=2,
        platform_info=0x27,
        author_key_enabled=True,
        report_data=os.urandom(64),
        measurement=os.urandom(48),
        host_data=os.urandom(32),
        id_key_digest=os.urandom(48),
        author_key_digest=os.urandom(48),
        report_id=os.urandom(32),
        report_id_ma=os.urandom(32),
        current_tcb=Levels(4, 3, 2, 1),
        committed_tcb=Levels(3, 3, 2, 1),
        reported_tcb=Levels(2, 3, 2, 1),
        launch_tcb=Levels(1, 3, 2, 1),
        cpuid=(0x19, 0xA0, 2),
        chip_id=os.urandom(64),
        current_version=(1, 55, 43),
        committed_version=(1, 54, 41),
        launch_mit_vector=0x11,
        current_mit_vector=0x22,
    )
    report = issue_report(forge.signer, fields)
    assert len(report) == REPORT_SIZE
    assert verifies(report, forge.signer.key.public_key())
    assert struct.unpack_from("<IIQ", report, 0) == (5, 7, 0x123456789)
    assert report[0x10:0x20] == fields.family_id
    assert report[0x20:0x30] == fields.image_id
    assert struct.unpack_from("<II", report, 0x30) == (2, 1)
    assert report[0x38:0x40] == bytes((4, 3, 0, 0, 0, 0, 2, 1))
    assert struct.unpack_from("<QI", report, 0x40) == (0x27, 1)
    assert report[0x50:0x90] == fields.report_data
    assert report[0x90:0xC0] == fields.measurement
    assert report[0xC0:0xE0] == fields.host_data
    assert report[0xE0:0x110] == fields.id_key_digest
    assert report[0x110:0x140] == fields.author_key_digest
    assert report[0x140:0x160] == fields.report_id
    assert report[0x160:0x180] == fields.report_id_ma
    assert report[0x180:0x188] == bytes((2, 3, 0, 0, 0, 0, 2, 1))
    assert report[0x188:0x18B] == bytes((0x19, 0xA0, 2))
    assert report[0x1A0:0x1E0] == fields.chip_id
    assert report[0x1E0:0x1E8] == bytes((3, 3, 0, 0, 0, 0, 2, 1))
    assert report[0x1E8:0x1EB] == bytes((43, 55, 1))
    assert report[0x1EC:0x1EF] == bytes((41, 54, 1))
    assert report[0x1F0:0x1F8] == bytes((1, 3, 0, 0, 0, 0, 2, 1))
    assert struct.unpack_from("<QQ", report, 0x1F8) == (0x11, 0x22)
    assert not any(report[0x330:])


@pytest.mark.parametrize("version", [2, 3])
def test_older_versions_lack_what_came_later(forge: Forge, version: int) -> None:
    report = forge.report(version=version)
    assert any(report[0x188:0x18B]) == (version >= 3)
    assert not any(report[0x1F8:0x208])


def test_turin_has_its_own_layouts(forge: Forge) -> None:
    levels = Levels(boot_loader=1, tee=2, snp=3, microcode=0x80, fmc=9)
    chip = os.urandom(64)
    turin = replace(
        forge, product="Turin", signer=make_leaf(forge.intermediate, "Turin", levels, forge.now, chip_id=chip)
    )
    report = turin.report()
    assert report[0x180:0x188] == bytes((9, 1, 2, 3, 0, 0, 0, 0x80))
    assert report[0x1A0:0x1E0] == chip[:8] + bytes(56)
    values = {
        extension.oid.dotted_string.removeprefix("1.3.6.1.4.1.3704.1."): extension.value.public_bytes()
        for extension in turin.signer.certificate.extensions
    }
    assert values["1"] == b"\x02\x01\x01"
    assert values["3.9"] == b"\x02\x01\x09"
    assert values["3.8"] == b"\x02\x02\x00\x80"  # DER: 0x80 and above take a leading zero byte
    assert values["4"] == chip[:8]


def test_leaves_can_be_stale_early_or_anothers(forge: Forge) -> None:
    expired = forge.with_leaf(start=forge.now - timedelta(days=3000)).signer.certificate
    early = forge.with_leaf(start=forge.now + timedelta(days=2)).signer.certificate
    assert expired.not_valid_after_utc < forge.now
    assert early.not_valid_before_utc > forge.now
    other = forge.with_leaf(chip_id=bytes(64))
    assert other.report()[0x1A0:0x1E0] == bytes(64) != forge.report()[0x1A0:0x1E0]


def test_a_masked_chip_shows_zeros_and_says_so(forge: Forge) -> None:
    report = forge.report(mask_chip_key=True)
    assert report[0x1A0:0x1E0] == bytes(64)
    assert struct.unpack_from("<I", report, 0x48) == (2,)
