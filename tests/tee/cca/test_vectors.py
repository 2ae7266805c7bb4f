from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adyton import tee
from adyton.cli import vectors as runner
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import AdytonError, EndorsementUntrusted
from adyton.rats.types import RootKind, TrustAnchors
from adyton.tee.cca import abi

pytestmark = pytest.mark.vectors
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def cases(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [case for case in manifest["cases"] if case["tee"] == "cca"]


def test_every_case_is_as_expected(cases: list[dict[str, Any]], manifest: dict[str, Any], vectors: Path) -> None:
    assert cases
    for case in cases:
        outcome = runner.run(manifest, vectors, case)
        assert outcome.ok, (case["id"], outcome.differs, outcome.got)


def test_public_test_keys_are_not_trusted_by_default(cases: list[dict[str, Any]], vectors: Path) -> None:
    for case in cases:
        if case["kind"] != "cca-token":
            continue
        token, key = ((vectors / case["files"][role]).read_bytes() for role in ("token", "cpak"))
        given = EndorsementSet.parse([key])
        with pytest.raises(EndorsementUntrusted):
            tee.verify("cca", token, endorsements=given, now=NOW, anchors=TrustAnchors())
        trusted = TrustAnchors(custom=frozenset(hashlib.sha256(document).digest() for document in given.documents))
        verified = tee.verify("cca", token, endorsements=given, now=NOW, anchors=trusted)
        assert verified.root is RootKind.CUSTOM
        assert abi.parse(token).encode() == token


def test_one_flipped_bit(cases: list[dict[str, Any]], vectors: Path) -> None:
    for case in cases:
        if case["kind"] != "cca-token":
            continue
        token, key = ((vectors / case["files"][role]).read_bytes() for role in ("token", "cpak"))
        given = EndorsementSet.parse([key])
        trusted = TrustAnchors(custom=frozenset(hashlib.sha256(document).digest() for document in given.documents))
        for bit in range(24, 8 * len(token), 8 * len(token) // 97):
            wrong = bytearray(token)
            wrong[bit // 8] ^= 1 << bit % 8
            with pytest.raises(AdytonError):
                tee.verify("cca", bytes(wrong), endorsements=given, now=NOW, anchors=trusted)
