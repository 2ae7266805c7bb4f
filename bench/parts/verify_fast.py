"""``adyton[fast]``: evidence that P-384 dominates, with AWS-LC and with OpenSSL, in the same run.

``<tee>_fast_over_openssl`` is how many times as many verdicts a second AWS-LC gives, warm. Verdicts are compared first.
"""

from __future__ import annotations

import importlib.util

from bench.parts.timing import Call, Missing, Pair
from bench.parts.verify_snp import Snp
from bench.parts.verify_vectors import SOURCES

from adyton.crypto import ecdsa
from adyton.crypto.x509 import EndorsementSet
from adyton.tee.remembered import Remembered

FACTOR = 2.0


def pairs() -> list[Pair]:
    """What is measured: all that there is."""
    if importlib.util.find_spec("awscrt") is None:
        raise Missing("awscrt is not installed")
    snp = Snp()
    found = [_pair("snp", snp.warm)]
    for name in ("nitro", "gpu"):
        try:
            evidence = SOURCES[name]()
        except Missing:
            continue
        found.append(_pair(name, _warm(evidence.verify, EndorsementSet.parse(evidence.blobs))))
    return found


def _warm(verify: object, endorsements: EndorsementSet) -> Call:
    memory = Remembered()
    assert callable(verify)
    return lambda: verify(endorsements, memory)


def _pair(name: str, verify: Call) -> Pair:
    slow = verify()

    def fast() -> object:
        ecdsa.use("aws-lc")
        try:
            return verify()
        finally:
            ecdsa.use("openssl")

    assert fast() == slow
    return Pair(f"{name}_fast_over_openssl", fast, verify, least=FACTOR)
