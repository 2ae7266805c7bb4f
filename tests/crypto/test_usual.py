"""The lean reading of extensions answers what ``cryptography`` answers, or not at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st
from tests.crypto.agreeing import agree, same

from adyton.crypto import usual
from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.devtee.dcap import DcapForge, sgx_body
from adyton.errors import EndorsementMalformed
from adyton.tee.dcap.quote import Quote

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of names that are too long, and of serial numbers
NOW = datetime(2026, 6, 1, tzinfo=UTC)
KEY = ec.derive_private_key(7, ec.SECP256R1())
BITS = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
MORE = ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")


def _chain() -> list[bytes]:
    quote = DcapForge.new(NOW).quote(sgx_body()).encode()
    text = Quote.parse(quote).certification_data.rstrip(b"\0")
    return [certificate.der for certificate in EndorsementSet.parse([text]).certificates]


CHAIN = _chain()


def test_every_certificate_of_the_vectors_reads_thesame(vectors: Path) -> None:
    seen: set[bytes] = set()
    lean = 0
    for path in sorted(vectors.rglob("*")):
        if not path.is_file() or path.stat().st_size > 1 << 20:
            continue
        content = path.read_bytes()
        try:
            found = EndorsementSet.parse([content]).certificates
        except EndorsementMalformed:
            continue
        if not found and b"-----BEGIN CERTIFICATE-----" in content:  # texts in JSON
            texts = content.replace(b"\\r", b"").replace(b"\\n", b"\n").split(b"-----BEGIN CERTIFICATE-----")[1:]
            for text in texts:
                block = b"-----BEGIN CERTIFICATE-----" + text.partition(b"-----END")[0] + b"-----END CERTIFICATE-----\n"
                try:
                    found += EndorsementSet.parse([block]).certificates
                except EndorsementMalformed:
                    continue
        for certificate in found:
            if certificate.der not in seen and certificate.serial > 0:
                seen.add(certificate.der)
                lean += agree(certificate.der)
    assert len(seen) > 20
    assert lean > 5


def test_a_forged_chain_has_the_usual_form() -> None:
    assert all(agree(encoded) for encoded in CHAIN)


def test_every_changed_byte_reads_the_same_or_is_refused_by_both() -> None:
    for encoded in CHAIN:
        start = Certificate(encoded)._extensions_at - 100
        for offset in range(start, len(encoded) - 75):
            for change in (0x01, 0x02, 0x80, 0xFF):
                changed = bytearray(encoded)
                changed[offset] ^= change
                same(bytes(changed))


@given(
    st.sampled_from(CHAIN),
    st.lists(st.tuples(st.integers(0, 1300), st.integers(0, 255)), min_size=1, max_size=4),
    st.tuples(st.integers(0, 1300), st.integers(0, 3), st.binary(max_size=3)),
)
def test_changed_certificates(encoded: bytes, changes: list[tuple[int, int]], splice: tuple[int, int, bytes]) -> None:
    changed = bytearray(encoded)
    for offset, value in changes:
        changed[offset % len(changed)] = value
    same(bytes(changed))
    at, gone, more = splice
    same(encoded[:at] + more + encoded[at + gone :])


def _made(*extensions: tuple[x509.ExtensionType, bool]) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
    builder = (
        x509.CertificateBuilder(name, name, KEY.public_key(), 5)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(1))
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def _points(size: int) -> x509.CRLDistributionPoints:
    uri = x509.UniformResourceIdentifier("u" * size)
    return x509.CRLDistributionPoints([x509.DistributionPoint([uri], None, None, None)])


AKI = x509.AuthorityKeyIdentifier.from_issuer_public_key(KEY.public_key())
SKI = x509.SubjectKeyIdentifier.from_public_key(KEY.public_key())
INTEL = x509.UnrecognizedExtension(ObjectIdentifier(usual.INTEL), bytes(300))
SIGNS = x509.KeyUsage(**{name: name in {"key_cert_sign", "crl_sign"} for name in (*BITS, *MORE)})
LEAF = x509.BasicConstraints(ca=False, path_length=None)


@pytest.mark.parametrize("size", [1, 0x30, 0x5B, 0x60, 0x6C, 0x6D, 0x6E, 0x70, 0x80, 0x100])
@pytest.mark.parametrize("length", [None, 0, 1, 7, 8, 127, 128])
def test_lengths(size: int, length: int | None) -> None:
    constraints = x509.BasicConstraints(ca=length is not None, path_length=length)
    usual_ones = ((AKI, False), (_points(size), False), (SKI, False), (SIGNS, True), (constraints, True))
    known = 0x30 <= size <= 0x60 and (length is None or length <= 7)
    assert agree(_made(*usual_ones)) >= known
    assert agree(_made(*usual_ones, (INTEL, False))) >= known


def test_other_forms_are_left_to_the_library() -> None:
    usual_ones: list[tuple[x509.ExtensionType, bool]] = [(AKI, False), (_points(9), False), (SKI, False)]
    other = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), bytes(300))
    for last in (
        [(SIGNS, False), (LEAF, True)],
        [(SIGNS, True), (LEAF, False)],
        [(LEAF, True), (SIGNS, True)],
        [(SIGNS, True), (LEAF, True), (INTEL, True)],
        [(SIGNS, True), (LEAF, True), (other, False)],
        [(SIGNS, True), (LEAF, True), (INTEL, False), (other, True)],
        [(SIGNS, True), (x509.BasicConstraints(ca=True, path_length=None), True)],
    ):
        assert not agree(_made(*usual_ones, *last))
    assert not agree(_made(*usual_ones[1:], (SIGNS, True), (LEAF, True)))
    assert not agree(_made())


def test_extensions_that_come_twice_are_refused() -> None:
    encoded = _made((AKI, False), (_points(9), False), (SKI, False), (SIGNS, True), (LEAF, True), (INTEL, False))
    twice = encoded.replace(
        bytes.fromhex("300c0603551d130101ff04023000"), bytes.fromhex("300e0603551d0f0101ff040403020106")
    )
    assert twice != encoded
    same(twice)
