"""Appraising once more, by the policies that a resource demands instead of those that were asked when evidence came.

The evidence is what the token carries of it, which is what policies read. The floors under a policy's word hold here as
they held there: a root without hardware behind it, and requirements that were not met, which the token says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import msgspec

from adyton.appraisal import vector
from adyton.appraisal.rego_check import ATTESTATION_DATA
from adyton.broker.policy.concluding import Concluder
from adyton.broker.policy.policies import PolicyBook, TenantView
from adyton.errors import ReleaseRefused
from adyton.protocol import ear, recording
from adyton.protocol.audit_row import PolicyUsed
from adyton.protocol.ear import Submodule, TokenClaims
from adyton.rats.result import ELEMENTS, Mismatch, TrustVector
from adyton.rats.types import JsonValue
from adyton.stores.policy_types import StoredPolicy

_EARS_OWN = ("ear.status", "ear.trustworthiness-vector", "ear.appraisal-policy-id", ear.EVIDENCE)
_ALL = frozenset(ELEMENTS)


@dataclass(frozen=True, slots=True)
class Reappraiser:
    """Appraises claims by another set of policies, for one worker."""

    book: PolicyBook
    concluder: Concluder

    async def appraise(self, view: TenantView, claims: TokenClaims, policy_set: str) -> TokenClaims:
        """The same claims with other statuses; ``PolicyInvalid`` if a class of evidence has no such policy.

        ``ReleaseRefused`` for claims that do not say what is needed: those of an older version of Adyton.
        """
        submodules = [await self._one(view, submodule, policy_set) for submodule in claims.submodules]
        told = claims.raw["submods"]
        raw: dict[str, JsonValue] = {**claims.raw}
        raw["submods"] = {
            submodule.name: _written(submodule, cast("dict[str, JsonValue]", told)[submodule.name], extra)
            for submodule, extra in submodules
        }
        return msgspec.structs.replace(claims, submodules=tuple([one for one, _ in submodules]), raw=raw)

    async def _one(
        self, view: TenantView, submodule: Submodule, policy_set: str
    ) -> tuple[Submodule, tuple[vector.Extension, ...]]:
        if submodule.root is None or submodule.policy_version is None:
            raise ReleaseRefused(
                "these claims cannot be appraised again",
                reasons=("claims_too_old: the attestation result is of an older version; attest again",),
            )
        stored = self.book.attestation(view, submodule.tee_class, policy_set)
        policy = self.book.accept(stored.text, ATTESTATION_DATA)
        seen = recording.of_evidence(submodule.name, submodule.evidence)
        found, extra = await self.concluder.conclude(policy, seen.input, view)
        failed = [Mismatch("hardware", "", code) for code in seen.unmet]
        floored = vector.with_floor(found, submodule.root, failed)
        return msgspec.structs.replace(
            submodule,
            vector=TrustVector(floored.values, _ALL),
            status=floored.status,
            policy_id=policy_set,
            policy_version=stored.version,
            policy_digest=stored.digest,
        ), extra


def _written(submodule: Submodule, told: JsonValue, extra: tuple[vector.Extension, ...]) -> JsonValue:
    own = told if isinstance(told, dict) else {}
    return {
        **{name: own[name] for name in _EARS_OWN if name in own},
        "ear.status": submodule.status.text,
        "ear.trustworthiness-vector": dict(submodule.vector.items()),
        "ear.appraisal-policy-id": submodule.policy_id,
        **{name: value for name, _, value in extra},
    }


def used(stored: StoredPolicy) -> PolicyUsed:
    """A stored policy as the record names it."""
    return PolicyUsed(stored.kind, stored.id, stored.version, stored.digest)


def appraised_by(claims: TokenClaims) -> tuple[PolicyUsed, ...]:
    """The attestation policies that claims are by, each once."""
    found = [
        PolicyUsed("attestation", f"{one.policy_id}_{one.tee_class}", one.policy_version or 0, one.policy_digest)
        for one in claims.submodules
        if one.policy_digest
    ]
    return tuple(dict.fromkeys(found))
