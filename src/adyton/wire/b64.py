"""Base64 and base64url, strict: one text per byte string, or ``ValueError``.

Python's own decoder skips foreign characters and accepts stray bits; on a wire where a text is hashed or compared,
two texts for one value are a hole. RFC 4648 sections 3.5, 4 and 5.
"""

from __future__ import annotations

import binascii

_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_", b"+/")


def encode(data: bytes) -> str:
    """Standard base64 with padding."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def encode_url(data: bytes) -> str:
    """base64url without padding."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """Standard base64 with padding; anything else is ``ValueError``."""
    try:
        data = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("not standard base64") from error
    if encode(data) != text:  # stray bits in the last character
        raise ValueError("not canonical base64")
    return data


def decode_url(text: str) -> bytes:
    """base64url without padding; padding, white space and stray bits are ``ValueError``."""
    try:
        encoded = text.encode("ascii").translate(_FROM_URL) + b"=" * (-len(text) % 4)
        data = binascii.a2b_base64(encoded, strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("not base64url") from error
    if encode_url(data) != text:  # stray bits, padding, and the other alphabet
        raise ValueError("not canonical base64url without padding")
    return data
