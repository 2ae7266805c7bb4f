"""Cases of event logs that belong to no quote, and the log's half of those that do; for the modules of TDX and TPM."""

from __future__ import annotations

import json
from collections.abc import Sequence

from adyton.cli.vectors.case import Case, Got
from adyton.errors import AdytonError
from adyton.rats.types import JsonValue
from adyton.tee.eventlog import ccel, cel, dstack, facts, ima
from adyton.tee.eventlog.banks import SHA1, SHA256, SHA384
from adyton.tee.eventlog.log import EventLog
from adyton.tee.eventlog.replay import replay

_QUOTED_PAYLOAD = 128  # hex digits of a payload that manifests quote


def cc_event_log_replay(case: Case, got: Got) -> None:
    """``cc-event-log-replay``: RTMRs of a CC event log."""
    log = ccel.parse(case.files["event_log"])
    got.claims |= {f"rtmr{number}": value.hex() for number, value in enumerate(ccel.rtmrs(log))}


def compare_with_rtmrs(case: Case, got: Got, quoted: Sequence[bytes]) -> None:
    """The log's half of TDX' ``quote-with-event-log``: ``quoted`` are RTMR0 to RTMR3 of a quote that was verified."""
    got.claims |= {f"rtmr{number}": value.hex() for number, value in enumerate(quoted)}
    if "report" in case.files:
        events = dstack.parse(json.loads(case.files["report"])["event_log"])
        replayed, counts = dstack.replay(events), [sum(event.rtmr == number for event in events) for number in range(4)]
        got.claims["rtmr3_runtime_events"] = [_quoted(event) for event in dstack.runtime_events(events, tee="tdx")]
    else:
        ccel.parse_table(case.files["ccel_table"])
        log = ccel.parse(case.files["event_log"])
        facts.check_data(log, SHA384, tee="tdx")
        replayed, counts = ccel.rtmrs(log), list(ccel.check_rtmrs(log, quoted, tee="tdx"))
    matches: list[JsonValue] = [f"rtmr{n}" for n in range(4) if counts[n] and replayed[n] == quoted[n]]
    got.members["replay_matches"] = matches
    got.members["rtmr3_events"] = counts[3]
    if any(value != bytes(48) and f"rtmr{number}" not in matches for number, value in enumerate(quoted)):
        got.members["outcome"] = "invalid"
        got.members["failure"] = "event_log_mismatch"


def _quoted(event: dict[str, str]) -> JsonValue:
    name, payload = event["event"], event["payload"]
    return {"event": name, "payload": payload[:_QUOTED_PAYLOAD]}


def event_log_replay(case: Case, got: Got) -> None:
    """``event-log-replay``: PCRs of a firmware's log, in every bank that the case names; data that must be its digest's."""
    log = EventLog.parse(case.files.get("event_log") or case.files["log"])
    got.members["log_format"] = log.format.value
    got.claims["events"] = len(log)
    pcrs = {bank.name: _by_number(replay(log, bank)) for bank in log.banks}
    got.claims["pcrs"] = {name: pcrs.get(name) for name in case.claims.get("pcrs", pcrs)}
    if "original" in case.files:
        original = EventLog.parse(case.files["original"])
        got.claims["replay_equals_original"] = all(replay(original, bank) == replay(log, bank) for bank in log.banks)
    for bank in log.banks:
        try:
            facts.check_data(log, bank, tee="tpm")
        except AdytonError as error:
            number = int(str(error.field).split(",")[0].removeprefix("event "))
            got.members["event_index"] = number
            got.claims |= {"pcr": log.rows[number][0], "event_type": f"{log.rows[number][1]:#x}"}
            raise


def cel_replay(case: Case, got: Got) -> None:
    """``cel-replay``: a canonical event log of Confidential Space."""
    records = cel.parse(case.files["cel"])
    cel.check_content(records, tee="tpm")
    values = cel.replay(records, SHA384)
    ((register, value),) = values.items()
    got.members["all_content_digests_match"] = True
    got.claims |= {
        "records": len(records),
        "register": f"CCMR index {register} (RTMR{register - 1}), index TLV type {records[0].index_kind:#x}",
        "digest": f"sha384 over the content TLV (type {records[0].kind:#x}, 4-byte big-endian length, value)",
        "final_value": value.hex(),
    }


def ima_replay(case: Case, got: Got) -> None:
    """``ima-replay``: a measurement list of Linux."""
    entries = ima.parse(case.files["ima_log"])
    got.members["entries"] = len(entries)
    got.members["template_hashes_recomputed_equal"] = ima.check_templates(entries, tee="tpm")
    got.members["violations"] = sum(entry.violation for entry in entries)
    got.claims["pcr10_sha1"] = ima.replay(entries, SHA1)[ima.IMA_PCR].hex()
    got.claims["pcr10_sha256_recomputed_from_template_data"] = ima.replay(entries, SHA256)[ima.IMA_PCR].hex()


def _by_number(values: dict[int, bytes]) -> dict[str, JsonValue]:
    return {f"{number:02d}": value.hex() for number, value in sorted(values.items())}
