"""The default policies over forged evidence of every TEE: what they affirm, what they do not, and that it is explained."""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace
from tests.docs import forged

from adyton.appraisal import explain
from adyton.appraisal.compared import TABLE, Rule
from adyton.appraisal.cpu_rules import CPU_RULES
from adyton.appraisal.cures import Context, advise
from adyton.appraisal.shapes import SHAPES
from adyton.broker.appraiser import Appraiser
from adyton.broker.policy.policies import PolicyBook
from adyton.broker.policy.rego import RegoEngine
from adyton.protocol import annotated
from adyton.rats.result import Appraisal, Tier
from adyton.rats.types import JsonValue, RootKind, VerifiedEvidence
from adyton.stores.sqlite import Store

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
CPUS = ("snp", "tdx", "az-snp-vtpm", "az-tdx-vtpm", "tpm", "sgx", "csv", "cca", "nitro", "hyperenclave", "sample")
DEVICES = ("nvidia", "nvidia switch")
_OF = {"snp": 1, "tdx": 3, "az-snp-vtpm": 0, "az-tdx-vtpm": 0, "tpm": 1, "csv": 1, "nvidia": 0, "nvidia switch": 3}
EVENTS: list[JsonValue] = [
    "no event",
    {"type_name": "EV_EFI_BOOT_SERVICES_APPLICATION", "digests": "none", "details": {}},
    {
        "type_name": "EV_EFI_BOOT_SERVICES_APPLICATION",
        "digests": [{"alg": "SHA-384", "digest": "ce" * 48}],
        "details": {"device_paths": ["File(kernel)"]},
    },
    {
        "type_name": "EV_EVENT_TAG",
        "digests": [{"alg": "SHA-384", "digest": "cf" * 48}],
        "details": {"string": "LOADED_IMAGE::LoadOptions"},
    },
    {"type_name": "EV_EVENT_TAG", "digests": [{"digest": "d0" * 48}], "details": {"string": "LOADED_IMAGE"}},
]
_BETTER = ("better in", "better equal", "better has")


def evidence(name: str) -> VerifiedEvidence:
    """Evidence of one kind that its TEE's maker could have issued."""
    found = forged.of(name.partition(" ")[0])[_OF.get(name, 0)]
    claims: dict[str, JsonValue] = dict(found.claims)
    coco: dict[str, JsonValue] = copy.deepcopy(dict(found.coco_claims))
    if name == "nitro":
        coco["pcrs"] = {**cast("dict[str, JsonValue]", coco["pcrs"]), "3": "33" * 48, "4": "44" * 48, "8": "88" * 48}
    if name == "tdx":
        coco["uefi_event_logs"] = EVENTS
    if name == "csv":
        claims["fields_bound"] = True
    return replace(found, claims=claims, coco_claims=coco, tcb=dict(found.tcb), root=RootKind.VENDOR)


@pytest.mark.parametrize("tee", sorted(CPU_RULES))
def test_every_rule_asks_for_something_of_its_own_tee(tee: str) -> None:
    """What is said of every TEE (``input.adyton``) must not raise another TEE's evidence."""
    bodies = re.findall(r"if \{\n(.*?)\n\}", CPU_RULES[tee], re.DOTALL)
    assert len(bodies) >= 3
    for body in bodies:
        assert re.search(rf'input(\.{tee}\b|\["{tee}"\])', body), body


class Bench:
    def __init__(self, directory: Path, engine: RegoEngine) -> None:
        self.store = Store.open(directory, root_key=bytes(32), now=NOW)
        self.appraiser = Appraiser(PolicyBook(self.store, engine), engine)
        self.published: dict[str, JsonValue] = {}

    def publish(self, values: dict[str, JsonValue]) -> None:
        for name in self.published:
            self.store.references.delete("default", name)
        for name, value in values.items():
            self.store.references.set("default", name, value, None, NOW)
        self.published = dict(values)

    def appraise(self, item: VerifiedEvidence) -> Appraisal:
        return asyncio.run(self.appraiser.appraise("default", [item], {"nonce": "n"}, None, NOW)).primary


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    engine = RegoEngine()
    found = Bench(tmp_path_factory.mktemp("store"), engine)
    yield found
    found.store.close()
    engine.close()


class Given:
    """Reference values in a dict."""

    generation = 1
    deprecated: frozenset[str] = frozenset()

    def __init__(self, values: dict[str, JsonValue]) -> None:
        self.values = values

    def get(self, name: str) -> JsonValue:
        return self.values.get(name)

    def names(self) -> list[str]:
        return list(self.values)


def read(item: VerifiedEvidence, path: tuple[str, ...]) -> JsonValue:
    value: Any = annotated.evidence(item, {}, None, b"")
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return cast("JsonValue", value)


def wanted(item: VerifiedEvidence, name: str, *, better: bool) -> dict[str, JsonValue]:
    """The reference values that list exactly this evidence."""
    values: dict[str, JsonValue] = {}
    for rule in TABLE[name]:
        if not rule.reference or (rule.kind in _BETTER and not better):
            continue
        got = read(item, rule.path)
        if got is None:
            continue
        if rule.kind == "each":
            got = [part[rule.part] for part in cast("list[dict[str, JsonValue]]", got)]
        elif rule.kind == "better has":
            got = cast("list[JsonValue]", got)[0]
        elif SHAPES[rule.reference].many:
            got = [got]
        values[rule.reference] = got
    return values


def changed(item: VerifiedEvidence, rule: Rule, value: JsonValue) -> VerifiedEvidence:
    """The same evidence with another claim there."""
    coco, claims, tcb = copy.deepcopy(dict(item.coco_claims)), dict(item.claims), dict(item.tcb)
    place: Any = {item.tee: coco, "adyton": {**claims, "tcb": tcb}}
    for part in rule.path[:-1]:
        place = place[part]
    if rule.path == ("adyton", "debug"):
        place = claims
    place[rule.path[-1]] = value
    return replace(item, coco_claims=coco, claims=claims, tcb=tcb, alike=None)


@pytest.mark.parametrize("name", [*CPUS, *DEVICES])
def test_nothing_is_affirmed_without_reference_values(bench: Bench, name: str) -> None:
    bench.publish({})
    found = bench.appraise(evidence(name))
    if name in DEVICES:  # whose manifests are their maker's own reference values, verified
        assert found.status is Tier.AFFIRMING
        return
    assert found.status > Tier.AFFIRMING
    missing = {item.reference for item in found.mismatches if item.code == "reference_missing"}
    assert missing >= {rule.reference for rule in TABLE[name] if rule.kind in {"in", "each"}}


@pytest.mark.parametrize("name", [*CPUS, *DEVICES])
@pytest.mark.parametrize("better", [False, True])
def test_what_is_listed_is_affirmed_and_nothing_is_left_to_explain(bench: Bench, name: str, better: bool) -> None:
    item = evidence(name)
    bench.publish(wanted(item, name, better=better))
    found = bench.appraise(item)
    assert found.mismatches == ()
    assert found.status is Tier.AFFIRMING
    if name not in {"tpm", "tdx", "az-snp-vtpm", "az-tdx-vtpm", "sample", "csv", "snp"}:
        assert found.vector["configuration"] == (2 if better else 3)
    custom = bench.appraise(replace(item, root=RootKind.CUSTOM))
    assert custom.vector["hardware"] == 32 and custom.status is Tier.WARNING


@pytest.mark.parametrize("name", CPUS)
def test_each_missing_or_other_reference_value_is_enough_to_fail_and_is_named(bench: Bench, name: str) -> None:
    item = evidence(name)
    values = wanted(item, name, better=False)
    assert values
    for reference, value in values.items():
        if name == "nitro" and reference in {"nitro_pcr3", "nitro_pcr4"}:
            continue  # one of them is enough, see below
        without = {key: kept for key, kept in values.items() if key != reference}
        other: JsonValue = ["another"] if isinstance(value, list) else (99 if isinstance(value, int) else "another")
        for published, code in ((without, "reference_missing"), ({**values, reference: other}, "reference_differs")):
            bench.publish(published)
            found = bench.appraise(item)
            assert found.status > Tier.AFFIRMING, (reference, code)
            assert {(each.reference, each.code) for each in found.mismatches} == {(reference, code)}


@pytest.mark.parametrize("name", [*CPUS, *DEVICES])
@pytest.mark.parametrize("value", [None, "", "other", [], {}, 7, True])
def test_each_other_claim_is_enough_to_fail_and_is_named(bench: Bench, name: str, value: JsonValue) -> None:
    item = evidence(name)
    bench.publish(wanted(item, name, better=False))
    for rule in TABLE[name]:
        if rule.kind in _BETTER or rule.path[-1] in {"3", "4"} or explain.same(read(item, rule.path), value):
            continue
        found = bench.appraise(changed(item, rule, value))
        named = {each.field for each in found.mismatches}
        assert (found.status > Tier.AFFIRMING) == (rule.claim in named), rule
        if rule.kind != "at least" or value != 7:
            assert rule.claim in named, rule


@pytest.mark.parametrize("name", [*CPUS, *DEVICES])
def test_each_mismatch_can_be_cured_by_what_is_said(bench: Bench, name: str) -> None:
    """The cures of one refusal, done as they say, leave nothing that a reference value could cure."""
    item = evidence(name)
    document = annotated.evidence(item, {}, None, b"")
    values: dict[str, JsonValue] = {}
    for each in explain.mismatches(item.tee, document, Given(values)):
        said = advise(each.code, each.field, each.reference or "", each.expected, each.got, Context(tee=item.tee))
        assert said.cure and said.actor and said.provider
        if each.reference and SHAPES[each.reference].many:
            listed = cast("list[JsonValue]", values.setdefault(each.reference, []))
            listed.append(each.got)
        elif each.reference:
            values[each.reference] = each.got
    assert explain.mismatches(item.tee, document, Given(values)) == ()


@pytest.mark.parametrize(
    ("change", "executables"),
    [({}, 3), ({"tdvfkernel": "d0" * 48}, 4), ({"tdvfkernelparams": "d0" * 48}, 4), ({"tdvfkernel": ["ce" * 48]}, 4)],
)
def test_kernel_and_command_line_of_a_trust_domain(
    bench: Bench, change: dict[str, JsonValue], executables: int
) -> None:
    item = evidence("tdx")
    bench.publish({**wanted(item, "tdx", better=True), **change})
    assert bench.appraise(item).vector["executables"] == executables
    without = {name: value for name, value in item.coco_claims.items() if name != "uefi_event_logs"}
    assert bench.appraise(replace(item, coco_claims=without)).vector["executables"] == 4


@pytest.mark.parametrize("kept", ["nitro_pcr3", "nitro_pcr4", ""])
def test_of_a_nitro_enclaves_parent_one_register_is_enough(bench: Bench, kept: str) -> None:
    item = evidence("nitro")
    values = wanted(item, "nitro", better=False)
    parents = {"nitro_pcr3", "nitro_pcr4"} - {kept}
    bench.publish({name: value for name, value in values.items() if name not in parents})
    found = bench.appraise(item)
    assert (found.status is Tier.AFFIRMING) == bool(kept)
    assert {each.reference for each in found.mismatches} == (set() if kept else parents)


@pytest.mark.parametrize("tee", ["sgx", "tdx", "az-tdx-vtpm"])
@pytest.mark.parametrize("status", ["Revoked", "OutOfDate", "SWHardeningNeeded", "uptodate", None])
def test_a_platform_that_is_not_up_to_date(bench: Bench, tee: str, status: str | None) -> None:
    """Revoked stays condemned even where an owner lists it, or has a policy that likes everything."""
    item = evidence(tee)
    changed_item = replace(
        item,
        claims={**item.claims, "tcb_status": status},
        coco_claims={**item.coco_claims, "tcb_status": status},
    )
    bench.publish({**wanted(item, tee, better=True), "sgx_tcb_status": ["UpToDate", "Revoked", "SWHardeningNeeded"]})
    found = bench.appraise(changed_item)
    if status == "Revoked":
        assert found.vector["hardware"] == 97
        assert {each.code for each in found.mismatches} >= {"tcb_revoked"}
    elif tee == "sgx" and status == "SWHardeningNeeded":  # as its owner listed it
        assert found.status is Tier.AFFIRMING
    else:
        assert found.vector["hardware"] == 97


@pytest.mark.parametrize("tee", ["sgx", "tdx", "az-snp-vtpm", "az-tdx-vtpm", "cca", "nitro", "hyperenclave"])
@pytest.mark.parametrize("debug", [True, None, 0, "false"])
def test_debugging_is_never_affirmed(bench: Bench, tee: str, debug: JsonValue) -> None:
    item = evidence(tee)
    bench.publish(wanted(item, tee, better=True))
    coco = copy.deepcopy(dict(item.coco_claims))
    if tee == "tdx":
        cast("dict[str, JsonValue]", coco["td_attributes"])["debug"] = debug
    found = bench.appraise(replace(item, claims={**item.claims, "debug": debug}, coco_claims=coco))
    assert found.vector["configuration"] == 36
    assert any(each.code == "debug_wrong" for each in found.mismatches)


def test_csv_fields_that_nothing_binds_are_never_affirmed(bench: Bench) -> None:
    item = evidence("csv")
    bench.publish(wanted(item, "csv", better=True))
    for bound in (False, None, "true"):
        found = bench.appraise(replace(item, claims={**item.claims, "fields_bound": bound}))
        assert found.status is Tier.CONTRAINDICATED
        assert {each.code for each in found.mismatches} == {"fields_unbound"}


def test_secure_execution_is_what_its_verifier_says(bench: Bench) -> None:
    bench.publish({})
    found = bench.appraise(evidence("se"))
    assert (found.vector["executables"], found.vector["hardware"], found.vector["configuration"]) == (3, 2, 2)
    assert not explain.guest_accepted("se", found.annotated, Given({}))


@pytest.mark.parametrize("name", [*(tee for tee in CPUS if tee != "sample"), "sample"])
def test_a_guest_is_known_only_if_all_that_says_what_runs_is_listed(name: str) -> None:
    item = evidence(name)
    document = annotated.evidence(item, {}, None, b"")
    identity = {rule.reference for rule in TABLE[name] if rule.identity}
    values = wanted(item, name, better=False)
    assert explain.guest_accepted(item.tee, document, Given(values)) == bool(identity) == (name != "sample")
    for reference in identity:
        rest = {key: value for key, value in values.items() if key != reference}
        assert not explain.guest_accepted(item.tee, document, Given(rest))
        assert not explain.guest_accepted(item.tee, document, Given({**rest, reference: ["", None, "x"]}))
