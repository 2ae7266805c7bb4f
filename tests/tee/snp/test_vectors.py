from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import AdytonError
from adyton.rats.types import Check, Revocation, RootKind, TrustAnchors

pytestmark = pytest.mark.vectors


@pytest.fixture(scope="session")
def cases(vectors: Path, manifest: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, bytes]]]:
    """Each real report with the contents of its files."""
    return [
        (case, {role: (vectors / path).read_bytes() for role, path in case["files"].items()})
        for case in manifest["cases"]
        if case["kind"] == "report-with-vcek"
    ]


def test_every_real_report(cases: list[tuple[dict[str, Any], dict[str, bytes]]]) -> None:
    assert len(cases) == 18
    for case, files in cases:
        trail: list[Check] = []
        failure = None
        try:
            verified = tee.verify(
                "snp",
                files["report"],
                endorsements=EndorsementSet.parse([files["endorsement_key"], files["chain"]]),
                now=datetime.fromisoformat(case["reference_time"]),
                anchors=TrustAnchors(),
                revocation=Revocation.UNCHECKED_AS_ASKED,
                trail=trail,
            )
        except AdytonError as error:
            failure = error.code
        if case["expected"]["outcome"] == "valid":
            assert failure is None, case["id"]
            assert {name: verified.claims.get(name) for name in case["claims"]} == case["claims"]
            assert verified.root is RootKind.VENDOR
            assert [(check.id, check.ok) for check in trail] == [(check.id, True) for check in verified.checks]
            assert "revocation" in verified.unchecked
        else:
            names = case["expected"]["failure"]
            assert failure in (names if isinstance(names, list) else [names]), case["id"]
            assert [check.ok for check in trail] == [True] * (len(trail) - 1) + [False]
            shown = tee.show("snp", files["report"])
            of_certificate = {"product", "hwid_len"}
            assert {name: shown.get(name) for name in case["claims"].keys() - of_certificate} == {
                name: value for name, value in case["claims"].items() if name not in of_certificate
            }
