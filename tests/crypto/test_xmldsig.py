"""Signed XML of exactly one shape: everything else is refused, whatever it is."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from adyton.crypto import xmldsig
from adyton.devtee import nvidia_endorsements as made
from adyton.errors import EndorsementMalformed

NOW = datetime(2026, 6, 1, tzinfo=UTC)
TEXT = made.swid({7: [bytes(48)]}, {"product": "p"}, count=8)
CHAIN = made.manifest_chain(NOW)
SIGNED = made.sign_xml(TEXT, CHAIN).decode()


def between(begin: str, end: str) -> str:
    match = re.search(f"{begin}.*?{end}", SIGNED, re.DOTALL)
    assert match is not None
    return match[0]


SIGNATURE = between("<ds:Signature ", "</ds:Signature>")
VALUE = between("<ds:SignatureValue>", "</ds:SignatureValue>")
DIGEST = between("<ds:DigestValue>", "</ds:DigestValue>")
INFO = between("<ds:SignedInfo>", "</ds:SignedInfo>")
FIRST = between("<ds:X509Certificate>", "</ds:X509Certificate>")
METHOD = between("<ds:SignatureMethod ", "</ds:SignatureMethod>")

CHANGES = {
    "no signature": (SIGNATURE, ""),
    "two signatures": (SIGNATURE, SIGNATURE * 2),
    "a signature deeper down": (SIGNATURE, f"<x>{SIGNATURE}</x>"),
    "no certificates": (between("<ds:X509Data>", "</ds:X509Data>"), "<ds:X509Data></ds:X509Data>"),
    "nine certificates": (FIRST, FIRST * 9),
    "other key information": (FIRST, "<ds:KeyName>k</ds:KeyName>"),
    "a value that is not base64": (VALUE, "<ds:SignatureValue>*</ds:SignatureValue>"),
    "a value of the wrong size": (VALUE, "<ds:SignatureValue>AAAA</ds:SignatureValue>"),
    "a digest of the wrong size": (DIGEST, "<ds:DigestValue>AAAA</ds:DigestValue>"),
    "an element in a value": (DIGEST, "<ds:DigestValue><a/></ds:DigestValue>"),
    "an attribute on a value": ("<ds:DigestValue>", '<ds:DigestValue Id="a">'),
    "two references": (
        between("<ds:Reference ", "</ds:Reference>"),
        between("<ds:Reference ", "</ds:Reference>") * 2,
    ),
    "an attribute on the reference": ('URI=""', 'URI="" Id="x"'),
    "no reference": ('<ds:Reference URI="">', "<ds:Reference>"),
    "a parameter of an algorithm": (METHOD, METHOD.replace("></", "><ds:HMACOutputLength>1</ds:HMACOutputLength></")),
    "text between the parts": ("<ds:KeyInfo>", "x<ds:KeyInfo>"),
    "an attribute of the xml: name space": ("<ns0:Payload>", '<ns0:Payload xml:lang="en">'),
    "an undeclared name space": ("<ns0:Payload>", "<ns9:Payload>"),
    "a document type": ("<SoftwareIdentity", "<!DOCTYPE a><SoftwareIdentity"),
    "an entity": ("<SoftwareIdentity", "<!ENTITY a 'b'><SoftwareIdentity"),
    "an unknown entity": ("<ns0:Payload>", "<ns0:Payload>&a;"),
    "two roots": ("</SoftwareIdentity>", "</SoftwareIdentity><a/>"),
    "another encoding": ("<SoftwareIdentity", '<?xml version="1.0" encoding="utf-16"?><SoftwareIdentity'),
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_shapes_are_refused(name: str) -> None:
    old, new = CHANGES[name]
    changed = SIGNED.replace(old, new)
    assert changed != SIGNED
    document = changed.encode("utf-16") if name == "another encoding" else changed.encode()
    with pytest.raises(EndorsementMalformed) as caught:
        xmldsig.parse(document)
    assert caught.value.code == "xml_malformed"


def test_too_large_too_many_too_deep() -> None:
    for text in ("x" * xmldsig.MAX_SIZE, "<a/>" * (xmldsig.MAX_ELEMENTS + 1), "<a>" * 5000 + "</a>" * 5000):
        with pytest.raises(EndorsementMalformed):
            xmldsig.parse(SIGNED.replace("</ns0:Payload>", f"{text}</ns0:Payload>").encode())
    with pytest.raises(EndorsementMalformed):
        xmldsig.read(b"<a>")
    with pytest.raises(EndorsementMalformed):
        xmldsig.read(b"<!DOCTYPE a><a/>")


def test_a_changed_document_does_not_match() -> None:
    for old, new in (
        ("development", "deployment"),
        ("</ns0:Payload>", " </ns0:Payload>"),
        (SIGNATURE, f" {SIGNATURE}"),
    ):
        read = xmldsig.parse(SIGNED.replace(old, new).encode())
        assert not read.digest_matches()


def test_a_changed_reference_is_not_signed() -> None:
    other = made.sign_xml(TEXT.replace("development", "deployment"), CHAIN).decode()
    forged = SIGNED.replace(INFO, re.search("<ds:SignedInfo>.*?</ds:SignedInfo>", other)[0])  # type: ignore[index]
    read = xmldsig.parse(forged.encode())
    assert not read.is_signed_by(CHAIN[0].key.public_key())
    assert not read.digest_matches()


def test_another_key() -> None:
    read = xmldsig.parse(SIGNED.encode())
    assert read.is_signed_by(CHAIN[0].key.public_key())
    assert not read.is_signed_by(CHAIN[1].key.public_key())
    with pytest.raises(ValueError, match="P-384"):
        read.is_signed_by(ec.generate_private_key(ec.SECP256R1()).public_key())


def test_what_is_read_is_what_was_signed() -> None:
    """White space, comments, order of attributes and empty tags differ; the canonical text does not."""
    loose = (
        SIGNED.replace("<ns0:Payload>", "<ns0:Payload><!-- no -->")
        .replace('name="development">', "name='development' >", 1)
        .replace("></ns0:Resource>", "/>")
        .replace(DIGEST, DIGEST.replace("<ds:DigestValue>", "<ds:DigestValue>\n  "))
    )
    assert loose != SIGNED
    strict, read = xmldsig.parse(SIGNED.encode()), xmldsig.parse(loose.encode())
    assert read.content == strict.content == TEXT.encode()
    assert read.digest_matches()
    assert read.certificates == tuple(holder.der for holder in CHAIN)


def test_a_signature_that_stands_first() -> None:
    bare = SIGNED.replace(SIGNATURE, "")
    first = bare.replace('name="development">', f'name="development">{SIGNATURE}', 1)
    read = xmldsig.parse(first.encode())
    assert read.digest_matches()
    assert read.is_signed_by(CHAIN[0].key.public_key())


@given(
    st.binary(max_size=300) | st.integers(0, len(SIGNED) - 9).map(lambda at: (SIGNED[:at] + SIGNED[at + 3 :]).encode())
)
def test_any_bytes_are_read_or_malformed(data: bytes) -> None:
    try:
        read = xmldsig.parse(data)
    except EndorsementMalformed:
        return
    assert read.content


@pytest.mark.parametrize(
    "many",
    [
        " ".join(f'a{number}=""' for number in range(60_000)),  # took fifteen seconds
        " ".join(f'xmlns:a{number}="u{number}"' for number in range(20_000)),
        " ".join(f'xmlns:a{number}="u{number}" a{number}:b=""' for number in range(10_000)),
    ],
)
def test_tags_that_would_keep_the_parser_busy(many: str) -> None:
    document = SIGNED.replace("<ns0:Payload>", f"<ns0:Payload {many}>").encode()
    assert len(document) < xmldsig.MAX_SIZE
    with pytest.raises(EndorsementMalformed, match="more than 256 attributes"):
        xmldsig.parse(document)


def test_name_spaces_that_would_keep_the_parser_busy() -> None:
    spread = "".join(f'<x xmlns:a{number}="u"/>' for number in range(300))
    with pytest.raises(EndorsementMalformed, match="more than 256 declarations"):
        xmldsig.parse(SIGNED.replace("<ns0:Payload>", f"<ns0:Payload>{spread}").encode())
