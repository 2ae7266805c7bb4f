from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from adyton import tee
from adyton.cli import vectors as runner
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import AdytonError
from adyton.rats.types import RootKind, TrustAnchors
from adyton.tee.nitro import abi, measure
from adyton.tee.nitro.endorsements import ROOT_SPKI

pytestmark = pytest.mark.vectors


@pytest.fixture(scope="session")
def cases(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [case for case in manifest["cases"] if case["tee"] == "nitro"]


def test_every_case_is_as_expected(cases: list[dict[str, Any]], manifest: dict[str, Any], vectors: Path) -> None:
    assert cases
    for case in cases:
        outcome = runner.run(manifest, vectors, case)
        assert outcome.ok, (case["id"], outcome.differs, outcome.got)


def test_real_documents_lead_to_the_pinned_root(cases: list[dict[str, Any]], vectors: Path) -> None:
    memory = tee.Remembered()
    for case in cases:
        if case["expected"]["outcome"] != "valid":
            continue
        document = (vectors / case["files"]["document"]).read_bytes()
        assert abi.parse(document).encode() == document
        call: dict[str, Any] = {"now": datetime.fromisoformat(case["reference_time"]), "anchors": TrustAnchors()}
        cold = tee.verify("nitro", document, endorsements=EndorsementSet(), **call)
        warm = [
            tee.verify("nitro", document, endorsements=EndorsementSet(), remembered=memory, **call) for _ in range(2)
        ]
        assert [cold, cold] == warm
        assert cold.root is RootKind.VENDOR
        assert cold.root_fingerprint == ROOT_SPKI.hex()


def test_register_4_is_the_parent_instance(cases: list[dict[str, Any]], vectors: Path) -> None:
    """What AWS says of registers 3 and 4 holds for every real document: the module's id begins with the instance's."""
    for case in cases:
        document = abi.parse((vectors / case["files"]["document"]).read_bytes())
        instance, _, _ = document.module_id.partition("-enc")
        assert document.pcrs[measure.INSTANCE] == measure.instance_pcr(instance)


def test_one_flipped_bit_of_a_real_document(cases: list[dict[str, Any]], vectors: Path) -> None:
    for case in cases:
        if case["expected"]["outcome"] != "valid":
            continue
        document = (vectors / case["files"]["document"]).read_bytes()
        step = 8 * len(document) // 40
        for bit in range(int.from_bytes(hashlib.sha256(document).digest()[:2], "big") % step, 8 * len(document), step):
            wrong = bytearray(document)
            wrong[bit // 8] ^= 1 << bit % 8
            with pytest.raises(AdytonError):
                tee.verify(
                    "nitro",
                    bytes(wrong),
                    endorsements=EndorsementSet(),
                    now=datetime.fromisoformat(case["reference_time"]),
                    anchors=TrustAnchors(),
                )
