"""Cases of Hygon CSV: reports with their chain, under the root that is in the case."""

from __future__ import annotations

from adyton import tee
from adyton.cli.vectors.case import Case, Got
from adyton.rats.types import TrustAnchors


def _report(case: Case, got: Got) -> None:
    report = case.files["report"]
    got.claims |= tee.show("csv", report)
    verified = tee.verify(
        "csv",
        report,
        endorsements=case.endorsements("hsk_cek", "root"),
        now=case.now,
        anchors=TrustAnchors(),
        revocation=case.revocation(got),
    )
    got.claims |= verified.claims


RUNNERS = {"csv-report-with-chain": _report}
