"""Taking a certificate or a CRL apart in one go gives what going from element to element gives, or is refused with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from adyton.crypto import usual
from adyton.crypto.usual_form import CertificateParts
from adyton.crypto.x509 import Crl, EndorsementSet
from adyton.devtee.dcap import DcapForge, sgx_body
from adyton.errors import EndorsementMalformed
from adyton.tee.dcap import documents
from adyton.tee.dcap.quote import Quote

FOREIGN = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    CryptographyDeprecationWarning,  # where warnings are errors
)
NOW = datetime(2026, 6, 1, tzinfo=UTC)
KEY = ec.derive_private_key(9, ec.SECP256R1())


def named(name: str) -> x509.Name:
    """In parts of 50 characters."""
    parts = [name[at : at + 50] for at in range(0, len(name), 50)]
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, part) for part in parts])


def certificate(issuer: int = 20, subject: int = 20, serial: int = 5, digest: Any = None) -> bytes:
    builder = x509.CertificateBuilder().issuer_name(named("i" * issuer)).subject_name(named("s" * subject))
    builder = builder.public_key(KEY.public_key()).serial_number(serial)
    builder = builder.not_valid_before(NOW).not_valid_after(NOW + timedelta(days=9))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), bytes(200)), critical=False
    )  # as long as all that anybody issues
    return builder.sign(KEY, digest or hashes.SHA256()).public_bytes(Encoding.DER)


def crl(revoked: int = 0, number: int | None = 1, *, more: bool = False, key_id: bool = True, name: int = 20) -> bytes:
    builder = x509.CertificateRevocationListBuilder().issuer_name(named("i" * name))
    builder = builder.last_update(NOW).next_update(NOW + timedelta(days=9))
    for serial in range(1, revoked + 1):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW).build()
        builder = builder.add_revoked_certificate(entry)
    if number is not None:
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    if key_id:
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(KEY.public_key()), critical=False
        )
    if more:
        builder = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def _forged() -> tuple[list[bytes], list[bytes]]:
    forge = DcapForge.new(NOW)
    text = Quote.parse(forge.quote(sgx_body()).encode()).certification_data.rstrip(b"\0")
    given = documents.read(EndorsementSet.parse(forge.collateral("sgx").blobs()))
    return [item.der for item in EndorsementSet.parse([text]).certificates], [item.der for item in given.pool.crls]


FORGED = _forged()
CERTIFICATES = [*FORGED[0][:2], certificate()]
CRLS = [*FORGED[1], crl(), crl(3), crl(400), crl(more=True), crl(number=None), crl(key_id=False), crl(number=300)]


def stepwise(encoded: bytes) -> CertificateParts | None:
    """By elements; ``None`` if they cannot be told."""
    try:
        found, signed, signature, key_end, end = usual.parts(encoded, 7, 2)
    except ValueError:
        return None
    version, serial, algorithm, issuer, _, subject, key = (content for _, content in found)
    if found[0][0] != 0xA0 or version is None:
        return None
    return serial, issuer, subject, algorithm, key, signed, signature, key_end, end


def check(encoded: bytes) -> bool:
    """Whether it went in one go."""
    try:
        got = usual.certificate(encoded)
    except ValueError:
        assert stepwise(encoded) is None
        return False
    assert got == stepwise(encoded)
    try:
        return usual._usual_certificate(encoded) is not None
    except IndexError:
        return False


def check_crl(encoded: bytes) -> None:
    try:
        found, signed, signature, _, _ = usual.parts(encoded, 3, 1)
        wanted = (found[2][1], found[1][1], signed, signature) if found[0][0] == 2 else None
    except ValueError:
        wanted = None
    try:
        got = usual.crl(encoded)
    except ValueError:
        assert wanted is None
        return
    assert got[:4] == wanted
    try:
        parsed = x509.load_der_x509_crl(encoded)
        extensions = list(parsed.extensions)
        complete = parsed.next_update_utc is not None
    except FOREIGN:
        with pytest.raises(EndorsementMalformed):
            Crl(encoded)
        return
    if not complete:
        return
    ours = Crl(encoded)
    assert ours.critical == tuple(item.oid.dotted_string for item in extensions if item.critical)
    numbers = [item.value.crl_number for item in extensions if isinstance(item.value, x509.CRLNumber)]
    assert ours.number == (numbers[0] if numbers else None)


@pytest.mark.parametrize("encoded", CERTIFICATES)
def test_every_changed_and_every_missing_byte(encoded: bytes) -> None:
    assert check(encoded)
    assert not check(FORGED[0][2])  # whose end is after 2049, which is written in another way
    for offset in range(len(encoded)):
        assert not check(encoded[:offset])
        for change in (0x01, 0x02, 0x10, 0x80, 0xFF):
            changed = bytearray(encoded)
            changed[offset] ^= change
            check(bytes(changed))


@pytest.mark.parametrize("encoded", CRLS)
def test_every_changed_byte_of_a_crl(encoded: bytes) -> None:
    check_crl(encoded)
    for offset in range(min(len(encoded), 900)):
        check_crl(encoded[:offset])
        for change in (0x01, 0x02, 0x10, 0x80, 0xFF):
            changed = bytearray(encoded)
            changed[offset] ^= change
            check_crl(bytes(changed))


@given(
    st.sampled_from([*CERTIFICATES, *CRLS]),
    st.lists(st.tuples(st.integers(0, 1300), st.integers(0, 255)), max_size=4),
    st.tuples(st.integers(0, 1300), st.integers(0, 4), st.binary(max_size=4)),
)
def test_changed_at_random(encoded: bytes, changes: list[tuple[int, int]], splice: tuple[int, int, bytes]) -> None:
    changed = bytearray(encoded)
    for offset, value in changes:
        changed[offset % len(changed)] = value
    at, length, new = splice
    changed[at : at + length] = new
    check(bytes(changed))
    check_crl(bytes(changed))


def test_lengths_of_names_and_serial_numbers() -> None:
    for size in (1, 40, 80, 104, 105, 106, 107, 108, 150, 180, 210, 211, 212, 213, 214, 300):
        check_crl(crl(name=size))
        for other in (1, 105, 106, 107, 300):
            assert check(certificate(size, other)) or max(size, other) > 200
    assert not check(certificate(300))
    for serial in (1, 0x7F, 0x80, 1 << 100, (1 << 159) - 1):
        assert check(certificate(serial=serial))
    assert not check(certificate(digest=hashes.SHA384()))


@pytest.mark.vectors
def test_the_vectors_crls_and_certificates(vectors: Path) -> None:
    usual_ones = 0
    for path in sorted(vectors.rglob("*")):
        if not path.is_file() or path.stat().st_size > 1 << 20:
            continue
        try:
            found = documents.read(EndorsementSet.parse([path.read_bytes()])).pool
        except EndorsementMalformed:
            continue
        usual_ones += sum(check(item.der) for item in found.certificates)
        for item in found.crls:
            check_crl(item.der)
    assert usual_ones > 50


CN, ORGANISATION = bytes.fromhex("0603550403"), bytes.fromhex("060355040a")


def part(*pairs: tuple[bytes, int, bytes]) -> bytes:
    """One part of a name: a SET of pairs of identifier and value, whose tag is in the middle."""

    def element(tag: int, content: bytes) -> bytes:
        return (
            bytes((tag, len(content))) + content if len(content) < 0x80 else bytes((tag, 0x81, len(content))) + content
        )

    return element(0x31, b"".join(element(0x30, oid + element(tag, value)) for oid, tag, value in pairs))


NAMES = {
    "first": (part((CN, 12, b"a")) + part((ORGANISATION, 12, b"b")), [b"a"]),
    "later": (part((ORGANISATION, 12, b"b")) + part((CN, 12, b"a")), [b"a"]),
    "twice": (part((CN, 12, b"a")) + part((CN, 12, b"b")), [b"a", b"b"]),
    "printable": (part((CN, 19, b"a")), [b"a"]),
    "no text": (part((CN, 4, b"a")), []),
    "beside another": (part((CN, 12, b"a"), (ORGANISATION, 12, b"b")), [b"a"]),
    "second in its part": (part((ORGANISATION, 12, b"b"), (CN, 19, b"a")), [b"a"]),
    "long": (part((CN, 12, b"a" * 200)), [b"a" * 200]),
    "empty": (part((CN, 12, b"")), [b""]),
    "its identifier in a value": (part((CN, 12, b"a")) + part((ORGANISATION, 12, CN)), [b"a"]),
    "none": (part((ORGANISATION, 12, b"b")), []),
}


@pytest.mark.parametrize("what", NAMES)
def test_common_names(what: str) -> None:
    name, wanted = NAMES[what]
    assert usual.common_names(name) == wanted
    for cut in range(1, len(name)):  # never more than there is, whatever is missing
        try:
            assert set(usual.common_names(name[:-cut])) <= set(wanted)
        except ValueError:
            continue
