"""What a KMIP message looks like from outside (TTLV, KMIP 1.2 section 9.1): checked before anybody parses it.

Tag (3 bytes), type (1), length (4, big-endian), value, padded to 8. What is inside a structure ends where it ends; so
many levels and so many items, which is more than any answer to us has.
"""

from __future__ import annotations

MAX_MESSAGE = 1024 * 1024
MAX_DEPTH = 16
MAX_ITEMS = 20_000
RESPONSE = b"\x42\x00\x7b"
HEADER = 8
_STRUCTURE = 1
_LENGTHS = {2: 4, 3: 8, 5: 4, 6: 8, 9: 8, 10: 4}  # integer, long integer, enumeration, boolean, date and time, interval
_LAST_TYPE = 10


def length(header: bytes) -> int:
    """How many bytes follow the first 8 of a response; ``ValueError`` if they are not those of one, or too many do."""
    if len(header) != HEADER or header[:3] != RESPONSE or header[3] != _STRUCTURE:
        raise ValueError("not a KMIP response")
    size = int.from_bytes(header[4:], "big")
    if size > MAX_MESSAGE or size % 8:
        raise ValueError("a KMIP response of a length that none has")
    return size


def check(value: bytes) -> None:
    """``ValueError`` unless ``value``, what is in a response, is items within items that all end where they say."""
    ends = [len(value)]
    at = items = 0
    while ends:
        if at == ends[-1]:
            ends.pop()
            continue
        items += 1
        if at + HEADER > ends[-1] or items > MAX_ITEMS:
            raise ValueError("a KMIP item that does not end, or too many of them")
        kind, size = value[at + 3], int.from_bytes(value[at + 4 : at + HEADER], "big")
        at += HEADER
        padded = -(-size // 8) * 8
        if not 1 <= kind <= _LAST_TYPE or size != _LENGTHS.get(kind, size) or at + padded > ends[-1]:
            raise ValueError("a KMIP item of no type, or longer than what it is in")
        if kind != _STRUCTURE:
            at += padded
        elif size % 8 or len(ends) >= MAX_DEPTH:
            raise ValueError("KMIP structures in structures without end")
        else:
            ends.append(at + size)
