"""Whom an instance takes for one of its own. Every mismatch is found, and told to both sides' owners."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from adyton.appraisal import requirements
from adyton.errors import ReleaseRefused
from adyton.protocol.peers import Identity, tcb_levels
from adyton.rats.types import VerifiedEvidence


@dataclass(frozen=True, slots=True)
class PeerRules:
    """Whom this instance takes for one of its own. ``own`` is its own evidence, verified as a peer's is."""

    own: VerifiedEvidence
    listed: frozenset[Identity] = frozenset()
    allow_debug: bool = False

    def check(self, peer: VerifiedEvidence) -> None:
        """``ReleaseRefused`` ``peer_refused`` with every mismatch."""
        reasons = [*self._identity(peer), *self._requirements(peer), *self._tcb(peer)]
        if reasons:
            raise ReleaseRefused(
                "the peer is not the same instance: it gets, and gives, no root key",
                code="peer_refused",
                reasons=tuple(reasons),
                hint="an upgrade is let in by name: --accept-peer MEASUREMENT/sha256:DOCUMENT on both sides",
            )

    def _identity(self, peer: VerifiedEvidence) -> list[str]:
        mine, theirs = Identity.of(self.own), Identity.of(peer)
        reasons = []
        if not theirs.measurement or not any(_same(theirs, one) for one in (mine, *self.listed)):
            reasons.append(f"peer_identity: expected {mine} or a listed one, evidence has {theirs}")
        if peer.tee != self.own.tee:
            reasons.append(f"peer_tee: expected {self.own.tee}, evidence is of {peer.tee}")
        if peer.root is not self.own.root:
            reasons.append(
                f"peer_root: expected a root of kind {self.own.root.value}, evidence leads to {peer.root.value}"
            )
        return reasons

    def _requirements(self, peer: VerifiedEvidence) -> list[str]:
        reasons = [f"{one.code}: {one.text}" for one in requirements.unmet(peer.tee, peer.claims)]
        if peer.claims.get("debug") is not False and not self.allow_debug:
            reasons.append(f"peer_debug: expected False, evidence has {peer.claims.get('debug')}")
        if peer.unchecked:
            unchecked = [name for name in peer.unchecked if name not in {"init_data", "report_data"}]
            reasons += [f"peer_unchecked: {name} was not checked" for name in unchecked]
        return reasons

    def _tcb(self, peer: VerifiedEvidence) -> list[str]:
        mine, theirs = tcb_levels(self.own.tcb), tcb_levels(peer.tcb)
        reasons = [
            f"peer_tcb: expected {name} of at least {least}, evidence has {theirs.get(name)}"
            for name, least in mine.items()
            if theirs.get(name, -1) < least
        ]
        mine_said, said = self.own.claims.get("tcb_status"), peer.claims.get("tcb_status")
        if said not in {mine_said, "UpToDate"}:
            reasons.append(f"peer_tcb: expected a status of {mine_said} or UpToDate, evidence has {said}")
        return reasons


def _same(one: Identity, other: Identity) -> bool:
    left, right = str(one).encode(), str(other).encode()
    return hmac.compare_digest(left, right)
