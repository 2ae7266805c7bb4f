from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adyton import tee
from adyton.errors import AdytonError
from adyton.rats.types import ReportData
from adyton.tee.remembered import Remembered
from adyton.tee.snp import alike, json_form
from adyton.tee.snp.abi import SnpReport


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    alike._known.clear()
    yield
    alike._known.clear()


def written(report: bytes, chain: tuple[tuple[str, bytes], ...] = ()) -> bytes:
    return msgspec.json.encode(json_form.to_json(SnpReport.parse(report), list(chain)))


def verdict(issuer: Any, evidence: bytes, now: datetime, memory: Remembered | None, **more: Any) -> object:
    try:
        return tee.verify(
            "snp",
            evidence,
            endorsements=issuer.set_of(),
            now=now,
            anchors=issuer.anchors,
            remembered=memory,
            **more,
        )
    except AdytonError as error:
        return (type(error), error.as_dict())


@pytest.fixture(scope="module")
def text(genoa: Any) -> bytes:
    return written(genoa.report())


OTHERS: dict[str, dict[str, Any]] = {
    "vmpl": {"vmpl": 1},
    "measurement": {"measurement": b"\x44" * 48},
    "host data": {"host_data": b"\x55" * 32},
    "chip": {"chip_id": b"\x66" * 64},
    "masked chip": {"chip_id": bytes(64)},
    "guest svn": {"guest_svn": 9},
    "reserved bit of the policy": {"policy": 0},
    "older than committed": {"committed_build": 41},
    "mitigation": {"current_mit_vector": 4},
}


@pytest.mark.parametrize("form", ["raw", "json"])
@pytest.mark.parametrize("other", OTHERS)
def test_a_report_that_differs_in_anything_else_is_checked_as_a_whole(
    genoa: Any, now: datetime, form: str, other: str
) -> None:
    make = written if form == "json" else bytes
    memory = Remembered()
    assert not isinstance(verdict(genoa, make(genoa.report()), now, memory), tuple)
    changed = make(genoa.report(**OTHERS[other]))
    assert alike.see(changed) is None
    assert verdict(genoa, changed, now, memory) == verdict(genoa, changed, now, None)


@pytest.mark.parametrize("form", ["raw", "json"])
def test_what_is_alike_is_verified_by_its_own_signature_report_data_and_host_data(
    genoa: Any, now: datetime, form: str
) -> None:
    make = written if form == "json" else bytes
    memory = Remembered()
    data = ReportData(b"\x77" * 64)
    for asked in (
        {},
        {"report_data": data},
        {"init_data": b"\x22" * 32},
        {"report_data": data, "init_data": b"\x22" * 32},
    ):
        verdict(genoa, make(genoa.report(report_data=data.value)), now, memory, **asked)
    cases = {
        "good": make(genoa.report(report_data=data.value, report_id=b"\x88" * 32)),
        "for another nonce": make(genoa.report(report_data=b"\x78" * 64, report_id=b"\x88" * 32)),
        "signed by another key": make(genoa.report(report_data=data.value, key=_stranger())),
    }
    for evidence in cases.values():
        assert alike.see(evidence) is not None
        for asked in ({}, {"report_data": data}, {"init_data": b"\x22" * 32}, {"init_data": b"\x23" * 32}):
            fresh = verdict(genoa, evidence, now, None, **asked)
            assert verdict(genoa, evidence, now, memory, **asked) == fresh
    good = verdict(genoa, cases["good"], now, memory)
    fresh = verdict(genoa, cases["good"], now, None)
    assert not isinstance(good, tuple)
    assert not isinstance(fresh, tuple)
    assert dict(good.claims) == dict(fresh.claims)  # type: ignore[attr-defined]
    assert list(good.coco_claims) == list(fresh.coco_claims)  # type: ignore[attr-defined]  # a token has them in this order


def _stranger() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP384R1())


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_a_text_that_was_changed_gets_the_verdict_of_a_whole_reading(
    genoa: Any, now: datetime, text: bytes, data: st.DataObject
) -> None:
    memory = Remembered()
    assert not isinstance(verdict(genoa, text, now, memory), tuple)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 8)))
    piece = data.draw(
        st.sampled_from(
            [b"", b"]", b"[", b"1", b"],[", b",", b"-1", b"256", b'"', b" ", b'],"report_id":[', b"1.0", b"}"]
        )
    )
    changed = text[:start] + piece + text[end:]
    assert verdict(genoa, changed, now, memory) == verdict(genoa, changed, now, None)


@pytest.mark.parametrize("name", ["report_data", "report_id", "r", "s"])
@pytest.mark.parametrize(
    "piece", [b"", b"256", b"-1", b"1.0", b'"1"', b"1],[1", b'1],"x":[1', b"null", b"[1]", b"1 ,2", b"01"]
)
def test_lists_that_are_its_own_are_read_as_strictly_as_ever(
    genoa: Any, now: datetime, name: str, piece: bytes
) -> None:
    memory = Remembered()
    text = written(genoa.report())
    verdict(genoa, text, now, memory)
    changed = re.sub(rb'("%b":\[)\d+' % name.encode(), rb"\g<1>" + piece, text, count=1)
    assert changed != text
    assert verdict(genoa, changed, now, memory) == verdict(genoa, changed, now, None)


def test_how_much_is_remembered_is_bounded(genoa: Any, now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alike, "LIMIT", 3)
    monkeypatch.setattr("adyton.tee.snp.verify.MAX_LIKE", 2)
    memory = Remembered()
    for number in range(8):
        report = genoa.report(guest_svn=number)
        assert verdict(genoa, report, now, memory) == verdict(genoa, report, now, None)
        assert len(alike._known) <= 3
        assert len(memory.beside) <= 2


def fused(text: bytes, report: bytes) -> bytes:
    """1184 bytes that have of ``text`` what a report's kind is told by, and of ``report`` what is each one's own."""
    return text[:0x50] + report[0x50:0x90] + text[0x90:0x140] + report[0x140:0x160] + text[0x160:0x2A0] + report[0x2A0:]


@pytest.mark.parametrize("space", [b" ", b"\n", b"\t \r"])
def test_a_text_that_begins_with_space_teaches_nothing_about_raw_reports(
    genoa: Any, now: datetime, space: bytes
) -> None:
    memory = Remembered()
    document = msgspec.json.decode(written(genoa.report()))
    del document["cert_chain"]
    text = space + msgspec.json.encode(document)
    assert not isinstance(verdict(genoa, text, now, memory), tuple)
    odd = fused(text, genoa.report(report_data=b"\x77" * 64))
    assert isinstance(verdict(genoa, odd, now, None), tuple)
    assert verdict(genoa, odd, now, memory) == verdict(genoa, odd, now, None)


def test_reports_of_two_cloud_providers_are_not_alike(genoa: Any, now: datetime) -> None:
    """Their bytes can be the same where the chip's id is masked; what is claimed of them is not."""
    found = []
    memory = Remembered()
    for provider in (b"CN=cloud.example", b"CN=other.example"):
        leaf = genoa.leaf(vlek=True, set_={"5": bytes((0x16, len(provider))) + provider})
        endorsements = genoa.set_of(vcek=None, ask=genoa.standard("asvk"), vlek=leaf)
        for number in range(2):
            report = genoa.report(vlek=True, chip_id=bytes(64), report_data=bytes([number]) * 64)
            found.append(
                tee.verify("snp", report, endorsements=endorsements, now=now, anchors=genoa.anchors, remembered=memory)
            )
    one, same, another, same_as_that = found
    assert one.claims["csp_id"] != another.claims["csp_id"]
    assert (one.alike, another.alike) == (same.alike, same_as_that.alike)
    assert one.alike != another.alike


def test_one_chip_s_reports_cannot_fill_the_memory_again_and_again(
    genoa: Any, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text of the certificates is the sender's: with each spelling another chain is remembered, and the same few reports."""
    monkeypatch.setattr("adyton.tee.snp.verify.MAX_LIKE", 4)
    memory = Remembered()
    for spelling in range(5):
        for number in range(3):
            text = written(genoa.report(guest_svn=number), (("VCEK", genoa.standard("vcek")),))
            spelt = text.replace(b'"cert_chain":', b'"cert_chain":' + b" " * spelling)
            assert verdict(genoa, spelt, now, memory) == verdict(genoa, spelt, now, None)
    assert len(memory) == 5
    assert len(memory.beside) <= 4
