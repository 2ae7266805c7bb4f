from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from adyton.appraisal import requirements
from adyton.appraisal.requirements import SnpRequirements
from adyton.broker.appraiser import Appraiser
from adyton.broker.policy.policies import PolicyBook
from adyton.broker.policy.rego import RegoEngine
from adyton.errors import BindingMismatch, DocumentInvalid, MalformedRequest, NotFound, PolicyInvalid
from adyton.protocol import initdata, workload
from adyton.rats.result import AttestationResult, Tier
from adyton.rats.types import JsonValue, ReportData, RootKind, VerifiedEvidence
from adyton.stores.sqlite import Store

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
DOCUMENT = workload.write(workload.Workload(image="sha256:" + "a" * 64, command=["/bin/true"]))
INIT_DATA = initdata.parse(DOCUMENT.raw)
RUNTIME: dict[str, JsonValue] = {"tee-pubkey": {"kty": "EC"}, "nonce": "n", "additional-evidence": ""}
CLAIMS: dict[str, JsonValue] = {
    "measurement": "ab" * 48,
    "report_data": "00" * 64,
    "init_data": DOCUMENT.digest.hex,
    "chip_id": "cc" * 64,
    "reported_tcb_bootloader": 3,
    "reported_tcb_tee": 0,
    "reported_tcb_snp": 8,
    "reported_tcb_microcode": 115,
    "policy_abi_major": 0,
    "policy_abi_minor": 31,
    "policy_smt_allowed": True,
    "policy_migrate_ma": False,
    "policy_debug_allowed": False,
    "policy_single_socket": False,
    "platform_tsme_enabled": False,
    "platform_smt_enabled": True,
}
REFERENCES: dict[str, JsonValue] = {
    "snp_launch_measurement": ["ab" * 48],
    "snp_bootloader": [3],
    "snp_microcode": [115],
    "snp_snp_svn": [8],
    "snp_tee_svn": [0],
}
STRICT: dict[str, JsonValue] = {
    "snp_smt_enabled": True,
    "snp_tsme_enabled": False,
    "snp_guest_abi_major": 0,
    "snp_guest_abi_minor": 31,
    "snp_single_socket": False,
    "snp_smt_allowed": True,
}
EVIDENCE = VerifiedEvidence(
    tee="snp",
    tee_class="cpu",
    claims={"vmpl": 0, "report_version": 3, "measurement": "ab" * 48},
    coco_claims=CLAIMS,
    tcb={},
    report_data=ReportData(b"\1" * 64),
    init_data=DOCUMENT.digest.value,
    root=RootKind.VENDOR,
    root_fingerprint="ef" * 32,
    checks=(),
    expires=NOW + timedelta(days=1),
    expires_first="CRL",
)
HEAD = "package policy\nimport rego.v1\n"


class Bench:
    """A broker's judgement on a real store, with a real engine."""

    def __init__(self, directory: Path, engine: RegoEngine) -> None:
        self.store = Store.open(directory, root_key=bytes(32), now=NOW)
        self.engine = engine
        self.book = PolicyBook(self.store, engine)
        self.appraiser = Appraiser(self.book, engine)

    def publish(self, values: dict[str, JsonValue], expires: datetime | None = None) -> None:
        for name, value in values.items():
            self.store.references.set("default", name, value, expires, NOW)

    def appraise(
        self,
        *evidence: VerifiedEvidence,
        document: initdata.InitData | None = INIT_DATA,
        now: datetime = NOW,
        tenant: str = "default",
    ) -> AttestationResult:
        return asyncio.run(self.appraiser.appraise(tenant, evidence or (EVIDENCE,), RUNTIME, document, now))

    def vector(self, *evidence: VerifiedEvidence, now: datetime = NOW) -> tuple[int, int, int]:
        """executables, hardware, configuration"""
        found = self.appraise(*evidence, now=now).primary.vector
        return found["executables"], found["hardware"], found["configuration"]

    def policy(self, body: str) -> None:
        self.book.set("default", "attestation", "default_cpu", HEAD + body, NOW)


@pytest.fixture(scope="module")
def engine() -> Iterator[RegoEngine]:
    engine = RegoEngine()
    yield engine
    engine.close()


@pytest.fixture
def bench(tmp_path: Path, engine: RegoEngine) -> Iterator[Bench]:
    bench = Bench(tmp_path, engine)
    yield bench
    bench.store.close()


def having(**claims: JsonValue) -> VerifiedEvidence:
    return replace(EVIDENCE, coco_claims={**CLAIMS, **claims})


# --- the default policy


def test_without_reference_values_nothing_is_accepted_and_every_reason_is_said(bench: Bench) -> None:
    result = bench.appraise()
    assert bench.vector() == (33, 97, 3)
    assert result.status is Tier.CONTRAINDICATED
    missing = {item.reference for item in result.mismatches if item.code == "reference_missing"}
    assert missing == set(REFERENCES)
    assert all(str(item.reference) in item.text for item in result.mismatches)


@pytest.mark.parametrize("name", REFERENCES)
def test_one_missing_reference_value_is_enough_to_fail(bench: Bench, name: str) -> None:
    bench.publish({key: value for key, value in REFERENCES.items() if key != name})
    result = bench.appraise()
    assert result.status > Tier.AFFIRMING
    assert [(item.code, item.reference) for item in result.mismatches] == [("reference_missing", name)]


@pytest.mark.parametrize("name", REFERENCES)
def test_one_different_reference_value_is_enough_to_fail(bench: Bench, name: str) -> None:
    bench.publish({**REFERENCES, name: ["other", 77]})
    result = bench.appraise()
    assert result.status > Tier.AFFIRMING
    (found,) = result.mismatches
    assert found.code == "reference_differs" and found.expected == ["other", 77] and "77" in found.text


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("wrap", ["scalar", "nested", "text", "null list", "empty"])
def test_a_reference_value_of_the_wrong_shape_accepts_nothing(bench: Bench, name: str, wrap: str) -> None:
    good = REFERENCES[name]
    assert isinstance(good, list)
    shapes: dict[str, JsonValue] = {
        "scalar": good[0],
        "nested": [good],
        "text": str(good[0]),
        "null list": [None],
        "empty": [],
    }
    bench.publish({**REFERENCES, name: shapes[wrap]})
    assert bench.appraise().status > Tier.AFFIRMING
    assert [item.reference for item in bench.appraise().mismatches] == [name]


@pytest.mark.parametrize("claim", ["policy_debug_allowed", "policy_migrate_ma"])
def test_a_guest_that_can_be_looked_into_is_refused(bench: Bench, claim: str) -> None:
    bench.publish({**REFERENCES, **STRICT})
    result = bench.appraise(having(**{claim: True}))
    assert result.primary.vector["configuration"] == 36 and result.status is Tier.WARNING
    assert [(item.field, item.got) for item in result.mismatches] == [(claim, True)]


@pytest.mark.parametrize("value", [None, 0, "false", [], 1])
def test_a_debug_bit_that_is_not_exactly_false_is_not_false(bench: Bench, value: JsonValue) -> None:
    bench.publish(REFERENCES)
    assert bench.vector(having(policy_debug_allowed=value))[2] == 36


def test_a_missing_claim_is_never_a_match(bench: Bench) -> None:
    bench.publish({**REFERENCES, **STRICT})
    for name in CLAIMS:
        bare = replace(EVIDENCE, coco_claims={key: value for key, value in CLAIMS.items() if key != name})
        if name in {"report_data", "init_data", "chip_id"}:
            assert bench.vector(bare) == (3, 2, 2)
        elif name.startswith(("policy_abi", "policy_s", "platform")):
            assert bench.vector(bare) == (3, 2, 3)
        else:
            assert bench.appraise(bare).status > Tier.AFFIRMING, name


def test_what_matches_is_affirmed(bench: Bench) -> None:
    bench.publish(REFERENCES)
    assert bench.vector() == (3, 2, 3)
    bench.publish(STRICT)
    assert bench.vector() == (3, 2, 2)
    result = bench.appraise()
    assert result.status is Tier.AFFIRMING and result.mismatches == ()
    assert result.primary.vector.stated >= {"hardware", "sourced-data"}


def test_an_expired_reference_value_is_none_although_nothing_changed(bench: Bench) -> None:
    bench.publish(REFERENCES, expires=NOW + timedelta(hours=1))
    assert bench.vector() == (3, 2, 3)
    assert bench.vector(now=NOW + timedelta(hours=1)) == (33, 97, 3)


def test_a_withdrawn_reference_value_counts_from_the_next_decision_on(bench: Bench) -> None:
    bench.publish(REFERENCES)
    assert bench.vector() == (3, 2, 3)
    bench.store.references.delete("default", "snp_launch_measurement")
    assert bench.vector() == (33, 2, 3)


def test_another_tenants_reference_values_count_for_nothing(bench: Bench) -> None:
    bench.publish(REFERENCES)
    assert bench.appraise(tenant="other").status is Tier.CONTRAINDICATED


def test_a_change_by_another_worker_counts_at_once(bench: Bench, tmp_path: Path) -> None:
    bench.publish(REFERENCES)
    assert bench.vector() == (3, 2, 3)
    other = Store.open(tmp_path, root_key=bytes(32), now=NOW, instance=bench.store.instance)
    other.references.delete("default", "snp_bootloader")
    other.close()
    assert bench.vector() == (3, 97, 3)


# --- what no policy can lift

LAX = 'trust_claims := {"executables": 2, "hardware": 2, "configuration": 2}'


@pytest.mark.parametrize("hardware", [0, 1, 2, 31, 32, 33, 97, 127])
def test_a_development_root_never_gives_hardware_below_32(bench: Bench, hardware: int) -> None:
    bench.policy(f'trust_claims := {{"executables": 2, "hardware": {hardware}}}')
    found = bench.appraise(replace(EVIDENCE, root=RootKind.CUSTOM)).primary
    assert found.vector["hardware"] == max(32, hardware) and found.status > Tier.AFFIRMING


def test_a_development_root_warns_also_without_any_rule(bench: Bench) -> None:
    bench.policy("other := 1")
    assert bench.appraise(replace(EVIDENCE, root=RootKind.CUSTOM)).primary.vector["hardware"] == 32


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"vmpl": 1, "report_version": 3}, "vmpl_not_accepted"),
        ({"vmpl": 0, "report_version": 2}, "report_version_not_accepted"),
        ({"vmpl": 0, "report_version": 6}, "report_version_not_accepted"),
        ({"vmpl": 0}, "report_version_not_accepted"),
        ({"vmpl": False, "report_version": 3}, "vmpl_not_accepted"),
        ({"vmpl": "0", "report_version": 3}, "vmpl_not_accepted"),
    ],
)
def test_a_requirement_that_is_not_met_condemns_whatever_the_policy_says(
    bench: Bench, claims: dict[str, JsonValue], code: str
) -> None:
    bench.policy(LAX)
    assert bench.appraise().status is Tier.AFFIRMING
    result = bench.appraise(replace(EVIDENCE, claims=claims))
    assert result.status is Tier.CONTRAINDICATED and code in {item.code for item in result.mismatches}


def test_a_tenant_can_list_other_vmpls_and_versions_by_name(bench: Bench) -> None:
    bench.publish(REFERENCES)
    for text in (
        "",
        "{}x",
        '{"vmpls": []}',
        '{"vmpls": [4]}',
        '{"report_versions": [1]}',
        '{"vmpl": [1]}',
        '{"vmpls": [true]}',
    ):
        with pytest.raises(PolicyInvalid) as caught:
            bench.book.set("default", "requirements", "snp", text, NOW)
        assert caught.value.code == "requirements_invalid"
    with pytest.raises(MalformedRequest):
        bench.book.set("default", "requirements", "tdx", "{}", NOW)
    vmpl1_version2 = requirements.written(SnpRequirements(frozenset({1}), frozenset({2})))
    bench.book.set("default", "requirements", "snp", vmpl1_version2, NOW)
    assert bench.appraise(replace(EVIDENCE, claims={"vmpl": 1, "report_version": 2})).status is Tier.AFFIRMING
    assert bench.appraise().status is Tier.CONTRAINDICATED
    bench.book.set("default", "requirements", "snp", '{"vmpls": [0, 1]}', NOW)
    assert bench.appraise().status is Tier.AFFIRMING
    assert bench.appraise(replace(EVIDENCE, claims={"vmpl": 1, "report_version": 2})).status is Tier.CONTRAINDICATED
    bench.store.policies.delete("default", "requirements", "snp")
    assert bench.appraise(replace(EVIDENCE, claims={"vmpl": 1, "report_version": 3})).status is Tier.CONTRAINDICATED


# --- results of policies


@pytest.mark.parametrize(
    "body",
    [
        "trust_claims := {}",
        "trust_claims := 3",
        "trust_claims := [3]",
        'trust_claims := "affirming"',
        "trust_claims := null",
        "trust_claims := true",
        'trust_claims := {"executable": 3}',
        'trust_claims := {"executables": -1}',
        'trust_claims := {"executables": 128}',
        'trust_claims := {"executables": 258}',
        'trust_claims := {"executables": 2.5}',
        'trust_claims := {"executables": true}',
        'trust_claims := {"executables": "3"}',
        'trust_claims := {"executables": null}',
        'trust_claims := {"executables": 3}\nextensions := {}',
        'trust_claims := {"executables": 3}\nextensions := [{"name": "ear.status", "key": 1, "value": "affirming"}]',
        'trust_claims := {"executables": 3}\nextensions := [{"name": "a", "key": 1}]',
        'trust_claims := {"executables": 3}\nextensions := [{"name": "a", "key": "1", "value": 1}]',
        'trust_claims := {"executables": 3}\nextensions := [{"name": "a", "key": 1, "value": 1}, {"name": "a", "key": 2, "value": 1}]',
    ],
)
def test_a_result_that_is_not_ar4si_is_refused(bench: Bench, body: str) -> None:
    bench.policy(body)
    for _ in range(2):
        with pytest.raises(PolicyInvalid) as caught:
            bench.appraise()
        assert caught.value.code == "policy_result_invalid"


def test_a_policy_without_the_rule_affirms_nothing(bench: Bench) -> None:
    bench.policy("something := 3")
    result = bench.appraise()
    assert result.status is Tier.NONE and set(result.primary.vector.values) == {0} and not result.primary.vector.stated


def test_extensions_are_added(bench: Bench) -> None:
    bench.policy(
        'trust_claims := {"executables": 3}\nextensions := [{"name": "site.rack", "key": -70001, "value": input.snp.chip_id}]'
    )
    assert bench.appraise().primary.extensions == (("site.rack", -70001, "cc" * 64),)


def test_a_policy_that_is_not_accepted_leaves_the_old_one(bench: Bench) -> None:
    bench.policy(LAX)
    for body, code in (
        ('trust_claims := {"executables": opa.runtime().x}', "policy_builtin_forbidden"),
        ("trust_claims :=", "policy_not_rego"),
        ("trust_claims := " + "[" * 2000 + "]" * 2000, "policy_too_deep"),
    ):
        with pytest.raises(PolicyInvalid) as caught:
            bench.policy(body)
        assert caught.value.code == code
    assert bench.vector() == (2, 2, 2)


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "a" * 200, "ä"])
def test_a_policy_has_a_plain_id(bench: Bench, name: str) -> None:
    with pytest.raises(MalformedRequest):
        bench.book.set("default", "attestation", name, HEAD + LAX, NOW)


def test_a_policy_that_loops_is_refused_at_its_use_and_replaced(bench: Bench) -> None:
    bench.policy(
        "trust_claims := count([1 | some i in numbers.range(1, 3000); some j in numbers.range(1, 3000); i == j])"
    )
    with pytest.raises(PolicyInvalid) as caught:
        bench.appraise()
    assert caught.value.code == "policy_deadline"
    bench.policy(LAX)
    assert bench.vector() == (2, 2, 2)
    bench.store.policies.delete("default", "attestation", "default_cpu")
    assert bench.vector() == (33, 97, 3)
    with pytest.raises(NotFound):
        bench.store.policies.delete("default", "attestation", "default_cpu")


def test_a_policy_that_reached_the_store_unjudged_is_not_believed(bench: Bench) -> None:
    bench.store.policies.set("default", "attestation", "default_cpu", HEAD + "trust_claims := opa.runtime()", NOW)
    with pytest.raises(PolicyInvalid) as caught:
        bench.appraise()
    assert caught.value.code == "policy_builtin_forbidden"


def test_policies_read_the_workload_document(bench: Bench) -> None:
    bench.policy(
        'trust_claims := {"executables": 3} if {\n'
        ' input.init_data_claims.workload.image == "sha256:' + "a" * 64 + '"\n'
        " input.init_data_claims.workload.debug == false\n"
        ' input.init_data_claims.workload.command[0] == "/bin/true"\n'
        ' input.adyton.root == "vendor"\n}'
    )
    assert bench.appraise().status is Tier.AFFIRMING
    assert bench.appraise(replace(EVIDENCE, root=RootKind.CUSTOM)).status > Tier.AFFIRMING
    assert bench.appraise(document=None).status is Tier.NONE


# --- init data and devices


@pytest.mark.parametrize(
    "field", [bytes(32), b"\1" * 32, b"", DOCUMENT.digest.value[:31] + b"\0", DOCUMENT.digest.value + bytes(16)]
)
def test_init_data_that_is_not_the_evidences_is_refused(bench: Bench, field: bytes) -> None:
    with pytest.raises(BindingMismatch):
        bench.appraise(replace(EVIDENCE, init_data=field))


@pytest.mark.parametrize("tee", ["csv", "se", "nitro", "sample"])
def test_init_data_that_nothing_binds_decides_nothing(bench: Bench, tee: str) -> None:
    for field in (DOCUMENT.digest.value, b""):
        with pytest.raises(DocumentInvalid) as caught:
            bench.appraise(replace(EVIDENCE, tee=tee, init_data=field))
        assert caught.value.code == "init_data_unbound"
    assert bench.appraise(replace(EVIDENCE, tee=tee, init_data=b"\1" * 32), document=None).primary.host_data == ""


@pytest.mark.parametrize(("tee", "size"), [("tdx", 48), ("sgx", 64), ("cca", 64), ("hyperenclave", 64)])
def test_a_longer_field_names_the_same_document(bench: Bench, tee: str, size: int) -> None:
    field = DOCUMENT.digest.value.ljust(size, b"\0")
    for document in (INIT_DATA, None):
        found = bench.appraise(replace(EVIDENCE, tee=tee, init_data=field), document=document)
        assert found.primary.host_data == DOCUMENT.digest.hex
    with pytest.raises(BindingMismatch):
        bench.appraise(replace(EVIDENCE, tee=tee, init_data=field[:-1] + b"\1"))
    with pytest.raises(BindingMismatch):  # the digest alone, in a field that is longer
        bench.appraise(replace(EVIDENCE, tee=tee, init_data=DOCUMENT.digest.value))


@pytest.mark.parametrize("tee", ["tpm", "az-snp-vtpm", "az-tdx-vtpm"])
def test_a_pcr_names_a_document_only_together_with_it(bench: Bench, tee: str) -> None:
    pcr = hashlib.sha256(bytes(32) + DOCUMENT.digest.value).digest()
    assert bench.appraise(replace(EVIDENCE, tee=tee, init_data=pcr)).primary.host_data == DOCUMENT.digest.hex
    assert bench.appraise(replace(EVIDENCE, tee=tee, init_data=pcr), document=None).primary.host_data == ""
    with pytest.raises(BindingMismatch):
        bench.appraise(replace(EVIDENCE, tee=tee, init_data=DOCUMENT.digest.value))


def test_a_digest_longer_than_the_field_is_never_cut(bench: Bench) -> None:
    document = initdata.parse(initdata.write({"a": "b"}, "sha384"))
    with pytest.raises(DocumentInvalid) as caught:
        bench.appraise(replace(EVIDENCE, init_data=document.digest[:32]), document=document)
    assert caught.value.code == "init_data_algorithm"


@pytest.mark.parametrize(
    "data",
    [
        {"workload": "image = 1"},
        {"agent_policy_claims": "{}"},
        {"workload.toml": "image ="},
        {"cdh.toml": "= x"},
        {"aa.toml": "a = nan"},
    ],
)
def test_init_data_that_cannot_be_read_decides_nothing(bench: Bench, data: dict[str, str]) -> None:
    document = initdata.parse(initdata.write(data))
    with pytest.raises(DocumentInvalid):
        bench.appraise(replace(EVIDENCE, init_data=document.digest), document=document)


def test_init_data_entries_become_claims(bench: Bench) -> None:
    entries = {
        "cdh.toml": "a = 1\n[b]\nc = 2026-01-01\n",
        "policy.rego": 'package agent_policy\npolicy_data := {"x": [1]}',
        "note": "text",
    }
    document = initdata.parse(initdata.write(entries))
    result = bench.appraise(replace(EVIDENCE, init_data=document.digest), document=document)
    assert result.primary.annotated["init_data_claims"] == {
        "cdh.toml": {"a": 1, "b": {"c": "2026-01-01"}},
        "agent_policy_claims": {"x": [1]},
        "note": "text",
    }


def test_agent_policy_data_with_half_of_a_character_is_none(bench: Bench) -> None:
    """It would be a failure of the broker's later on, without a decision that is recorded."""
    document = initdata.parse(initdata.write({"policy.rego": 'policy_data := {"x": "\\ud800"}'}))
    result = bench.appraise(replace(EVIDENCE, init_data=document.digest), document=document)
    assert result.primary.annotated["init_data_claims"] == {}


def test_the_default_policy_names_what_the_agent_policy_validates(bench: Bench) -> None:
    bench.publish(REFERENCES)
    assert bench.appraise().primary.extensions == (("ear.trustee.identifiers", -18, {"validated": {}}),)
    container = '{"OCI": {"Annotations": {"io.kubernetes.cri.image-name": "x:1"}, "Process": {"User": {"UID": 7}}}}'
    document = initdata.parse(
        initdata.write(
            {"policy.rego": 'package agent_policy\npolicy_data := {"containers": [' + container + ', {"OCI": {}}]}'}
        )
    )
    result = bench.appraise(replace(EVIDENCE, init_data=document.digest), document=document)
    validated: JsonValue = {"validated": {"container_images": ["x:1"], "container_uids": [7]}}
    assert (
        result.primary.extensions == (("ear.trustee.identifiers", -18, validated),) and result.status is Tier.AFFIRMING
    )


def test_devices_are_counted_by_class_and_see_no_init_data(bench: Bench) -> None:
    bench.publish(REFERENCES)
    device = replace(EVIDENCE, tee="nvidia", tee_class="gpu")
    assert bench.appraise(EVIDENCE, device).appraisals[1].vector["hardware"] == 97
    bench.book.set("default", "attestation", "default_gpu", HEAD + 'trust_claims := {"hardware": 97}', NOW)
    result = bench.appraise(EVIDENCE, device, device)
    assert [item.name for item in result.appraisals] == ["cpu0", "gpu0", "gpu1"]
    assert result.primary.status is Tier.AFFIRMING and result.status is Tier.CONTRAINDICATED
    annotated = result.appraisals[1].annotated
    assert "init_data_claims" not in annotated and annotated["runtime_data_claims"] == {
        "tee-pubkey": {"kty": "EC"},
        "nonce": "n",
    }


def test_a_tee_without_rules_is_contraindicated(bench: Bench) -> None:
    bench.publish(REFERENCES)
    result = bench.appraise(replace(EVIDENCE, tee="hygondcu"), document=None)
    assert result.status is Tier.CONTRAINDICATED and "tee_unknown" in {item.code for item in result.mismatches}


# --- properties

REFERENCE_SETS = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from([value, [], ["x", *value] if isinstance(value, list) else value, "x"]) for name, value in {**REFERENCES, **STRICT}.items()}
)  # fmt: skip
CLAIM_SETS = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from([True, False, 0, 3, 8, 115, "ab" * 48]) for name in CLAIMS}
).map(lambda changed: {**CLAIMS, **changed})
SLOW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def fresh(factory: pytest.TempPathFactory, engine: RegoEngine, references: dict[str, JsonValue]) -> Bench:
    bench = Bench(factory.mktemp("bench"), engine)
    bench.publish(references)
    return bench


@SLOW
@given(references=REFERENCE_SETS, claims=CLAIM_SETS, data=st.data())
def test_removing_a_reference_value_never_makes_more_pass(
    tmp_path_factory: pytest.TempPathFactory,
    engine: RegoEngine,
    references: dict[str, JsonValue],
    claims: dict[str, JsonValue],
    data: st.DataObject,
) -> None:
    bench = fresh(tmp_path_factory, engine, references)
    try:
        before = bench.vector(replace(EVIDENCE, coco_claims=claims))
        if references:
            bench.store.references.delete("default", data.draw(st.sampled_from(sorted(references))))
        after = bench.vector(replace(EVIDENCE, coco_claims=claims))
        assert all(new >= old for new, old in zip(after, before, strict=True))
    finally:
        bench.store.close()


@SLOW
@given(references=REFERENCE_SETS, claims=CLAIM_SETS)
def test_a_development_root_is_never_better_than_a_vendors(
    tmp_path_factory: pytest.TempPathFactory,
    engine: RegoEngine,
    references: dict[str, JsonValue],
    claims: dict[str, JsonValue],
) -> None:
    bench = fresh(tmp_path_factory, engine, references)
    try:
        vendor = bench.vector(replace(EVIDENCE, coco_claims=claims))
        development = bench.vector(replace(EVIDENCE, coco_claims=claims, root=RootKind.CUSTOM))
        assert development[1] >= 32 and all(new >= old for new, old in zip(development, vendor, strict=True))
    finally:
        bench.store.close()


@SLOW
@given(references=REFERENCE_SETS, claims=CLAIM_SETS)
def test_what_the_default_policy_refuses_has_a_reason(
    tmp_path_factory: pytest.TempPathFactory,
    engine: RegoEngine,
    references: dict[str, JsonValue],
    claims: dict[str, JsonValue],
) -> None:
    bench = fresh(tmp_path_factory, engine, references)
    try:
        result = bench.appraise(replace(EVIDENCE, coco_claims=claims))
        bad = {name for name, value in result.primary.vector.items() if value >= 32}
        assert bad <= {item.element for item in result.mismatches}
    finally:
        bench.store.close()


CONDITIONS = [
    'input.snp.measurement in query_reference_value("snp_launch_measurement")',
    "input.snp.policy_debug_allowed == false",
    "input.snp.reported_tcb_snp >= 8",
    "input.snp",
    'input.adyton.root == "vendor"',
    "not input.snp.policy_migrate_ma",
    "count(input.init_data_claims.workload.command) == 1",
]


@SLOW
@given(
    conditions=st.lists(st.sampled_from(CONDITIONS), max_size=4, unique=True),
    further=st.sampled_from(CONDITIONS),
    claims=CLAIM_SETS,
    root=st.sampled_from(RootKind),
)
def test_a_stricter_policy_never_accepts_more(  # noqa: PLR0917 -- what is drawn
    tmp_path_factory: pytest.TempPathFactory,
    engine: RegoEngine,
    conditions: list[str],
    further: str,
    claims: dict[str, JsonValue],
    root: RootKind,
) -> None:
    bench = fresh(tmp_path_factory, engine, REFERENCES)
    evidence = replace(EVIDENCE, coco_claims=claims, root=root)
    body = 'default e := 33\ntrust_claims := {{"executables": e, "hardware": 2}}\ne := 3 if {{\n true\n {}\n}}\n'
    try:
        bench.policy(body.format("\n ".join(conditions)))
        before = bench.vector(evidence)
        bench.policy(body.format("\n ".join([*conditions, further])))
        after = bench.vector(evidence)
        assert all(new >= old for new, old in zip(after, before, strict=True))
    finally:
        bench.store.close()
