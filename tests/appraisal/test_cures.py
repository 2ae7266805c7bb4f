from __future__ import annotations

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.appraisal import explain
from adyton.appraisal.cures import Context, advise
from adyton.rats.types import JsonValue

CONTEXT = Context(tee="snp", measurement="ab" * 48, host_data="cd" * 32, resource="kbs:///a/b/c")


def words(code: str, claim: str, reference: str, expected: JsonValue, got: JsonValue) -> list[str]:
    return shlex.split(advise(code, claim, reference, expected, got, CONTEXT).cure.partition(": ")[2])


@given(st.text() | st.integers() | st.lists(st.text(max_size=5), max_size=3))
def test_what_evidence_says_stays_one_word_of_the_command(got: JsonValue) -> None:
    if got in ("", None):
        return
    found = words("reference_missing", "measurement", "snp_launch_measurement", None, got)
    assert found[:4] == ["adyton", "reference", "set", "snp_launch_measurement"]
    assert found[5:] == ["--json-value"]
    assert json.loads(found[4]) == [got]


def test_each_mismatch_that_appraisal_finds_can_be_cured_by_what_is_said() -> None:
    claims: dict[str, JsonValue] = {
        "measurement": "ab" * 48, "reported_tcb_bootloader": 3, "reported_tcb_microcode": 1, "reported_tcb_snp": 2,
        "reported_tcb_tee": 4, "policy_debug_allowed": False, "policy_migrate_ma": False, "platform_smt_enabled": True,
    }  # fmt: skip
    values: dict[str, JsonValue] = {"snp_bootloader": [9, 10], "snp_smt_enabled": False}

    class Given:
        generation = 1
        deprecated: frozenset[str] = frozenset()

        def get(self, name: str) -> JsonValue:
            return values.get(name)

        def names(self) -> list[str]:
            return list(values)

    found = explain.mismatches("snp", {"snp": claims}, Given())
    assert len(found) == 6
    for item in found:
        said = advise(item.code, item.field, item.reference or "", item.expected, item.got, CONTEXT)
        assert said.provider == f"reference value {item.reference}" and said.actor == "owner"
        command = shlex.split(said.cure.partition(": ")[2])
        values[command[3]] = json.loads(command[4])
    assert values["snp_bootloader"] == [9, 10, 3] and values["snp_smt_enabled"] is True
    assert not explain.mismatches("snp", {"snp": claims}, Given())


@pytest.mark.parametrize(
    ("code", "claim", "part"),
    [
        ("policy_debug_allowed_wrong", "policy_debug_allowed", "without debugging"),
        ("other_wrong", "other", "so that other is as expected"),
        ("vmpl_not_accepted", "vmpl", "--vmpl '1'"),
        ("report_version_not_accepted", "report_version", "--report-version '1'"),
        ("hardware_not_accepted", "", "what it rests on"),
        ("workload_not_bound", "", "bind kbs:///a/b/c --workload sha256:cdcd"),
        ("not_bound", "", "adyton resource show kbs:///a/b/c"),
        ("measurement_unknown", "", "snp_launch_measurement"),
        ("token_expired", "", "attest again"),
        ("nonce_stale", "", "ask for a new nonce"),
    ],
)
def test_what_can_be_done(code: str, claim: str, part: str) -> None:
    assert part in advise(code, claim, "", None, 1, CONTEXT, "ask for a new nonce").cure


def test_where_nothing_can_be_named_the_command_says_so() -> None:
    assert (
        "adyton resource bind URI --workload DIGEST" in advise("workload_not_bound", "", "", None, None, Context()).cure
    )
    assert "cannot be compared" in advise("reference_differs", "x", "y", [1], None, Context()).cure
    assert "add it" in advise("reference_differs", "x", "y", list(range(20)), 30, Context()).cure
    assert advise("unheard_of", "", "", None, None, Context()).cure == ""
