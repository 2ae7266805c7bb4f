"""Certificates and CRLs of any TEE's endorser, recognised by content, and read so that a chain can be walked.

What an endorser says in other forms (signed JSON, reference manifests, OCSP answers, bare public keys, Hygon's own
certificates) stays in ``EndorsementSet.documents``, byte for byte: each TEE's room knows its own when it sees it.

``cryptography`` parses and verifies; what it leaves to its caller is in ``chain``. Names are compared as DER bytes.
Nothing here is trusted: an ``EndorsementSet`` may hold anything that parses.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Generic, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning

from adyton.crypto import pem, usual, usual_form, usual_pss
from adyton.errors import EndorsementMalformed
from adyton.wire import der

BASIC_CONSTRAINTS = usual_form.BASIC_CONSTRAINTS
KEY_USAGE = usual_form.KEY_USAGE
MAX_SIZE = 4 * 1024 * 1024  # bytes of one blob; Intel's largest CRL is far below
_ABSENT = (False, None)
_SEQUENCE = bytes((der.SEQUENCE,))
_HYGON_SIZES = frozenset({832, 2084, 832 + 2084})
_HYGON_BEGINS = frozenset({b"\1\0\0\0", b"\2\0\0\0"})  # the version: 1 of HRK and HSK, 2 of CEK and PEK
_FOREIGN = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    CryptographyDeprecationWarning,  # where warnings are errors; what it warns of, later versions refuse
)


_T = TypeVar("_T")


class _once(Generic[_T]):  # noqa: N801 -- a decorator, used like ``property``
    """Computed on first use and kept; ``functools.cached_property`` takes a lock for that before Python 3.12."""

    def __init__(self, compute: Callable[[Any], _T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    def __get__(self, instance: object, owner: type) -> _T:
        value = self._compute(instance)
        instance.__dict__[self._name] = value  # which is found before this descriptor from now on
        return value


class Certificate:
    """One certificate. Times have a time zone, names are DER, extensions are read on first use and kept.

    ``serial_bytes`` is the content of its INTEGER. ``signed`` are the bytes that ``signature`` is over; ``algorithm`` is the content of the AlgorithmIdentifier that both name.
    """

    def __init__(self, encoded: bytes) -> None:
        """From exactly one DER certificate, or ``EndorsementMalformed``."""
        self.der = encoded
        try:
            # fmt: off
            (
                self.serial_bytes, self.issuer, self.subject, self.algorithm,
                self._spki, self.signed, self.signature, self._extensions_at, end,
            ) = usual.certificate(encoded)
            # fmt: on
            self.serial = int.from_bytes(self.serial_bytes, "big", signed=True)
            self.parsed = x509.load_der_x509_certificate(encoded) if self.serial > 0 else _load(encoded)
            self.not_before: datetime = self.parsed.not_valid_before_utc
            self.not_after: datetime = self.parsed.not_valid_after_utc
        except _FOREIGN as error:
            raise _malformed("not a certificate that can be read") from error
        extensions = usual.extensions(encoded, self._extensions_at, end)
        if extensions is not None:  # else they are read when asked for
            self.__dict__.update(extensions)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Certificate) and self.der == other.der

    def __hash__(self) -> int:
        return hash(self.der)

    def __repr__(self) -> str:
        return f"Certificate(sha256={self.digest.hex()})"

    @_once
    def digest(self) -> bytes:
        """SHA-256 of the whole."""
        return hashlib.sha256(self.der).digest()

    @_once
    def common_name(self) -> str:
        """The subject's only common name; empty if it has none or several, or it is not text."""
        try:
            found = usual.common_names(self.subject)
            return found[0].decode("utf-8") if len(found) == 1 else ""
        except ValueError as error:
            raise _malformed("a certificate's subject cannot be read") from error

    @_once
    def public_key(self) -> CertificatePublicKeyTypes:
        """The subject's key, or ``EndorsementMalformed`` if its kind is unknown or it is broken."""
        try:
            return self.parsed.public_key()
        except _FOREIGN as error:
            raise _malformed("a certificate's public key cannot be read") from error

    @_once
    def spki_fingerprint(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo, 32 bytes: what trust anchors pin."""
        return hashlib.sha256(self.spki).digest()

    @_once
    def spki(self) -> bytes:
        """Its SubjectPublicKeyInfo in DER, in the form in which keys are written: a P-256 key's ends with its point."""
        key = self.public_key  # which must be a key
        end = self._extensions_at
        encoded = self.der[end - usual.P256_SPKI_SIZE : end]
        if encoded.startswith(usual.P256_SPKI) and len(self._spki) == usual.P256_SPKI_SIZE - 2:
            return encoded  # as it would be written again
        encoded = self.der[end - usual_pss.RSA_SPKI_SIZE : end]
        if len(self._spki) == usual_pss.RSA_SPKI_SIZE - 4 and usual_pss.is_rsa_4096(encoded):
            return encoded
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @_once
    def extensions(self) -> dict[str, tuple[bool, x509.ExtensionType]]:
        """``(critical, value)`` by dotted identifier; ``EndorsementMalformed`` if one is unreadable or comes twice."""
        try:
            return {item.oid.dotted_string: (item.critical, item.value) for item in self.parsed.extensions}
        except _FOREIGN as error:
            raise _malformed("a certificate's extensions cannot be read") from error

    @_once
    def unknown_extensions(self) -> dict[str, bytes]:
        """Contents of the extensions that are not X.509's own, by dotted identifier."""
        return {
            oid: value.value for oid, (_, value) in self.extensions.items() if type(value) is x509.UnrecognizedExtension
        }

    @_once
    def critical_extensions(self) -> tuple[str, ...]:
        """Dotted identifiers of its critical extensions, in their order."""
        return tuple(oid for oid, (critical, _) in self.extensions.items() if critical)

    @_once
    def basic_constraints(self) -> x509.BasicConstraints | None:
        """Whether it is an authority, and how many may be below it; ``None`` if it does not say."""
        _, value = self.extensions.get(BASIC_CONSTRAINTS, _ABSENT)
        return value if type(value) is x509.BasicConstraints else None

    @_once
    def key_usage(self) -> x509.KeyUsage | None:
        """What its key is for; ``None`` if it does not say."""
        _, value = self.extensions.get(KEY_USAGE, _ABSENT)
        return value if type(value) is x509.KeyUsage else None


class Crl:
    """One certificate revocation list. ``signed``, ``signature`` and ``algorithm`` as in ``Certificate``.

    ``critical``: dotted identifiers of its critical extensions. ``number``: its number among its issuer's, if it has one.
    """

    critical: tuple[str, ...] = ()

    def __init__(self, encoded: bytes) -> None:
        """From exactly one DER CRL that says when the next one comes, or ``EndorsementMalformed``."""
        self.der = encoded
        try:
            self.parsed = x509.load_der_x509_crl(encoded)
            self.issuer, self.algorithm, self.signed, self.signature, number = usual.crl(encoded)
            self.this_update: datetime = self.parsed.last_update_utc
            next_update = self.parsed.next_update_utc
            if number is None:
                extensions = list(self.parsed.extensions)
                self.critical = tuple([item.oid.dotted_string for item in extensions if item.critical])
                values = [item.value for item in extensions]
                number = next((value.crl_number for value in values if isinstance(value, x509.CRLNumber)), None)
            self.number = number
        except _FOREIGN as error:
            raise _malformed("not a CRL that can be read") from error
        if next_update is None:
            raise _malformed("a CRL without nextUpdate could never become stale")
        self.next_update: datetime = next_update

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Crl) and self.der == other.der

    def __hash__(self) -> int:
        return hash(self.der)

    def __len__(self) -> int:
        return len(self.parsed)

    @_once
    def digest(self) -> bytes:
        """SHA-256 of the whole."""
        return hashlib.sha256(self.der).digest()

    def lists(self, certificate: Certificate) -> bool:
        """Whether an entry has this certificate's serial number; who issued the certificate is the caller's question."""
        if certificate.serial > 0 and certificate.serial_bytes not in self.der:  # in DER a number has one encoding
            return False
        try:
            return self.parsed.get_revoked_certificate_by_serial_number(certificate.serial) is not None
        except _FOREIGN as error:
            raise _malformed("an entry of a CRL cannot be read") from error


class EndorsementSet:
    """Certificates, CRLs and other documents, each once, in the order given.

    ``digest`` stands for the content and for what each part was taken as, whatever the order: the bytes of a CRL that was
    given as a mere document are another set's, for nobody looks for revoked certificates in them.
    """

    certificates: tuple[Certificate, ...]
    crls: tuple[Crl, ...]
    documents: tuple[bytes, ...]

    def __init__(
        self, certificates: Iterable[Certificate] = (), crls: Iterable[Crl] = (), documents: Iterable[bytes] = ()
    ) -> None:
        self.certificates = tuple({certificate.der: certificate for certificate in certificates}.values())
        self.crls = tuple({crl.der: crl for crl in crls}.values())
        texts = tuple(documents)
        self.documents = texts if len(texts) < 2 else tuple(dict.fromkeys(texts))  # hashing a long text takes a while
        self._by_subject: dict[bytes, list[Certificate]] = {}
        for certificate in self.certificates:
            self._by_subject.setdefault(certificate.subject, []).append(certificate)
        self._crls_by_issuer: dict[bytes, list[Crl]] = {}
        for crl in self.crls:
            self._crls_by_issuer.setdefault(crl.issuer, []).append(crl)

    @_once
    def digest(self) -> bytes:
        """Stands for the content, as said above; nobody needs it who remembers nothing."""
        counts = b"%d %d:" % (len(self.certificates), len(self.crls))
        certificates = sorted([certificate.digest for certificate in self.certificates])
        crls = sorted([crl.digest for crl in self.crls])
        documents = sorted([hashlib.sha256(document).digest() for document in self.documents])
        return hashlib.sha256(counts + b"".join((*certificates, *crls, *documents))).digest()

    @_once
    def readings(self) -> dict[object, Any]:
        """What TEEs' rooms have read in the documents, for as long as this set is kept. No verdicts."""
        return {}

    @classmethod
    def parse(cls, blobs: Iterable[bytes]) -> EndorsementSet:
        """From files' contents: PEM (any number of items), DER (one), or a document. ``EndorsementMalformed``."""
        found: dict[type, list[Any]] = {Certificate: [], Crl: [], bytes: []}
        for blob in blobs:
            for item in _read(blob):
                found[type(item)].append(item)
        return cls(found[Certificate], found[Crl], found[bytes])

    def with_subject(self, name: bytes) -> tuple[Certificate, ...]:
        """Certificates whose subject has exactly this DER."""
        return tuple(self._by_subject.get(name, ()))

    def crls_by(self, name: bytes) -> tuple[Crl, ...]:
        """CRLs whose issuer has exactly this DER."""
        return tuple(self._crls_by_issuer.get(name, ()))

    def plus(self, certificates: Iterable[Certificate] = (), crls: Iterable[Crl] = ()) -> EndorsementSet:
        """This set and more certificates and CRLs, those first."""
        return EndorsementSet((*certificates, *self.certificates), (*crls, *self.crls), self.documents)

    def with_all(self, other: EndorsementSet) -> EndorsementSet:
        """This set and everything of another one, this one's first."""
        return EndorsementSet(
            (*self.certificates, *other.certificates),
            (*self.crls, *other.crls),
            (*self.documents, *other.documents),
        )

    @property
    def fingerprints(self) -> frozenset[bytes]:
        """SHA-256 of the SPKI of each certificate, and of each bare public key among the documents: what can be trusted.

        Of Hygon's certificates only roots count.
        """
        keys = [document for document in self.documents if document[:1] == _SEQUENCE and not is_ocsp(document)]
        keys += [_hygon_spki(document) for document in self.documents if is_hygon_root(document)]
        return frozenset((*map(spki_fingerprint, self.certificates), *(hashlib.sha256(key).digest() for key in keys)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EndorsementSet) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


def spki_fingerprint(certificate: Certificate) -> bytes:
    """SHA-256 of the certificate's SubjectPublicKeyInfo, 32 bytes."""
    return certificate.spki_fingerprint


def _read(blob: bytes) -> list[Certificate | Crl | bytes]:
    if len(blob) > MAX_SIZE:
        raise _malformed(f"larger than {MAX_SIZE} bytes")
    if blob.lstrip()[:1] in {b"{", b"<"}:  # JSON or XML, whose strings may hold PEM
        return [blob]
    if pem.BEGIN in blob:
        try:
            blocks = pem.blocks(blob)
        except ValueError as error:
            raise _malformed(str(error)) from error
        return [_read_block(label, encoded) for label, encoded in blocks]
    if is_hygon(blob) or is_ocsp(blob):
        return [blob]
    # Two headers deep a certificate has its version, a CRL an integer. Whether it is DER is their own business.
    at = _after_header(blob, _after_header(blob, 0))
    return [Certificate(blob) if blob[at : at + 1] == b"\xa0" else Crl(blob)]


def is_ocsp(blob: bytes) -> bool:
    """Whether these bytes begin as an OCSPResponse does (RFC 6960 4.2.1): a sequence whose first element is its status."""
    at = _after_header(blob, 0)
    return blob[:1] == b"\x30" and blob[at : at + 2] == b"\x0a\x01"


def is_hygon(blob: bytes) -> bool:
    """Whether this is Hygon's certificate format (evidence 10): 832 bytes, 2084, or one of each."""
    return len(blob) in _HYGON_SIZES and blob[:4] in _HYGON_BEGINS


def is_hygon_root(blob: bytes) -> bool:
    """Whether this is a root in Hygon's format: 832 bytes, usage 0."""
    return len(blob) == 832 and is_hygon(blob) and not any(blob[36:40])


def _hygon_spki(root: bytes) -> bytes:
    """The SubjectPublicKeyInfo of its SM2 key; coordinates have 72 bytes, little-endian."""
    from adyton.crypto.sm2 import Sm2Key

    try:
        return Sm2Key(int.from_bytes(root[68:140], "little"), int.from_bytes(root[140:212], "little")).spki
    except ValueError as error:
        raise _malformed("a root in Hygon's format whose key is not a point of the SM2 curve") from error


def _after_header(data: bytes, offset: int) -> int:
    length = data[offset + 1] if offset + 1 < len(data) else 0
    return offset + 2 + (length & 0x7F if length & 0x80 else 0)


def _read_block(label: bytes, encoded: bytes) -> Certificate | Crl | bytes:
    if label == pem.CERTIFICATE:
        return Certificate(encoded)
    if label == b"X509 CRL":
        return Crl(encoded)
    if label == b"PUBLIC KEY":
        return encoded
    raise _malformed("PEM of another kind than CERTIFICATE, X509 CRL and PUBLIC KEY", got=label.decode("ascii")[:40])


def _load(encoded: bytes) -> x509.Certificate:
    """AMD gives every VCEK the serial number 0, which RFC 5280 forbids; ``cryptography`` warns, and loads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return x509.load_der_x509_certificate(encoded)


def _malformed(message: str, got: object = None) -> EndorsementMalformed:
    return EndorsementMalformed(
        message,
        got=got,
        spec="RFC 5280",
        hint="endorsements are X.509 certificates and CRLs in PEM or DER, or the vendor's own documents",
    )
