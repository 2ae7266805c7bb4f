"""Why evidence is not as its owner wants it, in words: every reference value that is missing or differs.

Independent of Rego: a policy says *how good*, this says *why*. It decides nothing. The table below names the same claims
and reference values as the default policies; a tenant with a policy of its own reads it as advice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from adyton.rats.ports import ReferenceValues
from adyton.rats.result import Mismatch
from adyton.rats.types import JsonValue


@dataclass(frozen=True, slots=True)
class _Rule:
    element: str
    claim: str
    kind: Literal["in", "equal", "must"]
    reference: str = ""
    must: JsonValue = None


_SNP = (
    _Rule("executables", "measurement", "in", "snp_launch_measurement"),
    _Rule("hardware", "reported_tcb_bootloader", "in", "snp_bootloader"),
    _Rule("hardware", "reported_tcb_microcode", "in", "snp_microcode"),
    _Rule("hardware", "reported_tcb_snp", "in", "snp_snp_svn"),
    _Rule("hardware", "reported_tcb_tee", "in", "snp_tee_svn"),
    _Rule("configuration", "policy_debug_allowed", "must", must=False),
    _Rule("configuration", "policy_migrate_ma", "must", must=False),
    # What makes configuration 2 instead of 3: told only where a reference value exists, since 3 affirms as well.
    _Rule("configuration", "platform_smt_enabled", "equal", "snp_smt_enabled"),
    _Rule("configuration", "platform_tsme_enabled", "equal", "snp_tsme_enabled"),
    _Rule("configuration", "policy_abi_major", "equal", "snp_guest_abi_major"),
    _Rule("configuration", "policy_abi_minor", "equal", "snp_guest_abi_minor"),
    _Rule("configuration", "policy_single_socket", "equal", "snp_single_socket"),
    _Rule("configuration", "policy_smt_allowed", "equal", "snp_smt_allowed"),
)
_RULES: Mapping[str, tuple[_Rule, ...]] = {"snp": _SNP}
_CLAIMS = {tee: tuple(rule.claim for rule in rules) for tee, rules in _RULES.items()}

MEASUREMENT_REFERENCE: Mapping[str, str] = {"snp": "snp_launch_measurement"}
"""By TEE: the reference value that lists accepted measurements."""


def mismatches(tee: str, coco_claims: Mapping[str, JsonValue], references: ReferenceValues) -> tuple[Mismatch, ...]:
    """Everything about these claims that is not as it must be; never raises for a bad value."""
    found = []
    for rule in _RULES.get(tee, ()):
        got = coco_claims.get(rule.claim)
        if rule.kind == "must":
            if not same(got, rule.must):
                found.append(Mismatch(rule.element, rule.claim, f"{rule.claim}_wrong", expected=rule.must, got=got))
            continue
        expected = references.get(rule.reference)
        if expected is None:
            if rule.kind == "in":
                found.append(Mismatch(rule.element, rule.claim, "reference_missing", rule.reference, got=got))
        elif not (contains(expected, got) if rule.kind == "in" else same(got, expected)):
            found.append(Mismatch(rule.element, rule.claim, "reference_differs", rule.reference, expected, got))
    if tee not in _RULES:
        found.append(Mismatch("hardware", "tee", "tee_unknown", expected=cast("JsonValue", sorted(_RULES)), got=tee))
    return tuple(found)


def relevant(tee: str, coco_claims: Mapping[str, JsonValue]) -> tuple[JsonValue, ...]:
    """The claims that ``mismatches`` looks at: with the same ones and the same references it gives the same answer."""
    return tuple([coco_claims.get(name) for name in _CLAIMS.get(tee, ())])


def measurement_accepted(tee: str, measurement: str, references: ReferenceValues) -> bool:
    """Whether the tenant's reference values list this measurement. No list, or an unknown TEE: no."""
    name = MEASUREMENT_REFERENCE.get(tee)
    return bool(measurement) and name is not None and contains(references.get(name), measurement)


def contains(accepted: JsonValue, got: JsonValue) -> bool:
    """Whether ``got`` is in the list ``accepted``; anything but a list contains nothing."""
    return isinstance(accepted, list) and any(same(got, item) for item in accepted)


def same(left: JsonValue, right: JsonValue) -> bool:
    """Equality as JSON has it: ``true`` is not 1."""
    return isinstance(left, bool) == isinstance(right, bool) and left == right
