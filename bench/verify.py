"""How much verifying an SEV-SNP report costs over the signatures that it must verify.

``snp_warm_over_floor``       a raw report whose chain is remembered, against one P-384 verification
``snp_cold_over_floor``       certificates and CRL from DER, nothing remembered, against the sum of the signature
                              verifications: P-384, and RSA-4096 PSS of leaf, intermediate, root and CRL
``snp_cold_over_bare_keys``   the same against the bare key operations, without what the library does around them
``snp_json_warm_over_floor``  as the first, from CoCo's JSON form with its three certificates

Ours and the floor are timed in turn, round by round, in CPU time, and the best round of each counts: a busy neighbour makes
rounds slower, never faster. Evidence is issued under a development root made on the spot; before anything is timed
it must verify, and must not once a byte of it is changed.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from adyton import tee
from adyton.crypto.x509 import Certificate, Crl, EndorsementSet
from adyton.devtee.forge import Forge
from adyton.errors import AdytonError
from adyton.rats.types import Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee.snp.abi import SIGNED_SIZE, SnpReport
from adyton.tee.snp.endorsements import read_leaf
from adyton.tee.snp.json_form import to_json

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Bench:
    """One report with its endorsements, and each thing to be timed as a call without arguments."""

    def __init__(self) -> None:
        forge = Forge.new(NOW)
        self.report = forge.report(report_data=b"\x11" * 64)
        self.blobs = forge.blobs()
        leaf, intermediate, root = (Certificate(blob) for blob in self.blobs[:3])
        self.certificates = (leaf, intermediate, root)
        self.crl = Crl(self.blobs[3])
        self.endorsements = EndorsementSet.parse(self.blobs)
        self.only_crl = EndorsementSet.parse(self.blobs[3:])
        self.anchors = TrustAnchors(vendor=False, custom=frozenset({root.spki_fingerprint}))
        document = to_json(SnpReport.parse(self.report), list(forge.certificates))
        self.json_form = json.dumps(document, separators=(",", ":")).encode()
        self.memory = tee.Remembered()
        parsed = SnpReport.parse(self.report)
        self.signature = encode_dss_signature(int.from_bytes(parsed.r, "little"), int.from_bytes(parsed.s, "little"))
        self.key = leaf.public_key
        self.sha384 = hashes.SHA384()
        self.algorithm = ec.ECDSA(self.sha384)
        assert isinstance(root.public_key, rsa.RSAPublicKey)
        assert isinstance(intermediate.public_key, rsa.RSAPublicKey)
        self.root_key = root.public_key
        self.signed = (
            (intermediate.public_key, leaf),
            (root.public_key, intermediate),
            (root.public_key, root),
            (root.public_key, self.crl),
        )
        self.pss = padding.PSS(padding.MGF1(self.sha384), 48)

    def verify(self, evidence: bytes, endorsements: EndorsementSet, memory: tee.Remembered | None) -> VerifiedEvidence:
        """Verify at the fixed time, revocation included."""
        return tee.verify(
            "snp",
            evidence,
            endorsements=endorsements,
            now=NOW,
            anchors=self.anchors,
            revocation=Revocation.REQUIRED,
            remembered=memory,
        )

    def p384(self) -> None:
        """One P-384 verification, nothing else."""
        assert isinstance(self.key, ec.EllipticCurvePublicKey)
        self.key.verify(self.signature, self.report[:SIGNED_SIZE], self.algorithm)

    def all_signatures(self) -> None:
        """The five verifications as the library offers them, with certificates and keys that are loaded already."""
        leaf, intermediate, root = (certificate.parsed for certificate in self.certificates)
        leaf.verify_directly_issued_by(intermediate)
        intermediate.verify_directly_issued_by(root)
        root.verify_directly_issued_by(root)
        assert self.crl.parsed.is_signature_valid(self.root_key)
        self.p384()

    def bare_signatures(self) -> None:
        """The same five with nothing around them: no names, no algorithm to find out."""
        for key, item in self.signed:
            key.verify(item.signature, item.signed, self.pss, self.sha384)
        self.p384()

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


def compare(ours: Callable[[], object], floor: Callable[[], object], rounds: int, calls: int) -> tuple[float, float]:
    """CPU seconds a call of ours and of the floor: the best round of each, taken in turn."""
    best = [float("inf"), float("inf")]
    gc.collect()
    gc.disable()  # as ``timeit`` does: a collection would count what lives elsewhere in this process
    for _ in range(rounds):
        for index, function in enumerate((ours, floor)):
            start = time.process_time()
            for _ in range(calls):
                function()
            best[index] = min(best[index], (time.process_time() - start) / calls)
    gc.enable()
    return best[0], best[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    arguments = parser.parse_args()
    rounds = 500 if arguments.quick else 3000
    bench = Bench()
    bench.check()
    results: dict[str, float] = {}
    if not arguments.json:
        print(f"{'':26}{'ours':>10}{'floor':>10}{'ratio':>8}{'at most':>9}")
    for name, ours, floor, limit in (
        ("snp_warm_over_floor", bench.warm, bench.p384, 1.15),
        ("snp_cold_over_floor", bench.cold, bench.all_signatures, 1.3),
        ("snp_cold_over_bare_keys", bench.cold, bench.bare_signatures, None),
        ("snp_json_warm_over_floor", bench.json_warm, bench.p384, None),
    ):
        own, least = compare(ours, floor, rounds, 1)
        ratio = own / least
        results[name] = round(ratio, 3)
        results[name.partition("_over_")[0] + "_us"] = round(own * 1e6, 1)
        if not arguments.json:
            print(f"{name:26}{own * 1e6:7.1f} µs{least * 1e6:7.1f} µs{ratio:8.3f}{limit or '':>9}")
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
