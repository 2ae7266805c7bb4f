"""TEEs whose evidence is taken from the vectors: Nitro, Arm CCA, Hygon CSV, NVIDIA GPUs, TPM quotes.

Warm, the floor is what the evidence brings and nobody has seen: one signature each, of the document, the realm's token,
the report, the quote. Cold, the chains above are added. SM2 is in no library that
Adyton may use, so CSV is compared with Adyton's own verification of bare signatures.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from bench.parts.timing import (
    COLD,
    WARM,
    Call,
    Case,
    Missing,
    Pair,
    Step,
    as_offered,
    bare,
    ecdsa,
    in_a_row,
    root_signature,
)
from cryptography.hazmat.primitives import hashes

from adyton import tee
from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.errors import AdytonError
from adyton.rats.types import Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee.remembered import Remembered

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """One piece of evidence with what it is verified with. ``own``: its own signatures; ``under``: all the others."""

    tee: str
    evidence: bytes
    blobs: Sequence[bytes]
    now: datetime
    anchors: TrustAnchors
    revocation: Revocation
    own: Sequence[Call]
    under: Sequence[Step]
    forget: Call = list  # empties what the room itself remembers of contents
    cold_own: Sequence[Call] | None = None  # its own signatures with keys that nothing was prepared for

    def verify(
        self, endorsements: EndorsementSet, memory: Remembered | None, evidence: bytes | None = None
    ) -> VerifiedEvidence:
        """By Adyton."""
        return tee.verify(
            self.tee,
            self.evidence if evidence is None else evidence,
            endorsements=endorsements,
            now=self.now,
            anchors=self.anchors,
            revocation=self.revocation,
            remembered=memory,
        )

    def pairs(self, name: str) -> list[Pair]:
        """Warm and cold, once both have been seen to agree."""
        memory = Remembered()
        endorsements = EndorsementSet.parse(self.blobs)

        def warm() -> VerifiedEvidence:
            return self.verify(endorsements, memory)

        def cold() -> VerifiedEvidence:
            self.forget()
            return self.verify(EndorsementSet.parse(self.blobs), None)

        first = cold()
        for again in (warm(), warm(), cold()):
            assert again == first
            assert dict(again.claims) == dict(first.claims)
        self._refuses_changes(endorsements, memory)
        steps = [*(self.cold_own or self.own), *self.under]
        floor, whole, keys = in_a_row(*self.own), as_offered(steps), bare(steps)
        for each in (floor, whole, keys):
            each()
        found = [
            Pair(f"{name}_warm_over_floor", warm, floor, WARM),
            Pair(f"{name}_cold_over_floor", cold, whole, COLD),
        ]
        if any(isinstance(step, tuple) for step in steps):
            found.append(Pair(f"{name}_cold_over_bare_keys", cold, keys, COLD))
        return found

    def _refuses_changes(self, endorsements: EndorsementSet, memory: Remembered) -> None:
        """A bit in the middle of what is signed."""
        broken = bytearray(self.evidence)
        broken[len(broken) // 3] ^= 1
        for known in (memory, None):
            try:
                self.verify(endorsements, known, bytes(broken))
            except AdytonError:
                continue
            raise AssertionError(f"changed evidence of {self.tee} was accepted")


def _nitro() -> Evidence:
    from adyton.tee.nitro.abi import parse
    from adyton.tee.nitro.endorsements import ROOT_CERTIFICATE

    case = Case.find("nitro-dstack-2025")
    document = parse(case.file("document"))
    leaf = Certificate(document.certificate)
    above = [Certificate(der) for der in document.cabundle][::-1]  # the root comes first there
    signature = ecdsa(leaf.public_key, document.message.signature, document.message.signed, hashes.SHA384())
    under = [(leaf, above[0]), *itertools.pairwise(above), *root_signature(above[-1], {ROOT_CERTIFICATE})]
    unchecked = Revocation.UNCHECKED_AS_ASKED  # the case has no CRL
    return Evidence("nitro", case.file("document"), [], case.now, case.anchors(), unchecked, [signature], under)


def _cca() -> Evidence:
    from adyton.tee.cca.abi import parse
    from adyton.tee.cca.endorsements import keys_in
    from adyton.tee.cca.realm import realm_key

    case = Case.find("cca-coco-fvp-token")
    token, endorsements = parse(case.file("token")), EndorsementSet.parse([case.file("cpak")])
    (platform_key,) = keys_in(endorsements)
    realm = realm_key(token.realm_claims.public_key)
    own = [ecdsa(realm, token.realm.signature, token.realm.signed, _HASHES[realm.curve.name])]
    platform, message = platform_key.key, token.platform
    under = [ecdsa(platform, message.signature, message.signed, _HASHES[platform.curve.name])]
    anchors = TrustAnchors(
        vendor=False, custom=frozenset(hashlib.sha256(key).digest() for key in endorsements.documents)
    )
    return Evidence("cca", case.file("token"), [case.file("cpak")], case.now, anchors, Revocation.REQUIRED, own, under)


def _csv() -> Evidence:
    from adyton.tee.csv.abi import CsvReport
    from adyton.tee.csv.certificate import HygonCertificate, read, split

    case = Case.find("csv-v1-report")
    report = CsvReport.parse(case.file("report"))
    assert report.signer is not None
    hsk, cek = map(HygonCertificate, split(case.file("hsk_cek")))
    root, pek = HygonCertificate(case.file("root")), HygonCertificate(report.signer.pek)
    prepared = HygonCertificate(report.signer.pek)
    prepared.key.prepare()
    r, s = (int.from_bytes(half, "little") for half in (report.r, report.s))

    def signature(signer: HygonCertificate) -> Call:
        return lambda: signer.key.verify(r, s, report.signed_bytes, user_id=signer.user_id)

    def chain(below: HygonCertificate, issuer: HygonCertificate) -> Call:
        return lambda: below.signed_by(issuer)

    return Evidence(
        "csv",
        case.file("report"),
        case.files("hsk_cek", "root"),
        case.now,
        TrustAnchors(),
        Revocation.UNCHECKED_AS_ASKED,
        own=[signature(prepared)],
        under=[chain(pek, cek), chain(cek, hsk), chain(hsk, root), chain(root, root)],
        forget=read.cache_clear,
        cold_own=[signature(pek)],
    )


def _gpu() -> Evidence:
    from adyton.tee.nvidia import opaque, rim
    from adyton.tee.nvidia.abi import SIGNATURE_SIZE
    from adyton.tee.nvidia.endorsements import DEVICE_ROOT_CERTIFICATE, read_leaf

    case = Case.find("nvidia-h100-580.95.05")
    report = case.file("report")
    chain = EndorsementSet.parse([case.file("cert_chain")]).certificates
    signed, signature = report[:-SIGNATURE_SIZE], report[-SIGNATURE_SIZE:]
    under = [*itertools.pairwise(chain), *root_signature(chain[-1], {DEVICE_ROOT_CERTIFICATE})]

    def forget() -> None:
        for remembered in (read_leaf, opaque._read, rim.parse):
            remembered.cache_clear()

    return Evidence(
        "nvidia",
        report,
        [case.file("cert_chain")],
        case.now,
        case.anchors(),
        Revocation.UNCHECKED_AS_ASKED,
        own=[ecdsa(chain[0].public_key, signature, signed, hashes.SHA384())],
        under=under,
        forget=forget,
    )


SOURCES: dict[str, Callable[[], Evidence]] = {"nitro": _nitro, "cca": _cca, "csv": _csv, "gpu": _gpu}


def pairs() -> list[Pair]:
    """What is measured: all that there is."""
    found: list[Pair] = []
    missing: list[str] = []
    for name, source in SOURCES.items():
        try:
            found += source().pairs(name)
        except (Missing, ImportError) as error:
            missing.append(f"{name}: {error}")
    if not found:
        raise Missing("; ".join(missing))
    return found
