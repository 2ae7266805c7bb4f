"""Cases of SGX and TDX: quotes with and without collateral, event logs, TDREPORTs."""

from __future__ import annotations

import importlib
from datetime import timedelta
from typing import Any

from adyton import tee
from adyton.cli.vectors import eventlog
from adyton.cli.vectors.case import Case, Got
from adyton.errors import AdytonError, UnsupportedEvidence
from adyton.rats.types import ReportData, Revocation, TrustAnchors, VerifiedEvidence

_NO_ENDORSEMENT = ("quote", "event_log", "ccel_table", "expected_report_data", "report")
_OUTCOMES = (
    *("tcb_status", "advisory_ids", "platform_tcb_status", "platform_tcb_date", "qe_tcb_status"),
    *("tdx_module_tcb_status", "tcb_evaluation_data_number", "qe_evaluation_data_number"),
)
_CRLS = (b'"pck_crl"', b'"root_ca_crl"')


def _with_collateral(case: Case, got: Got) -> None:
    name = case.entry["tee"]
    got.claims |= _shown(case)
    verified = tee.verify(
        name,
        case.files["quote"],
        endorsements=case.endorsements(*(role for role in case.files if role not in _NO_ENDORSEMENT)),
        now=case.now,
        anchors=case.anchors(),
        revocation=_revocation(case, got),
    )
    _take(verified, got)
    got.members |= {name: verified.claims[name] for name in _OUTCOMES}


def _revocation(case: Case, got: Got) -> Revocation:
    if all(mark in case.files.get("collateral", b"") for mark in _CRLS):
        return Revocation.REQUIRED
    return case.revocation(got, "root_crl")


def _signature_only(case: Case, got: Got) -> None:
    got.claims |= _shown(case)
    room = importlib.import_module(tee.ROOMS[case.entry["tee"]])
    verified: VerifiedEvidence = room.verify_signatures_without_tcb_as_asked(
        case.files["quote"],
        endorsements=case.endorsements("trusted_root"),
        now=case.now,
        anchors=case.anchors(),
        revocation=Revocation.UNCHECKED_AS_ASKED,
    )
    _take(verified, got)


def _parse_only(case: Case, got: Got) -> None:
    """What can be said of a quote that holds no certificate: it is read, and refused as one that cannot be verified."""
    got.claims |= _shown(case)
    try:
        tee.verify(
            case.entry["tee"],
            case.files["quote"],
            endorsements=case.endorsements(),
            now=case.now,
            anchors=TrustAnchors(),
            revocation=Revocation.UNCHECKED_AS_ASKED,
        )
    except UnsupportedEvidence:
        raise
    except AdytonError as error:  # a certificate is there, and what it needs is not: the case asks for reading alone
        got.members["unchecked"] = [error.code]


def _with_event_log(case: Case, got: Got) -> None:
    """The quote's signatures, at the time of its own certificate; then the log's way to its registers."""
    from adyton.tee.dcap.bodies import TdBody
    from adyton.tee.dcap.quote import Quote
    from adyton.tee.tdx.verify import verify_signatures_without_tcb_as_asked

    raw = case.files["quote"]
    shown = _shown(case)
    now = case.now
    if case.timeless:
        now = case.now.fromisoformat(shown["pck_not_before"]) + timedelta(days=1)
    verified = verify_signatures_without_tcb_as_asked(
        raw,
        endorsements=case.endorsements(),
        now=now,
        anchors=case.anchors() if "trusted_root" in case.files else TrustAnchors(),
        revocation=Revocation.UNCHECKED_AS_ASKED,
    )
    _take(verified, got)
    expected = case.files.get("expected_report_data")
    if expected is not None and verified.report_data != ReportData(expected):
        got.members["outcome"], got.members["failure"] = "invalid", "report_data_mismatch"
    body = Quote.parse(raw).body
    if not isinstance(body, TdBody):
        raise TypeError("an event log beside a quote that is no TD's")
    eventlog.compare_with_rtmrs(case, got, (body.rtmr0, body.rtmr1, body.rtmr2, body.rtmr3))


def _tdreport(case: Case, got: Got) -> None:
    from adyton.tee.tdx.abi import TdReport

    report = TdReport.parse(case.files["tdreport"])
    got.claims |= {"mrtd": report.mrtd.hex(), "debug": report.debug, "hashes_hold": report.hashes_hold}


def _shown(case: Case) -> dict[str, Any]:
    return tee.show(case.entry["tee"], case.files["quote"])


def _take(verified: VerifiedEvidence, got: Got) -> None:
    got.claims |= dict(verified.claims)
    if verified.unchecked:
        got.members["unchecked"] = [*verified.unchecked]


RUNNERS = {
    "quote-with-collateral": _with_collateral,
    "synthetic-quote-with-collateral": _with_collateral,
    "quote-signature-only": _signature_only,
    "quote-parse-only": _parse_only,
    "quote-with-event-log": _with_event_log,
    "cc-event-log-replay": eventlog.cc_event_log_replay,
    "tdreport-parse-only": _tdreport,
}
