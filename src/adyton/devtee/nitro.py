"""Nitro attestation documents, enclave images and their chain, under a root of our own making; any part may be wrong.

Root → region → zone → instance → leaf, P-384 with SHA-384, with AWS's lifetimes and constraints; the organisation says what
this is. Nothing is secret or lasting: this is what tests attack the verifier with.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from adyton.devtee.cose_signing import Envelope, sign1

ORGANISATION = "Adyton development TEE, not Amazon"
ROOT_NAME = "aws.nitro-enclaves"
AUTHORITIES = ("region", "zone", "instance")
_LIFETIMES = {
    "root": timedelta(days=30 * 365),
    "region": timedelta(days=20),
    "zone": timedelta(days=6),
    "instance": timedelta(days=1),
    "leaf": timedelta(hours=3),
}
_ZERO = bytes(48)

Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """How one certificate is made. ``None``: as AWS makes it.

    ``constraints`` and ``usage``: ``False`` leaves the extension out; ``start`` and ``lifetime`` are its validity;
    ``more``: further extensions with whether they are critical.
    """

    name: str
    start: datetime | None = None
    lifetime: timedelta | None = None
    constraints: x509.BasicConstraints | bool | None = None
    usage: x509.KeyUsage | bool | None = None
    key: Any = None
    signer: Any = None
    issuer: str | None = None
    hash: Any = None
    more: Sequence[tuple[x509.ExtensionType, bool]] = ()


@dataclass(frozen=True, slots=True)
class Forge:
    """A chain in memory, root first, leaf last, each with its key."""

    now: datetime
    certificates: tuple[x509.Certificate, ...]
    keys: tuple[Key, ...]

    @classmethod
    def new(cls, now: datetime, *, authorities: Sequence[str] = AUTHORITIES, parts: Iterable[Part] = ()) -> Forge:
        """A fresh chain of a root, ``authorities`` and a leaf; ``parts`` say what is wrong with which of them."""
        wrong = {part.name: part for part in parts}
        names = ("root", *authorities, "leaf")
        certificates: list[x509.Certificate] = []
        keys: list[Key] = []
        for number, name in enumerate(names):
            part = wrong.get(name) or Part(name=name)
            key = part.key or ec.generate_private_key(ec.SECP384R1())
            issuer, signer = (certificates[-1].subject, keys[-1]) if number else (None, key)
            certificates.append(
                _certificate(part, key, issuer, part.signer or signer, now, below=len(names) - 2 - number)
            )
            keys.append(key)
        return cls(now, tuple(certificates), tuple(keys))

    def with_leaf(self, **changes: Any) -> Forge:
        """The same authorities with another leaf."""
        part = Part(name="leaf", **changes)
        key = part.key or ec.generate_private_key(ec.SECP384R1())
        issuer = self.certificates[-2].subject
        leaf = _certificate(part, key, issuer, part.signer or self.keys[-2], self.now, below=-1)
        return replace(self, certificates=(*self.certificates[:-1], leaf), keys=(*self.keys[:-1], key))

    @property
    def bundle(self) -> list[bytes]:
        """The authorities in DER, root first, as a document lists them."""
        return [item.public_bytes(Encoding.DER) for item in self.certificates[:-1]]

    @property
    def leaf(self) -> bytes:
        """The leaf in DER."""
        return self.certificates[-1].public_bytes(Encoding.DER)

    @property
    def root_fingerprint(self) -> bytes:
        """What trusts this chain."""
        return fingerprint(self.keys[0])

    def crl(self, issuer: int, revoked: Iterable[x509.Certificate] = (), *, start: datetime | None = None) -> bytes:
        """The list of the authority number ``issuer`` (0 is the root), DER, fresh for a day from ``start``."""
        begin = start or self.now - timedelta(hours=1)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificates[issuer].subject)
            .last_update(begin)
            .next_update(begin + timedelta(days=1))
        )
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(begin)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.keys[issuer], SHA384()).public_bytes(Encoding.DER)

    def payload(self, **changes: Any) -> dict[Any, Any]:
        """The map that a document holds; ``changes`` replace members, ``...`` leaves one out, others are added."""
        members: dict[Any, Any] = {
            "module_id": "i-0123456789abcdef0-enc0123456789abcdef",
            "digest": "SHA384",
            "timestamp": int(self.now.timestamp() * 1000),
            "pcrs": pcrs(),
            "certificate": self.leaf,
            "cabundle": self.bundle,
            "public_key": None,
            "user_data": None,
            "nonce": None,
        } | changes
        return {name: value for name, value in members.items() if value is not ...}

    def document(
        self, *, envelope: Envelope | None = None, key: Key | None = None, open_map: bool = False, **changes: Any
    ) -> bytes:
        """A signed document. ``open_map``: the outermost map of indefinite length, as newer attesters write it."""
        members = self.payload(**changes)
        encoded = cbor2.dumps(members)
        if open_map:
            encoded = b"\xbf" + encoded[1:] + b"\xff"
        return sign1(key or self.keys[-1], encoded, envelope)


def pcrs(**values: bytes) -> dict[int, bytes]:
    """Sixteen registers: 0 to 4 measure something, the others are zero; ``pcr8=...`` sets one."""
    found = {number: hashlib.sha384(b"pcr %d" % number).digest() if number < 5 else _ZERO for number in range(16)}
    return found | {int(name.removeprefix("pcr")): value for name, value in values.items()}


def fingerprint(key: Key) -> bytes:
    """SHA-256 of the SPKI."""
    from cryptography.hazmat.primitives.serialization import PublicFormat

    return hashlib.sha256(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def _certificate(
    part: Part, key: Any, issuer: x509.Name | None, signer: Any, now: datetime, *, below: int
) -> x509.Certificate:
    subject = _name(ROOT_NAME if part.name == "root" else f"{part.name}.example.{ROOT_NAME}")
    start = part.start or now - timedelta(minutes=1)
    constraints, usage = part.constraints, part.usage
    authority = part.name != "leaf"
    if constraints is None:
        constraints = x509.BasicConstraints(authority, below if authority and part.name != "root" else None)
    if usage is None:
        usage = _usage(authority=authority, lists=part.name != "instance")
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_name(part.issuer) if part.issuer else issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + (part.lifetime or _LIFETIMES.get(part.name, timedelta(days=1))))
    )
    for extension, critical in ((constraints, True), (usage, authority), *part.more):
        if isinstance(extension, x509.ExtensionType):
            builder = builder.add_extension(extension, critical)
    return builder.sign(signer, part.hash or SHA384())


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _usage(*, authority: bool, lists: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority and lists,
        encipher_only=False,
        decipher_only=False,
    )


# Enclave image files. Section types: 1 kernel, 2 command line, 3 ramdisk, 4 signature, 5 metadata.
EIF_HEADER = 548


@dataclass(frozen=True, slots=True)
class Section:
    """One section; ``size`` lies about its length."""

    kind: int
    content: bytes
    flags: int = 0
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An enclave image file; ``None`` stands for what the sections make true."""

    sections: tuple[Section, ...] = field(
        default=(Section(1, b"kernel"), Section(2, b"console=ttyS0"), Section(3, b"init"), Section(3, b"application"))
    )
    magic: bytes = b".eif"
    version: int = 4
    flags: int = 0
    count: int | None = None
    offsets: tuple[int, ...] | None = None
    sizes: tuple[int, ...] | None = None
    crc: int | None = None
    tail: bytes = b""

    def encode(self) -> bytes:
        """The file."""
        bodies = [
            struct.pack(">HHQ", item.kind, item.flags, len(item.content) if item.size is None else item.size)
            + item.content
            for item in self.sections
        ]
        offsets, at = [], EIF_HEADER
        for body in bodies:
            offsets.append(at)
            at += len(body)
        sizes = self.sizes if self.sizes is not None else tuple(len(item.content) for item in self.sections)
        offsets_told = self.offsets if self.offsets is not None else tuple(offsets)
        head = struct.pack(
            ">4sHHQQHH32Q32QI",
            self.magic,
            self.version,
            self.flags,
            512 << 20,
            2,
            0,
            len(self.sections) if self.count is None else self.count,
            *(*offsets_told, *([0] * 32))[:32],
            *(*sizes, *([0] * 32))[:32],
            0,
        )
        rest = b"".join(bodies)
        crc = zlib.crc32(head + rest + self.tail) if self.crc is None else self.crc
        return head + struct.pack(">I", crc) + rest + self.tail


def signature_section(certificate: x509.Certificate, key: Key, pcr0: bytes) -> Section:
    """What a signed image holds: the certificate in PEM, and a COSE_Sign1 over register 0."""
    payload = cbor2.dumps({"register_index": 0, "register_value": list(pcr0)})
    signed = {
        "signing_certificate": list(certificate.public_bytes(Encoding.PEM)),
        "signature": list(sign1(key, payload)),
    }
    return Section(4, cbor2.dumps([signed]))
