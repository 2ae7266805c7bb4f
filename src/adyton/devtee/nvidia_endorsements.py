"""What NVIDIA's endorsements look like, issued by keys of our own: certificates, OCSP answers, reference manifests.

A manifest is written as the canonical text that is signed, apart from the parser in ``crypto.xmldsig`` on purpose.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ORGANISATION = "Adyton development TEE, not NVIDIA"
_SHA384 = hashes.SHA384()
_SKEW = timedelta(hours=1)
_YEARS = timedelta(days=3650)
DAY = timedelta(days=1)
_REASONS = {"revoked": x509.ReasonFlags.key_compromise, "hold": x509.ReasonFlags.certificate_hold}
_SWID = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
_HASH = "http://www.w3.org/2001/04/xmlenc#sha384"
_DS = "http://www.w3.org/2000/09/xmldsig#"
_C14N = "http://www.w3.org/2006/12/xml-c14n11"


@dataclass(frozen=True, slots=True)
class Holder:
    """A certificate with its P-384 key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        """The certificate in DER."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def spki_fingerprint(self) -> bytes:
        """SHA-256 of its key: what trust anchors pin."""
        encoded = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(encoded).digest()


def manifest_chain(now: datetime) -> tuple[Holder, ...]:
    """A signer of manifests, its issuer, authority and root."""
    root = new_holder("NVIDIA CoRIM signing Root CA", now)
    authority = new_holder("NVIDIA Reference Value CA", now, issuer=root)
    issuer = new_holder("NVIDIA Reference Value L3 002", now, issuer=authority)
    return (new_holder("HCC RIM L4 Signer", now, issuer=issuer, ca=False), issuer, authority, root)


def pem(holders: Sequence[Holder]) -> bytes:
    """Certificates in PEM, in this order."""
    return b"".join(holder.certificate.public_bytes(Encoding.PEM) for holder in holders)


def answer(
    holder: Holder,
    issuer: Holder,
    now: datetime,
    *,
    status: str = "good",
    lifetime: timedelta = DAY,
    responder: Holder | None = None,
    serial: int | None = None,
) -> bytes:
    """One OCSP answer about ``holder``'s certificate, by a responder that ``issuer`` certified unless another is given."""
    by = responder or new_responder(issuer, now)
    revoked = status in _REASONS
    certificate_status = {"good": ocsp.OCSPCertStatus.GOOD, "unknown": ocsp.OCSPCertStatus.UNKNOWN}.get(
        status, ocsp.OCSPCertStatus.REVOKED
    )
    key = issuer.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
        issuer_name_hash=hashlib.sha384(issuer.certificate.subject.public_bytes()).digest(),
        issuer_key_hash=hashlib.sha384(key).digest(),
        serial_number=serial if serial is not None else holder.certificate.serial_number,
        algorithm=_SHA384,
        cert_status=certificate_status,
        this_update=now - _SKEW,
        next_update=now - _SKEW + lifetime,
        revocation_time=now - _SKEW if revoked else None,
        revocation_reason=_REASONS[status] if revoked else None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, by.certificate).certificates([by.certificate])
    return builder.sign(by.key, _SHA384).public_bytes(Encoding.DER)


def new_responder(
    issuer: Holder, now: datetime, *, purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.OCSP_SIGNING
) -> Holder:
    """A responder that ``issuer`` certified; ``purpose`` is what its key is for."""
    usage: list[x509.ExtensionType] = [x509.ExtendedKeyUsage([purpose])]
    return new_holder("NVIDIA OCSP Responder", now, issuer=issuer, ca=False, extensions=usage)


def swid(golden: Mapping[int, Sequence[bytes]], meta: Mapping[str, str], *, count: int = 64) -> str:
    """The canonical text of a manifest without its signature. ``golden``: alternatives of active ones by index from 0."""
    rows = []
    for index in range(count):
        values = golden.get(index, [bytes(48)])
        hashed = "".join(f' ns2:Hash{at}="{value.hex()}"' for at, value in enumerate(values))
        rows.append(
            f'<ns0:Resource active="{index in golden}" alternatives="{len(values)}" index="{index}" '
            f'name="Measurement_{index}" size="48" type="Measurement"{hashed}></ns0:Resource>'
        )
    attributes = "".join(f' {name}="{value}"' for name, value in sorted(meta.items()))
    return (
        f'<SoftwareIdentity xmlns="{_SWID}" xmlns:ns0="{_SWID}" xmlns:ns2="{_HASH}" name="development">\n'
        f'<ns0:Entity name="{ORGANISATION}"></ns0:Entity>\n<ns0:Meta{attributes}></ns0:Meta>\n'
        f"<ns0:Payload>{''.join(rows)}</ns0:Payload>\n</SoftwareIdentity>"
    )


def sign_xml(
    text: str, chain: Sequence[Holder], *, uri: str = "", key: ec.EllipticCurvePrivateKey | None = None
) -> bytes:
    """``text``, which is canonical, with one enveloped signature before its end. The declarations are those of ``swid``."""
    digest = base64.b64encode(hashlib.sha384(text.encode("utf-8")).digest()).decode("ascii")
    info = (
        f'<ds:CanonicalizationMethod Algorithm="{_C14N}"></ds:CanonicalizationMethod>'
        '<ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"></ds:SignatureMethod>'
        f'<ds:Reference URI="{uri}"><ds:Transforms>'
        f'<ds:Transform Algorithm="{_DS}enveloped-signature"></ds:Transform>'
        f'<ds:Transform Algorithm="{_C14N}"></ds:Transform></ds:Transforms>'
        '<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#sha384"></ds:DigestMethod>'
        f"<ds:DigestValue>{digest}</ds:DigestValue></ds:Reference></ds:SignedInfo>"
    )
    canonical = (
        f'<ds:SignedInfo xmlns="{_SWID}" xmlns:ds="{_DS}" xmlns:ns0="{_SWID}" xmlns:ns2="{_HASH}">{info}'
    ).encode()
    value = base64.b64encode(raw_signature(key or chain[0].key, canonical)).decode("ascii")
    certificates = "".join(
        f"<ds:X509Certificate>{base64.b64encode(holder.der).decode('ascii')}</ds:X509Certificate>" for holder in chain
    )
    signature = (
        f'<ds:Signature xmlns:ds="{_DS}"><ds:SignedInfo>{info}<ds:SignatureValue>{value}</ds:SignatureValue>'
        f"<ds:KeyInfo><ds:X509Data>{certificates}</ds:X509Data></ds:KeyInfo></ds:Signature>"
    )
    head, end, tail = text.rpartition("</SoftwareIdentity>")
    return (head + signature + end + tail).encode("utf-8")


def raw_signature(key: ec.EllipticCurvePrivateKey, signed: bytes) -> bytes:
    """R and s of ECDSA P-384 with SHA-384, big-endian, 48 bytes each."""
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(_SHA384)))
    return r.to_bytes(48, "big") + s.to_bytes(48, "big")


def new_holder(
    common_name: str,
    now: datetime,
    *,
    issuer: Holder | None = None,
    ca: bool = True,
    crl: bool = True,
    extensions: Sequence[x509.ExtensionType] = (),
    size: int = 16,
) -> Holder:
    """A certificate of ten years from an hour before ``now``; self-signed without an issuer. ``size``: bytes of its serial."""
    key = ec.generate_private_key(ec.SECP384R1())
    serial = int.from_bytes(secrets.token_bytes(size), "big") >> 1 | 1
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.SERIAL_NUMBER, f"{serial:x}"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer is not None else subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - _SKEW)
        .not_valid_after(now - _SKEW + _YEARS)
        .add_extension(_usage(ca=ca, crl=crl), critical=True)
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return Holder(builder.sign(issuer.key if issuer is not None else key, _SHA384), key)


def _usage(*, ca: bool, crl: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca and crl,
        encipher_only=False,
        decipher_only=False,
    )
