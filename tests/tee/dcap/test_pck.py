"""Intel's extension: what is in it, in Intel's layout and in any other; nothing twice, nothing of another type."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tee.dcap.conftest import NOW

from adyton.crypto.x509 import Certificate
from adyton.devtee import dcap_certificates as forging
from adyton.devtee.dcap import DcapForge
from adyton.devtee.dcap_certificates import Platform
from adyton.errors import EndorsementMalformed, MalformedEvidence
from adyton.tee.dcap import certified, pck
from adyton.tee.dcap.documents import Reader
from adyton.tee.dcap.endorsements import roles
from adyton.tee.dcap.quote import Quote
from adyton.wire import der

ROLE = roles("sgx").pck

platforms = st.builds(
    Platform,
    kind=st.sampled_from(["platform", "processor"]),
    components=st.tuples(*[st.integers(0, 255)] * 16),
    pcesvn=st.integers(0, 0xFFFF),
    cpusvn=st.binary(min_size=16, max_size=16),
    fmspc=st.binary(min_size=6, max_size=6),
    pceid=st.binary(min_size=2, max_size=2),
    ppid=st.binary(min_size=16, max_size=16),
    sgx_type=st.integers(0, 2),
    instance_id=st.binary(min_size=16, max_size=16),
    dynamic_platform=st.booleans(),
    cached_keys=st.booleans(),
    smt_enabled=st.booleans(),
)


@given(platforms)
def test_the_quick_way_reads_what_the_slow_one_reads(platform: Platform) -> None:
    extension = platform.extension()
    found = pck._parts(extension)
    assert found == pck._slow_parts(extension)
    ppid, components, pcesvn, cpusvn, pceid, fmspc, sgx_type, instance, dynamic, cached, smt = found
    assert (ppid, components, pcesvn, cpusvn) == (
        platform.ppid, platform.components, platform.pcesvn, platform.cpusvn
    )  # fmt: skip
    assert (pceid, fmspc, sgx_type) == (platform.pceid, platform.fmspc, platform.sgx_type)
    if platform.kind == "platform":
        assert (instance, dynamic, cached, smt) == (
            platform.instance_id, platform.dynamic_platform, platform.cached_keys, platform.smt_enabled
        )  # fmt: skip
    else:
        assert (instance, dynamic, cached, smt) == (None, None, None, None)


@settings(max_examples=400)
@given(platforms, st.integers(0, 600), st.integers(0, 255))
def test_a_changed_byte_reads_alike_both_ways_or_neither(platform: Platform, place: int, value: int) -> None:
    extension = bytearray(platform.extension())
    extension[place % len(extension)] = value
    results: list[Any] = []
    for way in (pck._parts, pck._slow_parts):
        try:
            results.append(way(bytes(extension)))
        except (ValueError, KeyError):
            results.append(None)
    assert results[0] == results[1]


@given(st.binary(max_size=300))
def test_any_bytes(extension: bytes) -> None:
    with contextlib.suppress(ValueError, KeyError):
        pck._parts(extension)


def test_another_order_is_read_as_well() -> None:
    platform = Platform()
    content = der.only(platform.extension(), der.SEQUENCE)
    items = [content[item.start : item.end] for item in der.children(content)]
    turned = forging._tlv(0x30, b"".join(items[::-1]))
    assert pck._PATTERN.fullmatch(turned) is None
    assert pck._parts(turned) == pck._parts(platform.extension())


def item(number: str, tag: int, content: bytes) -> bytes:
    return forging._item(number, forging._tlv(tag, content))


def certificate(extension: bytes, **options: Any) -> Certificate:
    root = forging.make_root(NOW)
    made = forging.make_pck(forging.make_pck_ca(root, NOW), Platform(), NOW, extension=extension, **options)
    return Certificate(made.certificate.public_bytes(Encoding.DER))


def test_parts_that_are_missing_double_or_wrong() -> None:
    content = der.only(Platform().extension(), der.SEQUENCE)
    items = {number: content[e.start : e.end] for number, e in enumerate(der.children(content), 1)}
    for number in (1, 2, 3, 4, 5):
        rest = b"".join(value for other, value in items.items() if other != number)
        refused(forging._tlv(0x30, rest), f"part {number} is missing")
        refused(forging._tlv(0x30, b"".join(items.values()) + items[number]), "twice")
    for wrong in (
        items | {1: item("01", 4, bytes(15))},
        items | {3: item("03", 2, b"\0\0")},
        items | {4: item("04", 4, bytes(7))},
        items | {5: item("05", 10, b"\3")},
        items | {6: item("06", 4, bytes(17))},
        items | {7: item("07", 0x30, item("0701", 1, b"\1"))},
        items | {2: item("02", 0x30, b"")},
        items | {8: forging._tlv(0x04, b"")},
        items | {8: forging._tlv(0x30, forging._tlv(6, b"\x2a\3\4") + b"\5\0")},
        items | {8: forging._tlv(0x30, forging._tlv(6, forging._OID + b"\x09") + b"\5\0\5\0")},
    ):
        refused(forging._tlv(0x30, b"".join(wrong.values())), "")
    refused(forging._tlv(0x31, content), "tag")
    refused(Platform().extension() + b"\0", "")


def refused(extension: bytes, reason: str) -> None:
    with pytest.raises(EndorsementMalformed) as caught:
        pck.read(certificate(extension), ROLE)
    assert caught.value.code == "pck_extension"
    assert reason in caught.value.message


def test_svns_out_of_range() -> None:
    for broken in (
        replace(Platform(), pcesvn=0x10000),
        replace(Platform(), components=(256, *([0] * 15)), cpusvn=bytes(16)),
    ):
        refused(broken.extension(), "out of range")


def test_a_key_of_another_curve() -> None:
    other: Any = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(EndorsementMalformed) as caught:
        pck.read(certificate(Platform().extension(), key=other), ROLE)
    assert caught.value.code == "pck_key"


def test_certification_data_of_one_certificate_is_one() -> None:
    """Type 4 holds the leaf alone: another beside it, or none, and nobody could say which key was meant."""
    forge = DcapForge.new(NOW)
    pem = forge.pck.certificate.public_bytes(Encoding.PEM)
    der_form = forge.pck.certificate.public_bytes(Encoding.DER)
    assert certified.leaf(pem.rstrip(), Reader(), "sgx") == Certificate(der_form)
    for text in (pem + pem, pem + b"\n" + pem.rstrip(), b"", b"\0\0", b"no certificate", pem[:-30], b"\x30\x82\0\1"):
        with pytest.raises(MalformedEvidence):
            certified.leaf(text, Reader(), "sgx")


def test_every_real_certificate_reads_alike_both_ways(vectors: Path) -> None:
    seen = 0
    for path in sorted(vectors.glob("*/quotes/*.bin")):
        text, _ = certified.split(Quote.parse(path.read_bytes()))
        if text:
            extension = certified.leaf(text, Reader(), "sgx").unknown_extensions[pck.EXTENSION]
            assert pck._PATTERN.fullmatch(extension)
            assert pck._parts(extension) == pck._slow_parts(extension)
            seen += 1
    assert seen >= 30


def test_a_forge_of_another_kind_has_the_other_ca() -> None:
    forge = DcapForge.new(NOW, Platform(kind="processor"))
    assert b"Processor CA" in forge.pck.certificate.issuer.public_bytes()
