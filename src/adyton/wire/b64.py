"""Base64 and base64url, strict: one text per byte string, or ``ValueError``.

Python's own decoder skips foreign characters and accepts stray bits; on a wire where a text is hashed or compared,
two texts for one value are a hole. RFC 4648 sections 3.5, 4 and 5.
"""

from __future__ import annotations

import binascii

import msgspec

_DECODE = msgspec.json.Decoder(bytes).decode  # strict, and takes half as long as ``binascii``
_STANDARD = bytes.maketrans(b"-_+/=", b"+/\0\0\0")  # zero is no character of base64
_PADDING = (b"", b"", b"==", b"=")
_LAST = ("", "", "AQgw", "AEIMQUYcgkosw048")  # the last characters that leave no stray bits


def encode(data: bytes) -> str:
    """Standard base64 with padding."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def encode_url(data: bytes) -> str:
    """base64url without padding."""
    encoded = binascii.b2a_base64(data, newline=False).rstrip(b"=")
    return encoded.replace(b"+", b"-").replace(b"/", b"_").decode("ascii")  # quicker than a table: both are rare


def decode(text: str) -> bytes:
    """Standard base64 with padding; anything else is ``ValueError``."""
    padding = 0 if not text.endswith("=") else 1 if not text.endswith("==") else 2
    if len(text) % 4 or (padding and text[-1 - padding] not in _LAST[4 - padding]):
        raise ValueError("not canonical base64")
    try:
        return decode_loosely(text.encode("ascii"))
    except ValueError as error:
        raise ValueError("not standard base64") from error


def decode_url(text: str) -> bytes:
    """base64url without padding; padding, white space and stray bits are ``ValueError``."""
    last = len(text) % 4  # characters of a last group that is not whole: 2 for one byte, 3 for two
    if last == 1 or (last and text[-1] not in _LAST[last]):
        raise ValueError("not canonical base64url without padding")
    try:
        return decode_loosely(text.encode("ascii").translate(_STANDARD) + _PADDING[last])
    except ValueError as error:
        raise ValueError("not base64url") from error


def decode_loosely(text: bytes) -> bytes:
    """Standard base64 with padding, where stray bits in the last character do not matter: only for what is never compared."""
    if b"\\" in text:  # JSON would read what it escapes
        raise ValueError("a backslash in base64")
    return _DECODE(b'"%b"' % text)
