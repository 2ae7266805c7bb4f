"""Certificates and CRLs of any TEE's endorser, recognised by content, and read so that a chain can be walked.

``cryptography`` parses and verifies; what it leaves to its caller is in ``chain``. Names are compared as DER bytes.
Nothing here is trusted: an ``EndorsementSet`` may hold anything that parses.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import cached_property
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID

from adyton.errors import EndorsementMalformed
from adyton.wire import b64, der

MAX_SIZE = 4 * 1024 * 1024  # bytes of one blob; Intel's largest CRL is far below
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s*\n([A-Za-z0-9+/=\s]*?)-----END \1-----")
_PEM_BEGIN = b"-----BEGIN "
_FOREIGN = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)

_T = TypeVar("_T")


class Certificate:
    """One certificate. Times have a time zone, names are DER, extensions are read on first use and kept."""

    def __init__(self, encoded: bytes) -> None:
        """From exactly one DER certificate, or ``EndorsementMalformed``."""
        self.der = encoded
        self.digest = hashlib.sha256(encoded).digest()
        try:
            self.parsed = _without_serial_warning(x509.load_der_x509_certificate, encoded)
            fields = der.children(der.only(self.parsed.tbs_certificate_bytes, der.SEQUENCE))
            if fields[0].tag == 0xA0:  # version; absent in version 1
                del fields[0]
            self.issuer = fields[2].content
            self.subject = fields[4].content
            if fields[0].tag != der.INTEGER:
                raise ValueError("serial number")
            self.serial = int.from_bytes(fields[0].content, "big", signed=True)
            self.not_before: datetime = self.parsed.not_valid_before_utc
            self.not_after: datetime = self.parsed.not_valid_after_utc
        except (*_FOREIGN, IndexError) as error:
            raise _malformed("not a certificate that can be read") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Certificate) and self.der == other.der

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Certificate(sha256={self.digest.hex()})"

    @cached_property
    def common_name(self) -> str:
        """The subject's only common name; empty if it has none or several."""
        try:
            names = self.parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        except _FOREIGN as error:
            raise _malformed("a certificate's subject cannot be read") from error
        return str(names[0].value) if len(names) == 1 else ""

    @cached_property
    def public_key(self) -> CertificatePublicKeyTypes:
        """The subject's key, or ``EndorsementMalformed`` if its kind is unknown or it is broken."""
        try:
            return self.parsed.public_key()
        except _FOREIGN as error:
            raise _malformed("a certificate's public key cannot be read") from error

    @cached_property
    def spki_fingerprint(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo, 32 bytes: what trust anchors pin."""
        encoded = self.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(encoded).digest()

    @cached_property
    def extensions(self) -> x509.Extensions:
        """All extensions, or ``EndorsementMalformed`` if one cannot be read or comes twice."""
        try:
            return self.parsed.extensions
        except _FOREIGN as error:
            raise _malformed("a certificate's extensions cannot be read") from error

    @cached_property
    def unknown_extensions(self) -> dict[str, bytes]:
        """Contents of the extensions that are not X.509's own, by dotted object identifier."""
        return {
            extension.oid.dotted_string: extension.value.value
            for extension in self.extensions
            if isinstance(extension.value, x509.UnrecognizedExtension)
        }

    def find(self, kind: type[_T]) -> _T | None:
        """The value of one of X.509's own extensions, or ``None``."""
        return next((extension.value for extension in self.extensions if isinstance(extension.value, kind)), None)


class Crl:
    """One certificate revocation list. ``number`` is ``None`` where it has none."""

    def __init__(self, encoded: bytes) -> None:
        """From exactly one DER CRL that says when the next one comes, or ``EndorsementMalformed``."""
        self.der = encoded
        try:
            self.parsed = x509.load_der_x509_crl(encoded)
            fields = der.children(der.only(self.parsed.tbs_certlist_bytes, der.SEQUENCE))
            if fields[0].tag != der.INTEGER:
                raise ValueError("version 1, which has no extensions")
            self.issuer = fields[2].content  # version, algorithm, issuer
            self.this_update: datetime = self.parsed.last_update_utc
            next_update = self.parsed.next_update_utc
            self.critical = tuple(
                extension.oid.dotted_string for extension in self.parsed.extensions if extension.critical
            )
            number = next((e.value for e in self.parsed.extensions if isinstance(e.value, x509.CRLNumber)), None)
        except (*_FOREIGN, IndexError) as error:
            raise _malformed("not a CRL that can be read") from error
        if next_update is None:
            raise _malformed("a CRL without nextUpdate could never become stale")
        self.next_update: datetime = next_update
        self.number = number.crl_number if number is not None else None
        self.digest = hashlib.sha256(encoded).digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Crl) and self.der == other.der

    def __hash__(self) -> int:
        return hash(self.digest)

    def __len__(self) -> int:
        return len(self.parsed)

    def lists(self, certificate: Certificate) -> bool:
        """Whether an entry has this certificate's serial number; who issued the certificate is the caller's question."""
        try:
            return self.parsed.get_revoked_certificate_by_serial_number(certificate.serial) is not None
        except _FOREIGN as error:
            raise _malformed("an entry of a CRL cannot be read") from error


class EndorsementSet:
    """Certificates and CRLs, each once, in the order given. ``digest`` stands for the content, whatever the order."""

    __slots__ = ("_by_subject", "_crls_by_issuer", "certificates", "crls", "digest")

    certificates: tuple[Certificate, ...]
    crls: tuple[Crl, ...]
    digest: bytes

    def __init__(self, certificates: Iterable[Certificate] = (), crls: Iterable[Crl] = ()) -> None:
        self.certificates = tuple(dict.fromkeys(certificates))
        self.crls = tuple(dict.fromkeys(crls))
        parts = sorted([item.digest for item in self.certificates] + [item.digest for item in self.crls])
        self.digest = hashlib.sha256(b"".join(parts)).digest()
        self._by_subject: dict[bytes, list[Certificate]] = {}
        for certificate in self.certificates:
            self._by_subject.setdefault(certificate.subject, []).append(certificate)
        self._crls_by_issuer: dict[bytes, list[Crl]] = {}
        for crl in self.crls:
            self._crls_by_issuer.setdefault(crl.issuer, []).append(crl)

    @classmethod
    def parse(cls, blobs: Iterable[bytes]) -> EndorsementSet:
        """From files' contents: PEM (any number of certificates and CRLs) or DER (one). ``EndorsementMalformed``."""
        certificates: list[Certificate] = []
        crls: list[Crl] = []
        for blob in blobs:
            for item in _read(blob):
                (certificates if isinstance(item, Certificate) else crls).append(item)  # type: ignore[arg-type]
        return cls(certificates, crls)

    def with_subject(self, name: bytes) -> tuple[Certificate, ...]:
        """Certificates whose subject has exactly this DER."""
        return tuple(self._by_subject.get(name, ()))

    def crls_by(self, name: bytes) -> tuple[Crl, ...]:
        """CRLs whose issuer has exactly this DER."""
        return tuple(self._crls_by_issuer.get(name, ()))

    def plus(self, certificates: Iterable[Certificate]) -> EndorsementSet:
        """This set and more certificates, those first."""
        return EndorsementSet((*certificates, *self.certificates), self.crls)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EndorsementSet) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


def spki_fingerprint(certificate: Certificate) -> bytes:
    """SHA-256 of the certificate's SubjectPublicKeyInfo, 32 bytes."""
    return certificate.spki_fingerprint


def _read(blob: bytes) -> list[Certificate | Crl]:
    if len(blob) > MAX_SIZE:
        raise _malformed(f"larger than {MAX_SIZE} bytes")
    if _PEM_BEGIN in blob:
        blocks = _PEM.findall(blob)
        if len(blocks) != blob.count(_PEM_BEGIN):
            raise _malformed("PEM that is cut off or malformed")
        return [_read_block(label, text) for label, text in blocks]
    try:
        return [Certificate(blob)]
    except EndorsementMalformed:
        return [_one(Crl, blob)]


def _read_block(label: bytes, text: bytes) -> Certificate | Crl:
    try:
        encoded = b64.decode(b"".join(text.split()).decode("ascii"))
    except ValueError as error:
        raise _malformed("PEM with broken base64") from error
    if label == b"CERTIFICATE":
        return Certificate(encoded)
    if label == b"X509 CRL":
        return Crl(encoded)
    raise _malformed("PEM of another kind than CERTIFICATE and X509 CRL", got=label.decode("ascii")[:40])


def _one(kind: Callable[[bytes], Crl], blob: bytes) -> Crl:
    try:
        return kind(blob)
    except EndorsementMalformed as error:
        raise _malformed("neither a certificate nor a CRL, in PEM or DER") from error


def _without_serial_warning(load: Callable[[bytes], x509.Certificate], encoded: bytes) -> x509.Certificate:
    """AMD gives every VCEK the serial number 0, which RFC 5280 forbids; ``cryptography`` warns, and loads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return load(encoded)


def _malformed(message: str, got: object = None) -> EndorsementMalformed:
    return EndorsementMalformed(
        message, got=got, spec="RFC 5280", hint="endorsements are X.509 certificates and CRLs, in PEM or DER"
    )
