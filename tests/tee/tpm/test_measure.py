"""Predicted registers: against systemd's own calculator, against real logs, and by hand."""

from __future__ import annotations

import hashlib
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton.errors import DocumentInvalid
from adyton.tee.eventlog import kinds
from adyton.tee.eventlog.banks import SHA1, SHA256
from adyton.tee.eventlog.log import EventLog
from adyton.tee.eventlog.replay import replay
from adyton.tee.tpm import measure
from adyton.tee.tpm.measure import PHASES, Register, authenticode, uki_pcr, uki_sections

CALCULATOR = shutil.which("systemd-measure", path="/usr/lib/systemd:/lib/systemd")
SECTIONS = {".linux": b"kernel" * 99, ".osrel": b"ID=x\n", ".cmdline": b"ro quiet", ".initrd": b"initrd" * 50}


def pe(
    sections: dict[str, bytes], *, signature: bytes = b"", checksum: int = 0, magic: int = 0x20B, tail: bytes = b""
) -> bytes:
    """A PE image: sections aligned to 512 bytes, signatures at the end."""
    directories = {0x20B: 112, 0x10B: 96}[magic]
    optional_size = directories + 16 * 8
    table = 0x40 + 24 + optional_size
    headers = -(-(table + 40 * len(sections)) // 512) * 512
    body, rows, offset = b"", b"", headers
    for number, (name, content) in enumerate(sections.items()):
        raw = content.ljust(-(-len(content) // 512) * 512, b"\0")
        rows += struct.pack(
            "<8sIIIIIIHHI", name.encode(), len(content), 0x1000 * (number + 1), len(raw), offset, 0, 0, 0, 0, 0
        )
        body, offset = body + raw, offset + len(raw)
    body += tail
    optional = bytearray(optional_size)
    struct.pack_into("<H", optional, 0, magic)
    struct.pack_into("<I", optional, 60, headers)
    struct.pack_into("<I", optional, 64, checksum)
    struct.pack_into("<I", optional, directories - 4, 16)
    if signature:
        struct.pack_into("<II", optional, directories + 32, offset + len(tail), len(signature))
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, len(sections), 0, 0, 0, optional_size, 0)
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + coff + bytes(optional) + rows
    return head.ljust(headers, b"\0") + body + signature


@pytest.mark.parametrize(
    "sections",
    [{}, {".osrel": b"x"}, {**SECTIONS, ".other": b"x"}, {**SECTIONS, "linux": b""}],
)
def test_what_is_no_unified_kernel_image_is_refused(sections: dict[str, bytes]) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        uki_pcr(sections)
    assert caught.value.code == "uki_sections"


@pytest.mark.parametrize(
    "image",
    [b"", b"MZ" + bytes(100), pe(SECTIONS)[:0x60], b"XX" + pe(SECTIONS)[2:], pe(SECTIONS)[:-600]],
)
def test_what_is_no_image_is_refused(image: bytes) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        uki_sections(image)
    assert caught.value.code == "image_pe"
    with pytest.raises(DocumentInvalid):
        authenticode(image)


def test_an_image_of_several_profiles_is_refused() -> None:
    image = pe({".linux": b"a", ".linuy": b"b"}).replace(b".linuy", b".linux")
    with pytest.raises(DocumentInvalid):
        uki_sections(image)


def test_sections_that_overlap_and_signatures_elsewhere_are_refused() -> None:
    image = bytearray(pe({".linux": b"a" * 600, ".osrel": b"b"}))
    row = image.index(b".osrel")
    struct.pack_into("<I", image, row + 20, struct.unpack_from("<I", image, image.index(b".linux") + 20)[0])
    with pytest.raises(DocumentInvalid):
        authenticode(bytes(image))
    with pytest.raises(DocumentInvalid):
        authenticode(pe(SECTIONS, signature=b"signed") + b"more")


def test_sections_come_out_as_they_went_in() -> None:
    given_sections = {**SECTIONS, ".pcrsig": b"{}", ".text": b"code"}
    found = uki_sections(pe(given_sections))
    assert found == SECTIONS
    assert uki_pcr({**found, ".pcrsig": b"not measured"}) == uki_pcr(SECTIONS)
    short = bytearray(pe({".linux": b"a" * 512}))
    struct.pack_into("<I", short, short.index(b".linux") + 8, 1000)  # memory beyond the file is zero
    assert uki_sections(bytes(short)) == {".linux": b"a" * 512 + bytes(488)}


def test_the_order_is_systemds_and_not_the_files() -> None:
    backwards = dict(reversed(SECTIONS.items()))
    assert uki_pcr(backwards) == uki_pcr(SECTIONS)
    assert uki_pcr(SECTIONS, phases=PHASES) != uki_pcr(SECTIONS, phases=PHASES[:1])


@pytest.mark.skipif(CALCULATOR is None, reason="needs systemd-measure")
def test_pcr_11_is_what_systemd_calculates(tmp_path: Path) -> None:
    arguments = []
    for name, content in SECTIONS.items():
        (tmp_path / name).write_bytes(content)
        arguments.append(f"--{name[1:]}={tmp_path / name}")
    command = [str(CALCULATOR), "calculate", *arguments, "--bank=sha1", "--bank=sha256"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    for count in range(1, len(PHASES) + 1):
        for bank in (SHA1, SHA256):
            assert f"11:{bank.name}={uki_pcr(SECTIONS, bank=bank, phases=PHASES[:count]).hex()}" in told


def test_authenticode_leaves_out_checksum_and_signatures_and_nothing_else() -> None:
    plain = pe(SECTIONS)
    digest = authenticode(plain)
    assert authenticode(pe(SECTIONS, checksum=0x12345678)) == digest
    assert authenticode(pe(SECTIONS, signature=b"a signature of 24 bytes.")) == digest
    assert authenticode(pe(SECTIONS, tail=b"appended")) != digest
    optional = 0x40 + 24
    covered = plain[: optional + 64] + plain[optional + 68 : optional + 144] + plain[optional + 152 :]
    assert digest == hashlib.sha256(covered).digest()
    assert authenticode(pe(SECTIONS, magic=0x10B)) != digest


@given(st.integers(0, 8 * len(pe({".linux": b"x"})) - 1))
@settings(max_examples=100, deadline=None)
def test_any_flipped_bit_that_is_covered_changes_the_digest(bit: int) -> None:
    image = pe({".linux": b"x"})
    changed = bytearray(image)
    changed[bit // 8] ^= 1 << bit % 8
    optional = 0x40 + 24
    outside = {*range(optional + 64, optional + 68), *range(optional + 144, optional + 152)}
    try:
        same = authenticode(bytes(changed)) == authenticode(image)
    except DocumentInvalid:
        return
    assert not same or bit // 8 in outside


def test_pcr_8_of_a_real_boot_is_predicted_from_its_commands(vectors: Path) -> None:
    log = EventLog.parse((vectors / "tpm" / "event-logs" / "cos-85-amd-sev.bin").read_bytes())
    commands = []
    for event in log.events():
        if event.register == 8 and event.kind == kinds.IPL:
            text = event.data.rstrip(b"\0").decode()
            commands.append(text.split(": ", 1)[1])
    for bank in log.banks:
        assert measure.grub_commands_pcr(commands, bank=bank) == replay(log, bank)[8]


def test_pcr_4_of_a_real_boot_is_its_applications(vectors: Path) -> None:
    log = EventLog.parse((vectors / "tpm" / "event-logs" / "ubuntu-2104-no-dbx.bin").read_bytes())
    for position, bank in enumerate(log.banks):
        digests = [
            row[2][position] for row in log.rows if row[0] == 4 and row[1] == kinds.EFI_BOOT_SERVICES_APPLICATION
        ]
        present = [digest for digest in digests if digest is not None]
        assert measure.boot_applications_pcr(present, bank=bank) == replay(log, bank)[4]


def test_registers_are_extended_by_digests_of_their_size() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Register(SHA256).extend(bytes(20))
    digest = hashlib.sha256(b"init data").digest()
    assert measure.init_data_pcr(digest) == hashlib.sha256(bytes(32) + digest).digest()
    assert measure.command_line_pcr("ro") == Register(SHA256, 12).measure(b"r\0o\0\0\0").value
    assert measure.files_pcr([b"a", b"b"]) == Register(SHA256, 9).measure(b"a").measure(b"b").value
    assert Register(SHA256, 0, locality=3).value == bytes(31) + b"\3"
