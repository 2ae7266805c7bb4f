from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.cca import (
    LEGACY_PLATFORM,
    PLATFORM_PROFILE_2,
    RAK_HASH_LABEL,
    RAK_LABEL,
    Forge,
    collection,
    cose_key,
    halves,
    raw_point,
)  # fmt: skip
from adyton.devtee.cose_signing import Envelope, repaid, resigned, sign1
from adyton.errors import (
    AdytonError,
    BindingMismatch,
    EndorsementMissing,
    EndorsementUntrusted,
    MalformedEvidence,
    SignatureInvalid,
)  # fmt: skip
from adyton.rats.types import SHARED_CLAIMS, Check, ReportData, Revocation, RootKind, TrustAnchors
from adyton.tee.cca import abi
from adyton.tee.cca.endorsements import MAX_TRIED, keys_in
from adyton.wire import cbor

NOW = datetime(2026, 6, 1, tzinfo=UTC)
CURVES = (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())


def test_rust_ccatoken_33_wrong_binding(cca: Any) -> None:
    """A genuine platform token in front of another realm's: each half verifies alone, and together they mean nothing."""
    mine, other = cca.forge, Forge(cca.forge.cpak, ec.generate_private_key(ec.SECP384R1()))
    platform, _ = halves(mine.token())
    _, realm = halves(other.token())
    with pytest.raises(BindingMismatch) as caught:
        cca.verify(collection(platform, realm))
    assert caught.value.code == "rak_binding"
    memory = tee.Remembered()
    cca.verify(mine.token(), remembered=memory)
    with pytest.raises(BindingMismatch):  # a platform's token that is known vouches for its own key only
        cca.verify(collection(platform, realm), remembered=memory)


@pytest.mark.parametrize(
    "challenge",
    [bytes(32), lambda rak: hashlib.sha384(rak).digest(), lambda rak: hashlib.sha256(rak[1:]).digest(),
     lambda rak: hashlib.sha256(rak).digest() + bytes(32), lambda rak: hashlib.sha256(rak).digest()[:31] + b"\0"],
)  # fmt: skip
def test_the_platform_s_challenge_is_the_digest_of_the_key_as_encoded(challenge: Any, cca: Any) -> None:
    value = challenge(cose_key(cca.forge.rak)) if callable(challenge) else challenge
    with pytest.raises(BindingMismatch) as caught:
        cca.verify(cca.forge.token(platform={10: value}))
    assert caught.value.code == "rak_binding"


def test_another_encoding_of_the_same_key_is_not_the_one_that_is_bound(cca: Any) -> None:
    forge = cca.forge
    raw, cose = (forge.realm({RAK_LABEL: encoded}) for encoded in (raw_point(forge.rak), cose_key(forge.rak)))
    platform = sign1(forge.cpak, cbor.encode(forge.platform(realm=raw)))
    with pytest.raises(BindingMismatch):
        cca.verify(collection(platform, sign1(forge.rak, cbor.encode(cose))))


@pytest.mark.parametrize("name", ["sha-256", "sha-384", "sha-512"])
@pytest.mark.parametrize("version", [0, 1, 2])
def test_every_hash_and_profile(name: str, version: int, cca: Any) -> None:
    token = cca.forge.token(realm={RAK_HASH_LABEL: name}, version=version)
    verified = cca.verify(token)
    assert verified.claims["rak_hash_alg"] == name
    assert verified.claims["rak_format"] == ("COSE_Key" if version else "raw point")
    memory = tee.Remembered()
    assert cca.verify(token, remembered=memory) == cca.verify(token, remembered=memory) == verified


@pytest.mark.parametrize("platform", CURVES)
@pytest.mark.parametrize("realm", CURVES)
def test_every_curve_with_its_own_algorithm(platform: ec.EllipticCurve, realm: ec.EllipticCurve, cca: Any) -> None:
    forge = Forge.new(platform, realm)
    anchors = TrustAnchors(vendor=False, custom=frozenset({forge.cpak_fingerprint}))
    claims = cca.verify(forge.token(), forge.cpak_pem, anchors=anchors).claims
    numbers = {"secp256r1": -7, "secp384r1": -35, "secp521r1": -36}
    assert (claims["platform_sig_alg"], claims["realm_sig_alg"]) == (numbers[platform.name], numbers[realm.name])


@pytest.mark.parametrize("algorithm", [-7, -36])
def test_the_header_does_not_choose_the_algorithm(algorithm: int, cca: Any) -> None:
    with pytest.raises(EndorsementMissing) as missing:
        cca.verify(cca.forge.token(platform_envelope=Envelope(algorithm=algorithm)))
    assert missing.value.code == "cpak_missing"
    with pytest.raises(SignatureInvalid) as caught:
        cca.verify(cca.forge.token(realm_envelope=Envelope(algorithm=algorithm)))
    assert caught.value.code == "realm_sig"


def test_wrong_signatures(cca: Any) -> None:
    forge = cca.forge
    platform, realm = halves(forge.token())
    stranger = ec.generate_private_key(ec.SECP384R1())
    payload = abi.parse(forge.token()).platform.payload
    for wrong in (bytes(96), bytes(95), b"", b"\xff" * 96):
        with pytest.raises(SignatureInvalid) as caught:
            cca.verify(collection(resigned(platform, wrong), realm))
        assert caught.value.code == "platform_sig"
        with pytest.raises(SignatureInvalid) as caught:
            cca.verify(collection(platform, resigned(realm, wrong)))
        assert caught.value.code == "realm_sig"
    for token, code in (
        (collection(sign1(stranger, payload), realm), "platform_sig"),
        (
            collection(repaid(platform, payload.replace(b"secured", b"SECURED").replace(b"BL", b"LB")), realm),
            "platform_sig",
        ),
        (collection(platform, sign1(stranger, abi.parse(forge.token()).realm.payload)), "realm_sig"),
        (collection(platform, sign1(forge.cpak, abi.parse(forge.token()).realm.payload)), "realm_sig"),
    ):
        with pytest.raises(SignatureInvalid) as caught:
            cca.verify(token)
        assert caught.value.code == code


def test_a_realm_key_that_is_none_is_malformed(cca: Any) -> None:
    for wrong in (b"\4" + bytes(96), b"\xa0", cose_key(cca.forge.rak, crv=1)):
        with pytest.raises(MalformedEvidence) as caught:
            cca.verify(cca.forge.token(realm={RAK_LABEL: wrong}))
        assert caught.value.code == "malformed_rak"


class TestPlatformKey:
    def test_none_is_trusted_by_default(self, cca: Any) -> None:
        for anchors in (TrustAnchors(), TrustAnchors(custom=frozenset({bytes(32)}))):
            trail: list[Check] = []
            with pytest.raises(EndorsementUntrusted) as caught:
                cca.verify(cca.forge.token(), anchors=anchors, trail=trail)
            assert caught.value.code == "cpak_untrusted"
            assert caught.value.got == cca.forge.cpak_fingerprint
            assert [check.id for check in trail] == ["format", "platform_sig", "root"]

    def test_trusted_but_not_given(self, cca: Any) -> None:
        with pytest.raises(EndorsementMissing):
            cca.verify(cca.forge.token(), endorsements=EndorsementSet())

    def test_another_trusted_key_does_not_help(self, cca: Any) -> None:
        stranger = Forge.new()
        anchors = TrustAnchors(vendor=False, custom=frozenset({cca.forge.cpak_fingerprint}))
        with pytest.raises(EndorsementUntrusted):
            cca.verify(stranger.token(), stranger.cpak_pem, cca.forge.cpak_pem, anchors=anchors)
        with pytest.raises(SignatureInvalid):
            cca.verify(stranger.token(), cca.forge.cpak_pem, anchors=anchors)

    def test_found_among_many_of_all_kinds(self, cca: Any) -> None:
        others = [Forge.new(curve).cpak_pem for curve in (*CURVES, *CURVES)]
        foreign = rsa.generate_private_key(65537, 2048).public_key()
        koblitz = ec.generate_private_key(ec.SECP256K1()).public_key()
        more = [key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for key in (foreign, koblitz)]
        broken = b"-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n"
        given = (*others, *more, broken, b'{"some": "document"}', cca.forge.cpak_pem)
        assert cca.verify(cca.forge.token(), *given).root_fingerprint == cca.forge.cpak_fingerprint.hex()
        assert len(keys_in(EndorsementSet.parse(given))) == 7

    def test_the_one_that_the_instance_id_names_comes_first(self, cca: Any) -> None:
        """However many others are given: the number of signatures that are tried is bounded."""
        spki = [ec.derive_private_key(number, ec.SECP384R1()).public_key() for number in range(2, MAX_TRIED + 20)]
        pems = [key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for key in spki]
        fingerprints = frozenset(
            hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest() for key in spki
        )
        anchors = TrustAnchors(vendor=False, custom=fingerprints | {cca.forge.cpak_fingerprint})
        cca.verify(cca.forge.token(), *pems, cca.forge.cpak_pem, anchors=anchors)


def test_challenge_and_personalisation_are_compared_in_full(cca: Any) -> None:
    challenge, rpv = bytes(range(64)), b"\7" * 64
    token = cca.forge.token(realm={44235: rpv})
    verified = cca.verify(token, report_data=ReportData(challenge), init_data=rpv)
    assert (verified.report_data.value, verified.init_data, verified.unchecked) == (
        challenge,
        rpv,
        ("revocation_lists",),
    )
    for wrong in (challenge[:63] + b"\0", challenge[:48] + bytes(16), challenge[::-1]):
        with pytest.raises(BindingMismatch) as caught:
            cca.verify(token, report_data=ReportData(wrong))
        assert caught.value.code == "report_data_mismatch"
    for wrong in (bytes(64), rpv[:32] + bytes(32), rpv[:63] + b"\6"):
        trail: list[Check] = []
        with pytest.raises(BindingMismatch) as caught:
            cca.verify(token, init_data=wrong, trail=trail)
        assert caught.value.code == "init_data_mismatch"
        assert trail[-1].id == "init_data"
    for call in ({"report_data": ReportData(challenge[:48])}, {"init_data": rpv[:32]}, {"init_data": b""}):
        with pytest.raises(ValueError, match="64 bytes"):
            cca.verify(token, **call)
    with pytest.raises(ValueError, match="empty"):
        cca.verify(token, report_data=ReportData(bytes(64)))


@pytest.mark.parametrize(
    ("lifecycle", "state"),
    [(0x0000, "unknown"), (0x10FF, "assembly_and_test"), (0x2000, "rot_provisioning"), (0x3000, "secured"), (0x30FF, "secured"),
     (0x4000, "non_cca_platform_debug"), (0x5001, "recoverable_cca_platform_debug"), (0x60FF, "decommissioned")],
)  # fmt: skip
def test_any_other_state_than_secured_is_told_as_debug(lifecycle: int, state: str, cca: Any) -> None:
    verified = cca.verify(cca.forge.token(platform={2395: lifecycle}))
    assert verified.claims["lifecycle_state"] == verified.tcb["lifecycle"] == state
    assert verified.claims["debug"] is (state != "secured")


@pytest.mark.parametrize("memory", [False, True])
def test_one_flipped_bit_never_verifies(memory: bool, cca: Any) -> None:
    token = cca.forge.token()
    remembered = tee.Remembered() if memory else None
    cca.verify(token, remembered=remembered)
    for bit in range(0, 8 * len(token), 13):
        wrong = bytearray(token)
        wrong[bit // 8] ^= 1 << bit % 8
        with pytest.raises(AdytonError):
            cca.verify(bytes(wrong), remembered=remembered)


class TestRemembered:
    def test_a_platform_s_token_is_verified_once(self, cca: Any) -> None:
        memory = tee.Remembered()
        platform, first = halves(cca.forge.token())
        realm = cca.forge.realm({10: b"\x99" * 64})
        second = collection(platform, sign1(cca.forge.rak, cbor.encode(realm)))
        for token in (collection(platform, first), second, second):
            trails: list[list[Check]] = [[], []]
            warm = cca.verify(token, remembered=memory, trail=trails[0])
            assert warm == cca.verify(token, trail=trails[1])
            assert trails[0] == trails[1]
        assert len(memory) == 2  # and the given keys

    def test_not_for_other_keys_anchors_or_platforms(self, cca: Any) -> None:
        memory = tee.Remembered()
        token = cca.forge.token()
        cca.verify(token, remembered=memory)
        with pytest.raises(EndorsementUntrusted):
            cca.verify(token, remembered=memory, anchors=TrustAnchors())
        with pytest.raises(EndorsementMissing):
            cca.verify(token, remembered=memory, endorsements=EndorsementSet())
        platform, realm = halves(token)
        with pytest.raises(SignatureInvalid):
            cca.verify(collection(resigned(platform, bytes(96)), realm), remembered=memory)
        with pytest.raises(SignatureInvalid):
            cca.verify(collection(platform, resigned(realm, bytes(96))), remembered=memory)

    def test_failures_are_not_remembered(self, cca: Any) -> None:
        memory = tee.Remembered()
        platform, realm = halves(cca.forge.token())
        with pytest.raises(SignatureInvalid):
            cca.verify(collection(platform, resigned(realm, bytes(96))), remembered=memory)
        assert len(memory) == 1  # the given keys


def test_claims(cca: Any) -> None:
    token = cca.forge.token(profile=PLATFORM_PROFILE_2, version=2, realm={9: 1})
    trail: list[Check] = []
    verified = cca.verify(token, trail=trail, revocation=Revocation.UNCHECKED_AS_ASKED)
    claims = verified.claims
    assert set(SHARED_CLAIMS) <= claims.keys()
    assert claims == tee.show("cca", token)
    assert claims["measurement"] == claims["rim"] == hashlib.sha256(b"realm").hexdigest()
    assert claims["platform_id"] == claims["instance_id"] == cca.forge.instance_id().hex()
    assert claims["report_data"] == bytes(range(64)).hex()
    assert claims["init_data"] == bytes(64).hex()
    assert (claims["debug"], claims["tcb_status"], claims["unknown_claims"]) == (False, None, [9])
    assert (verified.tee, verified.tee_class, verified.root) == ("cca", "cpu", RootKind.CUSTOM)
    assert verified.unchecked == ("revocation", "report_data", "init_data")
    assert verified.expires_first == "nothing"
    assert tuple(check.id for check in trail) == tuple(check.id for check in verified.checks)
    assert [check.id for check in verified.checks] == ["format", "platform_sig", "root", "rak_binding", "realm_sig"]
    as_json = json.dumps({"token": list(token)}).encode()
    assert cca.verify(as_json, revocation=Revocation.UNCHECKED_AS_ASKED) == verified
    assert cca.verify(token).unchecked == ("revocation_lists", "report_data", "init_data")


def test_coco_s_names(cca: Any) -> None:
    forge = cca.forge
    coco = cca.verify(forge.token(platform={265: LEGACY_PLATFORM})).coco_claims

    def b64(value: bytes) -> str:
        return base64.b64encode(value).decode()

    def sha(text: bytes) -> str:
        return b64(hashlib.sha256(text).digest())

    assert coco == {
        "report_data": bytes(range(64)).hex(),
        "init_data": bytes(64).hex(),
        "realm": {
            "cca-realm-challenge": b64(bytes(range(64))),
            "cca-realm-personalization-value": b64(bytes(64)),
            "cca-realm-initial-measurement": sha(b"realm"),
            "cca-realm-extensible-measurements": [b64(bytes(32))] * 4,
            "cca-realm-hash-algo-id": "sha-256",
            "cca-realm-public-key": b64(cose_key(forge.rak)),
            "cca-realm-public-key-hash-algo-id": "sha-256",
        },
        "platform": {
            "cca-platform-profile": LEGACY_PLATFORM,
            "cca-platform-challenge": sha(cose_key(forge.rak)),
            "cca-platform-config": b64(b"\xcf\xcf"),
            "cca-platform-lifecycle": 0x3003,
            "cca-platform-implementation-id": sha(b"implementation"),
            "cca-platform-instance-id": b64(forge.instance_id()),
            "cca-platform-hash-algo-id": "sha-256",
            "cca-platform-service-indicator": "https://verifier.example.invalid",
            "cca-platform-sw-components": [
                {
                    "measurement-type": "BL",
                    "measurement-value": sha(b"firmware"),
                    "signer-id": sha(b"signer"),
                    "version": "1.2",
                },
                {"measurement-value": sha(b"monitor"), "signer-id": sha(b"signer")},
            ],
        },
    }
    without = cca.verify(forge.token(platform={2400: ...})).coco_claims
    assert isinstance(without["platform"], dict)
    assert "cca-platform-service-indicator" not in without["platform"]


def test_a_public_key_is_trusted_like_a_root(cca: Any) -> None:
    import adyton

    token = cca.forge.token()
    verified = adyton.verify(token, tee="cca", at=NOW, endorsements=[], trust_roots=[cca.forge.cpak_pem])
    assert verified.root_fingerprint == cca.forge.cpak_fingerprint.hex()
    with pytest.raises(EndorsementUntrusted):
        adyton.verify(token, tee="cca", at=NOW, endorsements=[cca.forge.cpak_pem])
    assert EndorsementSet.parse([cca.forge.cpak_pem]).fingerprints == {cca.forge.cpak_fingerprint}
