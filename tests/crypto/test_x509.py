from __future__ import annotations

import base64
import contextlib
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from adyton.crypto.x509 import MAX_SIZE, Certificate, Crl, EndorsementSet, spki_fingerprint
from adyton.errors import EndorsementMalformed

KEY = ec.derive_private_key(7, ec.SECP256R1())
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(name: str = "a", serial: int = 5) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name("issuer"))
        .public_key(KEY.public_key())
        .serial_number(serial)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )


def _certificate(name: str = "a", serial: int = 5) -> x509.Certificate:
    return _builder(name, serial).sign(KEY, hashes.SHA256())


def _crl(*serials: int) -> x509.CertificateRevocationList:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(_name("issuer"))
        .last_update(NOW)
        .next_update(NOW + timedelta(days=1))
        .add_extension(x509.CRLNumber(3), critical=False)
    )
    for serial in serials:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW).build()
        )
    return builder.sign(KEY, hashes.SHA256())


A = _certificate("a").public_bytes(Encoding.DER)
A_PEM = _certificate("a").public_bytes(Encoding.PEM)
B = _certificate("b").public_bytes(Encoding.DER)
LIST = _crl(9).public_bytes(Encoding.DER)
LIST_PEM = _crl(9).public_bytes(Encoding.PEM)


def test_content_decides() -> None:
    for blobs in ([A, B, LIST], [A_PEM + LIST_PEM, B], [b"comment\n" + A_PEM + b"\ncomment\r\n" + LIST_PEM, B]):
        found = EndorsementSet.parse(blobs)
        assert [certificate.common_name for certificate in found.certificates] == ["a", "b"]
        assert [len(crl) for crl in found.crls] == [1]


def test_the_same_content_has_the_same_digest() -> None:
    assert EndorsementSet.parse([A, B, LIST]) == EndorsementSet.parse([LIST, B, B, A])
    assert hash(EndorsementSet.parse([A, B])) == hash(EndorsementSet.parse([B, A, A]))
    assert EndorsementSet.parse([A]) != EndorsementSet.parse([B])
    assert EndorsementSet.parse([A]) != EndorsementSet.parse([A, LIST])
    assert EndorsementSet().plus([Certificate(A)]) == EndorsementSet.parse([A])


def test_the_same_bytes_taken_as_something_else_are_other_content() -> None:
    """A CRL dressed as a public key lists nothing: what was found with such a set must not stand for the true one."""
    set_of = EndorsementSet.parse([A, LIST])
    dressed = b"-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(LIST) + b"-----END PUBLIC KEY-----\n"
    hidden = EndorsementSet.parse([A, dressed])
    assert hidden.documents == (LIST,)
    assert not hidden.crls
    certificate = set_of.certificates[0]
    sets = [set_of, hidden, EndorsementSet((), set_of.crls, [certificate.der]), EndorsementSet((), (), [LIST])]
    assert len({item.digest for item in sets}) == len(set(sets)) == len(sets)


def test_fields() -> None:
    certificate = Certificate(A)
    issuer = EndorsementSet.parse([LIST]).crls_by(certificate.issuer)
    assert [crl.number for crl in issuer] == [3]
    assert (certificate.not_before, certificate.not_after) == (NOW, NOW + timedelta(days=1))
    assert certificate.serial == 5
    assert not issuer[0].lists(certificate)
    assert issuer[0].lists(Certificate(_certificate(serial=9).public_bytes(Encoding.DER)))
    public = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert spki_fingerprint(certificate) == hashlib.sha256(public).digest()
    assert EndorsementSet.parse([A]).with_subject(certificate.subject) == (certificate,)
    assert EndorsementSet.parse([A]).with_subject(certificate.issuer) == ()


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"hello",
        A + b"\0",
        A[:-1],
        b"\x30\x00",
        LIST[:-1],
        LIST + b"\0",
        b"-----BEGIN CERTIFICATE-----\n",
        A_PEM[:-10],
        A_PEM.replace(b"M", b"*", 1),
        A_PEM.replace(b"=", b"", 1) if b"=" in A_PEM else A_PEM[:-30],
        A_PEM.replace(b"BEGIN CERTIFICATE", b"BEGIN X509 CRL"),
        A_PEM + b"-----BEGIN CERTIFICATE-----\nAAAA",
        b"-----BEGIN CERTIFICATE-----" + b"\n" * 400_000,  # in time that grows with the length, not with its square
        b"-----BEGIN CERTIFICATE-----" + b" " * 400_000,
        b"-----BEGIN CERTIFICATE-----\n" * 14_000,
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        bytes(MAX_SIZE + 1),
    ],
    ids=range(19),
)
def test_what_is_neither(blob: bytes) -> None:
    with pytest.raises(EndorsementMalformed):
        EndorsementSet.parse([A, blob])


def test_every_prefix_is_malformed() -> None:
    for whole in (A, LIST):
        for length in range(len(whole)):
            with pytest.raises(EndorsementMalformed):
                EndorsementSet.parse([whole[:length]])


def test_every_flipped_byte_parses_or_is_malformed() -> None:
    for whole in (A, LIST):
        for position in range(len(whole)):
            flipped = bytearray(whole)
            flipped[position] ^= 0x55
            with contextlib.suppress(EndorsementMalformed):
                found = EndorsementSet.parse([bytes(flipped)])
                for certificate in found.certificates:
                    for read in ("common_name", "spki_fingerprint", "unknown_extensions"):
                        with contextlib.suppress(EndorsementMalformed):
                            getattr(certificate, read)
                for crl in found.crls:
                    with contextlib.suppress(EndorsementMalformed):
                        crl.lists(Certificate(A))


@given(st.binary(max_size=200))
def test_any_bytes_are_endorsements_or_raise_one_error(blob: bytes) -> None:
    for data in (blob, b"-----BEGIN CERTIFICATE-----\n" + blob + b"\n-----END CERTIFICATE-----\n"):
        try:
            found = EndorsementSet.parse([data])
        except EndorsementMalformed:
            continue
        assert found.documents == (data,)
        assert not found.certificates
        assert not found.crls


def test_documents_are_kept_byte_for_byte() -> None:
    """JSON and XML may hold PEM in their strings; it is not taken out of them."""
    signed = b'{"tcbInfo":{},"signature":"00","chain":"-----BEGIN CERTIFICATE-----"}'
    manifest = b"<?xml version='1.0'?><SoftwareIdentity/>"
    answer = bytes.fromhex("30030a0106")
    found = EndorsementSet.parse([signed, manifest, answer, A])
    assert found.documents == (signed, manifest, answer)
    assert found.certificates == (Certificate(A),)
    assert found.digest != EndorsementSet.parse([signed, manifest, A]).digest
    assert found.plus().documents == found.documents
    assert EndorsementSet.parse([A]).with_all(found) == found


def test_crl_without_next_update() -> None:
    with pytest.raises(EndorsementMalformed):
        Crl(LIST.replace(b"260602000000Z", b"260602000000X"))


@pytest.mark.vectors
def test_serial_number_zero_loads_without_a_warning(vectors: Path) -> None:
    """Every VCEK has it; RFC 5280 forbids it. Should the library refuse it one day, this says so first."""
    certificate = Certificate((vectors / "snp/certs/milan-v2-aci-vcek.der").read_bytes())
    assert certificate.serial == 0
    assert certificate.unknown_extensions["1.3.6.1.4.1.3704.1.2"] == b"\x16\x08Milan-B0"


def test_a_negative_serial_number_in_an_extension_is_malformed_where_warnings_are_errors() -> None:
    key_id = x509.AuthorityKeyIdentifier(bytes(20), [x509.DirectoryName(_name("issuer"))], 0x7F)
    encoded = _builder().add_extension(key_id, critical=False).sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)
    assert encoded.count(b"\x82\x01\x7f") == 1
    certificate = Certificate(encoded.replace(b"\x82\x01\x7f", b"\x82\x01\xff"))
    with pytest.raises(EndorsementMalformed):
        _ = certificate.extensions


@pytest.mark.vectors
def test_all_vendors_roots_parse(vectors: Path) -> None:
    for vendor in ("amd", "intel", "aws", "nvidia"):
        (file, *_) = sorted((vectors / "roots").glob(f"{vendor}-*.pem"))
        assert EndorsementSet.parse([file.read_bytes()]).certificates, file


@pytest.mark.vectors
def test_pinned_roots_are_amd_s(vectors: Path) -> None:
    """The digests in the code, computed again from the certificates."""
    from adyton.tee.snp.endorsements import ROOTS

    for product, pin in ROOTS.items():
        bundle = (vectors / f"roots/amd-{product.value.lower()}-ask-ark-asvk.pem").read_bytes()
        named = {c.common_name: c.spki_fingerprint for c in EndorsementSet.parse([bundle]).certificates}
        assert named[f"ARK-{product.value}"] == pin
        assert list(named.values()).count(pin) == 1
