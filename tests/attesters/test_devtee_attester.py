"""The development TEE's attester: what the channel says is checked before it becomes evidence."""

from __future__ import annotations

import msgspec
import pytest

from adyton.attesters.devtee import DevTeeAttester
from adyton.devtee.certificates import Signer
from adyton.devtee.snp import ReportFields, issue_report
from adyton.errors import Unavailable
from adyton.protocol.devtee import Certificate, Report
from adyton.rats.types import ReportData
from adyton.tee.snp.json_form import parse_json

DATA = ReportData(bytes(range(64)))


class Channel:
    def __init__(
        self, signer: Signer, certificates: list[tuple[str, bytes]], *, answer_for: bytes | None = None
    ) -> None:
        self.signer, self.certificates, self.answer_for = signer, certificates, answer_for

    def report(self, report_data: bytes) -> Report:
        raw = issue_report(self.signer, ReportFields(report_data=self.answer_for or report_data))
        return Report(raw, [Certificate(name, der) for name, der in self.certificates])


class Broken:
    def report(self, report_data: bytes) -> Report:
        return Report(b"short", [])


def test_an_answer_for_other_report_data_is_refused(signer: Signer) -> None:
    with pytest.raises(Unavailable) as caught:
        DevTeeAttester(Channel(signer, [], answer_for=b"\x01" * 64)).collect(DATA)
    assert caught.value.code == "report_for_another"


def test_an_answer_that_is_no_report_is_refused() -> None:
    with pytest.raises(Unavailable) as caught:
        DevTeeAttester(Broken()).collect(DATA)
    assert caught.value.code == "report_malformed"


def test_evidence_is_cocos_json_and_new_each_time(signer: Signer, certificates: list[tuple[str, bytes]]) -> None:
    attester = DevTeeAttester(Channel(signer, certificates))
    first, second = attester.collect(DATA), attester.collect(DATA)
    assert attester.tee == first.tee == "snp"
    report, listed = parse_json(msgspec.json.encode(first.primary))
    assert report.report_data == DATA.value
    assert listed == certificates
    assert first.primary != second.primary  # another signature
