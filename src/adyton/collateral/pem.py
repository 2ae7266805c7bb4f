"""PEM, DER and hex of one thing, as different services send it."""

from __future__ import annotations

import re

from adyton.crypto.x509 import MAX_SIZE, EndorsementSet
from adyton.wire import b64

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_HEX = re.compile(rb"\s*([0-9a-fA-F]{2})+\s*\Z")


def as_der(content: bytes) -> bytes:
    """One certificate or CRL that came in PEM, hex or DER, as DER; ``ValueError`` if it is none or several."""
    if len(content) > 2 * MAX_SIZE:
        raise ValueError("too large")
    if _HEX.match(content):
        return bytes.fromhex(content.decode("ascii"))
    if b"-----BEGIN " not in content:
        return content
    found = EndorsementSet.parse([content])
    items = [*(certificate.der for certificate in found.certificates), *(crl.der for crl in found.crls)]
    if len(items) != 1:
        raise ValueError("not exactly one certificate or CRL")
    return items[0]


def lines(content: bytes) -> bytes:
    """Only the PEM blocks, each ending with a line feed; ``ValueError`` if there is none."""
    blocks = [match[0].replace(b"\r\n", b"\n") for match in _BLOCK.finditer(content)]
    if not blocks:
        raise ValueError("no PEM in it")
    return b"\n".join(blocks) + b"\n"


def of_crl(encoded: bytes) -> bytes:
    """A DER CRL in PEM."""
    text = b64.encode(encoded)
    return "\n".join(
        [
            "-----BEGIN X509 CRL-----",
            *(text[at : at + 64] for at in range(0, len(text), 64)),
            "-----END X509 CRL-----",
            "",
        ]
    ).encode("ascii")
