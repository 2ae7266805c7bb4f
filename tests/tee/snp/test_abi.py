from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.errors import MalformedEvidence
from adyton.tee.snp.abi import GuestPolicy, KeyInfo, SigningKey, SnpReport, Tcb, TcbLayout
from adyton.tee.snp.product import Product, by_cpuid, by_name


@pytest.mark.vectors
def test_every_real_report_encodes_to_itself(vectors: Path) -> None:
    files = sorted((vectors / "snp" / "reports").iterdir())
    assert files
    for file in files:
        assert SnpReport.parse(file.read_bytes()).encode() == file.read_bytes()


@given(st.sampled_from([2, 3, 4, 5]), st.binary(min_size=1180, max_size=1180))
def test_whatever_parses_encodes_to_itself(version: int, rest: bytes) -> None:
    data = bytearray(version.to_bytes(4, "little") + rest)
    data[0x34:0x38] = (1).to_bytes(4, "little")
    report = SnpReport.parse(bytes(data))
    assert report.encode() == data
    assert report.signed_bytes == data[:0x2A0]
    assert report.version == version
    assert report.tail == data[0x330:]


@given(st.binary(max_size=1300))
def test_other_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        SnpReport.parse(data)


@pytest.mark.parametrize("version", [0, 1, 6, 7, 0x7B, 2**32 - 1])
def test_unknown_versions(version: int) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        SnpReport.parse(msgspec.structs.replace(SnpReport(), version=version).encode())
    assert caught.value.got == version


@pytest.mark.parametrize("algorithm", [0, 2, 2**31])
def test_unknown_algorithms(algorithm: int) -> None:
    with pytest.raises(MalformedEvidence):
        SnpReport.parse(SnpReport(signature_algorithm=algorithm).encode())


@pytest.mark.parametrize(
    "wrong",
    [
        {"vmpl": -1},
        {"vmpl": 2**32},
        {"chip_id": bytes(63)},
        {"tail": b""},
        {"current_tcb": Tcb(bytes(7))},
        {"r": bytes(48)},
    ],
)
def test_fields_that_do_not_fit(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="field of the report"):
        msgspec.structs.replace(SnpReport(), **wrong).encode()


def test_version_4_has_the_fields_of_5() -> None:
    for version, expected in ((2, None), (3, None), (4, (7, 9)), (5, (7, 9))):
        report = SnpReport(version=version, launch_mit_vector=7, current_mit_vector=9)
        assert SnpReport.parse(report.encode()).mitigation_vectors == expected


def test_layouts_of_the_tcb() -> None:
    milan = Tcb.of(boot_loader=1, tee=2, snp=3, microcode=4)
    assert milan.raw == bytes([1, 2, 0, 0, 0, 0, 3, 4])
    turin = Tcb.of(boot_loader=1, tee=2, snp=3, microcode=4, fmc=0)
    assert turin.raw == bytes([0, 1, 2, 3, 0, 0, 0, 4])
    for tcb, fmc in ((milan, None), (turin, 0)):
        assert (tcb.fmc, tcb.boot_loader, tcb.tee, tcb.snp, tcb.microcode) == (fmc, 1, 2, 3, 4)
    assert Tcb(milan.raw, TcbLayout.MILAN) == milan
    assert milan <= Tcb.of(boot_loader=1, tee=2, snp=3, microcode=5)
    assert not Tcb.of(boot_loader=0, tee=0, snp=0, microcode=5) <= milan


def test_signing_keys() -> None:
    kinds = [KeyInfo(value << 2).signing_key for value in range(8)]
    assert kinds == [SigningKey.VCEK, SigningKey.VLEK, None, None, None, None, None, SigningKey.NONE]
    assert KeyInfo(1).author_key_enabled
    assert KeyInfo(2).mask_chip_key


def test_policy() -> None:
    policy = GuestPolicy(0xB011F)
    assert (policy.abi_major, policy.abi_minor, policy.debug_allowed, policy.reserved_bit) == (1, 0x1F, True, True)


@given(st.integers(0, 255), st.integers(0, 255))
def test_every_model_has_at_most_one_product(family: int, model: int) -> None:
    product = by_cpuid(family, model)
    if family not in {0x19, 0x1A}:
        assert product is None
    if product is not None:
        assert by_name(product.value) is product


@pytest.mark.parametrize("name", ["", "milan", "Milan-", "Milan-B", "Milan-B0\n", "XMilan", "Genoa B0", "Rome"])
def test_names_are_matched_whole(name: str) -> None:
    assert by_name(name) is None


def test_names() -> None:
    assert [by_name(name) for name in ("Milan-B0", "Siena", "Bergamo-A1", "Turin")] == [
        Product.MILAN,
        Product.GENOA,
        Product.GENOA,
        Product.TURIN,
    ]
