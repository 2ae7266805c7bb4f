"""Real TPM evidence: every case as the manifest expects it; a flipped bit in what is signed never verifies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.tee.tpm.building import NOW, verify

from adyton.cli.vectors import run
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.forge import flip
from adyton.devtee.tpm import b64
from adyton.errors import EndorsementUntrusted, EvidenceError
from adyton.rats.types import ReportData, Revocation, RootKind, TrustAnchors
from adyton.tee.eventlog.banks import SHA256
from adyton.tee.tpm.abi import Attest, PublicArea
from adyton.tee.tpm.quote import verify_quote
from adyton.wire import b64 as strict_b64

CASES = 15


def test_every_case_is_as_the_manifest_expects(manifest: dict[str, Any], vectors: Path) -> None:
    entries = [entry for entry in manifest["cases"] if entry["tee"] == "tpm"]
    assert len(entries) >= CASES
    for entry in entries:
        outcome = run(manifest, vectors, entry)
        assert outcome.ok, (entry["id"], outcome.differs, outcome.got)


def google(vectors: Path, **changes: bytes) -> tuple[bytes, EndorsementSet]:
    folder = vectors / "tpm" / "gce-cos85-nonce9009"
    parts = {path.name: path.read_bytes() for path in folder.iterdir()} | changes
    pcrs = json.loads((vectors / "manifest.json").read_text())
    (case,) = [entry for entry in pcrs["cases"] if entry["id"] == "tpm-gce-cos85-nonce9009"]
    document = {
        "quotes": [
            {"message": b64(parts[f"quote_{bank}.attest"]), "signature": b64(parts[f"quote_{bank}.sig"])}
            for bank in ("sha1", "sha256", "sha384")
        ],
        "pcrs": case["claims"]["pcrs"],
        "ak_public": b64(parts["ak_pub.tpmt"]),
        "ak_certificate": b64(parts["ak_cert.der"]),
        "event_log": b64(parts["event_log.bin"]),
    }
    roots = [vectors / "roots" / name for name in ("gcp-tpm-ek-intermediate-2020.crt", "gcp-tpm-ek-root-2018.cer")]
    return json.dumps(document).encode(), EndorsementSet.parse([path.read_bytes() for path in roots])


def test_a_quote_of_googles_cloud_leads_to_googles_root(vectors: Path) -> None:
    evidence, endorsements = google(vectors)
    given: dict[str, Any] = {"endorsements": endorsements, "revocation": Revocation.UNCHECKED_AS_ASKED}
    verified = verify(evidence, report_data=ReportData(b"\x90\x09"), **given)
    assert verified.root is RootKind.VENDOR
    assert verified.expires_first == "ak"
    instance: Any = verified.claims["gce_instance"]
    assert (instance["zone"], instance["instance_name"]) == ("us-central1-a", "cos-test")
    assert verified.claims["tpm_model"] == "vTPM"
    assert verified.claims["secure_boot"] is True
    only = TrustAnchors(vendor=False, custom=frozenset({bytes(32)}))
    with pytest.raises(EndorsementUntrusted):
        verify(evidence, anchors=only, **given)


@pytest.mark.parametrize("name", ["quote_sha1.attest", "quote_sha256.attest", "quote_sha384.sig"])
def test_a_flipped_bit_of_googles_quotes_never_verifies(vectors: Path, name: str) -> None:
    whole = (vectors / "tpm" / "gce-cos85-nonce9009" / name).read_bytes()
    for bit in range(0, 8 * len(whole), 61):
        evidence, endorsements = google(vectors, **{name: flip(whole, bit)})
        with pytest.raises(EvidenceError):
            verify(evidence, endorsements=endorsements, revocation=Revocation.UNCHECKED_AS_ASKED)


def test_a_flipped_bit_of_a_digest_in_googles_log_never_replays(vectors: Path) -> None:
    log = (vectors / "tpm" / "gce-cos85-nonce9009" / "event_log.bin").read_bytes()
    for bit in (8 * 73 + 8 * 14, 8 * 73 + 8 * 40, 8 * 73 + 8 * 80):
        evidence, endorsements = google(vectors, **{"event_log.bin": flip(log, bit)})
        with pytest.raises(EvidenceError):
            verify(evidence, endorsements=endorsements, revocation=Revocation.UNCHECKED_AS_ASKED)


def test_every_flipped_bit_of_cocos_quote_is_refused(vectors: Path) -> None:
    document = json.loads((vectors / "tpm" / "coco-tpm-evidence.json").read_text())
    quote = document["tpm_quote"]
    verify(json.dumps(document).encode(), now=NOW)
    for name in ("message", "signature"):
        whole = strict_b64.decode(quote[name])
        for bit in range(8 * len(whole)):
            changed = {**document, "tpm_quote": {**quote, name: b64(flip(whole, bit))}}
            with pytest.raises(EvidenceError):
                verify(json.dumps(changed).encode())


def test_keylimes_key_has_the_name_that_its_tpm_gave_it(vectors: Path) -> None:
    folder = vectors / "tpm" / "keylime"
    area = PublicArea.parse((folder / "ak.pub").read_bytes())
    assert area.name == (folder / "ak.name").read_bytes()
    message = (folder / "quote.out").read_bytes()
    quote = verify_quote(message, (folder / "quotesig.out").read_bytes(), area.key())
    assert quote.attest.selections[0].bank is SHA256
    assert Attest.parse(message).encode() == message
