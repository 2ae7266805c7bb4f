from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.collateral import wanted
from adyton.collateral.wanted import (
    AmdChain,
    AmdCrl,
    AmdVcek,
    AzureThim,
    IntelEvaluationNumbers,
    IntelIdentity,
    IntelPck,
    IntelPckCrl,
    IntelRootCrl,
    IntelTcbInfo,
    NvidiaOcsp,
    NvidiaRim,
    Wanted,
)
from adyton.tee.snp.product import Product

_byte = st.integers(0, 255)


def _sized(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


_editions = st.one_of(st.sampled_from(["early", "standard"]), st.integers(0, 999_999_999).map(str))
_old = st.sampled_from([Product.MILAN, Product.GENOA])
ANY: st.SearchStrategy[Wanted] = st.one_of(
    st.builds(AmdVcek, _old, _sized(64), _byte, _byte, _byte, _byte),
    st.builds(AmdVcek, st.just(Product.TURIN), _sized(8), _byte, _byte, _byte, _byte, _byte),
    st.builds(AmdChain, st.sampled_from(Product), st.sampled_from(["vcek", "vlek"])),
    st.builds(AmdCrl, st.sampled_from(Product)),
    st.builds(IntelRootCrl),
    st.builds(IntelPckCrl, st.sampled_from(["platform", "processor"])),
    st.builds(IntelTcbInfo, st.sampled_from(["sgx", "tdx"]), _sized(6), _editions),
    st.builds(IntelIdentity, st.sampled_from(["qe", "td_qe", "qve"]), _editions),
    st.builds(IntelEvaluationNumbers, st.sampled_from(["sgx", "tdx"])),
    st.builds(IntelPck, _sized(16), _sized(384), _sized(16), _sized(2), _sized(2)),
    st.builds(AzureThim),
    st.builds(NvidiaRim, st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", fullmatch=True)),
    st.builds(NvidiaOcsp, _sized(48), _sized(48), st.integers(1, 2**160 - 1)),
)


@given(ANY)
def test_a_name_says_all(value: Wanted) -> None:
    assert wanted.parse(value.name) == value


@pytest.mark.parametrize(
    "name",
    [
        "", "/", "amd", "amd/", "amd/crl", "amd/crl/", "amd/crl/genoa", "amd/crl/Genoa/", "amd/crl/Rome", "amd/../crl",
        "amd/chain/Genoa/ark", "amd/vcek/Genoa/00/1-2-3-4", "amd/vcek/Turin/0011223344556677/1-2-3-4",
        f"amd/vcek/Genoa/{'00' * 64}/1-2-3-4-5", f"amd/vcek/Genoa/{'00' * 64}/1-2-3-256", f"amd/vcek/Genoa/{'00' * 64}/1-2-3-04",
        f"amd/vcek/Genoa/{'AB' * 64}/1-2-3-4", "intel/root-crl/", "intel/tcb/sgx/00906ED50000/early", "intel/tcb/sgx/00906ed5/early",
        "intel/tcb/snp/00906ed50000/early", "intel/tcb/sgx/00906ed50000/late", "intel/tcb/sgx/00906ed50000/-1",
        "intel/pck-crl/root", "intel/identity/QE/early", "nvidia/rim/", "nvidia/rim/..", "nvidia/rim/a/b", "nvidia/rim/a b",
        f"nvidia/ocsp/{'00' * 48}/{'00' * 48}/00", f"nvidia/ocsp/{'00' * 48}/{'00' * 48}/0001", "azure/thim/x", "hygon/hsk/1",
    ],
)  # fmt: skip
def test_another_name_is_nobodys(name: str) -> None:
    with pytest.raises(ValueError):
        wanted.parse(name)


@given(st.text(max_size=60))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert wanted.parse(text).name == text
