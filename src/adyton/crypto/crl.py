"""The list of certificates that an authority of ``issuing`` has revoked (RFC 5280, 5): version 2, signed with ECDSA and SHA-384."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from adyton.crypto.key_kinds import load

REASONS = {
    "unspecified": x509.ReasonFlags.unspecified,
    "key-compromise": x509.ReasonFlags.key_compromise,
    "affiliation-changed": x509.ReasonFlags.affiliation_changed,
    "superseded": x509.ReasonFlags.superseded,
    "cessation-of-operation": x509.ReasonFlags.cessation_of_operation,
    "privilege-withdrawn": x509.ReasonFlags.privilege_withdrawn,
}
LASTS = timedelta(days=7)
_SKEW = timedelta(minutes=5)


def make(
    root_key: bytes, root: bytes, number: int, revoked: Iterable[tuple[str, datetime, str]], now: datetime
) -> bytes:
    """The list (DER) of a root (DER, with its PKCS#8 key): serial number in hex, when, and a reason of ``REASONS`` of each.

    ``number`` grows from list to list. It is valid for ``LASTS``, five minutes before ``now`` included.
    """
    issuer = x509.load_der_x509_certificate(root)
    signer = load(root_key)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise ValueError("the authority signs with ECDSA")  # noqa: TRY004 -- a wrong value, not a wrong type
    builder = (  # the entries at once: added one by one, each would copy all before it
        x509.CertificateRevocationListBuilder(revoked_certificates=[_entry(*one) for one in revoked])
        .issuer_name(issuer.subject)
        .last_update(now - _SKEW)
        .next_update(now + LASTS)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    return builder.sign(signer, hashes.SHA384()).public_bytes(Encoding.DER)


def _entry(serial: str, when: datetime, reason: str) -> x509.RevokedCertificate:
    entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(when)
    if reason != "unspecified":  # RFC 5280 5.3.1: then it is left out
        entry = entry.add_extension(x509.CRLReason(REASONS[reason]), critical=False)
    return entry.build()


def facts(der: bytes) -> tuple[int, datetime, datetime, int]:
    """A list's number, when it was made, when the next one is due, and how many are on it."""
    read = x509.load_der_x509_crl(der)
    number = read.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    until = read.next_update_utc
    if until is None:
        raise ValueError("ours say when the next one is due")
    return number, read.last_update_utc, until, len(read)


def pem(der: bytes) -> str:
    """A list as PEM."""
    return x509.load_der_x509_crl(der).public_bytes(Encoding.PEM).decode("ascii")
