from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.errors import BindingMismatch, DocumentInvalid, MalformedRequest
from adyton.rats import binding
from adyton.rats.types import Digest, Nonce, ReportData, RootKind, TrustAnchors
from adyton.tee import FIELD_SIZES
from adyton.wire import jcs

# The P-256 key of RFC 7515 A.3; check values of specs/kbs-protocol 1.5.
KEY = {
    "kty": "EC",
    "crv": "P-256",
    "alg": "ECDH-ES+A256KW",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
NONCE = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
PRIMARY = "d4bd1841ef158d7c3904848b81d834cafb2fb888d896151632a2aa5e8c258da20f8ba11735fc30d095f10ed26e055e09"
DEVICE = "19a630d21977b83b1c45bff1aa391bd83375a9e24f11c6915fba17d41519e1aa78bece9d15bb779a5a68c86d7bc3e483"


def test_check_values_of_the_protocol() -> None:
    assert binding.digest(binding.primary_object(NONCE, KEY)).hex() == PRIMARY
    assert binding.digest(binding.device_object(NONCE, KEY)).hex() == DEVICE


@given(
    nonce=st.text(),
    additional=st.text(),
    key=st.dictionaries(st.text(max_size=5) | st.sampled_from([*KEY, "\ue000", "\U00010000"]), st.text(max_size=20)),
)
def test_what_is_bound_is_canonical_whatever_it_holds(nonce: str, additional: str, key: dict[str, str]) -> None:
    written = {"tee-pubkey": key, "nonce": nonce, "additional-evidence": additional}
    assert binding.primary_object(nonce, key, additional) == jcs.canonical(written)


@pytest.mark.parametrize("half", ["\ud800", "\udfff"])
@pytest.mark.parametrize("where", ["nonce", "x", "additional"])
def test_half_a_character_is_never_bound(half: str, where: str) -> None:
    with pytest.raises(ValueError, match=r"surrogate|canonical"):
        binding.primary_object(
            half if where == "nonce" else NONCE,
            {**KEY, "x": half} if where == "x" else KEY,
            half if where == "additional" else "",
        )


def test_report_data_is_the_digest_and_zeros_and_is_compared_whole() -> None:
    expected = binding.report_data(binding.primary_object(NONCE, KEY))
    assert expected.value == bytes.fromhex(PRIMARY) + bytes(16)
    binding.check_report_data("snp", expected, expected)
    longer = ReportData(expected.value[:63] + b"\x01")
    with pytest.raises(BindingMismatch) as caught:
        binding.check_report_data("snp", expected, longer)
    assert caught.value.code == "report_data_mismatch"


def test_an_empty_expectation_is_never_a_match() -> None:
    with pytest.raises(ValueError, match="empty"):
        binding.check_report_data("snp", ReportData(bytes(64)), ReportData(bytes(64)))


@given(st.integers(0, 511))
def test_one_flipped_bit_never_matches(bit: int) -> None:
    expected = binding.report_data(b"x")
    flipped = bytearray(expected.value)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BindingMismatch):
        binding.check_report_data("snp", expected, ReportData(bytes(flipped)))


@pytest.mark.parametrize(
    ("tee", "value"),
    [("snp", b""), ("snp", bytes(64)), ("snp", b"x" * 65), ("tpm", b"x" * 33), ("sample", b""), ("sample", bytes(48))],
)
def test_raw_runtime_data_is_something_and_never_cut(tee: str, value: bytes) -> None:
    with pytest.raises(MalformedRequest) as caught:
        binding.expected_raw(tee, value)
    assert caught.value.code == "runtime_data_size"


def test_raw_runtime_data_is_filled_with_zeros_where_the_field_is_longer() -> None:
    assert binding.expected_raw("snp", b"x").value == b"x".ljust(64, b"\0")
    assert binding.expected_raw("tpm", b"x" * 32).value == b"x" * 32
    assert binding.expected_raw("sample", b"x" * 70).value == b"x" * 70


def test_a_hash_that_nobody_negotiates_binds_nothing() -> None:
    for algorithm in ("md5", "sha1", "sm3", "SHA384", ""):
        with pytest.raises(ValueError, match="unknown binding hash"):
            binding.digest(b"{}", algorithm)


def test_init_data_is_padded_and_never_cut() -> None:
    assert binding.init_data_field(b"", length=48)[32:] == bytes(16)
    with pytest.raises(ValueError, match="does not fit"):
        binding.init_data_field(b"", length=32, algorithm="sha384")


@pytest.mark.parametrize("tee", ["se", "csv", "nitro", "nvidia", "sample", "sampledevice", "hygondcu", "SNP", ""])
def test_init_data_that_no_field_binds_is_refused_by_name(tee: str) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        binding.expected_init_data(tee, b"document")
    assert caught.value.code == "init_data_unbound"
    assert binding.document_digest(tee, b"\1" * 32) == b""


@pytest.mark.parametrize(
    ("tee", "algorithm"),
    [("snp", "sha384"), ("tdx", "sha512"), ("tpm", "sha384"), ("az-snp-vtpm", "sha384"), ("az-tdx-vtpm", "sha512")],
)
def test_a_digest_that_the_field_cannot_hold_is_never_cut(tee: str, algorithm: str) -> None:
    """CoCo's server dies of a SHA-384 digest on the way to a PCR."""
    with pytest.raises(DocumentInvalid) as caught:
        binding.expected_init_data(tee, b"document", algorithm)
    assert caught.value.code == "init_data_algorithm"


@pytest.mark.parametrize("tee", sorted(tee for tee, (_, size) in FIELD_SIZES.items() if size))
def test_what_the_field_holds_is_what_a_room_compares(tee: str) -> None:
    size = FIELD_SIZES[tee][1] or 0
    digest = hashlib.sha256(b"document").digest()
    expected = binding.expected_init_data(tee, b"document")
    assert len(expected) == size
    if "tpm" in tee:
        assert expected == hashlib.sha256(bytes(32) + digest).digest()
        assert binding.document_digest(tee, expected) == b""
    else:
        assert expected == digest.ljust(size, b"\0")
        assert binding.document_digest(tee, expected) == digest
        assert size == 32 or binding.document_digest(tee, expected[:-1] + b"\1") == expected[:-1] + b"\1"


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_nonce_has_32_bytes(size: int) -> None:
    with pytest.raises(ValueError):
        Nonce(bytes(size))


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:" + "A" * 64, "md5:" + "0" * 32, "sha256:" + "0" * 64 + "\n", "sha384:" + "0" * 64]
)
def test_digests_are_read_strictly(text: str) -> None:
    with pytest.raises(ValueError):
        Digest.parse(text)


@given(st.binary())
def test_digest_text_round_trips(data: bytes) -> None:
    digest = Digest.of(data)
    assert Digest.parse(str(digest)) == digest
    assert digest.matches(data)
    assert not digest.matches(data + b"x")


def test_a_vendors_root_is_the_vendors_only_where_vendors_are_trusted() -> None:
    pinned, own = b"v" * 32, b"o" * 32
    both = TrustAnchors(custom=frozenset({own}))
    assert both.among(frozenset({pinned})) == {pinned, own}
    assert (both.kind(pinned, frozenset({pinned})), both.kind(own, frozenset({pinned}))) == (
        RootKind.VENDOR,
        RootKind.CUSTOM,
    )
    only = TrustAnchors(vendor=False, custom=frozenset({pinned}))
    assert only.among(frozenset({pinned, own})) == {pinned}
    assert only.kind(pinned, frozenset({pinned})) is RootKind.CUSTOM
