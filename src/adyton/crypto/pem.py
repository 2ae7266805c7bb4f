"""PEM (RFC 7468): the blocks of a text, each with its label and the DER in its base64. Text around blocks says nothing."""

from __future__ import annotations

import re

from adyton.wire import b64

BEGIN = b"-----BEGIN "
CERTIFICATE = b"CERTIFICATE"

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----[ \t]*\r?\n([A-Za-z0-9+/=\s]*)-----END \1-----")
_CERTIFICATE_BEGIN = b"-----BEGIN CERTIFICATE-----\n"
_CERTIFICATE_END = b"-----END CERTIFICATE-----"
_SPACE = b" \t\n\r\v\f"


def blocks(text: bytes) -> list[tuple[bytes, bytes]]:
    """Label and DER of each block; ``ValueError`` if one is cut off, malformed, or no canonical base64."""
    found = _certificates(text)
    if found is None:
        found = _BLOCK.findall(text)
        if len(found) != text.count(BEGIN):
            raise ValueError("PEM that is cut off or malformed")
    return [(label, _decoded(body)) for label, body in found]


def _certificates(text: bytes) -> list[tuple[bytes, bytes]] | None:
    """If all are certificates and end as they begin; what is no base64 in them shows when it is decoded."""
    found = []
    at = text.find(BEGIN)
    while at >= 0:
        begin = at + len(_CERTIFICATE_BEGIN)
        end = text.find(_CERTIFICATE_END, begin) if text.startswith(_CERTIFICATE_BEGIN, at) else -1
        if end < 0:
            return None
        found.append((CERTIFICATE, text[begin:end]))
        at = text.find(BEGIN, end + len(_CERTIFICATE_END))
    return found


def _decoded(body: bytes) -> bytes:
    try:
        return b64.decode(body.replace(b"\n", b"").decode("ascii"))
    except ValueError:
        pass  # maybe there is other white space
    try:
        return b64.decode(body.translate(None, _SPACE).decode("ascii"))
    except ValueError as error:
        raise ValueError("PEM with broken base64") from error
