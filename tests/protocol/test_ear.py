from __future__ import annotations

import contextlib
import copy
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from adyton.errors import DocumentInvalid, SessionInvalid
from adyton.protocol import annotated, ear, initdata, workload
from adyton.rats.result import ELEMENTS, Appraisal, AttestationResult, Mismatch, Tier, TrustVector
from adyton.rats.types import JsonValue, ReportData, RootKind, VerifiedEvidence

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
DOCUMENT = workload.write(workload.Workload(image="sha256:" + "a" * 64, command=["/bin/true"], env={"A": "b"}))
EVIDENCE = VerifiedEvidence(
    tee="snp",
    tee_class="cpu",
    claims={"vmpl": 0, "measurement": "ab" * 48},
    coco_claims={"measurement": "ab" * 48, "policy_debug_allowed": False},
    tcb={},
    report_data=ReportData(b"\1" * 64),
    init_data=DOCUMENT.digest.value,
    root=RootKind.CUSTOM,
    root_fingerprint="ef" * 32,
    checks=(),
    expires=NOW,
    expires_first="CRL",
    unchecked=("revocation",),
)
RUNTIME: dict[str, JsonValue] = {
    "tee-pubkey": {"kty": "EC", "crv": "P-256"},
    "nonce": "n",
    "additional-evidence": '{"big": 1}',
}
ANNOTATED = annotated.evidence(
    EVIDENCE, RUNTIME, annotated.init_data_claims(initdata.parse(DOCUMENT.raw)), EVIDENCE.init_data
)
APPRAISAL = Appraisal(
    name="cpu0",
    tee="snp",
    vector=TrustVector.of({"executables": 3, "hardware": 32, "configuration": 2}),
    policy_id="default",
    policy_digest="0" * 64,
    annotated=ANNOTATED,
    mismatches=(Mismatch("hardware", "tee", "tee_unknown"),),
    root=RootKind.CUSTOM,
    root_fingerprint="ef" * 32,
    measurement="ab" * 48,
    host_data=DOCUMENT.digest.hex,
)
RESULT = AttestationResult(appraisals=(APPRAISAL,), generation=1, reference_generation=1, expires=NOW)


def payload(result: AttestationResult = RESULT, **options: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", ear.claims(result, issued=NOW, expires=NOW + timedelta(minutes=5), **options))


# --- reading: what does not fit is refused


def broken(**changes: Any) -> dict[str, Any]:
    return {**payload(), **changes}


def submodule(**changes: Any) -> dict[str, Any]:
    cpu0 = {**payload()["submods"]["cpu0"], **changes}
    return {**payload(), "submods": {"cpu0": cpu0}}


BAD: list[Any] = [
    None, [], 3, "x", {}, broken(eat_profile="tag:other"), broken(iat="1"), broken(exp=True), broken(exp=1.5), broken(submods={}),
    broken(submods=[]), broken(submods={"cpu1": payload()["submods"]["cpu0"]}), broken(submods={"cpu0": None}),
    submodule(**{"ear.status": "affirming"}), submodule(**{"ear.status": 2}), submodule(**{"ear.trustworthiness-vector": {}}),
    submodule(**{"ear.trustworthiness-vector": {"hardware": 32, "unknown": 1}}), submodule(**{"ear.trustworthiness-vector": {"hardware": "32"}}),
    submodule(**{"ear.trustworthiness-vector": {"hardware": True}}), submodule(**{"ear.trustworthiness-vector": {"hardware": 200}}),
    submodule(**{"ear.trustworthiness-vector": {"hardware": -1}}), submodule(**{"ear.trustworthiness-vector": [32]}),
    submodule(**{ear.EVIDENCE: []}), submodule(**{ear.EVIDENCE: {"adyton": []}}), submodule(**{ear.EVIDENCE: {"adyton": {"host_data": "xy"}}}),
    submodule(**{ear.EVIDENCE: {"adyton": {"root": "other"}}}), submodule(**{ear.EVIDENCE: {"init_data_claims": {"workload": "x"}}}),
]  # fmt: skip


@pytest.mark.parametrize("raw", BAD)
def test_what_is_not_a_result_of_this_broker_is_refused(raw: Any) -> None:
    with pytest.raises(SessionInvalid) as caught:
        ear.parse(msgspec.json.encode(raw))
    assert caught.value.code == "token_malformed"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"NaN"])
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(SessionInvalid):
        ear.parse(body)


def test_a_token_without_a_key_gives_none() -> None:
    without: list[dict[str, Any]] = [{}, {"runtime_data_claims": []}, {"runtime_data_claims": {"tee-pubkey": "x"}}]
    for evidence in without:
        claims = ear.read(submodule(**{ear.EVIDENCE: evidence}))
        with pytest.raises(SessionInvalid):
            _ = claims.tee_public_key


def test_a_token_that_does_not_say_its_root_has_none() -> None:
    claims = ear.read(submodule(**{ear.EVIDENCE: {}}))
    assert claims.primary.root is None and claims.primary.measurement == "" and claims.primary.image is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-200, 200) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["adyton", "root", "hardware", "cpu0", "workload"]), inner, max_size=3)
    ),
)


@given(
    JSON,
    st.sampled_from(
        [
            "eat_profile",
            "iat",
            "exp",
            "submods",
            "cpu0",
            ear.EVIDENCE,
            "ear.status",
            "ear.trustworthiness-vector",
            "adyton",
        ]
    ),
)
def test_any_change_is_read_or_refused_with_one_error(value: JsonValue, where: str) -> None:
    raw = copy.deepcopy(payload())
    holder = raw if where in raw else raw["submods"] if where == "cpu0" else raw["submods"]["cpu0"]
    (holder[ear.EVIDENCE] if where == "adyton" else holder)[where] = value
    with contextlib.suppress(SessionInvalid):
        ear.read(raw)


# --- writing: the layout of kbs-protocol 2.5


def test_the_payload_has_cocos_layout() -> None:
    claims = payload(issuer=ear.Issuer("CoCo-Attestation-Service", "https://example.org", "build 1"))
    assert claims["eat_profile"] == "tag:github.com,2024:confidential-containers/Trustee"
    assert set(claims) == {"eat_profile", "iat", "exp", "iss", "ear.verifier-id", "submods"}
    assert claims["exp"] - claims["iat"] == 300 and isinstance(claims["iat"], int)
    assert claims["iss"] == "CoCo-Attestation-Service"
    assert claims["ear.verifier-id"] == {"developer": "https://example.org", "build": "build 1"}
    cpu0 = claims["submods"]["cpu0"]
    assert set(cpu0) == {
        "ear.status",
        "ear.trustworthiness-vector",
        "ear.appraisal-policy-id",
        "ear.veraison.annotated-evidence",
    }
    assert cpu0["ear.status"] == "warning"
    assert list(cpu0["ear.trustworthiness-vector"]) == list(ELEMENTS)
    assert cpu0["ear.appraisal-policy-id"] == "default"
    evidence = cpu0["ear.veraison.annotated-evidence"]
    assert set(evidence) == {"init_data", "init_data_claims", "report_data", "runtime_data_claims", "snp", "adyton"}
    assert evidence["runtime_data_claims"] == RUNTIME
    assert evidence["snp"] == EVIDENCE.coco_claims
    assert evidence["report_data"] == "01" * 64 and evidence["init_data"] == DOCUMENT.digest.hex
    assert evidence["init_data_claims"]["workload"]["image"] == "sha256:" + "a" * 64
    assert evidence["init_data_claims"]["workload"]["debug"] is False  # defaults are said
    assert evidence["adyton"]["unchecked"] == ["revocation"]


def test_a_short_token_leaves_the_additional_evidence_out() -> None:
    short = payload(verbose=False)["submods"]["cpu0"][ear.EVIDENCE]
    assert "additional-evidence" not in short["runtime_data_claims"] and short["runtime_data_claims"]["nonce"] == "n"
    assert "additional-evidence" in cast("dict[str, Any]", ANNOTATED["runtime_data_claims"])


def test_extensions_stand_beside_the_appraisal() -> None:
    extended = replace(RESULT, appraisals=(replace(APPRAISAL, extensions=(("site.rack", -70001, [1]),)),))
    assert payload(extended)["submods"]["cpu0"]["site.rack"] == [1]


def test_what_is_written_is_read() -> None:
    second = replace(APPRAISAL, name="gpu0", vector=TrustVector.of({"hardware": 97}))
    result = AttestationResult(appraisals=(APPRAISAL, second), generation=1, reference_generation=1, expires=NOW)
    claims = ear.parse(msgspec.json.encode(payload(result)))
    assert ear.read(payload(result)) == claims  # whether it comes from a cookie or was never written
    assert ear.told(result, payload(result)) == claims
    assert [item.name for item in claims.submodules] == ["cpu0", "gpu0"]
    primary = claims.primary
    assert (primary.tee, primary.measurement, primary.host_data) == ("snp", "ab" * 48, DOCUMENT.digest.value)
    assert primary.root is RootKind.CUSTOM and primary.root_fingerprint == "ef" * 32 and primary.status is Tier.WARNING
    assert primary.image == "sha256:" + "a" * 64
    assert (primary.policy_digest, primary.reference_generation) == ("0" * 64, 1)
    assert claims.tee_public_key == {"kty": "EC", "crv": "P-256"}
    assert claims.expires == claims.issued + 300


@pytest.mark.parametrize(
    "vector",
    [{}, {"hardware": 2}, {"hardware": 31}, {"hardware": 32}, {"hardware": 95}, {"hardware": 96}, {"hardware": 127}],
)
def test_the_status_is_that_of_the_worst_element(vector: dict[str, int]) -> None:
    worst = max(vector.values(), default=0)
    expected = "none" if worst < 2 else "affirming" if worst < 32 else "warning" if worst < 96 else "contraindicated"
    result = replace(RESULT, appraisals=(replace(APPRAISAL, vector=TrustVector.of(vector)),))
    assert payload(result)["submods"]["cpu0"]["ear.status"] == expected


# --- the vector itself


@pytest.mark.parametrize("values", [{"hardware": -1}, {"hardware": 128}, {"hardwares": 1}])
def test_a_vector_outside_ar4si_cannot_be_made(values: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        TrustVector.of(values)


@pytest.mark.parametrize("value", [-1, 128])
def test_a_tier_is_of_a_value_in_range(value: int) -> None:
    with pytest.raises(ValueError):
        Tier.of(value)


def test_a_result_without_evidence_cannot_be_made() -> None:
    with pytest.raises(ValueError):
        AttestationResult(appraisals=(), generation=0, reference_generation=0, expires=NOW)


@pytest.mark.parametrize("name", ["workload", "agent_policy_claims"])
def test_text_cannot_pass_for_what_was_parsed(name: str) -> None:
    with pytest.raises(DocumentInvalid):
        annotated.init_data_claims(initdata.parse(initdata.write({name: "x"})))
