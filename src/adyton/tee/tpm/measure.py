"""Build inputs -> the PCR values that they must give (evidence 13), where a specification or the producer says how.

* PCR 4: boot applications, by the Authenticode digest of each image (PFP 1.06, 3.3.4.5).
* PCR 8 and 9: GRUB's commands and files; PCR 9 also what the kernel's EFI stub loads.
* PCR 11: a unified kernel image, section by section (systemd-stub), and the phases of the boot (systemd-pcrphase).
* PCR 12: a kernel command line that was given to the stub from outside.

Firmware's own registers (0 to 3, 5 to 7) depend on the machine: take them from a log that replays.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Final

from adyton.errors import DocumentInvalid
from adyton.tee.eventlog.banks import SHA256, Bank
from adyton.tee.eventlog.replay import extend, start

SPEC = "evidence 13"
# The order in which systemd-stub measures, whatever their order in the file (src/fundamental/uki.h; new ones come last).
# ``.pcrsig`` is left out: it holds signatures over what is measured.
SECTIONS: Final = (
    *(".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".pcrpkey"),
    *(".profile", ".dtbauto", ".hwids", ".efifw"),
)
UNMEASURED_SECTIONS: Final = frozenset({".pcrsig"})
PHASES: Final = ("enter-initrd", "leave-initrd", "sysinit", "ready")
BOOT_ATTEMPT = b"Calling EFI Application from Boot Option"
SEPARATOR = bytes(4)

_DOS_OFFSET = 0x3C
_COFF = struct.Struct("<4sHHIIIHH")  # "PE", machine, sections, time, symbols 2, size of the optional header, flags
_SECTION = struct.Struct("<8sIIII")  # name, virtual size, virtual address, raw size, raw offset
_SECTION_SIZE = 40
_CHECKSUM, _DIRECTORIES = 64, {0x10B: 96, 0x20B: 112}  # in the optional header, by its magic
_CERTIFICATES = 4  # number of the data directory entry that points at signatures
_MAX_SECTIONS = 96


class Register:
    """One PCR to be: extend it as the boot would."""

    __slots__ = ("bank", "value")

    def __init__(self, bank: Bank = SHA256, number: int = 0, *, locality: int = 0) -> None:
        self.bank = bank
        self.value = start(number, bank, locality=locality)

    def extend(self, digest: bytes) -> Register:
        """By a digest."""
        if len(digest) != self.bank.size:
            raise ValueError(f"a digest of {self.bank.name} has {self.bank.size} bytes")
        self.value = extend(self.bank, self.value, digest)
        return self

    def measure(self, data: bytes) -> Register:
        """By the hash of ``data``."""
        return self.extend(self.bank.new(data).digest())


def init_data_pcr(digest: bytes) -> bytes:
    """PCR 8 (SHA-256) after CoCo's guest extended it with the digest of the init data, and nothing else did."""
    return Register(SHA256, 8).extend(digest).value


def uki_pcr(sections: Mapping[str, bytes], *, bank: Bank = SHA256, phases: Iterable[str] = ()) -> bytes:
    """PCR 11 of a unified kernel image by its sections' contents, after the boot's ``phases`` were entered, in order.

    ``DocumentInvalid`` for a section that systemd-stub does not know, and if there is no ``.linux``.
    """
    unknown = sections.keys() - set(SECTIONS) - UNMEASURED_SECTIONS
    if unknown or ".linux" not in sections:
        raise DocumentInvalid(
            "not the sections of a unified kernel image",
            code="uki_sections",
            tee="tpm",
            field="sections",
            expected=list(SECTIONS),
            got=sorted(unknown) or "no .linux",
            spec="systemd-stub(7)",
        )
    register = Register(bank, 11)
    for name in SECTIONS:
        if name in sections:
            register.measure(name.encode("ascii") + b"\0").measure(sections[name])
    for phase in phases:
        register.measure(phase.encode("utf-8"))
    return register.value


def uki_sections(image: bytes) -> dict[str, bytes]:
    """The measured sections of a unified kernel image (PE32+), as they are in memory; others are left out.

    ``DocumentInvalid`` if it is no PE image, or has a section of systemd's twice (an image of several profiles).
    """
    _, _, listed = _headers(image)
    found: dict[str, bytes] = {}
    for raw_name, virtual, _, size, offset in listed:
        name = raw_name.rstrip(b"\0").decode("ascii", "replace")
        if name not in SECTIONS:
            continue
        if name in found or offset + size > len(image):
            raise _invalid("a section twice, or one that is cut off", name)
        found[name] = image[offset : offset + min(virtual, size)].ljust(virtual, b"\0")
    return found


def command_line_pcr(command_line: str, *, bank: Bank = SHA256) -> bytes:
    """PCR 12 after systemd-stub was given this command line from outside the image: UTF-16 with its NUL."""
    return Register(bank, 12).measure((command_line + "\0").encode("utf-16-le")).value


def boot_applications_pcr(digests: Iterable[bytes], *, bank: Bank = SHA256) -> bytes:
    """PCR 4 of a UEFI that tries one boot option: the attempt, the separator, then each image that is loaded.

    ``digests``: ``authenticode`` of boot manager, shim, GRUB or the unified kernel image, kernel, in order.
    """
    register = Register(bank, 4).measure(BOOT_ATTEMPT).measure(SEPARATOR)
    for digest in digests:
        register.extend(digest)
    return register.value


def grub_commands_pcr(commands: Iterable[str], *, bank: Bank = SHA256) -> bytes:
    """PCR 8 of GRUB: every command and the kernel's command line as executed, without the prefix that the log shows."""
    register = Register(bank, 8)
    for command in commands:
        register.measure(command.encode("utf-8"))
    return register.value


def files_pcr(contents: Iterable[bytes], *, bank: Bank = SHA256) -> bytes:
    """PCR 9: the files that GRUB read, in order; or what the kernel's EFI stub took, its load options then the initrd."""
    register = Register(bank, 9)
    for content in contents:
        register.measure(content)
    return register.value


def authenticode(image: bytes, *, bank: Bank = SHA256) -> bytes:
    """The Authenticode digest of a PE image: all but its checksum, the pointer to its signatures, and these.

    Microsoft, "Windows Authenticode Portable Executable Signature Format" (2008), "Calculating the PE Image Hash";
    ``DocumentInvalid`` if it is no PE image.
    """
    optional, directories, listed = _headers(image)
    checksum = optional + _CHECKSUM
    pointer = directories + 8 * _CERTIFICATES
    (headers,) = struct.unpack_from("<I", image, optional + 60)
    begin, size = struct.unpack_from("<II", image, pointer)
    if not pointer + 8 <= headers <= len(image) or (size and begin + size != len(image)):
        raise _invalid("headers that are cut off, or signatures that are not at the end", "headers")
    parts = [image[:checksum], image[checksum + 4 : pointer], image[pointer + 8 : headers]]
    end = headers
    for _, _, _, length, offset in sorted(listed, key=lambda section: section[4]):
        if length:
            if offset < end or offset + length > len(image):
                raise _invalid("sections that overlap or are cut off", "sections")
            parts.append(image[offset : offset + length])
            end = offset + length
    parts.append(image[end : len(image) - size])
    return bank.new(b"".join(parts)).digest()


def _headers(image: bytes) -> tuple[int, int, list[tuple[bytes, int, int, int, int]]]:
    """Where the optional header and its data directories begin, and the section table."""
    try:
        (pe,) = struct.unpack_from("<I", image, _DOS_OFFSET)
        magic, _, count, _, _, _, size, _ = _COFF.unpack_from(image, pe)
        optional = pe + _COFF.size
        (kind,) = struct.unpack_from("<H", image, optional)
        directories = optional + _DIRECTORIES[kind]
        (entries,) = struct.unpack_from("<I", image, directories - 4)
        if image[:2] != b"MZ" or magic != b"PE\0\0" or count > _MAX_SECTIONS or entries <= _CERTIFICATES:
            raise _invalid("not a PE image", "headers")
        table = optional + size
        listed = [_SECTION.unpack_from(image, table + number * _SECTION_SIZE) for number in range(count)]
    except (struct.error, KeyError):
        raise _invalid("not a PE image", "headers") from None
    return optional, directories, listed


def _invalid(message: str, field: str) -> DocumentInvalid:
    return DocumentInvalid(f"image: {message}", code="image_pe", tee="tpm", field=field, spec=SPEC)
