"""Certificates of attestation keys: every way in which a chain is wrong, then one that is right."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.tee.tpm.building import NOW, quotes, verify

from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.devtee.tpm import SoftTpm, b64
from adyton.devtee.tpm_ca import EkAuthority
from adyton.errors import (
    AdytonError,
    BindingMismatch,
    EndorsementExpired,
    EndorsementMalformed,
    EndorsementMissing,
    EndorsementRevoked,
    EndorsementUntrusted,
    MalformedEvidence,
)
from adyton.rats.types import Revocation, RootKind, TrustAnchors
from adyton.tee.remembered import Remembered
from adyton.tee.tpm.claims import gce_instance


def given(authority: EkAuthority, *more: bytes, crls: bool = True, **changes: Any) -> dict[str, Any]:
    """Endorsements, anchors, revocation: the authority is trusted."""
    blobs = [*authority.blobs(), *more]
    if crls:
        blobs += [authority.crl(NOW, of_root=True), authority.crl(NOW, of_root=False)]
    root = Certificate(authority.blobs()[1]).spki_fingerprint
    return {
        "endorsements": EndorsementSet.parse(blobs),
        "anchors": TrustAnchors(vendor=False, custom=frozenset({root})),
        **changes,
    }


def refused(code: str, kind: type[AdytonError], evidence: bytes, **changes: Any) -> AdytonError:
    with pytest.raises(kind) as caught:
        verify(evidence, **changes)
    assert caught.value.code == code
    assert type(caught.value) is kind
    return caught.value


def certified(tpm: SoftTpm, authority: EkAuthority, **changes: Any) -> bytes:
    return tpm.bundle(quotes(tpm), ak_certificate=authority.certify(tpm.key, NOW, **changes))


def test_a_certificate_of_another_key_is_refused(
    tpm: SoftTpm, made: dict[str, SoftTpm], authority: EkAuthority
) -> None:
    wrong = tpm.bundle(quotes(tpm), ak_certificate=authority.certify(made["other"].key, NOW))
    refused("ak_certificate_mismatch", BindingMismatch, wrong, **given(authority))


def test_an_untrusted_root_is_refused(tpm: SoftTpm, authority: EkAuthority) -> None:
    evidence = certified(tpm, authority)
    refused("root_untrusted", EndorsementUntrusted, evidence, **given(authority, anchors=TrustAnchors()))


def test_a_stranger_with_the_same_names_is_refused(tpm: SoftTpm, authority: EkAuthority) -> None:
    stranger = EkAuthority.new(NOW)
    refused("ak_sig", EndorsementUntrusted, certified(tpm, stranger), **given(authority))


def test_a_missing_intermediate_or_root_is_named(tpm: SoftTpm, authority: EkAuthority) -> None:
    evidence = certified(tpm, authority)
    middle, root = authority.blobs()
    refused("root_missing", EndorsementMissing, evidence, endorsements=EndorsementSet.parse([middle]))
    refused("root_missing", EndorsementMissing, evidence, endorsements=EndorsementSet.parse([root]))


def test_validity_is_checked_at_the_given_time(tpm: SoftTpm, authority: EkAuthority) -> None:
    evidence = certified(tpm, authority, lifetime=timedelta(days=1))
    refused("ak_validity", EndorsementExpired, evidence, **given(authority, now=NOW + timedelta(days=2)))
    refused("ak_validity", EndorsementExpired, evidence, **given(authority, now=NOW - timedelta(days=2)))


def test_crls_are_required_fresh_and_obeyed(tpm: SoftTpm, authority: EkAuthority) -> None:
    evidence = certified(tpm, authority)
    refused("revocation_unknown", EndorsementMissing, evidence, **given(authority, crls=False))
    only = authority.crl(NOW, of_root=False)
    refused("revocation_unknown", EndorsementMissing, evidence, **given(authority, only, crls=False))
    stale = [authority.crl(NOW, of_root=which, lifetime=timedelta(days=1)) for which in (True, False)]
    late = given(authority, *stale, crls=False, now=NOW + timedelta(days=2))
    refused("crl_validity", EndorsementExpired, evidence, **late)
    leaf = authority.certify(tpm.key, NOW)
    serial = Certificate(leaf).serial
    listed = authority.crl(NOW, of_root=False, revoked=[serial])
    revoked = given(authority, listed, authority.crl(NOW, of_root=True), crls=False)
    refused("ak_revoked", EndorsementRevoked, tpm.bundle(quotes(tpm), ak_certificate=leaf), **revoked)
    middle = authority.crl(NOW, of_root=True, revoked=[authority.intermediate.serial_number])
    refused("intermediate_revoked", EndorsementRevoked, evidence, **given(authority, middle))
    unchecked = verify(evidence, **given(authority, crls=False, revocation=Revocation.UNCHECKED_AS_ASKED))
    assert "revocation" in unchecked.unchecked
    assert "revocation" not in [check.id for check in unchecked.checks]


def test_an_ek_certificate_is_no_ak_certificate(tpm: SoftTpm, authority: EkAuthority) -> None:
    # keyEncipherment only, as vendors' endorsement keys have it: such a key signs nothing
    evidence = certified(tpm, authority, usage="key_encipherment", purpose=None)
    refused("ak_profile", EndorsementMalformed, evidence, **given(authority))


def test_a_certificate_for_another_purpose_is_refused(tpm: SoftTpm, authority: EkAuthority) -> None:
    for purpose in ("1.3.6.1.5.5.7.3.1", "2.23.133.8.2"):
        evidence = certified(tpm, authority, purpose=x509.ObjectIdentifier(purpose))
        refused("ak_profile", EndorsementMalformed, evidence, **given(authority))
    verify(certified(tpm, authority, purpose=None), **given(authority))


def test_an_authority_is_no_attestation_key(tpm: SoftTpm, authority: EkAuthority) -> None:
    refused("ak_profile", EndorsementMalformed, certified(tpm, authority, ca=0), **given(authority))


def test_critical_extensions_of_tpm_vendors_are_known_and_others_are_not(tpm: SoftTpm, authority: EkAuthority) -> None:
    directory = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.9"), bytes.fromhex("3000"))
    verify(certified(tpm, authority, extra=directory), **given(authority))
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")
    refused("ak_critical_extension", EndorsementMalformed, certified(tpm, authority, extra=unknown), **given(authority))


@pytest.mark.parametrize("tpm", ["rsa", "secp256r1", "secp384r1"], indirect=True)
def test_a_chain_to_a_trusted_root_passes(tpm: SoftTpm, authority: EkAuthority) -> None:
    verified = verify(certified(tpm, authority), **given(authority))
    assert verified.claims["ak_trust"] == "certificate"
    assert verified.claims["tpm_manufacturer"] == "id:4144594E"
    assert verified.root is RootKind.CUSTOM
    assert verified.unchecked == ("report_data", "init_data")
    assert {"chain", "validity", "root", "revocation"} <= {check.id for check in verified.checks}
    assert verified.expires_first == "crl"


def test_the_key_may_stand_only_in_the_certificate_or_the_certificate_among_the_endorsements(
    tpm: SoftTpm, authority: EkAuthority
) -> None:
    leaf = authority.certify(tpm.key, NOW)
    only = tpm.bundle(quotes(tpm), ak_public=None, ak_certificate=leaf)
    alone = verify(only, **given(authority))
    assert alone.claims["ak_trust"] == "certificate"
    endorsed = verify(tpm.bundle(quotes(tpm)), **given(authority, leaf))
    assert endorsed.claims["ak_trust"] == "certificate"
    assert alone.coco_claims["ak_public"] == endorsed.coco_claims["ak_public"] == b64(tpm.spki)  # as policies list keys


def test_a_root_may_issue_the_key_itself(tpm: SoftTpm, authority: EkAuthority) -> None:
    short = EkAuthority(authority.root, authority.root_key, authority.root, authority.root_key)
    leaf = x509.load_der_x509_certificate(authority.certify(tpm.key, NOW))
    builder = x509.CertificateBuilder(
        issuer_name=authority.root.subject,
        subject_name=leaf.subject,
        public_key=leaf.public_key(),
        serial_number=7,
        not_valid_before=leaf.not_valid_before_utc,
        not_valid_after=leaf.not_valid_after_utc,
        extensions=list(leaf.extensions),
    )
    direct = builder.sign(authority.root_key, SHA256()).public_bytes(Encoding.DER)
    verified = verify(tpm.bundle(quotes(tpm), ak_certificate=direct), **given(short))
    assert verified.claims["ak_trust"] == "certificate"


def test_where_a_certificate_stood_decides_nothing(tpm: SoftTpm, authority: EkAuthority) -> None:
    """A stranger's root of the intermediate's name, and the key's certificates of other years, in every order."""
    key = authority.intermediate_key
    namesake = (
        x509.CertificateBuilder(authority.intermediate.subject, authority.intermediate.subject, key.public_key(), 9)
        .not_valid_before(authority.intermediate.not_valid_before_utc)
        .not_valid_after(authority.intermediate.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True)
        .sign(key, SHA256())
        .public_bytes(Encoding.DER)
    )
    old, good = (
        authority.certify(tpm.key, NOW - timedelta(days=99), lifetime=timedelta(days=9)),
        authority.certify(tpm.key, NOW),
    )
    extra = (old, good, namesake)
    claims = []
    for blobs in (extra, extra[::-1], (namesake, *extra)):
        options = given(authority, *blobs)
        endorsements: EndorsementSet = options.pop("endorsements")
        turned = EndorsementSet(endorsements.certificates[::-1], endorsements.crls)
        claims += [
            dict(verify(tpm.bundle(quotes(tpm)), endorsements=item, **options).claims)
            for item in (endorsements, turned)
        ]
    assert all(item["ak_certificate"] == hashlib.sha256(good).hexdigest() for item in claims)


def test_chains_are_remembered_for_as_long_as_they_hold(tpm: SoftTpm, authority: EkAuthority) -> None:
    memory = Remembered()
    evidence = certified(tpm, authority)
    first = verify(evidence, **given(authority), remembered=memory)
    endorsements = given(authority)
    again = verify(evidence, **endorsements, remembered=memory)
    assert dict(first.claims) == dict(again.claims)
    late = {**endorsements, "now": NOW + timedelta(days=400)}
    refused("crl_validity", EndorsementExpired, evidence, **late, remembered=memory)


def test_keys_of_other_kinds_are_malformed(tpm: SoftTpm) -> None:
    odd = ed25519.Ed25519PrivateKey.generate().public_key()
    spki = odd.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    refused("public_kind", MalformedEvidence, tpm.bundle(quotes(tpm), ak_public=spki))
    refused("public_key", MalformedEvidence, tpm.bundle(quotes(tpm), ak_public=b"\x30\x03\2\1\1"))
    refused("ak_missing", MalformedEvidence, tpm.bundle(quotes(tpm), ak_public=None))
    refused("public_short", MalformedEvidence, tpm.bundle(quotes(tpm), ak_public=b""))


def test_a_curve_for_which_there_is_no_scheme_is_told(tpm: SoftTpm) -> None:
    key = ec.generate_private_key(ec.SECP256K1())
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(AdytonError) as caught:
        verify(tpm.bundle(quotes(tpm), ak_public=spki))
    assert caught.value.code in {"signature_scheme", "ak_key"}


@pytest.mark.parametrize("broken", [b"", b"\x30\0", b"\x30\x03\2\1\1", b"\x30\x80\0\0"])
def test_googles_extension_is_read_strictly(broken: bytes) -> None:
    with pytest.raises(EndorsementMalformed):
        gce_instance(broken)
