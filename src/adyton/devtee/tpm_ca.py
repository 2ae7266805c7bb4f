"""Certificates of attestation keys, under a CA of our own making (TCG EK Credential Profile 2.5, in its essentials)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from adyton.devtee.tpm import Key

ORGANISATION = "Adyton development TEE, not a TPM's vendor"
_YEAR = timedelta(days=365)
_AK_PURPOSE = x509.ObjectIdentifier("2.23.133.8.3")


@dataclass(frozen=True, slots=True)
class EkAuthority:
    """A root and an intermediate that certify attestation keys, in memory."""

    root: x509.Certificate
    root_key: ec.EllipticCurvePrivateKey
    intermediate: x509.Certificate
    intermediate_key: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls, now: datetime) -> EkAuthority:
        """A fresh one, valid for years around ``now``."""
        root_key, middle_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        root = _certificate("EK CA root", "EK CA root", root_key, root_key, now, ca=None)
        middle = _certificate("EK CA", "EK CA root", middle_key, root_key, now, ca=0)
        return cls(root, root_key, middle, middle_key)

    def certify(
        self,
        key: Key,
        now: datetime,
        *,
        lifetime: timedelta = 10 * _YEAR,
        purpose: x509.ObjectIdentifier | None = _AK_PURPOSE,
        extra: x509.ExtensionType | None = None,
        critical: bool = True,
        ca: int | bool | None = False,
        usage: str = "digital_signature",
    ) -> bytes:
        """A certificate for an attestation key, DER: its name is a critical directoryName, as TCG's profile has it."""
        made = _certificate(
            "",
            "EK CA",
            key,
            self.intermediate_key,
            now,
            ca=ca,
            lifetime=lifetime,
            purpose=purpose,
            extra=extra,
            critical=critical,
            usage=usage,
        )
        return made.public_bytes(Encoding.DER)

    def blobs(self) -> tuple[bytes, bytes]:
        """Intermediate and root, DER."""
        return self.intermediate.public_bytes(Encoding.DER), self.root.public_bytes(Encoding.DER)

    def crl(self, now: datetime, *, of_root: bool, revoked: Iterable[int] = (), lifetime: timedelta = _YEAR) -> bytes:
        """A CRL of the root or of the intermediate, DER, naming serial numbers."""
        issuer = self.root if of_root else self.intermediate
        builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject)
        builder = builder.last_update(now).next_update(now + lifetime)
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            builder = builder.add_revoked_certificate(entry)
        key = self.root_key if of_root else self.intermediate_key
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def _certificate(
    subject: str,
    issuer: str,
    key: Key,
    signer: ec.EllipticCurvePrivateKey,
    now: datetime,
    *,
    ca: int | bool | None,
    lifetime: timedelta = 20 * _YEAR,
    purpose: x509.ObjectIdentifier | None = None,
    extra: x509.ExtensionType | None = None,
    critical: bool = True,
    usage: str = "digital_signature",
) -> x509.Certificate:
    """``ca``: ``False`` for a leaf, else the pathLen; ``critical``: whether ``extra`` is. A leaf has no subject but a critical alternative name."""
    authority = ca is not False
    wanted = {"key_cert_sign", "crl_sign"} if authority else {usage}
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=ca if authority else None), critical=True)
        .add_extension(x509.KeyUsage(**{name: name in wanted for name in names}), critical=True)
    )
    if not authority:
        parts = (("2.23.133.2.1", "id:4144594E"), ("2.23.133.2.2", "Adyton"), ("2.23.133.2.3", "id:00010000"))
        made = x509.Name([x509.NameAttribute(x509.ObjectIdentifier(oid), text) for oid, text in parts])
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DirectoryName(made)]), critical=True)
    if purpose is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    if extra is not None:
        builder = builder.add_extension(extra, critical=critical)
    return builder.sign(signer, hashes.SHA256())


def _name(common: str) -> x509.Name:
    if not common:
        return x509.Name([])
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION), x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )
