from __future__ import annotations

import pytest

from adyton.devtee import csv as forging
from adyton.devtee.sm2 import SigningKey

FORGE = forging.CsvForge.new()


@pytest.mark.parametrize("wrong", [{"report_data": bytes(63)}, {"measure": bytes(33)}, {"mnonce": b""}])
@pytest.mark.parametrize("version", [1, 2])
def test_a_field_has_its_length(version: int, wrong: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match="wrong length"):
        FORGE.info(forging.CsvFields(version=version, **wrong))  # type: ignore[arg-type]  # that is the point


def test_sizes() -> None:
    assert [len(FORGE.info(forging.CsvFields(version=version))) for version in (1, 2)] == [336, 1168]
    assert [len(FORGE.report(version=version)) for version in (1, 2)] == [2548, 3380]
    assert (len(FORGE.hrk_certificate), len(FORGE.hsk_cek), len(FORGE.pek_certificate)) == (832, 2916, 2084)


def test_a_shift_changes_every_field_and_nothing_that_is_signed() -> None:
    report = FORGE.report(report_data=b"\0" * 64)
    changed = forging.shifted(report, b"\1\2\3\4")
    assert changed[:180] == report[:180]
    assert changed[192:336] == report[192:336]
    anonce = changed[188:192]
    assert forging.mask(changed[64:128], anonce) == b"\1\2\3\4" * 16
    assert forging.mask(changed[180:188], anonce) == forging.mask(report[180:188], report[188:192])


def test_two_keys_differ() -> None:
    assert SigningKey.new() != SigningKey.new()
    with pytest.raises(ValueError, match="private"):
        SigningKey.of(0)
