"""Reports speak of their own launch only: measurement, document, debug bit, chip; the agent chooses 64 bytes."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
from tests.platform.services import Running, make_document

from adyton.collateral.directory import load
from adyton.errors import EndorsementUntrusted
from adyton.protocol import devtee, workload
from adyton.rats.types import ReportData, TrustAnchors, VerifiedEvidence
from adyton.tee import verify

pytestmark = pytest.mark.root
ASK = """
import base64
answer = host.report(base64.b64decode({data!r}))
host.say([base64.b64encode(answer.report).decode(), [[c.cert_type, len(c.data)] for c in answer.certificates]])
"""


def report_of(service: Running, data: bytes, document: str) -> bytes:
    ((report, certificates),) = cast(
        "list[tuple[str, list[list[object]]]]",
        service.probe(ASK.format(data=base64.b64encode(data).decode()), document=document),
    )
    assert [kind for kind, _ in certificates] == ["VCEK", "ASK", "ARK"]
    return base64.b64decode(report)


def verified(service: Running, report: bytes, data: bytes, document: str) -> VerifiedEvidence:
    about = service.connect().ask(devtee.About())
    assert isinstance(about, devtee.Platform)
    return verify(
        "snp",
        report,
        endorsements=load([service.home / "devtee" / "endorsements"]),
        now=datetime.now(UTC),  # noqa: TID251
        anchors=TrustAnchors(vendor=False, custom=frozenset({bytes.fromhex(about.root_fingerprint)})),
        report_data=ReportData(data),
        init_data=workload.parse(document.encode()).digest.value,
    )


def test_nobody_trusts_it_unasked(shared: Running) -> None:
    data = os.urandom(64)
    report = report_of(shared, data, make_document())
    with pytest.raises(EndorsementUntrusted):
        verify(
            "snp",
            report,
            endorsements=load([shared.home / "devtee" / "endorsements"]),
            now=datetime.now(UTC),  # noqa: TID251
            anchors=TrustAnchors(),
            report_data=ReportData(data),
        )


def test_a_report_says_what_was_launched(shared: Running, probe_guest: Path) -> None:
    data, document = os.urandom(64), make_document(debug=True)
    evidence = verified(shared, report_of(shared, data, document), data, document)
    command = [sys.executable, "-m", "adyton", "measure", "guest", str(probe_guest)]
    measured = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert evidence.claims["measurement"] == measured
    about = shared.connect().ask(devtee.About())
    assert isinstance(about, devtee.Platform)
    assert about.measurement == measured
    assert evidence.claims["chip_id"] == about.chip_id
    assert evidence.claims["vmpl"] == 0
    assert report_debug(report_of(shared, data, document))
    assert not report_debug(report_of(shared, data, make_document()))


def report_debug(report: bytes) -> bool:
    return bool(int.from_bytes(report[8:16], "little") >> 19 & 1)


def test_each_instance_has_its_own_document_and_id(shared: Running) -> None:
    data = os.urandom(64)
    documents = [make_document(), make_document(cwd="/elsewhere"), make_document()]
    reports = [report_of(shared, data, document) for document in documents]
    hosts = [report[0xC0:0xE0] for report in reports]
    assert hosts == [workload.parse(document.encode()).digest.value for document in documents]
    assert len({report[0x140:0x160] for report in reports}) == 3  # REPORT_ID: per instance
    assert len({report[0x1A0:0x1E0] for report in reports}) == 1  # CHIP_ID: per machine


def test_an_agent_cannot_ask_as_another_instance(shared: Running) -> None:
    other = make_document(cwd="/of-another")
    digest = workload.parse(other.encode()).digest.value
    (said,) = shared.probe(
        f"""
import base64, struct
body = json.dumps({{"type": "ReportRequest", "report_data": base64.b64encode(bytes(64)).decode(),
    "host_data": {digest.hex()!r}, "instance": "other", "policy": 0, "measurement": "00" * 48, "vmpl": 3}}).encode()
host.socket.sendall(struct.pack(">I", len(body)) + body)
answer = host.receive()
host.say([answer.report[0xC0:0xE0].hex(), answer.report[0x90:0xC0].hex()])
"""
    )
    host_data, measurement = cast("list[str]", said)
    assert host_data == workload.parse(make_document().encode()).digest.hex
    assert host_data != digest.hex()
    assert measurement != "00" * 48


@pytest.mark.parametrize("length", [0, 1, 63, 65, 4096])
def test_report_data_has_64_bytes(shared: Running, length: int) -> None:
    said = shared.probe(
        f"answer = host.report(bytes({length})); host.say(answer.error['code']); host.say(len(host.report(bytes(64)).report))"
    )
    assert said == ["report_data_length", 1184]


def test_the_frame_for_the_launcher_never_reaches_the_agent(shared: Running) -> None:
    # The first thing that the agent reads is Start, whole; after it there is nothing until it asks.
    (said,) = shared.probe(
        "host.socket.settimeout(0.2)\ntry: host.say(len(host.socket.recv(1)))\nexcept TimeoutError: host.say('quiet')"
    )
    assert said == "quiet"
