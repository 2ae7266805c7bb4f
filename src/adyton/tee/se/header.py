"""The header of a Secure Execution image (boot request control block, version 1): what an attestation can be about.

416 bytes of head, key slots (80 bytes each), an encrypted part and a tag of 16 bytes; big-endian throughout. An attestation
measures four values of it, 208 bytes: ``HeaderTags``. The hashes in the key slots say for which machines the image was made.
The encrypted part stays closed: nothing of it is needed here (evidence 12).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from adyton.errors import MalformedEvidence

TEE = "se"
SPEC = "evidence 12"
MAGIC = b"IBMSecEx"
VERSION = 0x100
TAGS_SIZE = 208
SLOT_SIZE = 80
MAX_SIZE = 0x2000  # two pages, as the architecture has it
_HEAD = struct.Struct(">8sII12s4sQQQQ160s64s64s64s")
_TAG_SIZE = 16
_IMAGE_MAGIC = b"SeImgLnx"
_IMAGE = struct.Struct(">8sQIQ")
_IMAGE_OFFSET = 0xC000
_PAGE = 0x1000
_SEARCHED_PAGES = 0x15


class HeaderTags(NamedTuple):
    """What firmware measures of a header: digests of page, address and tweak list (64 bytes each), and the header's tag (16)."""

    pld: bytes
    ald: bytes
    tld: bytes
    tag: bytes

    @classmethod
    def parse(cls, data: bytes) -> HeaderTags:
        """From 208 bytes, or ``MalformedEvidence``."""
        if len(data) != TAGS_SIZE:
            raise malformed("image header tags", "have 208 bytes", "image_hdr_tags", TAGS_SIZE, len(data))
        return cls(data[:64], data[64:128], data[128:192], data[192:])

    def encode(self) -> bytes:
        """The 208 bytes."""
        return self.pld + self.ald + self.tld + self.tag


class KeySlot(NamedTuple):
    """For one machine: the SHA-256 of its public host key, and the key wrapped for it (32 bytes and a tag of 16)."""

    key_hash: bytes
    wrapped: bytes


class SeHeader(NamedTuple):
    """One header. ``page_flags`` counts encrypted pages, ``control_flags`` are the plaintext ones."""

    iv: bytes
    reserved: bytes
    encrypted_pages: int
    control_flags: int
    public_key: bytes
    pld: bytes
    ald: bytes
    tld: bytes
    slots: tuple[KeySlot, ...]
    encrypted: bytes
    tag: bytes

    @classmethod
    def parse(cls, data: bytes) -> SeHeader:
        """From exactly one header, or ``MalformedEvidence``."""
        if len(data) < _HEAD.size:
            raise malformed("a header", "is shorter than its head", "length", _HEAD.size, len(data))
        (
            magic, version, size, iv, reserved, slots, encrypted, pages, flags, public_key, pld, ald, tld,
        ) = _HEAD.unpack_from(data)  # fmt: skip
        if magic != MAGIC:
            raise malformed("a header", "begins with its magic value", "magic", MAGIC, magic)
        if version != VERSION:
            raise malformed("a header", "has an unknown version", "version", VERSION, version)
        begin = _HEAD.size + SLOT_SIZE * slots
        end = begin + encrypted
        if size != len(data) or size > MAX_SIZE or end + _TAG_SIZE != size:
            raise malformed("a header", "has lengths that do not fit", "size", len(data), size)
        key_slots = read_slots(data[_HEAD.size : begin])
        return cls(iv, reserved, pages, flags, public_key, pld, ald, tld, key_slots, data[begin:end], data[end:])

    def encode(self) -> bytes:
        """The bytes that it was parsed from."""
        slots = b"".join(slot.key_hash + slot.wrapped for slot in self.slots)
        size = _HEAD.size + len(slots) + len(self.encrypted) + len(self.tag)
        head = _HEAD.pack(
            MAGIC, VERSION, size, self.iv, self.reserved, len(self.slots), len(self.encrypted), self.encrypted_pages,
            self.control_flags, self.public_key, self.pld, self.ald, self.tld,
        )  # fmt: skip
        return head + slots + self.encrypted + self.tag

    @property
    def tags(self) -> HeaderTags:
        """What an attestation of this image measures."""
        return HeaderTags(self.pld, self.ald, self.tld, self.tag)

    @property
    def key_hashes(self) -> frozenset[bytes]:
        """The host keys that the image was made for, by their SHA-256."""
        return frozenset([slot.key_hash for slot in self.slots])


def find(image: bytes) -> SeHeader:
    """The header of a whole image: where its metadata say, else at the begin of one of its first pages.

    ``MalformedEvidence`` if there is none, or it is broken.
    """
    begin = _begin(image)
    if begin is None:
        raise malformed("an image", "holds no Secure Execution header", "image", MAGIC, None)
    size = int.from_bytes(image[begin + 12 : begin + 16], "big")
    return SeHeader.parse(image[begin : begin + size])


def _begin(image: bytes) -> int | None:
    if image.startswith(_IMAGE_MAGIC, _IMAGE_OFFSET) and len(image) >= _IMAGE_OFFSET + _IMAGE.size:
        _, begin, version, _ = _IMAGE.unpack_from(image, _IMAGE_OFFSET)
        if version != 1:
            raise malformed("an image", "has metadata of an unknown version", "version", 1, version)
        return begin if image.startswith(MAGIC, begin) else None
    for begin in range(0, _SEARCHED_PAGES * _PAGE, _PAGE):
        if image.startswith(MAGIC, begin):
            return begin
    return None


def read_slots(data: bytes) -> tuple[KeySlot, ...]:
    """Key slots side by side; a multiple of 80 bytes."""
    return tuple([KeySlot(data[at : at + 32], data[at + 32 : at + SLOT_SIZE]) for at in range(0, len(data), SLOT_SIZE)])


def malformed(what: str, reason: str, field: str, expected: object, got: object) -> MalformedEvidence:
    """``MalformedEvidence`` of this TEE."""
    return MalformedEvidence(
        f"Secure Execution: {what} {reason}", tee=TEE, field=field, expected=expected, got=got, spec=SPEC
    )
