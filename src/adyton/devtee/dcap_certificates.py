"""Certificates and CRLs in Intel's profile for DCAP, issued under a root of our own making (PCK certificate profile).

Root → PCK Platform CA or Processor CA → PCK leaf, and root → TCB Signing; all P-256 with SHA-256. The leaf says under
1.2.840.113741.1.13.1 which platform it is for and at which security versions. Common names are Intel's, because verifiers
ask for them; the organisation says what this is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

ORGANISATION = "Adyton development TEE, not Intel"
SGX_EXTENSION = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
ROOT_NAME = "Intel SGX Root CA"
LEAF_NAME = "Intel SGX PCK Certificate"
SIGNING_NAME = "Intel SGX TCB Signing"
CA_NAMES = {"platform": "Intel SGX PCK Platform CA", "processor": "Intel SGX PCK Processor CA"}
CRL_PLACE = "https://pccs.example.invalid/"

_OID = bytes.fromhex("2a864886f84d010d01")  # 1.2.840.113741.1.13.1, content without header
_YEAR = timedelta(days=365.25)
_SKEW = timedelta(hours=1)  # a verifier's clock may be behind the issuer's
_COMPONENTS = (7, 7, 2, 2, 3, 1, 0, 3, *([0] * 8))


@dataclass(frozen=True, slots=True)
class Platform:
    """What a PCK leaf says about its platform. ``kind`` is the CA's: only under the Platform CA are the last five said.

    ``components``: the 16 component SVNs; ``cpusvn``: 16 raw bytes, by default the components.
    """

    kind: str = "platform"
    components: tuple[int, ...] = _COMPONENTS
    pcesvn: int = 13
    cpusvn: bytes | None = None
    fmspc: bytes = bytes.fromhex("ad1707000000")
    pceid: bytes = bytes(2)
    ppid: bytes = bytes(range(0x10, 0x20))
    sgx_type: int = 1
    instance_id: bytes = bytes(range(0x20, 0x30))
    dynamic_platform: bool = True
    cached_keys: bool = False
    smt_enabled: bool = True

    def extension(self) -> bytes:
        """The content of Intel's extension, DER."""
        svns = [_item("02" + f"{number:02x}", _integer(svn)) for number, svn in enumerate(self.components, 1)]
        svns.append(_item("0211", _integer(self.pcesvn)))
        svns.append(_item("0212", _tlv(4, self.cpusvn if self.cpusvn is not None else bytes(self.components))))
        items = [
            _item("01", _tlv(4, self.ppid)),
            _item("02", _tlv(0x30, b"".join(svns))),
            _item("03", _tlv(4, self.pceid)),
            _item("04", _tlv(4, self.fmspc)),
            _item("05", _tlv(10, bytes((self.sgx_type,)))),
        ]
        if self.kind == "platform":
            flags = (self.dynamic_platform, self.cached_keys, self.smt_enabled)
            said = [
                _item(f"07{number:02x}", _tlv(1, b"\xff" if flag else b"\0")) for number, flag in enumerate(flags, 1)
            ]
            items += [_item("06", _tlv(4, self.instance_id)), _item("07", _tlv(0x30, b"".join(said)))]
        return _tlv(0x30, b"".join(items))


@dataclass(frozen=True, slots=True)
class Holder:
    """A certificate with the P-256 key that it certifies. ``platform``: a PCK leaf's."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    platform: Platform = field(default_factory=Platform)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def make_root(
    now: datetime,
    *,
    key: ec.EllipticCurvePrivateKey | None = None,
    name: str = ROOT_NAME,
    life: timedelta | None = None,
) -> Holder:
    """A self-signed root, valid for 30 years from an hour before ``now``."""
    key = key or new_key()
    return _issue(name, None, key, now, life or 30 * _YEAR, authority=1)


def make_pck_ca(
    root: Holder,
    now: datetime,
    *,
    kind: str = "platform",
    key: ec.EllipticCurvePrivateKey | None = None,
    name: str | None = None,
    life: timedelta | None = None,
) -> Holder:
    """The PCK Platform CA or (``kind`` processor) Processor CA under ``root``."""
    return _issue(name or CA_NAMES[kind], root, key or new_key(), now, life or 15 * _YEAR, authority=0)


def make_pck(
    ca: Holder,
    platform: Platform,
    now: datetime,
    *,
    key: ec.EllipticCurvePrivateKey | None = None,
    name: str = LEAF_NAME,
    extension: bytes | None = None,
    life: timedelta | None = None,
) -> Holder:
    """A PCK leaf under ``ca``; ``extension`` puts other bytes in Intel's extension, empty ones leave it out."""
    content = platform.extension() if extension is None else extension
    made = _issue(name, ca, key or new_key(), now, life or 7 * _YEAR, authority=None, sgx=content)
    return Holder(made.certificate, made.key, platform)


def make_tcb_signing(
    root: Holder,
    now: datetime,
    *,
    key: ec.EllipticCurvePrivateKey | None = None,
    name: str = SIGNING_NAME,
    life: timedelta | None = None,
) -> Holder:
    """The certificate that signs TCB info and QE identities, under ``root``."""
    return _issue(name, root, key or new_key(), now, life or 7 * _YEAR, authority=None)


def make_crl(
    issuer: Holder,
    now: datetime,
    *,
    number: int = 1,
    revoked: Iterable[x509.Certificate] = (),
    life: timedelta = timedelta(days=30),
    name: x509.Name | None = None,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> x509.CertificateRevocationList:
    """The list of ``issuer``; ``name`` and ``key`` put another name on it, or another's signature under it."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name or issuer.certificate.subject)
        .last_update(now - _SKEW)
        .next_update(now - _SKEW + life)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
    )
    for certificate in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(now - _SKEW)
        builder = builder.add_revoked_certificate(
            entry.add_extension(x509.CRLReason(x509.ReasonFlags.key_compromise), critical=False).build()
        )
    return builder.sign(key or issuer.key, SHA256())


def _issue(
    name: str,
    issuer: Holder | None,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    life: timedelta,
    *,
    authority: int | None,
    sgx: bytes = b"",
) -> Holder:
    """``authority``: how many CAs may be below it, ``None`` for a leaf. ``issuer`` ``None``: signed by itself."""
    subject = _name(name)
    above, signer = (subject, key) if issuer is None else (issuer.certificate.subject, issuer.key)
    place = x509.DistributionPoint([x509.UniformResourceIdentifier(CRL_PLACE)], None, None, None)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(above)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now - _SKEW + life)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.CRLDistributionPoints([place]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_key_usage(leaf=authority is None), critical=True)
        .add_extension(x509.BasicConstraints(ca=authority is not None, path_length=authority), critical=True)
    )
    if sgx:
        builder = builder.add_extension(x509.UnrecognizedExtension(SGX_EXTENSION, sgx), critical=False)
    return Holder(builder.sign(signer, SHA256()), key)


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Santa Clara"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "CA"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
        ]
    )


def _key_usage(*, leaf: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=leaf,
        content_commitment=leaf,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not leaf,
        crl_sign=not leaf,
        encipher_only=False,
        decipher_only=False,
    )


def _item(number: str, value: bytes) -> bytes:
    """SEQUENCE of an identifier below Intel's (``number`` in hex) and its value."""
    return _tlv(0x30, _tlv(6, _OID + bytes.fromhex(number)) + value)


def _integer(value: int) -> bytes:
    return _tlv(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content
