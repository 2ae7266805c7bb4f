"""Real quotes and those that were altered: each as the manifest expects; every signed byte matters."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from adyton import tee
from adyton.cli import vectors as runner
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import AdytonError
from adyton.rats.types import RootKind, TrustAnchors
from adyton.tee.dcap.quote import Quote
from adyton.tee.remembered import Remembered

pytestmark = pytest.mark.vectors


@pytest.fixture(scope="session")
def cases(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [case for case in manifest["cases"] if case["tee"] in {"sgx", "tdx"}]


def test_every_case(cases: list[dict[str, Any]], manifest: dict[str, Any], vectors: Path) -> None:
    assert len(cases) >= 110
    for case in cases:
        outcome = runner.run(manifest, vectors, case)
        assert outcome.ok, (case["id"], outcome.got, outcome.differs)


def given(case: dict[str, Any], vectors: Path) -> dict[str, Any]:
    return {
        "endorsements": EndorsementSet.parse([(vectors / case["files"]["collateral"]).read_bytes()]),
        "now": datetime.fromisoformat(case["reference_time"]),
        "anchors": TrustAnchors(),
    }


def with_collateral(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [c for c in cases if c["kind"] == "quote-with-collateral" and c["expected"]["outcome"] == "valid"]


def test_real_quotes_are_the_vendors(cases: list[dict[str, Any]], vectors: Path) -> None:
    for case in with_collateral(cases):
        verified = tee.verify(case["tee"], (vectors / case["files"]["quote"]).read_bytes(), **given(case, vectors))
        assert verified.root is RootKind.VENDOR
        json.dumps([dict(verified.claims), dict(verified.coco_claims), dict(verified.tcb)])
        assert verified.coco_claims["root_key_id"] == (  # as Intel's library names the key of its root
            "46e403bd34f05a3f2817ab9badcaacc7ffc98e0f261008cd30dae936cace18d5dcf58eef31463613de1570d516200993"
        )


SAMPLES = {
    "sgx v3": "sgx-v3-00606a-icelake-automata-2025-08-15-ev17",
    "td10 v4": "tdx-v4-b0c06f-phala-2026-08-13-ev20",
    "td15 v5": "tdx-v5-90c06f-google-2026-02-18-ev18",
}


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_every_byte_that_is_signed(cases: list[dict[str, Any]], vectors: Path, sample: str) -> None:
    """One flipped bit in each byte of header, body, QE report, keys and signatures; warm, so that it is quick."""
    case = next(case for case in cases if case["id"] == sample)
    options = given(case, vectors)
    raw = (vectors / case["files"]["quote"]).read_bytes()
    quote = Quote.parse(raw)
    memory = Remembered()
    tee.verify(case["tee"], raw, **options, remembered=memory)
    end = quote.qe_report_offset + 384 + 64 + 2 + len(quote.qe_auth_data)
    for place in range(end):
        changed = bytearray(raw)
        changed[place] ^= 1 << place % 8
        with pytest.raises(AdytonError):
            tee.verify(case["tee"], bytes(changed), **options, remembered=memory)
    tail = bytearray(raw)
    tail[quote.size :] = bytes(len(raw) - quote.size) + b"more"
    longer = tee.verify(case["tee"], bytes(tail), **options)
    assert longer.claims["mrtd" if case["tee"] == "tdx" else "mrenclave"]


@pytest.mark.slow
@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_every_bit_that_is_signed(cases: list[dict[str, Any]], vectors: Path, sample: str) -> None:
    case = next(case for case in cases if case["id"] == sample)
    options = given(case, vectors)
    raw = (vectors / case["files"]["quote"]).read_bytes()
    quote = Quote.parse(raw)
    memory = Remembered()
    tee.verify(case["tee"], raw, **options, remembered=memory)
    for place in range(8 * (quote.qe_report_offset + 384 + 64 + 2 + len(quote.qe_auth_data))):
        changed = bytearray(raw)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(AdytonError):
            tee.verify(case["tee"], bytes(changed), **options, remembered=memory)


def test_every_byte_of_the_certificates(cases: list[dict[str, Any]], vectors: Path) -> None:
    """A changed certificate in the quote is another certificate, or none; the text around it is nobody's word."""
    case = next(case for case in cases if case["id"] == SAMPLES["td10 v4"])
    options = given(case, vectors)
    raw = (vectors / case["files"]["quote"]).read_bytes()
    quote = Quote.parse(raw)
    begin = quote.size - len(quote.certification_data)
    leaf = raw.index(b"-----END CERTIFICATE-----") - 40
    for place in range(begin + 28, leaf, 5):
        changed = bytearray(raw)
        changed[place] = ord("A") if changed[place] != ord("A") else ord("B")
        with pytest.raises(AdytonError):
            tee.verify(case["tee"], bytes(changed), **options)


@pytest.mark.parametrize("name", ["tcb_info", "qe_identity", "tcb_info_signature", "qe_identity_signature"])
def test_every_byte_of_the_collateral(cases: list[dict[str, Any]], vectors: Path, name: str) -> None:
    case = next(case for case in cases if case["id"] == SAMPLES["td10 v4"])
    options = given(case, vectors)
    raw = (vectors / case["files"]["quote"]).read_bytes()
    bundle = json.loads((vectors / case["files"]["collateral"]).read_bytes())
    text = bundle[name]
    for place in range(0, len(text), 1 if "signature" in name else 37):
        other = "1" if text[place] != "1" else "2"
        changed = bundle | {name: text[:place] + other + text[place + 1 :]}
        options["endorsements"] = EndorsementSet(documents=[json.dumps(changed).encode()])
        with pytest.raises(AdytonError):
            tee.verify(case["tee"], raw, **options)
