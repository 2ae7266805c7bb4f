"""Why evidence is not as its owner wants it, in words: every reference value that is missing or differs.

Independent of Rego: a policy says *how good*, this says *why*. It decides nothing. ``compared`` names the same claims
and reference values as the default policies; a tenant with a policy of its own reads it as advice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import cast

from adyton.appraisal.compared import TABLE, Path, Rule
from adyton.rats.ports import ReferenceValues
from adyton.rats.result import Mismatch
from adyton.rats.types import JsonValue

_SWITCH_ONLY = "x-nvidia-switch-arch-check"
_IDENTITY: Mapping[str, tuple[Rule, ...]] = {
    tee: tuple(rule for rule in rules if rule.identity) for tee, rules in TABLE.items()
}
_TOLD_WHERE_KNOWN = frozenset({"better in", "better equal", "better has"})
_EQUAL = frozenset({"equal", "better equal"})

MEASUREMENT_REFERENCE: Mapping[str, str] = {
    "snp": "snp_launch_measurement",
    "tdx": "mr_td",
    "az-tdx-vtpm": "mr_td",
    "sgx": "sgx_mr_enclave",
    "csv": "csv_measure",
    "nitro": "nitro_pcr0",
    "hyperenclave": "hyperenclave_mr_enclave",
}
"""By TEE: the reference value that lists accepted measurements as Adyton writes them, in hex."""


def _groups(rules: Sequence[Rule]) -> tuple[tuple[Path, tuple[str, ...]], ...]:
    paths = [rule.path for rule in rules]
    return tuple(
        (parent, tuple([path[-1] for path in group])) for parent, group in groupby(paths, key=lambda path: path[:-1])
    )


_READ = {tee: _groups(rules) for tee, rules in TABLE.items()}


def mismatches(tee: str, evidence: Mapping[str, JsonValue], references: ReferenceValues) -> tuple[Mismatch, ...]:
    """Everything about this annotated evidence that is not as it must be; never raises for a bad value."""
    rules = TABLE.get(_table(tee, evidence))
    if rules is None:
        known = cast("JsonValue", sorted(set(TABLE) - {"nvidia switch"}))
        return (Mismatch("hardware", "tee", "tee_unknown", expected=known, got=tee),)
    found: list[Mismatch] = []
    for rule in rules:
        found += _compare(rule, evidence, references)
    return _alternatives(tee, tuple(found))


def _compare(rule: Rule, evidence: Mapping[str, JsonValue], references: ReferenceValues) -> list[Mismatch]:
    got = _at(evidence, rule.path)
    if rule.kind == "must":
        if same(got, rule.must):
            return []
        return [Mismatch(rule.element, rule.claim, f"{_code(rule)}_wrong", expected=rule.must, got=got)]
    expected = references.get(rule.reference)
    if expected is None:
        if rule.kind in _TOLD_WHERE_KNOWN:
            return []
        return [_differs(rule, "reference_missing", None, item) for item in _items(rule, got)]
    bad = [item for item in _items(rule, got) if not _fits(rule, expected, item)]
    if not bad and rule.reference in references.deprecated:
        return [_differs(rule, "reference_deprecated", expected, got)]
    return [_differs(rule, "reference_differs", expected, item) for item in bad]


def _items(rule: Rule, got: JsonValue) -> list[JsonValue]:
    """What is compared one by one; a list that should be there and is not, or is empty, is one thing that is missing."""
    if rule.kind != "each":
        return [got]
    if not isinstance(got, list) or not got:
        return [None]
    return [item.get(rule.part) if isinstance(item, dict) else None for item in got]


def _fits(rule: Rule, expected: JsonValue, got: JsonValue) -> bool:
    if rule.kind in _EQUAL:
        return same(got, expected)
    if rule.kind == "better has":
        return contains(got, expected)
    if rule.kind == "at least":
        return _is_number(got) and _is_number(expected) and cast("float", got) >= cast("float", expected)
    return contains(expected, got)


def _differs(rule: Rule, code: str, expected: JsonValue, got: JsonValue) -> Mismatch:
    if rule.kind == "better has" and isinstance(got, list):  # one of them is what could be listed
        got = got[0] if got else None
    return Mismatch(rule.element, rule.claim, code, rule.reference, expected, got)


def _alternatives(tee: str, found: tuple[Mismatch, ...]) -> tuple[Mismatch, ...]:
    """Of a Nitro enclave's two registers of its parent one is enough: then the other is no mismatch."""
    if tee != "nitro":
        return found
    parents = [item for item in found if item.element == "hardware"]
    return tuple([item for item in found if item.element != "hardware"]) if len(parents) < 2 else found


def relevant(tee: str, evidence: Mapping[str, JsonValue]) -> tuple[JsonValue, ...]:
    """The claims that ``mismatches`` looks at: with the same ones and the same references it gives the same answer."""
    values: list[JsonValue] = []
    for parent, names in _READ.get(_table(tee, evidence), ()):
        place = _at(evidence, parent)
        values += [place.get(name) for name in names] if isinstance(place, dict) else [None] * len(names)
    return tuple(values)


def read_by(tee: str) -> tuple[Path, ...]:
    """The places in evidence of a TEE that anything here looks at."""
    return tuple([rule.path for rule in TABLE.get(tee, ())])


def guest_accepted(tee: str, evidence: Mapping[str, JsonValue], references: ReferenceValues) -> bool:
    """Whether the tenant's reference values list what runs, all parts of it: then it may be believed what it says it runs.

    A TEE whose evidence does not say what runs: never.
    """
    rules = _IDENTITY.get(tee, ())
    return bool(rules) and all(_identified(rule, evidence, references) for rule in rules)


def _identified(rule: Rule, evidence: Mapping[str, JsonValue], references: ReferenceValues) -> bool:
    got = _at(evidence, rule.path)
    return bool(got) and contains(references.get(rule.reference), got)


def _table(tee: str, evidence: Mapping[str, JsonValue]) -> str:
    if tee == "nvidia":
        own = evidence.get(tee)
        return "nvidia switch" if isinstance(own, dict) and _SWITCH_ONLY in own else tee
    return tee


def _at(evidence: Mapping[str, JsonValue], path: Path) -> JsonValue:
    value: JsonValue = cast("JsonValue", evidence)
    for part in path:
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def _code(rule: Rule) -> str:
    return rule.path[-1].replace("-", "_")


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def contains(accepted: JsonValue, got: JsonValue) -> bool:
    """Whether ``got`` is in the list ``accepted``; anything but a list contains nothing."""
    return isinstance(accepted, list) and any(same(got, item) for item in accepted)


def same(left: JsonValue, right: JsonValue) -> bool:
    """Equality as JSON has it: ``true`` is not 1."""
    return isinstance(left, bool) == isinstance(right, bool) and left == right
