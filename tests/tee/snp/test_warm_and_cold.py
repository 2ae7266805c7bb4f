"""Whatever came before, and in whatever order: what is remembered gives the verdict that is given without it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import AdytonError
from adyton.rats.types import ReportData, Revocation, TrustAnchors
from adyton.tee.remembered import Remembered
from adyton.tee.snp import alike, json_form
from adyton.tee.snp.abi import SnpReport

DATA = b"\x77" * 64
_CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"report_data": DATA},
    {"report_data": DATA, "report_id": b"\x88" * 32},
    {"report_id": b"\x89" * 32},
    {"vmpl": 1},
    {"host_data": b"\x55" * 32},
    {"chip_id": bytes(64)},
    {"chip_id": b"\x66" * 64},
    {"policy": 0},
    {"version": 3, "launch_mit_vector": 0, "current_mit_vector": 0},
    {
        "version": 2,
        "launch_mit_vector": 0,
        "current_mit_vector": 0,
        "cpuid_family": 0,
        "cpuid_model": 0,
        "cpuid_stepping": 0,
    },
    {"cpuid_family": 0x19, "cpuid_model": 1},
    {"vlek": True},
    {"vlek": True, "chip_id": bytes(64)},
    {"vlek": True, "chip_id": bytes(64), "report_data": DATA},
)


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    alike._known.clear()
    yield
    alike._known.clear()


def _forms(report: bytes, chain: list[tuple[str, bytes]]) -> list[bytes]:
    """The raw report, with another tail, and ways of writing it in JSON, the last of which are none."""
    text = msgspec.json.encode(json_form.to_json(SnpReport.parse(report), chain))
    document = msgspec.json.decode(text)
    alone = msgspec.json.encode({"attestation_report": document["attestation_report"]})
    spaced = text.replace(b'"report_data":[', b'"report_data": [').replace(b'"report_id":[', b'"report_id":[ ')
    floats = text.replace(b'"s":[', b'"s":[0.0,', 1).replace(b",0]},", b"]},", 1)
    return [
        report,
        report[:-1] + b"\1",
        text,
        alone,
        b" " + text,
        b"\n" + alone,
        text + b"\n",
        spaced,
        msgspec.json.format(text, indent=1),
        floats,
        text.replace(b'"vmpl":', b'"vmpl":0,"vmpl":'),
        text.replace(b'"report_data":[', b'"report_data":[],"report_data":['),
        text.replace(b'"r":[', b'"r":[-1,'),
        text.replace(b'"r":[', b'"r":[18446744073709551616,'),
        text[:-1] + b',"cert_chain":null}',
        report[:0x2A0] + report[0x2A1:] + b"\0",
        report[:-1],
    ]


@pytest.fixture(scope="module")
def evidence(genoa: Any) -> list[bytes]:
    chains: list[list[tuple[str, bytes]]] = [[], [("VCEK", genoa.standard("vcek"))], [("VLEK", genoa.standard("vlek"))]]
    reports = [genoa.report(**changes) for changes in _CHANGES]
    return [form for report in reports for chain in chains for form in _forms(report, chain)]


@pytest.fixture(scope="module")
def endorsements(genoa: Any, now: datetime) -> list[EndorsementSet]:
    other = genoa.leaf(vlek=True, set_={"5": b"\x16\x10CN=other.example"})
    soon = now + timedelta(hours=2)
    return [
        genoa.set_of(),
        genoa.set_of(vlek=genoa.standard("vlek"), asvk=genoa.standard("asvk")),
        genoa.set_of(vcek=None, ask=genoa.standard("asvk"), vlek=other),
        genoa.set_of(vcek=None),
        genoa.set_of(crl=None),
        genoa.set_of(stale=genoa.crl(next_update=soon)),
        genoa.set_of(crl=genoa.crl(next_update=soon)),
        genoa.set_of(later=genoa.leaf(not_before=soon)),
        genoa.set_of(vcek=genoa.leaf(not_after=soon)),
        genoa.set_of(ask=genoa.ask(not_before=soon), other=genoa.ask(not_after=soon)),
        genoa.set_of(vcek=genoa.leaf(public_key=genoa.keys.other.public_key())),
        genoa.set_of(vcek=genoa.leaf(serial=77), crl=genoa.crl([77])),
    ]


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_a_warm_memory_changes_no_verdict(
    genoa: Any, now: datetime, evidence: list[bytes], endorsements: list[EndorsementSet], data: st.DataObject
) -> None:
    memory = Remembered(3)
    alike._known.clear()
    some = data.draw(st.lists(st.sampled_from(evidence), min_size=1, max_size=4))
    sets = data.draw(st.lists(st.sampled_from(endorsements), min_size=1, max_size=2))
    for _ in range(data.draw(st.integers(2, 10))):
        given_, asked = data.draw(st.sampled_from(some)), data.draw(st.sampled_from(sets))
        if data.draw(st.integers(0, 3)) == 0:
            at = data.draw(st.integers(0, len(given_)))
            given_ = given_[:at] + data.draw(st.sampled_from([b"", b"\0", b" ", b"]", b"1", b'"'])) + given_[at + 1 :]
        arguments: dict[str, Any] = {
            "endorsements": asked,
            "now": now + data.draw(st.sampled_from([timedelta(0), timedelta(hours=1), timedelta(hours=3)])),
            "anchors": data.draw(st.sampled_from([genoa.anchors, genoa.anchors, genoa.anchors, TrustAnchors()])),
            "revocation": data.draw(st.sampled_from([Revocation.REQUIRED, Revocation.UNCHECKED_AS_ASKED])),
            "report_data": data.draw(st.sampled_from([None, ReportData(DATA), ReportData(b"\x11" * 64)])),
            "init_data": data.draw(st.sampled_from([None, b"\x22" * 32, b"\x55" * 32])),
        }
        assert _told(given_, memory, arguments) == _told(given_, None, arguments)


def _told(given_: bytes, memory: Remembered | None, arguments: dict[str, Any]) -> object:
    """All that is told, as bytes; what is of a likeness is told by its value."""
    try:
        found = tee.verify("snp", given_, remembered=memory, **arguments)
    except AdytonError as error:
        return type(error), error.as_dict()
    claims = [dict(found.claims), dict(found.coco_claims), dict(found.tcb)]
    return msgspec.json.encode(claims), msgspec.structs.replace(found, claims={}, coco_claims={}, tcb={})
