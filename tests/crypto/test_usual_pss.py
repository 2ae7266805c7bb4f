"""Certificates of AMD's form are read to what ``cryptography`` reads, or not at all; AMD's real ones are of that form."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.crypto.agreeing import agree, same

from adyton.crypto import usual, usual_pss
from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.errors import EndorsementMalformed
from adyton.wire import der

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of serial numbers
NOW = datetime(2026, 6, 1, tzinfo=UTC)
ARC = "1.3.6.1.4.1.3704.1"
PSS = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
AMD = (
    (NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
    (NameOID.COUNTRY_NAME, "US"),
    (NameOID.LOCALITY_NAME, "Santa Clara"),
    (NameOID.STATE_OR_PROVINCE_NAME, "CA"),
    (NameOID.ORGANIZATION_NAME, "Advanced Micro Devices"),
)
Extension = tuple[x509.ExtensionType, bool]


def usage(*names: str) -> Extension:
    every = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: name in names for name in every}), True


def authority(length: int | None = None) -> Extension:
    return x509.BasicConstraints(ca=True, path_length=length), True


def points(size: int) -> Extension:
    uri = x509.UniformResourceIdentifier("u" * size)
    return x509.CRLDistributionPoints([x509.DistributionPoint([uri], None, None, None)]), False


def own(below: str, value: bytes) -> Extension:
    return x509.UnrecognizedExtension(ObjectIdentifier(f"{ARC}.{below}"), value), False


@cache
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 4096)


def ski() -> Extension:
    return x509.SubjectKeyIdentifier.from_public_key(key().public_key()), False


def aki() -> Extension:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key().public_key()), False


def made(
    *extensions: Extension, name: str = "ARK-Milan", issuer: str = "ARK-Milan", serial: int = 1, days: int = 9
) -> bytes:
    names = [
        x509.Name([x509.NameAttribute(*pair) for pair in (*AMD, (NameOID.COMMON_NAME, n))]) for n in (issuer, name)
    ]
    builder = x509.CertificateBuilder(names[0], names[1], key().public_key(), serial)
    builder = builder.not_valid_before(NOW).not_valid_after(NOW + timedelta(days))
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    return builder.sign(key(), hashes.SHA384(), rsa_padding=PSS).public_bytes(Encoding.DER)


def chip(*more: Extension, levels: int = 3) -> tuple[Extension, ...]:
    svns = (own(f"3.{number}", der_integer(levels)) for number in (1, 2, 4, 5, 6, 7, 3, 8))
    return (own("1", der_integer(0)), own("2", b"\x16\x05Genoa"), *svns, own("4", bytes(64)), *more)


def der_integer(value: int) -> bytes:
    return bytes((2, 1, value)) if value < 0x80 else bytes((2, 2, 0, value))


def parts_agree(encoded: bytes) -> bool:
    """Whether it went in one go; then to the parts that going from element to element gives."""
    try:
        got = usual_pss.certificate(encoded)
    except IndexError:
        return False
    if got is None:
        return False
    found, signed, signature, key_end, end = usual.parts(encoded, 7, 2)
    (version, _), (_, serial), (_, algorithm), (_, issuer), _, (_, subject), (_, spki) = found
    assert version == 0xA0
    assert got == (serial, issuer, subject, algorithm, spki, signed, signature, key_end, end)
    return True


def lean(encoded: bytes) -> bool:
    """Whether parts and extensions are read in one go, and rightly."""
    _, signed_at, _ = der.bounds(encoded)
    end = der.bounds(encoded, signed_at)[2]
    answered = agree(encoded)
    assert answered is (usual.extensions(encoded, Certificate(encoded)._extensions_at, end) is not None)
    return parts_agree(encoded) and answered


def amds(vectors: Path) -> list[bytes]:
    found: dict[bytes, None] = {}
    for path in sorted(vectors.rglob("*")):
        if not path.is_file() or path.stat().st_size > 1 << 16:
            continue
        try:
            given = EndorsementSet.parse([path.read_bytes()]).certificates
        except EndorsementMalformed:
            continue
        found |= {item.der: None for item in given if b"Advanced Micro Devices" in item.issuer}
    return list(found)


@pytest.mark.vectors
def test_all_of_amds_certificates_are_of_this_form(vectors: Path) -> None:
    found = amds(vectors)
    names = {Certificate(encoded).common_name for encoded in found}
    assert {"ARK-Milan", "SEV-Milan", "SEV-VLEK-Milan", "ARK-Turin", "SEV-VCEK", "SEV-VLEK"} <= names
    for encoded in found:
        assert lean(encoded)


@pytest.mark.vectors
@pytest.mark.slow
def test_every_changed_byte_of_amds_certificates(vectors: Path) -> None:
    kinds: dict[str, bytes] = {Certificate(encoded).common_name: encoded for encoded in amds(vectors)}
    for encoded in kinds.values():
        start, last = Certificate(encoded)._extensions_at, len(encoded) - 500
        for offset in (*range(min(start, 400)), *range(start - 30, last)):
            for change in (0x01, 0x02, 0x80, 0xFF):
                changed = bytearray(encoded)
                changed[offset] ^= change
                parts_agree_or_foreign(bytes(changed))
                same(bytes(changed))


def parts_agree_or_foreign(encoded: bytes) -> None:
    assert parts_agree(encoded) in {True, False}
    for cut in (1, 100, 600):
        assert not parts_agree(encoded[:-cut])


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 2),
    st.lists(st.tuples(st.integers(0, 1700), st.integers(0, 255)), min_size=1, max_size=4),
    st.tuples(st.integers(0, 1700), st.integers(0, 3), st.binary(max_size=3)),
)
def test_changed_at_random(which: int, changes: list[tuple[int, int]], splice: tuple[int, int, bytes]) -> None:
    encoded = forms()[which]
    changed = bytearray(encoded)
    for offset, value in changes:
        changed[offset % len(changed)] = value
    at, gone, more = splice
    for candidate in (bytes(changed), encoded[:at] + more + encoded[at + gone :]):
        parts_agree(candidate)
        same(candidate)


@cache
def forms() -> tuple[bytes, bytes, bytes]:
    return (
        made(usage("key_cert_sign", "crl_sign"), ski(), authority(), points(41)),
        made(ski(), aki(), authority(0), usage("key_cert_sign"), points(41), name="SEV-Milan"),
        made(*chip(), name="SEV-VCEK", issuer="SEV-Milan"),
    )


def test_dates_after_2049_are_written_longer() -> None:
    for days in (8000, 10000):
        assert lean(made(*chip(), days=days))


def test_the_three_forms() -> None:
    for encoded in forms():
        assert lean(encoded)
        written = Certificate(encoded).parsed.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert Certificate(encoded).spki == written


@pytest.mark.parametrize("size", [1, 20, 23, 24, 25, 26, 27, 28, 43, 0x60, 0x70, 0x80])
def test_lengths_around_the_short_ones(size: int) -> None:
    for first in (
        (usage("key_cert_sign", "crl_sign"), ski(), authority()),
        (ski(), aki(), authority(0), usage("key_cert_sign")),
        (ski(), aki(), authority(200), usage("key_cert_sign")),
    ):
        agree(made(*first, points(size)))
        agree(made(*first))


@pytest.mark.parametrize("level", [0, 127, 128, 255])
def test_svns_of_either_length(level: int) -> None:
    encoded = made(*chip(levels=level), name="SEV-VCEK")
    assert lean(encoded)


@pytest.mark.parametrize("size", [1, 17, 18, 19, 20, 60])
def test_names_around_the_short_ones(size: int) -> None:
    encoded = made(*chip(), name="n" * size, issuer="i" * size)
    assert lean(encoded)
    assert Certificate(encoded).common_name == "n" * size


def test_other_forms_are_left_to_the_library() -> None:
    root = (usage("key_cert_sign", "crl_sign"), ski(), authority())
    unknown = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), bytes(3))
    for extensions in (
        (),
        (*root, (unknown, False)),
        (root[1], root[0], root[2]),
        ((root[0][0], False), *root[1:]),
        (usage("digital_signature"), *root[1:]),
        (*root[:2], (x509.BasicConstraints(ca=False, path_length=None), True)),
        chip((unknown, False)),
        chip((unknown, True)),
        chip(own("3.10", der_integer(1))),
        chip(own("6", der_integer(1))),
        (*chip()[:-1], (chip()[-1][0], True)),
    ):
        assert not agree(made(*extensions))


def test_an_extension_that_comes_twice_is_refused() -> None:
    encoded = made(*chip())
    arc = bytes.fromhex("2b060104019c780103")
    twice = encoded.replace(arc + b"\x02", arc + b"\x01")
    assert twice != encoded
    same(twice)
    with pytest.raises(EndorsementMalformed):
        _ = Certificate(twice).unknown_extensions


def test_a_common_name_is_one_only_where_it_is_the_last_part_of_amds() -> None:
    name = Certificate(made()).subject
    assert usual_pss.common_name(name) == b"ARK-Milan"
    for other in (name[1:], name[:-1], name + b"\0", name.replace(b"US", b"DE"), name + name[-20:], b"", name[:113]):
        assert usual_pss.common_name(other) is None
    for offset in range(len(name) - 9):
        changed = bytearray(name)
        changed[offset] ^= 1
        assert usual_pss.common_name(bytes(changed)) is None


def test_a_key_is_taken_as_it_stands_only_if_it_would_be_written_so() -> None:
    spki = Certificate(forms()[0]).spki
    assert usual_pss.is_rsa_4096(spki)
    for offset, change in ((5, 1), (30, 1), (33, 0x80), (-1, 2), (-5, 1)):
        changed = bytearray(spki)
        changed[offset] ^= change
        assert not usual_pss.is_rsa_4096(bytes(changed)) or offset == 33
