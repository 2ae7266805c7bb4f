"""SGX and TDX: one P-256 verification when all about the platform is remembered, nine when nothing is.

Intel's root is known as a whole certificate, so its own signature is not among the nine; a development root's is the tenth.

What is remembered of a platform includes its quoting enclave's report, which vouches for the attestation key. Quotes
and collateral are real ones where the vectors are, else forged. The same go through PyPI's ``dcap-qvl``, which verifies
everything each time; its collateral object is made beforehand, and anew in each cold call. ``new_leaf``: each call
brings a PCK leaf that was never seen, under intermediates and collateral that are remembered; those are always forged.

What is read of a set of endorsements is kept with that set and nowhere else, so a cold call, which makes its set anew, finds
nothing that was read before. ``..._fast``: the same with AWS-LC, where ``awscrt`` is installed; by default it is OpenSSL.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import dcap_qvl
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
    point,
    root_signature,
)
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from adyton import tee
from adyton.crypto import ecdsa as back_ends
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.dcap import DcapForge, sgx_body, td_body
from adyton.errors import AdytonError
from adyton.rats.types import TrustAnchors, VerifiedEvidence
from adyton.tee.dcap.quote import Quote
from adyton.tee.dcap.roots import CERTIFICATES

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
REAL = {
    "sgx": "sgx-v3-00a067-client-xeon-e-2025-06-19-ev17",
    "tdx": "tdx-v4-90c06f-dstack-2026-02-18-ev18",
}
LEAVES = 128


@dataclass(frozen=True, slots=True)
class Subject:
    """A quote with its collateral in one JSON object, verified at ``now`` under ``root`` (DER)."""

    name: str
    quote: bytes
    bundle: bytes
    root: bytes
    now: datetime

    @property
    def anchors(self) -> TrustAnchors:
        """Only that root."""
        (root,) = EndorsementSet.parse([self.root]).certificates
        return TrustAnchors(vendor=False, custom=frozenset({root.spki_fingerprint}))

    def verify(self, quote: bytes, endorsements: EndorsementSet, memory: tee.Remembered | None) -> VerifiedEvidence:
        """By Adyton."""
        return tee.verify(
            self.name, quote, endorsements=endorsements, now=self.now, anchors=self.anchors, remembered=memory
        )


def forged(name: str) -> Subject:
    """Evidence of a development root."""
    forge = DcapForge.new(NOW)
    quote = forge.quote(sgx_body() if name == "sgx" else td_body()).encode()
    bundle = json.dumps(forge.collateral(name).bundle()).encode()
    return Subject(name, quote, bundle, forge.root.certificate.public_bytes(Encoding.DER), NOW)


def subject(name: str) -> Subject:
    """Real evidence where there is some."""
    try:
        case = Case.find(REAL[name])
    except Missing:
        return forged(name)
    root = EndorsementSet.parse([case.file("trusted_root")]).certificates[0].der
    return Subject(name, case.file("quote"), case.file("collateral"), root, case.now)


def floors(subject: Subject) -> tuple[list[Call], list[Step]]:
    """The evidence's own, and those of everything under it: QE report, chains, CRLs, TCB info, QE identity."""
    quote = Quote.parse(subject.quote)
    leaf, ca, root = EndorsementSet.parse([quote.certification_data.rstrip(b"\0")]).certificates
    texts = json.loads(subject.bundle)
    signing = EndorsementSet.parse([texts["tcb_info_issuer_chain"].encode()]).certificates[0]
    crls = EndorsementSet.parse([bytes.fromhex(texts["root_ca_crl"]), bytes.fromhex(texts["pck_crl"])]).crls
    report = subject.quote[quote.qe_report_offset : quote.qe_report_offset + 384]
    sha256 = hashes.SHA256()
    key = point(ec.SECP256R1(), quote.attestation_key)
    own: list[Call] = [ecdsa(key, quote.signature, quote.signed_bytes, sha256)]
    under: list[Step] = [ecdsa(leaf.public_key, quote.qe_report_signature, report, sha256)]
    under += [(leaf, ca), (ca, root), (signing, root), (crls[0], root), (crls[1], ca)]
    under += root_signature(root, CERTIFICATES)
    for text in ("tcb_info", "qe_identity"):
        signature = bytes.fromhex(texts[f"{text}_signature"])
        under.append(ecdsa(signing.public_key, signature, texts[text].encode(), sha256))
    return own, under


class Bench:
    """One subject, and each thing to be timed as a call without arguments."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.endorsements = EndorsementSet.parse([subject.bundle])
        self.anchors = subject.anchors
        self.memory = tee.Remembered()
        own, under = floors(subject)
        self.own = in_a_row(*own)
        self.all, self.bare = as_offered([*under, *own]), bare([*under, *own])
        self.text = subject.bundle.decode()
        self.collateral = dcap_qvl.QuoteCollateralV3.from_json(self.text)
        self.seconds = int(subject.now.timestamp())

    def _verify(self, quote: bytes, endorsements: EndorsementSet, memory: tee.Remembered | None) -> VerifiedEvidence:
        return tee.verify(
            self.subject.name,
            quote,
            endorsements=endorsements,
            now=self.subject.now,
            anchors=self.anchors,
            remembered=memory,
        )

    def warm(self) -> VerifiedEvidence:
        """All but the quote is remembered."""
        return self._verify(self.subject.quote, self.endorsements, self.memory)

    def cold(self) -> VerifiedEvidence:
        """From files' bytes; nothing is remembered anywhere."""
        return self._verify(self.subject.quote, EndorsementSet.parse([self.subject.bundle]), None)

    def theirs(self) -> object:
        """The same through dcap-qvl."""
        return dcap_qvl.verify_with_root_ca(self.subject.quote, self.collateral, self.subject.root, self.seconds)

    def theirs_cold(self) -> object:
        """The same through dcap-qvl, its collateral object included."""
        collateral = dcap_qvl.QuoteCollateralV3.from_json(self.text)
        return dcap_qvl.verify_with_root_ca(self.subject.quote, collateral, self.subject.root, self.seconds)

    def check(self) -> None:
        """Warm and cold agree with each other and with dcap-qvl; a changed byte is refused by each."""
        first = self.cold()
        for ours in (self.warm, self.cold) * 2:
            again = ours()
            assert again == first
            assert dict(again.claims) == dict(first.claims)
        for floor in (self.own, self.all, self.bare):
            floor()
        theirs = dcap_qvl.verify_with_root_ca(self.subject.quote, self.collateral, self.subject.root, self.seconds)
        assert theirs.status == first.claims["tcb_status"], (theirs.status, first.claims["tcb_status"])
        broken = bytearray(self.subject.quote)
        broken[150] ^= 1
        for memory in (self.memory, None):
            try:
                self._verify(bytes(broken), self.endorsements, memory)
            except AdytonError:
                continue
            raise AssertionError("a changed quote was accepted")


class NewLeaves:
    """Quotes of many platforms under one CA: each call takes the next, of which nothing is remembered any more."""

    def __init__(self, name: str) -> None:
        forge = DcapForge.new(NOW)
        body = sgx_body() if name == "sgx" else td_body()
        others = [forge.with_platform(replace(forge.platform, ppid=bytes([number]) * 16)) for number in range(LEAVES)]
        self.quotes = [other.quote(body).encode() for other in others]
        bundle = json.dumps(forge.collateral(name).bundle())
        self.root = forge.root.certificate.public_bytes(Encoding.DER)
        self.endorsements = EndorsementSet.parse([bundle.encode()])
        self.collateral = dcap_qvl.QuoteCollateralV3.from_json(bundle)
        self.anchors = TrustAnchors(vendor=False, custom=frozenset({forge.fingerprint}))
        self.name = name
        self.memory = tee.Remembered(LEAVES // 4)
        self.next = itertools.cycle(self.quotes)
        self.other_next = itertools.cycle(self.quotes)

    def ours(self) -> VerifiedEvidence:
        """The next leaf, by Adyton."""
        return tee.verify(
            self.name,
            next(self.next),
            endorsements=self.endorsements,
            now=NOW,
            anchors=self.anchors,
            remembered=self.memory,
        )

    def theirs(self) -> object:
        """The next leaf, by dcap-qvl."""
        return dcap_qvl.verify_with_root_ca(next(self.other_next), self.collateral, self.root, int(NOW.timestamp()))


def fast(call: Call) -> Call:
    """The same with AWS-LC."""

    def run() -> object:
        back_ends.use("aws-lc")
        try:
            return call()
        finally:
            back_ends.use("openssl")

    return run


def pairs() -> list[Pair]:
    """What is measured."""
    if "sgx" not in tee.ROOMS or "tdx" not in tee.ROOMS:
        raise Missing("no rooms for SGX and TDX")
    found = []
    for name in ("sgx", "tdx"):
        bench = Bench(subject(name))
        bench.check()
        leaves = NewLeaves(name)
        found += [
            Pair(f"{name}_warm_over_floor", bench.warm, bench.own, WARM),
            Pair(f"{name}_cold_over_floor", bench.cold, bench.all, COLD),
            Pair(f"{name}_cold_over_bare_keys", bench.cold, bench.bare, COLD),
            Pair(f"{name}_warm_over_dcap_qvl", bench.warm, bench.theirs, least=4),
            Pair(f"{name}_new_leaf_over_dcap_qvl", leaves.ours, leaves.theirs, least=2),
            Pair(f"{name}_cold_over_dcap_qvl", bench.cold, bench.theirs_cold, least=0.75),
        ]
        if importlib.util.find_spec("awscrt") is not None:
            assert fast(bench.cold)() == bench.cold()
            found += [
                Pair(f"{name}_new_leaf_fast_over_dcap_qvl", fast(leaves.ours), leaves.theirs, least=2),
                Pair(f"{name}_cold_fast_over_dcap_qvl", fast(bench.cold), bench.theirs_cold, least=0.75),
            ]
    return found
