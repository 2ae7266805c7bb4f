"""SEV-SNP: one P-384 verification when the chain is remembered; four of RSA-4096 PSS more when nothing is."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from bench.parts.timing import COLD, WARM, Pair, Step, as_offered, bare, ecdsa
from cryptography.hazmat.primitives import hashes

from adyton import tee
from adyton.crypto.x509 import Certificate, Crl, EndorsementSet
from adyton.devtee.forge import Forge
from adyton.errors import AdytonError
from adyton.rats.types import TrustAnchors, VerifiedEvidence
from adyton.tee.snp.abi import SIGNED_SIZE, SnpReport
from adyton.tee.snp.endorsements import read_leaf
from adyton.tee.snp.json_form import to_json

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Snp:
    """One report with its endorsements, and each thing to be timed as a call without arguments."""

    def __init__(self) -> None:
        forge = Forge.new(NOW)
        self.report = forge.report(report_data=b"\x11" * 64)
        self.blobs = forge.blobs()
        leaf, intermediate, root = (Certificate(blob) for blob in self.blobs[:3])
        crl = Crl(self.blobs[3])
        self.endorsements = EndorsementSet.parse(self.blobs)
        self.only_crl = EndorsementSet.parse(self.blobs[3:])
        self.anchors = TrustAnchors(vendor=False, custom=frozenset({root.spki_fingerprint}))
        parsed = SnpReport.parse(self.report)
        document = to_json(parsed, list(forge.certificates))
        self.json_form = json.dumps(document, separators=(",", ":")).encode()
        self.memory = tee.Remembered()
        signed = self.report[:SIGNED_SIZE]
        self.p384 = ecdsa(leaf.public_key, parsed.r + parsed.s, signed, hashes.SHA384(), "little")
        steps: list[Step] = [(leaf, intermediate), (intermediate, root), (root, root), (crl, root), self.p384]
        self.bare_signatures, self.all_signatures = bare(steps), as_offered(steps)

    def verify(self, evidence: bytes, endorsements: EndorsementSet, memory: tee.Remembered | None) -> VerifiedEvidence:
        """Verify at the fixed time, revocation included."""
        return tee.verify("snp", evidence, endorsements=endorsements, now=NOW, anchors=self.anchors, remembered=memory)

    def warm(self) -> VerifiedEvidence:
        """The chain is remembered."""
        return self.verify(self.report, self.endorsements, self.memory)

    def json_warm(self) -> VerifiedEvidence:
        """The chain is remembered, the report comes as JSON."""
        return self.verify(self.json_form, self.only_crl, self.memory)

    def cold(self) -> VerifiedEvidence:
        """From files' bytes; nothing is remembered."""
        read_leaf.cache_clear()  # what the room itself remembers of certificates' contents
        return self.verify(self.report, EndorsementSet.parse(self.blobs), None)

    def check(self) -> None:
        """All three give the same evidence, twice; a changed byte is refused by each."""
        first = self.cold()
        for ours in (self.warm, self.json_warm, self.cold) * 2:
            assert ours() == first
        assert (first.unchecked, len(self.memory)) == (("report_data", "init_data"), 2)
        broken = bytearray(self.report)
        broken[0x90] ^= 1
        for memory in (self.memory, None):
            try:
                self.verify(bytes(broken), self.endorsements, memory)
            except AdytonError as error:
                assert error.code == "report_sig"
            else:
                raise AssertionError("a changed report was accepted")


def pairs() -> list[Pair]:
    """What is measured."""
    snp = Snp()
    snp.check()
    return [
        Pair("snp_warm_over_floor", snp.warm, snp.p384, WARM),
        Pair("snp_json_warm_over_floor", snp.json_warm, snp.p384, WARM),
        Pair("snp_cold_over_floor", snp.cold, snp.all_signatures, COLD),
        Pair("snp_cold_over_bare_keys", snp.cold, snp.bare_signatures, COLD),
    ]
