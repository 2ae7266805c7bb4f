"""What an owner types, and what the default policy can match."""

from __future__ import annotations

import re

import pytest

from adyton.appraisal import policies
from adyton.appraisal.shapes import SHAPES
from adyton.rats.types import JsonValue


def test_every_name_of_the_default_policy_has_a_shape() -> None:
    asked = set(re.findall(r'query_reference_value\("([a-z_]+)"\)', policies.DEFAULT_CPU))
    assert asked == set(SHAPES)
    listed = set(re.findall(r'in query_reference_value\("([a-z_]+)"\)', policies.DEFAULT_CPU))
    assert listed == {name for name, shape in SHAPES.items() if shape.many}


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
    ],
)
def test_what_could_never_match_is_not_read(name: str, typed: list[str]) -> None:
    with pytest.raises(ValueError, match=r"hex|number|true"):
        SHAPES[name].read(typed)


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("snp_bootloader", ["10", " 11"], [10, 11]),
        ("snp_launch_measurement", ["AB" * 48], ["ab" * 48]),
        ("snp_smt_enabled", ["True"], True),
        ("snp_guest_abi_minor", ["31"], 31),
    ],
)
def test_what_is_typed_becomes_what_is_compared(name: str, typed: list[str], value: JsonValue) -> None:
    assert SHAPES[name].read(typed) == value and SHAPES[name].fits(value)


@pytest.mark.parametrize(("name", "value"), [("snp_bootloader", 10), ("snp_bootloader", ["10"]), ("snp_bootloader", []),
    ("snp_smt_enabled", 1), ("snp_guest_abi_major", True), ("snp_launch_measurement", ["AB" * 48])])  # fmt: skip
def test_other_forms_do_not_fit(name: str, value: JsonValue) -> None:
    assert not SHAPES[name].fits(value)
