"""The checks of evidence 11 over one device's report, one method each. ``verify`` runs them in order.

What depends on endorsements alone (chain, manifests) is in ``Known``, and remembered; the report's own signature, nonce and
measurements are looked at every time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from adyton.crypto.ecdsa import verify_p384
from adyton.crypto.path import Path
from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.errors import (
    BindingMismatch,
    SignatureInvalid,
)
from adyton.rats.binding import check_report_data
from adyton.rats.types import JsonValue, ReportData, Revocation, RootKind, TrustAnchors
from adyton.tee.nvidia import abi, golden, manifests, opaque, rim
from adyton.tee.nvidia import claims as claims_of
from adyton.tee.nvidia import endorsements as chains
from adyton.tee.nvidia.abi import SIGNATURE_SIZE
from adyton.tee.nvidia.endorsements import DEVICE_ROOT, SPEC, SWITCH, TEE, Answers, Leaf, Span
from adyton.tee.nvidia.golden import Compared
from adyton.tee.nvidia.json_form import Device
from adyton.tee.nvidia.rim import VerifiedRim
from adyton.tee.remembered import Chain, Remembered, Window

MAX_LEAVES = 8


@dataclass(frozen=True, slots=True)
class Known:
    """What verifying the endorsements of one device gave. ``drivers`` and ``bioses``: manifests of its versions."""

    leaf: Leaf
    path: Path
    root: RootKind
    drivers: tuple[VerifiedRim, ...]
    bioses: tuple[VerifiedRim, ...]
    answered: bool  # every authority of the device and of the manifests by an OCSP answer
    expires: datetime
    expires_first: str
    claims: Mapping[str, JsonValue]
    window: Window


class Verification:
    """One verification of one device: what was given, and what the checks have found so far."""

    __slots__ = (
        "_answers", "_found", "_path", "_pool", "_revocation_spans", "_rims", "_signed", "anchors", "bioses", "compared", "device",
        "drivers", "endorsements", "known", "leaf", "measured", "now", "opaque", "remembered", "report", "report_data",
        "revocation",
    )  # fmt: skip
    leaf: Leaf
    _path: Path
    _pool: EndorsementSet
    _answers: Answers
    _rims: list[rim.Rim]

    def __init__(
        self,
        device: Device,
        report: abi.Report,
        *,
        endorsements: EndorsementSet,
        now: datetime,
        anchors: TrustAnchors,
        revocation: Revocation,
        report_data: ReportData | None,
        remembered: Remembered | None,
    ) -> None:
        self.device = device
        self.report = report
        self.opaque = opaque.read(report)
        self.measured = {index: value for index, _, value in report.blocks}
        self.endorsements = endorsements
        self.now = now
        self.anchors = anchors
        self.revocation = revocation
        self.report_data = report_data
        self.remembered = remembered
        self.known: Known | None = None
        self.drivers: tuple[VerifiedRim, ...] = ()
        self.bioses: tuple[VerifiedRim, ...] = ()
        self.compared: tuple[Compared, ...] = ()
        self._revocation_spans: list[Span] = []
        self._signed = False
        self._found: tuple[tuple[object, ...], tuple[Leaf, ...]] | None = None

    # The checks, in order. Each is silent or raises.

    def certificate(self) -> None:
        """Which leaf: the device's own. Of several, the one whose key signed; nothing else tells two devices apart."""
        pem = _digest(self.device.pem)
        place = (TEE, "leaves", self.endorsements.digest, pem)
        leaves = self.remembered.recall(place, self.now) if self.remembered is not None else None
        if not isinstance(leaves, tuple):
            leaves = self._leaves()
            self._found = place, leaves
        self.leaf = leaves[0]
        if len(leaves) > 1:
            for leaf in leaves[:MAX_LEAVES]:
                if self._is_signed_by(leaf):
                    self.leaf, self._signed = leaf, True
                    break
        if self.remembered is not None:
            known = self.remembered.recall(self._key(pem), self.now)
            if isinstance(known, Known):
                self.known = known
                self.drivers, self.bioses = known.drivers, known.bioses

    def _key(self, pem: bytes) -> tuple[object, ...]:
        """All that verifying this device's endorsements looks at, apart from the time."""
        return (
            TEE,
            self.endorsements.digest,
            pem,
            self.leaf.certificate.digest,
            self.anchors.vendor,
            self.anchors.custom,
            self.revocation is Revocation.REQUIRED,
            self.opaque.driver_version,
            self.opaque.vbios_version,
        )

    def _leaves(self) -> tuple[Leaf, ...]:
        own = self._own_certificates() if self.device.pem else self.endorsements.certificates
        return chains.leaves_of(own, self.now)

    def _own_certificates(self) -> tuple[Certificate, ...]:
        return EndorsementSet.parse([self.device.pem]).certificates

    def links(self) -> None:
        """Algorithms, names, signatures and constraints up to a root; five different certificates."""
        if self.known is None:
            own = self._own_certificates() if self.device.pem else ()
            self._pool = self.endorsements.plus(own) if own else self.endorsements
            self._path = chains.linked(self.leaf, self._pool, self.anchors, self.now)

    def validity(self) -> None:
        """Every certificate is valid now."""
        if self.known is None:
            self._path.validity(self.now)

    def root(self) -> None:
        """The root's key is trusted."""
        if self.known is None:
            self._path.anchor(chains.trusted(DEVICE_ROOT, self.anchors))

    def revoked(self) -> None:
        """None of the authorities is revoked or on hold, by fresh answers of those who issued them."""
        if self.known is None:
            self._answers = Answers(self.endorsements.documents)
            self._revocation_spans = chains.check_revocation(
                self._path,
                self._pool,
                self._answers,
                numbers=chains.AUTHORITIES,
                now=self.now,
                wanted=self.revocation,
            )

    def arch(self) -> None:
        """The architecture that the host names is the certificate's."""
        if self.device.arch is not None and self.device.arch != self.leaf.arch:
            raise self._mismatch(
                "arch_mismatch", "arch", self.leaf.arch, self.device.arch, "the host names another chip"
            )

    def fwid(self) -> None:
        """The firmware that the report names is the one that the leaf was issued for, where both name one."""
        got = self.opaque.fwid
        if got is not None and self.leaf.exact and got not in self.leaf.fwids:
            raise self._mismatch(
                "fwid_mismatch", "fwid", self.leaf.fwids[0], got, "the certificate was issued for other firmware"
            )

    def signature(self) -> None:
        """ECDSA P-384 with SHA-384 over everything before it, the request with its nonce included."""
        if not self._signed and not self._is_signed_by(self.leaf):
            raise SignatureInvalid(
                "the report's signature does not verify under the certified key",
                code="report_sig",
                tee=TEE,
                field="signature",
                spec=SPEC,
                hint="the report was changed, or signed by another device or under other firmware",
            )

    def bound(self) -> None:
        """The report was made for this nonce."""
        if self.report_data is not None:
            check_report_data(TEE, self.report_data, ReportData(self.report.nonce))

    def read_manifests(self) -> None:
        """Find the manifests among the endorsements."""
        if self.known is None:
            self._rims = manifests.find(self.endorsements.documents)

    def driver(self) -> None:
        """The driver's manifest is NVIDIA's, and of the version that the report names. A switch has no driver."""
        if self.known is None and self._rims and self.leaf.arch != SWITCH:
            self.drivers = self._verified(rim.DRIVER)

    def bios(self) -> None:
        """The same of the VBIOS."""
        if self.known is None and self._rims:
            self.bioses = self._verified(rim.VBIOS)

    def _verified(self, source: str) -> tuple[VerifiedRim, ...]:
        fitting = manifests.fitting(self._rims, self.leaf, self.opaque, source)
        return rim.verify_any(
            fitting,
            self._pool,
            self._answers,
            now=self.now,
            anchors=self.anchors,
            revocation=self.revocation,
            siblings=self.drivers,
        )

    def measurements(self) -> None:
        """Every active measurement of either manifest is in the report, and equal to one of its alternatives."""
        if not self.bioses:
            return
        nvdec0 = self.opaque.nvdec0_status
        compared = [golden.best(rims, self.measured, nvdec0) for rims in (self.drivers, self.bioses) if rims]
        golden.check(compared)
        self.compared = tuple(compared)

    # What they found.

    def remember(self) -> Known:
        """What the endorsements gave; kept for the next report of this device. Call it after every check.

        Not before: what anybody may send must not push verified chains out of the memory.
        """
        if self.remembered is not None and self._found is not None:
            place, leaves = self._found
            lives = [(leaf.certificate.not_before, leaf.certificate.not_after) for leaf in leaves]
            self.remembered.keep(place, Chain(leaves, Window.around(self.now, lives)))
        if self.known is not None:
            return self.known
        rims = (*self.drivers, *self.bioses)
        spans = chains.spans_of(self._path) + self._revocation_spans
        spans += [span for one in rims for span in one.spans]
        first = min(spans, key=lambda span: span.end)
        kinds = {chains.root_kind(self._path, DEVICE_ROOT, self.anchors), *(one.root for one in rims)}
        lifetimes = [(span.begin, span.end) for span in spans]
        lifetimes += self._path.lifetimes()
        lifetimes += [seen for one in rims for seen in one.path.lifetimes()]
        lifetimes += [
            (said.this_update, said.next_update) for answer in self._answers.readable for said in answer.statuses
        ]
        # An answer that a responder not valid yet gave counts from the day on which its certificate begins.
        lifetimes += [
            (own.not_before, own.not_after) for answer in self._answers.readable for own in answer.certificates
        ]
        lifetimes += [(crl.this_update, crl.next_update) for crl in self._pool.crls]
        lifetimes += [(one.not_before, one.not_after) for manifest in self._rims for one in manifest.certificates]
        known = Known(
            leaf=self.leaf,
            path=self._path,
            root=RootKind.CUSTOM if RootKind.CUSTOM in kinds else RootKind.VENDOR,
            drivers=self.drivers,
            bioses=self.bioses,
            answered=self.revocation is Revocation.REQUIRED and not any(span.by_list for span in spans),
            expires=first.end,
            expires_first=first.name,
            claims=claims_of.of_chain(self.leaf, self._path),
            window=Window.around(self.now, lifetimes),
        )
        if self.remembered is not None:
            pem = _digest(self.device.pem)
            self.remembered.keep(self._key(pem), Chain(known, known.window))
        return known

    def fwid_compared(self) -> bool:
        """Whether report and leaf name the same firmware; if not, one of them names none (or Blackwell's list has others)."""
        return self.opaque.fwid is not None and self.opaque.fwid in self.leaf.fwids

    def _is_signed_by(self, leaf: Leaf) -> bool:
        try:
            verify_p384(leaf.key, self.report.signature, self.device.report[:-SIGNATURE_SIZE], size=48, byteorder="big")
        except SignatureInvalid:
            return False
        return True

    def _mismatch(self, code: str, field: str, expected: object, got: object, reason: str) -> BindingMismatch:
        return BindingMismatch(
            f"the report and the certificate of its key do not belong together: {reason}",
            code=code,
            tee=TEE,
            field=field,
            expected=expected,
            got=got,
            spec=SPEC,
        )


@lru_cache(maxsize=64)
def _digest(pem: bytes) -> bytes:
    """SHA-256; nothing of nothing."""
    return hashlib.sha256(pem).digest() if pem else b""
