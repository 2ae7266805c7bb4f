"""Cases of TPMs: quotes in several forms, their logs, logs alone."""

from __future__ import annotations

import json
from typing import Any

from adyton import tee
from adyton.cli.vectors import eventlog
from adyton.cli.vectors.case import Case, Got
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import BindingMismatch, EvidenceError
from adyton.rats.types import JsonValue, ReportData, Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee.eventlog.banks import BY_ID, BY_NAME, SHA256
from adyton.tee.eventlog.log import EventLog
from adyton.tee.eventlog.replay import replay
from adyton.tee.tpm import claims as claims_of
from adyton.tee.tpm.abi import PublicArea, Signature
from adyton.tee.tpm.quote import quoted_pcrs, verify_quote
from adyton.wire import b64

_KEYLIME_SELECTIONS = (
    132  # bytes of TPML_PCR_SELECTION in tpm2-tools' file of PCR values; the count of banks stands first
)
_KEYLIME_SLOTS, _KEYLIME_SLOT = 8, 66


def _quote(case: Case, got: Got) -> None:
    if "evidence" in case.files:
        verified = _verify(case, case.files["evidence"], EndorsementSet(), Revocation.REQUIRED)
        got.claims |= {**verified.claims, "pcrs": _only_bank(verified)}
        return
    area = PublicArea.parse(case.files["ak_pub"])
    if case.files["ak_name"] != area.name:
        raise BindingMismatch("the key's name is another", code="ak_name", tee="tpm", field="ak_name")
    verified = _verify(
        case, _bundle_of_loose_files(case), EndorsementSet.parse([case.files["ak"]]), Revocation.REQUIRED
    )
    got.claims |= verified.claims


def _bundle_of_loose_files(case: Case) -> bytes:
    """Quote and signature as tpm2-tools write them, with the PCR values of its own file."""
    message, signature = case.files["quote"], case.files["signature"]
    pcrs = _tpm2_tools_pcrs(case.files["pcrs"])
    values = {"sha256": {str(number): value.hex() for number, value in pcrs.items()}}
    return _bundle([(message, signature)], values, ak_public=case.files["ak_pub"])


def _tpm2_tools_pcrs(data: bytes) -> dict[int, bytes]:
    """tpm2_quote's ``--pcr`` output: a selection list in host order, then lists of eight sized digests, in order."""
    selected = SHA256.identifier.to_bytes(2, "little")
    if data[:4] != b"\1\0\0\0" or data[4:6] != selected or data[6] != 3:
        raise EvidenceError("not a selection of one bank", code="pcr_selection", tee="tpm", field="pcrs")
    bitmap = int.from_bytes(data[7:10], "little")
    numbers = [number for number in range(24) if bitmap >> number & 1]
    offset = _KEYLIME_SELECTIONS + 4 + 4  # the number of lists, then the number of digests in the first
    values = []
    for slot in range(_KEYLIME_SLOTS):
        begin = offset + slot * _KEYLIME_SLOT
        size = int.from_bytes(data[begin : begin + 2], "little")
        values.append(data[begin + 2 : begin + 2 + size])
    return dict(zip(numbers, values, strict=False))


def _quote_with_event_log(case: Case, got: Got) -> None:
    if "bundle" in case.files:
        _windows(json.loads(case.files["bundle"]), got)
        return
    quotes = [
        (case.files[f"quote_{bank}"], case.files[f"sig_{bank}"]) for bank in BY_NAME if f"quote_{bank}" in case.files
    ]
    bundle = _bundle(
        quotes,
        case.claims["pcrs"],
        ak_public=case.files["ak_pub"],
        ak_certificate=case.files["ak_cert"],
        event_log=case.files["event_log"],
    )
    endorsements = case.endorsements("ak_cert_intermediate", "ak_cert_root")
    verified = _verify(case, bundle, endorsements, case.revocation(got))
    got.claims |= verified.claims
    banks = [str(name) for name in verified.claims["event_log_banks"] or ()]  # type: ignore[union-attr]  # a list
    got.members["replay"] = f"all PCRs of the log match in {', '.join(banks[:-1])} and {banks[-1]}"


def _windows(bundle: dict[str, Any], got: Got) -> None:
    """A quote of the SHA-1 era, made for no nonce: only the quote's own verification can be asked to take it."""
    area = PublicArea.parse(b64.decode(bundle["AK"]["Public"]))
    message, signature = b64.decode(bundle["Quote"]["Quote"]), b64.decode(bundle["Quote"]["Signature"])
    quote = verify_quote(message, signature, area.key(), unsafe_sha1_signature=True)
    got.claims |= claims_of.of_quote(quote.attest, Signature.parse(signature))
    bank = BY_ID[bundle["Quote"]["Alg"]]
    values = {bank: {item["Index"]: b64.decode(item["Digest"]) for item in bundle["Log"]["PCRs"]}}
    pcrs = quoted_pcrs(quote, values)
    got.members["pcr_digest_ok"] = True
    got.claims["pcrs"] = claims_of.by_bank(pcrs)[bank.name]
    log = EventLog.parse(b64.decode(bundle["Log"]["Raw"]))
    replayed = replay(log, bank)
    differing: list[JsonValue] = [number for number, value in replayed.items() if value != pcrs[bank][number]]
    got.members["replay_mismatching_pcrs"] = differing


def _verify(case: Case, evidence: bytes, endorsements: EndorsementSet, revocation: Revocation) -> VerifiedEvidence:
    return tee.verify(
        "tpm",
        evidence,
        endorsements=endorsements,
        now=case.now,
        anchors=TrustAnchors(),
        revocation=revocation,
        report_data=ReportData(bytes.fromhex(case.claims["nonce"])),
    )


def _only_bank(verified: VerifiedEvidence) -> JsonValue:
    banks = verified.claims["pcrs"]
    (values,) = banks.values()  # type: ignore[union-attr]  # bank -> values
    return values


def _bundle(quotes: list[tuple[bytes, bytes]], pcrs: object, **parts: bytes) -> bytes:
    listed = [{"message": b64.encode(message), "signature": b64.encode(signature)} for message, signature in quotes]
    return json.dumps(
        {"quotes": listed, "pcrs": pcrs, **{name: b64.encode(part) for name, part in parts.items()}}
    ).encode()


RUNNERS = {
    "quote": _quote,
    "quote-with-event-log": _quote_with_event_log,
    "event-log-replay": eventlog.event_log_replay,
    "cel-replay": eventlog.cel_replay,
    "ima-replay": eventlog.ima_replay,
}
