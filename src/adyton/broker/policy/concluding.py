"""From a policy and what it reads to a trust vector, remembered: what appraising and appraising again have in common."""

from __future__ import annotations

from collections.abc import Mapping

from adyton.appraisal import vector
from adyton.appraisal.rego_check import AcceptedPolicy
from adyton.appraisal.vector import Extension
from adyton.broker.policy.policies import ATTESTATION_RULES, TenantView
from adyton.broker.policy.rego import Absent, Memory, RegoEngine, Results
from adyton.rats.result import TrustVector
from adyton.rats.types import JsonValue

Conclusion = tuple[TrustVector, tuple[Extension, ...]]


class Concluder:
    """Asks attestation policies for one worker. What it remembers is a function of its key alone, so never grows stale."""

    def __init__(self, engine: RegoEngine) -> None:
        self._engine = engine
        self._concluded = Memory[Conclusion]()

    async def conclude(self, policy: AcceptedPolicy, document: Mapping[str, JsonValue], view: TenantView) -> Conclusion:
        """The vector and the extensions; ``PolicyInvalid`` if the policy cannot be evaluated or gives something else."""
        key, results = self._engine.remembered(policy, ATTESTATION_RULES, document, view.data_key)
        concluded = self._concluded.get(key) if results is not None else None
        if concluded is None:
            results = await self._engine.evaluate_async(policy, ATTESTATION_RULES, document, view.data, view.data_key)
            concluded = conclusion(results)
            self._concluded.put(key, concluded)
        return concluded


def conclusion(results: Results) -> Conclusion:
    """What the rules' values say; ``PolicyInvalid`` if that is not AR4SI."""
    claimed, present = _value(results["trust_claims"])
    extra, extended = _value(results["extensions"])
    return vector.from_rules(claimed, present=present), vector.extensions(extra, present=extended)


def _value(result: JsonValue | Absent) -> tuple[JsonValue, bool]:
    return (None, False) if isinstance(result, Absent) else (result, True)
