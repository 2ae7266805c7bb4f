"""What an owner types, and what the default policy can match."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adyton.appraisal import policies
from adyton.appraisal.compared import TABLE
from adyton.appraisal.shapes import SHAPES
from adyton.rats.types import JsonValue


def test_every_name_of_the_default_policies_has_a_shape_and_is_explained() -> None:
    texts = "".join(policies.DEFAULTS.values())
    asked = set(re.findall(r'query_reference_value\("([a-z_0-9]+)"\)', texts))
    assert asked == set(SHAPES)
    listed = set(re.findall(r'in query_reference_value\("([a-z_0-9]+)"\)', texts))
    assert listed == {name for name, shape in SHAPES.items() if shape.many}
    assert asked == {rule.reference for rules in TABLE.values() for rule in rules if rule.reference}


def test_the_document_has_every_name_with_its_form() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "policies.md").read_text()
    for name, shape in SHAPES.items():
        rows = [line for line in text.splitlines() if line.startswith("|") and f"`{name}`" in line]
        assert any(line.startswith(f"| {shape.text} |") for line in rows), name
        assert len(rows) >= 2, name


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("snp_bootloader", ["ten"]),
        ("snp_bootloader", ["-1"]),
        ("snp_bootloader", ["256"]),
        ("snp_bootloader", ["٣"]),
        ("snp_bootloader", ["10", ""]),
        ("snp_launch_measurement", ["ab"]),
        ("snp_launch_measurement", ["zz" * 48]),
        ("snp_smt_enabled", ["1"]),
        ("snp_smt_enabled", ["true", "false"]),
        ("snp_guest_abi_major", ["1.5"]),
        ("sgx_mr_enclave", ["ab" * 48]),
        ("measurement", ["ab" * 48]),
        ("trusted_aks", ["=AA="]),
        ("sgx_isv_svn", ["0"]),
        ("hyperenclave_isv_svn", ["65536"]),
        ("csv_firmware_api", [""]),
    ],
)
def test_what_could_never_match_is_not_read(name: str, typed: list[str]) -> None:
    with pytest.raises(ValueError, match=r"hex|number|true|base64|text"):
        SHAPES[name].read(typed)


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("snp_bootloader", ["10", " 11"], [10, 11]),
        ("snp_launch_measurement", ["AB" * 48], ["ab" * 48]),
        ("snp_smt_enabled", ["True"], True),
        ("snp_guest_abi_minor", ["31"], 31),
        ("xfam", ["0xE742060000000000"], ["e742060000000000"]),
        ("measurement", ["A" * 64], ["A" * 64]),
        ("tcb_snp", ["8", "9"], ["8", "9"]),
        ("hyperenclave_isv_svn", ["65535"], [65535]),
        ("tdvfkernel", ["AB" * 48], "ab" * 48),
    ],
)
def test_what_is_typed_becomes_what_is_compared(name: str, typed: list[str], value: JsonValue) -> None:
    assert SHAPES[name].read(typed) == value and SHAPES[name].fits(value)


@pytest.mark.parametrize(("name", "value"), [("snp_bootloader", 10), ("snp_bootloader", ["10"]), ("snp_bootloader", []),
    ("snp_smt_enabled", 1), ("snp_guest_abi_major", True), ("snp_launch_measurement", ["AB" * 48])])  # fmt: skip
def test_other_forms_do_not_fit(name: str, value: JsonValue) -> None:
    assert not SHAPES[name].fits(value)
