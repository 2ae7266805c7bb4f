from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA224

from adyton import tee
from adyton.crypto.x509 import Certificate, EndorsementSet, spki_fingerprint
from adyton.devtee import se as forging
from adyton.errors import (
    AdytonError,
    EndorsementError,
    EndorsementExpired,
    EndorsementMalformed,
    EndorsementMissing,
    EndorsementRevoked,
    EndorsementUntrusted,
)
from adyton.rats.types import Check, Revocation, RootKind, TrustAnchors
from adyton.tee.se import host_key

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SERVICE = "IBM Z Host Key Signing Service"


def code_of(
    world: Any, document: bytes | None, *given: bytes, kind: type[AdytonError] = EndorsementError, **more: Any
) -> str:
    with pytest.raises(kind) as caught:
        world.host_key_of(document, *given, **more)
    assert caught.value.tee == "se"
    return caught.value.code


def test_a_document_that_another_key_signed(world: Any, stranger: Any) -> None:
    forged = world.forge.host_key_document(world.machine.key.public_key(), signer=stranger.forge.signing.key)
    assert code_of(world, forged, kind=EndorsementUntrusted) == "host_key_sig"
    assert code_of(world, stranger.document, kind=EndorsementUntrusted) == "host_key_sig"


def test_a_document_that_names_another_key(world: Any, stranger: Any) -> None:
    """The signature alone would do; but it says itself who signed it."""
    document = stranger.forge.host_key_document(
        world.machine.key.public_key(), signer=world.forge.signing.key, names_key=True
    )
    assert code_of(world, document, kind=EndorsementUntrusted) == "host_key_sig"
    silent = world.forge.host_key_document(world.machine.key.public_key(), names_key=False)
    assert world.host_key_of(silent).key_hash == world.machine.key_hash


@pytest.mark.parametrize("bit", range(8 * 4, 8 * 600, 397))
def test_one_flipped_bit(world: Any, bit: int) -> None:
    body = bytearray(world.document)
    body[bit // 8] ^= 1 << bit % 8
    with pytest.raises(EndorsementError):
        world.host_key_of(bytes(body))


def test_names_that_cannot_be_read(world: Any) -> None:
    """They are read late: whoever reads them must not let a foreign error out."""

    def broken(encoded: bytes, which: int) -> bytes:
        at = -1
        for _ in range(which):
            at = encoded.index(b"Poughkeepsie", at + 1)
        return encoded[:at] + b"\xff" + encoded[at + 1 :]

    assert code_of(world, broken(world.document, 1), kind=EndorsementMalformed) == "host_key_malformed"
    signing = broken(world.certificates[0], 2)
    given = (signing, *world.certificates[1:], *world.crls)
    assert code_of(world, None, *given, kind=EndorsementMissing) == "signing_key_missing"
    crl = broken(world.crls[0], 1)
    given = (*world.certificates, crl, *world.crls[1:])
    assert code_of(world, None, *given, kind=EndorsementMissing) == "revocation_unknown"


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()])
def test_keys_on_other_curves(world: Any, curve: ec.EllipticCurve) -> None:
    document = world.forge.host_key_document(ec.generate_private_key(curve).public_key())
    assert code_of(world, document, kind=EndorsementMalformed) == "host_key_key"


def test_keys_of_another_kind_or_use(world: Any) -> None:
    key = world.machine.key.public_key()
    assert code_of(world, world.forge.host_key_document(world.forge.root.key.public_key())) == "host_key_key"
    assert code_of(world, world.forge.host_key_document(key, usage=("digital_signature",))) == "host_key_profile"
    assert code_of(world, world.forge.host_key_document(key, ca=True)) == "host_key_profile"


@pytest.mark.parametrize(
    ("start", "lifetime"), [(timedelta(days=-20), timedelta(days=10)), (timedelta(days=1), timedelta(days=10))]
)
def test_validity_of_the_document(world: Any, start: timedelta, lifetime: timedelta) -> None:
    document = world.forge.host_key_document(world.machine.key.public_key(), start=NOW + start, lifetime=lifetime)
    assert code_of(world, document, kind=EndorsementExpired) == "host_key_validity"


def test_validity_of_the_chain(world: Any) -> None:
    old = world.forge.certificates(start=NOW - timedelta(days=20), lifetime=timedelta(days=10))
    for number, code in enumerate(("signing_key_validity", "intermediate_validity", "root_validity")):
        given = [*world.certificates]
        given[number] = old[number]
        assert code_of(world, None, *given, *world.crls, kind=EndorsementExpired) == code


def test_missing_certificates(world: Any) -> None:
    for number, code in enumerate(("signing_key_missing", "intermediate_missing", "root_missing")):
        given = [own for place, own in enumerate(world.certificates) if place != number]
        assert code_of(world, None, *given, *world.crls, kind=EndorsementMissing) == code


def test_untrusted_roots(world: Any, stranger: Any) -> None:
    for anchors in (TrustAnchors(), stranger.anchors):
        assert code_of(world, None, anchors=anchors, kind=EndorsementUntrusted) == "root_untrusted"


def test_revoked(world: Any) -> None:
    document = world.forge.host_key_document(world.machine.key.public_key(), serial=4711)
    signing, intermediate, _ = map(Certificate, world.certificates)
    for serial, code in (
        (4711, "host_key_revoked"),
        (signing.serial, "signing_key_revoked"),
        (intermediate.serial, "intermediate_revoked"),
    ):
        crls = world.forge.crls(revoked=[serial])
        assert code_of(world, document, *world.certificates, *crls, kind=EndorsementRevoked) == code
        stale = world.forge.crls(revoked=[serial], start=NOW - timedelta(days=90))
        assert code_of(world, document, *world.certificates, *stale, *world.crls, kind=EndorsementRevoked) == code


def test_crls_are_required(world: Any) -> None:
    for number in range(3):
        crls = [own for place, own in enumerate(world.crls) if place != number]
        assert code_of(world, None, *world.certificates, *crls, kind=EndorsementMissing) == "revocation_unknown"
    key = world.host_key_of(None, *world.certificates, revocation=Revocation.UNCHECKED_AS_ASKED)
    assert not key.revocation_checked
    assert world.host_key.revocation_checked


def test_crls_that_say_nothing(world: Any, stranger: Any) -> None:
    _, intermediate, root = world.crls
    above = (*world.certificates, intermediate, root)
    forge = world.forge
    stale = forge.crls(start=NOW - timedelta(days=90))[0]
    early = forge.crls(start=NOW + timedelta(days=1))[0]
    issuer = forging.Holder(forge.document_issuer, forge.signing.key)
    for crl, code in (
        (stale, "crl_validity"),
        (forge.crl(issuer, algorithm=SHA224()), "crl_sig"),
        (early, "crl_validity"),
        (stranger.crls[0], "crl_sig"),
        (forge.crl(issuer, critical=True), "crl_profile"),
    ):
        assert code_of(world, None, *above, crl) == code


@pytest.mark.parametrize(
    "issuer",
    [
        forging.name(SERVICE, town="Armonk"),
        forging.name(SERVICE, backwards=True),
        forging.name(SERVICE, town="Armonk", backwards=True),
    ],
)
def test_older_documents_name_the_signing_key_differently(world: Any, issuer: x509.Name) -> None:
    older = world.forge.called(issuer)
    document = older.host_key_document(world.machine.key.public_key())
    for crls in (older.crls(), world.crls):
        assert world.host_key_of(document, *world.certificates, *crls).key_hash == world.machine.key_hash
    assert world.host_key_of(None, *world.certificates, *older.crls()).key_hash == world.machine.key_hash


@pytest.mark.parametrize(
    "issuer",
    [
        forging.name(SERVICE, town="Berlin"),
        forging.name("IBM Z Another Key Signing Service"),
        forging.name(SERVICE, common="International Business Machines"),
    ],
)
def test_other_differences_of_names_count(world: Any, issuer: x509.Name) -> None:
    other = world.forge.called(issuer)
    document = other.host_key_document(world.machine.key.public_key())
    assert code_of(world, document, kind=EndorsementMissing) == "signing_key_missing"
    assert code_of(world, None, *world.certificates, *other.crls()) == "revocation_unknown"


@pytest.mark.parametrize(
    "subject",
    [
        forging.name("IBM Z Host Key"),
        forging.name(SERVICE, town="Berlin"),
        forging.name(SERVICE, common="IBM"),
        x509.Name([*forging.name(SERVICE), x509.NameAttribute(x509.NameOID.TITLE, "more")]),
        x509.Name(list(forging.name(SERVICE))[:5]),
        x509.Name([*list(forging.name(SERVICE))[:5], list(forging.name(SERVICE))[4]]),
    ],
)
def test_a_signing_key_has_ibms_name(world: Any, subject: x509.Name) -> None:
    """Nobody else under the same public CA's root is a signing key."""
    other = replace(world.forge, signing=forging.Holder(subject, world.forge.signing.key), document_issuer=subject)
    certificates = other.certificates()
    assert not host_key.is_signing_key(Certificate(certificates[0]))
    document = other.host_key_document(world.machine.key.public_key())
    assert code_of(world, document, *certificates, *other.crls(), kind=EndorsementMissing) == "signing_key_missing"


def test_a_trusted_signing_key_is_preferred(world: Any, stranger: Any) -> None:
    """The same key certified twice: the path to the trusted root is taken, whatever comes first."""
    twin = replace(stranger.forge, signing=world.forge.signing)
    both = (*twin.certificates(), *world.certificates, *stranger.certificates[1:], *world.crls, *stranger.crls)
    for order in (both, both[::-1]):
        assert world.host_key_of(None, *order).root_fingerprint == world.host_key.root_fingerprint
    broken = (twin.certificates()[0], *world.certificates, *world.crls)
    assert world.host_key_of(None, *broken).root_fingerprint == world.host_key.root_fingerprint


def test_what_is_found(world: Any) -> None:
    trail: list[Check] = []
    key = world.host_key_of(trail=trail)
    assert [check.id for check in trail] == ["host_key", "signing_key", "chain", "validity", "root", "revocation"]
    assert all(check.ok for check in trail)
    assert key.key_hash == world.machine.key_hash
    assert (key.root, key.expires_first) == (RootKind.CUSTOM, "crl")
    assert bytes.fromhex(key.root_fingerprint) in world.anchors.custom


def test_remembered(world: Any) -> None:
    memory = tee.Remembered()
    first = world.host_key_of(remembered=memory)
    assert world.host_key_of(remembered=memory) is first
    assert world.host_key_of(trail=[], remembered=memory) == first
    late = NOW + timedelta(days=60)
    assert code_of(world, None, now=late, remembered=memory, kind=EndorsementExpired) == "crl_validity"
    asked = world.host_key_of(remembered=memory, revocation=Revocation.UNCHECKED_AS_ASKED)
    assert not asked.revocation_checked


@pytest.mark.vectors
def test_documents_of_the_test_pki(vectors: Path) -> None:
    folder = vectors / "se"
    names = ("ibm.crt", "inter_ca.crt", "root_ca.crt", "ibm.crl", "inter_ca.crl", "root_ca.crl")
    given = EndorsementSet.parse([(folder / name).read_bytes() for name in names])
    root = EndorsementSet.parse([(folder / "root_ca.crt").read_bytes()]).certificates[0]
    anchors = TrustAnchors(vendor=False, custom=frozenset({spki_fingerprint(root)}))
    now = datetime(2025, 1, 1, tzinfo=UTC)

    def outcome(name: str) -> str:
        (document,) = EndorsementSet.parse([(folder / name).read_bytes()]).certificates
        try:
            host_key.verify_host_key(document, given, now=now, anchors=anchors)
        except EndorsementError as error:
            return error.code
        return "valid"

    assert outcome("host.crt") == "valid"
    (good,) = EndorsementSet.parse([(folder / "host.crt").read_bytes()]).certificates
    begin = good.der.index(good.signed)
    for bit in range(8 * begin, 8 * (begin + len(good.signed)), 29):
        body = bytearray(good.der)
        body[bit // 8] ^= 1 << bit % 8
        with pytest.raises(EndorsementError):
            host_key.verify_host_key(Certificate(bytes(body)), given, now=now, anchors=anchors)
    assert outcome("host_rev.crt") == "host_key_revoked"
    assert outcome("fake_host.crt") == "host_key_sig"
    assert outcome("host_crt_expired.crt") == "host_key_validity"
