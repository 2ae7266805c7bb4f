from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from adyton.broker.audit import MAX_REASON, MAX_REASONS, Auditor, attested_row, reasons
from adyton.errors import AdytonError, FreshnessFailed, NotPermitted, ReleaseRefused
from adyton.protocol import ear
from adyton.protocol.audit_row import AuditEntry
from adyton.protocol.resource import ResourcePath
from adyton.rats.result import Appraisal, AttestationResult, Mismatch, TrustVector
from adyton.rats.types import RootKind
from adyton.stores.sqlite import FILE, Store

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
PATH = ResourcePath("models", "key", "one")
APPRAISAL = Appraisal(
    name="cpu0",
    tee="snp",
    vector=TrustVector.of({"executables": 33, "hardware": 97}),
    policy_id="default",
    policy_digest="0" * 64,
    annotated={
        "adyton": {
            "tee": "snp",
            "measurement": "ab" * 48,
            "host_data": "cd" * 32,
            "root": "custom",
            "root_fingerprint": "ef" * 32,
        },
        "runtime_data_claims": {"tee-pubkey": {"kty": "EC", "x": "KEY-OF-THE-TEE"}, "nonce": "THE-NONCE"},
    },
    mismatches=(
        Mismatch("executables", "measurement", "reference_missing", "snp_launch_measurement", got="ab" * 48),
        Mismatch("hardware", "reported_tcb_snp", "reference_differs", "snp_snp_svn", [9], 8),
    ),
    root=RootKind.CUSTOM,
    root_fingerprint="ef" * 32,
    measurement="ab" * 48,
    host_data="cd" * 32,
)
RESULT = AttestationResult(appraisals=(APPRAISAL,), generation=7, reference_generation=5, expires=NOW)
CLAIMS = ear.read(ear.claims(RESULT, issued=NOW, expires=NOW + timedelta(minutes=5)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    yield store
    store.close()


def last(store: Store) -> AuditEntry:
    return store.audit.list("default")[-1]


def test_without_its_row_no_decision_is_told(store: Store, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("ALTER TABLE audit RENAME TO gone")
    connection.close()
    auditor = Auditor(store)
    for telling in (
        auditor.attested("default", attested_row(RESULT), NOW),
        auditor.attest_refused("default", "snp", FreshnessFailed("stale"), NOW),
        auditor.released("default", PATH, CLAIMS, "workload", NOW),
        auditor.release_refused("default", PATH, None, NotPermitted("no"), NOW),
        auditor.administered("default", "resource.set", "a/b/c", NOW),
    ):
        with pytest.raises(AdytonError):
            asyncio.run(telling)


def test_an_attestation_is_recorded_with_all_that_was_found(store: Store) -> None:
    asyncio.run(Auditor(store).attested("default", attested_row(RESULT), NOW, request_id="r1", peer="127.0.0.1"))
    row = last(store).row
    assert (row.action, row.decision, row.status) == ("attest", "allowed", "contraindicated")
    assert (row.tee, row.measurement, row.host_data) == ("snp", "ab" * 48, "cd" * 32)
    assert (row.root, row.root_fingerprint) == ("custom", "ef" * 32)
    assert [reason.partition(":")[0] for reason in row.reasons] == ["reference_missing", "reference_differs"]
    assert "snp_launch_measurement" in row.reasons[0] and "[9]" in row.reasons[1]
    assert (row.policy_digest, row.reference_generation, row.request_id, row.peer) == ("0" * 64, 5, "r1", "127.0.0.1")


def test_refused_evidence_is_recorded_with_its_reason(store: Store) -> None:
    error = FreshnessFailed("stale", code="nonce_stale", field="nonce", expected="a fresh one")
    asyncio.run(Auditor(store).attest_refused("default", "snp", error, NOW))
    assert last(store).row.reasons == ("nonce_stale: stale (field nonce, expected a fresh one)",)
    assert last(store).row.decision == "refused"


def test_releases_and_refusals_are_recorded(store: Store) -> None:
    auditor = Auditor(store)
    asyncio.run(auditor.released("default", PATH, CLAIMS, "workload", NOW))
    assert (last(store).row.decision, last(store).row.reasons, last(store).row.resource) == (
        "allowed",
        ("by_workload",),
        PATH.uri,
    )
    assert (last(store).row.policy_digest, last(store).row.reference_generation) == ("0" * 64, 5)
    refusal = ReleaseRefused("no", reasons=("workload_not_bound: the resource is…", "not_bound: x", "not_bound: y"))
    asyncio.run(auditor.release_refused("default", PATH, CLAIMS, refusal, NOW))
    row = last(store).row
    assert (row.decision, row.reasons, row.measurement) == ("refused", refusal.reasons, "ab" * 48)
    asyncio.run(auditor.release_refused("default", PATH, None, NotPermitted("no session"), NOW))
    assert last(store).row.reasons == ("not_permitted: no session",) and last(store).row.measurement == ""
    asyncio.run(
        auditor.administered("default", "policy.set", "default_cpu", NOW, actor="admin", error=NotPermitted("no"))
    )
    assert (last(store).row.action, last(store).row.actor, last(store).row.decision) == (
        "policy.set",
        "admin",
        "refused",
    )
    assert store.audit.verify("default").sequence == 4


def test_no_row_holds_a_key_or_a_nonce(store: Store, tmp_path: Path) -> None:
    test_refused_evidence_is_recorded_with_its_reason(store)
    asyncio.run(Auditor(store).attested("default", attested_row(RESULT), NOW))
    asyncio.run(Auditor(store).released("default", PATH, CLAIMS, "workload", NOW))
    for file in tmp_path.iterdir():
        assert b"THE-NONCE" not in file.read_bytes() and b"KEY-OF-THE-TEE" not in file.read_bytes()


def test_reasons_are_bounded() -> None:
    assert reasons(["a", "b", "a"]) == ("a", "b")
    many = reasons(f"code_{number}" for number in range(1000))
    assert len(many) == MAX_REASONS and many[-1] == "more"
    assert len(reasons(["x" * 10_000])[0]) == MAX_REASON


def test_the_worst_submodule_gives_the_status(store: Store) -> None:
    second = replace(APPRAISAL, name="gpu0", vector=TrustVector.of({"hardware": 33}))
    first = replace(APPRAISAL, vector=TrustVector.of({"hardware": 2}))
    both = AttestationResult(appraisals=(first, second), generation=1, reference_generation=1, expires=NOW)
    claims = ear.read(ear.claims(both, issued=NOW, expires=NOW))
    asyncio.run(Auditor(store).released("default", PATH, claims, "image", NOW))
    assert last(store).row.status == "warning"
