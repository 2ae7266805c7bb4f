"""CoRIM: each way to be refused, then what its values are called."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.provenance import signing
from tests.provenance.signing import HASH, NOW, OTHER, OWNER, P256, P384, RSA, STRANGER, comid, corim, cose, measured

from adyton.errors import AdytonError, DocumentInvalid
from adyton.provenance import read
from adyton.provenance.provider import UNSIGNED

P521 = ec.generate_private_key(ec.SECP521R1())
SIGNED = cose(corim(), P256)
UUID = bytes.fromhex("31fb5abf023e4992aa4e95f9c1503bfa")
Tag = cbor2.CBORTag


def refused(document: bytes, code: str, *keys: Any, **entry: Any) -> AdytonError:
    with pytest.raises(AdytonError) as caught:
        read(document, signing.entry(*(keys or (P256,)), **entry), now=NOW)
    assert caught.value.code == code, caught.value.as_dict()
    return caught.value


def values(*tags: Any) -> dict[str, Any]:
    statement = read(cose(corim(*tags), P256), signing.entry(P256), now=NOW)
    return {name: stated.value for name, stated in statement.values.items()}


def test_unsigned_is_refused_unless_said_in_so_many_words() -> None:
    for wrapper in (b"", b"\xd9\x01\xf4"):
        refused(wrapper + corim(), "provenance_unsigned")
        statement = read(wrapper + corim(), signing.entry(accept=[UNSIGNED]), now=NOW)
        assert statement.signers == frozenset()


def test_a_strangers_signature() -> None:
    refused(cose(corim(), STRANGER), "provenance_unsigned")
    error = refused(cose(corim(), ec.generate_private_key(ec.SECP256R1())), "provenance_unsigned")
    assert isinstance(error, DocumentInvalid)
    refused(cose(corim(), P256), "provenance_unsigned", P256, P384, threshold=2)
    refused(cose(corim(), P256), "provenance_unsigned", RSA)


def test_an_algorithm_that_is_not_the_keys() -> None:
    refused(cose(corim(), P256, header={1: -35}), "provenance_unsigned")
    refused(cose(corim(), OWNER, header={1: -7}), "provenance_unsigned", OWNER)


def test_an_unsigned_corim_where_the_signature_should_be_is_not_taken_for_signed() -> None:
    parts = cbor2.loads(SIGNED).value
    refused(b"\xd2" + cbor2.dumps([parts[0], parts[1], parts[2], b""]), "provenance_unsigned", accept=[UNSIGNED])


def test_another_content_type() -> None:
    refused(cose(corim(), P256, header={3: "application/json"}), "corim_malformed")
    refused(cose(cbor2.dumps({0: "x"}), P256), "corim_malformed")
    for odd in ([1], {1: 2}, 7, b"application/rim+cbor"):
        refused(cose(corim(), P256, header={3: odd}), "corim_malformed")


@settings(deadline=None)
@given(st.integers(0, len(SIGNED) - 1), st.integers(0, 7))
def test_one_flipped_bit_never_verifies(at: int, bit: int) -> None:
    changed = bytearray(SIGNED)
    changed[at] ^= 1 << bit
    with pytest.raises(AdytonError):
        read(bytes(changed), signing.entry(P256), now=NOW)


@given(st.binary(max_size=200))
def test_any_bytes_behind_the_tags(data: bytes) -> None:
    for head in (b"\xd9\x01\xf5", b"\xd2\x84", b"\xd9\x01\xf4\xd9\x01\xf6\x84"):
        with pytest.raises(AdytonError):
            read(head + data, signing.entry(P256, accept=[UNSIGNED]), now=NOW)


@pytest.mark.parametrize(
    "tag",
    [
        comid(measured("aa" * 31)),
        comid({1: {2: []}}),
        comid({1: {2: [[3, b"x" * 32]]}}),
        comid({1: {}}),
        comid({1: {3: {0: True}}}),
        comid({1: {2: [[1, bytes(32)]], 3: {0: True}}}),
        comid({1: {4: Tag(563, [b"x", b"y"])}}),
        comid({1: {4: b"x"}}),
        comid({1: {1: -1}}),
        comid({1: {1: True}}),
        comid({1: {0: {0: ""}}}),
        comid(measured(), environment={0: {1: "ACME"}, 1: Tag(550, b"\x01" + bytes(16))}),
        comid(measured(), environment={2: Tag(37, UUID)}),
        comid(measured(), environment={0: {}}),
        comid(measured(), environment={0: {1: "AC/ME"}}),
        comid({1: {1: 3}}, {1: {1: 4}}),
        comid(),
        comid(measured(), version=-1),
        comid(measured(), tag_id=""),
        Tag(506, b"\xff"),
        Tag(506, "text"),
        Tag(505, b"x"),
        {0: 1},
    ],
)
def test_what_cannot_be_read_whole_is_refused(tag: Any) -> None:
    refused(cose(corim(tag), P256), "corim_malformed")


def test_two_comids_about_one_thing() -> None:
    refused(cose(corim(comid(measured()), comid(measured(), tag_id="other")), P256), "corim_malformed")


def registers(**digests: int) -> dict[Any, Any]:
    return {name: [[1, bytes([value]) * 32]] for name, value in digests.items()}


@pytest.mark.parametrize(
    "tag",
    [
        comid({1: {14: registers(**{"a/b": 1, "a_b": 2})}}),
        comid({1: {14: {1: [[1, bytes(32)]], "1": [[1, b"x" * 32]]}}}),
        comid({1: {14: {"": [[1, bytes(32)]]}}}),
        comid({0: 4, 1: {14: registers(x=1)}}, {0: "claim4", 1: {14: registers(x=2)}}),
        comid({0: "x"} | measured(), {1: {11: "x", **measured(OTHER)[1]}}),
        comid({0: Tag(37, UUID)} | measured(), {0: "31fb5abf-023e-4992-aa4e-95f9c1503bfa"} | measured(OTHER)),
        comid({0: "registers", **measured()}, {0: "registers", 1: {14: {}}}, {1: {14: registers(digests=1)}}),
    ],
)
def test_two_things_of_one_name_are_no_alternatives(tag: Any) -> None:
    refused(cose(corim(tag), P256), "corim_malformed")


def test_names_and_values() -> None:
    got = values(
        comid(
            measured() | {0: Tag(37, UUID)},
            measured(OTHER) | {0: Tag(37, UUID)},
            {0: 4, 1: {1: Tag(552, 7), 0: {0: "1.2.3"}}},
            {0: "loader", 1: {1: Tag(553, 5), 4: Tag(560, b"\x01\x02"), -1: "a profile's own"}},
            {1: {14: {"pcr0": [["sha-384", bytes(48)]], 1: [[1, bytes(32)]]}, 11: "tpm"}},
        )
    )
    assert got == {
        "ACME/RoadRunner/31fb5abf-023e-4992-aa4e-95f9c1503bfa/digests": [HASH, OTHER],
        "ACME/RoadRunner/claim4/svn": 7,
        "ACME/RoadRunner/claim4/version": ["1.2.3"],
        "ACME/RoadRunner/loader/min_svn": 5,
        "ACME/RoadRunner/loader/raw_bytes": "0102",
        "ACME/RoadRunner/tpm/registers/pcr0": ["00" * 48],
        "ACME/RoadRunner/tpm/registers/1": ["00" * 32],
    }
    assert values(comid(measured(), environment={0: {0: Tag(37, UUID), 3: 2, 4: 1}})) == {
        "31fb5abf-023e-4992-aa4e-95f9c1503bfa/layer2/index1/digests": [HASH]
    }


def test_other_tags_and_triples_are_about_other_things() -> None:
    assert values(Tag(505, b"swid"), comid(measured())) == {"ACME/RoadRunner/digests": [HASH]}


@pytest.mark.parametrize("key", [P256, P384, P521, OWNER], ids=["p256", "p384", "p521", "ed25519"])
@pytest.mark.parametrize("tag", [b"\xd2", b"", b"\xd9\x01\xf6\xd2", b"\xd9\x01\xf4\xd9\x01\xf6\xd2"])
def test_every_key_and_wrapping(key: signing.Private, tag: bytes) -> None:
    statement = read(cose(corim(comid(measured(), version=3)), key, tag=tag), signing.entry(key), now=NOW)
    (stated,) = statement.values.values()
    assert (stated.series, stated.issue, stated.exact) == ("comid:guest", 3, True)
    assert statement.not_after is None


def test_validity_is_the_narrowest_of_corim_meta_and_claims() -> None:
    meta = cbor2.dumps({0: {0: "ACME"}, 1: {0: Tag(1, 1000), 1: Tag(1, 5000)}})
    document = cose(
        corim(validity={0: Tag(1, 2000), 1: Tag(1, 9000)}), P256, header={8: meta, 15: {1: "ACME", 4: 4000}}
    )
    statement = read(document, signing.entry(P256), now=NOW)
    assert statement.not_before == datetime.fromtimestamp(2000, UTC)
    assert statement.not_after == datetime.fromtimestamp(4000, UTC)
    refused(cose(corim(validity={1: "never"}), P256), "document_time")
    refused(cose(corim(validity=5), P256), "corim_malformed")
    refused(cose(corim(), P256, header={8: b"\xff"}), "corim_malformed")
    refused(cose(corim(), P256, header={8: b"\x01"}), "corim_malformed")
    refused(cose(corim(), P256, header={15: 1}), "corim_malformed")


def test_tag_ids_may_be_uuids() -> None:
    content = {1: {0: UUID}, 4: {0: [[{0: {1: "ACME"}}, [measured()]]]}}
    statement = read(cose(corim(Tag(506, cbor2.dumps(content))), P256), signing.entry(P256), now=NOW)
    assert statement.values["ACME/digests"].series == "comid:31fb5abf-023e-4992-aa4e-95f9c1503bfa"
