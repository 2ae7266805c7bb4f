"""Plain values and SLSA provenance in DSSE: what is refused, then what is read."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, SSlibKey
from tests.provenance import signing
from tests.provenance.signing import HASH, IN_TOTO, NOW, OTHER, OWNER, P256, P384, RSA, SLSA, STRANGER

from adyton.errors import AdytonError, DocumentInvalid, OwnerError, TooLarge
from adyton.provenance import Settings, State, plain, provider, read
from adyton.provenance.provider import UNSIGNED

SIGNED = signing.envelope(signing.plain(), plain.MEDIA_TYPE, OWNER)


def refused(document: bytes, who: Any = None, code: str | None = None) -> AdytonError:
    with pytest.raises(AdytonError) as caught:
        read(document, who or signing.entry(), now=NOW)
    if code is not None:
        assert caught.value.code == code, caught.value.as_dict()
    return caught.value


def test_strangers_signature_is_refused() -> None:
    assert isinstance(refused(signing.envelope(signing.plain(), plain.MEDIA_TYPE, STRANGER)), DocumentInvalid)


def test_strangers_signature_under_the_owners_key_id_is_refused() -> None:
    keyid = signing.entry().keys[0].id
    document = signing.envelope(signing.plain(), plain.MEDIA_TYPE, STRANGER, keyid=keyid)
    refused(document, code="provenance_unsigned")


def test_no_signature_at_all_is_refused_though_unsigned_documents_are_accepted() -> None:
    document = signing.envelope(signing.plain(), plain.MEDIA_TYPE)
    refused(document, signing.entry(accept=[UNSIGNED]), "provenance_unsigned")


def test_bare_values_are_refused_unless_said_in_so_many_words() -> None:
    document = json.dumps(signing.plain()).encode()
    refused(document, code="provenance_unsigned")
    who = signing.entry(accept=[UNSIGNED])
    statement = read(document, who, now=NOW)
    assert statement.signers == frozenset()
    spaced = json.dumps(signing.plain(), indent=4).encode()
    assert read(spaced, who, now=NOW).proof == statement.proof


def test_signature_for_another_media_type_is_refused() -> None:
    forged = json.loads(signing.envelope(signing.plain(), "text/plain", OWNER)) | {"payloadType": plain.MEDIA_TYPE}
    refused(json.dumps(forged).encode(), code="provenance_unsigned")


def test_one_key_signing_twice_is_one_signer() -> None:
    document = signing.envelope(signing.plain(), plain.MEDIA_TYPE, OWNER, OWNER)
    refused(document, signing.entry(OWNER, P256, threshold=2), "provenance_unsigned")
    document = signing.envelope(signing.plain(), plain.MEDIA_TYPE, P256, OWNER)
    assert len(read(document, signing.entry(OWNER, P256, threshold=2), now=NOW).signers) == 2


@given(st.integers(0, len(SIGNED) - 1), st.integers(0, 7))
def test_one_flipped_bit_never_says_anything_else(at: int, bit: int) -> None:
    changed = bytearray(SIGNED)
    changed[at] ^= 1 << bit
    try:
        found = read(bytes(changed), signing.entry(), now=NOW)
    except OwnerError:
        return
    assert found.values == read(SIGNED, signing.entry(), now=NOW).values  # a key id, a member that nobody reads


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_by_name(data: bytes) -> None:
    refused(data)


@pytest.mark.parametrize(
    "change",
    [
        {"values": {}},
        {"values": [1]},
        {"issue": -1},
        {"issue": True},
        {"issue": 1.0},
        {"id": ""},
        {"extra": 1},
        {"state": "revoked"},
        {"not_after": "tomorrow"},
        {"not_after": "2026-06-01T00:00:00"},
        {"not_before": 5},
    ],
)
def test_malformed_values_are_refused_though_signed(change: dict[str, Any]) -> None:
    refused(signing.envelope(signing.plain() | change, plain.MEDIA_TYPE, OWNER))


def test_duplicate_members_under_the_signature_are_refused() -> None:
    body = b'{"id":"a","issue":1,"values":{"x":1},"values":{"x":2}}'
    refused(signing.envelope(body, plain.MEDIA_TYPE, OWNER), code="document_malformed")


def test_too_large() -> None:
    with pytest.raises(TooLarge):
        read(b" " * (4 * 1024 * 1024 + 1), signing.entry(), now=NOW)


def test_kinds_that_the_provider_may_not_publish_are_not_looked_into() -> None:
    refused(SIGNED, signing.entry(kinds=["corim"]), "provider_kind")


@pytest.mark.parametrize("key", [OWNER, P256, P384, RSA], ids=["ed25519", "p256", "p384", "rsa"])
def test_every_kind_of_key(key: signing.Private) -> None:
    document = signing.envelope(signing.plain(state="candidate"), plain.MEDIA_TYPE, key)
    statement = read(document, signing.entry(key), now=NOW)
    assert statement.values["launch"].value == [HASH]
    assert statement.state is State.CANDIDATE
    assert (
        read(
            signing.envelope(signing.plain(state="candidate"), plain.MEDIA_TYPE, key), signing.entry(key), now=NOW
        ).proof
        == statement.proof
    )


@pytest.mark.parametrize("key", [OWNER, P256, P384, RSA], ids=["ed25519", "p256", "p384", "rsa"])
def test_envelopes_of_securesystemslib_and_ours_are_the_same(key: signing.Private) -> None:
    theirs = Envelope(json.dumps(signing.plain()).encode(), plain.MEDIA_TYPE, {})
    theirs.sign(CryptoSigner(key))
    assert read(json.dumps(theirs.to_dict()).encode(), signing.entry(key), now=NOW).values["launch"].value == [HASH]
    public = SSlibKey.from_crypto(key.public_key())
    ours = json.loads(signing.envelope(signing.plain(), plain.MEDIA_TYPE, key, keyid=public.keyid))
    Envelope.from_dict(ours).verify([public], 1)
    assert public.keyid in signing.entry(key).keys[0].names


def test_url_safe_base64_is_read_too() -> None:
    value = json.loads(SIGNED)
    value["signatures"][0]["sig"] = base64.urlsafe_b64encode(base64.b64decode(value["signatures"][0]["sig"])).decode()
    assert (
        read(json.dumps(value).encode(), signing.entry(), now=NOW).proof == read(SIGNED, signing.entry(), now=NOW).proof
    )


# SLSA


def slsa(version: int = 1, entry: dict[str, Any] | None = None, **changed: Any) -> Any:
    document = signing.envelope(signing.provenance(version, **changed), IN_TOTO, OWNER)
    return read(document, signing.entry(**(SLSA | (entry or {}))), now=NOW)


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"builder": "https://evil.example"}, "slsa_builder"),
        ({"builder": None}, "slsa_builder"),
        ({"build_type": "https://builder.example/other"}, "slsa_build_type"),
        ({"materials": []}, "slsa_materials_missing"),
        ({"materials": None}, "slsa_materials_missing"),
        ({"materials": [{"uri": "git+https://evil.example/x", "digest": {"sha256": HASH}}]}, "slsa_material"),
        ({"materials": [{"digest": {"sha256": HASH}}]}, "slsa_material"),
        ({"materials": [{"uri": "git+https://code.example/x"}]}, "slsa_material_digest"),
        ({"materials": [{"uri": "git+https://code.example/x", "digest": {}}]}, "slsa_material_digest"),
        ({"materials": ["git+https://code.example/x"]}, "slsa_material"),
        ({"finished": None}, "document_time"),
        ({"finished": "2026-13-01T00:00:00Z"}, "document_time"),
        ({"subject": []}, "document_malformed"),
        ({"subject": [{"name": "a", "digest": {"sha1": "00" * 20}}]}, "digest_invalid"),
        ({"subject": [{"name": "a", "digest": {"sha256": "AA" * 32}}]}, "digest_invalid"),
        ({"subject": [{"name": "a", "digest": {"sha256": HASH}}] * 2}, "document_malformed"),
    ],
)
def test_slsa_refused(version: int, changed: dict[str, Any], code: str) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        slsa(version, **changed)
    assert caught.value.code == code


@pytest.mark.parametrize("member", ["builders", "build_types", "materials"])
def test_empty_lists_allow_nothing(member: str) -> None:
    with pytest.raises(DocumentInvalid):
        slsa(entry={member: []})


def test_other_predicates_are_refused_though_signed() -> None:
    statement = signing.provenance() | {"predicateType": "https://in-toto.io/attestation/vulns"}
    refused(signing.envelope(statement, IN_TOTO, OWNER), signing.entry(**SLSA), "document_malformed")


@pytest.mark.parametrize("version", [0, 1])
def test_slsa(version: int) -> None:
    statement = slsa(version)
    assert {name: stated.value for name, stated in statement.values.items()} == {"guest": [HASH]}
    assert statement.issued is not None and statement.issued.microsecond == 500_000
    assert not statement.values["guest"].exact
    assert slsa(version, finished="2026-05-30T14:00:00.5+02:00").issued == statement.issued


# Providers


@pytest.mark.parametrize(
    "members",
    [
        {"keys": []},
        {"names": []},
        {"kinds": []},
        {"kinds": ["sample"]},
        {"threshold": 0},
        {"threshold": 2},
        {"valid_days": 0},
        {"accept": ["everything"]},
        {"names": ["with space"]},
        {"names": ["x"] * 65},
        {"keys": [signing.pem(OWNER)] * 2},
        {"keys": ["no key"]},
        {"keys": ["-----BEGIN PRIVATE KEY-----"]},
    ],
)
def test_what_an_entry_leaves_empty_is_refused(members: dict[str, Any]) -> None:
    given: dict[str, Any] = {"keys": [signing.pem(OWNER)], "names": ["*"], "kinds": ["json"]} | members
    with pytest.raises(DocumentInvalid):
        provider("builder", Settings(**given))


def test_provider_names() -> None:
    for name in ("", "A", "-a", "a" * 64, "a b"):
        with pytest.raises(DocumentInvalid):
            provider(name, Settings(keys=[signing.pem(OWNER)], names=["*"], kinds=["json"]))


def test_digests_of_two_algorithms_are_alternatives() -> None:
    subject = [{"name": "guest", "digest": {"sha256": HASH, "sha512": OTHER * 2}}]
    assert slsa(subject=subject).values["guest"].value == [HASH, OTHER * 2]
