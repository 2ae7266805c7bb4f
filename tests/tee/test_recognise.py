from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.devtee import csv as csv_forging
from adyton.errors import UnsupportedEvidence
from adyton.tee.csv import json_form
from adyton.tee.csv.abi import CsvReport
from adyton.tee.recognise import recognise
from adyton.tee.se.exchange import Exchange

FORGE = csv_forging.CsvForge.new()
PEK = FORGE.pek_certificate


@pytest.mark.parametrize("first", range(0, 256, 5))
def test_a_masked_report_may_begin_with_anything(first: int) -> None:
    anonce = bytes([first, 0, 2, 0])
    assert recognise(FORGE.report(pek=PEK, anonce=anonce)) == "csv"


def test_reports_of_csv_in_each_form() -> None:
    for report in (FORGE.report(pek=PEK), FORGE.report(pek=PEK, version=2)):
        for form in (
            report,
            csv_forging.page(report),
            csv_forging.wrapped(report),
            csv_forging.wrapped(report, magic=bytes(16)),
        ):
            assert recognise(form) == "csv"
        parsed = CsvReport.parse(report)
        for log in (None, b"log"):
            text = json.dumps(json_form.to_json(parsed, PEK, serial=bytes(64), event_log=log))
            assert recognise(text.encode()) == "csv"


def test_zeros_are_nobodys() -> None:
    for size in (336, 1168, 2548, 3380, 4096):
        with pytest.raises(UnsupportedEvidence):
            recognise(bytes(size))


def test_exchange_files() -> None:
    assert recognise(Exchange(b"request", b"m" * 64, cuid=bytes(16)).encode()) == "se"


@given(st.binary(max_size=400))
def test_other_bytes_are_nobodys_or_somebodys(data: bytes) -> None:
    try:
        assert isinstance(recognise(data), str)
    except UnsupportedEvidence as error:
        assert error.code == "tee_unknown"


@pytest.mark.vectors
def test_real_evidence(vectors: Path) -> None:
    assert recognise((vectors / "csv" / "report.cert").read_bytes()) == "csv"
    assert recognise((vectors / "se" / "pvattest-exchange-full.bin").read_bytes()) == "se"
    for file in sorted((vectors / "snp" / "reports").iterdir()):
        assert recognise(file.read_bytes()) == "snp"
