"""Endorsements that nobody laid out: fetched once, never on the event loop, and believed no more than others."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.broker import rig
from tests.collateral.endorser import Endorser, play_amd, running, vcek_path

from adyton.crypto import jwk
from adyton.crypto.x509 import Certificate
from adyton.devtee.forge import Forge
from adyton.protocol import rcar
from adyton.rats import binding
from adyton.tee.snp import json_form
from adyton.tee.snp.abi import SnpReport


@pytest.fixture(scope="module")
def forge() -> Forge:
    return Forge.new(datetime.fromtimestamp(time.time(), UTC))


@pytest.fixture
def endorser() -> Iterator[Endorser]:
    with running() as started:
        yield started


def started(tmp_path: Path, forge: Forge, *arguments: str) -> rig.RunningBroker:
    root = Certificate(forge.certificates[2][1]).spki_fingerprint.hex()
    trust = ("--environment", "test", "--trust-dev-root", root)
    return rig.started(tmp_path / "data", None, *trust, *arguments)


def attest(broker: rig.RunningBroker, forge: Forge, **fields: Any) -> tuple[int, dict[str, Any]]:
    """A guest that brings a report and no certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    members = dict(jwk.from_public(key.public_key()).members)
    with rig.raw(broker) as client:
        _, read, _ = client.ask("POST", "/kbs/v0/auth", rcar.request_body("snp"))
        nonce = json.loads(read)["nonce"]
        bound = binding.expected("snp", binding.primary_object(nonce, members)).value
        report = SnpReport.parse(forge.report(**{"report_data": bound, **fields}))
        body = rcar.attestation_body(nonce, members, json_form.to_json(report, []), None)
        status, read, _ = client.ask("POST", "/kbs/v0/attest", body)
    return status, json.loads(read)


def test_nothing_is_fetched_unless_asked_for(tmp_path: Path, forge: Forge, endorser: Endorser) -> None:
    play_amd(endorser, forge)
    broker = started(tmp_path, forge, "--collateral-cache", str(tmp_path / "cache"))
    status, answer = attest(broker, forge)
    assert status == 401 and "missing" in answer["detail"]
    assert endorser.asked == []
    assert broker.stop() == 0


def test_what_is_missing_is_fetched_once(tmp_path: Path, forge: Forge, endorser: Endorser) -> None:
    play_amd(endorser, forge)
    where = ("--collateral-cache", str(tmp_path / "cache"), "--fetch-from", f"kds={endorser.url}")
    broker = started(tmp_path, forge, *where)
    for _ in range(3):
        status, answer = attest(broker, forge)
        assert status == 200, answer
    assert sorted(endorser.asked) == sorted(["/vcek/v1/Genoa/cert_chain", "/vcek/v1/Genoa/crl", vcek_path(forge)])
    status, answer = attest(broker, forge, report_data=b"\1" * 64)  # fetched endorsements vouch for nothing else
    assert status == 401 and "report_data_mismatch" in answer["detail"]
    assert broker.stop() == 0
    endorser.outage = True
    (tmp_path / "again").mkdir()
    broker = started(tmp_path / "again", forge, *where)
    assert attest(broker, forge)[0] == 200  # from the cache
    assert broker.stop() == 0


def test_a_foreign_chain_is_not_believed_because_it_was_fetched(
    tmp_path: Path, forge: Forge, endorser: Endorser
) -> None:
    other = Forge.new(forge.now)
    play_amd(endorser, other)
    where = ("--collateral-cache", str(tmp_path / "cache"), "--fetch-from", f"kds={endorser.url}")
    broker = started(tmp_path, forge, *where)
    assert attest(broker, other)[0] == 401
    assert broker.stop() == 0


@pytest.mark.slow
def test_a_slow_endorser_holds_up_nobody_else(tmp_path: Path, forge: Forge, endorser: Endorser) -> None:
    play_amd(endorser, forge)
    endorser.delay = 2.0
    where = ("--collateral-cache", str(tmp_path / "cache"), "--fetch-from", f"kds={endorser.url}")
    broker = started(tmp_path, forge, *where)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(attest, broker, forge)
        time.sleep(0.5)
        slowest = 0.0
        with rig.raw(broker) as client:
            for _ in range(20):
                began = time.monotonic()
                assert client.ask("POST", "/kbs/v0/auth", rcar.request_body("snp"))[0] == 200
                slowest = max(slowest, time.monotonic() - began)
        assert not waiting.done()
        assert slowest < 1.0
        assert waiting.result()[0] in {200, 401}
    assert broker.stop() == 0
