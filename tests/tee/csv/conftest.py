"""One chip under a root of its own, made once a session; and what everyone asks the verifier."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import pytest

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.csv import CsvForge
from adyton.rats.types import Check, ReportData, TrustAnchors, VerifiedEvidence
from adyton.tee.csv import json_form
from adyton.tee.csv.abi import CsvReport
from adyton.tee.csv.certificate import read

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DATA = b"nonce and key".ljust(64, b"\0")


@dataclass
class Chip:
    """A forged chain, each certificate signed once."""

    forge: CsvForge

    @cached_property
    def pek(self) -> bytes:
        return self.forge.pek_certificate

    @cached_property
    def hsk_cek(self) -> bytes:
        return self.forge.hsk_cek

    @cached_property
    def hrk(self) -> bytes:
        return self.forge.hrk_certificate

    @cached_property
    def endorsements(self) -> EndorsementSet:
        return EndorsementSet.parse([self.hsk_cek, self.hrk])

    @property
    def anchors(self) -> TrustAnchors:
        return TrustAnchors(vendor=False, custom=frozenset({read(self.hrk).fingerprint}))

    def report(self, **changes: object) -> bytes:
        return self.forge.report(pek=self.pek, **({"report_data": DATA} | changes))

    def json(
        self, report: bytes | None = None, *, hsk_cek: bool = True, log: bytes | None = None, **more: Any
    ) -> bytes:
        parsed = CsvReport.parse(report or self.report())
        assert parsed.signer is not None
        value = json_form.to_json(
            parsed,
            parsed.signer.pek,
            serial=parsed.signer.serial,
            hsk_cek=self.hsk_cek if hsk_cek else b"",
            event_log=log,
        )
        return json.dumps(value | more, separators=(",", ":")).encode()

    def verify(
        self,
        evidence: bytes,
        *,
        report_data: bytes | None = DATA,
        endorsements: EndorsementSet | None = None,
        anchors: TrustAnchors | None = None,
        remembered: tee.Remembered | None = None,
        trail: list[Check] | None = None,
        init_data: bytes | None = None,
    ) -> VerifiedEvidence:
        return tee.verify(
            "csv",
            evidence,
            endorsements=self.endorsements if endorsements is None else endorsements,
            now=NOW,
            anchors=anchors or self.anchors,
            report_data=ReportData(report_data) if report_data is not None else None,
            init_data=init_data,
            remembered=remembered,
            trail=trail,
        )


@pytest.fixture(scope="session")
def chip() -> Chip:
    return Chip(CsvForge.new())


@pytest.fixture(scope="session")
def stranger() -> Chip:
    """Another root altogether."""
    return Chip(CsvForge.new())
