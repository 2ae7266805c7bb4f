"""A stricter binding, policy or demand never releases more: pairs of which one only takes away, over the real engine.

Everything that is drawn is narrowed step by step; if the narrowed one releases, the wider one must. What is not an order
on purpose is left out: of ``attestation`` the nearest counts, and a rule that names a measurement vouches for it itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.broker.test_release import (
    AFFIRMED,
    DEVELOPMENT,
    DOCUMENT,
    HEAD,
    IMAGE,
    MEASUREMENT,
    NOW,
    OTHER,
    OTHER_MEASUREMENT,
    Desk,
    token,
)

from adyton.broker.policy.policies import RESOURCE_POLICY
from adyton.broker.policy.rego import RegoEngine
from adyton.config import Environment
from adyton.errors import AdytonError, ReleaseRefused
from adyton.protocol import ear, release
from adyton.protocol.release import Binding
from adyton.protocol.rules import Rule
from adyton.rats.result import ELEMENTS

WORKLOADS = [
    f"sha256:{DOCUMENT}",
    f"{MEASUREMENT}/sha256:{DOCUMENT}",
    f"{OTHER_MEASUREMENT}/sha256:{DOCUMENT}",
    f"sha256:{OTHER}",
]
IMAGES = [IMAGE, "sha256:" + "b" * 64]
RULES = [
    Rule(tees=["snp", "tdx"]),
    Rule(init_data=[DOCUMENT, OTHER]),
    Rule(measurements=[MEASUREMENT, OTHER_MEASUREMENT]),
    Rule(tees=["sgx"]),
    Rule(claims={"snp/measurement": [MEASUREMENT, OTHER_MEASUREMENT]}),
]
ATOMS = [
    'input["submods"]["cpu0"]["ear.status"] == "affirming"',
    'data["resource-path"][0] == "models"',
    'data["query"]["for"] == "training"',
    'input["submods"]["cpu0"]["ear.trustworthiness-vector"]["hardware"] < 32',
    "not false",
]
OPERATIONS = ["release", "sign", "decrypt"]
STRICTER = {"loose": AFFIRMED, "middle": {**AFFIRMED, "executables": 33}, "strict": {**AFFIRMED, "executables": 97}}


def rego(atoms: frozenset[int]) -> str:
    """All of them at once: a superset is the smaller policy ANDed with something."""
    return HEAD + "default allow := false\nallow if {\n" + "\n".join(ATOMS[n] for n in sorted(atoms)) + "\n}"


atoms = st.frozensets(st.integers(0, len(ATOMS) - 1), min_size=1)
bindings = st.builds(
    Binding,
    workloads=st.lists(st.sampled_from(WORKLOADS), max_size=3, unique=True),
    images=st.lists(st.sampled_from(IMAGES), max_size=2, unique=True),
    rules=st.lists(st.sampled_from(RULES), max_size=2, unique_by=repr),
    any_workload_i_accept=st.booleans(),
    operations=st.none() | st.lists(st.sampled_from(OPERATIONS), unique=True),
    devices=st.dictionaries(st.sampled_from(["gpu", "switch"]), st.integers(1, 2), max_size=1),
)


@st.composite
def attesters(draw: st.DrawFn) -> ear.TokenClaims:
    """Mostly acceptable ones, or nothing would be shown."""
    vector = draw(st.sampled_from([AFFIRMED, AFFIRMED, DEVELOPMENT, {**AFFIRMED, "configuration": 36}]))
    root = draw(st.sampled_from(["vendor", "vendor", "custom"]))
    claims = token(vector, root=root, image=draw(st.sampled_from([*IMAGES, None])))
    submods: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(claims.raw["submods"]))
    evidence = submods["cpu0"][ear.EVIDENCE]
    evidence["adyton"]["policy_version"] = 1
    evidence["adyton"]["measurement"] = evidence["snp"]["measurement"] = draw(
        st.sampled_from([MEASUREMENT, MEASUREMENT, OTHER_MEASUREMENT])
    )
    for kind in ("gpu", "switch"):
        for number in range(draw(st.integers(0, 2))):
            submods[f"{kind}{number}"] = {
                **submods["cpu0"],
                ear.EVIDENCE: {"adyton": {**evidence["adyton"], "tee": "nvidia"}},
            }
    return ear.read({**claims.raw, "submods": submods})


@st.composite
def narrowed(draw: st.DrawFn, binding: Binding) -> Binding:
    """``binding`` with something taken away, limited or demanded on top."""
    change: dict[str, Any] = {}
    for name in ("workloads", "images", "rules"):
        entries: list[Any] = getattr(binding, name)
        change[name] = [entry for entry in entries if draw(st.booleans())]
    if draw(st.booleans()):  # which guest, where any accepted one could run it
        change["workloads"] = [f"{MEASUREMENT}/{e}" if e.startswith("sha256:") else e for e in change["workloads"]]
    change["rules"] = [_tighter(draw, rule) for rule in change["rules"]]
    change["any_workload_i_accept"] = binding.any_workload_i_accept and draw(st.booleans())
    limit = binding.operations
    if draw(st.booleans()):
        change["operations"] = [one for one in (OPERATIONS if limit is None else limit) if draw(st.booleans())]
    more = draw(st.dictionaries(st.sampled_from(["gpu", "switch", "ppcie"]), st.integers(1, 3), max_size=2))
    found = dict(binding.devices)
    for name, count in more.items():
        found[name] = max(count, found.get(name, 0))
    change["devices"] = found
    return msgspec.structs.replace(binding, **change)


def _tighter(draw: st.DrawFn, rule: Rule) -> Rule:
    """One member more, or one value of a member fewer (never none: that is a member that is not given)."""
    match draw(st.integers(0, 4)):
        case 0:
            return msgspec.structs.replace(rule, debug=False)
        case 1 if not rule.init_data:
            return msgspec.structs.replace(rule, init_data=[DOCUMENT])
        case 2 if len(rule.measurements) > 1:
            return msgspec.structs.replace(rule, measurements=rule.measurements[1:])
        case 3 if not rule.claims:
            return msgspec.structs.replace(rule, claims={"snp/measurement": [MEASUREMENT]})
        case 4 if not rule.tees:
            return msgspec.structs.replace(rule, tees=["snp"])
    return rule


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    engine = RegoEngine()
    made = Desk(Path(tmp_path_factory.mktemp("desk")), engine)
    for name, vector in STRICTER.items():
        for kind in ("cpu", "gpu", "switch"):
            text = HEAD + f"trust_claims := {msgspec.json.encode(vector).decode()}"
            made.book.set("default", "attestation", f"{name}_{kind}", text, NOW)
    yield made
    made.store.close()
    engine.close()


def releases(desk: Desk, binding: Binding, claims: ear.TokenClaims, query: dict[str, str] | None = None) -> bool:
    try:
        return bool(desk.decide(release.check(binding), claims, query=query).by)
    except ReleaseRefused:
        return False


@settings(max_examples=120, deadline=None)
@given(data=st.data(), binding=bindings, claims=attesters(), development=st.booleans())
def test_a_narrower_binding_releases_no_more(
    desk: Desk, data: st.DataObject, binding: Binding, claims: ear.TokenClaims, development: bool
) -> None:
    desk.environment, desk.roots = Environment.PRODUCTION, frozenset()
    if development:
        desk.development()
    smaller = data.draw(narrowed(binding))
    if releases(desk, smaller, claims):
        assert releases(desk, binding, claims), (smaller, binding)
        desk.environment, desk.roots = Environment.PRODUCTION, frozenset()  # a stricter environment, too
        assert not releases(desk, smaller, claims) or releases(desk, binding, claims)


@settings(max_examples=60, deadline=None)
@given(
    binding=bindings,
    claims=attesters(),
    own=st.none() | atoms,
    tenants=st.none() | atoms,
    more=atoms,
    query=st.sampled_from([{}, {"for": "training"}, {"for": "else"}]),
)
def test_a_policy_anded_with_anything_releases_no_more(  # noqa: PLR0917 -- one thing each
    desk: Desk,
    binding: Binding,
    claims: ear.TokenClaims,
    own: frozenset[int] | None,
    tenants: frozenset[int] | None,
    more: frozenset[int],
    query: dict[str, str],
) -> None:
    desk.environment, desk.roots = Environment.PRODUCTION, frozenset()

    def decided(of_binding: frozenset[int] | None, of_tenant: frozenset[int] | None) -> bool:
        if of_tenant is None:
            with contextlib.suppress(AdytonError):
                desk.store.policies.delete("default", "resource", RESOURCE_POLICY)
        else:
            desk.book.set("default", "resource", RESOURCE_POLICY, rego(of_tenant), NOW)
        bound = msgspec.structs.replace(binding, policy=None if of_binding is None else rego(of_binding))
        return releases(desk, bound, claims, query)

    wide = decided(own, tenants)
    try:
        assert wide or not decided(own, (tenants or frozenset()) | more)
        if own is not None:
            assert wide or not decided(own | more, tenants)
            assert wide or not decided(None, tenants)  # one alternative fewer
    finally:
        decided(None, None)


@settings(max_examples=40, deadline=None)
@given(binding=bindings, claims=attesters())
def test_a_stricter_appraisal_that_is_demanded_releases_no_more(
    desk: Desk, binding: Binding, claims: ear.TokenClaims
) -> None:
    desk.environment, desk.roots = Environment.PRODUCTION, frozenset()
    answers = [releases(desk, msgspec.structs.replace(binding, attestation=name), claims) for name in STRICTER]
    assert answers == sorted(answers, reverse=True)
    assert not any(answers[1:])


@settings(max_examples=60, deadline=None)
@given(binding=bindings, claims=attesters(), element=st.sampled_from(ELEMENTS), worse=st.sampled_from([32, 33, 96, 97]))
def test_a_worse_status_releases_no_more(
    desk: Desk, binding: Binding, claims: ear.TokenClaims, element: str, worse: int
) -> None:
    desk.environment, desk.roots = Environment.PRODUCTION, frozenset()
    submods: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(claims.raw["submods"]))
    vector = submods["cpu0"]["ear.trustworthiness-vector"]
    vector[element] = max(worse, vector[element])
    submods["cpu0"]["ear.status"] = "warning" if max(vector.values()) < 96 else "contraindicated"
    assert not releases(desk, binding, ear.read({**claims.raw, "submods": submods}))


def test_what_is_drawn_is_released_often_enough(desk: Desk) -> None:
    """Else the properties above would say nothing."""
    desk.environment, desk.roots = Environment.PRODUCTION, frozenset()
    claims = token()
    assert releases(desk, Binding(workloads=WORKLOADS[:1]), claims)
    assert releases(desk, Binding(images=IMAGES), claims)
    for rule in (RULES[0], RULES[1], RULES[2], RULES[4]):
        assert releases(desk, Binding(rules=[rule]), claims)
    assert releases(desk, Binding(policy=rego(frozenset({0, 1}))), claims)
    assert releases(desk, Binding(any_workload_i_accept=True, operations=["release"]), claims)
