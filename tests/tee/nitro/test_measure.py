from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from adyton.devtee.cose_signing import sign1
from adyton.devtee.nitro import EIF_HEADER, Forge, Image, Section, signature_section
from adyton.errors import DocumentInvalid
from adyton.tee.nitro import eif, measure

KERNEL, LINE, INIT, APP = Section(1, b"kernel"), Section(2, b"line"), Section(3, b"init"), Section(3, b"app")
PLAIN = (KERNEL, LINE, INIT, APP)


def register(*contents: bytes) -> bytes:
    return hashlib.sha384(bytes(48) + hashlib.sha384(b"".join(contents)).digest()).digest()


@pytest.mark.parametrize(
    ("image", "field"),
    [
        (b"", "length"),
        (Image().encode()[: EIF_HEADER - 1], "length"),
        (Image(magic=b".elf").encode(), "magic"),
        (Image(version=1).encode(), "version"),
        (Image(version=5).encode(), "version"),
        (Image(crc=0).encode(), "crc"),
        (Image().encode()[:-1], "crc"),
        (Image().encode() + b"\0", "crc"),
        (Image(tail=b"\0").encode(), "length"),
        (Image(count=0).encode(), "sections"),
        (Image(count=33).encode(), "sections"),
        (Image(count=5).encode(), "sections"),
        (Image(count=3).encode(), "length"),
        (Image(offsets=(1, 2, 3, 4)).encode(), "sections"),
        (Image(sizes=(6, 13, 4, 12)).encode(), "sections"),
        (Image(sections=(*PLAIN, Section(6, b""))).encode(), "sections"),
        (Image(sections=(*PLAIN, Section(0, b""))).encode(), "sections"),
        (Image(sections=(Section(1, b"k", size=2**63),), sizes=(2**63,)).encode(), "sections"),
        (Image(sections=(KERNEL, LINE)).encode(), "sections"),
        (Image(sections=(KERNEL, KERNEL, LINE, INIT)).encode(), "sections"),
        (Image(sections=(KERNEL, INIT)).encode(), "sections"),
        (Image(sections=(LINE, INIT)).encode(), "sections"),
    ],
)
def test_images_that_are_not_measured(image: bytes, field: str) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        measure.image_pcrs(image)
    assert caught.value.code == f"eif_{field}"


def test_the_header_may_not_count_less_than_it_names() -> None:
    image = Image(count=4, offsets=(548, 566, 591, 607, 700))
    with pytest.raises(DocumentInvalid) as caught:
        measure.image_pcrs(image.encode())
    assert caught.value.field == "sections"


def test_registers_of_an_image() -> None:
    found = measure.image_pcrs(Image(sections=PLAIN).encode())
    assert found == {
        0: register(b"kernel", b"line", b"init", b"app"),
        1: register(b"kernel", b"line", b"init"),
        2: register(b"app"),
    }
    without = measure.image_pcrs(Image(sections=(KERNEL, LINE, INIT)).encode())
    assert without[0] == without[1]
    assert without[2] == register()
    assert any(without[2])  # no application is not debug mode
    several = (*PLAIN, Section(5, b"{}"), Section(3, b"more"))
    found = measure.image_pcrs(Image(sections=several, version=3, flags=1).encode())
    assert found[2] == register(b"app", b"more")
    assert found[0] == register(b"kernel", b"line", b"init", b"app", b"more")
    assert eif.parse(Image(flags=1).encode()).arm


def test_roles_and_instances() -> None:
    arn = "arn:aws:iam::123456789012:role/Webserver"
    assert measure.role_pcr(arn) == hashlib.sha384(bytes(48) + arn.encode()).digest()
    assert measure.instance_pcr("i-0").hex() != measure.role_pcr(arn).hex()


@pytest.fixture(scope="module")
def forge() -> Forge:
    return Forge.new(datetime(2026, 6, 1, tzinfo=UTC), authorities=())


class TestSigned:
    def image(self, *signatures: Section) -> bytes:
        return Image(sections=(*PLAIN, *signatures)).encode()

    def test_register_8_is_the_signer(self, forge: Forge) -> None:
        pcr0 = register(b"kernel", b"line", b"init", b"app")
        found = measure.image_pcrs(self.image(signature_section(forge.certificates[-1], forge.keys[-1], pcr0)))
        assert found[8] == register(forge.leaf)
        assert found[0] == pcr0

    def test_signatures_that_are_not_the_image_s(self, forge: Forge) -> None:
        leaf, key = forge.certificates[-1], forge.keys[-1]
        pcr0 = register(b"kernel", b"line", b"init", b"app")
        good = signature_section(leaf, key, pcr0)
        entry = cbor2.loads(good.content)[0]

        def with_(**changes: Any) -> Section:
            return Section(4, cbor2.dumps([entry | changes]))

        def over(payload: object, signer: Any = key) -> Section:
            return with_(signature=sign1(signer, cbor2.dumps(payload)))

        edwards = ed25519.Ed25519PrivateKey.generate()
        foreign = (
            x509.CertificateBuilder().subject_name(leaf.subject).issuer_name(leaf.subject).public_key(edwards.public_key())
            .serial_number(1).not_valid_before(leaf.not_valid_before_utc).not_valid_after(leaf.not_valid_after_utc)
            .sign(edwards, None)
        )  # fmt: skip
        for wrong in (
            signature_section(leaf, key, bytes(48)),
            signature_section(leaf, ec.generate_private_key(ec.SECP384R1()), pcr0),
            signature_section(leaf, ec.generate_private_key(ec.SECP256R1()), pcr0),
            over({"register_index": 1, "register_value": list(pcr0)}),
            over({"register_value": list(pcr0)}),
            over({"register_index": 0}),
            over({"register_index": 0, "register_value": [256]}),
            over([0, pcr0]),
            with_(signature=b"no message"),
            with_(signature="text"),
            with_(signature=[-1]),
            with_(signing_certificate=b"no certificate"),
            with_(signing_certificate=list(foreign.public_bytes(Encoding.PEM))),
            Section(4, b""),
            Section(4, cbor2.dumps([])),
            Section(4, cbor2.dumps([entry, entry])),
            Section(4, cbor2.dumps({})),
            Section(4, cbor2.dumps([1])),
            Section(4, cbor2.dumps([{}])),
        ):
            with pytest.raises(DocumentInvalid) as caught:
                measure.image_pcrs(self.image(wrong))
            assert caught.value.code == "eif_signature"
        with pytest.raises(DocumentInvalid):
            measure.image_pcrs(self.image(good, good))
        assert measure.image_pcrs(self.image(with_(signature=bytes(entry["signature"]))))[8] == register(forge.leaf)


@given(st.binary(max_size=700))
def test_any_bytes(data: bytes) -> None:
    for image in (data, Image().encode()[: EIF_HEADER - 4] + data):
        with pytest.raises(DocumentInvalid):
            measure.image_pcrs(image)
