from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace
from tests.broker import test_appraiser as desk

from adyton.broker import session, statement
from adyton.broker.appraiser import Appraiser, Likeness
from adyton.broker.holders import Holder, Holders
from adyton.broker.policy.rego import RegoEngine
from adyton.broker.release import Permit, Releaser
from adyton.config import Environment
from adyton.crypto import jwk
from adyton.crypto.aead import KeyRing
from adyton.errors import BindingMismatch, ReleaseRefused, SessionInvalid
from adyton.protocol import ear, ear_form, initdata, workload
from adyton.protocol.rcar import Attestation
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.rats.result import AttestationResult
from adyton.rats.types import ReportData, RootKind, VerifiedEvidence
from adyton.wire import b64

RING = KeyRing({b"ring": bytes(32)}, b"ring")
NOW = int(desk.NOW.timestamp())


@pytest.fixture(scope="module")
def engine() -> Iterator[RegoEngine]:
    engine = RegoEngine()
    yield engine
    engine.close()


@pytest.fixture
def bench(tmp_path: Path, engine: RegoEngine) -> Iterator[desk.Bench]:
    bench = desk.Bench(tmp_path, engine)
    bench.publish({**desk.REFERENCES, **desk.STRICT})
    yield bench
    bench.store.close()


def like(number: int, alike: object = "one guest", **changes: Any) -> VerifiedEvidence:
    data = bytes([number]) * 64
    claims = {**desk.CLAIMS, "report_data": data.hex()}
    return replace(desk.EVIDENCE, alike=alike, report_data=ReportData(data), coco_claims=claims, **changes)


def asked(number: int, additional: str = "") -> Attestation:
    key = jwk.from_public(ec.derive_private_key(number + 1, ec.SECP256R1()).public_key())
    return Attestation(b64.encode(bytes([number]) * 32), key, b"{}", additional, desk.DOCUMENT.raw, "toml")


def appraised(
    bench: desk.Bench, item: VerifiedEvidence, request: Attestation, appraiser: Appraiser | None = None
) -> AttestationResult:
    appraiser = appraiser or bench.appraiser
    runtime = request.runtime_data_claims
    return asyncio.run(appraiser.appraise("default", (item,), runtime, desk.INIT_DATA, desk.NOW))


def said(result: AttestationResult, item: VerifiedEvidence, request: Attestation, number: int) -> statement.Statement:
    return statement.of("default", result, (item,), request, request.nonce, NOW + number, NOW + 300 + number)


@pytest.mark.parametrize("root", [RootKind.VENDOR, RootKind.CUSTOM])
def test_what_is_said_of_the_next_one_is_what_would_be_said_of_it_alone(
    bench: desk.Bench, engine: RegoEngine, root: RootKind
) -> None:
    for number in range(4):
        item, request = like(number, root=root), asked(number)
        result = appraised(bench, item, request)
        alone = appraised(bench, replace(item, alike=None), request, Appraiser(bench.book, engine))
        assert alone.alike is None
        assert replace(result, alike=None) == alone
        mine, fresh = said(result, item, request, number), said(alone, item, request, number)
        assert bool(mine.own) is bool(number)  # the first is said as a whole
        assert mine.claims == fresh.claims
        told = mine.told or (mine.tell and mine.tell())
        assert told == fresh.told == ear.parse(mine.claims)
        assert mine.row == fresh.row
        value, digest, shelve = session.attested(
            RING, "a", NOW + 9, "snp", request.key.members, 1, mine.claims, "0.4.0", mine.kept, mine.own
        )
        opened = session.open_(RING, "a", value, NOW)
        assert isinstance(opened, session.Attested)
        assert session.claims(opened, None) == mine.claims
        assert (opened.digest, shelve) == (digest, False)


def test_it_is_asked_only_once_of_those_that_are_alike(bench: desk.Bench, engine: RegoEngine) -> None:
    results = [appraised(bench, like(number), asked(number)) for number in range(3)]
    assert isinstance(results[0].alike, Likeness)
    assert {id(result.alike) for result in results} == {id(results[0].alike)}
    for other in (like(0, "another"), like(0, unchecked=("chip_id",)), like(0, root_fingerprint="00" * 32)):
        assert appraised(bench, other, asked(0)).alike is not results[0].alike
    several = asyncio.run(
        bench.appraiser.appraise("default", (like(0), like(1)), asked(0).runtime_data_claims, desk.INIT_DATA, desk.NOW)
    )
    assert several.alike is None


@pytest.mark.parametrize(
    "read",
    [
        "input.report_data",
        "input.runtime_data_claims.nonce",
        "input.snp.report_data",
        "input.runtime_data_claims",
        "input.snp",
        'input["tdx"]',
    ],
)
def test_a_policy_that_reads_what_is_each_one_s_own_is_asked_each_time(bench: desk.Bench, read: str) -> None:
    """And one that reads only what is alike is not."""
    bench.policy(
        f'default trust_claims := {{"executables": 33}}\ntrust_claims := {{"executables": 3}} if {read} == "x"\n'
    )
    found = appraised(bench, like(1), asked(1))
    assert (found.alike is not None) is ("tdx" in read)


def test_by_the_nonce_two_that_are_alike_get_different_answers(bench: desk.Bench) -> None:
    data = (bytes([2]) * 64).hex()
    bench.policy(
        f'default trust_claims := {{"executables": 33}}\ntrust_claims := {{"executables": 3}} if input.report_data == "{data}"\n'
    )
    found = [appraised(bench, like(number), asked(number)).primary.vector["executables"] for number in (1, 2, 1)]
    assert found == [33, 3, 33]


def test_nothing_outlives_a_change(bench: desk.Bench) -> None:
    first = appraised(bench, like(1), asked(1))
    assert first.primary.vector["executables"] == 3
    bench.publish({"snp_launch_measurement": ["cd" * 48]}, expires=None)
    second = appraised(bench, like(2), asked(2))
    assert second.primary.vector["executables"] != 3
    assert second.alike is not first.alike
    bench.publish(desk.REFERENCES, expires=desk.NOW + timedelta(seconds=1))
    assert appraised(bench, like(3), asked(3)).primary.vector["executables"] == 3
    late = asyncio.run(
        bench.appraiser.appraise(
            "default", (like(4),), asked(4).runtime_data_claims, desk.INIT_DATA, desk.NOW + timedelta(seconds=2)
        )
    )
    assert late.primary.vector["executables"] != 3


def test_another_document_is_another_matter(bench: desk.Bench) -> None:
    appraised(bench, like(1), asked(1))
    other = workload.write(workload.Workload(image="sha256:" + "b" * 64, command=["/bin/true"]))
    with pytest.raises(BindingMismatch):
        asyncio.run(
            bench.appraiser.appraise(
                "default", (like(2),), asked(2).runtime_data_claims, initdata.parse(other.raw), desk.NOW
            )
        )
    bare = asyncio.run(bench.appraiser.appraise("default", (like(2),), asked(2).runtime_data_claims, None, desk.NOW))
    assert "init_data_claims" not in bare.primary.annotated


def test_a_form_is_made_only_where_its_gaps_are_plain(bench: desk.Bench, engine: RegoEngine) -> None:
    payload = msgspec.json.decode(said(appraised(bench, like(1), asked(1)), like(1), asked(1), 1).claims)
    form = ear_form.of(payload)
    assert form is not None
    assert ear_form.of({**payload, "more": "\0d"}) is None
    assert ear_form.of({**payload, "\0k": 1}) is None
    inside = ear_form.of({**payload, "more": "a \0d b"})
    assert inside is not None
    own = ear_form.own_parts(issued=1, expires=2, data="00", nonce="n", key={"x": '"\0'}, token_id="t")
    assert b"a \\u0000d b" in inside.filled(own)
    for text, filling in ((b"{}", own), (form.text, own[:5]), (form.text + b'"\\u0000d"', own)):
        with pytest.raises(SessionInvalid):
            ear_form.written(text, filling)


def test_a_release_is_decided_once_for_holders_that_are_alike(bench: desk.Bench, engine: RegoEngine) -> None:
    releaser = Releaser(bench.book, engine, environment=Environment.PRODUCTION)
    path = ResourcePath("default", "key", "1")
    bound = Binding(workloads=[str(desk.DOCUMENT.digest)])
    bench.store.resources.set("default", path, b"secret", bound, desk.NOW)

    def holder(number: int, *, readable: bool, expires: int = NOW + 300, alike: object = "one guest") -> Holder:
        item, request = like(number, alike), asked(number)
        result = appraised(bench, item, request)
        made = said(result, item, request, number)
        told = made.told or (made.tell and made.tell())
        return Holder(request.key, result.generation, "", expires, told if readable else None, made.like)

    def decide(one: Holder) -> Permit:
        generation, stored = bench.store.resources.with_generation("default", path)
        return asyncio.run(releaser.decide("default", one, path, stored, desk.NOW, {}, generation=generation))

    appraised(bench, like(9), asked(9))
    first = decide(holder(1, readable=True))
    assert first.by == "workload"
    again = decide(holder(2, readable=False))
    assert (again.by, again.policies) == (first.by, first.policies)
    for other in (
        holder(3, readable=False, alike="another guest"),
        holder(3, readable=False, expires=NOW),
        replace(holder(3, readable=False), like=None),
    ):
        with pytest.raises(ValueError, match="nobody knows"):
            decide(other)
    old = holder(4, readable=False)
    bench.store.resources.bind("default", path, Binding(workloads=["sha256:" + "0" * 64]), desk.NOW)
    with pytest.raises(ValueError, match="nobody knows"):
        decide(old)
    for _ in range(2):
        with pytest.raises(ReleaseRefused):
            decide(holder(5, readable=True))


def test_documents_fill_no_memory(bench: desk.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may start guests chooses their documents: memories have a bound in bytes."""
    monkeypatch.setattr("adyton.broker.appraiser.MAX_ALIKE_BYTES", 3 * len(desk.INIT_DATA.raw))
    first = appraised(bench, like(1, "guest 0"), asked(1)).alike
    for number in range(20):
        found = appraised(bench, like(2, f"guest {number}"), asked(2)).alike
        assert found is not None
        assert (found is first) is (number == 0)
        assert appraised(bench, like(3, f"guest {number}"), asked(3)).alike is found
        assert len(bench.appraiser._alike._answers) <= 3
    assert appraised(bench, like(1, "guest 0"), asked(1)).alike is not first


def test_holders_have_a_bound_in_number_and_in_bytes() -> None:
    key = asked(1).key

    def someone() -> Holder:
        return Holder(key, 1, "", NOW, None)

    holders = Holders(number=3, size=8000)
    for number in range(5):
        holders.put(bytes([number]), someone(), 10)
    assert [number for number in range(5) if holders.get(bytes([number]))] == [2, 3, 4]
    holders.put(b"huge", someone(), 1001)
    assert holders.get(b"huge") is None
    assert holders.get(b"\4") is not None
    holders = Holders(number=100, size=8000)
    for number in range(20):
        for _ in range(2):  # the same one again takes no more
            holders.put(bytes([number]), someone(), 1000)
    assert [number for number in range(20) if holders.get(bytes([number]))] == list(range(12, 20))


def test_what_a_permit_is_remembered_by_keeps_no_documents_and_no_reference_values(bench: desk.Bench) -> None:
    """They outlive what is said of those that are alike, and the views that decided."""
    found, request = appraised(bench, like(1), asked(1)), asked(1)
    made = said(found, like(1), request, 1)
    assert isinstance(found.alike, Likeness)
    assert type(made.like) is object
    assert type(found.alike.view) is object
    assert said(appraised(bench, like(2), asked(2)), like(2), asked(2), 2).like is made.like
