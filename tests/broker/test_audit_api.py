"""The record as its owner and an auditor see it, over HTTP: rows, checkpoints, proofs, and decisions explained."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.broker import rig

from adyton.broker.record import audit_api
from adyton.broker.record.checkpoints import DUE_AFTER, DUE_ROWS, NAME, Checkpoints
from adyton.client.handshake import Session
from adyton.crypto import merkle
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import AdytonError, LogBroken, MalformedRequest, NotFound, ReleaseRefused, Unavailable
from adyton.protocol import audit_proof, audit_row, checkpoint
from adyton.protocol.audit_row import AuditRow
from adyton.protocol.checkpoint import Checkpoint, LogKey
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores import schema
from adyton.stores.sqlite import FILE, Store

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
KEY = ResourcePath("default", "key", "1")
ROW = AuditRow("attest", "refused", reasons=("nonce_stale: stale",))


# ---------------------------------------------------------------- the broker's own key


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "data", root_key=bytes(32), now=NOW)
    yield store
    store.close()


def changed(store: Store, directory: Path, *statements: str) -> None:
    connection = sqlite3.connect(directory / "data" / FILE)
    with connection:
        for trigger in schema.APPEND_ONLY:
            connection.execute(f"DROP TRIGGER IF EXISTS {trigger.split()[2]}")
        for statement in statements:
            connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("DELETE FROM audit WHERE sequence>290", "rows_cut"),
        ("UPDATE audit SET leaf=zeroblob(32) WHERE sequence=299", "proof_broken"),
        ("UPDATE audit_nodes SET hash=zeroblob(32)", "proof_broken"),
        ("DELETE FROM audit_nodes", "nodes_missing"),
        ("UPDATE checkpoints SET note=replace(note, '300', '200')", "checkpoint_forged"),
        ("UPDATE checkpoints SET note='x'", "checkpoint_malformed"),
    ],
)
def test_nothing_is_signed_that_does_not_continue_what_was_signed(
    store: Store, tmp_path: Path, statement: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    signing = Checkpoints(store)
    store.audit._commit([("default", ROW, NOW)] * 300)
    signing.sign("default", NOW)
    changed(store, tmp_path, statement)
    with pytest.raises(AdytonError) as caught:
        signing.sign("default", NOW + timedelta(hours=1))
    assert caught.value.code == code
    store.audit._commit([("other", ROW, NOW)] * 2)
    if "audit SET leaf" not in statement and "nodes" not in statement and "checkpoints" not in statement:
        signing.sign_due(NOW + timedelta(hours=1))
        assert "cannot be signed" in caplog.text
    assert len(store.audit.checkpoints("default")) == 1


def test_stored_keys_that_cannot_be_read(store: Store) -> None:
    store.secrets.set(NAME, b"{}")
    with pytest.raises(Unavailable):
        Checkpoints(store)


def test_checkpoints_of_one_broker(store: Store) -> None:
    signing = Checkpoints(store)
    empty = signing.sign("default", NOW)
    assert checkpoint.parse(empty).size == 0
    store.audit._commit([("default", ROW, NOW)] * 3 + [("other", ROW, NOW)])
    note = signing.sign("default", NOW)
    assert signing.sign("default", NOW + timedelta(days=1)) == note  # nothing came since
    found = checkpoint.verify(note, [signing.key("default")], origin=signing.key("default").name)
    assert found == Checkpoint(found.origin, 3, store.audit.root("default", 3))
    assert found.origin.endswith("/default") and signing.key("other").name != found.origin
    with pytest.raises(LogBroken):
        checkpoint.verify(note, [signing.key("other")])
    assert [one.size for one in signing.all("default")] == [0, 3]
    # The key lasts, and is one for all workers.
    assert Checkpoints(store).key("default") == signing.key("default")
    assert LogKey.parse(signing.key("default").text()) == signing.key("default")


def test_checkpoints_are_signed_when_due(store: Store) -> None:
    signing = Checkpoints(store)

    def sizes() -> list[int]:
        return [kept.size for kept in store.audit.checkpoints("default")]

    signing.sign_due(NOW)
    assert sizes() == []
    store.audit._commit([("default", ROW, NOW)])
    signing.sign_due(NOW)
    store.audit._commit([("default", ROW, NOW)])
    signing.sign_due(NOW + DUE_AFTER / 2)
    assert sizes() == [1]
    signing.sign_due(NOW + DUE_AFTER)
    assert sizes() == [1, 2]
    signing.sign_due(NOW + 3 * DUE_AFTER)
    store.audit._commit([("default", ROW, NOW)] * DUE_ROWS)
    signing.sign_due(NOW + DUE_AFTER)
    assert sizes() == [1, 2, DUE_ROWS + 2]


def test_a_decisions_name_is_its_tenants(store: Store) -> None:
    signing = Checkpoints(store)
    name = signing.decision("default", 7)
    assert signing.sequence("default", name) == 7
    assert signing.sequence("other", name) is None
    assert Checkpoints(store).sequence("default", name) == 7


# ---------------------------------------------------------------- over HTTP


def refused(broker: rig.RunningBroker, root: DevelopmentRoot, **fields: Any) -> str:
    """What a stranger is told."""
    with (
        Session(broker.address(), rig.attester(root, **fields), rig.document().raw) as session,
        pytest.raises(ReleaseRefused) as caught,
    ):
        session.resource(KEY)
    found = re.search(r"\(decision ([a-z2-7]{26})\)", str(caught.value))
    assert found, caught.value
    return found[1]


def test_who_is_not_the_owner_learns_nothing(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    name = refused(broker, root, measurement=bytes(48))
    with rig.raw(broker) as client:
        for path in (
            "",
            "/head",
            "/rows",
            "/key",
            "/checkpoint",
            "/verify",
            "/frontier",
            "/inclusion/1",
            f"/decisions/{name}",
        ):
            assert client.ask("GET", f"/api/v0/audit{path}")[0] == 401


def test_no_request_changes_the_record(broker: rig.RunningBroker) -> None:
    token = (broker.data / "admin.token").read_text().strip()
    with rig.raw(broker) as client:
        for method in ("POST", "PUT", "DELETE"):
            for path in ("", "/rows", "/checkpoint", "/decisions/1"):
                assert client.ask(method, f"/api/v0/audit{path}", b"{}", {"Authorization": f"Bearer {token}"})[0] == 405


@pytest.mark.parametrize("query", ["rows?after=x", "rows?after=-1", "rows?limit=%C2%B2", "frontier?size=1e3", "consistency?old=", "inclusion/1?size=" + "9" * 20])  # fmt: skip
def test_numbers_are_numbers(broker: rig.RunningBroker, query: str) -> None:
    with broker.admin() as admin, pytest.raises(MalformedRequest):
        admin._send("GET", f"/audit/{query}")


@pytest.mark.parametrize("name", ["0", "99999999", "abc", "a" * 26, "7" * 26, "ünnamed", "1/2", "-1"])
def test_what_is_no_decision(broker: rig.RunningBroker, name: str) -> None:
    with broker.admin() as admin:
        for ask in (admin.explain, admin.audit_inclusion):
            with pytest.raises(NotFound):
                ask(name)


def test_a_refusal_is_explained_to_the_owner_and_not_to_another(
    broker: rig.RunningBroker, root: DevelopmentRoot
) -> None:
    name = refused(broker, root, measurement=bytes(48), policy=0x30000 | 1 << 19)
    with broker.admin("other") as other, pytest.raises(NotFound):
        other.explain(name)
    with broker.admin() as admin:
        found = admin.explain(name)
        assert admin.explain(str(found.decision.sequence)) == found
        listed = admin.audit(limit=1)[0]
    assert listed["id"] == name == found.decision.id
    assert found.decision.row.action == "release" and found.decision.row.resource == KEY.uri
    by_claim = {one.finding.claim: one for one in found.findings if one.finding.claim}
    measured = by_claim["measurement"]
    assert measured.finding.expected == [rig.MEASUREMENT.hex()] and measured.finding.got == "00" * 48
    assert measured.finding.reference == "snp_launch_measurement"
    assert "snp_launch_measurement, version" in measured.provider and "by hand" in measured.provider
    assert measured.actor == "owner" and "adyton reference set snp_launch_measurement" in measured.cure
    assert measured.holds_now is False
    debug = by_claim["policy_debug_allowed"]
    assert (debug.finding.expected, debug.finding.got, debug.actor) == (False, True, "attester")
    by_code = {one.finding.code: one for one in found.findings}
    assert "executables_not_accepted" in by_code
    unknown = by_code["measurement_unknown"]
    assert (unknown.cure, unknown.holds_now) == (measured.cure, False)
    assert rig.MEASUREMENT.hex() in unknown.cure  # what is accepted stays accepted
    assert [other.row.action for other in found.others] == ["attest"]
    assert found.others[0].row.claims and len(found.decision.row.vector) == 8
    assert found.policy_changed is False and found.references_changed is False


def test_a_cure_is_seen_to_work(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    name = refused(broker, root, measurement=b"\x01" * 48)
    try:
        broker.publish(snp_launch_measurement=[rig.MEASUREMENT.hex(), "01" * 48])
        with broker.admin() as admin:
            found = admin.explain(name)
        measured = next(one for one in found.findings if one.finding.claim == "measurement")
        assert measured.holds_now is True and found.references_changed is True
    finally:
        broker.publish()


def test_evidence_that_was_refused_is_explained(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with rig.raw(broker) as client:
        client.ask("POST", "/kbs/v0/auth", b'{"version":"0.4.0","tee":"snp","extra-params":""}')
        key = ec.generate_private_key(ec.SECP256R1())
        status, body, _ = client.ask("POST", "/kbs/v0/attest", rig.attest_body("AAAA", rig.attester(root), None, key))
    assert status == 401
    name = re.findall(rb"\(decision ([a-z2-7]{26})\)", body)
    with broker.admin() as admin:
        found = admin.explain(name[0].decode())
    assert found.decision.row.decision == "refused"
    assert [one.finding.code for one in found.findings] == ["nonce_mismatch"]


def test_what_was_allowed_is_explained_too(broker: rig.RunningBroker, root: DevelopmentRoot) -> None:
    with Session(broker.address(), rig.attester(root), rig.document().raw) as session:
        assert session.resource(KEY) == rig.SECRET
    with broker.admin() as admin:
        found = admin.explain(admin.audit(limit=1)[0]["id"])
    row = found.decision.row
    assert (row.decision, row.reasons, found.findings) == ("allowed", ("by_workload",), ())
    assert row.version is not None


def test_an_administrators_mistake_is_explained(broker: rig.RunningBroker) -> None:
    with broker.admin() as admin:
        admin.set_resource(ResourcePath("explained", "key", "1"), b"x", Binding())
        found = admin.explain(str(admin.audit_head().sequence))
    assert found.decision.row.action == "resource.set" and found.policy_changed is None


def test_rows_checkpoints_and_proofs_belong_together(broker: rig.RunningBroker) -> None:
    with broker.admin("together") as admin:
        for number in range(3):
            admin.set_resource(ResourcePath("proved", "before", str(number)), b"x", Binding())
        key = LogKey.parse(admin.audit_key().key)
        old = checkpoint.verify(admin.audit_checkpoint(), [key], origin=key.name)
        admin.set_resource(ResourcePath("proved", "key", "1"), b"x", Binding())
        new = checkpoint.verify(admin.audit_checkpoint(), [key], origin=key.name)
        assert new.size > old.size
        bodies: list[bytes] = []
        while page := admin.audit_rows(len(bodies), limit=7):
            bodies += page
        edge = merkle.Frontier()
        for body in bodies[: new.size]:
            edge.push(audit_row.leaf(body))
        assert edge.root() == new.root
        assert audit_proof.text_of(list(edge.peaks)) == admin.audit_frontier(new.size).peaks
        proof = admin.audit_inclusion("1", new.size)
        assert audit_proof.verify_inclusion(proof, "together", new).sequence == 1
        assert checkpoint.parse(proof.checkpoint) == new
        fresh = admin.audit_inclusion("1")
        audit_proof.verify_inclusion(fresh, "together", checkpoint.verify(fresh.checkpoint, [key]))
        audit_proof.verify_consistency(admin.audit_consistency(old.size, new.size), old, new)
        later = admin.audit_consistency(old.size)
        audit_proof.verify_consistency(later, old, checkpoint.parse(later.checkpoint))
        kept = admin.audit_checkpoints(after=old.size - 1)
        assert [checkpoint.parse(one.note).size for one in kept][:2] == [old.size, new.size]
        report = admin.audit_verify()
        assert report.broken is None and report.sequence >= new.size and report.checkpoints >= 2
        head = admin.audit_head()
        assert head.sequence >= new.size and len(head.root) == 64
        signed = {checkpoint.parse(one.note).size for one in admin.audit_checkpoints()}
        unsigned = next(size for size in range(1, new.size) if size not in signed)
        assert admin.audit_inclusion("1", unsigned).checkpoint == ""


def test_tenants_logs_are_apart(broker: rig.RunningBroker) -> None:
    with broker.admin("log-one") as one, broker.admin("log-two") as two:
        one.set_resource(ResourcePath("a", "b", "c"), b"x", Binding())
        assert one.audit_key().origin != two.audit_key().origin
        assert two.audit_head().sequence == 0 and two.audit_rows(0) == []
        size = one.audit_head().sequence
        with pytest.raises(NotFound):
            two.audit_inclusion("1", size)
        with pytest.raises(LogBroken):
            checkpoint.verify(one.audit_checkpoint(), [LogKey.parse(two.audit_key().key)])


def test_a_broker_says_that_its_log_was_changed(tmp_path: Path, root: DevelopmentRoot) -> None:
    running = rig.started(tmp_path / "data", root)
    try:
        running.publish()
        with running.admin() as admin:
            admin.audit_checkpoint()
            assert admin.audit_verify().broken is None
            connection = sqlite3.connect(running.data / FILE)
            with connection:
                for trigger in schema.APPEND_ONLY:
                    connection.execute(f"DROP TRIGGER {trigger.split()[2]}")
                connection.execute(
                    "UPDATE audit SET body=cast(replace(cast(body AS text), 'reference.set', 'reference.sat') AS blob)"
                    " WHERE sequence=3"
                )
            connection.close()
            broken = admin.audit_verify().broken
            assert broken is not None and (broken["code"], broken["field"]) == ("row_changed", "row 3")
    finally:
        running.stop()


def test_what_is_written_can_be_read_by_msgspec_and_stays_canonical(broker: rig.RunningBroker) -> None:
    with broker.admin() as admin:
        for body in admin.audit_rows(0):
            assert audit_row.encode(audit_row.decode(body)) == body
            assert msgspec.json.decode(body)["version"] == audit_row.VERSION


def test_an_answer_holds_what_fits_and_one_row_at_least() -> None:
    half = bytes(audit_api.MAX_ANSWER // 2)
    assert audit_api._first([]) == []
    assert len(audit_api._first([half, half, half])) == 2
    assert len(audit_api._first([half * 3, half])) == 1
