"""Certificates and CRLs in AMD's profile, issued under a root of our own making (57230, VCEK and VLEK certificates).

ARK → ASK → VCEK, ARK → ASVK → VLEK: RSA-4096 signatures, PSS with SHA-384 and a salt of 48 bytes; leaves are P-384.
A leaf carries, under 1.3.6.1.4.1.3704.1: ``.1`` structure version (INTEGER), ``.2`` product name (IA5String), ``.3.n``
the TCB's components (INTEGER each), and either ``.4`` the chip's id (64 raw bytes, 8 on Turin, no DER around them) or
``.5`` the cloud provider's id (IA5String). Names are AMD's, except the organisation, which says what this is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.x509.oid import NameOID

ORGANISATION = "Adyton development TEE, not AMD"
_AMD = "1.3.6.1.4.1.3704.1"
_PSS = padding.PSS(mgf=padding.MGF1(SHA384()), salt_length=48)
_YEAR = timedelta(days=365.25)
_SKEW = timedelta(hours=1)  # a verifier's clock may be behind the issuer's


@dataclass(frozen=True, slots=True)
class Levels:
    """Security patch levels, one byte each, as a leaf's extensions and a TCB version hold them. ``fmc``: Turin on."""

    boot_loader: int = 10
    tee: int = 0
    snp: int = 25
    microcode: int = 84
    fmc: int = 0

    def encode(self, product: str = "Genoa") -> bytes:
        """The TCB version of ``product``, 8 bytes (56860, TCB_VERSION; Turin's layout differs)."""
        if product == "Turin":
            return bytes((self.fmc, self.boot_loader, self.tee, self.snp, 0, 0, 0, self.microcode))
        return bytes((self.boot_loader, self.tee, 0, 0, 0, 0, self.snp, self.microcode))


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate with the RSA key that it certifies."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Signer:
    """A leaf with its P-384 key: what a secure processor signs reports with. ``kind`` is ``VCEK`` or ``VLEK``."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    kind: str
    product: str
    levels: Levels
    chip_id: bytes


def new_key() -> rsa.RSAPrivateKey:
    """An RSA-4096 key. Takes a second, now and then several."""
    return rsa.generate_private_key(65537, 4096)


def make_ark(product: str, now: datetime, *, key: rsa.RSAPrivateKey | None = None) -> Authority:
    """A self-signed root, valid for 25 years from an hour before ``now``."""
    key = key or new_key()
    name = _name(f"ARK-{product}")
    builder = (
        _builder(name, name, key.public_key(), now, 25 * _YEAR)
        .add_extension(_key_usage(crl=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    return Authority(builder.sign(key, SHA384(), rsa_padding=_PSS), key)


def make_intermediate(
    ark: Authority, product: str, now: datetime, *, kind: str = "VCEK", key: rsa.RSAPrivateKey | None = None
) -> Authority:
    """The ASK (``kind`` VCEK) or ASVK (``kind`` VLEK) under ``ark``."""
    key = key or new_key()
    common = f"SEV-{product}" if kind == "VCEK" else f"SEV-VLEK-{product}"
    builder = (
        _builder(_name(common), ark.certificate.subject, key.public_key(), now, 25 * _YEAR)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ark.certificate.public_key()),  # type: ignore[arg-type]  # RSA
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(crl=False), critical=True)
    )
    return Authority(builder.sign(ark.key, SHA384(), rsa_padding=_PSS), key)


def make_leaf(
    issuer: Authority,
    product: str,
    levels: Levels,
    now: datetime,
    *,
    kind: str = "VCEK",
    chip_id: bytes = b"",
    csp_id: str = "",
    product_name: str | None = None,
    lifetime: timedelta | None = None,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> Signer:
    """A VCEK (``chip_id`` of 64 bytes) or VLEK (``csp_id``) under ``issuer``; 7 years, or 1 for a VLEK.

    ``product_name`` overrides what extension ``.2`` says.
    """
    key = key or ec.generate_private_key(ec.SECP384R1())
    lifetime = lifetime if lifetime is not None else (7 if kind == "VCEK" else 1) * _YEAR
    builder = _builder(_name(f"SEV-{kind}"), issuer.certificate.subject, key.public_key(), now, lifetime)
    turin = product == "Turin"
    components = [("1", levels.boot_loader), ("2", levels.tee), ("3", levels.snp), ("8", levels.microcode)]
    components = [("9", levels.fmc), *components] if turin else components
    reserved = [(number, 0) for number in (("5", "6", "7") if turin else ("4", "5", "6", "7"))]
    extensions = [
        ("1", _integer(1 if turin else 0)),
        ("2", _ia5(product_name or product)),
        *((f"3.{number}", _integer(level)) for number, level in [*components[:-1], *reserved, components[-1]]),
        ("4", chip_id[:8] if turin else chip_id) if kind == "VCEK" else ("5", _ia5(csp_id)),
    ]
    for oid, value in extensions:
        builder = builder.add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(f"{_AMD}.{oid}"), value), critical=False
        )
    return Signer(builder.sign(issuer.key, SHA384(), rsa_padding=_PSS), key, kind, product, levels, chip_id)


def make_crl(
    ark: Authority,
    now: datetime,
    *,
    number: int = 1,
    revoked: Iterable[x509.Certificate] = (),
    lifetime: timedelta = timedelta(days=45),
) -> x509.CertificateRevocationList:
    """The root's CRL, which lists intermediates and leaves alike, as AMD's does."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ark.certificate.subject)
        .last_update(now - _SKEW)
        .next_update(now - _SKEW + lifetime)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ark.certificate.public_key()),  # type: ignore[arg-type]  # RSA
            critical=False,
        )
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for certificate in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(now - _SKEW)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(ark.key, SHA384(), rsa_padding=_PSS)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    # AMD's leaves have serial 0; ours have random ones, so that one of them can be revoked without the others.
    start = now - _SKEW
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + life)
    )


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Santa Clara"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "CA"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _key_usage(*, crl: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=crl,
        encipher_only=False,
        decipher_only=False,
    )


def _integer(value: int) -> bytes:
    body = value.to_bytes(value.bit_length() // 8 + 1, "big")  # a leading zero byte from 0x80 on
    return bytes((2, len(body))) + body


def _ia5(text: str) -> bytes:
    body = text.encode("ascii")
    return bytes((0x16, len(body))) + body
