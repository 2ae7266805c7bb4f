"""A small certification authority: one root per tenant, and certificates for keys that are made inside.

ECDSA P-384 with SHA-384. Leaves are no authorities, carry their names as subject alternative names, and never outlive
the root. Serial numbers are random, 159 bits (RFC 5280 4.1.2.2).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from adyton.crypto.key_kinds import Kind, load, load_public, private_der
from adyton.errors import MalformedRequest

ROOT_DAYS = 3650
MAX_DAYS = 3650
MAX_NAMES = 100
_SKEW = timedelta(minutes=5)
_DNS = re.compile(
    r"(?=.{1,253}\Z)(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\Z"
)
_URI = re.compile(r"[a-z][a-z0-9+.-]{0,30}://[!-~]{1,500}\Z")
_NAME = re.compile(r"[ -~]{1,64}\Z")


def make_root(name: str, now: datetime, days: int = ROOT_DAYS) -> tuple[bytes, bytes]:
    """A new authority: its key (PKCS#8 DER) and its self-signed certificate (DER), valid for ``days``."""
    key = ec.generate_private_key(ec.SECP384R1())
    subject = _subject(name)
    usage = _usage(certificates=True)
    certificate = (
        _builder(subject, subject, now, now + timedelta(days=days))
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    return private_der(key), certificate.public_bytes(Encoding.DER)


def issue(  # noqa: PLR0917 -- one value each
    root_key: bytes,
    root: bytes,
    which: Kind,
    public: bytes,
    name: str,
    names: Iterable[str],
    days: int,
    now: datetime,
    *,
    crl_url: str = "",
) -> bytes:
    """The certificate (DER) of ``public`` (SubjectPublicKeyInfo) for ``names``: DNS names, IP addresses and URIs.

    For TLS servers and clients. ``crl_url``: where the authority's list of revoked is; empty: it does not say. ``MalformedRequest`` for a name that cannot be in one, or a validity that ends after
    the root's.
    """
    issuer = x509.load_der_x509_certificate(root)
    signer = load(root_key)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise ValueError("the authority signs with ECDSA")  # noqa: TRY004 -- a wrong value, not a wrong type
    if which is Kind.X25519 or not which.has_public:
        raise _wrong("kind", "a pair that can sign", which.value)
    listed = [_general(one) for one in names]
    if not listed or len(listed) > MAX_NAMES:
        raise _wrong("names", f"1 to {MAX_NAMES} names", len(listed))
    if not 0 < days <= MAX_DAYS or now + timedelta(days=days) > issuer.not_valid_after_utc:
        raise _wrong("days", f"1 to {max((issuer.not_valid_after_utc - now).days, 0)}", days)
    key = load_public(public)
    usage = _usage(encipher=bool(which.rsa_bits))
    builder = (
        _builder(_subject(name), issuer.subject, now, now + timedelta(days=days))
        .public_key(key)
        .add_extension(x509.SubjectAlternativeName(listed), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if crl_url:
        place = x509.DistributionPoint([x509.UniformResourceIdentifier(crl_url)], None, None, None)
        builder = builder.add_extension(x509.CRLDistributionPoints([place]), critical=False)
    return builder.sign(signer, hashes.SHA384()).public_bytes(Encoding.DER)


def serial(certificate: bytes) -> str:
    """A certificate's (DER) serial number in lower-case hex."""
    return f"{x509.load_der_x509_certificate(certificate).serial_number:x}"


def validity(certificate: bytes) -> tuple[datetime, datetime]:
    """When a certificate (DER) begins and ends to be valid."""
    read = x509.load_der_x509_certificate(certificate)
    return read.not_valid_before_utc, read.not_valid_after_utc


def _builder(subject: x509.Name, issuer: x509.Name, now: datetime, until: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(until)
    )


def _usage(*, certificates: bool = False, encipher: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=encipher,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(name: str) -> x509.Name:
    if not _NAME.match(name):
        raise _wrong("subject", "1 to 64 printable ASCII characters", name[:80])
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if _DNS.match(name):
        return x509.DNSName(name)
    if _URI.match(name):
        return x509.UniformResourceIdentifier(name)
    raise _wrong("names", "a DNS name, an IP address or a URI", name[:80])


def _wrong(field: str, expected: object, got: object) -> MalformedRequest:
    return MalformedRequest(
        "this certificate cannot be issued", code="certificate_request", field=field, expected=expected, got=got
    )
