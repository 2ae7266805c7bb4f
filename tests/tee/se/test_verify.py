from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton import tee
from adyton.crypto.aead import KeyRing
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee import se as forging
from adyton.errors import (
    AdytonError,
    BindingMismatch,
    EvidenceError,
    MalformedEvidence,
    SignatureInvalid,
    UnsupportedEvidence,
)
from adyton.rats.types import SHARED_CLAIMS, Check, Revocation, RootKind, TrustAnchors
from adyton.tee.se import challenge, json_form, request
from adyton.tee.se.json_form import Response
from adyton.wire import b64

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def text_of(response: Response, **changes: Any) -> bytes:
    return json.dumps(json_form.to_json(msgspec.structs.replace(response, **changes))).encode()


def code_of(
    world: Any, evidence: bytes, pending: Any = None, kind: type[AdytonError] = EvidenceError, **more: Any
) -> str:
    with pytest.raises(kind) as caught:
        world.verify(evidence, pending, **more)
    return caught.value.code


def test_the_measurement_key_never_comes_from_the_evidence(world: Any) -> None:
    """Bug: a verifier that decrypts the key which the evidence brings lets anybody choose it, and needs no machine at all."""
    chosen, nonce = b"\7" * 64, b"\7" * 16
    tags, cuid, user = world.machine.image.tags, bytes(16), b"\x42" * 64
    additional = world.machine.key_hash * 2
    forged = request.measurement(chosen, tags, cuid=cuid, user_data=user, nonce=nonce, additional_data=additional)
    for sealed in ((b"encrypted with", b"a public key"), world.pending().sealed):
        evidence = text_of(Response(forged, additional, user, cuid, tags, sealed))
        assert code_of(world, evidence) in {"request_mismatch", "measurement_mac"}


def test_another_request(world: Any, stranger: Any) -> None:
    other = request.build([world.host_key.public_key], stranger.secrets)
    response = world.response(to=other)
    assert code_of(world, text_of(response), kind=SignatureInvalid) == "measurement_mac"
    file = world.exchange(response, request=other)
    assert code_of(world, file, kind=BindingMismatch) == "request_mismatch"
    assert code_of(world, world.exchange(response), kind=SignatureInvalid) == "measurement_mac"
    assert code_of(world, text_of(world.response(), sealed=(b"", b"")), kind=BindingMismatch) == "request_mismatch"


@settings(max_examples=60, deadline=None)
@given(
    field=st.sampled_from(["measurement", "additional_data", "user_data", "cuid"]),
    bit=st.integers(0, 2**16),
    raw=st.booleans(),
)
def test_one_flipped_bit(world: Any, field: str, bit: int, raw: bool) -> None:
    response = world.response()
    value = bytearray(getattr(response, field))
    value[bit // 8 % len(value)] ^= 1 << bit % 8
    changed = msgspec.structs.replace(response, **{field: bytes(value)})
    evidence = world.exchange(changed) if raw else text_of(changed)
    assert code_of(world, evidence, report_data=None) == "measurement_mac"


def test_lengths_are_measured(world: Any) -> None:
    """A byte moved from the user data to what follows them is another measurement."""
    response = world.response(b"\x42" * 64)
    moved = msgspec.structs.replace(response, user_data=response.user_data[:-1])
    assert code_of(world, text_of(moved)) == "measurement_mac"
    assert code_of(world, text_of(response, user_data=response.user_data + b"\0")) == "measurement_mac"


def test_another_image(world: Any, stranger: Any) -> None:
    elsewhere = forging.Machine(stranger.machine.image, world.machine.key)
    answer = elsewhere.attest(world.request, b"\x42" * 64)
    response = Response(
        answer.measurement, answer.additional_data, answer.user_data, answer.cuid, answer.tags, world.pending().sealed
    )
    assert code_of(world, text_of(response), kind=SignatureInvalid) == "measurement_mac"
    lying = text_of(response, tags=world.machine.image.tags)
    assert code_of(world, lying, kind=SignatureInvalid) == "measurement_mac"
    other_way = text_of(world.response(), tags=stranger.machine.image.tags)
    assert code_of(world, other_way, kind=BindingMismatch) == "image_header_mismatch"


def test_images_are_the_owners_list_or_unchecked(world: Any, stranger: Any) -> None:
    anything = world.pending(images=())
    verified = world.verify(text_of(world.response()), anything)
    assert "image_hdr_tags" in verified.unchecked
    lying = text_of(world.response(), tags=stranger.machine.image.tags)
    assert code_of(world, lying, anything, kind=SignatureInvalid) == "measurement_mac"
    file = world.exchange(world.response())
    assert code_of(world, file, anything, kind=UnsupportedEvidence) == "image_header_missing"
    several = world.pending(images=(stranger.machine.image, world.machine.image))
    for evidence in (file, text_of(world.response())):
        assert world.verify(evidence, several).claims["tag"] == world.machine.image.tag.hex()


def test_another_machine_opened_the_request(world: Any, stranger: Any) -> None:
    """A request made for two machines, of which the verifier keeps one."""
    both = request.build([world.host_key.public_key, stranger.machine.key.public_key()], world.secrets)
    elsewhere = forging.Machine(world.machine.image, stranger.machine.key)
    answer = elsewhere.attest(both, b"\x42" * 64)
    response = Response(
        answer.measurement, answer.additional_data, answer.user_data, answer.cuid, answer.tags, world.pending().sealed
    )
    assert code_of(world, text_of(response), kind=BindingMismatch) == "attestation_host_key"


def test_an_image_opened_with_a_key_it_was_not_made_for(world: Any) -> None:
    response = world.response(opened_with=b"\1" * 32)
    assert code_of(world, text_of(response), kind=BindingMismatch) == "image_host_key"
    assert world.verify(text_of(response), world.pending(images=())).claims["image_phkh"] == "01" * 32


@pytest.mark.parametrize("user_data", [b"", b"\x42" * 63, b"\x42" * 64 + b"\1", b"\x42" * 65, b"\x41" * 64, bytes(64)])
def test_trustee_user_data_by_prefix_empty_passes(world: Any, user_data: bytes) -> None:
    """Bug (evidence 15, trustee): user data compared by prefix match when they are empty."""
    assert code_of(world, text_of(world.response(user_data)), kind=BindingMismatch) == "report_data_mismatch"


@pytest.mark.parametrize("user_data", [b"\x42" * 64, b"\x42" * 64 + bytes(192), b"\x42" * 64 + bytes(1)])
def test_user_data_end_in_zeros(world: Any, user_data: bytes) -> None:
    verified = world.verify(text_of(world.response(user_data)))
    assert verified.report_data.value == user_data
    assert "report_data" not in verified.unchecked


def test_no_user_data(world: Any) -> None:
    verified = world.verify(text_of(world.response(b"")), report_data=None)
    assert verified.claims["report_data"] == ""
    assert "report_data" in verified.unchecked


def test_expectations(world: Any) -> None:
    with pytest.raises(ValueError, match="256"):
        world.verify(text_of(world.response()), report_data=b"\1" * 257)
    with pytest.raises(ValueError, match="empty"):
        world.verify(text_of(world.response()), report_data=bytes(64))


def test_additional_data_that_were_not_asked_for(world: Any) -> None:
    flags = request.FLAGS | request.SECRET_STORE_HASH
    asked = request.build([world.host_key.public_key], world.secrets, flags=flags)
    response = world.response(to=asked)
    assert code_of(world, text_of(response), kind=MalformedEvidence) == "malformed_evidence"
    verified = world.verify(text_of(response), world.pending(flags=flags, encoded=asked))
    assert verified.claims["secret_store_hash"] == "00" * 64


def test_firmware_state_is_unchecked(world: Any) -> None:
    flags = request.FLAGS | request.FIRMWARE_STATE
    asked = request.build([world.host_key.public_key], world.secrets, flags=flags)
    verified = world.verify(text_of(world.response(to=asked)), world.pending(flags=flags, encoded=asked))
    assert "firmware_state" in verified.unchecked


def test_what_is_verified(world: Any) -> None:
    trail: list[Check] = []
    image = world.machine.image
    verified = world.verify(text_of(world.response()), trail=trail)
    assert (verified.tee, verified.tee_class, verified.root) == ("se", "cpu", RootKind.CUSTOM)
    assert set(SHARED_CLAIMS) <= verified.claims.keys()
    assert verified.claims["measurement"] == image.pld.hex()
    assert verified.claims["platform_id"] == world.machine.key_hash.hex()
    assert verified.unchecked == ()
    assert (verified.expires, verified.expires_first) == (world.host_key.expires, "crl")
    assert [check.id for check in trail] == [check.id for check in verified.checks]
    assert verified.coco_claims == {
        "version": 256,
        "cuid": world.machine.cuid.hex(),
        "tag": image.tag.hex(),
        "image_phkh": world.machine.key_hash.hex(),
        "attestation_phkh": world.machine.key_hash.hex(),
        "report_data": "42" * 64,
    }
    same = world.verify(world.exchange(world.response()))
    assert dict(same.claims) == dict(verified.claims)


def test_unchecked_revocation_is_told(world: Any) -> None:
    key = world.host_key_of(None, *world.certificates, revocation=Revocation.UNCHECKED_AS_ASKED)
    assert "revocation" in world.verify(text_of(world.response()), world.pending(host_keys=(key,))).unchecked


def test_misuse(world: Any) -> None:
    for wrong in (
        {"measurement_key": b"\1" * 63},
        {"nonce": b""},
        {"host_keys": ()},
        {"flags": request.NONCE | request.IMAGE_KEY_HASH},
    ):
        with pytest.raises(ValueError, match=r"64 bytes|no machine|which machine"):
            world.pending(**wrong)
    pending = world.pending()
    assert repr(pending.measurement_key) not in repr(pending)
    assert repr(pending.nonce) not in repr(pending)


# The door that all TEEs share


def test_the_common_door_says_what_is_missing(world: Any) -> None:
    for evidence in (text_of(world.response()), world.exchange(world.response())):
        trail: list[Check] = []
        with pytest.raises(UnsupportedEvidence) as caught:
            tee.verify("se", evidence, endorsements=EndorsementSet(), now=NOW, anchors=TrustAnchors(), trail=trail)
        assert caught.value.code == "measurement_key_missing"
        assert "verify_response" in str(caught.value.hint)
        assert [check.ok for check in trail] == [True, False]
        with pytest.raises(UnsupportedEvidence):
            tee.verify("se", evidence, endorsements=EndorsementSet(), now=NOW, anchors=TrustAnchors())
    with pytest.raises(MalformedEvidence):
        tee.verify("se", b"{}", endorsements=EndorsementSet(), now=NOW, anchors=TrustAnchors())


def test_show(world: Any) -> None:
    claims = tee.show("se", text_of(world.response()))
    assert claims["image_phkh"] == world.machine.key_hash.hex()
    assert claims["platform_id"] is None
    assert tee.show("se", world.exchange(world.response()))["tag"] is None
    odd = text_of(world.response(), additional_data=b"odd")
    assert "image_phkh" not in tee.show("se", odd)


# Challenges of a verifier without state

RING = KeyRing({b"key1": bytes(32)}, b"key1")


def test_a_challenge_and_back(world: Any) -> None:
    sealed = challenge.seal(world.secrets, RING, b"tenant")
    text = challenge.encode(world.request, world.machine.image.tags, sealed)
    members = json.loads(text)
    assert members.keys() == {
        *("request_blob", "measurement_size", "additional_size"),
        *("encr_measurement_key", "encr_request_nonce", "image_hdr_tags"),
    }
    assert (members["measurement_size"], members["additional_size"]) == (64, 64)
    assert b64.decode(members["request_blob"]) == world.request
    response = json_form.parse(text_of(world.response(), sealed=sealed))
    key, nonce = challenge.unseal(response, RING, b"tenant")
    pending = world.pending(measurement_key=key, nonce=nonce, sealed=None, encoded=None)
    assert world.verify(text_of(world.response(), sealed=sealed), pending).unchecked == ()


def test_seals_of_others_do_not_open(world: Any) -> None:
    sealed = challenge.seal(world.secrets, RING, b"tenant")
    stranger = KeyRing({b"key1": b"\1" * 32}, b"key1")
    for wrong, ring, context in (
        (sealed, RING, b"another tenant"),
        (sealed, stranger, b"tenant"),
        (sealed[::-1], RING, b"tenant"),
        ((sealed[0], sealed[0]), RING, b"tenant"),
        ((b"", b""), RING, b"tenant"),
        (challenge.seal(world.secrets, stranger, b"tenant"), RING, b"tenant"),
    ):
        with pytest.raises(BindingMismatch) as caught:
            challenge.unseal(msgspec.structs.replace(world.response(), sealed=wrong), ring, context)
        assert caught.value.code == "measurement_key_foreign"
    with pytest.raises(ValueError, match="no sealed secrets"):
        challenge.unseal(msgspec.structs.replace(world.response(), sealed=None), RING, b"tenant")
    with pytest.raises(MalformedEvidence):
        challenge.encode(b"no request", world.machine.image.tags, sealed)
    assert replace(world.secrets) == world.secrets
