"""What the record tells about machines and receivers, against rows that are known."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from tests.broker import rig

from adyton.broker.record import chronicle
from adyton.broker.record.checkpoints import Checkpoints
from adyton.broker.record.chronicle import Chronicle
from adyton.client import transport
from adyton.client.handshake import Session
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import ReleaseRefused
from adyton.protocol.audit_row import AuditRow, Finding
from adyton.protocol.resource import ResourcePath
from adyton.stores.sqlite import Store

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
KEY = ResourcePath("default", "key", "1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "data", root_key=bytes(32), now=NOW)
    yield store
    store.close()


def attested(platform: str, microcode: int, status: str = "affirming") -> AuditRow:
    return AuditRow(
        "attest", "allowed", tee="snp", root="vendor", status=status, platform=platform, tcb={"microcode": microcode}
    )


def released(uri: str, decision: Literal["allowed", "refused"] = "allowed", measurement: str = "aa") -> AuditRow:
    return AuditRow(
        "release", decision, resource=uri, tee="snp", measurement=measurement, host_data="bb", reasons=("why",)
    )


def test_another_tenants_rows_tell_nothing(store: Store) -> None:
    told = Chronicle(store, Checkpoints(store))
    store.audit.append("other", attested("ff", 1), NOW)
    store.audit.append("other", released("kbs:///a/b/c"), NOW)
    assert told.platforms("default").platforms == []
    assert told.receivers("default").receivers == []


def test_a_machine_whose_tcb_changed_is_younger_from_then_on(store: Store) -> None:
    told = Chronicle(store, Checkpoints(store))
    for day, microcode in enumerate([84, 84, 85, 85]):
        store.audit.append("default", attested("ff", microcode), NOW + timedelta(days=day))
        told.platforms("default")  # read on in between: the same as all at once
    (seen,) = told.platforms("default").platforms
    assert (seen.first_seen, seen.tcb_since, seen.last_seen) == (
        "2026-11-21T06:00:00Z", "2026-11-23T06:00:00Z", "2026-11-24T06:00:00Z",
    )  # fmt: skip
    assert (seen.attestations, seen.tcb) == (4, {"microcode": 85})
    assert Chronicle(store, Checkpoints(store)).platforms("default").platforms == [seen]


def test_refusals_of_evidence_and_machines_without_id_are_no_platforms(store: Store) -> None:
    store.audit.append("default", AuditRow("attest", "refused", tee="snp", reasons=("x: y",)), NOW)
    store.audit.append("default", attested("", 1), NOW)
    assert Chronicle(store, Checkpoints(store)).platforms("default").platforms == []


def test_receivers_are_counted_by_what_they_run(store: Store) -> None:
    told = Chronicle(store, Checkpoints(store))
    asked = [released("kbs:///a/b/c"), released("kbs:///a/b/c"), released("kbs:///a/b/c", "refused")]
    for row in [*asked, released("kbs:///a/b/c", "refused", "cc")]:
        store.audit.append("default", row, NOW)
    store.audit.append("default", released("kbs:///a/b/d"), NOW)
    seen = told.receivers("default", "kbs:///a/b/c").receivers
    assert [(one.measurement, one.released, one.refused) for one in seen] == [("cc", 0, 1), ("aa", 2, 1)]
    assert len(told.receivers("default").receivers) == 3
    assert seen[1].last_decision == "refused"


def test_only_the_end_of_a_long_record_counts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "MAX_ROWS", 5)
    monkeypatch.setattr(chronicle, "MAX_KEPT", 3)
    for number in range(12):
        store.audit.append("default", attested(f"{number:02x}", 1), NOW)
    told = Chronicle(store, Checkpoints(store)).platforms("default")
    assert told.after == 7
    assert [one.platform for one in told.platforms] == ["0b", "0a", "09"]


def test_long_rows_make_nothing_large(store: Store) -> None:
    """A workload that asks for much that it may not have, with evidence that much is wrong with, writes rows like this."""
    wrong = tuple([Finding(f"code{n}", text="t" * 400, expected=["e" * 400] * 16, got="g" * 400) for n in range(40)])
    reasons = tuple([f"code{n}: " + "r" * 390 for n in range(40)])
    told = Chronicle(store, Checkpoints(store))
    for number in range(60):
        row = AuditRow(
            "release", "refused", resource=f"kbs:///r/t/{number}", tee="snp", reasons=reasons, findings=wrong
        )
        store.audit.append("default", row, NOW)
    tracemalloc.start()
    try:
        seen = told.receivers("default")
        assert tracemalloc.get_traced_memory()[0] < 60 * 4000
    finally:
        tracemalloc.stop()
    assert len(seen.receivers) == 60 and seen.receivers[0].reasons[0].startswith("code0: r")
    whole = len(msgspec.json.encode(seen)) / 60 * chronicle.MAX_KEPT
    assert whole < transport.MAX_ANSWER, "or nobody could read the answer"


def test_a_store_that_was_put_back_is_read_anew(store: Store, tmp_path: Path) -> None:
    told = Chronicle(store, Checkpoints(store))
    for number in range(5):
        store.audit.append("default", released(f"kbs:///a/b/{number}"), NOW)
    assert len(told.receivers("default").receivers) == 5
    with closing(Store.open(tmp_path / "older", root_key=bytes(32), now=NOW)) as older:
        older.audit.append("default", released("kbs:///a/b/other"), NOW)
        told._log = older.audit
        assert [one.resource for one in told.receivers("default").receivers] == ["kbs:///a/b/other"]


def test_over_http_and_the_command_line(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with broker.session(rig.attester(root)) as session:
        session.resource(KEY)
    other = rig.attester(root, measurement=bytes(48))
    with Session(broker.address(), other, rig.document().raw) as session, pytest.raises(ReleaseRefused):
        session.resource(KEY)
    with broker.admin() as admin:
        platforms = admin.platforms().platforms
        receivers = admin.receivers(KEY.uri).receivers
    assert set(platforms[0].tcb) == {"boot loader", "tee", "snp", "microcode"}
    assert platforms[0].root == "custom"
    runs = rig.document().digest.value.hex()  # others asked this broker too, with documents of their own
    given = {(one.measurement, one.host_data): one.released for one in receivers}
    assert given[bytes(48).hex(), runs] == 0
    assert given[rig.MEASUREMENT.hex(), runs] > 0
    with broker.admin("elsewhere") as admin:
        assert admin.receivers().receivers == []
