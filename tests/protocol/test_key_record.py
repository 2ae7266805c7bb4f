"""The life of a key, whatever is done to it in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.crypto.key_kinds import Kind
from adyton.errors import AdytonError, Conflict, MalformedRequest, NotFound
from adyton.protocol import key_record
from adyton.protocol.key_record import NEWEST_ONLY, RELEASE, KeyRecord, KeyVersion, State

KINDS = [kind for kind in Kind if kind.operations - {"public"}]


def version(number: int, now: int = 0) -> KeyVersion:
    return KeyVersion(number, State.ENABLED, now, now, serial=number)


def turned(record: KeyRecord, step: tuple[str, int], now: int) -> KeyRecord:
    """One step by the module's own functions; a step that is refused changes nothing."""
    name, number = step
    try:
        if name == "rotate":
            return key_record.rotate(record, version(record.newest.number + 1, now))
        return {"disable": key_record.disable, "enable": key_record.enable, "destroy": key_record.destroy}[name](
            record, number, now
        )
    except (Conflict, NotFound):
        return record


STEPS = st.lists(st.tuples(st.sampled_from(["rotate", "disable", "enable", "destroy"]), st.integers(0, 8)), max_size=40)


@given(st.sampled_from(KINDS), st.booleans(), STEPS)
def test_no_sequence_revives_a_destroyed_version_or_lets_out_what_never_leaves(
    kind: Kind, never_export: bool, steps: list[tuple[str, int]]
) -> None:
    record = key_record.make(kind.value, version(1), never_export=never_export)
    dead: set[int] = set()
    for now, step in enumerate(steps):
        record = turned(record, step, now)
        assert [one.number for one in record.versions] == list(range(1, len(record.versions) + 1))
        assert (record.never_export, record.kind) == (never_export, kind.value)
        dead |= {one.number for one in record.versions if one.state is State.DESTROYED}
        for one in record.versions:
            assert (one.number in dead) is (one.state is State.DESTROYED)
            for operation in {*kind.operations, RELEASE}:
                try:
                    served = key_record.usable(record, operation, one.number)
                except Conflict:
                    continue
                assert served.state is State.ENABLED
                assert served.number not in dead
                assert not (never_export and operation == RELEASE)
                assert operation not in NEWEST_ONLY or served is record.newest


def test_never_export_cannot_be_had_with_release() -> None:
    for operations in (None, [], ["encrypt"]):
        record = key_record.make("aes-256", version(1), never_export=True, operations=operations)
        assert RELEASE not in record.operations
        with pytest.raises(Conflict) as error:
            key_record.usable(record, RELEASE)
        assert error.value.code == "key_never_export"
        with pytest.raises(Conflict):
            key_record.allowed(record, RELEASE)
    with pytest.raises(MalformedRequest) as refused:
        key_record.make("aes-256", version(1), never_export=True, operations=[RELEASE])
    assert refused.value.code == "key_operations_invalid"
    for kind in ("random", "configuration", "opaque", "x25519"):
        with pytest.raises(MalformedRequest) as useless:
            key_record.make(kind, version(1), never_export=True)
        assert useless.value.code == "key_useless"


@pytest.mark.parametrize(
    ("operations", "owners"),
    [(["sing"], []), (["sign"], []), (["release", "mac"], []), (None, ["release"]), (None, ["sign"])],
)
def test_operations_that_the_kind_does_not_know(operations: list[str] | None, owners: list[str]) -> None:
    with pytest.raises(MalformedRequest) as error:
        key_record.make("aes-128", version(1), operations=operations, owner_operations=owners)
    assert error.value.code == "key_operations_invalid"


def code(record: KeyRecord, operation: str, number: int | None = None) -> str:
    with pytest.raises(AdytonError) as error:
        key_record.usable(record, operation, number)
    return error.value.code


def test_why_a_version_does_not_serve() -> None:
    record = key_record.make("aes-256", version(1))
    record = key_record.rotate(record, version(2))
    assert code(record, "encrypt", 1) == "key_version_old"
    assert code(record, "decrypt", 3) == "key_version_absent"
    assert code(record, "decrypt", 0) == "key_version_absent"
    assert code(record, "sign") == "key_operation_unknown"
    assert key_record.usable(record, "decrypt", 1).number == 1
    disabled = key_record.disable(record, 2, 5)
    assert code(disabled, "encrypt") == "key_version_disabled"  # no older one takes its place
    assert code(disabled, RELEASE) == "key_version_disabled"
    assert key_record.usable(key_record.enable(disabled, 2, 6), RELEASE).number == 2
    destroyed = key_record.destroy(disabled, 2, 7)
    assert code(destroyed, RELEASE) == "key_version_destroyed"
    for step in (key_record.enable, key_record.disable, key_record.destroy):
        with pytest.raises(Conflict) as error:
            step(destroyed, 2, 8)
        assert error.value.code == "key_version_destroyed"


def test_versions_end() -> None:
    record = key_record.make("aes-256", version(1))
    for number in range(2, key_record.MAX_VERSIONS + 1):
        record = key_record.rotate(record, version(number))
    with pytest.raises(Conflict) as error:
        key_record.rotate(record, version(key_record.MAX_VERSIONS + 1))
    assert error.value.code == "key_versions_full"


def test_public_halves() -> None:
    secret = key_record.make("aes-256", version(1))
    with pytest.raises(Conflict) as error:
        key_record.with_public(secret)
    assert error.value.code == "key_public_absent"
    pair = key_record.disable(key_record.make("p-256", version(1)), 1, 3)
    assert key_record.with_public(pair).number == 1
    with pytest.raises(Conflict):
        key_record.with_public(key_record.destroy(pair, 1, 4))
