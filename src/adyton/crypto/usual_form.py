"""What the two readers of certificates of a known form, ``usual`` and ``usual_pss``, have in common."""

from __future__ import annotations

from typing import TypedDict

from cryptography import x509

BASIC_CONSTRAINTS = "2.5.29.19"
KEY_USAGE = "2.5.29.15"

# Serial number, issuer, subject and algorithm: contents of their elements; content of the SubjectPublicKeyInfo; what is signed;
# the signature; where the SubjectPublicKeyInfo ends, and where what is signed ends.
CertificateParts = tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes, int, int]

VERSION_3 = bytes.fromhex("a00302010202")  # and the serial number's tag


class Extensions(TypedDict):
    """All extensions of a certificate, under the names that ``x509.Certificate`` gives to them."""

    critical_extensions: tuple[str, ...]
    basic_constraints: x509.BasicConstraints | None
    key_usage: x509.KeyUsage | None
    unknown_extensions: dict[str, bytes]


def usage(*names: str) -> x509.KeyUsage:
    """A KeyUsage with these bits."""
    every = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: name in names for name in every})


def _points_head(size: int) -> bytes:
    """What stands before the only URI, of ``size`` bytes, in CRLDistributionPoints with their header."""
    head = b""
    for tag in (b"\x86", b"\xa0", b"\xa0", b"\x30", b"\x30", b"\x04"):
        head = tag + bytes((size + len(head),)) + head
    head = b"\x06\x03\x55\x1d\x1f" + head
    return b"\x30" + bytes((size + len(head),)) + head


POINTS = {size: _points_head(size) for size in range(1, 0x80 - len(_points_head(1)) + 2)}
"""By the size of the URI."""
