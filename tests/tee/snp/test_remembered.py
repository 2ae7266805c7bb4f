from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adyton import tee
from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.errors import AdytonError
from adyton.rats.types import Revocation, TrustAnchors
from adyton.tee.remembered import Chain, Remembered, Window

DAY = timedelta(days=1)


def outcome(
    issuer: Any, report: bytes, given: EndorsementSet, now: datetime, memory: Remembered | None, **more: Any
) -> object:
    """The whole verdict, error or evidence, in comparable form."""
    arguments = {"anchors": issuer.anchors} | more
    try:
        return tee.verify("snp", report, endorsements=given, now=now, remembered=memory, **arguments)
    except AdytonError as error:
        return (type(error), error.as_dict())


@pytest.fixture(scope="session")
def choices(genoa: Any, now: datetime) -> dict[str, bytes]:
    """Parts whose lifetimes begin and end on different days, one of them a list that revokes."""
    serial = Certificate(genoa.standard("vcek")).serial
    return {
        "vcek": genoa.standard("vcek"),
        "vcek again, shorter": genoa.leaf(not_before=now - 3 * DAY, not_after=now + 3 * DAY),
        "vcek of another TCB": genoa.leaf(tcb={"boot_loader": 9, "tee": 0, "snp": 23, "microcode": 84}),
        "vcek of a stranger": genoa.leaf(signer=genoa.keys.other),
        "ask": genoa.standard("ask"),
        "ask again, shorter": genoa.ask(not_before=now - 2 * DAY, not_after=now + 2 * DAY),
        "ark": genoa.standard("ark"),
        "ark again, shorter": genoa.ark(not_before=now - 4 * DAY, not_after=now + 4 * DAY),
        "crl": genoa.standard("crl"),
        "crl, later": genoa.crl(this_update=now + 1 * DAY, next_update=now + 60 * DAY),
        "crl, later, revoking": genoa.crl([serial], this_update=now + 1 * DAY, next_update=now + 60 * DAY),
        "crl of a stranger": genoa.crl([serial], signer=genoa.keys.other),
    }


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_remembering_never_changes_a_verdict(
    genoa: Any, now: datetime, choices: dict[str, bytes], data: st.DataObject
) -> None:
    """One memory over many verifications, with sets, times, anchors and reports in any order: always as if fresh."""
    memory = Remembered(limit=data.draw(st.integers(1, 4)))
    names = st.lists(st.sampled_from(sorted(choices)), unique=True, min_size=4)
    sets = [
        EndorsementSet.parse(
            choices[name] for name in data.draw(st.permutations(sorted({"vcek", "ask", "ark", *drawn})))
        )
        for drawn in data.draw(st.lists(names, min_size=1, max_size=3))
    ]
    reports = [
        genoa.report(),
        genoa.report(vmpl=1),
        genoa.report(chip_id=bytes(64)),
        genoa.report(report_id=b"\7" * 32),
    ]
    seconds = st.sampled_from([-400, -5, -4, -3, -2, 0, 0, 0, 1, 2, 3, 4, 39, 40, 41, 59, 400])
    for _ in range(data.draw(st.integers(2, 6))):
        given = data.draw(st.sampled_from(sets))
        report = data.draw(st.sampled_from(reports))
        at = now + data.draw(seconds) * DAY + timedelta(seconds=data.draw(st.sampled_from([-1, 0, 1])))
        more: dict[str, Any] = {"revocation": data.draw(st.sampled_from(Revocation))}
        if data.draw(st.booleans()):
            more["anchors"] = data.draw(
                st.sampled_from([TrustAnchors(), TrustAnchors(vendor=False, custom=genoa.anchors.custom)])
            )
        fresh = outcome(genoa, report, given, at, None, **more)
        assert outcome(genoa, report, given, at, memory, **more) == fresh
        assert outcome(genoa, report, given, at, memory, **more) == fresh
        turned = EndorsementSet([*given.certificates][::-1], [*given.crls][::-1])
        assert turned == given
        assert outcome(genoa, report, turned, at, None, **more) == fresh  # no verdict hangs on the order of files


def test_a_known_chain_is_not_verified_again(genoa: Any, now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Remembered()
    first = outcome(genoa, genoa.report(), genoa.set_of(), now, memory)
    assert len(memory) == 1

    def never(*_: object, **__: object) -> None:
        raise AssertionError("walked again")

    monkeypatch.setattr("adyton.tee.snp.endorsements.Walk.links", never)
    assert outcome(genoa, genoa.report(), genoa.set_of(), now, memory) == first
    with pytest.raises(AssertionError, match="walked again"):
        outcome(genoa, genoa.report(), genoa.set_of(), now + 41 * DAY, memory)


def test_failures_are_not_remembered(genoa: Any, now: datetime) -> None:
    memory = Remembered()
    outcome(genoa, genoa.report(), genoa.set_of(crl=None), now, memory)
    outcome(genoa, genoa.report(vlek=True), genoa.set_of(), now, memory)
    assert len(memory) == 0


def test_the_memory_is_bounded_and_forgets_the_least_used() -> None:
    window = Window(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))
    inside, outside = datetime(2026, 1, 15, tzinfo=UTC), datetime(2026, 2, 2, tzinfo=UTC)
    memory = Remembered(limit=2)
    memory.keep("a", Chain("A", window))
    memory.keep("b", Chain("B", window))
    assert memory.recall("a", inside) == "A"
    memory.keep("c", Chain("C", window))
    assert (memory.recall("a", inside), memory.recall("b", inside), memory.recall("c", inside)) == ("A", None, "C")
    assert len(memory) == 2
    assert memory.recall("a", outside) is None
    with pytest.raises(ValueError, match="no chains"):
        Remembered(limit=0)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=6),
    st.integers(0, 40),
    st.integers(0, 40),
)
def test_inside_a_window_nothing_begins_or_ends(lifetimes: list[tuple[int, int]], now: int, other: int) -> None:
    base = datetime(2026, 1, 1, tzinfo=UTC)
    spans = [(base + begin * DAY, base + end * DAY) for begin, end in lifetimes]
    window = Window.around(base + now * DAY, spans)
    assert base + now * DAY in window

    def alive(moment: int) -> list[tuple[bool, bool]]:
        return [(begin <= base + moment * DAY, base + moment * DAY <= end) for begin, end in spans]

    assert (base + other * DAY in window) is (alive(other) == alive(now))


def test_threads_that_share_a_memory_lose_memories_and_nothing_else(now: datetime) -> None:
    memory, window = Remembered(2), Window.around(now, ())
    failures: list[BaseException] = []

    def work(name: int) -> None:
        try:
            for number in range(20_000):
                memory.keep((name, number), Chain(number, window))
                assert memory.recall((name, number), now) in {None, number}
        except BaseException as error:  # noqa: BLE001 -- whatever it is, it must not be lost with its thread
            failures.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failures
    assert len(memory) <= 2 + len(threads)
