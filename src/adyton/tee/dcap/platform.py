"""One platform: its PCK certificate, the CA above it, and what Intel says of its TCB (evidence 3.3, steps 2 to 6).

Three things are remembered, each under all that it depends on: a CA with its CRLs, the collateral of a platform family,
and a quoting enclave with its platform. An enclave keeps its attestation key for many quotes, and its report certifies that
key as a certificate does: so a second quote costs its own signature alone, and a new platform under a known CA with known
collateral those on its certificate, its enclave and its quote. Nothing is remembered before the whole quote was found right.
"""

from __future__ import annotations

from collections.abc import Hashable
from datetime import datetime
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec

from adyton.crypto import chain as walk
from adyton.crypto.x509 import EndorsementSet
from adyton.rats.types import Revocation, TrustAnchors
from adyton.tee.dcap import certified, documents, levels, pck
from adyton.tee.dcap.collateral import CollateralWalk, VerifiedCollateral
from adyton.tee.dcap.documents import Collateral, Reader
from adyton.tee.dcap.endorsements import Issuer, IssuerWalk, Span, check_leaf, roles, serials
from adyton.tee.dcap.pck import Pck
from adyton.tee.dcap.quote import Quote
from adyton.tee.dcap.tcb_info import EnclaveLevel, TcbLevel
from adyton.tee.remembered import Chain, Remembered, Window


class Platform(NamedTuple):
    """All that was verified about one platform. ``collateral`` is ``None`` where it was not looked at, as asked.

    ``levels``: those of the TCB info that the certificate reaches. ``span``: of all that was used.
    """

    pck: Pck
    issuer: Issuer
    collateral: VerifiedCollateral | None
    levels: tuple[TcbLevel, ...]
    span: Span


class Enclave(NamedTuple):
    """A quoting enclave that a platform certified: the key that it signs quotes with, and its level if that was asked."""

    platform: Platform
    key: ec.EllipticCurvePublicKey
    level: EnclaveLevel | None


class PlatformWalk:
    """The checks over one platform, in their order; ``recall`` first, ``done`` last."""

    def __init__(
        self,
        tee: str,
        quote: Quote,
        raw: bytes,
        *,
        endorsements: EndorsementSet,
        anchors: TrustAnchors,
        revocation: Revocation,
        now: datetime,
        remembered: Remembered | None,
        with_collateral: bool,
    ) -> None:
        self._tee = tee
        self._quote = quote
        self._qe_report = quote.qe_report_offset, raw
        self._endorsements = endorsements
        self._anchors = anchors
        self._revocation = revocation is Revocation.REQUIRED
        self._now = now
        self._remembered = remembered
        self._base: tuple[Hashable, ...] = ()
        self._key: tuple[Hashable, ...] = ()
        if remembered is not None:
            self._base = (
                "dcap", tee, endorsements.digest, anchors.vendor, anchors.custom, self._revocation
            )  # fmt: skip
            certified_part = raw[quote.signed_size + 68 : quote.size]  # the signature data but the quote's signature
            self._key = (*self._base, with_collateral, quote.header.version, certified_part)
        self._with_collateral = with_collateral
        self._issuer_walk: IssuerWalk | None = None
        self._collateral_walk: CollateralWalk | None = None
        self._given: Collateral | None = None
        self._listed: list[tuple[datetime, datetime]] = []  # lives of the PCK certificates that one was chosen from
        self._collateral: VerifiedCollateral | None = None

    def recall(self) -> Enclave | None:
        """Platform and quoting enclave, if all of both is remembered."""
        if self._remembered is None:
            return None
        found = self._remembered.recall(self._key, self._now)
        return found if isinstance(found, Enclave) else None

    def _report_bytes(self) -> bytes:
        offset, raw = self._qe_report
        return raw[offset : offset + 384]

    def certificate(self) -> None:
        """Step 2: the quote's PCK certificate is there and can be read."""
        text, self._rest = certified.split(self._quote)
        if self._quote.certification_type in certified.EMBEDDED:
            self._leaf = certified.leaf(text, Reader(), self._tee)
        else:
            listed = certified.candidates(self._all(), self._now)
            self._listed = [(item.not_before, item.not_after) for item in listed]
            self._leaf = certified.looked_up(self._quote, self._report_bytes(), listed, self._tee)
        self.pck: Pck = pck.read(self._leaf, roles(self._tee).pck)

    def _all(self) -> Collateral:
        """The endorsements, with the issuers that the quote carries; read when something is not remembered."""
        if self._given is None:
            given = documents.read(self._endorsements)
            self._given = given.plus(certified.issuers(self._rest, Reader(given.by_der, given.chains), self._tee))
        return self._given

    def chain(self) -> None:
        """Step 2: names, algorithms, signatures and constraints up to a root."""
        known = self._recall("issuer", self._rest, self._leaf.issuer)
        if isinstance(known, Issuer) and check_leaf(self._tee, self._leaf, known):
            self.issuer = known
            return
        self._issuer_walk = IssuerWalk(self._tee, self._leaf, self._all().pool, self._anchors, self._now)
        self._issuer_walk.links()

    def validity(self) -> None:
        """Step 2: every certificate is valid now."""
        walk.check_validity(self._leaf, self._now, roles(self._tee).pck)
        if self._issuer_walk is not None:
            self._issuer_walk.validity()

    def root(self) -> None:
        """Step 2: the root's key is trusted."""
        if self._issuer_walk is not None:
            self._issuer_walk.anchor()

    def revoked(self) -> None:
        """Step 3: neither the CA nor the PCK certificate is revoked, by fresh CRLs of their issuers."""
        if self._issuer_walk is None:
            if any(self._leaf.serial in serials(crl) for crl in self.issuer.pck_crls):
                walk.check_unlisted(((self._leaf, roles(self._tee).pck),), self.issuer.pck_crls)
            return
        if self._revocation:
            self._issuer_walk.revocation()
        self.issuer = self._issuer_walk.done(to_remember=self._remembered is not None)

    def collateral(self) -> CollateralWalk | None:
        """The walk over the collateral; ``None`` if its verdict is remembered, or it is not to be looked at."""
        if self._collateral is not None:
            return None
        if self._collateral_walk is None and self._with_collateral:
            known = self._recall(*self._collateral_name())
            if isinstance(known, VerifiedCollateral):
                self._collateral = known
            else:
                self._collateral_walk = CollateralWalk(
                    self._tee,
                    self._all(),
                    pck=self.pck,
                    issuer=self.issuer,
                    now=self._now,
                )
        return self._collateral_walk

    def _collateral_name(self) -> tuple[Hashable, ...]:
        # By the root, not by the CA's name: who signs for one root answers for no other root's platforms.
        return ("collateral", self._rest, self.issuer.root.digest, self.pck.fmspc, self.pck.pceid)

    def _recall(self, *name: Hashable) -> object:
        return self._remembered.recall((*self._base, *name), self._now) if self._remembered is not None else None

    def done(self) -> Platform:
        """The verified platform. Call it after every step."""
        leaf, issuer = self._leaf, self.issuer
        if self._collateral_walk is not None:
            self._collateral = self._collateral_walk.done(to_remember=self._remembered is not None)
        collateral = self._collateral
        span = Span(leaf.not_before, leaf.not_before, leaf.not_after, "PCK certificate").with_(issuer.span)
        if collateral is not None:
            span = span.with_(collateral.span)
        return Platform(
            pck=self.pck,
            issuer=issuer,
            collateral=collateral,
            levels=levels.reached(collateral.info, self.pck) if collateral is not None else (),
            span=span,
        )

    def remember(self, enclave: Enclave) -> None:
        """Keep what was verified. Call it when the whole quote was found right."""
        platform = enclave.platform
        memory, collateral, issuer = self._remembered, platform.collateral, platform.issuer
        if memory is None or issuer.window is None or (collateral is not None and collateral.window is None):
            return
        windows = [(issuer.window.first, issuer.window.last)]
        if self._issuer_walk is not None:
            memory.keep((*self._base, "issuer", self._rest, self._leaf.issuer), Chain(issuer, issuer.window))
        if collateral is not None and collateral.window is not None:
            windows.append((collateral.window.first, collateral.window.last))
            if self._collateral_walk is not None:
                memory.keep((*self._base, *self._collateral_name()), Chain(collateral, collateral.window))
        leaf = self._leaf
        window = Window.around(self._now, ((leaf.not_before, leaf.not_after), *self._listed, *windows))
        memory.keep(self._key, Chain(enclave, window))
