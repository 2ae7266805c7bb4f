"""DER, strict and small: walk tag-length-value elements and read the few types that vendors' extensions use.

Not a certificate parser (``cryptography`` is) and not BER: indefinite lengths, lengths longer than they need be, high
tag numbers and bytes after the end are ``ValueError``. ITU-T X.690 sections 8.1, 8.3, 10.1 and 11.

>>> read_integer(bytes.fromhex("020200d9"))
217
"""

from __future__ import annotations

from typing import NamedTuple

INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
OBJECT_IDENTIFIER = 0x06
IA5_STRING = 0x16
SEQUENCE = 0x30
SET = 0x31


class Element(NamedTuple):
    """One element: its tag byte, its content, and where in the walked bytes it begins and ends."""

    tag: int
    content: bytes
    start: int
    end: int


def bounds(data: bytes, offset: int = 0) -> tuple[int, int, int]:
    """Tag, begin of content and end of the element at ``offset``; ``ValueError`` if it is not DER or runs over the end."""
    body = offset + 2
    try:
        tag, length = data[offset:body]
    except ValueError:
        raise ValueError("DER element is cut off") from None
    if tag & 0x1F == 0x1F:
        raise ValueError("DER tag numbers above 30 are not used here")
    if length & 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4 or body + size > len(data):
            raise ValueError("DER length is indefinite, too large or cut off")
        length = int.from_bytes(data[body : body + size], "big")
        if length < 0x80 or length >> (8 * (size - 1)) == 0:
            raise ValueError("DER length is longer than it need be")
        body += size
    end = body + length
    if end > len(data):
        raise ValueError("DER element is longer than what holds it")
    return tag, body, end


def read(data: bytes, offset: int = 0) -> Element:
    """The element that begins at ``offset``; ``ValueError`` as ``bounds``."""
    tag, body, end = bounds(data, offset)
    return Element(tag, data[body:end], offset, end)


def only(data: bytes, tag: int) -> bytes:
    """The content of ``data``, which must be exactly one element of this tag."""
    found, body, end = bounds(data)
    if found != tag:
        raise ValueError(f"DER tag is {found:#04x}, not {tag:#04x}")
    if end != len(data):
        raise ValueError("bytes after the DER element")
    return data[body:end]


def children(content: bytes) -> list[Element]:
    """The elements that fill ``content`` without a gap."""
    elements = []
    offset = 0
    while offset < len(content):
        element = read(content, offset)
        elements.append(element)
        offset = element.end
    return elements


def read_integer(data: bytes) -> int:
    """One non-negative INTEGER and nothing else. 0x80 and above take a leading zero byte; no other zero may lead."""
    if len(data) == 3 and data[0] == INTEGER and data[1] == 1 and data[2] < 0x80:  # as most are
        return data[2]
    content = only(data, INTEGER)
    if not content:
        raise ValueError("DER integer without content")
    if content[0] & 0x80:
        raise ValueError("DER integer is negative")
    if len(content) > 1 and content[0] == 0 and not content[1] & 0x80:
        raise ValueError("DER integer is longer than it need be")
    return int.from_bytes(content, "big")


def read_ia5(data: bytes) -> str:
    """One IA5String of printable characters and nothing else."""
    content = only(data, IA5_STRING)
    if not content.isascii() or not (text := content.decode("ascii")).isprintable():
        raise ValueError("IA5String holds more than printable characters")
    return text
