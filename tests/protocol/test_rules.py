"""Release rules: any of them, all of its members; and those that AECS and Verdictd wrote."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.errors import DocumentInvalid, MalformedRequest
from adyton.protocol import aecs, release, rules
from adyton.protocol.ear import Submodule
from adyton.protocol.release import Binding
from adyton.protocol.rules import Rule
from adyton.rats.result import Tier, TrustVector
from adyton.rats.types import RootKind

ENCLAVE, SIGNER = "ab" * 32, "cd" * 32


def submodule(tee: str = "sgx", **evidence: Any) -> Submodule:
    body = {"mr_signer": SIGNER, "isv_prod_id": "0100", "isv_svn": "0201"}
    annotated = {tee: {"body": body}, "adyton": {"debug": False}, **evidence}
    return Submodule(
        name="cpu0", status=Tier.AFFIRMING, vector=TrustVector((2,) * 8), tee=tee, measurement=ENCLAVE,
        host_data=bytes(32), root=RootKind.VENDOR, root_fingerprint="", image=None, policy_digest="",
        reference_generation=1, evidence=annotated,
    )  # fmt: skip


MATCHING = Rule(
    tees=["snp", "sgx"], measurements=[ENCLAVE], signers=[SIGNER], products=[1], min_svn=0x0102, debug=False
)


@pytest.mark.parametrize(
    "change",
    [
        {"tees": ["snp"]},
        {"measurements": ["00" * 32]},
        {"signers": [ENCLAVE]},
        {"products": [0, 2]},
        {"min_svn": 0x0103},
        {"debug": True},
        {"init_data": ["11" * 32]},
        {"claims": {"sgx/body/absent": [1]}},
        {"claims": {"adyton/debug": [0]}},
        {"claims": {"adyton": [False]}},
        {"claims": {"adyton/debug/x": [False]}},
    ],
)
def test_every_member_must_match(change: dict[str, Any]) -> None:
    assert rules.matches(MATCHING, submodule())
    assert not rules.matches(msgspec.structs.replace(MATCHING, **change), submodule())


def test_what_the_evidence_does_not_say_matches_nothing() -> None:
    snp = submodule("snp", snp={})
    for rule in (Rule(signers=[SIGNER]), Rule(products=[1]), Rule(min_svn=0), Rule(debug=False), Rule(debug=True)):
        assert not rules.matches(rule, snp)
    assert rules.matches(Rule(debug=False), submodule("snp", snp={"policy_debug_allowed": False}))
    assert not rules.matches(Rule(debug=False), submodule("snp", snp={"policy_debug_allowed": True}))
    assert not rules.matches(Rule(debug=False), submodule("snp", snp={"policy_debug_allowed": 0}))
    assert not rules.matches(Rule(), submodule())
    assert rules.matches(Rule(min_svn=3, products=[7], signers=["ee" * 32]), submodule(
        "hyperenclave", hyperenclave={"mrsigner": "ee" * 32, "isvprodid": 7, "isvsvn": 3}
    ))  # fmt: skip


@pytest.mark.parametrize(
    "rule",
    [
        Rule(),
        Rule(measurements=["AB" * 32]),
        Rule(measurements=["abc"]),
        Rule(signers=[""]),
        Rule(tees=["SNP"]),
        Rule(products=[-1]),
        Rule(min_svn=65536),
        Rule(claims={"snp/chip_id": []}),
        Rule(claims={"": ["x"]}),
        Rule(init_data=["zz"]),
        Rule(measurements=["ab"] * 201),
    ],
)
def test_rules_that_are_refused(rule: Rule) -> None:
    with pytest.raises(MalformedRequest) as error:
        release.check(Binding(rules=[rule]))
    assert error.value.code == "rule_malformed"


def test_limits_of_bindings() -> None:
    with pytest.raises(MalformedRequest):
        release.check(Binding(rules=[MATCHING] * 101))
    with pytest.raises(MalformedRequest) as error:
        release.check(Binding(operations=["sing"]))
    assert error.value.code == "binding_malformed"
    assert Binding(operations=["sign"]).is_empty
    assert not Binding(rules=[MATCHING]).is_empty
    old = msgspec.json.decode(b'{"images":["sha256:aa"]}', type=Binding)
    assert (old.rules, old.operations) == ([], None)


def aecs_document(**entry: Any) -> bytes:
    return json.dumps({"enclaveMatchAnyRules": [entry]}).encode()


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"enclaveMatchAnyRules":[]}',
        b'{"enclaveMatchAnyRules":{}}',
        b'{"enclaveMatchAnyRules":[7]}',
        b'{"enclaveMatchAnyRules":[{}]}',
        b'{"mrEnclave":[],"mrSigner":[],"productId":0,"svn":0}',
        b'{"main_attributes":[{"hex_ta_measurement":"ab"}],"nested_policies":[{}]}',
        aecs_document(mrenclave=""),
        aecs_document(mrenclave="no hex"),
        aecs_document(mrenclave=ENCLAVE, user_data="11"),
        aecs_document(mrenclave=ENCLAVE, spid="22"),
        aecs_document(mrenclave=ENCLAVE, prodID="minus one"),
        aecs_document(mrenclave=ENCLAVE, debug_disabled="perhaps"),
        aecs_document(mrenclave=ENCLAVE, somethingNew="x"),
        b'{"main_attributes": [{"str_tee_platform": ["SGX1"]}]}',
        b'{"main_attributes": [{"str_tee_platform": {}}]}',
    ],
)
def test_policies_that_cannot_be_kept_are_refused(document: bytes) -> None:
    with pytest.raises(DocumentInvalid) as error:
        aecs.read(document)
    assert error.value.code == "release_rules_malformed"


def test_what_aecs_meant() -> None:
    document = {
        "policy": {
            "enclaveMatchAnyRules": [
                {"mrenclave": "", "mrsigner": ""},
                {
                    "mrenclave": ENCLAVE.upper(), "mrsigner": "", "prodID": "1", "minIsvSvn": "2", "user_data": "",
                    "spid": "", "debug_disabled": "true",
                },
                {"mrsigner": SIGNER, "debug_disabled": "false"},
            ]
        }
    }  # fmt: skip
    assert aecs.convert(document) == [
        Rule(measurements=[ENCLAVE], products=[1], min_svn=2, debug=False),
        Rule(signers=[SIGNER]),
    ]
    assert aecs.convert({"mrEnclave": [ENCLAVE, SIGNER], "mrSigner": [], "productId": 0, "svn": 3}) == [
        Rule(measurements=[ENCLAVE, SIGNER], min_svn=3)
    ]
    assert aecs.convert({"main_attributes": [{"str_tee_platform": "SGX_DCAP", "hex_signer": SIGNER}]}) == [
        Rule(tees=["sgx"], signers=[SIGNER])
    ]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=9), lambda inner: st.lists(inner, max_size=3)
       | st.dictionaries(st.sampled_from(["enclaveMatchAnyRules", "policy", "mrenclave", "mrEnclave", "main_attributes", "x"]),
                         inner, max_size=3), max_leaves=12))  # fmt: skip
def test_any_document_is_rules_or_refused(value: object) -> None:
    try:
        found = aecs.convert(value)
    except DocumentInvalid:
        return
    assert found
    assert not any(rule.is_empty for rule in found)
