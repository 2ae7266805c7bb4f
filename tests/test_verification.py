"""``adyton.verify``: what a stranger's program sees."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import adyton
from adyton.errors import AdytonError, EndorsementMissing, EndorsementUntrusted, UnsupportedEvidence
from adyton.rats.types import Revocation, RootKind
from adyton.tee.recognise import recognise

AT = datetime(2025, 2, 23, 2, 21, 48, tzinfo=UTC)


@pytest.fixture
def genoa(vectors: Path) -> tuple[bytes, list[bytes]]:
    names = ("snp/certs/genoa-v3-azure-vcek.der", "roots/amd-genoa-ask-ark-asvk.pem")
    return (vectors / "snp/reports/genoa-v3-azure.bin").read_bytes(), [(vectors / name).read_bytes() for name in names]


@pytest.mark.vectors
def test_missing_endorsements_and_wrong_roots_are_refused(genoa: tuple[bytes, list[bytes]], vectors: Path) -> None:
    report, endorsements = genoa
    with pytest.raises(EndorsementMissing):
        adyton.verify(report, at=AT)
    with pytest.raises(EndorsementMissing) as unknown:
        adyton.verify(report, endorsements=endorsements, at=AT)
    assert unknown.value.code == "revocation_unknown"
    milan = (vectors / "roots/amd-milan-ask-ark-asvk.pem").read_bytes()
    with pytest.raises(EndorsementUntrusted):
        adyton.verify(
            report, endorsements=endorsements, at=AT, trust_roots=milan, revocation=Revocation.UNCHECKED_AS_ASKED
        )
    with pytest.raises(ValueError, match="time zone"):
        adyton.verify(report, endorsements=endorsements, at=AT.replace(tzinfo=None))


@pytest.mark.vectors
def test_one_call_from_many_threads(genoa: tuple[bytes, list[bytes]]) -> None:
    report, endorsements = genoa

    def once(_: int) -> object:
        return adyton.verify(report, endorsements=endorsements, at=AT, revocation=Revocation.UNCHECKED_AS_ASKED).claims[
            "measurement"
        ]

    with ThreadPoolExecutor(8) as pool:
        assert len({*pool.map(once, range(40))}) == 1
    verified = adyton.verify(
        report, endorsements=endorsements, at=AT, trust_roots=endorsements[1], revocation=Revocation.UNCHECKED_AS_ASKED
    )
    assert verified.root is RootKind.CUSTOM


@given(st.binary(max_size=2000) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_recognised_or_refused_and_never_verified(evidence: bytes) -> None:
    try:
        recognise(evidence)
    except UnsupportedEvidence as error:
        assert error.code == "tee_unknown"
    with pytest.raises(AdytonError):
        adyton.verify(evidence, at=AT)


@pytest.mark.vectors
def test_every_vector_of_one_piece_is_recognised(vectors: Path, manifest: dict[str, list[dict[str, object]]]) -> None:
    wire = {"azure-vtpm": {"az-snp-vtpm", "az-tdx-vtpm"}}
    roles = {
        "sgx": "quote",
        "tdx": "quote",
        "snp": "report",
        "nitro": "document",
        "cca": "token",
        "azure-vtpm": "evidence",
    }
    seen = 0
    for case in manifest["cases"]:
        tee, files = str(case["tee"]), case["files"]
        assert isinstance(files, dict)
        role = roles.get(tee)
        if role is None or role not in files or case["expected"]["outcome"] != "valid":  # type: ignore[index]
            continue
        content = (vectors / files[role]).read_bytes()
        assert recognise(content) in wire.get(tee, {tee}), case["id"]
        seen += 1
    assert seen > 100


def test_import_is_lean() -> None:
    code = (
        "import sys, adyton.tee.snp.verify\n"
        "bad = [m for m in sys.modules if m.startswith(('adyton.broker', 'adyton.agent', 'adyton.stores', 'asyncio',"
        " 'http', 'uvloop', 'httptools', 'regopy', 'lxml', 'cbor2', 'click', 'rich', 'sqlite3'))]\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with pytest.raises(AttributeError):
        adyton.nothing  # noqa: B018
