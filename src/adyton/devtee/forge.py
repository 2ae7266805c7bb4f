"""Evidence that is wrong on purpose, and whole chains of certificates to be wrong under.

A ``Forge`` holds one product's chain in memory. Its parts can be had expired, not yet valid, revoked, of another
product or of another root; its reports with any field set; and what it signed can be broken afterwards. Nothing here
is secret or lasting: this is what tests and the demo attack verifiers with.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from adyton.devtee.certificates import (
    Authority,
    Levels,
    Signer,
    make_ark,
    make_crl,
    make_intermediate,
    make_leaf,
    new_key,
)
from adyton.devtee.snp import REPORT_SIZE, SIGNED_SIZE, ReportFields, issue_report

_P384_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
_CSP = "CN=example.provider.invalid"


@dataclass(frozen=True, slots=True)
class Forge:
    """ARK → intermediate → leaf in memory. ``kind`` is the leaf's: ``VCEK`` under an ASK, ``VLEK`` under an ASVK."""

    now: datetime
    product: str
    kind: str
    ark: Authority
    intermediate: Authority
    signer: Signer

    @classmethod
    def new(
        cls,
        now: datetime,
        *,
        product: str = "Genoa",
        kind: str = "VCEK",
        levels: Levels | None = None,
        new_rsa_key: Callable[[], rsa.RSAPrivateKey] = new_key,
    ) -> Forge:
        """A fresh chain. Two RSA keys are made, a second or two; ``new_rsa_key`` may hand out prepared ones."""
        ark = make_ark(product, now, key=new_rsa_key())
        intermediate = make_intermediate(ark, product, now, kind=kind, key=new_rsa_key())
        return cls._with_leaf(now, product, kind, ark=ark, intermediate=intermediate, levels=levels or Levels())

    @classmethod
    def _with_leaf(
        cls, now: datetime, product: str, kind: str, *, ark: Authority, intermediate: Authority, levels: Levels
    ) -> Forge:
        chip = secrets.token_bytes(64) if kind == "VCEK" else b""
        signer = make_leaf(intermediate, product, levels, now, kind=kind, chip_id=chip, csp_id=_CSP)
        return cls(now, product, kind, ark, intermediate, signer)

    def with_kind(self, kind: str, *, key: rsa.RSAPrivateKey | None = None) -> Forge:
        """The same root with an intermediate and a leaf of the other kind; ``key`` is the intermediate's."""
        intermediate = make_intermediate(self.ark, self.product, self.now, kind=kind, key=key)
        return self._with_leaf(
            self.now, self.product, kind, ark=self.ark, intermediate=intermediate, levels=self.signer.levels
        )

    def with_leaf(
        self,
        *,
        start: datetime | None = None,
        lifetime: timedelta | None = None,
        levels: Levels | None = None,
        chip_id: bytes | None = None,
        kind: str | None = None,
        product_name: str | None = None,
    ) -> Forge:
        """The same chain with another leaf, e.g. expired (``start`` long ago), not yet valid, or of another chip."""
        kind = kind or self.kind
        chip = chip_id if chip_id is not None else self.signer.chip_id or secrets.token_bytes(64)
        leaf = make_leaf(
            self.intermediate,
            self.product,
            levels or self.signer.levels,
            start or self.now,
            kind=kind,
            chip_id=chip,
            csp_id=_CSP,
            product_name=product_name,
            lifetime=lifetime,
        )
        return replace(self, kind=kind, signer=leaf)

    def report(self, fields: ReportFields | None = None, /, **changes: object) -> bytes:
        """A signed report; ``changes`` are fields of ``ReportFields``."""
        return issue_report(self.signer, replace(fields or ReportFields(), **changes))  # type: ignore[arg-type]  # checked there

    def crl(
        self,
        *,
        revoked: Iterable[x509.Certificate] = (),
        start: datetime | None = None,
        lifetime: timedelta = timedelta(days=45),
        number: int = 1,
    ) -> bytes:
        """A CRL of this root, DER."""
        crl = make_crl(self.ark, start or self.now, number=number, revoked=revoked, lifetime=lifetime)
        return crl.public_bytes(Encoding.DER)

    @property
    def certificates(self) -> tuple[tuple[str, bytes], ...]:
        """(type, DER) of leaf, intermediate and root, as CoCo's evidence lists them."""
        middle = "ASK" if self.kind == "VCEK" else "ASVK"
        return (
            (self.kind, self.signer.certificate.public_bytes(Encoding.DER)),
            (middle, self.intermediate.certificate.public_bytes(Encoding.DER)),
            ("ARK", self.ark.certificate.public_bytes(Encoding.DER)),
        )

    def blobs(self, *, crl: bool = True) -> tuple[bytes, ...]:
        """All endorsements in DER: leaf, intermediate, root and, unless left out, an empty CRL."""
        return (*(der for _, der in self.certificates), *((self.crl(),) if crl else ()))


def flip(data: bytes, bit: int) -> bytes:
    """``data`` with one bit turned over; bit 0 is the lowest of the first byte."""
    out = bytearray(data)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def break_signatures(report: bytes) -> dict[str, bytes]:
    """The same report with each way of a wrong signature, by name."""
    if len(report) != REPORT_SIZE:
        raise ValueError("a report has 1184 bytes")
    signed, r, s = report[:SIGNED_SIZE], report[0x2A0:0x2E8], report[0x2E8:0x330]

    def with_signature(new_r: bytes, new_s: bytes) -> bytes:
        return signed + (new_r + new_s).ljust(512, b"\0")

    def shifted(value: bytes) -> bytes:
        return (int.from_bytes(value, "little") + _P384_ORDER).to_bytes(72, "little")

    return {
        "bit of r": with_signature(flip(r, 3), s),
        "bit of s": with_signature(r, flip(s, 3)),
        "zero": with_signature(bytes(72), bytes(72)),
        "r zero": with_signature(bytes(72), s),
        "s zero": with_signature(r, bytes(72)),
        "swapped": with_signature(s, r),
        "big-endian": with_signature(r[:48][::-1].ljust(72, b"\0"), s[:48][::-1].ljust(72, b"\0")),
        "r plus order": with_signature(shifted(r), s),
        "s plus order": with_signature(r, shifted(s)),
        "all ones": with_signature(b"\xff" * 72, b"\xff" * 72),
    }
