"""Reference integrity manifests: what a driver's or a VBIOS's measurements must be, signed by NVIDIA (evidence 11).

SWID XML under one enveloped signature (``crypto.xmldsig``); the signer's chain of four ends in the CoRIM signing root,
pinned by its SPKI (evidence 2). A manifest lists measurements by index from 0 (a report counts from 1); the *active* ones
must be there, each equal to one of its alternatives. Only the canonical text that was signed is read.

Which board a VBIOS manifest is for stands in the name that it is served under, not in it; what it names itself are version,
product and edition. Its measurements are the proof.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric import ec
from lxml import etree

from adyton.crypto import chain as walk
from adyton.crypto import path as paths
from adyton.crypto import xmldsig
from adyton.crypto.chain import Role
from adyton.crypto.path import Path, Profile
from adyton.crypto.x509 import BASIC_CONSTRAINTS, KEY_USAGE, Certificate, EndorsementSet
from adyton.errors import EndorsementError, EndorsementMalformed, EndorsementUntrusted
from adyton.rats.types import Revocation, RootKind, TrustAnchors
from adyton.tee.nvidia import endorsements as chains
from adyton.tee.nvidia.endorsements import ALGORITHMS, SPEC, TEE, Answers, Span

# SHA-256 of the SPKI of the NVIDIA CoRIM signing Root CA (evidence 2).
RIM_ROOT = bytes.fromhex("dec1dc316477aa851eebdf51327ae9f864bc8d89254657ed1e7eb9168af1e1a3")
RIM_ROOT_CERTIFICATE = bytes.fromhex("12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1")
RIM = Profile(
    (
        Role(TEE, "rim_signer", SPEC),
        Role(TEE, "rim_issuer", SPEC),
        Role(TEE, "rim_authority", SPEC),
        Role(TEE, "rim_root", SPEC),
    ),
    ALGORITHMS,
    sound=frozenset({RIM_ROOT_CERTIFICATE}),
)
MAX_INDEX = 253
MAX_ALTERNATIVES = 64
EDITIONS = {"GPU": "gpu", "SWITCH": "switch"}
DRIVER = "driver"
VBIOS = "vbios"

_SWID = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_HASH = "{http://www.w3.org/2001/04/xmlenc#sha384}Hash"
_BIOS_VERSION = re.compile(r"[0-9A-Fa-f]{2}(\.[0-9A-Fa-f]{2}){4}\Z")
_RESOURCE = _SWID + "Resource"
_PLAIN = ["active", "alternatives", "index", "name", "size", "type"]
_ACTIVE = frozenset({"True", "False"})
_BEGINNING = 2048


@dataclass(frozen=True, slots=True)
class Rim:
    """A manifest as it was read, unverified. ``golden``: the active measurements, alternatives by index from 0.

    ``source`` is ``driver`` or ``vbios``, told by the form of the version, which no driver shares with a VBIOS.
    """

    version: str
    product: str
    edition: str
    source: str
    golden: Mapping[int, tuple[bytes, ...]]
    certificates: tuple[Certificate, ...]
    signed: xmldsig.SignedXml
    digest: bytes

    @property
    def signer_key(self) -> ec.EllipticCurvePublicKey:
        """The key of its first certificate, on P-384; ``EndorsementMalformed`` if it is another kind."""
        key = self.certificates[0].public_key
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
            raise RIM.roles[0].error(EndorsementMalformed, "key", "not a P-384 key", expected="P-384")
        return key


@dataclass(frozen=True, slots=True)
class VerifiedRim:
    """A manifest that NVIDIA, or whoever the caller trusts, signed; ``spans`` is what that rests on."""

    rim: Rim
    path: Path
    root: RootKind
    spans: tuple[Span, ...]
    not_after: datetime


def is_rim(document: bytes) -> bool:
    """Whether a document may be a manifest: XML that speaks of a software identity."""
    head = document[:_BEGINNING].lstrip()
    return head[:1] == b"<" and b"SoftwareIdentity" in head


@lru_cache(maxsize=128)
def parse(document: bytes) -> Rim:
    """Read a manifest, or ``EndorsementMalformed``. Nothing of it is verified."""
    signed = xmldsig.parse(document)
    root = xmldsig.read(signed.content)
    if root.tag != _SWID + "SoftwareIdentity":
        raise _malformed("not a software identity")
    meta = _only(root, "Meta")
    payload = _only(root, "Payload")
    version, product, edition = (meta.get(name, "") for name in ("colloquialVersion", "product", "edition"))
    if not version or not product or edition not in EDITIONS:
        raise _malformed("without version, product or a known edition")
    golden: dict[int, tuple[bytes, ...]] = {}
    indices = set()
    for resource in payload:
        index, active, alternatives = _measurement(resource)
        if index in indices:
            raise _malformed("a measurement comes twice", index)
        indices.add(index)
        if active:
            golden[index] = alternatives
    if not golden:
        raise _malformed("without any active measurement")
    return Rim(
        version=version,
        product=product,
        edition=edition,
        source=VBIOS if _BIOS_VERSION.match(version) else DRIVER,
        golden=golden,
        certificates=tuple(Certificate(encoded) for encoded in signed.certificates),
        signed=signed,
        digest=hashlib.sha256(document).digest(),
    )


def _only(root: etree._Element, name: str) -> etree._Element:
    found = root.findall(_SWID + name)
    if len(found) != 1:
        raise _malformed(f"not exactly one {name}")
    return found[0]


def _measurement(resource: etree._Element) -> tuple[int, bool, tuple[bytes, ...]]:
    """Index from 0, whether it is active, and its alternatives. Nothing that is not understood is passed over.

    Canonical XML orders attributes: those without a name space by name, then the others.
    """
    items = resource.items()
    if resource.tag != _RESOURCE or [name for name, _ in items[:6]] != _PLAIN:
        raise _malformed("an entry that is not a measurement as it is known here")
    (_, active), (_, alternatives), (_, number), _, (_, size_text), (_, kind) = items[:6]
    try:
        index, count, size = int(number), int(alternatives), int(size_text)
        hashes = dict(items[6:])
        values = tuple([bytes.fromhex(str(hashes[f"{_HASH}{at}"])) for at in range(min(count, MAX_ALTERNATIVES))])
    except (ValueError, KeyError) as error:
        raise _malformed("a measurement without the numbers or the alternatives that it should have") from error
    if (
        kind != "Measurement"
        or active not in _ACTIVE
        or not 0 <= index <= MAX_INDEX
        or not 1 <= count == len(values) == len(hashes)
        or size < 32
        or any(len(value) != size for value in values)
    ):
        raise _malformed("a measurement that contradicts itself", index)
    return index, active == "True", values


def verify(
    rim: Rim,
    pool: EndorsementSet,
    answers: Answers,
    *,
    now: datetime,
    anchors: TrustAnchors,
    revocation: Revocation,
    siblings: Sequence[VerifiedRim] = (),
) -> VerifiedRim:
    """Digest, signature, chain of four, validity, root, revocation: the first that is wrong is raised.

    ``siblings`` were verified with the same arguments: what signed their signers is not verified again.
    """
    signer = RIM.roles[0]
    if not rim.signed.digest_matches():
        raise EndorsementUntrusted(
            "a reference manifest was changed after it was signed",
            code="rim_digest",
            tee=TEE,
            field="rim",
            expected=rim.signed.digest,
            got=hashlib.sha384(rim.signed.content).digest(),
            spec=SPEC,
        )
    if not rim.signed.is_signed_by(rim.signer_key):
        raise EndorsementUntrusted(
            "the signature of a reference manifest does not verify",
            code="rim_sig",
            tee=TEE,
            field="rim",
            got=rim.version,
            spec=SPEC,
        )
    allowed = chains.trusted(RIM_ROOT, anchors)
    sibling, path = _beside(rim, siblings)
    if path is None:
        path = paths.build(rim.certificates[0], pool.plus(rim.certificates), RIM, trusted=allowed, now=now)
    path.validity(now)
    path.anchor(allowed)
    usage = path.leaf.key_usage
    if usage is None or not usage.digital_signature:
        raise signer.error(EndorsementMalformed, "profile", "its key is not for signatures")
    numbers = range(1) if sibling is not None else range(len(RIM.roles) - 1)
    spans = chains.spans_of(path) + chains.check_revocation(
        path, pool, answers, numbers=numbers, now=now, wanted=revocation
    )
    spans += sibling.spans if sibling is not None else ()
    return VerifiedRim(
        rim=rim,
        path=path,
        root=chains.root_kind(path, RIM_ROOT, anchors),
        spans=tuple(spans),
        not_after=min(certificate.not_after for certificate in path.certificates),
    )


def _beside(rim: Rim, siblings: Sequence[VerifiedRim]) -> tuple[VerifiedRim, Path] | tuple[None, None]:
    """The sibling whose signer's issuer also issued this manifest's signer, and the path that it makes."""
    leaf, role = rim.certificates[0], RIM.roles[0]
    for sibling in siblings:
        _, *above = sibling.path.certificates
        if leaf.issuer != above[0].subject or above[0] not in rim.certificates:
            continue
        walk.check_leaf(leaf, role)
        walk.check_critical(leaf, role, known=frozenset({BASIC_CONSTRAINTS, KEY_USAGE}))
        if walk.is_signed(leaf, above[0], walk.check_algorithm(leaf, role, ALGORITHMS)):
            return sibling, Path((leaf, *above), RIM, (leaf, *sibling.path.seen))
    return None, None


def verify_any(
    rims: Sequence[Rim],
    pool: EndorsementSet,
    answers: Answers,
    *,
    now: datetime,
    anchors: TrustAnchors,
    revocation: Revocation,
    siblings: Sequence[VerifiedRim] = (),
) -> tuple[VerifiedRim, ...]:
    """Those of ``rims`` (at least one) that verify, or the first one's error: a forged one beside a true one is no harm."""
    verified: list[VerifiedRim] = []
    failures = []
    for one in rims:
        try:
            verified.append(
                verify(
                    one,
                    pool,
                    answers,
                    now=now,
                    anchors=anchors,
                    revocation=revocation,
                    siblings=(*siblings, *verified),
                )
            )
        except EndorsementError as error:
            failures.append(error)
    if not verified:
        raise failures[0]
    return tuple(verified)


def _malformed(reason: str, index: object = None) -> EndorsementMalformed:
    return EndorsementMalformed(
        f"not a reference manifest: {reason}", code="rim_malformed", tee=TEE, field="rim", got=index, spec=SPEC
    )
