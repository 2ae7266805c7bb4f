"""What is remembered gives the verdict that a fresh look would give: other content, other time, other question, no memory."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.tee.dcap.conftest import NOW, Lab

from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.dcap_certificates import Platform
from adyton.errors import AdytonError
from adyton.rats.types import Revocation, TrustAnchors
from adyton.tee.remembered import Remembered


@pytest.fixture
def memory() -> Remembered:
    return Remembered()


@pytest.fixture
def given(lab: Lab, kind: str) -> EndorsementSet:
    return EndorsementSet.parse(lab.forge.collateral("sgx" if kind == "sgx" else "tdx").blobs())


def test_a_warm_verdict_is_the_cold_one(lab: Lab, kind: str, memory: Remembered, given: EndorsementSet) -> None:
    quote = lab.quote(kind)
    cold = lab.verify(quote, endorsements=given)
    for _ in range(3):
        warm = lab.verify(quote, endorsements=given, remembered=memory)
        for name in ("claims", "tcb", "coco_claims"):
            assert dict(getattr(warm, name)) == dict(getattr(cold, name))
        assert (warm.checks, warm.unchecked, warm.expires) == (cold.checks, cold.unchecked, cold.expires)
    assert len(memory) == 3  # a CA, collateral, a quoting enclave


def test_with_all_remembered_the_quote_itself_is_still_checked(
    lab: Lab, stranger: Lab, kind: str, memory: Remembered, given: EndorsementSet
) -> None:
    quote = lab.quote(kind)
    lab.verify(quote, endorsements=given, remembered=memory)

    def refused(changed: Any, **options: Any) -> str:
        return lab.refused(changed, endorsements=given, remembered=memory, **options)

    body = msgspec.structs.replace(quote.body, report_data=b"\1" * 64)
    assert refused(msgspec.structs.replace(quote, body=body)) == "quote_sig"
    assert refused(msgspec.structs.replace(quote, signature=bytes(64))) == "quote_sig"
    assert refused(msgspec.structs.replace(quote, qe_report_signature=bytes(64))) == "qe_report_sig"
    assert refused(msgspec.structs.replace(quote, qe_auth_data=b"")) == "qe_report_data"
    assert (
        refused(msgspec.structs.replace(quote, attestation_key=stranger.quote(kind).attestation_key))
        == "qe_report_data"
    )
    assert refused(stranger.quote(kind)) == "root_untrusted"
    header = msgspec.structs.replace(quote.header, qe_vendor_id=bytes(16))
    assert refused(msgspec.structs.replace(quote, header=header)) == "qe_vendor_id"
    if kind != "sgx":
        seam = msgspec.structs.replace(quote.body, mrsignerseam=b"\1" * 48)
        assert refused(lab.quote(kind, body=seam)) == "tdx_module_mrsigner"
        old = msgspec.structs.replace(quote.body, tee_tcb_svn=bytes((4, 1, 2)) + bytes(13))
        assert refused(lab.quote(kind, body=old)) == "tdx_module_not_supported"


def test_a_new_leaf_under_a_known_ca_is_checked(lab: Lab, kind: str, memory: Remembered) -> None:
    room = "sgx" if kind == "sgx" else "tdx"
    body = lab.quote(kind).body
    second = lab.forge.with_platform(Platform(ppid=bytes(16)))
    given = EndorsementSet.parse(lab.forge.collateral(room, revoked=[second.pck.certificate]).blobs())
    lab.verify(lab.quote(kind), endorsements=given, remembered=memory)
    options: dict[str, Any] = {"endorsements": given, "remembered": memory}
    assert lab.refused(second.quote(body), **options) == "pck_revoked"
    third = lab.forge.with_platform(Platform(ppid=b"\3" * 16))
    assert lab.verify(third.quote(body), **options).claims["ppid"] == "03" * 16
    leaves: tuple[tuple[Platform, dict[str, Any], str], ...] = (
        (Platform(fmspc=bytes(6)), {}, "fmspc_mismatch"),
        (Platform(pceid=b"\1\1"), {}, "pceid_mismatch"),
        (Platform(pcesvn=1), {}, "tcb_not_supported"),
        (Platform(), {"life": timedelta(minutes=30)}, "pck_validity"),
        (Platform(), {"name": "Intel SGX Something"}, "pck_name"),
        (Platform(), {"extension": b""}, "pck_extension"),
    )
    for platform, leaf, code in leaves:
        assert lab.refused(lab.forge.with_platform(platform, **leaf).quote(body), **options) == code
    forged = replace(lab.forge, pck=Lab(lab.forge).forge.pck, pck_ca=lab.forge.pck_ca)
    assert lab.verify(forged.quote(body), **options).tee == room


def test_a_leaf_that_the_known_ca_did_not_sign(lab: Lab, stranger: Lab, memory: Remembered) -> None:
    given = EndorsementSet.parse(lab.forge.collateral("sgx").blobs())
    lab.verify(lab.quote(), endorsements=given, remembered=memory)
    forged = replace(lab.forge, pck=stranger.forge.pck)
    assert lab.refused(forged.quote(), endorsements=given, remembered=memory) == "pck_sig"


def test_time_goes_on(lab: Lab, kind: str, memory: Remembered, given: EndorsementSet) -> None:
    quote = lab.quote(kind)
    verified = lab.verify(quote, endorsements=given, remembered=memory)
    last = lab.verify(quote, endorsements=given, remembered=memory, now=verified.expires)
    assert last.expires == verified.expires
    for later in (verified.expires + timedelta(seconds=1), NOW - timedelta(days=1), NOW + timedelta(days=9999)):
        fresh = lab.refused(quote, endorsements=given, now=later)
        assert lab.refused(quote, endorsements=given, remembered=memory, now=later) == fresh


def test_collateral_that_begins_later_takes_over(lab: Lab, memory: Remembered) -> None:
    """Remembered for the time in which nothing that was seen begins or ends, so a newer set is not slept through."""
    tomorrow = {"issueDate": "2026-06-02T12:00:00Z", "tcbEvaluationDataNumber": 21}
    now = lab.forge.collateral("sgx").blobs()
    later = lab.forge.collateral("sgx", info=tomorrow, levels=lab.forge.levels("sgx", ("OutOfDate",))).blobs()
    given = EndorsementSet.parse([*now, *later])
    options: dict[str, Any] = {"endorsements": given, "remembered": memory}
    assert lab.verify(lab.quote(), **options).claims["tcb_status"] == "UpToDate"
    assert lab.verify(lab.quote(), **options, now=NOW + timedelta(days=2)).claims["tcb_status"] == "OutOfDate"


def test_other_anchors_questions_and_endorsements(lab: Lab, stranger: Lab, memory: Remembered) -> None:
    collateral = lab.forge.collateral("sgx")
    given = EndorsementSet.parse(collateral.blobs())
    lax = EndorsementSet.parse(replace(collateral, pck_crl=None).blobs())
    quote = lab.quote()
    lab.verify(quote, endorsements=lax, remembered=memory, revocation=Revocation.UNCHECKED_AS_ASKED)
    assert lab.refused(quote, endorsements=lax, remembered=memory) == "revocation_unknown"
    lab.verify(quote, endorsements=given, remembered=memory)
    for anchors in (TrustAnchors(), TrustAnchors(vendor=False, custom=frozenset({stranger.forge.fingerprint}))):
        assert lab.refused(quote, endorsements=given, remembered=memory, anchors=anchors) == "root_untrusted"
    revoking = EndorsementSet.parse(lab.forge.collateral("sgx", revoked=[lab.forge.pck.certificate]).blobs())
    assert lab.refused(quote, endorsements=revoking, remembered=memory) == "pck_revoked"
    outdated = lab.forge.collateral("sgx", levels=lab.forge.levels("sgx", ("Revoked",)))
    assert lab.verify(quote, outdated, remembered=memory).claims["tcb_status"] == "Revoked"


def test_nothing_is_remembered_of_what_failed(lab: Lab, kind: str, memory: Remembered, given: EndorsementSet) -> None:
    bad = msgspec.structs.replace(lab.quote(kind), signature=bytes(64))
    for _ in range(2):
        with pytest.raises(AdytonError):
            lab.verify(bad, endorsements=given, remembered=memory)
        assert len(memory) == 0


def test_one_memory_for_both_tees(lab: Lab, memory: Remembered) -> None:
    given = EndorsementSet.parse([*lab.forge.collateral("sgx").blobs(), *lab.forge.collateral("tdx").blobs()])
    for name in ("sgx", "td10", "td15", "sgx", "td10"):
        room = "sgx" if name == "sgx" else "tdx"
        assert lab.verify(lab.quote(name), endorsements=given, remembered=memory).tee == room


def mixed(lab: Lab, *others: Lab) -> bytes:
    """A quote of ``lab``'s platform whose chain holds the CAs and roots of others as well: what is in it is not signed."""
    holders = [one for item in sorted((lab, *others), key=id) for one in (item.forge.pck_ca, item.forge.root)]
    texts = [item.certificate.public_bytes(Encoding.PEM) for item in (lab.forge.pck, *holders)]
    return lab.forge.quote(certification=(5, b"".join(texts))).encode()


def test_collateral_is_not_remembered_for_the_platforms_of_another_root(
    lab: Lab, stranger: Lab, memory: Remembered
) -> None:
    """One name of the CA, one platform family, one text of the chain: the root alone tells them apart."""
    both = TrustAnchors(vendor=False, custom=frozenset({lab.forge.fingerprint, stranger.forge.fingerprint}))
    lists = [stranger.forge.crl(stranger.forge.root), stranger.forge.crl(stranger.forge.pck_ca)]
    given = EndorsementSet.parse([*lab.forge.collateral("sgx").blobs(), *lists])
    options: dict[str, Any] = {"endorsements": given, "anchors": both}
    assert lab.refused(mixed(stranger, lab), **options) == "root_untrusted"
    lab.verify(mixed(lab, stranger), **options, remembered=memory)
    assert lab.refused(mixed(stranger, lab), **options, remembered=memory) == "root_untrusted"


def test_each_root_says_what_its_own_platforms_are_worth(lab: Lab, stranger: Lab, memory: Remembered) -> None:
    """Collateral of two roots in one set, whichever is newer and in whatever order."""
    both = TrustAnchors(vendor=False, custom=frozenset({lab.forge.fingerprint, stranger.forge.fingerprint}))
    newer: dict[str, Any] = {"info": {"tcbEvaluationDataNumber": 99}, "identity": {"tcbEvaluationDataNumber": 99}}
    revoked = stranger.forge.collateral("sgx", levels=stranger.forge.levels("sgx", ("Revoked",)), **newer).blobs()
    mine = lab.forge.collateral("sgx").blobs()
    for blobs in ([*mine, *revoked], [*revoked, *mine]):
        given = EndorsementSet.parse(blobs)
        for remembered in (None, memory, memory):
            options: dict[str, Any] = {"endorsements": given, "anchors": both, "remembered": remembered}
            assert lab.verify(mixed(lab, stranger), **options).claims["tcb_status"] == "UpToDate"
            assert lab.verify(mixed(stranger, lab), **options).claims["tcb_status"] == "Revoked"


def test_a_list_in_disguise_is_another_set(lab: Lab, memory: Remembered) -> None:
    """What was read of a set in which a CRL passes for a public key is not what the true set says."""
    newer = lab.forge.crl(lab.forge.pck_ca, revoked=[lab.forge.pck.certificate])
    dressed = b"-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(newer) + b"-----END PUBLIC KEY-----\n"
    blobs = lab.forge.collateral("sgx").blobs()
    for remembered in (None, memory):
        lab.verify(lab.quote(), endorsements=EndorsementSet.parse([*blobs, dressed]), remembered=remembered)
        true = EndorsementSet.parse([*blobs, newer])
        assert lab.refused(lab.quote(), endorsements=true, remembered=remembered) == "pck_revoked"


def test_a_key_that_was_certified_anew_is_found_by_its_valid_certificate(lab: Lab) -> None:
    """By PPID alone: which of the key's certificates counts does not hang on where it stood, nor does a memory of it."""
    forge = lab.forge
    old, new = (forge.with_platform(forge.platform, key=forge.pck.key, **life).pck for life in (
        {"life": timedelta(minutes=30)}, {"now": NOW + timedelta(days=2)}
    ))  # fmt: skip
    quote = forge.quote(certification=(1, bytes(16)))
    certificates = [item.certificate.public_bytes(Encoding.DER) for item in (old, forge.pck, new)]
    collateral = [
        *forge.collateral("sgx", life=timedelta(days=30)).blobs(),
        forge.root.certificate.public_bytes(Encoding.DER),
    ]
    for blobs in ([*certificates, *collateral], [*collateral, *reversed(certificates)]):
        memory = Remembered()
        given = EndorsementSet.parse(blobs)
        for days in (0, 3, 0):
            at: dict[str, Any] = {"endorsements": given, "now": NOW + timedelta(days=days)}
            warm, cold = lab.verify(quote, **at, remembered=memory), lab.verify(quote, **at)
            assert dict(warm.claims) == dict(cold.claims)
            assert warm.expires == cold.expires
