"""Paths of certificates under a profile: every link that must be refused, then the ones that must be taken."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton.crypto import chain as walk
from adyton.crypto import path
from adyton.crypto.algorithms import (
    ECDSA_P256_SHA256,
    ECDSA_P384_SHA384,
    ECDSA_SHA256,
    RSA_PSS_SHA384,
    RSA_SHA256,
    SignatureAlgorithm,
)
from adyton.crypto.chain import Role
from adyton.crypto.x509 import Certificate, Crl, EndorsementSet
from adyton.errors import (
    EndorsementError,
    EndorsementExpired,
    EndorsementMalformed,
    EndorsementMissing,
    EndorsementRevoked,
    EndorsementUntrusted,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
KEYS = [ec.derive_private_key(number, ec.SECP256R1()) for number in range(11, 20)]
ROOT_KEY, MIDDLE_KEY, LEAF_KEY, OTHER_KEY = KEYS[:4]
LEAF, MIDDLE, ROOT, CRL = (Role("test", name, "RFC 5280 6.1") for name in ("leaf", "intermediate", "root", "crl"))
PROFILE = path.Profile((LEAF, MIDDLE, ROOT), (ECDSA_P256_SHA256,), names=("Leaf", "Middle CA", "Root CA"))
_serials = itertools.count(100)


def issue(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    ca: bool = True,
    length: int | None = None,
    begin: datetime = NOW - DAY,
    end: datetime = NOW + DAY,
    digest: hashes.SHA384 | None = None,
    critical: bool = False,
    sign: bool = True,
) -> Certificate:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(next(_serials))
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=length), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not ca, key_cert_sign=ca and sign, crl_sign=ca, content_commitment=False,
                key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )  # fmt: skip
    if critical:
        builder = builder.add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), critical=True
        )
    return Certificate(builder.sign(issuer_key, digest or hashes.SHA256()).public_bytes(Encoding.DER))


def root(**change: object) -> Certificate:
    return issue("Root CA", ROOT_KEY, "Root CA", ROOT_KEY, **change)  # type: ignore[arg-type]


def middle(**change: object) -> Certificate:
    return issue("Middle CA", MIDDLE_KEY, "Root CA", ROOT_KEY, **change)  # type: ignore[arg-type]


def leaf(**change: object) -> Certificate:
    return issue("Leaf", LEAF_KEY, "Middle CA", MIDDLE_KEY, **{"ca": False, **change})  # type: ignore[arg-type]


def crl(key: ec.EllipticCurvePrivateKey, issuer: Certificate, *revoked: Certificate, at: datetime = NOW) -> Crl:
    builder = (
        x509.CertificateRevocationListBuilder().issuer_name(issuer.parsed.subject).last_update(at).next_update(at + DAY)
    )
    for certificate in revoked:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(certificate.serial).revocation_date(at).build()
        )
    return Crl(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))


GOOD = (leaf(), middle(), root())
TRUSTED = frozenset({GOOD[2].spki_fingerprint})


def build(first: Certificate, *others: Certificate, profile: path.Profile = PROFILE) -> path.Path:
    return path.build(first, EndorsementSet(others), profile, trusted=TRUSTED, now=NOW)


WRONG: dict[str, tuple[Callable[[], tuple[Certificate, ...]], type[EndorsementError], str]] = {
    "no intermediate": (lambda: (GOOD[0], GOOD[2]), EndorsementMissing, "intermediate_missing"),
    "no root": (lambda: GOOD[:2], EndorsementMissing, "root_missing"),
    "leaf signed by another key of the issuer's name": (
        lambda: (issue("Leaf", LEAF_KEY, "Middle CA", OTHER_KEY, ca=False), *GOOD[1:]),
        EndorsementUntrusted,
        "leaf_sig",
    ),
    "intermediate that is no authority": (
        lambda: (GOOD[0], middle(ca=False), GOOD[2]),
        EndorsementMalformed,
        "intermediate_profile",
    ),
    "intermediate that may not sign certificates": (
        lambda: (GOOD[0], middle(sign=False), GOOD[2]),
        EndorsementMalformed,
        "intermediate_profile",
    ),
    "leaf that is an authority": (lambda: (leaf(ca=True), *GOOD[1:]), EndorsementMalformed, "leaf_profile"),
    "root that allows no intermediate": (
        lambda: (*GOOD[:2], root(length=0)),
        EndorsementMalformed,
        "root_profile",
    ),
    "critical extension that nobody knows": (
        lambda: (leaf(critical=True), *GOOD[1:]),
        EndorsementMalformed,
        "leaf_critical_extension",
    ),
    "another hash than the format's": (
        lambda: (leaf(digest=hashes.SHA384()), *GOOD[1:]),
        EndorsementMalformed,
        "leaf_sig_algorithm",
    ),
    "root that another key signed": (
        lambda: (*GOOD[:2], issue("Root CA", ROOT_KEY, "Root CA", OTHER_KEY)),
        EndorsementUntrusted,
        "root_sig",
    ),
    "leaf under another name": (
        lambda: (issue("Signing key", LEAF_KEY, "Middle CA", MIDDLE_KEY, ca=False), *GOOD[1:]),
        EndorsementUntrusted,
        "leaf_name",
    ),
    "intermediate in the place of the leaf": (lambda: GOOD[1:], EndorsementUntrusted, "leaf_name"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_refused(what: str) -> None:
    certificates, kind, code = WRONG[what]
    first, *others = certificates()
    with pytest.raises(kind) as caught:
        build(first, *others)
    assert caught.value.code == code
    assert caught.value.spec == "RFC 5280 6.1"


def test_a_chain_that_is_too_short_is_not_made_longer_with_its_root() -> None:
    short = issue("Leaf", LEAF_KEY, "Root CA", ROOT_KEY, ca=False)
    for roles in (3, 5):
        middles = [Role("test", f"intermediate{number}", "RFC 5280 6.1") for number in range(roles - 2)]
        profile = path.Profile((LEAF, *middles, ROOT), (ECDSA_P256_SHA256,))
        with pytest.raises(EndorsementUntrusted) as caught:
            build(short, GOOD[2], profile=profile)
        assert caught.value.code == "intermediate0_self_issued"


def test_root_is_trusted_by_key_and_never_by_name() -> None:
    impostor_key = OTHER_KEY
    impostor = issue("Root CA", impostor_key, "Root CA", impostor_key)
    below = issue("Middle CA", MIDDLE_KEY, "Root CA", impostor_key)
    found = build(GOOD[0], below, impostor)
    with pytest.raises(EndorsementUntrusted) as caught:
        found.anchor(TRUSTED)
    assert caught.value.code == "root_untrusted"
    # With the trusted one at hand as well, whatever the order, that one is taken.
    for others in itertools.permutations((impostor, below, *GOOD[1:])):
        found = build(GOOD[0], *others)
        found.anchor(TRUSTED)
        assert found.certificates == GOOD


@pytest.mark.parametrize("number", [0, 1, 2])
def test_validity_names_the_certificate(number: int) -> None:
    make = (leaf, middle, root)[number]
    expired = make(end=NOW - timedelta(seconds=1))
    certificates = [*GOOD]
    certificates[number] = expired
    found = build(*certificates)
    with pytest.raises(EndorsementExpired) as caught:
        found.validity(NOW)
    assert caught.value.code == f"{('leaf', 'intermediate', 'root')[number]}_validity"
    found.validity(NOW - timedelta(seconds=1))


def test_revocation() -> None:
    found = build(*GOOD)
    lists = (crl(ROOT_KEY, GOOD[2]), crl(MIDDLE_KEY, GOOD[1]))
    with pytest.raises(EndorsementMissing) as missing:
        found.revocation(EndorsementSet((), lists[:1]), NOW, CRL)
    assert missing.value.code == "revocation_unknown"
    with pytest.raises(EndorsementUntrusted) as foreign:
        found.revocation(EndorsementSet((), (lists[0], crl(OTHER_KEY, GOOD[1]))), NOW, CRL)
    assert foreign.value.code == "crl_sig"
    with pytest.raises(EndorsementRevoked) as revoked:
        found.revocation(EndorsementSet((), (lists[0], crl(MIDDLE_KEY, GOOD[1], GOOD[0]))), NOW, CRL)
    assert revoked.value.code == "leaf_revoked"
    with pytest.raises(EndorsementRevoked):
        found.revocation(EndorsementSet((), (crl(ROOT_KEY, GOOD[2], GOOD[1]), lists[1])), NOW, CRL)
    with pytest.raises(EndorsementExpired) as stale:
        found.revocation(EndorsementSet((), (lists[0], crl(MIDDLE_KEY, GOOD[1], at=NOW - 2 * DAY))), NOW, CRL)
    assert stale.value.code == "crl_validity"
    assert {*found.revocation(EndorsementSet((), lists), NOW, CRL)} == {*lists}


def test_a_sound_path() -> None:
    found = build(*GOOD)
    assert (found.leaf, found.root) == (GOOD[0], GOOD[2])
    found.validity(NOW)
    found.anchor(TRUSTED)
    assert len(found.lifetimes()) == 3


def test_hostile_certificates_do_not_keep_us_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many certificates of one name and key multiply the paths; the search stops at its budget."""
    count = 0
    original = ECDSA_P256_SHA256.verifies

    def counted(self: SignatureAlgorithm, *arguments: object) -> bool:
        nonlocal count
        count += 1
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(SignatureAlgorithm, "verifies", counted)
    roles = tuple(Role("test", f"level{number}", "RFC 5280 6.1") for number in range(6))
    profile = path.Profile(roles, (ECDSA_P256_SHA256,))
    pool = [
        issue(f"L{level}", KEYS[level], f"L{level + 1}", KEYS[level + 1]) for level in range(1, 6) for _ in range(12)
    ]
    first = issue("L0", KEYS[0], "L1", KEYS[1], ca=False)
    with pytest.raises(EndorsementError):
        path.build(first, EndorsementSet(pool), profile, trusted=TRUSTED, now=NOW)
    assert count <= path.MAX_SIGNATURES


def test_a_profile_is_checked() -> None:
    with pytest.raises(ValueError, match="profile"):
        path.Profile((LEAF,), (ECDSA_P256_SHA256,))
    with pytest.raises(ValueError, match="profile"):
        path.Profile((LEAF, ROOT), (ECDSA_P256_SHA256,), names=("Leaf",))


def test_an_algorithm_takes_only_its_own_kind_of_key() -> None:
    small = rsa.generate_private_key(65537, 1024)
    signature = small.sign(b"data", padding.PKCS1v15(), hashes.SHA256())
    assert not RSA_SHA256.verifies(small.public_key(), signature, b"data")  # too small to be believed
    large = rsa.generate_private_key(65537, 2048)
    signature = large.sign(b"data", padding.PKCS1v15(), hashes.SHA256())
    assert RSA_SHA256.verifies(large.public_key(), signature, b"data")
    assert not RSA_SHA256.verifies(large.public_key(), signature, b"Data")
    assert not RSA_PSS_SHA384.verifies(large.public_key(), signature, b"data")
    assert not RSA_SHA256.verifies(LEAF_KEY.public_key(), signature, b"data")
    signature = LEAF_KEY.sign(b"data", ec.ECDSA(hashes.SHA256()))
    assert ECDSA_SHA256.verifies(LEAF_KEY.public_key(), signature, b"data")
    assert ECDSA_P256_SHA256.verifies(LEAF_KEY.public_key(), signature, b"data")
    assert not ECDSA_P384_SHA384.verifies(LEAF_KEY.public_key(), signature, b"data")
    assert not ECDSA_SHA256.verifies(large.public_key(), signature, b"data")


def test_more_crls_than_anybody_needs_are_refused_and_not_cut() -> None:
    """Each costs a signature, and a megabyte has thousands."""
    found = build(*GOOD)
    lists = [crl(ROOT_KEY, GOOD[2]), crl(MIDDLE_KEY, GOOD[1])]
    strange = crl(OTHER_KEY, GOOD[1]).der
    many = [Crl(strange[:-2] + number.to_bytes(2, "big")) for number in range(64)]
    found.revocation(EndorsementSet((), (*lists, *many[:63])), NOW, CRL)
    with pytest.raises(EndorsementMalformed) as caught:
        found.revocation(EndorsementSet((), (*lists, *many)), NOW, CRL)
    assert caught.value.code == "crl_too_many"


def test_a_search_after_the_only_path_failed_verifies_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[tuple[bytes, bytes]] = []
    really = walk.is_signed

    def counted(certificate: Certificate, issuer: Certificate, algorithm: SignatureAlgorithm) -> bool:
        verified.append((certificate.der, issuer.der))
        return really(certificate, issuer, algorithm)

    monkeypatch.setattr(walk, "is_signed", counted)
    build(*GOOD)
    assert len(verified) == len(set(verified)) == 3
    verified.clear()
    with pytest.raises(EndorsementMalformed):
        build(*GOOD[:2], root(length=0))
    assert len(verified) == len(set(verified)) == 2
    verified.clear()
    with pytest.raises(EndorsementUntrusted) as caught:
        build(*GOOD[:2], issue("Root CA", ROOT_KEY, "Root CA", OTHER_KEY))
    assert caught.value.code == "root_sig"
    assert len(set(verified)) == 3  # what failed is asked once more, and no more than that
    assert len(verified) == 4


def _crowd() -> list[Certificate]:
    """Authorities of the same names: sound, expired, cross-signed, of other keys, too short, not for signing."""
    early, ended = {"begin": NOW + DAY}, {"end": NOW - timedelta(hours=1)}
    cross = issue("Middle CA", MIDDLE_KEY, "Other Root CA", OTHER_KEY)
    return [
        GOOD[1],
        GOOD[2],
        middle(length=0),
        middle(**ended),
        middle(sign=False),
        middle(ca=False),
        middle(critical=True),
        issue("Middle CA", OTHER_KEY, "Root CA", ROOT_KEY),
        issue("Middle CA", MIDDLE_KEY, "Root CA", OTHER_KEY),
        issue("Middle CA", MIDDLE_KEY, "Middle CA", MIDDLE_KEY),
        cross,
        issue("Other Root CA", OTHER_KEY, "Other Root CA", OTHER_KEY),
        issue("Other Root CA", OTHER_KEY, "Root CA", ROOT_KEY),
        root(length=0),
        root(**ended),
        root(**early),
        root(sign=False),
        issue("Root CA", ROOT_KEY, "Root CA", OTHER_KEY),
        issue("Root CA", OTHER_KEY, "Root CA", OTHER_KEY),
        issue("Root CA", ROOT_KEY, "Other Root CA", OTHER_KEY),
    ]


CROWD = _crowd()
LEAVES = [GOOD[0], leaf(ca=True), leaf(critical=True), issue("Leaf", LEAF_KEY, "Middle CA", OTHER_KEY, ca=False)]


@settings(deadline=None, max_examples=400)
@given(
    st.sampled_from(LEAVES),
    st.lists(st.sampled_from(CROWD), max_size=5),
    st.sampled_from([TRUSTED, frozenset({CROWD[11].spki_fingerprint}), frozenset({b"nobody"})]),
    st.booleans(),
)
def test_the_only_path_is_the_one_that_a_search_finds(
    first: Certificate, pool: list[Certificate], trusted: frozenset[bytes], known: bool
) -> None:
    profile = path.Profile(
        PROFILE.roles, PROFILE.algorithms, PROFILE.names, sound=frozenset({GOOD[2].digest} if known else ())
    )

    def found() -> object:
        try:
            made = path.build(first, EndorsementSet(pool), profile, trusted=trusted, now=NOW)
        except EndorsementError as error:
            return type(error), error.as_dict()
        return made.certificates, sorted(item.digest for item in made.seen)

    followed = found()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(path, "_only_path", lambda *_: False)
        assert followed == found()
