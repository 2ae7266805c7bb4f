"""Rows, reading a log from its rows, and proofs about it: whatever is changed is found, and named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton.crypto import merkle
from adyton.errors import DocumentInvalid, LogBroken
from adyton.protocol import audit_proof, audit_row
from adyton.protocol.audit_check import Reading
from adyton.protocol.audit_proof import ConsistencyProof, InclusionProof
from adyton.protocol.audit_row import AuditEntry, AuditRow, Finding
from adyton.protocol.checkpoint import Checkpoint
from adyton.wire import b64, jcs

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
ORIGIN = "adyton/audit/00/default"


def write(number: int, previous: str, *, tenant: str = "default", **row: object) -> bytes:
    made = AuditRow("attest", "allowed", request_id=str(number), **row)  # type: ignore[arg-type]
    at = NOW + timedelta(seconds=number)
    return audit_row.encode(AuditEntry(tenant, number, at, previous, made, audit_row.VERSION))


def log(size: int, *, bad: int = 0) -> list[bytes]:
    """Rows that fit together; ``bad``: this one says something else, and all after it were written anew."""
    rows: list[bytes] = []
    previous = audit_row.START
    for number in range(1, size + 1):
        rows.append(write(number, previous, **({"peer": "forged"} if number == bad else {})))
        previous = audit_row.leaf(rows[-1]).hex()
    return rows


def nodes(rows: list[bytes]) -> merkle.Nodes:
    return lambda level, number: merkle.perfect(
        [audit_row.leaf(row) for row in rows[number << level : (number + 1) << level]]
    )


def at(rows: list[bytes], size: int | None = None) -> Checkpoint:
    count = len(rows) if size is None else size
    return Checkpoint(ORIGIN, count, merkle.root(count, nodes(rows)))


def read(rows: list[bytes], *checkpoints: Checkpoint) -> Reading:
    reading = Reading("default", checkpoints)
    for row in rows:
        reading.row(row)
    reading.finish()
    return reading


def deleted(rows: list[bytes], number: int) -> list[bytes]:
    return rows[: number - 1] + rows[number:]


CHANGES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str, str]] = {
    "changed": (lambda rows: [*rows[:6], rows[6].replace(b"allowed", b"refused"), *rows[7:]], "row 7", "row_changed"),
    "the first changed": (lambda rows: [rows[0].replace(b"allowed", b"refused"), *rows[1:]], "row 1", "row_changed"),
    "the last changed": (lambda rows: [*rows[:-1], rows[-1].replace(b"allowed", b"refused")], "row 6", "rows_changed"),
    "spaces put in": (lambda rows: [*rows[:6], rows[6].replace(b":", b": ", 1), *rows[7:]], "row 7", "row_changed"),
    "deleted": (lambda rows: deleted(rows, 7), "row 7", "row_missing"),
    "the first deleted": (lambda rows: deleted(rows, 1), "row 1", "row_missing"),
    "cut": (lambda rows: rows[:-1], "row 12", "rows_cut"),
    "emptied": (lambda _: [], "row 1", "rows_cut"),
    "two swapped": (lambda rows: [*rows[:6], rows[7], rows[6], *rows[8:]], "row 7", "row_missing"),
    "one twice": (lambda rows: [*rows[:6], rows[5], *rows[6:]], "row 7", "row_repeated"),
    "unreadable": (lambda rows: [*rows[:6], b"{}", *rows[7:]], "row 7", "row_malformed"),
    "another tenant's": (
        lambda rows: [*rows[:6], rows[6].replace(b'"default"', b'"other"'), *rows[7:]],
        "row 7",
        "row_foreign",
    ),
    "all written anew from one on": (lambda _: log(12, bad=7), "row 6", "rows_changed"),
    "one that begins elsewhere": (lambda rows: [write(1, "11" * 32), *rows[1:]], "row 1", "row_changed"),
}


@pytest.mark.parametrize("way", CHANGES)
def test_whatever_is_changed_is_found_and_named(way: str) -> None:
    rows = log(12)
    change, where, code = CHANGES[way]
    with pytest.raises(LogBroken) as caught:
        read(change(rows), at(rows, 5), at(rows))
    assert (caught.value.field, caught.value.code) == (where, code)
    assert caught.value.hint


def test_rows_put_in_at_the_end_are_found_by_whoever_has_a_later_checkpoint() -> None:
    rows, more = log(12), log(14)
    with pytest.raises(LogBroken):
        read([*rows, write(13, "22" * 32)], at(rows))
    forged = [*rows, write(13, audit_row.leaf(rows[-1]).hex(), actor="forged")]
    assert read(forged, at(rows)).size == 13  # a row at the end is how a log grows
    with pytest.raises(LogBroken):
        read([*forged, write(14, audit_row.leaf(forged[-1]).hex())], at(more))


def test_a_row_whose_stored_hash_differs_is_named_itself() -> None:
    rows = log(3)
    reading = Reading("default")
    reading.row(rows[0], audit_row.leaf(rows[0]))
    with pytest.raises(LogBroken) as caught:
        reading.row(rows[1], audit_row.leaf(rows[2]))
    assert caught.value.field == "row 2"


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 20), st.data())
def test_one_flipped_bit_anywhere_is_found(size: int, draw: st.DataObject) -> None:
    rows = log(size)
    end = at(rows)
    row = draw.draw(st.integers(0, size - 1))
    bit = draw.draw(st.integers(0, 8 * len(rows[row]) - 1))
    raw = (int.from_bytes(rows[row]) ^ 1 << bit).to_bytes(len(rows[row]))
    with pytest.raises(LogBroken) as caught:
        read([*rows[:row], raw, *rows[row + 1 :]], end)
    named = int(str(caught.value.field).removeprefix("row "))
    # Named exactly, or as one that does not fit the changed one; the last has no successor to tell where.
    assert named in {row, row + 1} or (row == size - 1 and named == 1)


def test_reading_goes_on_from_a_frontier() -> None:
    rows = log(20)
    for start in (0, 1, 7, 16, 20):
        edge = merkle.frontier(start, nodes(rows))
        reading = Reading("default", [at(rows, start), at(rows)], edge)
        for row in rows[start:]:
            reading.row(row)
        reading.finish()
        assert reading.root() == at(rows).root
    with pytest.raises(LogBroken):
        Reading("default", [at(log(20, bad=3), 7)], merkle.frontier(7, nodes(rows)))
    with pytest.raises(ValueError, match="before the frontier"):
        Reading("default", [at(rows, 3)], merkle.frontier(7, nodes(rows)))


def test_rows_of_the_first_version_are_read_and_linked_by_their_plain_digest() -> None:
    old = msgspec.json.Encoder()
    rows: list[bytes] = []
    previous = audit_row.START
    for number in (1, 2, 3):
        entry = AuditEntry("default", number, NOW, previous, AuditRow("attest", "allowed"))
        raw = old.encode(entry).replace(b',"version":1', b"")
        assert b"version" not in raw
        rows.append(raw)
        previous = hashlib.sha256(raw).hexdigest()
    rows.append(write(4, audit_row.leaf(rows[-1]).hex()))
    assert read(rows, at(rows)).size == 4
    with pytest.raises(LogBroken) as caught:
        read([rows[0], rows[1].replace(b"allowed", b"refused"), *rows[2:]])
    assert caught.value.field == "row 2"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=20,
)


@given(json_values, json_values, st.text(max_size=20).filter(str.isprintable), st.tuples(st.integers(0, 127)))
def test_rows_are_canonical_and_come_back(got: object, expected: object, text: str, vector: tuple[int, ...]) -> None:
    finding = Finding("c", "claim", expected=audit_row.shown(expected), got=audit_row.shown(got), text=text)  # type: ignore[arg-type]
    row = AuditRow(
        "release", "refused", resource=text, reference_generation=2**53 - 1, vector=vector, findings=(finding,)
    )
    entry = AuditEntry("default", 7, NOW, audit_row.START, row, audit_row.VERSION)
    body = audit_row.encode(entry)
    assert body == jcs.canonical(json.loads(body))
    assert b"\n" not in body
    assert audit_row.decode(body) == entry


def test_what_is_shown_is_bounded() -> None:
    assert len(str(audit_row.shown("x" * 10_000))) == audit_row.MAX_TEXT
    assert len(audit_row.shown(list(range(1000)))) == audit_row.MAX_ITEMS + 1  # type: ignore[arg-type]
    nested: list[object] = ["x" * 1000]
    for _ in range(3):
        nested = [nested] * 20
    assert len(str(audit_row.shown(nested))) < 2 * audit_row.MAX_ITEMS * audit_row.MAX_TEXT  # type: ignore[arg-type]
    assert audit_row.shown(2**60) == str(2**60)
    assert audit_row.shown(1.5) == "1.5"
    assert audit_row.shown("\ud800") == "?"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'"' + b"x" * 2**20 + b'"'])
def test_what_is_no_row_is_refused(body: bytes) -> None:
    with pytest.raises(LogBroken) as caught:
        audit_row.decode(body)
    assert caught.value.code == "row_malformed"


# --- proofs as files


def proof(rows: list[bytes], number: int) -> InclusionProof:
    path = audit_proof.text_of(merkle.inclusion(number - 1, len(rows), nodes(rows)))
    return InclusionProof(number, len(rows), rows[number - 1].decode(), path, "")


def test_an_inclusion_proof() -> None:
    rows = log(11)
    good = audit_proof.parse(msgspec.json.encode(proof(rows, 4)))
    assert isinstance(good, InclusionProof) and audit_proof.kind(good) == "inclusion"
    assert audit_proof.verify_inclusion(good, "default", at(rows)).row.request_id == "4"
    wrong = [
        msgspec.structs.replace(good, row=good.row.replace("allowed", "refused")),
        msgspec.structs.replace(good, sequence=5),
        msgspec.structs.replace(good, size=12),
        msgspec.structs.replace(good, path=good.path[:-1]),
        msgspec.structs.replace(good, path=(*good.path, good.path[0])),
        msgspec.structs.replace(good, path=good.path[::-1]),
        msgspec.structs.replace(good, row=good.row + "\ud800"),
        proof(log(11, bad=2), 4),
    ]
    for bad in wrong:
        with pytest.raises(LogBroken):
            audit_proof.verify_inclusion(bad, "default", at(rows))
    for other in (at(rows, 10), replace(at(rows), root=bytes(32))):
        with pytest.raises(LogBroken):
            audit_proof.verify_inclusion(good, "default", other)
    with pytest.raises(LogBroken, match="another one"):
        audit_proof.verify_inclusion(good, "other", at(rows))
    with pytest.raises(DocumentInvalid):
        audit_proof.verify_inclusion(msgspec.structs.replace(good, path=("!",)), "default", at(rows))


def test_a_consistency_proof() -> None:
    rows = log(11)
    path = audit_proof.text_of(merkle.consistency(6, 11, nodes(rows)))
    good = audit_proof.parse(msgspec.json.encode(ConsistencyProof(6, 11, path, "")))
    assert isinstance(good, ConsistencyProof) and audit_proof.kind(good) == "consistency"
    audit_proof.verify_consistency(good, at(rows, 6), at(rows))
    for old, new in ((at(rows, 5), at(rows)), (at(rows, 6), at(rows, 10)), (at(log(11, bad=3), 6), at(rows))):
        with pytest.raises(LogBroken):
            audit_proof.verify_consistency(good, old, new)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"[]", b"\xff", b'{"proof":"adyton-audit-inclusion/2"}',
        b'{"proof":"adyton-audit-inclusion/1","sequence":1,"size":1,"row":"","path":[],"checkpoint":"","more":1}',
        b'{"proof":"adyton-audit-inclusion/1","sequence":1,"size":1,"row":"","path":[],"checkpoint":"","size":1}',
    ],
)  # fmt: skip
def test_what_is_no_proof_is_refused(data: bytes) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        audit_proof.parse(data)
    assert caught.value.code == "proof_malformed"


@given(st.binary(max_size=60) | st.text().map(str.encode))
def test_any_bytes_are_a_proof_or_refused(data: bytes) -> None:
    with pytest.raises(DocumentInvalid):
        audit_proof.parse(data)


def test_paths_are_base64() -> None:
    assert b64.decode(audit_proof.text_of([b"\xff" * 32])[0]) == b"\xff" * 32
