from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.appraisal import explain, requirements, vector
from adyton.appraisal.requirements import SnpRequirements
from adyton.errors import PolicyInvalid
from adyton.rats.result import DEVELOPMENT_HARDWARE, ELEMENTS, Mismatch, Tier, TrustVector
from adyton.rats.types import JsonValue, RootKind

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-300, 300) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ELEMENTS[:3], "x", "name", "key", "value"]), inner, max_size=3),
)  # fmt: skip
VECTORS = st.dictionaries(st.sampled_from(ELEMENTS), st.integers(0, 127)).map(TrustVector.of)


@dataclass
class References:
    """Reference values in a dict."""

    values: dict[str, JsonValue] = field(default_factory=dict)
    generation: int = 1
    deprecated: frozenset[str] = frozenset()

    def get(self, name: str) -> JsonValue:
        return self.values.get(name)

    def names(self) -> list[str]:
        return list(self.values)


@given(JSON, st.booleans())
def test_any_result_of_a_policy_is_a_vector_or_refused(value: JsonValue, present: bool) -> None:
    with contextlib.suppress(PolicyInvalid):
        found = vector.from_rules(value, present=present)
        assert all(0 <= number <= 127 for number in found.values)
        assert present or found.status is Tier.NONE
    with contextlib.suppress(PolicyInvalid):
        names = [name for name, _, _ in vector.extensions(value, present=present)]
        assert len(set(names)) == len(names) and "ear.status" not in names


@given(VECTORS, st.sampled_from(RootKind), st.booleans())
def test_the_floor_never_makes_anything_better(before: TrustVector, root: RootKind, failed: bool) -> None:
    found = vector.with_floor(before, root, [Mismatch("hardware", "vmpl", "vmpl_not_accepted")] if failed else [])
    assert all(new >= old for new, old in zip(found.values, before.values, strict=True))
    assert root is RootKind.VENDOR or found["hardware"] >= DEVELOPMENT_HARDWARE
    assert not failed or found.status is Tier.CONTRAINDICATED
    assert [name for name in ELEMENTS if found[name] != before[name]] in ([], ["hardware"])


@given(st.dictionaries(st.sampled_from(["measurement", "policy_debug_allowed", "reported_tcb_snp"]), JSON), st.dictionaries(
    st.sampled_from(["snp_launch_measurement", "snp_snp_svn", "snp_smt_enabled"]), JSON), st.sampled_from(["snp", "tdx", ""]))  # fmt: skip
def test_explaining_never_raises_for_a_bad_value(
    claims: dict[str, JsonValue], references: dict[str, JsonValue], tee: str
) -> None:
    for mismatch in explain.mismatches(tee, {"snp": claims, "tdx": claims}, References(references)):
        assert mismatch.text and mismatch.code and len(mismatch.text) < 700


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [(1, True, False), (0, False, False), (True, True, True), (1, 1, True), ("1", 1, False), (None, False, False)],
)
def test_true_is_not_one(left: JsonValue, right: JsonValue, equal: bool) -> None:
    assert explain.same(left, right) is equal and explain.contains([right], left) is equal


@pytest.mark.parametrize("accepted", [None, "ab", {"ab": 1}, [], ["AB"], [["ab"]]])
def test_a_measurement_is_accepted_by_a_list_that_has_it(accepted: JsonValue) -> None:
    evidence: dict[str, JsonValue] = {"snp": {"measurement": "ab"}}
    assert not explain.guest_accepted("snp", evidence, References({"snp_launch_measurement": accepted}))


def test_no_measurement_and_no_known_tee_are_never_accepted() -> None:
    references = References({"snp_launch_measurement": ["", "ab", None]})
    assert explain.guest_accepted("snp", {"snp": {"measurement": "ab"}}, references)
    odd: list[JsonValue] = [{"measurement": ""}, {"measurement": None}, {}, [], "ab"]
    for claims in odd:
        assert not explain.guest_accepted("snp", {"snp": claims}, references)
    for tee in ("tdx", "se", "sample", "nvidia", ""):
        assert not explain.guest_accepted(tee, {tee: {"measurement": "ab"}}, references)


@given(st.dictionaries(st.sampled_from(["vmpl", "report_version"]), JSON))
def test_requirements_hold_for_exactly_what_is_listed(claims: dict[str, JsonValue]) -> None:
    failed = {item.field for item in requirements.unmet("snp", claims)}
    assert ("vmpl" not in failed) == (type(claims.get("vmpl")) is int and claims["vmpl"] == 0)
    version = claims.get("report_version")
    assert ("report_version" not in failed) == (type(version) is int and version in {3, 4, 5})
    assert {item.field for item in requirements.unmet("snp", claims, SnpRequirements(frozenset(), frozenset()))} == {
        "vmpl",
        "report_version",
    }
    assert requirements.unmet("tdx", claims) == ()


@pytest.mark.parametrize("name", ["tcb_status", "platform_tcb_status", "qe_tcb_status", "tdx_module_tcb_status"])
@pytest.mark.parametrize("tee", ["tdx", "sgx", "az-tdx-vtpm", "cca"])
def test_a_revoked_tcb_is_condemned_whatever_is_listed(tee: str, name: str) -> None:
    (found,) = requirements.unmet(tee, {"tcb_status": "UpToDate", name: "Revoked"})
    assert (found.code, found.field, found.got) == ("tcb_revoked", name, "Revoked")
    lifted = vector.with_floor(TrustVector.of({"hardware": 2}), RootKind.VENDOR, [found])
    assert lifted.status is Tier.CONTRAINDICATED
    assert requirements.unmet(tee, {"tcb_status": "OutOfDate"}) == ()


@pytest.mark.parametrize("bound", [False, None, 1, "true"])
def test_a_csv_report_whose_fields_nothing_binds(bound: JsonValue) -> None:
    (found,) = requirements.unmet("csv", {"fields_bound": bound})
    assert found.code == "fields_unbound"
    assert [item.code for item in requirements.unmet("csv", {})] == ["fields_unbound"]
    assert requirements.unmet("csv", {"fields_bound": True}) == ()


@pytest.mark.parametrize("version", [1, 2, None, True, "3"])
def test_the_paravisors_report_is_held_to_the_same_versions(version: JsonValue) -> None:
    (found,) = requirements.unmet("az-snp-vtpm", {"snp_report_version": version})
    assert found.code == "report_version_not_accepted" and found.got == version
    assert requirements.unmet("az-snp-vtpm", {"snp_report_version": 3}) == ()
    listed = SnpRequirements(frozenset({0}), frozenset({2}))
    assert requirements.unmet("az-snp-vtpm", {"snp_report_version": 2}, listed) == ()
