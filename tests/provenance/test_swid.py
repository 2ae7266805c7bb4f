"""SWID tags under an enveloped signature."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.provenance import signing
from tests.provenance.signing import HASH, NOW

from adyton.devtee import nvidia_endorsements as made
from adyton.errors import AdytonError
from adyton.provenance import Provider, Statement, read

RIM = "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/"
META = {"edition": "GPU-a", "ns1:PlatformManufacturerStr": "Some Maker"}


@cache
def chain() -> Any:
    return made.manifest_chain(NOW)


@cache
def entry() -> Provider:
    pem = chain()[0].key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return signing.entry(keys=[pem])


def text(
    golden: Any = None, *, payload: str | None = None, root: str = 'tagId="t" tagVersion="3"', meta: Any = None
) -> str:
    made_of = made.swid(golden or {0: [b"\x11" * 48, bytes(48)], 1: [bytes(48)]}, meta or META, count=3)
    made_of = made_of.replace("<ns0:Meta", f'<ns0:Meta xmlns:ns1="{RIM}"')
    made_of = made_of.replace('name="development"', f'name="development" {root}'.rstrip())
    if payload is not None:
        head, _, tail = made_of.partition("<ns0:Payload>")
        made_of = head + "<ns0:Payload>" + payload + "</ns0:Payload>" + tail.partition("</ns0:Payload>")[2]
    return made_of


def reading(document: bytes) -> Statement:
    return read(document, entry(), now=NOW)


def refused(document: bytes, code: str) -> AdytonError:
    with pytest.raises(AdytonError) as caught:
        reading(document)
    assert caught.value.code == code, caught.value.as_dict()
    return caught.value


def test_unsigned() -> None:
    refused(text().encode(), "swid_malformed")


def test_signed_by_another_key_whose_certificate_is_inside() -> None:
    refused(made.sign_xml(text(), made.manifest_chain(NOW)), "provenance_unsigned")
    refused(made.sign_xml(text(), chain(), key=chain()[1].key), "provenance_unsigned")


def test_changed_after_signing() -> None:
    refused(made.sign_xml(text(), chain()).replace(b"1111", b"1112", 1), "swid_digest")


@settings(deadline=None)
@given(st.integers(0, 2**20), st.integers(0, 7))
def test_one_flipped_bit_never_says_anything_else(at: int, bit: int) -> None:
    good = made.sign_xml(text(), chain())
    changed = bytearray(good)
    changed[at % len(good)] ^= 1 << bit
    try:
        assert reading(bytes(changed)).values == reading(good).values  # inside a certificate, which nobody reads
    except AdytonError:
        return


FILE = '<ns0:File xmlns:SHA256="http://www.w3.org/2001/04/xmlenc#sha256" name="{0}" SHA256:hash="{1}"></ns0:File>'


@pytest.mark.parametrize(
    "document",
    [
        text(root=""),
        text(root='tagId="t" tagVersion="-1"'),
        text(root='patch="true" tagId="t"'),
        text(root='supplemental="1" tagId="t"'),
        text(meta={"edition": "GPU"}),
        text(payload=""),
        text(payload="<ns0:Process></ns0:Process>"),
        text(payload=FILE.format("", HASH)),
        text(payload=FILE.format("a", HASH) * 2),
        text(payload='<ns0:File name="a"></ns0:File>'),
        text(payload='<ns0:Resource index="x" type="Measurement"></ns0:Resource>'),
        text(payload='<ns0:Resource index="1" type="Measurement"></ns0:Resource>'),
        text(payload="<ns0:Directory></ns0:Directory>"),
        text().replace("SoftwareIdentity", "SoftwareIdentity2").replace("SoftwareIdentity2>", "SoftwareIdentity>"),
    ],
)
def test_what_cannot_be_read_whole_is_refused(document: str) -> None:
    with pytest.raises(AdytonError):
        reading(made.sign_xml(document, chain()))


def test_short_hashes() -> None:
    refused(made.sign_xml(text(payload=FILE.format("a", "aa")), chain()), "digest_invalid")


def test_measurements() -> None:
    statement = reading(made.sign_xml(text(), chain()))
    assert {name: stated.value for name, stated in statement.values.items()} == {
        "Some_Maker.GPU_a.measurement_0": ["11" * 48]
    }
    (stated,) = statement.values.values()
    assert (stated.series, stated.issue, stated.exact) == ("swid:t", 3, True)


def test_files() -> None:
    inside = f'<ns0:Directory name="boot">{FILE.format("kernel", HASH)}</ns0:Directory>{FILE.format("loader", HASH)}'
    statement = reading(made.sign_xml(text(payload=inside), chain()))
    assert {name: stated.value for name, stated in statement.values.items()} == {
        "boot/kernel": [HASH],
        "loader": [HASH],
    }
