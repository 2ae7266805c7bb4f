"""NVIDIA's endorsements of a device: its chain of five certificates, and who says that none of them is revoked.

Leaf (signs reports) ← the chip's own certificate ← provisioner ← identity of the generation ← device identity root, all
P-384 with SHA-384. The root is pinned by the SHA-256 of its SPKI (evidence 2). The leaf names the firmware that was loaded
(FWID): extension 2.23.133.5.4.1 ends in it; Blackwell's leaves have TCG's TcbInfo (2.23.133.5.4.1.1) with a list of them.

Revocation is by OCSP answers about the three authorities between leaf and root, each from its issuer's responder; without an
answer the issuer's CRL will do. Nobody answers about a leaf: the chip issues it to itself whenever its firmware changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric import ec

from adyton.crypto import chain as walk
from adyton.crypto import ocsp
from adyton.crypto import path as paths
from adyton.crypto.algorithms import ECDSA_P384_SHA384
from adyton.crypto.chain import Role
from adyton.crypto.path import Path, Profile
from adyton.crypto.x509 import Certificate, EndorsementSet, is_ocsp
from adyton.errors import EndorsementError, EndorsementMalformed, EndorsementMissing
from adyton.rats.types import Revocation, RootKind, TrustAnchors
from adyton.wire import der

TEE = "nvidia"
SPEC = "evidence 11"
SWITCH = "LS10"  # the one architecture that is not a GPU
LEAF = Role(TEE, "leaf", SPEC)
CRL = Role(TEE, "crl", SPEC)
ALGORITHMS = (ECDSA_P384_SHA384,)

# SHA-256 of the SPKI of the NVIDIA Device Identity CA (evidence 2).
DEVICE_ROOT = bytes.fromhex("a90c4eb5acfd3e3d03a25db6a26b84f720ad0503196c627c21ddd48dd85b06a4")
DEVICE_ROOT_CERTIFICATE = bytes.fromhex("102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48")
DEVICE = Profile(
    (
        LEAF,
        Role(TEE, "chip", SPEC),
        Role(TEE, "provisioner", SPEC),
        Role(TEE, "identity", SPEC),
        Role(TEE, "root", SPEC),
    ),
    ALGORITHMS,
    sound=frozenset({DEVICE_ROOT_CERTIFICATE}),
)

AUTHORITIES = range(1, 4)  # of a device's chain: those about which somebody answers

_FWID = "2.23.133.5.4.1"
_TCB_INFO = "2.23.133.5.4.1.1"
_ARC_DER = bytes.fromhex("678105050401")  # that arc inside an OBJECT IDENTIFIER
_SHA384_OID = bytes.fromhex("0609608648016503040202")
_TCB_INFO_FWIDS = 0xA6
_ARCHES = {"GH": "HOPPER", "GB": "BLACKWELL", "LS": SWITCH}  # by the beginning of a chip's name


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which something that the verdict rests on is valid, both ends included, and what it is."""

    begin: datetime
    end: datetime
    name: str
    by_list: bool = False  # a CRL, not an OCSP answer


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a device's leaf certificate says. ``fwids``: the one that must be the report's if ``exact``, else a list."""

    certificate: Certificate
    key: ec.EllipticCurvePublicKey
    chip: str
    arch: str
    fwids: tuple[bytes, ...]
    exact: bool


def is_leaf(certificate: Certificate) -> bool:
    """Whether it may be a device's leaf: no authority, with an extension of DICE's arc."""
    if _ARC_DER not in certificate.der:
        return False
    constraints = certificate.basic_constraints
    found = certificate.unknown_extensions
    return (constraints is None or not constraints.ca) and (_FWID in found or _TCB_INFO in found)


@lru_cache(maxsize=1024)
def read_leaf(certificate: Certificate) -> Leaf:
    """What the certificate says, or ``EndorsementError``."""
    key = certificate.public_key
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
        raise LEAF.error(EndorsementMalformed, "key", "not a P-384 key", expected="P-384")
    chip = certificate.common_name.partition(" ")[0].replace("_", "")
    arch = _ARCHES.get(chip[:2])
    if arch is None:
        raise LEAF.error(
            EndorsementMalformed,
            "arch",
            "not of a generation that is known here",
            expected=sorted(_ARCHES.values()),
            got=certificate.common_name[:80],
        )
    found = certificate.unknown_extensions
    try:
        exact = _FWID in found
        fwids = (_fwid(found[_FWID]),) if exact else _tcb_info_fwids(found[_TCB_INFO])
    except (ValueError, LookupError) as error:
        raise LEAF.error(EndorsementMalformed, "extensions", "the firmware id in it cannot be read") from error
    return Leaf(certificate, key, chip, arch, fwids, exact)


def _fwid(extension: bytes) -> bytes:
    """Of { version, device key, { SHA-384, digest } } the digest, 48 bytes."""
    _, _, fwid = der.children(der.only(extension, der.SEQUENCE))
    return _digest(fwid.content)


def _tcb_info_fwids(extension: bytes) -> tuple[bytes, ...]:
    """The digests in a DiceTcbInfo: { …, [6] { { SHA-384, digest }, … }, … }."""
    parts = der.children(der.only(extension, der.SEQUENCE))
    lists = [part.content for part in parts if part.tag == _TCB_INFO_FWIDS]
    return tuple(_digest(fwid.content) for content in lists for fwid in der.children(content))


def _digest(content: bytes) -> bytes:
    if not content.startswith(_SHA384_OID):
        raise ValueError("a digest of another kind")
    digest = der.only(content[len(_SHA384_OID) :], der.OCTET_STRING)
    if len(digest) != 48:
        raise ValueError("a digest of another size")
    return digest


def leaves_of(certificates: Iterable[Certificate], now: datetime) -> tuple[Leaf, ...]:
    """The leaves among ``certificates``, the valid ones first; ``EndorsementError`` if there is none."""
    found: list[Leaf] = []
    unreadable: EndorsementError | None = None
    for candidate in certificates:
        try:
            if is_leaf(candidate):
                found.append(read_leaf(candidate))
        except EndorsementError as error:
            unreadable = unreadable or error
    if not found:
        raise unreadable or LEAF.error(
            EndorsementMissing,
            "missing",
            "no certificate of a key that signs reports",
            expected=f"a certificate with the firmware id extension, {_FWID}",
            hint="the device hands out its chain of five along with the report: give all of it",
        )
    return tuple(sorted(found, key=lambda leaf: walk.by_preference(leaf.certificate, now)))


def verify_chain(
    pool: EndorsementSet, *, now: datetime, anchors: TrustAnchors, revocation: Revocation = Revocation.REQUIRED
) -> Path:
    """Verify a device's chain alone, without a report; raises ``EndorsementError``."""
    leaf = leaves_of(pool.certificates, now)[0]
    path = linked(leaf, pool, anchors, now)
    path.validity(now)
    path.anchor(trusted(DEVICE_ROOT, anchors))
    check_revocation(path, pool, Answers(pool.documents), numbers=AUTHORITIES, now=now, wanted=revocation)
    return path


def linked(leaf: Leaf, pool: EndorsementSet, anchors: TrustAnchors, now: datetime) -> Path:
    """The sound path of five from ``leaf`` through ``pool``; its validity and its root are still to be judged."""
    return paths.build(leaf.certificate, pool, DEVICE, trusted=trusted(DEVICE_ROOT, anchors), now=now)


def trusted(root: bytes, anchors: TrustAnchors) -> frozenset[bytes]:
    """The keys that may be the root: NVIDIA's (``root``) if vendors are trusted, and those that the caller answers for."""
    return anchors.among(frozenset({root}))


def root_kind(path: Path, root: bytes, anchors: TrustAnchors) -> RootKind:
    """Whose root an anchored path ends in."""
    return anchors.kind(path.root.spki_fingerprint, frozenset({root}))


class Answers:
    """The OCSP answers among endorsements; those that cannot be read are an error only if nothing else helps."""

    def __init__(self, documents: Sequence[bytes]) -> None:
        self.readable: list[ocsp.Answer] = []
        self.unreadable: EndorsementError | None = None
        for document in documents:
            if is_ocsp(document):
                try:
                    self.readable.append(_answer(document))
                except EndorsementError as error:
                    self.unreadable = self.unreadable or error


@lru_cache(maxsize=256)
def _answer(document: bytes) -> ocsp.Answer:
    return ocsp.Answer(document)


def check_revocation(
    path: Path,
    pool: EndorsementSet,
    answers: Answers,
    *,
    numbers: Iterable[int],
    now: datetime,
    wanted: Revocation,
) -> list[Span]:
    """None of the path's certificates of these numbers is revoked or on hold, says who issued it, freshly.

    Returns what that rests on; nothing if it was asked not to check.
    """
    spans: list[Span] = []
    if wanted is Revocation.UNCHECKED_AS_ASKED:
        return spans
    for number in numbers:
        certificate, issuer = path.certificates[number : number + 2]
        role = path.profile.roles[number]
        try:
            good = ocsp.check_good(certificate, issuer, answers.readable, now, whose=role, algorithms=ALGORITHMS)
        except EndorsementMissing:
            crls = pool.crls_by(issuer.subject)
            if not crls:
                if answers.unreadable is not None:
                    raise answers.unreadable from None
                raise
            crl = walk.check_revocation(((certificate, role),), issuer, crls, now, role=CRL, algorithms=ALGORITHMS)
            spans += [
                Span(item.this_update, item.next_update, f"CRL for {role.name}", by_list=True) for item in {crl, *crls}
            ]
            continue
        spans += [Span(begin, end, f"OCSP answer about {role.name}") for begin, end in good.lifetimes]
    return spans


def spans_of(path: Path) -> list[Span]:
    """The lifetimes of a path's certificates."""
    return [
        Span(certificate.not_before, certificate.not_after, role.name)
        for certificate, role in zip(path.certificates, path.profile.roles, strict=True)
    ]
