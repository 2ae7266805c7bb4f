"""Pairs of calls, timed in turn in CPU time, and bare signature verifications to compare with.

``Pair`` has ours and what it is measured against. The two are called in turn, round by round, and the best round of each
counts: a busy neighbour makes rounds slower, never faster.
"""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from adyton.crypto.x509 import Certificate, Crl, EndorsementSet
from adyton.rats.types import TrustAnchors

VECTORS = Path(os.environ.get("ADYTON_VECTORS", Path(__file__).resolve().parents[3] / "shared" / "vectors"))
WARM = (1.15, 30e-6)  # at most this times the floor, and so much more
COLD = (1.4, 0.0)
Call = Callable[[], object]
_PSS = bytes.fromhex("06092a864886f70d01010a")  # id-RSASSA-PSS


class Missing(Exception):
    """What this part measures is not there: a room, or the vectors that it takes its evidence from."""


@dataclass(frozen=True, slots=True)
class Pair:
    """``ours`` is to take ``most`` (factor, seconds) of ``other``'s time; with ``least`` it is to be so many times as fast.

    The figure is ours over the other's time, or with ``least`` its inverse. Without a goal it is only told.
    """

    name: str
    ours: Call
    other: Call
    most: tuple[float, float] | None = None
    least: float | None = None
    calls: int = 1


@dataclass(frozen=True, slots=True)
class Result:
    """Seconds a call of ours and of the other."""

    pair: Pair
    ours: float
    other: float

    @property
    def ratio(self) -> float:
        """As ``Pair`` says."""
        return self.other / self.ours if self.pair.least is not None else self.ours / self.other

    @property
    def goal(self) -> str:
        """What it is to be, for a reader."""
        if self.pair.least is not None:
            return f">= {self.pair.least:g}"
        if self.pair.most is None:
            return ""
        factor, more = self.pair.most
        parts = [*([f"{factor:g}"] if factor else []), *([f"{more * 1e6:.0f} µs"] if more else [])]
        return "<= " + " + ".join(parts)

    @property
    def met(self) -> bool | None:
        """Whether it is; ``None`` where there is no goal."""
        if self.pair.least is not None:
            return self.ratio >= self.pair.least
        if self.pair.most is None:
            return None
        return self.ours <= self.pair.most[0] * self.other + self.pair.most[1]


def measure(pair: Pair, rounds: int) -> Result:
    """Time both in turn."""
    best = [float("inf"), float("inf")]
    gc.collect()
    gc.disable()  # as ``timeit`` does: a collection would count what lives elsewhere in this process
    for _ in range(rounds):
        for index, function in enumerate((pair.ours, pair.other)):
            start = time.process_time()
            for _ in range(pair.calls):
                function()
            best[index] = min(best[index], (time.process_time() - start) / pair.calls)
    gc.enable()
    return Result(pair, best[0], best[1])


def in_a_row(*calls: Call) -> Call:
    """One call that makes all of ``calls``."""

    def run() -> None:
        for call in calls:
            call()

    return run


def ecdsa(key: Any, signature: bytes, data: bytes, algorithm: hashes.HashAlgorithm, order: Any = "big") -> Call:
    """A bare verification; ``signature`` is r then s, in halves."""
    half = len(signature) // 2
    der = encode_dss_signature(int.from_bytes(signature[:half], order), int.from_bytes(signature[half:], order))
    scheme = ec.ECDSA(algorithm)
    return lambda: key.verify(der, data, scheme)


def point(curve: ec.EllipticCurve, encoded: bytes) -> ec.EllipticCurvePublicKey:
    """The key with this x and y."""
    return ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\4" + encoded)


def issued(item: Certificate | Crl, issuer: Certificate) -> Call:
    """The bare verification of a certificate's or a CRL's signature."""
    key: Any = issuer.public_key
    parsed: x509.Certificate | x509.CertificateRevocationList = item.parsed
    algorithm = parsed.signature_hash_algorithm
    assert algorithm is not None
    signature, signed = item.signature, item.signed
    if isinstance(key, ec.EllipticCurvePublicKey):
        scheme = ec.ECDSA(algorithm)
        return lambda: key.verify(signature, signed, scheme)
    assert isinstance(key, rsa.RSAPublicKey)
    way = padding.PSS(padding.MGF1(algorithm), 48) if _PSS in item.algorithm else padding.PKCS1v15()
    return lambda: key.verify(signature, signed, way, algorithm)


def offered(item: Certificate | Crl, issuer: Certificate) -> Call:
    """The same as the library offers it: names and algorithms are compared as well, and the issuer's key is read."""
    if isinstance(item, Certificate):
        certificate: x509.Certificate = item.parsed
        return lambda: certificate.verify_directly_issued_by(issuer.parsed)
    crl: x509.CertificateRevocationList = item.parsed
    key: Any = issuer.public_key

    def check() -> None:
        assert crl.is_signature_valid(key)

    return check


Link = tuple[Certificate | Crl, Certificate]
Step = Call | Link  # something signed by a certificate's key, or any other verification


def root_signature(root: Certificate, known: Container[bytes]) -> list[Step]:
    """A root's own signature, if somebody verifies it: nobody does for a certificate whose digest is ``known`` to the room."""
    return [] if root.digest in known else [(root, root)]


def bare(steps: Sequence[Step]) -> Call:
    """All of them, without anything around the key's own verification."""
    return in_a_row(*(issued(*step) if isinstance(step, tuple) else step for step in steps))


def as_offered(steps: Sequence[Step]) -> Call:
    """All of them, certificates and CRLs as the library offers it."""
    return in_a_row(*(offered(*step) if isinstance(step, tuple) else step for step in steps))


@dataclass(frozen=True, slots=True)
class Case:
    """A case of the vectors' manifest."""

    entry: dict[str, Any]

    @classmethod
    def find(cls, number: str) -> Case:
        """By its id; ``Missing`` if there are no vectors, or not this one."""
        try:
            cases = json.loads((VECTORS / "manifest.json").read_text())["cases"]
        except OSError as error:
            raise Missing(f"no vectors in {VECTORS}") from error
        for entry in cases:
            if entry["id"] == number:
                return cls(entry)
        raise Missing(f"no case {number} in the vectors")

    @property
    def now(self) -> datetime:
        """When it is verified."""
        text = self.entry["reference_time"]
        return datetime.fromisoformat(text) if text is not None else datetime(2026, 1, 1, tzinfo=UTC)

    def file(self, role: str) -> bytes:
        """What is in its file."""
        name: str = self.entry["files"][role]
        return (VECTORS / name).read_bytes()

    def files(self, *roles: str) -> list[bytes]:
        """What is in all files of these roles, those that there are."""
        found = []
        for role in roles:
            names = self.entry["files"].get(role, [])
            found += [(VECTORS / name).read_bytes() for name in ([names] if isinstance(names, str) else names)]
        return found

    def anchors(self, role: str = "trusted_root") -> TrustAnchors:
        """Its own root only."""
        roots = EndorsementSet.parse([self.file(role)]).certificates
        return TrustAnchors(vendor=False, custom=frozenset(root.spki_fingerprint for root in roots))
