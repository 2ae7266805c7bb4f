"""Quotes that must be refused, then those that pass: signature, key, selection, digest."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tee.tpm.building import NONCE

from adyton.devtee.forge import flip
from adyton.devtee.tpm import RSAPSS, RSASSA, QuoteFields, SoftTpm, break_signatures
from adyton.errors import AdytonError, EvidenceError, MalformedEvidence, SignatureInvalid, UnsupportedEvidence
from adyton.tee.eventlog.banks import BY_NAME, SHA1, SHA256, SHA384, Bank
from adyton.tee.tpm.quote import quoted_pcrs, verify_quote

every_key = pytest.mark.parametrize("tpm", ["rsa", "secp256r1", "secp384r1"], indirect=True)


def values(tpm: SoftTpm, *banks: str) -> dict[Bank, dict[int, bytes]]:
    return {BY_NAME[bank]: dict(enumerate(tpm.pcrs[bank])) for bank in banks or ("sha256",)}


def refused(kind: type[AdytonError], code: str, *args: Any, **kwargs: Any) -> AdytonError:
    with pytest.raises(kind) as caught:
        verify_quote(*args, **kwargs)
    assert caught.value.code == code
    assert type(caught.value) is kind
    return caught.value


@every_key
def test_every_broken_signature_is_refused(tpm: SoftTpm) -> None:
    message, signature = tpm.quote(QuoteFields(extra_data=NONCE))
    for name, broken in break_signatures(signature).items():
        with pytest.raises((SignatureInvalid, UnsupportedEvidence, MalformedEvidence)) as caught:
            verify_quote(message, broken, tpm.key.public_key())
        assert caught.value.code, name
    verify_quote(message, signature, tpm.key.public_key())


@every_key
def test_every_flipped_bit_of_the_message_is_refused(tpm: SoftTpm) -> None:
    message, signature = tpm.quote(QuoteFields(extra_data=NONCE))
    for bit in range(0, 8 * len(message), 7):
        with pytest.raises(EvidenceError):
            verify_quote(flip(message, bit), signature, tpm.key.public_key())


def test_the_magic_is_looked_at_before_the_signature(tpm: SoftTpm) -> None:
    # What an unrestricted key of the same TPM could be made to sign
    message, signature = tpm.quote(QuoteFields(extra_data=NONCE, magic=0xFF544348))
    refused(MalformedEvidence, "attest_magic", message, b"", tpm.key.public_key())
    refused(MalformedEvidence, "attest_magic", message, signature, tpm.key.public_key())


@pytest.mark.parametrize("kind", [0x8014, 0x8017, 0x801A, 0x8019])
def test_another_structure_than_a_quote_is_refused(tpm: SoftTpm, kind: int) -> None:
    message, signature = tpm.quote(QuoteFields(extra_data=NONCE, kind=kind))
    refused(MalformedEvidence, "attest_type", message, signature, tpm.key.public_key())


def test_another_key_did_not_sign(tpm: SoftTpm, made: dict[str, SoftTpm]) -> None:
    message, signature = tpm.quote(QuoteFields(extra_data=NONCE))
    refused(SignatureInvalid, "quote_sig", message, signature, made["other"].key.public_key())


def test_sha1_signatures_are_refused_unless_asked_for_by_name(tpm: SoftTpm) -> None:
    message, signature = tpm.quote(QuoteFields(extra_data=NONCE), hash_name="sha1")
    refused(UnsupportedEvidence, "signature_hash", message, signature, tpm.key.public_key())
    verify_quote(message, signature, tpm.key.public_key(), unsafe_sha1_signature=True)


@pytest.mark.parametrize(
    ("tpm", "scheme"), [("rsa", 0x18), ("secp256r1", RSASSA), ("secp256r1", RSAPSS)], indirect=["tpm"]
)
def test_scheme_and_key_must_fit(tpm: SoftTpm, scheme: int) -> None:
    message, signature = tpm.quote(QuoteFields(extra_data=NONCE))
    other = bytes((scheme >> 8, scheme & 0xFF)) + signature[2:]
    with pytest.raises((UnsupportedEvidence, MalformedEvidence)):
        verify_quote(message, other, tpm.key.public_key())


def test_unknown_schemes_are_unsupported(tpm: SoftTpm) -> None:
    message, signature = tpm.quote(QuoteFields(extra_data=NONCE))
    for scheme in (0x0010, 0x001A, 0x001B, 0x0005):
        refused(UnsupportedEvidence, "signature_scheme", message, scheme.to_bytes(2, "big") + signature[2:], None)


def test_keys_that_are_not_for_this_are_refused(tpm: SoftTpm) -> None:
    message, signature = tpm.quote(QuoteFields(extra_data=NONCE))
    odd = rsa.generate_private_key(65537, 1024)
    small = SoftTpm(odd, pcrs=tpm.pcrs)
    refused(UnsupportedEvidence, "ak_key", *small.quote(QuoteFields(extra_data=NONCE)), odd.public_key())
    stranger: Any = ed25519.Ed25519PrivateKey.generate().public_key()
    refused(UnsupportedEvidence, "ak_key", message, signature, stranger)
    curve = ec.generate_private_key(ec.SECP256K1())
    point = SoftTpm.new("secp256r1").quote(QuoteFields(extra_data=NONCE))
    refused(UnsupportedEvidence, "ak_key", *point, curve.public_key())


@pytest.mark.parametrize("hash_name", ["sha256", "sha384", "sha512"])
def test_rsa_pss_verifies(tpm: SoftTpm, hash_name: str) -> None:
    quote = verify_quote(
        *tpm.quote(QuoteFields(extra_data=NONCE), hash_name=hash_name, scheme=RSAPSS), tpm.key.public_key()
    )
    assert (quote.scheme, quote.hash.name) == (RSAPSS, hash_name)
    assert quoted_pcrs(quote, values(tpm)) == values(tpm)


@every_key
@pytest.mark.parametrize("hash_name", ["sha256", "sha384"])
def test_a_quote_verifies_and_its_digest_is_made_with_the_hash_of_the_scheme(tpm: SoftTpm, hash_name: str) -> None:
    quote = verify_quote(*tpm.quote(QuoteFields(extra_data=NONCE), hash_name=hash_name), tpm.key.public_key())
    assert quote.attest.extra_data == NONCE
    assert quoted_pcrs(quote, values(tpm)) == values(tpm)


def quote_of(tpm: SoftTpm, *selections: tuple[str, Any], **changes: Any) -> Any:
    if selections:
        changes["selections"] = selections
    fields = QuoteFields(extra_data=NONCE, **changes)
    return verify_quote(*tpm.quote(fields), tpm.key.public_key())


def refused_pcrs(code: str, *args: Any, **kwargs: Any) -> EvidenceError:
    with pytest.raises(EvidenceError) as caught:
        quoted_pcrs(*args, **kwargs)
    assert caught.value.code == code
    return caught.value


def test_ghsa_99cg_575x_774p_pcrs_that_the_quote_does_not_select_are_not_handed_out(tpm: SoftTpm) -> None:
    # CVE-2022-0317: values beside the quote were taken for quoted ones
    quote = quote_of(tpm, ("sha256", (0, 4, 7)))
    given = values(tpm, "sha1", "sha256", "sha384")
    given[SHA256][8] = b"\xee" * 32
    assert quoted_pcrs(quote, given) == {SHA256: {n: tpm.pcrs["sha256"][n] for n in (0, 4, 7)}}


def test_a_changed_value_is_refused(tpm: SoftTpm) -> None:
    given = values(tpm)
    given[SHA256][7] = flip(given[SHA256][7], 0)
    refused_pcrs("pcr_digest", quote_of(tpm), given)


def test_values_in_other_places_are_refused(tpm: SoftTpm) -> None:
    given = values(tpm)
    given[SHA256][0], given[SHA256][4] = given[SHA256][4], given[SHA256][0]
    refused_pcrs("pcr_digest", quote_of(tpm), given)


def test_the_digest_is_over_the_selection_and_not_over_all(tpm: SoftTpm) -> None:
    refused_pcrs("pcr_digest", quote_of(tpm, ("sha256", (0,)), pcr_digest=bytes(32)), values(tpm))


def test_missing_values_and_banks_are_named(tpm: SoftTpm) -> None:
    given = values(tpm)
    del given[SHA256][9], given[SHA256][11]
    assert refused_pcrs("pcr_missing", quote_of(tpm), given).got == [9, 11]
    refused_pcrs("pcr_missing", quote_of(tpm), values(tpm, "sha384"))
    refused_pcrs("pcr_size", quote_of(tpm), {SHA256: values(tpm, "sha384")[SHA384]})


def test_a_selection_must_be_what_is_wanted(tpm: SoftTpm) -> None:
    every = {SHA256: frozenset(range(24))}
    refused_pcrs("pcr_selection", quote_of(tpm, ("sha256", range(23))), values(tpm), wanted=every)
    refused_pcrs("pcr_selection", quote_of(tpm, ("sha384", range(24))), values(tpm, "sha384"), wanted=every)
    both = quote_of(tpm, ("sha256", range(24)), ("sha384", range(24)))
    refused_pcrs("pcr_selection", both, values(tpm, "sha256", "sha384"), wanted=every)
    assert quoted_pcrs(quote_of(tpm), values(tpm), wanted=every) == values(tpm)


def test_an_empty_selection_and_a_repeated_bank_are_refused(tpm: SoftTpm) -> None:
    refused_pcrs("pcr_selection", quote_of(tpm, ("sha256", ())), values(tpm))
    refused_pcrs("pcr_selection", quote_of(tpm, ("sha256", (1,)), ("sha256", (2,))), values(tpm))
    fields = QuoteFields(extra_data=NONCE, selections=())
    refused_pcrs("pcr_selection", verify_quote(*tpm.quote(fields), tpm.key.public_key()), values(tpm))


def test_several_banks_are_hashed_in_the_order_of_the_selection(tpm: SoftTpm) -> None:
    quote = quote_of(tpm, ("sha384", (1, 3)), ("sha1", (0,)), ("sha256", (15, 16, 22)))
    found = quoted_pcrs(quote, values(tpm, "sha1", "sha256", "sha384"))
    assert list(found) == [SHA384, SHA1, SHA256]
    assert list(found[SHA256]) == [15, 16, 22]


@given(st.sets(st.integers(0, 23), min_size=1), st.integers(0, 23))
@settings(max_examples=60, deadline=None)
def test_any_selection_verifies_and_hands_out_itself(chosen: set[int], one: int) -> None:
    tpm = _SHARED
    quote = quote_of(tpm, ("sha256", chosen))
    found = quoted_pcrs(quote, values(tpm))
    assert set(found[SHA256]) == chosen
    if one not in chosen:
        assert one not in found[SHA256]
    else:
        changed = values(tpm)
        changed[SHA256][one] = flip(changed[SHA256][one], 3)
        refused_pcrs("pcr_digest", quote, changed)


_SHARED = SoftTpm.new("secp256r1")
_SHARED.boot()
