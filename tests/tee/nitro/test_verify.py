from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adyton import tee
from adyton.crypto.ecdsa import P384_ORDER
from adyton.devtee.cose_signing import repaid, resigned
from adyton.devtee.nitro import Forge, Part, pcrs
from adyton.errors import (
    AdytonError,
    BindingMismatch,
    EndorsementError,
    EndorsementExpired,
    EndorsementMalformed,
    EndorsementRevoked,
    EndorsementUntrusted,
    FreshnessFailed,
    SignatureInvalid,
    UnsupportedEvidence,
)
from adyton.rats.types import SHARED_CLAIMS, Check, ReportData, Revocation, RootKind, TrustAnchors
from adyton.tee.nitro import abi
from adyton.tee.nitro import verify as room

HOUR = timedelta(hours=1)
P256 = ec.generate_private_key(ec.SECP256R1())
STRANGER = ec.generate_private_key(ec.SECP384R1())


def usage(**bits: bool) -> x509.KeyUsage:
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: bits.get(name, False) for name in names})


UNKNOWN = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), True)

WRONG_CHAINS: dict[str, tuple[dict[str, Any], type[AdytonError], str]] = {
    "root expired": ({"name": "root", "lifetime": timedelta(seconds=30)}, EndorsementExpired, "root_validity"),
    "region not begun": (
        {"name": "region", "start": datetime(2026, 6, 2, tzinfo=UTC)},
        EndorsementExpired,
        "region_validity",
    ),
    "zone expired": ({"name": "zone", "lifetime": timedelta(seconds=30)}, EndorsementExpired, "zone_validity"),
    "instance expired": (
        {"name": "instance", "lifetime": timedelta(seconds=30)},
        EndorsementExpired,
        "instance_validity",
    ),
    "leaf expired": ({"name": "leaf", "lifetime": timedelta(seconds=30)}, EndorsementExpired, "leaf_validity"),
    "root no authority": (
        {"name": "root", "constraints": x509.BasicConstraints(ca=False, path_length=None)},
        EndorsementMalformed,
        "root_profile",
    ),
    "zone without constraints": ({"name": "zone", "constraints": False}, EndorsementMalformed, "zone_profile"),
    "instance without usage": ({"name": "instance", "usage": False}, EndorsementMalformed, "instance_profile"),
    "zone may not sign": (
        {"name": "zone", "usage": usage(digital_signature=True)},
        EndorsementMalformed,
        "zone_profile",
    ),
    "region's path too short": (
        {"name": "region", "constraints": x509.BasicConstraints(ca=True, path_length=1)},
        EndorsementMalformed,
        "region_profile",
    ),
    "leaf an authority": (
        {"name": "leaf", "constraints": x509.BasicConstraints(ca=True, path_length=None)},
        EndorsementMalformed,
        "leaf_profile",
    ),
    "leaf for other things": (
        {"name": "leaf", "usage": usage(key_agreement=True)},
        EndorsementMalformed,
        "leaf_profile",
    ),
    "leaf without usage": ({"name": "leaf", "usage": False}, EndorsementMalformed, "leaf_profile"),
    "leaf with something critical": (
        {"name": "leaf", "more": (UNKNOWN,)},
        EndorsementMalformed,
        "leaf_critical_extension",
    ),
    "zone with something critical": (
        {"name": "zone", "more": (UNKNOWN,)},
        EndorsementMalformed,
        "zone_critical_extension",
    ),
    "leaf by a stranger": ({"name": "leaf", "signer": STRANGER}, EndorsementUntrusted, "leaf_sig"),
    "region by a stranger": ({"name": "region", "signer": STRANGER}, EndorsementUntrusted, "region_sig"),
    "root by a stranger": ({"name": "root", "signer": STRANGER}, EndorsementUntrusted, "root_sig"),
    "zone of another issuer": ({"name": "zone", "issuer": "elsewhere"}, EndorsementError, "region_missing"),
    "leaf with SHA-256": ({"name": "leaf", "hash": hashes.SHA256()}, EndorsementMalformed, "leaf_sig_algorithm"),
    "zone with SHA-512": ({"name": "zone", "hash": hashes.SHA512()}, EndorsementMalformed, "zone_sig_algorithm"),
    "leaf with a P-256 key": ({"name": "leaf", "key": P256}, EndorsementMalformed, "leaf_key"),
    "instance with a P-256 key": ({"name": "instance", "key": P256}, EndorsementUntrusted, "leaf_sig"),
}


@pytest.mark.parametrize("name", WRONG_CHAINS)
def test_wrong_chains(name: str, nitro: Any) -> None:
    changes, kind, code = WRONG_CHAINS[name]
    forge = Forge.new(nitro.now, parts=[Part(**changes)])
    anchors = TrustAnchors(vendor=False, custom=frozenset({forge.root_fingerprint}))
    trail: list[Check] = []
    with pytest.raises(kind) as caught:
        nitro.verify(
            forge.document(key=forge.keys[-1])
            if changes.get("key") is not P256 or changes["name"] != "leaf"
            else forge.document(key=STRANGER),
            anchors=anchors,
            trail=trail,
        )
    assert caught.value.code == code
    assert caught.value.tee == "nitro"
    assert [check.ok for check in trail] == [True] * (len(trail) - 1) + [False]


def test_a_leaf_that_is_wrong_is_refused_under_known_authorities_too(nitro: Any) -> None:
    for changes, kind, code in WRONG_CHAINS.values():
        if changes["name"] != "leaf":
            continue
        memory = tee.Remembered()
        nitro.verify(nitro.forge.document(), remembered=memory)
        forge = nitro.forge.with_leaf(**{name: value for name, value in changes.items() if name != "name"})
        for remembered in (memory, None):
            with pytest.raises(kind) as caught:
                nitro.verify(forge.document(key=STRANGER), remembered=remembered)
            assert caught.value.code == code


def test_the_root_in_the_document_is_data(nitro: Any) -> None:
    """An attacker's chain has the same names, and a root that signed itself."""
    forged = Forge.new(nitro.now)
    for anchors in (nitro.anchors, TrustAnchors()):
        with pytest.raises(EndorsementUntrusted) as caught:
            nitro.verify(forged.document(), anchors=anchors)
        assert caught.value.code == "root_untrusted"
        assert caught.value.got == forged.root_fingerprint


def test_the_trusted_root_beside_a_forged_chain_does_not_help(nitro: Any) -> None:
    forged = Forge.new(nitro.now)
    mixed = [nitro.forge.bundle[0], *forged.bundle]
    with pytest.raises(EndorsementError):
        nitro.verify(forged.document(cabundle=mixed))
    with pytest.raises(EndorsementError):
        nitro.verify(forged.document(cabundle=[nitro.forge.bundle[0], *forged.bundle[1:]]))


def test_the_bundle_is_the_chain_in_its_order(nitro: Any) -> None:
    bundle = nitro.forge.bundle
    for wrong in (bundle[::-1], [bundle[1], bundle[0], *bundle[2:]], [*bundle[:2], bundle[3], bundle[2]]):
        with pytest.raises(EndorsementMalformed) as caught:
            nitro.verify(nitro.forge.document(cabundle=wrong))
        assert caught.value.code == "cabundle_order"
    for wrong in (
        bundle[1:],
        bundle[:-1],
        [*bundle, bundle[-1]],
        [bundle[0], *bundle],
        [b"\x30\x00", *bundle[1:]],
        [b"root"] * 4,
    ):
        with pytest.raises(EndorsementError):
            nitro.verify(nitro.forge.document(cabundle=wrong))


@pytest.mark.parametrize(
    "authorities", [(), ("instance",), ("zone", "instance"), ("a", "b", "c", "d", "e", "f", "instance")]
)
def test_chains_of_every_length(authorities: tuple[str, ...], nitro: Any) -> None:
    forge = Forge.new(nitro.now, authorities=authorities)
    anchors = TrustAnchors(vendor=False, custom=frozenset({forge.root_fingerprint}))
    assert nitro.verify(forge.document(), anchors=anchors).root is RootKind.CUSTOM


def test_wrong_signatures(nitro: Any) -> None:
    document = nitro.forge.document()
    good = abi.parse(document).message.signature
    r, s = good[:48], good[48:]
    for bad in (
        bytes(96), r + bytes(48), bytes(48) + s, s + r, r[::-1] + s[::-1], b"\xff" * 96, bytes((r[0] ^ 1,)) + good[1:],
        ((int.from_bytes(r, "big") + P384_ORDER) % 2**384).to_bytes(48, "big") + s,
    ):  # fmt: skip
        with pytest.raises(SignatureInvalid) as caught:
            nitro.verify(resigned(document, bad))
        assert caught.value.code == "document_sig"
    with pytest.raises(SignatureInvalid):
        nitro.verify(nitro.forge.document(key=STRANGER))
    payload = bytearray(abi.parse(document).message.payload)
    payload[payload.index(b"i-0123")] ^= 1
    with pytest.raises(SignatureInvalid):
        nitro.verify(repaid(document, bytes(payload)))


def test_a_key_that_signs_nothing_here(nitro: Any) -> None:
    forge = nitro.forge.with_leaf(key=rsa.generate_private_key(65537, 2048))
    with pytest.raises(EndorsementMalformed) as caught:
        nitro.verify(forge.document(key=STRANGER))
    assert caught.value.code == "leaf_profile"
    with pytest.raises(EndorsementMalformed):
        nitro.verify(nitro.forge.document(certificate=b"\x30\x03\x02\x01\x01"))


@pytest.mark.parametrize("memory", [False, True])
def test_one_flipped_bit_never_verifies(memory: bool, nitro: Any) -> None:
    remembered = tee.Remembered() if memory else None
    document = nitro.forge.document(nonce=b"nonce", user_data=b"data")
    nitro.verify(document, remembered=remembered)
    for bit in range(0, 8 * len(document), 61):
        wrong = bytearray(document)
        wrong[bit // 8] ^= 1 << bit % 8
        with pytest.raises(AdytonError):
            nitro.verify(bytes(wrong), remembered=remembered)


@pytest.mark.parametrize(
    ("moved", "code"),
    [
        (-timedelta(minutes=1, milliseconds=1), "timestamp_outside_leaf"),
        (-4 * HOUR, "timestamp_outside_leaf"),
        (3 * HOUR, "timestamp_outside_leaf"),
        (room.CLOCK_SKEW + timedelta(milliseconds=1), "timestamp_future"),
        (2 * HOUR, "timestamp_future"),
    ],
)
def test_a_document_of_another_time(moved: timedelta, code: str, nitro: Any) -> None:
    document = nitro.forge.document(timestamp=int((nitro.now + moved).timestamp() * 1000))
    with pytest.raises(FreshnessFailed) as caught:
        nitro.verify(document)
    assert caught.value.code == code


def test_the_last_second_and_a_clock_that_is_ahead(nitro: Any) -> None:
    end = nitro.now - timedelta(minutes=1) + 3 * HOUR
    last = nitro.forge.document(timestamp=int(end.timestamp() * 1000) + 999)
    nitro.verify(last, now=end)
    with pytest.raises(EndorsementExpired):
        nitro.verify(last, now=end + timedelta(seconds=1))
    nitro.verify(nitro.forge.document(timestamp=int((nitro.now + room.CLOCK_SKEW).timestamp() * 1000)))
    endless = nitro.forge.with_leaf(
        start=nitro.now, lifetime=datetime(9999, 12, 31, 23, 59, 59, tzinfo=nitro.now.tzinfo) - nitro.now
    )
    nitro.verify(endless.document())


def test_the_nonce_is_compared_in_full(nitro: Any) -> None:
    nonce = bytes(range(1, 33))
    document = nitro.forge.document(nonce=nonce)
    assert nitro.verify(document, report_data=ReportData(nonce)).report_data.value == nonce
    for wrong in (nonce[:-1], nonce + b"\0", nonce[:31] + b"\x21", b"\1", nonce * 2):
        trail: list[Check] = []
        with pytest.raises(BindingMismatch) as caught:
            nitro.verify(document, report_data=ReportData(wrong), trail=trail)
        assert caught.value.code == "report_data_mismatch"
        assert trail[-1].id == "report_data"
        assert not trail[-1].ok
    for absent in (None, b"", ...):
        with pytest.raises(BindingMismatch):
            nitro.verify(nitro.forge.document(nonce=absent), report_data=ReportData(nonce))
        with pytest.raises(ValueError, match="empty"):
            nitro.verify(nitro.forge.document(nonce=absent), report_data=ReportData(b"\0"))
    with pytest.raises(BindingMismatch):
        nitro.verify(nitro.forge.document(user_data=nonce), report_data=ReportData(nonce))
    with pytest.raises(UnsupportedEvidence) as unsupported:
        nitro.verify(document, init_data=b"x")
    assert unsupported.value.code == "no_init_data"


def test_debug_mode_is_authentic_and_told(nitro: Any) -> None:
    zero = bytes(48)
    verified = nitro.verify(nitro.forge.document(pcrs=pcrs(pcr0=zero, pcr1=zero, pcr2=zero)))
    assert verified.claims["debug"] is True
    assert verified.claims["debug_mode_pcr0_zero"] is True
    assert verified.claims["measurement"] == zero.hex()
    for register in ("pcr0", "pcr1", "pcr2"):
        assert nitro.verify(nitro.forge.document(pcrs=pcrs(**{register: zero}))).claims["debug"] is True
    assert nitro.verify(nitro.forge.document()).claims["debug"] is False


def test_claims(nitro: Any) -> None:
    document = nitro.forge.document(public_key=b"k", user_data=b"", nonce=b"n")
    trail: list[Check] = []
    verified = nitro.verify(document, report_data=ReportData(b"n"), trail=trail)
    claims = verified.claims
    assert set(SHARED_CLAIMS) <= claims.keys()
    shown = pcrs()
    assert claims["pcrs"] == {str(number): shown[number].hex() for number in range(5)}
    assert (claims["measurement"], claims["platform_id"]) == (shown[0].hex(), shown[4].hex())
    assert (claims["public_key"], claims["user_data"], claims["nonce"], claims["report_data"]) == ("6b", "", "6e", "6e")
    assert (claims["tcb_status"], claims["init_data"]) == (None, None)
    assert claims["timestamp"] == nitro.now.isoformat()
    assert verified.coco_claims == claims
    assert (verified.tee, verified.tee_class, verified.init_data) == ("nitro", "cpu", b"")
    assert verified.root is RootKind.CUSTOM
    assert verified.root_fingerprint == nitro.forge.root_fingerprint.hex()
    assert (verified.expires, verified.expires_first) == (nitro.now - timedelta(minutes=1) + 3 * HOUR, "leaf")
    assert [check.id for check in trail] == [check.id for check in verified.checks]
    assert verified.unchecked == ("revocation_lists",)
    assert tee.show("nitro", document) == claims
    assert tee.show("nitro", nitro.forge.document(certificate=b"?"))["module_id"] == claims["module_id"]
    without = nitro.verify(nitro.forge.document())
    assert without.claims["report_data"] is None
    assert without.unchecked == ("revocation_lists", "report_data")


def test_the_instance_may_end_before_the_leaf(nitro: Any) -> None:
    forge = Forge.new(nitro.now, parts=[Part(name="instance", lifetime=HOUR)])
    anchors = TrustAnchors(vendor=False, custom=frozenset({forge.root_fingerprint}))
    verified = nitro.verify(forge.document(), anchors=anchors)
    assert verified.expires_first == "instance"
    assert verified.expires == nitro.now - timedelta(minutes=1) + HOUR


class TestRevocation:
    """AWS's instructions do not ask for lists: without one nothing is refused. One that is given counts."""

    def lists(self, nitro: Any, **revoked: Any) -> list[bytes]:
        return [nitro.forge.crl(number, revoked.get(f"by{number}", ())) for number in range(3)]

    def test_required_does_not_fail_without_lists(self, nitro: Any) -> None:
        verified = nitro.verify(nitro.forge.document(), revocation=Revocation.REQUIRED)
        assert "revocation_lists" in verified.unchecked
        assert "revocation" not in verified.unchecked

    def test_all_lists_given(self, nitro: Any) -> None:
        verified = nitro.verify(nitro.forge.document(), *self.lists(nitro))
        assert not {"revocation", "revocation_lists"} & set(verified.unchecked)
        assert "revocation" in [check.id for check in verified.checks]

    def test_some_lists_given(self, nitro: Any) -> None:
        assert "revocation_lists" in nitro.verify(nitro.forge.document(), *self.lists(nitro)[:2]).unchecked

    @pytest.mark.parametrize(("number", "role"), [(0, "region"), (1, "zone"), (2, "instance")])
    def test_revoked(self, number: int, role: str, nitro: Any) -> None:
        lists = self.lists(nitro, **{f"by{number}": [nitro.forge.certificates[number + 1]]})
        with pytest.raises(EndorsementRevoked) as caught:
            nitro.verify(nitro.forge.document(), *lists)
        assert caught.value.code == f"{role}_revoked"
        verified = nitro.verify(nitro.forge.document(), *lists, revocation=Revocation.UNCHECKED_AS_ASKED)
        assert "revocation" in verified.unchecked

    def test_a_stale_list_and_a_stranger_s(self, nitro: Any) -> None:
        with pytest.raises(EndorsementExpired):
            nitro.verify(nitro.forge.document(), nitro.forge.crl(0, start=nitro.now - timedelta(days=3)))
        with pytest.raises(EndorsementUntrusted):
            nitro.verify(nitro.forge.document(), Forge.new(nitro.now).crl(0))

    def test_a_leaf_is_looked_up_under_known_authorities_too(self, nitro: Any) -> None:
        part = Part(name="instance", usage=usage(key_cert_sign=True, crl_sign=True))
        forge = Forge.new(nitro.now, parts=[part])
        anchors = TrustAnchors(vendor=False, custom=frozenset({forge.root_fingerprint}))
        second = forge.with_leaf()
        crl = forge.crl(3, [second.certificates[-1]])
        memory = tee.Remembered()
        nitro.verify(forge.document(), crl, anchors=anchors, remembered=memory)
        for remembered in (memory, None):
            with pytest.raises(EndorsementRevoked) as caught:
                nitro.verify(second.document(), crl, anchors=anchors, remembered=remembered)
            assert caught.value.code == "leaf_revoked"


class TestRemembered:
    def test_the_same_verdict_with_and_without(self, nitro: Any) -> None:
        memory = tee.Remembered()
        for forge in (nitro.forge, nitro.forge.with_leaf(), nitro.forge.with_leaf(lifetime=HOUR)):
            document = forge.document(nonce=b"n")
            fresh = nitro.verify(document)
            trails: list[list[Check]] = [[], []]
            first = nitro.verify(document, remembered=memory, trail=trails[0])
            again = nitro.verify(document, remembered=memory, trail=trails[1])
            assert fresh == first == again
            assert trails[0] == trails[1]
        assert len(memory) == 2  # the authorities, and the last leaf under them

    def test_a_leaf_that_is_known_is_still_looked_at(self, nitro: Any) -> None:
        memory = tee.Remembered()
        mine, other = nitro.forge.with_leaf(lifetime=HOUR), nitro.forge.with_leaf()
        nitro.verify(mine.document(), remembered=memory)
        late = nitro.now + 2 * HOUR
        with pytest.raises(EndorsementExpired) as caught:
            nitro.verify(mine.document(), now=late, remembered=memory)
        assert caught.value.code == "leaf_validity"
        with pytest.raises(SignatureInvalid):  # its key signs its own documents only
            nitro.verify(mine.document(key=other.keys[-1]), remembered=memory)
        with pytest.raises(SignatureInvalid):
            nitro.verify(other.document(key=mine.keys[-1]), remembered=memory)
        nitro.verify(other.document(), remembered=memory)
        nitro.verify(mine.document(), remembered=memory)
        changed = bytearray(mine.leaf)
        changed[-1] ^= 1
        with pytest.raises(EndorsementError):
            nitro.verify(mine.document(certificate=bytes(changed)), remembered=memory)

    def test_other_anchors_bundles_and_lists_are_other_memories(self, nitro: Any) -> None:
        memory = tee.Remembered()
        document = nitro.forge.document()
        nitro.verify(document, remembered=memory)
        with pytest.raises(EndorsementUntrusted):
            nitro.verify(document, remembered=memory, anchors=TrustAnchors())
        with pytest.raises(EndorsementRevoked):
            crl = nitro.forge.crl(0, [nitro.forge.certificates[1]])
            nitro.verify(document, crl, remembered=memory)
        with pytest.raises(EndorsementError):
            nitro.verify(nitro.forge.document(cabundle=nitro.forge.bundle[:-1]), remembered=memory)

    def test_a_memory_ends_with_the_first_certificate(self, nitro: Any) -> None:
        memory = tee.Remembered()
        nitro.verify(nitro.forge.document(), remembered=memory)
        later = nitro.now + timedelta(days=2)
        late = nitro.forge.with_leaf(start=later)
        with pytest.raises(EndorsementExpired) as caught:
            nitro.verify(late.document(timestamp=int(later.timestamp() * 1000)), now=later, remembered=memory)
        assert caught.value.code == "instance_validity"

    def test_a_leaf_that_bears_its_issuers_name(self, nitro: Any) -> None:
        """Its chain is refused when it is walked; so it must be under authorities that are known."""
        forge, memory = nitro.forge, tee.Remembered()
        nitro.verify(forge.document(), remembered=memory)
        issuer, leaf = forge.certificates[-2:]
        builder = (
            x509.CertificateBuilder(issuer.subject, issuer.subject, leaf.public_key(), 5)
            .not_valid_before(leaf.not_valid_before_utc)
            .not_valid_after(leaf.not_valid_after_utc)
        )
        for extension in leaf.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        namesake = builder.sign(forge.keys[-2], hashes.SHA384()).public_bytes(Encoding.DER)
        for remembered in (None, memory):
            with pytest.raises(EndorsementUntrusted) as caught:
                nitro.verify(forge.document(certificate=namesake), remembered=remembered)
            assert caught.value.code == "leaf_self_issued"

    def test_failures_are_not_remembered(self, nitro: Any) -> None:
        memory = tee.Remembered()
        with pytest.raises(SignatureInvalid):
            nitro.verify(nitro.forge.document(key=STRANGER), remembered=memory)
        assert not len(memory)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=30, deadline=None
)
@given(st.binary(max_size=512), st.none() | st.binary(min_size=1, max_size=1024), st.integers(0, 2**48))
def test_whatever_an_enclave_asks_for(nitro: Any, nonce: bytes, key: bytes | None, drift: int) -> None:
    made = nitro.now - timedelta(milliseconds=drift % 60_000)
    document = nitro.forge.document(nonce=nonce, public_key=key, timestamp=int(made.timestamp() * 1000))
    claims = nitro.verify(document).claims
    assert claims["nonce"] == nonce.hex()
    assert claims["public_key"] == (key.hex() if key is not None else None)
