"""A small issuer of AMD's kind of certificates and reports, under keys of its own; every field can be set wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from adyton.crypto.x509 import EndorsementSet
from adyton.rats.types import TrustAnchors
from adyton.tee.snp.abi import GuestPolicy, KeyInfo, SnpReport, Tcb

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
YEAR = timedelta(days=365)
PSS = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
ARC = "1.3.6.1.4.1.3704.1."
CHIP = bytes(range(1, 65))
TCB = {"boot_loader": 10, "tee": 0, "snp": 23, "microcode": 84}
CPUID = {"Milan": (0x19, 0x01, 1), "Genoa": (0x19, 0x11, 1), "Turin": (0x1A, 0x02, 1)}

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def integer(value: int) -> bytes:
    body = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes((2, len(body))) + body


def ia5(text: str) -> bytes:
    return bytes((0x16, len(text))) + text.encode()


def name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test endorser, not AMD"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def usage(**bits: bool) -> x509.KeyUsage:
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: bits.get(name, False) for name in names})


@dataclass(frozen=True)
class Keys:
    """RSA-4096 takes long to make: once a session. ``other`` is a stranger's."""

    ark: rsa.RSAPrivateKey
    ask: rsa.RSAPrivateKey
    other: rsa.RSAPrivateKey
    leaf: ec.EllipticCurvePrivateKey


@dataclass
class Issuer:
    """One root with its intermediates, for one product."""

    keys: Keys
    product: str = "Genoa"
    cache: dict[str, bytes] = field(default_factory=dict)

    def certificate(
        self,
        subject: str,
        issuer: str,
        public_key: Any,
        signer: Key,
        *,
        extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
        not_before: datetime = NOW - YEAR,
        not_after: datetime = NOW + YEAR,
        pss: Any = PSS,
        digest: Any = None,
        serial: int | None = None,
    ) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name(issuer))
            .public_key(public_key)
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(not_before)
            .not_valid_after(not_after)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        made = builder.sign(signer, digest or hashes.SHA384(), rsa_padding=pss)
        return made.public_bytes(Encoding.DER)

    def ark(self, *, key: rsa.RSAPrivateKey | None = None, signer: Key | None = None, **changes: Any) -> bytes:
        key = key or self.keys.ark
        subject = changes.pop("subject", f"ARK-{self.product}")
        constraints = changes.pop("constraints", x509.BasicConstraints(ca=True, path_length=None))
        key_usage = changes.pop("key_usage", usage(key_cert_sign=True, crl_sign=True))
        more = changes.pop("more", ())
        extensions = [(constraints, True), (key_usage, True), *more]
        extensions = [(value, critical) for value, critical in extensions if value is not None]
        return self.certificate(subject, subject, key.public_key(), signer or key, extensions=extensions, **changes)

    def ask(self, *, vlek: bool = False, key: Any = None, signer: Key | None = None, **changes: Any) -> bytes:
        subject = changes.pop("subject", f"SEV-{'VLEK-' if vlek else ''}{self.product}")
        issuer = changes.pop("issuer", f"ARK-{self.product}")
        constraints = changes.pop("constraints", x509.BasicConstraints(ca=True, path_length=0))
        key_usage = changes.pop("key_usage", usage(key_cert_sign=True))
        extensions = [(constraints, True), (key_usage, True), *changes.pop("more", ())]
        extensions = [(value, critical) for value, critical in extensions if value is not None]
        public = (key or self.keys.ask).public_key()
        return self.certificate(subject, issuer, public, signer or self.keys.ark, extensions=extensions, **changes)

    def leaf(
        self,
        *,
        vlek: bool = False,
        tcb: Mapping[str, int] = TCB,
        chip: bytes = CHIP,
        product_name: str | None = None,
        set_: Mapping[str, bytes | None] | None = None,
        **changes: Any,
    ) -> bytes:
        """A VCEK or VLEK; ``set_`` puts other bytes into AMD's extensions, ``None`` takes one away."""
        turin = self.product == "Turin"
        values: dict[str, bytes | None] = {
            "1": integer(int(turin)),
            "2": ia5(product_name or self.product),
            "3.1": integer(tcb["boot_loader"]),
            "3.2": integer(tcb["tee"]),
            "3.3": integer(tcb["snp"]),
            "3.8": integer(tcb["microcode"]),
        }
        if turin:
            values["3.9"] = integer(tcb.get("fmc", 0))
        values |= {"5": ia5("CN=cloud.example")} if vlek else {"4": chip[:8] if turin else chip}
        values |= set_ or {}
        extensions = [
            (x509.UnrecognizedExtension(x509.ObjectIdentifier(ARC + oid), value), False)
            for oid, value in values.items()
            if value is not None
        ]
        extensions += changes.pop("more", ())
        subject = changes.pop("subject", "SEV-VLEK" if vlek else "SEV-VCEK")
        issuer = changes.pop("issuer", f"SEV-{'VLEK-' if vlek else ''}{self.product}")
        public = changes.pop("public_key", self.keys.leaf.public_key())
        signer = changes.pop("signer", self.keys.ask)
        return self.certificate(subject, issuer, public, signer, extensions=extensions, **changes)

    def crl(
        self,
        serials: Iterable[int] = (),
        *,
        signer: Key | None = None,
        this_update: datetime = NOW - timedelta(days=5),
        next_update: datetime = NOW + timedelta(days=40),
        issuer: str | None = None,
        pss: Any = PSS,
        more: Iterable[tuple[x509.ExtensionType, bool]] = (),
    ) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(name(issuer or f"ARK-{self.product}"))
            .last_update(this_update)
            .next_update(next_update)
            .add_extension(x509.CRLNumber(9), critical=False)
        )
        for extension, critical in more:
            builder = builder.add_extension(extension, critical)
        for serial in serials:
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(this_update).build()
            builder = builder.add_revoked_certificate(revoked)
        made = builder.sign(signer or self.keys.ark, hashes.SHA384(), rsa_padding=pss)
        return made.public_bytes(Encoding.DER)

    def standard(self, part: str) -> bytes:
        """The unbroken ``ark``, ``ask``, ``asvk``, ``vcek``, ``vlek`` or ``crl``, made once."""
        if part not in self.cache:
            makers: dict[str, Callable[[], bytes]] = {
                "ark": self.ark,
                "ask": self.ask,
                "asvk": lambda: self.ask(vlek=True),
                "vcek": self.leaf,
                "vlek": lambda: self.leaf(vlek=True),
                "crl": self.crl,
            }
            self.cache[part] = makers[part]()
        return self.cache[part]

    def set_of(self, **changes: bytes | None) -> EndorsementSet:
        """What verifies a VCEK's report, with parts replaced or (``None``) left out, and others added."""
        parts: dict[str, bytes | None] = {part: self.standard(part) for part in ("vcek", "ask", "ark", "crl")}
        parts |= changes
        return EndorsementSet.parse(value for value in parts.values() if value is not None)

    @property
    def anchors(self) -> TrustAnchors:
        """Trusts this root, besides AMD's."""
        public = self.keys.ark.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        digest = hashes.Hash(hashes.SHA256())
        digest.update(public)
        return TrustAnchors(vendor=True, custom=frozenset({digest.finalize()}))

    def fields(self, *, vlek: bool = False, **changes: Any) -> SnpReport:
        """An unsigned report of this product."""
        tcb = Tcb.of(**TCB, fmc=0 if self.product == "Turin" else None)
        family, model, stepping = CPUID[self.product]
        chip = CHIP[:8].ljust(64, b"\0") if self.product == "Turin" else CHIP
        values: dict[str, Any] = {
            "version": 5,
            "policy": GuestPolicy(0x30000),
            "key_info": KeyInfo(4 if vlek else 0),
            "report_data": b"\x11" * 64,
            "host_data": b"\x22" * 32,
            "measurement": b"\x33" * 48,
            "current_tcb": tcb,
            "reported_tcb": tcb,
            "committed_tcb": tcb,
            "launch_tcb": tcb,
            "cpuid_family": family,
            "cpuid_model": model,
            "cpuid_stepping": stepping,
            "chip_id": chip,
            "current_major": 1,
            "current_minor": 55,
            "current_build": 40,
            "committed_major": 1,
            "committed_minor": 55,
            "committed_build": 40,
            "launch_mit_vector": 3,
            "current_mit_vector": 3,
        }
        return SnpReport(**(values | changes))

    def report(self, *, key: ec.EllipticCurvePrivateKey | None = None, vlek: bool = False, **changes: Any) -> bytes:
        """A report signed by the leaf's key, or by ``key``."""
        unsigned = self.fields(vlek=vlek, **changes)
        signed = unsigned.encode()[:0x2A0]
        r, s = decode_dss_signature((key or self.keys.leaf).sign(signed, ec.ECDSA(hashes.SHA384())))
        whole = msgspec.structs.replace(unsigned, r=r.to_bytes(72, "little"), s=s.to_bytes(72, "little"))
        return whole.encode()


@pytest.fixture(scope="session")
def keys() -> Keys:
    ark, ask, other = (rsa.generate_private_key(65537, 4096) for _ in range(3))
    return Keys(ark, ask, other, ec.generate_private_key(ec.SECP384R1()))


@pytest.fixture(scope="session")
def genoa(keys: Keys) -> Issuer:
    return Issuer(keys)


@pytest.fixture(scope="session")
def milan(keys: Keys) -> Issuer:
    return Issuer(keys, "Milan")


@pytest.fixture(scope="session")
def turin(keys: Keys) -> Issuer:
    return Issuer(keys, "Turin")


@pytest.fixture(scope="session")
def now() -> datetime:
    return NOW
