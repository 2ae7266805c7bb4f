"""Sample evidence of both kinds, CPU and device: refused, unless somebody put into writing that they believe anybody.

It exists so that a protocol's two ends can be tried without hardware. Adyton's own way to do that is the development TEE, which
signs; this is only for talking to CoCo's clients. ``TrustAnchors(custom={ANYBODY})`` is the one way to have it accepted, and the
result then says ``RootKind.CUSTOM`` with that fingerprint, so whoever decides can see it and refuse.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Literal

from adyton.errors import EndorsementUntrusted
from adyton.rats.binding import check_report_data
from adyton.rats.types import Check, JsonValue, ReportData, Revocation, RootKind, TrustAnchors, VerifiedEvidence
from adyton.tee.sample.abi import SPEC, SampleEvidence, parse
from adyton.tee.steps import Step, done, walk
from adyton.wire import b64

CONFESSION = b"I trust evidence that anybody can write. It proves nothing, and I will not protect anything with it."
ANYBODY = hashlib.sha256(CONFESSION).digest()

NEVER = datetime.max.replace(tzinfo=UTC)
NO_REPORT_DATA = ReportData(b"\0")  # never a match: an expectation of zeros is refused


class Verification:
    """One piece of evidence, and what was asked for."""

    __slots__ = ("anchors", "evidence", "report_data", "tee")

    def __init__(
        self, tee: str, evidence: SampleEvidence, anchors: TrustAnchors, report_data: ReportData | None
    ) -> None:
        self.tee = tee
        self.evidence = evidence
        self.anchors = anchors
        self.report_data = report_data

    def format(self) -> None:
        """Parsing's."""

    def trust(self) -> None:
        """The confession is among the trusted fingerprints."""
        if ANYBODY not in self.anchors.custom:
            raise EndorsementUntrusted(
                "sample evidence is not signed: anybody can write it",
                code="sample_untrusted",
                tee=self.tee,
                field="evidence",
                spec=SPEC,
                hint="use real hardware, or the development TEE, whose evidence is signed",
            )

    def bound(self) -> None:
        """Report data is the expected one, byte for byte, without padding."""
        if self.report_data is not None:
            got = self.evidence.report_data
            check_report_data(self.tee, self.report_data, ReportData(got) if got else NO_REPORT_DATA)


STEPS: tuple[Step[Verification], ...] = (
    Step(Check("format", ok=True, spec=SPEC, group="evidence"), Verification.format),
    Step(Check("root", ok=True, spec=SPEC, group="evidence"), Verification.trust),
    Step(
        Check("report_data", ok=True, spec="kbs-protocol 1.5", group="binding"),
        Verification.bound,
        lambda run: run.report_data is not None,
        lambda run: (run.report_data.value.hex() if run.report_data else None, run.evidence.report_data.hex()),
    ),
)


def verify(
    tee: Literal["sample", "sampledevice"],
    data: bytes,
    *,
    anchors: TrustAnchors,
    revocation: Revocation,
    report_data: ReportData | None,
    init_data: bytes | None,
    trail: list[Check] | None,
) -> VerifiedEvidence:
    """``EndorsementUntrusted`` always, unless ``ANYBODY`` is trusted. Init data is never compared: there is no field for it."""
    evidence = parse(tee, data)
    run = Verification(tee, evidence, anchors, report_data)
    walk(STEPS, run, trail)
    unchecked = ("signature", *(("revocation",) if revocation is Revocation.UNCHECKED_AS_ASKED else ()))
    unchecked += (*(("report_data",) if report_data is None else ()), "init_data")
    return VerifiedEvidence(
        tee=tee,
        tee_class="cpu" if tee == "sample" else "gpu",
        claims=claims(evidence),
        coco_claims=_coco(tee, evidence, init_data),
        tcb={},
        report_data=ReportData(evidence.report_data) if evidence.report_data else NO_REPORT_DATA,
        init_data=init_data or b"",
        root=RootKind.CUSTOM,
        root_fingerprint=ANYBODY.hex(),
        checks=done(STEPS, run),
        expires=NEVER,
        expires_first="nothing",
        unchecked=unchecked,
    )


def claims(evidence: SampleEvidence) -> dict[str, JsonValue]:
    """What it says, which is next to nothing."""
    return {
        "svn": evidence.svn,
        "measurement": None,
        "debug": None,
        "tcb_status": None,
        "platform_id": None,
        "report_data": evidence.report_data.hex() or None,
        "init_data": None,
    }


def _coco(tee: str, evidence: SampleEvidence, init_data: bytes | None) -> dict[str, JsonValue]:
    """As CoCo's verifier has it: what it makes up for a sample CPU stands there too, and init data is the caller's own."""
    claims: dict[str, JsonValue] = {"svn": evidence.svn, "report_data": b64.encode(evidence.report_data)}
    if tee == "sample":
        claims |= {
            "launch_digest": "abcde",
            "platform_version": {"major": 1, "minor": 4},
            "debug": False,
        }
        if init_data is not None:
            claims["init_data"] = init_data.hex()
    return claims
