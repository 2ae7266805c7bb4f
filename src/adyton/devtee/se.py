"""IBM Secure Execution, right or wrong on purpose: host key documents under a root of our own, and firmware that answers.

``SeForge`` holds the chain (root, intermediate, IBM-like signing key, host key); ``Machine`` is a host with a guest on it: it
opens a request with its private host key and calculates the measurement, written apart from ``tee/se/request``.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA224, SHA256, SHA512
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from adyton.tee.se.header import HeaderTags, KeySlot, SeHeader
from adyton.tee.se.request import RequestSecrets

_YEAR = timedelta(days=365)
_IBM = "International Business Machines Corporation"
_ORDER = (
    NameOID.COUNTRY_NAME,
    NameOID.ORGANIZATION_NAME,
    NameOID.COMMON_NAME,
    NameOID.STATE_OR_PROVINCE_NAME,
    NameOID.LOCALITY_NAME,
    NameOID.ORGANIZATIONAL_UNIT_NAME,
)
_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


def new_rsa_key() -> rsa.RSAPrivateKey:
    """RSA-2048: enough for what nobody shall trust."""
    return rsa.generate_private_key(65537, 2048)


def fresh_secrets() -> RequestSecrets:
    """Random secrets for one request."""
    return RequestSecrets(
        secrets.token_bytes(64),
        secrets.token_bytes(16),
        secrets.token_bytes(32),
        secrets.token_bytes(12),
        ec.generate_private_key(ec.SECP521R1()),
    )


def name(unit: str, *, town: str = "Poughkeepsie", backwards: bool = False, common: str = _IBM) -> x509.Name:
    """A name as IBM's documents have it; ``backwards`` as some CRLs and older documents order it."""
    values = ("US", _IBM, common, "New York", town, unit)
    parts = [x509.NameAttribute(oid, value) for oid, value in zip(_ORDER, values, strict=True)]
    return x509.Name(parts[::-1] if backwards else parts)


@dataclass(frozen=True, slots=True)
class Holder:
    """A name and its RSA key."""

    name: x509.Name
    key: rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class SeForge:
    """A chain with its keys. ``document_issuer`` is what host key documents and their CRL say the signing key is called."""

    now: datetime
    root: Holder
    intermediate: Holder
    signing: Holder
    document_issuer: x509.Name

    @classmethod
    def new(cls, now: datetime, *, new_key: Callable[[], rsa.RSAPrivateKey] = new_rsa_key) -> SeForge:
        """A fresh chain. Three RSA keys are made; ``new_key`` may hand out prepared ones."""
        signing = name("IBM Z Host Key Signing Service")
        return cls(
            now,
            Holder(name("Development Root CA, not IBM's"), new_key()),
            Holder(name("Development Intermediate CA, not IBM's"), new_key()),
            Holder(signing, new_key()),
            signing,
        )

    def certificates(self, *, start: datetime | None = None, lifetime: timedelta = 10 * _YEAR) -> tuple[bytes, ...]:
        """Signing key, intermediate and root, DER."""
        root, intermediate, signing = self.root, self.intermediate, self.signing
        return tuple(
            self._certificate(
                subject.name, subject.key.public_key(), issuer, usage, ca=ca, start=start, lifetime=lifetime
            )
            for subject, issuer, usage, ca in (
                (signing, intermediate, ("digital_signature",), False),
                (intermediate, root, ("key_cert_sign", "crl_sign"), True),
                (root, root, ("key_cert_sign", "crl_sign"), True),
            )
        )

    def host_key_document(
        self,
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        *,
        start: datetime | None = None,
        lifetime: timedelta = 2 * _YEAR,
        serial: int | None = None,
        signer: rsa.RSAPrivateKey | None = None,
        usage: tuple[str, ...] = ("key_agreement",),
        ca: bool | None = None,
        names_key: bool = True,
    ) -> bytes:
        """A host key document for ``key``, DER."""
        issuer = Holder(self.document_issuer, signer or self.signing.key)
        named = self.signing.key.public_key() if names_key else None
        return self._certificate(
            name("IBM Z Host Key", town="Armonk"), key, issuer, usage, ca=ca, start=start, lifetime=lifetime,
            serial=serial, named=named,
        )  # fmt: skip

    def crls(self, *, revoked: Iterable[int] = (), start: datetime | None = None, days: int = 30) -> tuple[bytes, ...]:
        """A CRL of each issuer, DER: signing key, intermediate, root. ``revoked`` serial numbers are on all of them."""
        issuers = (Holder(self.document_issuer, self.signing.key), self.intermediate, self.root)
        return tuple(self.crl(issuer, revoked=revoked, start=start, days=days) for issuer in issuers)

    def crl(
        self,
        issuer: Holder,
        *,
        revoked: Iterable[int] = (),
        start: datetime | None = None,
        days: int = 30,
        critical: bool = False,
        algorithm: SHA512 | SHA224 | None = None,
    ) -> bytes:
        """One CRL; ``critical`` makes it a delta, ``algorithm`` is SHA-512 unless given."""
        begin = start or self.now - timedelta(hours=1)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.name)
            .last_update(begin)
            .next_update(begin + timedelta(days=days))
        )
        if critical:
            builder = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(begin).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(issuer.key, algorithm or SHA512()).public_bytes(Encoding.DER)

    def called(self, issuer: x509.Name) -> SeForge:
        """The same chain, whose documents and CRL name the signing key differently."""
        return replace(self, document_issuer=issuer)

    def _certificate(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        issuer: Holder,
        usage: tuple[str, ...],
        *,
        ca: bool | None,
        start: datetime | None,
        lifetime: timedelta,
        serial: int | None = None,
        named: rsa.RSAPublicKey | None = None,
    ) -> bytes:
        begin = start or self.now - timedelta(hours=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.name)
            .public_key(key)
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + lifetime)
            .add_extension(x509.KeyUsage(**{use: use in usage for use in _USAGES}), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )
        if ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if named is not None:
            builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(named), critical=False)
        return builder.sign(issuer.key, SHA256()).public_bytes(Encoding.DER)


@dataclass(frozen=True, slots=True)
class Answer:
    """What firmware gives back."""

    measurement: bytes
    additional_data: bytes
    user_data: bytes
    cuid: bytes
    tags: HeaderTags


@dataclass(frozen=True, slots=True)
class Machine:
    """A host with one guest. ``image`` is the guest's header; what is not the host's to choose cannot be set."""

    image: SeHeader
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP521R1()))
    cuid: bytes = field(default_factory=lambda: secrets.token_bytes(16))

    def attest(self, request: bytes, user_data: bytes, *, opened_with: bytes | None = None) -> Answer:
        """Firmware's answer; ``ValueError`` if the request is not for this machine. ``opened_with``: the image's key hash."""
        key_hash = self.key_hash
        slots = request[39]
        (flags,) = struct.unpack_from(">Q", request, 48)
        x, y = (int.from_bytes(request[at : at + 80], "big") for at in (64, 144))
        author = ec.EllipticCurvePublicNumbers(x, y, ec.SECP521R1()).public_key()
        for at in range(224, 224 + 80 * slots, 80):
            if request[at : at + 32] == key_hash:
                wrapping = hashlib.sha256(self.key.exchange(ec.ECDH(), author) + bytes((0, 0, 0, 1))).digest()
                protection = AESGCM(wrapping).decrypt(bytes(12), request[at + 32 : at + 80], None)
                break
        else:
            raise ValueError("no key slot for this machine")
        begin = 224 + 80 * slots
        plain = AESGCM(protection).decrypt(request[16:28], request[begin:], request[:begin])
        additional = b""
        for bit, value in (
            (2, opened_with or key_hash),
            (3, key_hash),
            (4, bytes(64)),
            (5, bytes(320)),
        ):
            if flags >> 63 - bit & 1:
                additional += value
        tags = self.image.tags
        measured = (
            tags.encode() + self.cuid + struct.pack(">HHI", len(user_data), 0, len(additional)) + user_data
            + plain[64:] + additional
        )  # fmt: skip
        return Answer(hmac.digest(plain[:64], measured, "sha512"), additional, user_data, self.cuid, tags)

    @property
    def key_hash(self) -> bytes:
        """SHA-256 of the public host key's coordinates, 80 bytes each."""
        numbers = self.key.public_key().public_numbers()
        return hashlib.sha256(numbers.x.to_bytes(80, "big") + numbers.y.to_bytes(80, "big")).digest()


def image_header(*key_hashes: bytes) -> SeHeader:
    """The header of some image for machines with these keys. What it encrypts is noise."""
    noise = secrets.token_bytes
    slots = tuple(KeySlot(key_hash, noise(48)) for key_hash in key_hashes)
    return SeHeader(
        noise(12), bytes(4), 7, 0, noise(160), noise(64), noise(64), noise(64), slots, noise(160), noise(16)
    )
